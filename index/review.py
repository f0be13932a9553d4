"""What to look at next, and what to make an example of, now that somebody has said right or wrong of some items.

Worth asking about are the items that the class's examples are most alike, whichever side those are on: the best 1% by
max(P, N). The smallest margins of a whole collection are between things that look like neither. Of the best, the answer
for those nearest the decision surface teaches the most (uncertainty sampling: Lewis, Gale, "A sequential algorithm for
training text classifiers", 1994).

That asks about nothing that the examples do not know. Spread over all ranks, one item from each stretch of the ranking,
each stretch longer than the one before by one factor, answers show what is right far from the examples too, and
learning (see `learn`) needs such answers to judge what the examples are worth.
"""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import numpy as np

from clipsieve.index.calibrate import Float64
from clipsieve.index.query import search
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Ranked, accepted, join, weigh
from clipsieve.types import ClassVectors, Int64

SHARE = 100
LEAST, MOST = 200, 100_000
"""Candidates: the best 100th of the items, at least and at most so many."""

LEAST_SAID = 3
"""Other items of either verdict from which one is called typical, or not."""

CHUNK = 16_384
"""Candidates whose vectors are held at once."""

Asking = Literal["doubtful", "spread"]

Items = TypeVar("Items")
Others = TypeVar("Others")


@dataclass(frozen=True, slots=True, eq=False)
class Review(Generic[Items]):
    """What to ask next, and where the class disagrees with what was said.

    doubtful  candidates of which nothing was said, nearest the decision surface first; or spread, best first
    left      how many there are, those not returned counted
    missed    said to be right and not accepted: each would do as a positive example. Those most like the others that
              were said to be right come first; one that is more like those said to be wrong is left out once there
              are LEAST_SAID others of both: as an example it draws in what is like it alone
    mistaken  said to be wrong and accepted, farthest inside first: each would do as a negative example
    """

    doubtful: Items
    left: int
    missed: Items
    mistaken: Items

    def map(self, make: Callable[[Items], Others]) -> "Review[Others]":
        """The same of what `make` makes of the items."""
        return Review(make(self.doubtful), self.left, make(self.missed), make(self.mistaken))


def review(
    question: Question,
    rows: Rows,
    right: Int64,
    wrong: Int64,
    examples: Int64,
    limit: int,
    scan: Callable[[Question], Ranked] | None = None,
    asking: Asking = "doubtful",
    direction: ClassVectors | None = None,
) -> Review[Ranked]:
    """At most `limit` items of each kind; reads the rows once.

    right, wrong  ids of which that was said; those that are not live are passed over
    examples      ids of items that are the class's examples already: nothing more is to be asked of them
    scan          answers by reading all rows, as `scan_topk` does, perhaps for several threads at once
    asking        "spread": doubtful are items of all ranks instead
    direction     a class of one example, a learned direction, that ranks in place of the question's examples

    The question's `only` holds for `doubtful` alone, `without` for all; its k, view and groups are not looked at.
    """
    without = examples if question.without is None else np.union1d(examples, question.without)
    said = np.concatenate([right, wrong, without])
    ranking = question if direction is None else dataclasses.replace(question, vectors=direction, scale=None)
    pool = candidates(ranking, rows, scan)
    pool = pool[~np.isin(pool, said)]
    left = len(pool)
    if asking == "spread":
        rest = others(question, rows, np.concatenate([pool, said]), limit)
        pool = spread(pool, rest, rows.count, limit)
    doubtful = weigh_all(question, rows, pool)
    order = np.arange(len(pool))
    if asking == "doubtful":
        near = np.abs(signed_distance(question, doubtful))
        order = np.lexsort((doubtful.ids, -np.maximum(doubtful.best, doubtful.worst), near))

    said_right, said_wrong = (np.unique(ids)[rows.has(np.unique(ids))] for ids in (right, wrong))

    def disagreeing(ids: Int64, expected: bool) -> Ranked:
        ids = np.setdiff1d(ids, without)
        found = weigh_all(question, rows, ids[rows.has(ids)])
        found = found.pick(np.flatnonzero(accepted(found.best, found.worst, question.least) != expected))
        if not expected:
            first = signed_distance(question, found)
        else:
            first, other = likeness(rows, found.ids, said_right), likeness(rows, found.ids, said_wrong)
            if min(len(said_right) - 1, len(said_wrong)) >= LEAST_SAID:
                typical = np.flatnonzero(first >= other)
                found, first = found.pick(typical), first[typical]
        return found.pick(np.lexsort((found.ids, -np.nan_to_num(first)))[:limit])

    return Review(doubtful.pick(order[:limit]), left, disagreeing(right, True), disagreeing(wrong, False))


def likeness(rows: Rows, ids: Int64, said: Int64) -> Float64:
    """The mean inner product of each of these live items with the others of `said`: float64 (n,), NaN without any."""
    total = np.zeros(rows.dim)
    for start in range(0, len(said), CHUNK):
        total += rows.take(said[start : start + CHUNK]).astype(np.float64).sum(axis=0)
    mean = np.full(len(ids), np.nan)
    for start in range(0, len(ids), CHUNK):
        own = slice(start, start + CHUNK)
        vectors = rows.take(ids[own]).astype(np.float64)
        itself = np.isin(ids[own], said)
        others = len(said) - itself
        products = vectors @ total - itself * (vectors * vectors).sum(axis=1)
        np.divide(products, others, out=mean[own], where=others > 0)
    return mean


def spread(best: Int64, rest: Int64, count: int, limit: int) -> Int64:
    """Ids of all ranks, best first: one from each of `limit` stretches, each longer than the one before by one factor.

    best   the ids of the first ranks, in order; a stretch that ends among them gives its middle one
    rest   ids drawn at random from the ranks after those, for the other stretches; `limit` of them, or all
    count  ranks in all
    """
    ends = np.ceil(float(max(1, count)) ** (np.arange(1, limit + 1) / limit) - 1e-9).astype(np.int64)
    ends = np.maximum(ends, np.arange(1, limit + 1))
    ends = ends[ends <= len(best)]
    starts = np.concatenate([[0], ends[:-1]])[: len(ends)]
    return np.concatenate([best[(starts + ends - 1) // 2], rest[: limit - len(ends)]])


def others(question: Question, rows: Rows, without: Int64, limit: int) -> Int64:
    """That many random ids of the question's items that are not in `without`, always the same: int64 (r,)."""
    drawn = rows.sample(limit + len(without), seed=len(without)) if question.only is None else np.unique(question.only)
    drawn = drawn[rows.has(drawn) & ~np.isin(drawn, without)]
    return np.random.default_rng(len(without)).permutation(drawn)[:limit]


def candidates(question: Question, rows: Rows, scan: Callable[[Question], Ranked] | None = None) -> Int64:
    """The ids worth asking about, by falling max(P, N), of equals the lower id: a 100th of the question's items."""
    count = rows.count
    if question.only is not None:
        count = int(rows.has(np.unique(question.only)).sum())
    wanted = min(max(LEAST, math.ceil(count / SHARE)), MOST)
    vectors = question.vectors
    both = np.concatenate([vectors.positive, vectors.negative])  # positives first, as the calibration has them
    alike = ClassVectors(vectors.name, both, vectors.negative[:0], vectors.model)
    asked = dataclasses.replace(question, vectors=alike, k=wanted, threshold=None, view="matched", groups=None)
    return search(asked, rows, scan=scan).ranked.ids


def weigh_all(question: Question, rows: Rows, ids: Int64) -> Ranked:
    """The rule's figures of these live items, whatever side they are on, in order."""
    compiled = question.compile()
    chunks = [ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK)]
    return join([weigh(compiled, chunk, rows.take(chunk)) for chunk in chunks])


def signed_distance(question: Question, ranked: Ranked) -> Float64:
    """How far inside the class items are, float64 (n,), as levels; 0 at its surface, negative outside.

    The surface is where P = N, or where P is the threshold, whichever is reached first. A class with neither accepts
    everything and has none: then it is P, so that the items that are least like its examples come first.
    """
    best, worst = ranked.best.astype(np.float64), ranked.worst.astype(np.float64)
    inside = best - np.maximum(worst, question.least)
    return np.where(np.isposinf(inside), best, inside)
