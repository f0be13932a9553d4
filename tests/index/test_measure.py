import dataclasses

import numpy as np
import pytest

from clipsieve.index import faiss_index, measure, query
from clipsieve.index.asked_kinds import Pool, halves, make_questions
from clipsieve.index.kinds import KindRecall, Shape
from clipsieve.index.made_texts import make_texts, vocabulary
from clipsieve.index.measure import figure, measure_kinds, recall_of
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Ranked
from clipsieve.index.scan import scan_topk
from clipsieve.types import Float32

DIM, N = 24, 8_000


GAP = np.full(DIM, 9 / np.sqrt(DIM))
"""Where images are, and texts are not: those of a real model lie in two cones."""


def unit(vectors: np.ndarray) -> Float32:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def images(n: int, seed: int) -> Float32:
    rng, centres = np.random.default_rng(seed), np.random.default_rng(7).standard_normal((60, DIM))
    near = centres[rng.integers(0, 60, n)] * np.exp(rng.normal(0, 0.5, (n, 1)))
    return unit(near + 0.5 * rng.standard_normal((n, DIM)) + GAP)


def texts(n: int, seed: int) -> Float32:
    return unit(np.random.default_rng(seed).standard_normal((n, DIM)) - GAP)


def text_pool(n: int, seed: int) -> Pool:
    return Pool(texts(n, seed), np.full(n, -1), np.ones(n, np.int64))


def image_pool(rows: Rows, n: int) -> Pool:
    ids = rows.sample(n, seed=2)
    return Pool(rows.take(ids), ids, np.zeros(n, np.int64))


@pytest.fixture(scope="module")
def rows():
    return Rows(DIM, [(range(N), images(N, 0))])


@pytest.fixture(scope="module")
def index(rows):
    return faiss_index.train_and_build("IVF128,Flat", rows)


@pytest.mark.slow
def test_what_is_stated_holds_for_others_of_each_kind(rows, index, monkeypatch):
    """Questions by another seed: no kind finds less than it says, and texts take more effort than images."""
    monkeypatch.setattr(measure, "QUESTIONS", {40: 128})
    monkeypatch.setattr(measure, "VISITED", 200)
    rng = np.random.default_rng(0)
    pools = {"image": halves(image_pool(rows, 600), rng), "text": halves(text_pool(400, 3), rng)}
    kinds = {(kind.source, kind.shape): kind for kind in measure_kinds(index, rows, pools, 0.9)}
    assert len(kinds) == 10
    used = {which: kind for which, kind in kinds.items() if kind.recall is not None}
    assert {("image", "one"), ("image", "several"), ("text", "one")} <= used.keys()
    assert (kinds["text", "one"].effort or 0) > (kinds["image", "one"].effort or 0)
    fresh = {"image": image_pool(rows, 900).pick(slice(600, None)), "text": text_pool(200, 11)}
    for (source, shape), kind in used.items():
        assert kind.recall is not None
        assert kind.recall >= 0.9
        recalls = recalls_of(fresh[source], shape, rows, index, kind)
        assert kind.recall - recalls.mean() <= 0.01, (source, shape)
        assert (recalls < kind.recall - 0.05).mean() <= 0.05, (source, shape)


def recalls_of(pool, shape, rows, index, kind):
    """Recall of answers that a search gives without a scan, against the scan."""
    found = []
    for made in make_questions(pool, shape, 120, 40, rows, 99):
        answer = query.search(made.question, rows, dataclasses.replace(index, effort=kind.effort), kind.recall)
        if answer.claim == "complete":
            found.append(recall_of(answer.ranked, scan_topk(rows, [made.question])[0][0]))
    return np.array(found)


def test_a_kind_that_does_not_reach_what_was_asked_does_not_use_the_index(rows, index, monkeypatch):
    monkeypatch.setattr(measure, "QUESTIONS", {40: 24})
    monkeypatch.setattr(measure, "PAYS", 0.03)
    monkeypatch.setattr(measure, "VISITED", 200)
    pools = {"text": halves(text_pool(200, 3), np.random.default_rng(0))}
    kinds = {kind.shape: kind for kind in measure_kinds(index, rows, pools, 0.99)}
    assert kinds["one"] == KindRecall("text", "one", 40, None, None)


def test_an_effort_that_still_suffices_is_kept(rows, index, monkeypatch):
    monkeypatch.setattr(measure, "QUESTIONS", {40: 24})
    pools = {"image": halves(image_pool(rows, 200), np.random.default_rng(0))}
    for effort, kept in ((60, True), (1, False)):
        known = [KindRecall("image", "one", 40, effort, 0.9)]
        one = next(kind for kind in measure_kinds(index, rows, pools, 0.9, known) if kind.shape == "one")
        assert (one.effort == effort) is kept
        assert (one.recall or 0) >= 0.9


@pytest.mark.parametrize("factory", ["IVF128,Flat", "PCA16,IVF128,Flat", "HNSW16"])
def test_an_effort_is_known_to_find_what_it_finds(factory, monkeypatch):
    """Whether a true answer is found at an effort, told beforehand, is what the search does."""
    index = faiss_index.train_and_build(factory, Rows(DIM, [(range(2000), images(2000, 0))]))
    monkeypatch.setattr(measure, "QUESTIONS", {40: 10})
    few = Rows(DIM, [(range(2000), images(2000, 0))])
    pool = image_pool(few, 60)
    asked = measure.ask(pool, "several", 40, few, 1)
    needed = measure.EffortNeeded(index)(asked)
    for made, truth, need in zip(asked.questions, asked.truth, needed, strict=True):
        effort = 16
        near = dataclasses.replace(index, effort=effort).search(made.question.vectors.positive, 1000)
        if factory != "HNSW16":  # of which only the first 80 are looked for
            np.testing.assert_array_equal(need <= effort, np.isin(truth.ids, near.ids))
        else:
            assert set(truth.ids[need <= effort]) <= set(near.ids.ravel())


def test_a_figure_is_what_nearly_all_answers_keep():
    zeros = np.zeros(100, np.int64)
    assert figure(np.ones(100), zeros) == 1
    some = np.ones(100)
    some[:10] = 0.5
    assert figure(some, zeros) == pytest.approx(0.55, abs=1e-5)  # the mean is 0.95, but a tenth is far below that
    some[:10] = 0.96
    assert figure(some, zeros) == pytest.approx(some.mean() - some.std() / 10)
    two = np.repeat([0, 1], 50)
    assert figure(np.where(two == 1, 0.8, 1.0), two) == pytest.approx(0.8)  # of the worse sort
    assert figure(np.ones(3), np.zeros(3, np.int64)) is None


def test_ties_count_by_score():
    def ranked(ids, scores):
        n = len(ids)
        zeros = np.zeros(n, np.int64)
        return Ranked(np.array(ids), np.array(scores, np.float32), np.full(n, -np.inf, np.float32), zeros, zeros - 1)

    truth = ranked([1, 2, 3], [0.9, 0.5, 0.5])
    assert recall_of(ranked([1, 7, 8], [0.9, 0.5, 0.5]), truth) == 1
    assert recall_of(ranked([1, 7, 8], [0.9, 0.5, 0.4]), truth) == pytest.approx(2 / 3)
    assert recall_of(ranked([], []), truth) == 0
    assert recall_of(ranked([], []), ranked([], [])) == 1


@pytest.mark.parametrize("shape", ["one", "several", "negative", "filtered", "far"])
def test_questions_are_of_their_kind_and_hold_their_own_rows_out(rows, shape: Shape):
    pool = image_pool(rows, 200)
    made = make_questions(pool, shape, 24, 40, rows, 5)
    assert len(made) >= 8
    again = make_questions(pool, shape, 24, 40, rows, 5)
    for one, other in zip(made, again, strict=True):
        np.testing.assert_array_equal(one.question.vectors.positive, other.question.vectors.positive)
    for one in made:
        question = one.question
        asked_with = np.concatenate([question.vectors.positive, question.vectors.negative])
        same = np.flatnonzero((rows.take(question.without)[:, None] == asked_with[None]).all(axis=2).any(axis=1))
        assert len(same) == len(question.without)
        assert len(np.unique(asked_with, axis=0)) == len(same)
        assert (len(question.vectors.positive) > 1) or shape != "several" or len(same) == 1
        assert (question.only is not None) == (shape in ("filtered", "far"))


def test_halves_share_no_example_and_have_of_each_sort():
    pool = Pool(images(30, 1), np.arange(30), np.repeat([0, 1], [20, 10]))
    one, other = halves(pool, np.random.default_rng(0))
    assert sorted([*one.selves.tolist(), *other.selves.tolist()]) == list(range(30))
    assert [np.bincount(half.sorts).tolist() for half in (one, other)] == [[10, 5], [10, 5]]


def test_made_texts_are_of_the_words_given_and_differ():
    words = vocabulary(["zeppelin", "cat"])
    assert words[0] == "zeppelin"
    assert len(words) == len(set(words))
    made = make_texts(words[::2], 100, seed=3)
    assert len(made) == len(set(made)) == 100
    assert made == make_texts(words[::2], 100, seed=3)
    assert make_texts(["a"], 40)
