import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings

from clipsieve.errors import InputError
from clipsieve.index import query
from clipsieve.index.calibrate import Background
from clipsieve.index.faiss_index import train_and_build
from clipsieve.index.flat import CombinedIndex, FlatIndex
from clipsieve.index.query import distribution, make_hits, search
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Veto
from clipsieve.types import ClassVectors, Example, Float32, Int64, MetaClass, Neighbors
from tests.index.made import (
    MODEL,
    as_items,
    best_of,
    everything,
    group_by,
    loop,
    make_class,
    make_rows,
    make_vectors,
    questions,
)


class Watched:
    """A VectorIndex that remembers how deep it was asked."""

    def __init__(self, index: FlatIndex, exhaustive: bool = True, most: int = 10**9, error: float = 0.0) -> None:
        self.index, self.exhaustive, self.most, self.score_error = index, exhaustive, most, error
        self.count, self.dim = index.count, index.dim
        self.depths: list[int] = []

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        self.depths.append(k)
        near = self.index.search(queries, self.count, only=only, without=without)
        noise = np.random.default_rng(0).uniform(-1, 1, near.scores.shape).astype(np.float32) * self.score_error
        order = np.argsort(-(near.scores + noise), axis=1, kind="stable")[:, :k]
        ids, scores = np.take_along_axis(near.ids, order, 1), np.take_along_axis(near.scores + noise, order, 1)
        ids[:, self.most :], scores[:, self.most :] = -1, -np.inf
        return Neighbors(ids, scores)

    def range_search(self, *_: object, **__: object) -> list[Neighbors]:
        raise NotImplementedError


@pytest.mark.slow
@given(questions())
@settings(max_examples=80, deadline=None)
def test_an_exhaustive_index_answers_as_the_loop(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    # However deep: a small collection would otherwise be scanned at once.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "SCAN_SHARE", 1)
        patch.setattr(query, "LEAST_DEPTH", 2)
        patch.setattr(query, "DIRECT_SHARE", 0)
        answer = search(question, rows, FlatIndex(rows))
    assert answer.claim == "exact"
    assert as_items(answer.ranked) == best_of(question, rows)


@pytest.mark.slow
@given(questions())
@settings(max_examples=25, deadline=None)
def test_without_an_index_too(asked: tuple[Question, Rows]) -> None:
    question, rows = asked
    answer = search(question, rows)
    assert (answer.claim, answer.scanned) == ("exact", True)
    assert as_items(answer.ranked) == best_of(question, rows)


@pytest.mark.slow
@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", pytest.param("OPQ8,SQ8", marks=pytest.mark.slow), "HNSW16"])
def test_real_indices(factory: str) -> None:
    rows = make_rows(make_vectors(4000, 16), removed=0.05)
    index = train_and_build(factory, rows)
    if index.most_effort > 1:
        index = dataclasses.replace(index, effort=min(index.most_effort, 300))
    recall = None if index.exhaustive and not index.score_error else 0.99
    for seed in range(6):
        c = make_class("c", 1 + seed // 2, seed // 2, 16, seed)
        scale = Background(rows.take(rows.sample(500))).scale(c) if seed % 2 else None
        question = Question(c, 10, scale=scale, without=np.arange(50))
        answer = search(question, rows, index, recall)
        expected = best_of(question, rows)
        if not answer.scanned:
            assert answer.claim == ("exact" if recall is None else "complete")
            assert answer.recall == recall
        found = as_items(answer.ranked)
        if factory == "HNSW16":
            assert len(set(found) & set(expected)) >= 9
        else:
            assert found == expected


def test_a_search_is_no_deeper_than_it_must_be() -> None:
    rows = make_rows(make_vectors(4000))
    index = Watched(FlatIndex(rows))
    answer = search(Question(make_class("c", 3, 0), 20), rows, index)
    assert index.depths == [64]
    assert not answer.scanned
    assert set(answer.timings_ms) == {"search", "score", "total"}


def crowded_by_negatives(n: int = 4000) -> tuple[Rows, ClassVectors]:
    """Rows whose 300 nearest to the positive are nearer to the negative."""
    eye = np.eye(16, dtype=np.float32)
    vectors = make_vectors(n)
    pull = vectors.copy()
    pull[:300] = 0.1 * vectors[:300] + 0.8 * eye[0] + 0.9 * eye[1]
    pull[300:400] = 0.3 * vectors[300:400] + 0.5 * eye[0]
    pull /= np.linalg.norm(pull, axis=1, keepdims=True)
    pull[300:400] *= 0.6  # nearer than the crowd to nothing but the positive
    return Rows(16, [(range(n), pull)]), ClassVectors("c", eye[:1], eye[1:2], MODEL)


@pytest.mark.parametrize("veto", ["hard", "soft"])
def test_candidates_that_a_negative_rejects_or_lowers_make_it_deepen(veto: Veto) -> None:
    rows, c = crowded_by_negatives()
    index = Watched(FlatIndex(rows))
    question = Question(c, 20, veto=veto)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(query, "MOSTLY_REJECTED", 2.0)
        answer = search(question, rows, index)
    assert index.depths[:2] == [64, 256]
    assert as_items(answer.ranked) == best_of(question, rows)


def test_mostly_rejected_candidates_make_it_scan() -> None:
    rows, c = crowded_by_negatives()
    answer = search(Question(c, 20), rows, Watched(FlatIndex(rows)))
    assert (answer.scanned, answer.claim) == (True, "exact")
    assert as_items(answer.ranked) == best_of(Question(c, 20), rows)


def test_an_index_that_returns_short_is_not_believed() -> None:
    rows = make_rows(make_vectors(3000))
    question = Question(make_class("c", 2, 0), 20)
    answer = search(question, rows, Watched(FlatIndex(rows), exhaustive=False, most=15), recall=0.9)
    assert (answer.scanned, answer.claim, answer.recall) == (True, "exact", None)
    assert as_items(answer.ranked) == best_of(question, rows)


def test_the_error_of_scores_widens_the_bound() -> None:
    rows = make_rows(make_vectors(5000))
    question = Question(make_class("c", 2, 1), 30)
    sharp, blurred = Watched(FlatIndex(rows)), Watched(FlatIndex(rows), error=0.15)
    search(question, rows, sharp)
    answer = search(question, rows, blurred, recall=0.9)
    assert len(blurred.depths) > len(sharp.depths)
    assert as_items(answer.ranked) == best_of(question, rows)


@pytest.mark.parametrize(
    ("exhaustive", "error", "claim"), [(True, 0.0, "exact"), (True, 0.001, "complete"), (False, 0.0, "complete")]
)
def test_claims(exhaustive: bool, error: float, claim: str) -> None:
    rows = make_rows(make_vectors(4000))
    index = Watched(FlatIndex(rows), exhaustive=exhaustive, error=error)
    question = Question(make_class("c", 2, 0), 10)
    answer = search(question, rows, index, recall=0.8)
    assert not answer.scanned
    assert (answer.claim, answer.recall) == (claim, 0.8 if claim == "complete" else None)
    both = search(question, rows, CombinedIndex(FlatIndex(Rows(16, [])), index), recall=0.8)
    assert both.claim == claim
    if claim == "complete":
        unmeasured = search(question, rows, index)
        assert (unmeasured.claim, unmeasured.recall, unmeasured.unmeasured) == ("partial", None, True)


@pytest.mark.slow
def test_few_probes_and_product_codes_never_claim_exact() -> None:
    rows = make_rows(make_vectors(4000), removed=0)
    wrong = 0
    for factory in ("IVF32,Flat", "IVF1,PQ4x4"):
        index = train_and_build(factory, rows)
        for seed in range(5):
            question = Question(make_class("c", 2, 1, seed=seed), 10)
            answer = search(question, rows, index, recall=0.5)
            assert (answer.claim == "exact") == answer.scanned
            wrong += as_items(answer.ranked) != best_of(question, rows)
    assert wrong > 0  # or the claims above were modesty


def test_a_threshold_ends_the_search() -> None:
    rows = make_rows(make_vectors(6000))
    c = make_class("c", 2, 0)
    least = best_of(Question(c, 8), rows)[-1][0]
    index = Watched(FlatIndex(rows))
    answer = search(Question(c, 100, threshold=least), rows, index)
    assert index.depths == [200]
    assert len(answer.ranked.ids) == 8
    assert answer.claim == "exact"


def test_rare_filters_are_scored_directly() -> None:
    rows = make_rows(make_vectors(4000))
    index = Watched(FlatIndex(rows), exhaustive=False)
    question = Question(make_class("c", 2, 1), 10, only=rows.sample(100))
    answer = search(question, rows, index, recall=0.5)
    assert index.depths == []
    assert answer.claim == "exact"
    assert as_items(answer.ranked) == best_of(question, rows)


def test_a_budget_ends_in_partial() -> None:
    rows, c = crowded_by_negatives()
    question, index = Question(c, 20), Watched(FlatIndex(rows))
    answer = search(question, rows, index, budget_ms=0)
    assert (answer.claim, answer.recall) == ("partial", None)
    assert index.depths == [64]
    assert {i for _, i, _ in as_items(answer.ranked)} <= {i for _, i, _ in loop(question, rows)}
    assert search(question, rows, budget_ms=0).claim == "partial"
    assert search(question, rows, index, budget_ms=1e6).claim == "exact"


def test_groups_still_fill_k() -> None:
    rows = make_rows(make_vectors(6000), removed=0)
    question = Question(make_class("c", 2, 1), 30, groups=group_by(40))
    index = Watched(FlatIndex(rows))
    answer = search(question, rows, index)
    assert len(answer.ranked.ids) == 30
    assert len(set(answer.ranked.ids // 40)) == 30
    assert as_items(answer.ranked) == best_of(question, rows)


def test_hits() -> None:
    axes = np.eye(4, dtype=np.float32)
    meta = MetaClass("c", ["a", Example(image=3)], ["n"])
    question = Question(ClassVectors("c", axes[:2], axes[2:3], MODEL), 5)
    rows = Rows(4, [(range(10, 12), np.array([[0.1, 0.9, 0.2, 0], [0.5, 0.1, 0.3, 0]], np.float32))])
    answer = search(question, rows)
    first, second = make_hits(question, meta, answer.ranked, ["x", "y"])
    assert (first.id, first.key, first.positive, first.negative) == (10, "x", Example(image=3), Example(text="n"))
    assert first.score == pytest.approx(0.9)
    assert second.margin == pytest.approx(0.2)
    bare = Question(ClassVectors("c", axes[:2], axes[:0], MODEL), 1)
    (hit,) = make_hits(bare, MetaClass("c", ["a", "b"]), search(bare, rows).ranked, ["x"])
    assert (hit.margin, hit.negative) == (math.inf, None)


def test_hits_of_a_calibrated_class_are_on_its_scale() -> None:
    rows = make_rows(make_vectors(2000))
    c = make_class("c", 1, 1)
    scale = Background(everything(rows)[1]).scale(c)
    question = Question(c, 5, threshold=1.5, scale=scale)
    answer = search(question, rows)
    hits = make_hits(question, MetaClass("c", ["p"], ["n"]), answer.ranked, ["k"] * len(answer.ranked.ids))
    assert len(hits) == 5
    assert all(h.score >= 1.5 and h.margin >= 0 for h in hits)
    cosine = rows.take(np.array([hits[0].id]))[0] @ c.positive[0]
    tail = math.erfc((cosine - scale.center[0]) / scale.spread[0] / math.sqrt(2)) / 2
    assert hits[0].score == pytest.approx(-math.log10(tail), abs=1e-4)


def test_distribution() -> None:
    rows = make_rows(make_vectors(3000))
    c = make_class("c", 2, 2)
    ids, vectors = everything(rows)
    only, without = ids[::2], ids[:100]
    kept = np.isin(ids, only) & ~np.isin(ids, without)
    p, n = (np.max(vectors[kept] @ side.T, axis=1) for side in (c.positive, c.negative))
    for threshold in (None, 0.3):
        least = -np.inf if threshold is None else threshold
        got = distribution(Question(c, 1, threshold=threshold, only=only, without=without), rows)
        assert got.exact
        assert got.matched == ((p > n) & (p >= least)).sum()
        assert got.below == (p < least).sum()
        assert got.rejected == ((p <= n) & (p >= least)).sum()
        assert got.counts.sum() == kept.sum()
        np.testing.assert_array_equal(got.counts, np.histogram(p, got.edges)[0])
        np.testing.assert_array_equal(got.rivalled, np.histogram(p[p <= n], got.edges)[0])


def test_distribution_from_a_sample() -> None:
    rows = make_rows(make_vectors(4000))
    question = Question(make_class("c", 2, 2), 1, threshold=0.2)
    true, got = distribution(question, rows), distribution(question, rows, rows.sample(1000))
    assert not got.exact
    assert got.matched + got.rejected + got.below == rows.count
    for name in ("matched", "rejected", "below"):
        assert getattr(got, name) == pytest.approx(getattr(true, name), abs=200)
    with pytest.raises(InputError, match="sample"):
        distribution(dataclasses.replace(question, only=rows.sample(10)), rows, np.array([0]))


def test_what_is_left_out_may_be_known_of_the_sample_alone() -> None:
    rows = make_rows(make_vectors(4000))
    question = Question(make_class("c", 2, 2), 1, threshold=0.2)
    ids, sample = everything(rows)[0], rows.sample(1000)
    flagged = ids[ids % 3 == 0]
    true = distribution(dataclasses.replace(question, without=flagged), rows)
    got = distribution(dataclasses.replace(question, without=np.intersect1d(flagged, sample)), rows, sample)
    assert got.counts.sum() == pytest.approx(true.counts.sum(), rel=0.05)
    for name in ("matched", "rejected", "below"):
        assert getattr(got, name) == pytest.approx(getattr(true, name), abs=150)
    nothing = distribution(dataclasses.replace(question, without=ids), rows, sample)
    assert (nothing.matched, nothing.rejected, nothing.below) == (0, 0, 0)


def test_wrong_dimensions() -> None:
    rows = make_rows(make_vectors(100, 8))
    with pytest.raises(InputError, match="16 dimensions"):
        search(Question(make_class("c", 1, 0), 1), rows)
