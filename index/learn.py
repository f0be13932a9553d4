"""A direction learned from marks, with the class's texts as what was believed before.

Image examples under the rule each pull on what is nearest to them alone. What many marks have in common is found by
logistic regression: the log odds of "right" are

    a constant + sum over texts of weight * level of the text + sum over marks of weight * likeness to the marked item

where a text's level is its cosine read against the collection (see `calibrate`), and likeness is the inner product of
the vectors with the collection's mean taken off, which is also what lets texts and images meet. Before the first mark
positive texts share a weight of 1, negative ones of -1/2; marks move that, and how far the likeness to marked items
may move it (WIDTHS) is judged by leave-one-out. All of it is linear in the item's vector: one direction ranks the
collection, in any index, and each text and each mark has a part in every item's odds that can be told.

Fitted as a Gaussian process classifier with Laplace's approximation (Rasmussen, Williams, "Gaussian Processes for
Machine Learning", 2006, algorithm 3.1), from which leaving one out costs no further fit.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.index.calibrate import Background, Float64
from clipsieve.types import ClassVectors, Float32

Bools = npt.NDArray[np.bool_]

LEAST_MARKS = 10
"""Under so many, leaving one out tells nothing."""

MOST_MARKS = 400
"""Of more, a random part is learned from: time grows with the third power."""

WIDTHS = (0.0, 1.0, 4.0, 16.0, 64.0)
"""Variances that likeness to marked items gives the log odds of an item of usual distance from the mean."""

ODDS, ODDS_VARIANCE = -2.0, 4.0
"""Log odds of an item of which nothing speaks, before any mark, and how unsure that is."""

POSITIVE, NEGATIVE = 1.0, -0.5
TEXT_VARIANCE = 0.25
"""Weights of all positive, of all negative texts before any mark, and the variance of their sum."""

ROUNDS, STEP = 100, 5.0
"""Newton's method: most rounds, and most that log odds change in one."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A direction, and what speaks for it. Log odds of an item v: direction . v + offset; above 0 more likely right.

    direction   float64 (d,), of any length
    offset      a number
    texts       float64 (t, d), what each of the class's texts adds to the direction, positives first
    marks       float64 (m, d), what each mark adds to the direction, in the order given
    middle      float64 (t + m,), what each of these gives to an item like any other: 0 is neither for nor against
    loss        mean of -log of the probability given to what was said of a mark when it is left out
    loss_alone  the same of the texts without any likeness to marked items
    """

    direction: Float64
    offset: float
    texts: Float64
    marks: Float64
    middle: Float64
    loss: float
    loss_alone: float

    @property
    def wins(self) -> bool:
        """Whether to offer it: from LEAST_MARKS marks on, if it foretells marks better than the texts alone."""
        return len(self.marks) >= LEAST_MARKS and self.loss < self.loss_alone

    def parts(self, vectors: Float32) -> Float64:
        """What each text and each mark gives to the log odds of items: float32 (b, d) -> float64 (t + m, b)."""
        given: Float64 = np.concatenate([self.texts, self.marks]) @ vectors.astype(np.float64).T
        return given - self.middle[:, None]


@dataclass(frozen=True, slots=True, eq=False)
class _Fit:
    weights: Float64  # (n,), of each mark, on the kernel's scale
    losses: Float64  # (n,), of each mark left out


def learn(texts: ClassVectors | None, background: Background, marked: Float32, right: Bools) -> Learned:
    """Learn from what was said.

    texts       the class with its text examples only; None where it has none
    background  the collection's sample
    marked      float32 (n, d), unit rows
    right       bool (n,)

    InputError unless something was said to be right and something to be wrong.
    """
    if right.all() or not right.any():
        raise InputError("Marks are all right, all wrong, or none; learning takes at least one of each.")
    sample = background.vectors.astype(np.float64)
    mean = sample.mean(axis=0)
    usual = max(float(((sample - mean) ** 2).sum(axis=1).mean()), 1e-12)  # squared distance from the mean
    centred = (marked.astype(np.float64) - mean) / usual**0.5  # (n, d)
    axes, center, before = _texts(texts, background)  # (t, d), (t,), (t,)
    levels = marked.astype(np.float64) @ axes.T - center  # (n, t)
    share = TEXT_VARIANCE / max(1, len(axes))
    expected = ODDS + levels @ before
    believed = share * levels @ levels.T + ODDS_VARIANCE
    likeness = centred @ centred.T
    fits = [_fit(believed + width * likeness, right.astype(np.float64), expected) for width in WIDTHS]
    total = np.array([fit.losses.sum() for fit in fits])
    trust = np.exp(total.min() - total)
    trust /= trust.sum()
    by_width = np.stack([fit.weights for fit in fits])  # (widths, n)
    weights, scaled = trust @ by_width, (trust * WIDTHS) @ by_width
    after = before + share * levels.T @ weights  # (t,)
    of_texts = axes * after[:, None]
    of_marks = centred * scaled[:, None] / usual**0.5
    middle = np.concatenate([after * center, of_marks @ mean])
    offset = ODDS + ODDS_VARIANCE * float(np.sum(weights)) - float(middle.sum())
    direction = of_texts.sum(axis=0) + of_marks.sum(axis=0)
    losses = total / len(marked)
    return Learned(direction, offset, of_texts, of_marks, middle, float(losses[1:].min()), float(losses[0]))


def _texts(texts: ClassVectors | None, background: Background) -> tuple[Float64, Float64, Float64]:
    """Axes (t, d) and centers (t,) with level = axis . v - center, and the weights before any mark (t,)."""
    if texts is None:
        return np.zeros((0, background.vectors.shape[1])), np.zeros(0), np.zeros(0)
    scale = background.scale(texts)
    units = np.concatenate([texts.positive, texts.negative]).astype(np.float64)
    p, q = len(texts.positive), len(texts.negative)
    before = np.repeat([POSITIVE / max(1, p), NEGATIVE / max(1, q)], [p, q])
    return units / scale.spread[:, None], scale.center / scale.spread, before


def _fit(kernel: Float64, truth: Float64, expected: Float64) -> _Fit:
    """The log odds of greatest probability under the prior (expected, kernel), and how each mark fares left out.

    Left out in the Gaussian that touches the likelihood there (the same book, equation 5.12).
    """
    odds = expected.copy()
    for _ in range(ROUNDS):
        probability = _sigmoid(odds)
        curve = np.maximum(probability * (1 - probability), 1e-6)
        target = odds + (truth - probability) / curve
        weights = np.linalg.solve(kernel + np.diag(1 / curve), target - expected)
        change = expected + kernel @ weights - odds
        most = float(np.abs(change).max())
        odds = odds + change * min(1.0, STEP / max(most, 1e-12))
        if most < 1e-6:
            break
    probability = _sigmoid(odds)
    curve = np.maximum(probability * (1 - probability), 1e-6)
    target = odds + (truth - probability) / curve
    inverse = np.linalg.inv(kernel + np.diag(1 / curve))
    weights = inverse @ (target - expected)
    without = target - weights / np.diag(inverse)
    return _Fit(weights, np.logaddexp(0, np.where(truth > 0, -without, without)))


def _sigmoid(odds: Float64) -> Float64:
    probability: Float64 = 1 / (1 + np.exp(-np.clip(odds, -40, 40)))
    return probability
