"""Questions asked at once are answered together, and each as if it had been asked alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clipsieve.errors import NotFound
from clipsieve.index.gather import GatheredScan, PassCounts
from clipsieve.index.rule import Question
from clipsieve.index.scan import scan_topk
from tests.index.made import make_class, make_rows, make_vectors


def pass_over(rows):
    return lambda questions: scan_topk(rows, questions)[0]


def same(one, two):
    assert one.ids.tolist() == two.ids.tolist()
    np.testing.assert_array_equal(one.best, two.best)


def test_many_threads_get_what_they_asked_for():
    rows = make_rows(make_vectors(3000))
    questions = [Question(make_class(f"c{i}", 1 + i % 3, i % 2, seed=i), 1 + i % 7) for i in range(60)]
    scan = GatheredScan(pass_over(rows))
    with ThreadPoolExecutor(16) as pool:
        for question, ranked in zip(questions, pool.map(scan, questions), strict=True):
            same(ranked, scan_topk(rows, [question])[0][0])


@pytest.fixture
def passes():
    """Lets the test hold a pass, and records how many questions each answered."""

    class Passes:
        begun, go, sizes = threading.Event(), threading.Event(), []

        def __call__(self, questions):
            self.sizes.append(len(questions))
            self.begun.set()
            assert self.go.wait(30)
            if any(q.k == 13 for q in questions):
                raise NotFound("It is gone.")
            return pass_over(make_rows(make_vectors(50)))(questions)

    return Passes()


def wait_for(condition):
    done = threading.Event()
    for _ in range(3000):
        if condition():
            return
        done.wait(0.01)
    raise AssertionError("it never came")


def test_those_that_come_during_a_pass_share_the_next_one(passes):
    scan = GatheredScan(passes)
    questions = [Question(make_class(f"c{i}", 1, 1, seed=i), 3) for i in range(6)]
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(scan, questions[0])
        assert passes.begun.wait(30)
        rest = [pool.submit(scan, q) for q in questions[1:]]
        wait_for(lambda: len(scan._queue) == 5)
        passes.go.set()
        assert [len(f.result(30).ids) for f in (first, *rest)] == [3] * 6
    assert passes.sizes == [1, 5]


def test_a_question_that_fails_fails_alone(passes):
    scan = GatheredScan(passes)
    good, bad = Question(make_class("good", 1, 0), 3), Question(make_class("bad", 1, 0), 13)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(scan, good)
        assert passes.begun.wait(30)
        others = [pool.submit(scan, q) for q in (good, bad, good)]
        wait_for(lambda: len(scan._queue) == 3)
        passes.go.set()
        assert len(first.result(30).ids) == 3
        assert [f.exception(30) is None for f in others] == [True, False, True]
    with pytest.raises(NotFound):
        scan(bad)
    assert len(scan(good).ids) == 3


def test_passes_are_counted_by_their_questions(passes):
    counts = PassCounts()
    scan = GatheredScan(passes, counts)
    question = Question(make_class("c", 1, 0), 3)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(scan, question)
        assert passes.begun.wait(30)
        others = [pool.submit(scan, question) for _ in range(3)]
        wait_for(lambda: len(scan._queue) == 3)
        passes.go.set()
        for one in (first, *others):
            one.result(30)
    scan(question)
    assert counts.taken() == {1: 2, 3: 1}


def test_those_that_ask_again_at_once_stay_together():
    class Clock:
        now = 0.0

    sizes = []

    def answer(questions):
        Clock.now += 9
        sizes.append(len(questions))
        return pass_over(make_rows(make_vectors(50)))(questions)

    scan = GatheredScan(answer, clock=lambda: Clock.now)
    scan._expected, scan._took = 4, 9.0  # as after a pass of four
    question = Question(make_class("c", 1, 0), 3)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            answered = [pool.submit(scan, question) for _ in range(4)]
            assert [len(one.result(30).ids) for one in answered] == [3] * 4
    assert sizes == [4] * 5


def test_who_is_alone_does_not_wait():
    scan = GatheredScan(pass_over(make_rows(make_vectors(50))), clock=lambda: 0.0)  # no time goes by
    question = Question(make_class("c", 1, 0), 3)
    for _ in range(3):
        assert len(scan(question).ids) == 3
