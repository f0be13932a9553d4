"""Questions of each kind, made to measure an index with: from its own rows held out, and from texts.

An image is held out by leaving it out of its own answer. Examples of one question are half of the time near each
other, as those of a class are, and half of the time unrelated. Filters leave random rows, those nearest some question,
or those farthest from it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clipsieve.index.kinds import Shape, sample_of, shapes_of
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.index.scan import DIRECT_SHARE
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

NEAR = 20
"""An example's neighbours among those that questions are made of, which others of its class are drawn from."""

MOST_POSITIVES, MOST_NEGATIVES = 5, 3
FILTERS = 4
"""For each way in which a filter may be related to a question."""

WIDEST = 0.6
"""Share of the rows that a filter leaves at most: what leaves more hardly matters."""

THRESHOLD_ROWS = 20_000
"""Rows that say how near the rows of a filter must be."""

Relation = Literal["random", "near", "other", "far"]
"""What a filter leaves: random rows, those nearest the question, those nearest another one, those farthest from it."""

RELATIONS: Mapping[Shape, tuple[Relation, ...]] = {"filtered": ("random", "near", "other"), "far": ("far", "other")}
"""Which filters make questions of a shape; which they are decides `shapes_of`, as it does for a user's."""

SORTS: tuple[Relation, ...] = ("random", "near", "other", "far")

_MODEL = ModelId("measured", "", "")


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Examples that questions are made of.

    vectors  float32 (n, d), unit rows
    selves   int64 (n,), the row that an example is, or belongs to; -1 for none. It is no part of the answer
    sorts    int64 (n,), which sort of example: the figure of a kind is that of its worst sort
    """

    vectors: Float32
    selves: Int64
    sorts: Int64

    def pick(self, at: npt.NDArray[np.intp] | slice) -> "Pool":
        """Those at these positions."""
        return Pool(self.vectors[at], self.selves[at], self.sorts[at])


@dataclass(frozen=True, slots=True, eq=False)
class MadeQuestion:
    """A question, and the sort among whose figures its own counts."""

    question: Question
    sort: int


def halves(pool: Pool, rng: np.random.Generator) -> tuple[Pool, Pool]:
    """Two parts without a common example, each with half of every sort: to tune with, and to measure with."""
    parts: tuple[list[int], list[int]] = ([], [])
    for sort in np.unique(pool.sorts):
        own = rng.permutation(np.flatnonzero(pool.sorts == sort))
        parts[0].extend(own[: len(own) // 2].tolist())
        parts[1].extend(own[len(own) // 2 :].tolist())
    return pool.pick(np.array(parts[0], np.intp)), pool.pick(np.array(parts[1], np.intp))


def make_questions(pool: Pool, shape: Shape, count: int, k: int, rows: Rows, seed: int) -> list[MadeQuestion]:
    """So many questions of one shape for the best k of the rows, the same each time; none of a pool of one."""
    rng = np.random.default_rng(seed)
    if len(pool.vectors) < 2:
        return []
    if shape in RELATIONS:
        return _filtered(pool, shape, count, k, rows, rng)
    first = rng.choice(len(pool.vectors), count, replace=count > len(pool.vectors))
    made = [_question(pool, int(i), shape, k, rng) for i in first]
    return [MadeQuestion(q, 2 * int(pool.sorts[i]) + (q.veto == "soft")) for i, q in zip(first, made, strict=True)]


def _filtered(pool: Pool, shape: Shape, count: int, k: int, rows: Rows, rng: np.random.Generator) -> list[MadeQuestion]:
    relations = [relation for relation in RELATIONS[shape] for _ in range(FILTERS)]
    each = -(-count // len(relations))
    pivots = rng.choice(len(pool.vectors), len(relations), replace=True)
    shares = np.exp(rng.uniform(math.log(1.5 * DIRECT_SHARE), math.log(WIDEST), len(pivots)))
    left = _rows_left(pool.vectors[pivots], relations, shares, rows, rng)
    sample, made = sample_of(rows), []
    for pivot, relation, only in zip(pivots.tolist(), relations, left, strict=True):
        about = rng.integers(0, len(pool.vectors), each).tolist()
        if relation in ("near", "far"):
            about = [pivot, *_near(pool, pivot, rng, each - 1)]
        for i in about:
            within: Shape = ("one", "one", "several", "negative")[rng.integers(0, 4)]
            question = _question(pool, i, within, k, rng, only)
            if shape in shapes_of(question, lambda: sample):
                made.append(MadeQuestion(question, SORTS.index(relation)))
    return made


def _rows_left(
    pivots: Float32,
    relations: Sequence[Relation],
    shares: npt.NDArray[np.float64],
    rows: Rows,
    rng: np.random.Generator,
) -> list[Int64]:
    """The rows that each filter leaves: ids int64, ascending."""
    sample = rows.take(rows.sample(THRESHOLD_ROWS)) @ pivots.T  # (r, f)
    cuts = [np.quantile(sample[:, f], share if relations[f] == "far" else 1 - share) for f, share in enumerate(shares)]
    left: list[list[Int64]] = [[] for _ in shares]
    for ids, vectors in rows.blocks():
        scores = vectors @ pivots.T  # (b, f)
        for f, share in enumerate(shares):
            if relations[f] == "random":
                kept = rng.random(len(ids)) < share
            else:
                kept = scores[:, f] <= cuts[f] if relations[f] == "far" else scores[:, f] >= cuts[f]
            left[f].append(ids[kept])
    return [np.concatenate(parts) if parts else np.zeros(0, np.int64) for parts in left]


def _question(
    pool: Pool, first: int, shape: Shape, k: int, rng: np.random.Generator, only: Int64 | None = None
) -> Question:
    """A question about one example of the pool, and others beside it as the shape has it."""
    positives, negatives = [first], list[int]()
    if shape == "several":
        positives += _others(pool, first, rng, int(rng.integers(1, MOST_POSITIVES)))
    if shape == "negative":
        positives += _others(pool, first, rng, int(rng.integers(0, 2)))
        negatives = _others(pool, first, rng, int(rng.integers(1, MOST_NEGATIVES + 1)))
    selves = pool.selves[[*positives, *negatives]]
    return Question(
        ClassVectors("measured", pool.vectors[positives], pool.vectors[negatives], _MODEL),
        k,
        only=only,
        without=np.unique(selves[selves >= 0]),
        veto="soft" if shape == "negative" and rng.random() < 0.5 else "hard",
    )


def _others(pool: Pool, first: int, rng: np.random.Generator, count: int) -> list[int]:
    """Other examples: all near the first, or all random."""
    near = rng.random() < 0.5
    found = _near(pool, first, rng, count) if near else rng.integers(0, len(pool.vectors), count)
    return [int(i) for i in found if i != first]


def _near(pool: Pool, first: int, rng: np.random.Generator, count: int) -> Sequence[int]:
    """Of the NEAR nearest others some; one may be drawn twice."""
    order = np.argsort(-(pool.vectors @ pool.vectors[first]), kind="stable")
    order = order[order != first][:NEAR]
    return [int(i) for i in rng.choice(order, count)] if len(order) else []
