"""The two-stage rule.

For an item v and a class with positive examples and negative ones, all unit vectors:

    P = max over the positives of cos(t, v)        N = max over the negatives of cos(t, v), -inf if there are none
    accepted    P > N (a tie goes to the negative), and P >= threshold where one is set
    rank_score  (1 + P) / 2 if P > N, -(1 + N) / 2 otherwise

so that an accepted class outranks every rejected one, and of rejected classes the least irrelevant wins. Decisions are
made on float32 cosines and mapped afterwards: rounding or mapping first flips near-ties. A calibrated class is decided
on its levels (see `calibrate`), which have the same order as its scores.

That is the hard veto, by which items are accepted: one negative that is nearer removes an item, however near a positive
it is. A ranking loses by that what it cannot get back, so `search` ranks by the soft one:

    P - max(0, N - P)

which takes from an item as much as the negative is nearer, and nothing from one that is nearer a positive. Neither is
ever above P, which is what lets the searches of `query` end early.

Two ways to the cosines. `products` is one float32 matrix product, right to SLACK; it serves whole collections. `settle`
is the inner product of the stored vectors in float64, rounded to float32 once: it does not depend on how rows were
batched or which BLAS is at hand, so that a scan and an index search agree to the last bit, ties included. What is
returned to a caller went through `settle`; labels, where no near-tie is worth the time, went through `products`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.index.calibrate import Float64, Scale
from clipsieve.types import ClassVectors, Float32, Int64

Bool = npt.NDArray[np.bool_]
View = Literal["matched", "rejected", "below"]
Veto = Literal["hard", "soft"]

SLACK = 1e-5
"""More than the float32 rounding of an inner product of unit rows of a few thousand dimensions (measured: 1e-6)."""

ALONE, ALONE_VECTOR = 2**18, 2**13
"""Multiplications up to which OpenBLAS keeps a product of matrices, or with one vector, in the calling thread.

Its other threads spin for some 20 ms after every call. A few candidates settled between two searches of an index would
so keep the cores from the next search: it took twice as long on two cores.
"""

WIDENED = 512
"""Rows that are float64 at a time: what the processor's cache holds."""

FEW = 2**26
"""Multiplications up to which all cores would not save what their spinning costs."""


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """Classes as one class-major matrix: the positives of class 0, its negatives, the positives of class 1, ...

    units    float32 (e, d), the unit rows
    matrix   float32 (e, d), what a block is multiplied with: units, divided by the spread where calibrated
    center, spread  float64 (e, 1), None where no class is calibrated
    bias     float32 (e, 1), added to the product, None likewise
    slices   per class the rows of its positives and of its negatives
    slack    how far a product may be from the settled level
    """

    names: tuple[str, ...]
    units: Float32
    matrix: Float32
    center: Float64 | None
    spread: Float64 | None
    bias: Float32 | None
    slices: tuple[tuple[slice, slice], ...]
    slack: float


def compile_classes(
    classes: Sequence[ClassVectors], scales: Sequence[Scale | None] | None = None, distinct: bool = True
) -> Compiled:
    """One matrix of all examples.

    scales    per class its calibration, or None; classes compared with each other are all calibrated or none is
    distinct  whether two classes of one name are an error; independent questions asked together may share a name

    InputError without a class, ModelMismatch for classes of two models.
    """
    if not classes:
        raise InputError("There is no class to compile; give at least one.")
    names = tuple(c.name for c in classes)
    if distinct and len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise InputError(f"Two classes are named {twice!r}; class names must differ.")
    for c in classes[1:]:
        classes[0].model.require(c.model, f"Class {c.name!r}")
    units = np.concatenate([rows for c in classes for rows in (c.positive, c.negative)])  # (e, d)
    slices, start = [], 0
    for c in classes:
        middle, stop = start + len(c.positive), start + len(c.positive) + len(c.negative)
        slices.append((slice(start, middle), slice(middle, stop)))
        start = stop
    if scales is None or all(s is None for s in scales):
        return Compiled(names, units, units, None, None, None, tuple(slices), SLACK)
    center, spread = np.zeros((len(units), 1)), np.ones((len(units), 1))
    for c, scale, (positive, negative) in zip(classes, scales, slices, strict=True):
        if scale is None:
            continue
        if len(scale.center) != negative.stop - positive.start:
            raise InputError(
                f"The calibration of class {c.name!r} has {len(scale.center)} entries for "
                f"{negative.stop - positive.start} examples; measure it again."
            )
        center[positive.start : negative.stop, 0] = scale.center
        spread[positive.start : negative.stop, 0] = scale.spread
    matrix = (units / spread).astype(np.float32)
    slack = SLACK * float((1 / spread).max())
    return Compiled(names, units, matrix, center, spread, (-center / spread).astype(np.float32), tuple(slices), slack)


def products(compiled: Compiled, vectors: Float32, out: Float32 | None = None) -> Float32:
    """Levels of every example for a block: float32 (b, d) -> (e, b), in `out` where given.

    Examples are rows, so that the maxima over a class run along contiguous memory.
    """
    levels: Float32 = np.matmul(compiled.matrix, vectors.T, out=out)  # (e, b)
    if compiled.bias is not None:
        levels += compiled.bias
    return levels


def settle(compiled: Compiled, vectors: Float32) -> Float32:
    """Levels as `products`, but correctly rounded: for the rows that decide. float32 (b, d) -> (e, b)."""
    units = compiled.units.astype(np.float64)
    levels = np.empty((len(units), len(vectors)))  # (e, b)
    step = WIDENED
    if units.size * len(vectors) <= FEW:
        step = max(1, (ALONE if len(units) > 1 else ALONE_VECTOR) // max(1, units.size))
    wide = np.empty((min(step, len(vectors)), vectors.shape[1]))  # one for all blocks: fresh memory costs its use
    for start in range(0, len(vectors), step):
        some = vectors[start : start + step]
        block = wide[: len(some)]
        np.copyto(block, some)
        np.matmul(units, block.T, out=levels[:, start : start + step])
    if compiled.center is not None and compiled.spread is not None:
        levels = (levels - compiled.center) / compiled.spread
    return levels.astype(np.float32)


def maxima(
    compiled: Compiled, levels: Float32, best: Float32 | None = None, worst: Float32 | None = None
) -> tuple[Float32, Float32]:
    """P and N, float32 (c, b) each, from levels (e, b); N is -inf for a class without negatives.

    best, worst  arrays (c, b) to fill and return
    """
    shape = (len(compiled.slices), levels.shape[1])
    best = np.empty(shape, np.float32) if best is None else best
    worst = np.empty(shape, np.float32) if worst is None else worst
    for j, (positive, negative) in enumerate(compiled.slices):
        np.maximum.reduce(levels[positive], axis=0, out=best[j])  # (p, b) -> (b,)
        if negative.start < negative.stop:
            np.maximum.reduce(levels[negative], axis=0, out=worst[j])  # (q, b) -> (b,)
        else:
            worst[j] = -np.inf
    return best, worst


def accepted(best: Float32, worst: Float32, threshold: float | Float32 | None = None) -> Bool:
    """P > N, and P >= threshold; any shape."""
    ok: Bool = best > worst
    return ok if threshold is None else ok & (best >= np.float32(threshold))


def ranked_by(veto: Veto, best: Float32, worst: Float32) -> Float32:
    """What ranks items, and is compared with a threshold, by P and N of one shape: P, or less under the soft veto.

    It never falls where P rises or N falls: bounds of P and N give bounds of it.
    """
    if veto == "hard":
        return best
    key: Float32 = best - np.maximum(worst - best, np.float32(0))
    return key


def belongs(
    view: View, best: Float32, worst: Float32, least: float, slack: float | Float32 = 0.0, veto: Veto = "hard"
) -> Bool:
    """Which items, by P and N of shape (b,), a view shows.

    slack  how far P and N may each be off, in all or item by item (b,): a positive one lets all in that may belong, a
           negative one those that surely do
    """
    shown: Bool
    if view == "below":
        shown = best - slack < np.float32(least)
        return shown
    reaches = best + slack >= np.float32(least)
    if veto == "soft" and view == "rejected":
        shown = reaches & (ranked_by(veto, best - slack, worst + slack) < np.float32(least))
    elif veto == "soft":
        shown = ranked_by(veto, best + slack, worst - slack) >= np.float32(least)
    elif view == "rejected":
        shown = reaches & (worst + slack >= best - slack)
    else:
        shown = reaches & (best + slack > worst - slack)
    return shown


def rank_score(best: Float32, worst: Float32) -> Float64:
    """What compares classes: in [-1, 1] for cosines in [-1, 1], above -0.0 exactly if accepted.

    float64, because 1 + P in float32 would make ties of cosines that differ.
    """
    best, worst = np.asarray(best, np.float64), np.asarray(worst, np.float64)
    return np.where(best > worst, (1 + best) / 2, -(1 + worst) / 2)


def winners(best: Float32, worst: Float32, ok: Bool | None = None) -> tuple[Int64, Int64]:
    """The class of the greatest rank_score for each item, and the one after it; of equals the lowest index.

    best, worst  (c, b)
    ok           bool (c, b), the classes that may win; then an item that none may have gets -1. By default all may.
    returns      int64 (b,) and (b,); the second is -1 where there is no other class

    The same order as by rank_score without computing it: accepted classes by P, and only items that no class accepts
    look at N.
    """
    contest = np.where(best > worst if ok is None else ok, best, np.float32(-np.inf))  # (c, b)
    rejected = None if ok is not None else worst
    first = _leader(contest, rejected, None)
    won = np.flatnonzero(first >= 0)
    contest[first[won], won] = -np.inf
    return first, _leader(contest, rejected, first)


def _leader(contest: Float32, rejected: Float32 | None, taken: Int64 | None) -> Int64:
    top = contest.max(axis=0)  # (b,)
    leader: Int64 = (contest == top).argmax(axis=0)  # (b,), the lowest index of equals
    rest = np.flatnonzero(top == -np.inf)
    if len(rest):
        leader[rest] = -1
        if rejected is not None and len(contest) > (taken is not None):
            left = rejected[:, rest]  # (c, r), a copy
            if taken is not None:
                left[taken[rest], np.arange(len(rest))] = np.inf
            leader[rest] = left.argmin(axis=0)
    return leader


def deciding(compiled: Compiled, levels: Float32, label: Int64) -> Int64:
    """Which positive of its class stands behind P, for each item: levels (e, b), label (b,) -> position (b,).

    The lowest position of equals, and -1 where label is -1.
    """
    position = np.full(len(label), -1, np.int64)
    highest = np.full(len(label), -np.inf, np.float32)
    start = np.array([positive.start for positive, _ in compiled.slices])[label]
    size = np.array([positive.stop - positive.start for positive, _ in compiled.slices])[label]
    size[label < 0] = 0
    for r in range(int(size.max(initial=0))):  # a few gathers of b are cheaper than an argmax per class
        at = np.flatnonzero(r < size)
        level = levels[start[at] + r, at]
        better = level > highest[at]
        highest[at[better]] = level[better]
        position[at[better]] = r
    return position


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """One class asked for its best k.

    threshold      least score, on the score's scale; None for none
    only, without  int64, ids that alone may be found, ids that must not be
    groups         ids -> int64 group of each (an item alone has a group of its own); one item per group is returned
    scale          the class's calibration; None for cosines
    view           which side of the rule: matched (accepted), rejected (P reaches the threshold, N is no less than P),
                   or below the threshold
    veto           "hard": what the view shows is ranked by P; "soft": by P - max(0, N - P), and matched is what
                   reaches the threshold by that, rejected what reaches it by P alone
    """

    vectors: ClassVectors
    k: int
    threshold: float | None = None
    only: Int64 | None = None
    without: Int64 | None = None
    groups: Callable[[Int64], Int64] | None = None
    scale: Scale | None = None
    view: View = "matched"
    veto: Veto = "hard"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise InputError(f"Question asks for k = {self.k} items; ask for at least 1.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise InputError(f"Question has threshold {self.threshold}; give a finite number, or None for none.")

    @property
    def least(self) -> float:
        """The threshold as a level, -inf where there is none."""
        if self.threshold is None:
            return -math.inf
        return self.threshold if self.scale is None else self.scale.level(self.threshold)

    def key(self, best: Float32, worst: Float32) -> Float32:
        """What ranks items, by their P and N; see `ranked_by`."""
        return ranked_by(self.veto, best, worst)

    def shows(self, best: Float32, worst: Float32, slack: float | Float32 = 0.0) -> Bool:
        """Which items its view shows; see `belongs`."""
        return belongs(self.view, best, worst, self.least, slack, self.veto)

    def compile(self) -> Compiled:
        """The class alone as a matrix."""
        return compile_classes([self.vectors], [self.scale])


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """Items of a view and why. All arrays have one entry per item.

    ids                 int64
    best, worst         float32, settled levels P and N (cosines where uncalibrated); N is -inf without negatives
    positive, negative  int64, positions of the deciding examples in the class; negative is -1 without negatives
    """

    ids: Int64
    best: Float32
    worst: Float32
    positive: Int64
    negative: Int64

    def pick(self, at: npt.NDArray[np.intp] | slice) -> "Ranked":
        """The items at these positions."""
        return Ranked(self.ids[at], self.best[at], self.worst[at], self.positive[at], self.negative[at])

    def top(self, question: Question) -> "Ranked":
        """The best k of a question by (its key descending, id ascending), one per group."""
        order = np.lexsort((self.ids, -question.key(self.best, self.worst)))
        if question.groups is not None and len(order):
            order = order[first_of_group(question.groups(self.ids[order]))]
        return self.pick(order[: question.k])


def first_of_group(groups: Int64) -> npt.NDArray[np.intp]:
    """Positions of the first entry of each group, ascending."""
    first: npt.NDArray[np.intp] = np.sort(np.unique(groups, return_index=True)[1])
    return first


def no_items() -> Ranked:
    """Ranked of length 0."""
    i, f = np.zeros(0, np.int64), np.zeros(0, np.float32)
    return Ranked(i, f, f, i, i)


def join(parts: Sequence[Ranked]) -> Ranked:
    """All their items, in that order."""
    if not parts:
        return no_items()
    fields = ([p.ids, p.best, p.worst, p.positive, p.negative] for p in parts)
    return Ranked(*(np.concatenate(column) for column in zip(*fields, strict=True)))


def weigh(compiled: Compiled, ids: Int64, vectors: Float32) -> Ranked:
    """P, N and the examples behind them, settled, of all of these items, in the order given; arguments as `judge`."""
    levels = settle(compiled, vectors)  # (p + q, b)
    (positive, negative), (best, worst) = compiled.slices[0], maxima(compiled, levels)
    against = np.full(len(ids), -1, np.int64)
    if negative.start < negative.stop:
        against = levels[negative].argmax(axis=0)
    return Ranked(ids, best[0], worst[0], levels[positive].argmax(axis=0), against)


def judge(question: Question, compiled: Compiled, ids: Int64, vectors: Float32) -> Ranked:
    """The rule for one question: those of these items that its view shows, settled, in the order given.

    compiled  `question.compile()`, made once by the caller
    ids       int64 (b,)
    vectors   float32 (b, d)
    """
    weighed = weigh(compiled, ids, vectors)
    return weighed.pick(np.flatnonzero(question.shows(weighed.best, weighed.worst)))
