"""Classes, rows and answers made up for the tests of this folder."""

import math
from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from clipsieve.index.calibrate import Background
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Ranked
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

MODEL = ModelId("test", "0", "none")


def unit(rows: np.ndarray) -> Float32:
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.ascontiguousarray(rows, np.float32)


def make_class(name: str, p: int, q: int, dim: int = 16, seed: int = 0, ties: bool = False) -> ClassVectors:
    """Random unit rows, or signed axes when `ties`: their inner products are exact and often equal."""
    rng = np.random.default_rng(seed)
    if ties:
        rows = np.zeros((p + q, dim), np.float32)
        rows[np.arange(p + q), rng.integers(0, min(dim, 4), p + q)] = rng.choice([-1, 1], p + q)
    else:
        rows = unit(rng.standard_normal((p + q, dim)))
    return ClassVectors(name, rows[:p], rows[p:], MODEL)


def make_vectors(n: int, dim: int = 16, seed: int = 0, ties: bool = False) -> Float32:
    """Random unit rows; with `ties`, rows of eighths with exact and often equal inner products, many of them twice."""
    rng = np.random.default_rng(seed)
    if not ties:
        return unit(rng.standard_normal((n, dim)))
    vectors: Float32 = (rng.integers(-2, 3, (n, dim)) / 8).astype(np.float32)
    vectors[n // 2 :] = vectors[: n - n // 2]
    return vectors


def make_rows(vectors: Float32, seed: int = 0, shards: int = 3, removed: float = 0.1, half: bool = False) -> Rows:
    """The vectors as a collection: ids with holes, some shards, some rows removed."""
    rng = np.random.default_rng(seed)
    ids = np.cumsum(rng.integers(1, 4, len(vectors))).astype(np.int64)
    cuts = np.sort(rng.integers(0, len(vectors) + 1, shards - 1))
    stored = vectors.astype(np.float16) if half else vectors
    without = ids[rng.random(len(ids)) < removed]
    return Rows(
        vectors.shape[1], list(zip(np.split(ids, cuts), np.split(stored, cuts), strict=True)), np.append(without, 10**8)
    )


def everything(rows: Rows) -> tuple[Int64, Float32]:
    """All live ids and vectors."""
    blocks = [(ids.copy(), vectors.copy()) for ids, vectors in rows.blocks()]
    ids = np.concatenate([np.zeros(0, np.int64), *(i for i, _ in blocks)])
    return ids, np.concatenate([np.zeros((0, rows.dim), np.float32), *(v for _, v in blocks)])


def loop(question: Question, rows: Rows) -> list[tuple[float, int, float]]:
    """What the view shows, (P, id, N) in float64, item by item, best first: the rule at its plainest; no groups."""
    shown, keys = [], {}
    c, scale = question.vectors, question.scale
    for i, v in zip(*everything(rows), strict=True):
        levels = np.concatenate([c.positive, c.negative]).astype(np.float64) @ v.astype(np.float64)
        if scale is not None:
            levels = (levels - scale.center) / scale.spread
        levels = levels.astype(np.float32)
        p, n = float(levels[: len(c.positive)].max()), float(max(levels[len(c.positive) :], default=-math.inf))
        allowed = (question.only is None or i in question.only) and (
            question.without is None or i not in question.without
        )
        least = np.float32(question.least)
        key = p
        if question.veto == "soft":
            key = float(np.float32(p) - np.float32(max(0.0, float(np.float32(n) - np.float32(p)))))
        keys[int(i)] = key
        matched = key >= least if question.veto == "soft" else p > n
        view = "below" if p < least else "matched" if matched else "rejected"
        if allowed and view == question.view:
            shown.append((p, int(i), _near_zero(n)))
    return sorted(shown, key=lambda item: (-keys[item[1]], item[1]))


def best_of(question: Question, rows: Rows) -> list[tuple[float, int, float]]:
    """The best k of `loop`, one per group."""
    kept, seen = [], set()
    for item in loop(question, rows):
        group = item[1] if question.groups is None else int(question.groups(np.array([item[1]]))[0])
        if group not in seen:
            seen.add(group)
            kept.append(item)
    return kept[: question.k]


def as_items(ranked: Ranked) -> list[tuple[float, int, float]]:
    """Ranked in the form of `loop`."""
    return list(zip(ranked.best.tolist(), ranked.ids.tolist(), map(_near_zero, ranked.worst.tolist()), strict=True))


def _near_zero(level: float) -> float:
    """Where float64 sums of another order cancel to almost nothing, their last bits differ."""
    return round(level, 12)


def group_by(size: int) -> Callable[[Int64], Int64]:
    """Neighbouring ids are of one group."""
    return lambda ids: ids // size


@st.composite
def questions(draw: st.DrawFn) -> tuple[Question, Rows]:
    """A random question to a random small collection."""
    seed, ties = draw(st.integers(0, 10**6)), draw(st.booleans())
    vectors = make_vectors(draw(st.sampled_from([0, 1, 40, 300])), 8, seed, ties)
    rows = make_rows(vectors, seed, removed=draw(st.sampled_from([0, 0.3])), half=draw(st.booleans()))
    c = make_class("c", draw(st.integers(1, 3)), draw(st.integers(0, 3)), 8, seed, ties)
    ids, live = everything(rows)
    pick = np.random.default_rng(seed)
    calibrated = draw(st.booleans()) and len(live) >= 20
    return Question(
        c,
        k=draw(st.sampled_from([1, 3, 20, 1000])),
        threshold=draw(st.sampled_from([None, 0.25, -0.125, 0.5])),
        only=draw(st.sampled_from([None, pick.permutation(ids)[: len(ids) // 2], np.array([3, 10**9])])),
        without=draw(st.sampled_from([None, ids[::3], np.array([10**9])])),
        groups=draw(st.sampled_from([None, group_by(5)])),
        scale=Background(live).scale(c) if calibrated else None,
        view=draw(st.sampled_from(["matched", "matched", "rejected", "below"])),
        veto=draw(st.sampled_from(["hard", "soft"])),
    ), rows
