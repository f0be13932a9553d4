import threading
from concurrent.futures import ThreadPoolExecutor
from sys import getsizeof

import numpy as np
import pytest

from clipsieve.errors import InputError, Overloaded, TimedOut
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.text_cache import CacheStatistics, TextCache
from tests.inference.gates import PATIENCE, until


class Counting(FakeEmbedder):
    """Keeps what it was asked for; waits to be let go; fails first with each of `errors`."""

    def __init__(self, *errors, wait=False):
        super().__init__()
        self.asked = []
        self.errors = list(errors)
        self.may = threading.Event()
        if not wait:
            self.may.set()

    def embed_texts(self, texts, *, timeout=None, priority=0):
        self.asked.append((list(texts), timeout, priority))
        error = self.errors.pop(0) if self.errors else None
        assert self.may.wait(PATIENCE)
        if error is not None:
            raise error
        return super().embed_texts(texts)


def direct(*texts):
    return FakeEmbedder().embed_texts(texts)


def test_what_is_not_there_is_embedded_in_one_call_once():
    inner = Counting()
    cache = TextCache(inner)
    np.testing.assert_array_equal(cache.embed_texts(["a", "b"]), direct("a", "b"))
    np.testing.assert_array_equal(cache.embed_texts(["c", "a", "d", "c"], priority=3), direct("c", "a", "d", "c"))
    np.testing.assert_array_equal(cache.embed_texts(["d", "b"]), direct("d", "b"))
    assert inner.asked == [(["a", "b"], None, 0), (["c", "d"], None, 3)]
    figures = cache.statistics()
    assert (figures.hits, figures.misses, figures.texts) == (4, 4, 4)


def test_a_text_that_many_ask_for_at_once_is_embedded_once():
    inner = Counting(wait=True)
    cache = TextCache(inner)
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(cache.embed_texts, ["a"])]
        until(lambda: inner.asked)
        futures += [pool.submit(cache.embed_texts, ["a"]) for _ in range(6)]
        futures.append(pool.submit(cache.embed_texts, ["b", "a"]))
        until(lambda: len(inner.asked) == 2)
        inner.may.set()
        found = [future.result(PATIENCE) for future in futures]
    np.testing.assert_array_equal(np.concatenate(found[:7]), np.repeat(direct("a"), 7, axis=0))
    np.testing.assert_array_equal(found[7], direct("b", "a"))
    assert [texts for texts, *_ in inner.asked] == [["a"], ["b"]]
    assert (cache.statistics().hits, cache.statistics().misses) == (7, 2)


def test_two_that_wait_for_each_other_both_get_there():
    inner = Counting(wait=True)
    cache = TextCache(inner)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.embed_texts, ["a", "b"])
        until(lambda: len(inner.asked) == 1)
        second = pool.submit(cache.embed_texts, ["c", "a", "b"])
        until(lambda: len(inner.asked) == 2)
        inner.may.set()
        np.testing.assert_array_equal(first.result(PATIENCE), direct("a", "b"))
        np.testing.assert_array_equal(second.result(PATIENCE), direct("c", "a", "b"))


def test_what_fails_for_one_is_tried_again_by_who_waited_for_it():
    inner = Counting(Overloaded("Come later."), wait=True)
    cache = TextCache(inner)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.embed_texts, ["a"])
        until(lambda: inner.asked)
        second = pool.submit(cache.embed_texts, ["b", "a"])
        until(lambda: len(inner.asked) == 2)
        inner.may.set()
        with pytest.raises(Overloaded):
            first.result(PATIENCE)
        np.testing.assert_array_equal(second.result(PATIENCE), direct("b", "a"))
    assert inner.asked[-1][0] == ["a"]


def test_waiting_for_another_ends_in_time():
    inner = Counting(wait=True)
    cache = TextCache(inner)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.embed_texts, ["a"])
        until(lambda: inner.asked)
        with pytest.raises(TimedOut):
            cache.embed_texts(["a"], timeout=0.02)
        inner.may.set()
        np.testing.assert_array_equal(first.result(PATIENCE), direct("a"))


def test_after_a_failure_nobody_waits_for_what_never_comes():
    cache = TextCache(Counting(KeyError("x"), MemoryError()))
    for error in (KeyError, MemoryError):
        with pytest.raises(error):
            cache.embed_texts(["a", "b"])
    np.testing.assert_array_equal(cache.embed_texts(["b", "a"], timeout=PATIENCE), direct("b", "a"))


def test_no_time_at_all_leaves_nothing_behind(monkeypatch):
    cache = TextCache(Counting())
    with monkeypatch.context() as patched:
        clock = iter([0.0, 10.0])
        patched.setattr("clipsieve.inference.text_cache.time.monotonic", lambda: next(clock))
        with pytest.raises(TimedOut):
            cache.embed_texts(["a"], timeout=5.0)
    np.testing.assert_array_equal(cache.embed_texts(["a"], timeout=PATIENCE), direct("a"))


def test_the_time_left_is_passed_on():
    inner = Counting()
    TextCache(inner).embed_texts(["a"], timeout=PATIENCE)
    assert 0 < inner.asked[0][1] <= PATIENCE


def test_those_used_longest_ago_make_room():
    one = getsizeof("a") + getsizeof(direct("a")[0].copy())
    inner = Counting()
    cache = TextCache(inner, max_bytes=2 * one)
    for text in "abacb":
        cache.embed_texts([text])
    assert [texts for texts, *_ in inner.asked] == [["a"], ["b"], ["c"], ["b"]]
    assert cache.statistics() == CacheStatistics(hits=1, misses=4, texts=2, bytes=2 * one)


def test_a_cache_without_room_keeps_nothing_and_works():
    cache = TextCache(Counting(), max_bytes=0)
    for _ in range(2):
        np.testing.assert_array_equal(cache.embed_texts(["a", "b", "a"]), direct("a", "b", "a"))
    assert cache.statistics() == CacheStatistics(hits=2, misses=4, texts=0, bytes=0)
    with pytest.raises(InputError):
        TextCache(Counting(), max_bytes=-1)


def test_what_callers_do_to_their_rows_does_not_reach_the_cache():
    cache = TextCache(Counting())
    cache.embed_texts(["a"])[:] = 7
    cache.embed_texts(["a"])[:] = 7
    np.testing.assert_array_equal(cache.embed_texts(["a"]), direct("a"))
