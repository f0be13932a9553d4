"""Places, rates and deadlines."""

import socket
import threading

import pytest

from clipsieve.back.gate import OWN, Deadlines, Gate, RateLimit, Shares, client_of, parse_rate
from clipsieve.errors import InputError
from tests.back.service import poll


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_there_are_as_many_places_as_are_answered_and_wait():
    gate = Gate(answering=2, waiting=1, patience=1)
    assert [gate.places.take(OWN) for _ in range(4)] == [True, True, True, False]
    assert gate.begin()
    assert gate.waiting == 2
    gate.end()
    gate.places.give(OWN)
    assert gate.places.take(OWN)
    assert not gate.places.take(OWN)


def taken(shares, address, amount=1):
    """How often so much could be taken."""
    return next(count for count in range(1000) if not shares.take(address, amount))


def test_one_client_leaves_a_quarter_to_the_others():
    shares = Shares(40)
    assert [taken(shares, address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3")] == [30, 10, 0]
    shares.give("192.0.2.1")
    assert taken(shares, "192.0.2.1") == 0
    assert taken(shares, "192.0.2.3") == 1
    assert shares.held == 40


def test_this_machine_may_have_all():
    assert taken(Shares(40), OWN) == 40


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::7", "2001:db8::/64"),
        ("2001:db8::ffff:2%eth0", "2001:db8::/64"),
        ("127.0.0.2", OWN),
        ("::1", OWN),
        ("::ffff:127.0.0.1", OWN),
        ("", OWN),
    ],
)
def test_who_is_one_client(address, client):
    assert client_of(address) == client


def test_what_is_given_back_is_forgotten():
    shares = Shares(100)
    assert taken(shares, "192.0.2.1", 30) == 2
    assert not shares.take("192.0.2.2", 41)
    for _ in range(2):
        shares.give("192.0.2.1", 30)
    assert (shares.held, shares._of) == (0, {})


def test_one_after_the_other_has_its_turn():
    gate = Gate(answering=1, waiting=8, patience=60)
    order, most, inside = [], [], []

    def work(name):
        assert gate.places.take(OWN)
        assert gate.begin()
        inside.append(name)
        most.append(len(inside))
        order.append(name)
        inside.remove(name)
        gate.end()
        gate.places.give(OWN)

    assert gate.places.take(OWN)
    assert gate.begin()
    threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    poll(lambda: gate.waiting == 8)
    assert order == []
    gate.end()
    gate.places.give(OWN)
    for thread in threads:
        thread.join(60)
    assert sorted(order) == list(range(8))
    assert max(most) == 1
    assert gate.waiting == 0


def test_nobody_waits_for_ever():
    gate = Gate(answering=1, waiting=1, patience=0.001)
    assert gate.begin()
    assert not gate.begin()


def test_a_client_has_its_rate_and_no_more():
    clock = Clock()
    rate = RateLimit(2, 10, clock)
    assert [rate.take("2001:db8::" + end) for end in "1ab"] == [0, 0, 5]
    assert [rate.take("192.0.2.1") for _ in range(3)] == [0, 0, 5]
    assert rate.take("192.0.2.2") == 0
    clock.now += 4
    assert rate.take("192.0.2.1") == 1
    clock.now += 1
    assert [rate.take("192.0.2.1") for _ in range(2)] == [0, 5]
    clock.now += 1000
    assert [rate.take("192.0.2.1") for _ in range(3)] == [0, 0, 5]


def test_clients_of_long_ago_are_forgotten():
    rate = RateLimit(1, 1, Clock())
    for number in range(rate.REMEMBERED + 1):
        assert rate.take(f"client {number}") == 0
    assert rate.take("client 0") == 0
    assert rate.take(f"client {rate.REMEMBERED}") == 1


@pytest.mark.parametrize(("text", "calls"), [("3/s", 3), (" 2 / m", 2), ("1/h", 1)])
def test_rates_as_they_are_written(text, calls):
    rate = parse_rate(text)
    assert [rate.take("a") == 0 for _ in range(calls + 1)] == [True] * calls + [False]


@pytest.mark.parametrize("text", ["", "10", "0/s", "-1/s", "1.5/s", "10/d", "10/s,5/m"])
def test_rates_that_are_none(text):
    with pytest.raises(InputError, match=r"--rate-limit .* 10/s"):
        parse_rate(text)


@pytest.mark.parametrize(("step", "seconds"), [("head", 10), ("body", 30), ("leaves", 1)])
def test_a_connection_that_dawdles_is_ended(step, seconds):
    clock = Clock()
    deadlines = Deadlines(arriving=30, clock=clock)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        getattr(deadlines, step)(ours)
        clock.now += seconds - 0.1
        deadlines.sweep()
        theirs.send(b"a")
        assert ours.recv(1) == b"a"
        clock.now += 0.2
        deadlines.sweep()
        assert ours.recv(1) == b""  # it would wait otherwise
        ours.send(b"too late")  # and yet an answer goes out
        assert theirs.recv(8) == b"too late"


def test_an_answer_that_nobody_takes_is_given_up():
    clock = Clock()
    deadlines = Deadlines(arriving=30, clock=clock)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        deadlines.answers(ours, 100 * deadlines.SLOWEST)
        clock.now += 129
        deadlines.sweep()
        ours.send(b"x")
        clock.now += 2
        deadlines.sweep()
        with pytest.raises(BrokenPipeError):
            ours.send(b"x")


def test_one_that_is_answered_is_left_alone():
    clock = Clock()
    deadlines = Deadlines(arriving=1, clock=clock)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        deadlines.body(ours)
        deadlines.clear(ours)
        deadlines.clear(ours)
        clock.now += 1000
        deadlines.sweep()
        theirs.send(b"a")
        assert ours.recv(1) == b"a"
    deadlines.head(ours)
    clock.now += 1000
    deadlines.sweep()  # closed meanwhile
