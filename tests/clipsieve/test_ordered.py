import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.ordered import ordered_map


@given(st.lists(st.integers(0, 9)), st.integers(1, 5), st.integers(1, 30))
def test_it_is_map_and_takes_no_more_than_it_may(inputs, ahead, limit):
    taken, given_back = [], 0

    def source():
        for i in inputs:
            taken.append(i)
            yield i

    with ThreadPoolExecutor(2) as pool:
        results = []
        for result in ordered_map(pool, lambda i: i * 2, source(), ahead, weigh=lambda i: i, limit=limit):
            waiting = taken[given_back:]
            assert len(waiting) <= ahead
            assert sum(waiting[:-1]) < limit
            given_back += 1
            results.append(result)
    assert results == [i * 2 for i in inputs]


def test_an_error_comes_in_its_turn():
    with ThreadPoolExecutor(2) as pool:
        results = ordered_map(pool, lambda i: 6 // i, [3, 2, 0, 1], 4)
        assert [next(results), next(results)] == [2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_what_is_not_asked_for_is_not_begun():
    gate, begun = threading.Event(), []

    def work(i):
        begun.append(i)
        gate.wait()
        return i

    with ThreadPoolExecutor(1) as pool:
        results = ordered_map(pool, work, range(100), 10)
        threading.Thread(target=gate.set).start()
        next(results)
        gate.clear()
        results.close()
        gate.set()
    assert len(begun) < 100
