import gc
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.errors import Closed, InputError, Overloaded, TimedOut
from clipsieve.inference.batch_request import BatchOptions, Request
from clipsieve.inference.batch_statistics import Tally
from clipsieve.inference.row_queue import RowQueue
from tests.inference.gates import PATIENCE, Gate, until, vectors


class Asking(ExitStack):
    """A queue over Gates, asked from one thread. The first request keeps the model busy until the gate is opened."""

    def __init__(self, *gates, lanes=1, clock=None, busy=True, **options):
        super().__init__()
        self.gates = gates or (Gate(),)
        self.gate = self.gates[0]
        models = dict(zip(("image", "text"), self.gates, strict=False))
        self.queue = RowQueue(models, 2, lanes, BatchOptions(**options), **({"clock": clock} if clock else {}))
        self.callback(self.queue.close)
        for gate in self.gates:
            self.callback(gate.open)
        if busy:
            self.first = self.ask([-1])
            self.gate.entered()

    def ask(self, rows, kind="image", timeout=None, priority=0):
        request = self.enter_context(self.queue.request(kind, len(rows), timeout, priority))
        self.queue.put(request, rows)
        return request

    def answers(self, *requests):
        self.gate.open()
        for gate in self.gates:
            gate.open()
        return [self.queue.wait(request) for request in requests]


def test_a_lone_request_is_run_at_once_and_alone():
    with Asking(busy=False) as asking:
        request = asking.ask([1, 2])
        asking.gate.entered()  # nothing else happened: no second request, no time
        assert asking.gate.calls == [[1, 2]]
        np.testing.assert_array_equal(asking.answers(request)[0], vectors([1, 2]))


def test_what_comes_while_the_model_is_busy_is_one_batch_in_the_order_of_arrival():
    with Asking() as asking:
        requests = [asking.ask(rows) for rows in ([1, 2, 3], [4], [5, 6])]
        found = asking.answers(*requests)
        assert asking.gate.calls == [[-1], [1, 2, 3, 4, 5, 6]]
        np.testing.assert_array_equal(np.concatenate(found), vectors(range(1, 7)))


def test_batches_are_filled_by_rows_and_long_requests_cut():
    with Asking(max_batch=4) as asking:
        requests = [asking.ask(rows) for rows in ([1, 2, 3], [4, 5, 6], list(range(7, 17)))]
        found = asking.answers(*requests)
        assert asking.gate.calls == [[-1], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
        assert [len(rows) for rows in found] == [3, 3, 10]
        np.testing.assert_array_equal(np.concatenate(found), vectors(range(1, 17)))


def test_rows_may_be_put_one_after_the_other():
    with Asking() as asking:
        request = asking.enter_context(asking.queue.request("image", 3, None, 0))
        asking.queue.put(request, [1, 2])
        asking.gate.open(2)
        asking.gate.entered()
        assert asking.gate.calls[-1] == [1, 2]
        asking.queue.put(request, [3])
        np.testing.assert_array_equal(asking.answers(request)[0], vectors([1, 2, 3]))


def test_kinds_do_not_share_a_batch_and_the_oldest_goes_first():
    images, texts = Gate(), Gate(1.0)
    with Asking(images, texts) as asking:
        requests = [asking.ask([1], "text"), asking.ask([2]), asking.ask([3], "text"), asking.ask([4])]
        images.open(1)
        texts.entered()
        assert (images.calls, texts.calls) == ([[-1]], [[1, 3]])
        found = asking.answers(*requests)
        assert images.calls == [[-1], [2, 4]]
        np.testing.assert_array_equal(np.concatenate(found), [[1, 1], [2, 0], [3, 1], [4, 0]])


def test_shapes_do_not_share_a_batch_not_even_of_one_request():
    sizes = []

    def model(rows):
        sizes.append(len(rows))
        stacked = np.stack([row["pixels"] for row in rows])
        return stacked.reshape(len(rows), -1)[:, :2].astype(np.float32)

    queue = RowQueue({"image": model}, 2, 1, BatchOptions())
    rows = [{"pixels": np.full(shape, i, np.uint8)} for i, shape in enumerate([(2,), (3,), (2,), (3,), (2,)])]
    with queue.request("image", 5, None, 0) as request:
        queue.put(request, rows)
        np.testing.assert_array_equal(queue.wait(request), [[i, i] for i in range(5)])
    assert sum(sizes) == 5
    queue.close()


def test_a_lower_priority_number_goes_first_and_the_rest_fills_the_batch():
    with Asking(max_batch=3) as asking:
        requests = [asking.ask([1], priority=2), asking.ask([2, 3], priority=1), asking.ask([4]), asking.ask([5])]
        asking.answers(*requests)
        assert asking.gate.calls == [[-1], [4, 5, 2], [3, 1]]


def test_every_lane_runs_a_batch_at_a_time():
    with Asking(lanes=2) as asking:
        second = asking.ask([1])
        asking.gate.entered()
        third = asking.ask([2])
        assert asking.gate.calls == [[-1], [1]]
        asking.answers(second, third)
        assert asking.gate.calls[2:] == [[2]]


def test_a_bad_row_fails_for_its_own_request_alone():
    odd = Gate(bad={13: InputError("It is odd; leave it out."), 21: KeyError("pixels")})
    with Asking(odd) as asking:
        requests = [asking.ask(rows) for rows in ([1, 2], [11, 12, 13], [3], [21], [4, 5, 6])]
        good = asking.answers(requests[0], requests[2], requests[4])
        np.testing.assert_array_equal(np.concatenate(good), vectors(range(1, 7)))
        with pytest.raises(InputError, match=r"^Image 2 cannot be embedded: It is odd; leave it out\.$"):
            asking.queue.wait(requests[1])
        with pytest.raises(KeyError):
            asking.queue.wait(requests[3])


def test_the_culprit_is_found_by_halves():
    with Asking(Gate(bad={41: InputError("No.")})) as asking:
        requests = [asking.ask([number]) for number in range(64)]
        asking.answers(*requests[:41], *requests[42:])
        assert [len(rows) for rows in asking.gate.calls if 41 in rows] == [64, 32, 16, 8, 4, 2, 1]
        assert asking.queue.statistics().kinds["image"].wasted.count == 7


def test_a_bad_text_is_named_by_itself():
    def model(rows):
        raise InputError("No.")

    queue = RowQueue({"text": model}, 2, 1, BatchOptions())
    with queue.request("text", 1, None, 0) as request:
        queue.put(request, ["a red bus"])
        with pytest.raises(InputError, match=r"^The text 'a red bus' cannot be embedded: No\."):
            queue.wait(request)
    queue.close()


@pytest.mark.parametrize("answer", [vectors([1, 2]), vectors([1])[:, :1], None])
def test_an_answer_of_another_shape_is_an_error_and_never_rows(answer):
    queue = RowQueue({"image": lambda rows: answer}, 2, 1, BatchOptions())
    with queue.request("image", 1, None, 0) as request:
        queue.put(request, [1])
        with pytest.raises((RuntimeError, AttributeError)):
            queue.wait(request)
    queue.close()


@pytest.mark.parametrize("death", [SystemExit(), KeyboardInterrupt()])
def test_what_ends_threads_ends_no_more_than_the_request(death):
    with Asking(Gate(bad={1: death})) as asking:
        bad, good = asking.ask([1]), asking.ask([2])
        np.testing.assert_array_equal(asking.answers(good)[0], vectors([2]))
        with pytest.raises(RuntimeError, match="was ended by"):
            asking.queue.wait(bad)


def test_a_thread_that_dies_of_our_own_mistake_leaves_nobody_waiting(monkeypatch):
    with Asking() as asking:
        waiting = [asking.ask([1]), asking.ask([2])]
        with monkeypatch.context() as patched:
            patched.setattr(asking.queue, "_pop", lambda *_: 1 / 0)
            asking.gate.open()
            for request in waiting:
                with pytest.raises(RuntimeError, match="ZeroDivisionError"):
                    asking.queue.wait(request)
        again = asking.ask([3])
        np.testing.assert_array_equal(asking.answers(again)[0], vectors([3]))
        assert asking.queue.statistics().waiting == 0


def test_too_much_waiting_is_refused_until_it_is_less():
    with Asking(queue_limit=3) as asking:
        waiting = [asking.ask([1, 2])]
        with pytest.raises(Overloaded, match=r"^2 rows wait for the model, and with these 2 .* 3 that may") as refused:
            asking.ask([3, 4])
        assert refused.value.retry_after > 0
        waiting.append(asking.ask([3]))
        with pytest.raises(Overloaded):
            asking.ask([4])
        asking.answers(*waiting)
        np.testing.assert_array_equal(asking.answers(asking.ask([4]))[0], vectors([4]))
        assert asking.queue.statistics().kinds["image"].refused == 2


def test_a_request_beyond_the_limit_is_accepted_when_nobody_waits():
    with Asking(queue_limit=3, max_batch=2) as asking:
        large = asking.ask(range(10))
        with pytest.raises(Overloaded):
            asking.ask([11])
        np.testing.assert_array_equal(asking.answers(large)[0], vectors(range(10)))


def test_the_time_to_come_again_is_what_the_waiting_rows_will_take():
    now = [0]
    with Asking(clock=lambda: now[0], queue_limit=10, max_batch=2) as asking:
        now[0] = 3 * 10**9  # for one row
        asking.gate.open(1)
        asking.queue.wait(asking.first)
        asking.ask([1])
        asking.gate.entered()
        asking.ask(range(8))
        with pytest.raises(Overloaded, match="in about 24 s") as refused:
            asking.ask([1, 2, 3])
        assert refused.value.retry_after == 24


@pytest.mark.parametrize("by_options", [False, True])
def test_a_request_whose_time_is_over_leaves_the_queue(by_options):
    with Asking(timeout=0.02 if by_options else None) as asking:
        stays = asking.ask([1], timeout=PATIENCE)
        late = asking.ask([2, 3], timeout=None if by_options else 0.02)
        with pytest.raises(TimedOut, match=r"^The images were not embedded within 0\.02 s"):
            asking.queue.wait(late)
        assert asking.queue.statistics().waiting == 1
        asking.answers(stays)
        assert asking.gate.calls == [[-1], [1]]


def test_one_that_is_late_in_the_model_does_not_disturb_its_batch():
    with Asking() as asking:
        stays, late = asking.ask([1, 2]), asking.ask([3], timeout=0.02)
        asking.gate.open(1)
        asking.gate.entered()
        with pytest.raises(TimedOut):
            asking.queue.wait(late)
        np.testing.assert_array_equal(asking.answers(stays)[0], vectors([1, 2]))
        assert asking.gate.calls == [[-1], [1, 2, 3]]


def test_one_that_is_late_and_then_fails_disturbs_nobody():
    with Asking(Gate(bad={1: InputError("No.")})) as asking:
        late = asking.ask([1], timeout=0.02)
        asking.gate.open(1)
        asking.gate.entered()
        with pytest.raises(TimedOut):
            asking.queue.wait(late)
        np.testing.assert_array_equal(asking.answers(asking.ask([2]))[0], vectors([2]))


def test_a_request_that_is_left_early_is_given_up():
    with Asking() as asking:
        stays = asking.ask([1])
        with asking.queue.request("image", 2, None, 0) as left:
            asking.queue.put(left, [2])
        with pytest.raises(Closed):
            asking.queue.put(left, [3])
        asking.answers(stays)
        assert asking.gate.calls == [[-1], [1]]


def test_with_a_delay_rows_wait_for_company_until_the_batch_is_full():
    with Asking(queue_delay=3600, max_batch=3, busy=False) as asking:
        requests = [asking.ask([1]), asking.ask([2, 3])]
        asking.answers(*requests)
        assert asking.gate.calls == [[1, 2, 3]]


def test_a_thread_that_waits_for_company_sees_it_come():
    looked = threading.Event()

    def clock():
        if threading.current_thread() is not threading.main_thread():
            looked.set()  # it holds the lock now, and lets go of it only to wait
        return 0

    with Asking(queue_delay=3600, max_batch=2, busy=False, clock=clock) as asking:
        first = asking.ask([1])
        assert looked.wait(PATIENCE)
        asking.answers(first, asking.ask([2]))
        assert asking.gate.calls == [[1, 2]]


def test_with_a_delay_rows_do_not_wait_longer_than_that():
    with Asking(queue_delay=0.01, busy=False) as asking:
        asking.answers(asking.ask([1]))
        assert asking.gate.calls == [[1]]


def test_a_full_batch_does_not_wait_for_one_that_may_wait():
    images, texts = Gate(), Gate(1.0)
    with Asking(images, texts, queue_delay=3600, max_batch=2, busy=False) as asking:
        asking.ask([1])
        asking.answers(asking.ask([2, 3], "text"))
        assert images.calls == []


def test_closing_finishes_what_was_accepted_and_refuses_the_rest():
    before = set(threading.enumerate())
    asking = Asking(queue_delay=3600, max_batch=2, busy=False)
    asking.gate.open()
    begun = asking.enter_context(asking.queue.request("image", 2, None, 0))
    accepted = asking.ask([1])
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(asking.queue.close)
        until(lambda: asking.queue._closed)
        with pytest.raises(Closed):
            asking.ask([4])
        assert not closing.done()
        asking.queue.put(begun, [2, 3])
        closing.result(PATIENCE)
    np.testing.assert_array_equal(asking.queue.wait(accepted), vectors([1]))
    np.testing.assert_array_equal(asking.queue.wait(begun), vectors([2, 3]))
    assert set(threading.enumerate()) <= before
    asking.close()


def test_dropping_a_queue_ends_its_threads():
    before = set(threading.enumerate())
    queue = RowQueue({"image": vectors}, 2, 1, BatchOptions())
    with queue.request("image", 1, None, 0) as request:
        queue.put(request, [1])
        queue.wait(request)
    assert not any(thread.daemon for thread in set(threading.enumerate()) - before)
    del queue, request
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)


def test_a_queue_that_was_not_closed_lets_the_interpreter_end():
    code = """
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.row_queue import RowQueue
from tests.inference.gates import vectors
queue = RowQueue({"image": vectors}, 2, 1, BatchOptions())
with queue.request("image", 1, None, 0) as request:
    queue.put(request, [1])
    print(queue.wait(request))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert done.stdout == "[[1. 0.]]\n"


def test_the_figures_are_true_to_the_nanosecond():
    now = [0]
    with Asking(clock=lambda: now[0], busy=False) as asking:
        first = asking.enter_context(asking.queue.request("image", 1, None, 0))
        now[0] = 5
        asking.queue.put(first, [1])
        asking.gate.entered()
        now[0] = 30
        second = asking.enter_context(asking.queue.request("image", 2, None, 0))
        now[0] = 40
        asking.queue.put(second, [2, 3])
        now[0] = 45
        third = asking.ask([4])
        now[0] = 105
        asking.gate.open(1)
        asking.gate.entered()
        now[0] = 305
        asking.answers(first, second, third)
        figures = asking.queue.statistics()
        images = figures.kinds["image"]
        assert figures.waiting == 0
        assert images.succeeded == Tally(3, 105 + 275 + 260)
        assert images.prepare == Tally(3, 5 + 10 + 0)
        assert images.queue == Tally(3, 0 + 65 + 60)
        assert images.compute == Tally(3, 100 + 200 + 200)
        assert images.executions == {1: Tally(1, 100), 3: Tally(1, 200)}
        assert (images.rows, images.refused, images.failed, images.wasted) == (4, 0, Tally(), Tally())


def test_the_figures_of_a_request_in_pieces_are_of_its_first():
    now = [0]
    with Asking(clock=lambda: now[0], busy=False, max_batch=2) as asking:
        request = asking.enter_context(asking.queue.request("image", 3, None, 0))
        now[0] = 1
        asking.queue.put(request, [1, 2])
        asking.gate.entered()
        now[0] = 10
        asking.queue.put(request, [3])
        asking.gate.open(1)
        asking.gate.entered()
        now[0] = 100
        asking.answers(request)
        images = asking.queue.statistics().kinds["image"]
        assert (images.prepare, images.queue) == (Tally(1, 1), Tally(1, 0))
        assert (images.compute, images.succeeded) == (Tally(1, 9 + 90), Tally(1, 100))
        assert images.executions == {1: Tally(1, 90), 2: Tally(1, 9)}


def test_the_figures_count_what_failed():
    now = [0]
    with Asking(Gate(bad={2: InputError("No.")}), clock=lambda: now[0], busy=False) as asking:
        bad = asking.ask([2])
        asking.gate.entered()
        left = asking.queue.request("image", 5, None, 0)
        left.__enter__()
        now[0] = 10
        left.__exit__(None, None, None)
        asking.gate.open()
        with pytest.raises(InputError):
            asking.queue.wait(bad)
        images = asking.queue.statistics().kinds["image"]
        assert (images.failed, images.wasted) == (Tally(2, 10 + 10), Tally(1, 10))
        assert (images.succeeded, images.rows, images.executions) == (Tally(), 0, {})


def test_figures_do_not_change_once_taken():
    queue = RowQueue({"image": vectors}, 2, 1, BatchOptions())
    before = queue.statistics()
    with queue.request("image", 1, None, 0) as request:
        queue.put(request, [1])
        queue.wait(request)
    assert before.kinds["image"].succeeded == Tally()
    assert queue.statistics().kinds["image"].succeeded.count == 1
    queue.close()


@settings(max_examples=60, deadline=None)
@given(
    bursts=st.lists(
        st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["image", "text"]), st.integers(0, 1)), max_size=8),
        max_size=5,
    ),
    max_batch=st.integers(1, 7),
    bad=st.sets(st.integers(0, 60), max_size=4),
)
@pytest.mark.slow
def test_rows_are_never_mixed_up(bursts, max_batch, bad):
    errors = {number: InputError(str(number)) for number in bad}
    gates = {"image": Gate(0.0, errors), "text": Gate(1.0, errors)}
    numbers = iter(range(1000))
    with Asking(*gates.values(), max_batch=max_batch) as asking:
        asked = []
        for burst in bursts:
            for count, kind, priority in burst:
                rows = [next(numbers) for _ in range(count)]
                asked.append((rows, kind, asking.ask(rows, kind, priority=priority)))
            for gate in gates.values():
                gate.open(1)
        asking.answers(asking.first)
        for rows, kind, request in asked:
            if bad & set(rows):
                with pytest.raises(InputError, match=f"^(Image|Text) {rows.index(min(bad & set(rows)))} "):
                    asking.queue.wait(request)
            else:
                np.testing.assert_array_equal(asking.queue.wait(request), vectors(rows, gates[kind].kind))
        figures = asking.queue.statistics()
    for kind, gate in gates.items():
        counts = figures.kinds[kind]
        good = [rows for rows, of, _ in asked if of == kind and not bad & set(rows)] + [[-1]] * (kind == "image")
        assert max(map(len, gate.calls), default=0) <= max_batch
        assert len(gate.calls) == counts.wasted.count + sum(calls.count for calls in counts.executions.values())
        assert (counts.succeeded.count, counts.rows) == (len(good), sum(map(len, good)))
        if not bad:
            assert sum(size * calls.count for size, calls in counts.executions.items()) == counts.rows


def test_many_threads_get_their_own_rows_and_all_is_counted():
    queue = RowQueue({"image": vectors}, 2, 2, BatchOptions(max_batch=5))
    rng = np.random.default_rng(0)
    plans = [[rng.integers(0, 10**6, rng.integers(1, 4)).tolist() for _ in range(40)] for _ in range(12)]

    def ask(plan):
        for rows in plan:
            with queue.request("image", len(rows), None, 0) as request:
                queue.put(request, rows)
                np.testing.assert_array_equal(queue.wait(request), vectors(rows))

    with ThreadPoolExecutor(len(plans)) as pool:
        list(pool.map(ask, plans))
    counts = queue.statistics().kinds["image"]
    assert counts.succeeded.count == 12 * 40
    assert counts.rows == sum(len(rows) for plan in plans for rows in plan)
    assert sum(size * calls.count for size, calls in counts.executions.items()) == counts.rows
    assert counts.prepare.ns + counts.queue.ns <= counts.succeeded.ns
    queue.close()


def test_a_request_that_nobody_waits_for_is_told_of():
    with Asking(busy=False, queue_limit=3) as asking:
        told: list[tuple[object, object]] = []
        done = threading.Semaphore(0)

        def tell(request):
            told.append((request.vectors.tolist(), request.error))
            done.release()

        asking.gate.open()
        asking.queue.submit("image", [1, 2], 0, "mine", tell)
        assert done.acquire(timeout=PATIENCE)
        assert told == [(vectors([1, 2]).tolist(), None)]
        assert asking.queue.statistics().names["mine"].rows == 2


def test_one_that_is_refused_or_fails_is_told_of_once():
    with Asking(Gate(bad={7: InputError("no")}), queue_limit=1) as asking:
        told: list[Request] = []
        asking.queue.submit("image", [7], 0, None, told.append)
        with pytest.raises(Overloaded):
            asking.queue.submit("image", [2], 0, None, told.append)
        asking.gate.open()
        asking.queue.close()
        assert [type(request.error) for request in told] == [InputError]
