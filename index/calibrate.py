"""Background calibration: how unusual a cosine is in this collection.

Cosines differ between prompts, between texts and images, and between models. Here each example reads its own on a
common scale: z = (cosine - median) / (1.4826 MAD) over a fixed random sample of the collection, and the score is -log10
of the normal tail beyond z. It makes examples comparable; it is no frequency: likenesses have no normal tail, and up to
sixty times as many unrelated items pass a score of 3 as the formula says (docs/decisions/thresholds.md).

Median and MAD rather than the sample's own tail: a class that makes up a tenth of the collection would otherwise be
its own background. The tail is the same increasing function for every example, so that maxima and comparisons may be
made on z (called the level) and only what is shown needs to be mapped.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.types import ClassVectors, Float32

Float64 = npt.NDArray[np.float64]

SAMPLE = 10_000
"""Items of a collection that make its background, or all where there are fewer."""

LEAST_SAMPLE = 20
MAD_TO_SIGMA = 1.4826  # of a normal distribution
LEAST_SPREAD = 1e-4  # a sample of copies has MAD 0; cosines of float16 rows carry no finer difference than this

# erfc(x) = t exp(-x^2 + polynomial in t), t = 1 / (1 + x / 2), within 1.2e-7 of its value for every x >= 0:
# Press, Teukolsky, Vetterling, Flannery, Numerical Recipes in C, 2nd edition, section 6.2, erfcc. Lowest power first.
_ERFC = (
    -1.26551223,
    1.00002368,
    0.37409196,
    0.09678418,
    -0.18628806,
    0.27886807,
    -1.13520398,
    1.48851587,
    -0.82215223,
    0.17087277,
)


def tail_score(z: npt.ArrayLike) -> Float64:
    """-log10 of the normal distribution's tail beyond z: 0 far below, 0.301 at 0, about z^2 / 4.6 far above.

    Any shape, float64 in and out. The logarithm is taken of the formula, never of its value, so that nothing underflows
    (beyond z = 38 the tail itself is 0 in float64). Right to 1e-7 absolutely. -inf gives 0.
    """
    z = np.asarray(z, dtype=np.float64)
    x = np.abs(z) / math.sqrt(2)
    t = 1 / (1 + x / 2)
    polynomial = np.zeros_like(t)
    for coefficient in reversed(_ERFC):
        polynomial = polynomial * t + coefficient
    with np.errstate(divide="ignore"):  # log 0 at z = -inf is meant
        log_tail = np.log(t / 2) - x * x + polynomial
    score: Float64 = np.where(z >= 0, -log_tail, -np.log1p(-np.exp(log_tail))) / math.log(10)
    return score


def tail_level(score: float) -> float:
    """The z at which `tail_score` reaches the score; -inf for scores that every z reaches."""
    if score <= 0:
        return -math.inf
    low, high = -40.0, 40.0 + math.sqrt(2 * math.log(10) * score)
    for _ in range(200):  # bisection, until the float64 interval is empty
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if tail_score(middle) < score:
            low = middle
        else:
            high = middle
    return high


@dataclass(frozen=True, slots=True, eq=False)
class Scale:
    """How the examples of one class read a cosine: level = (cosine - center) / spread, score = tail_score(level).

    center, spread  float64 (p + q,), positives first, both in cosine; spread > 0
    """

    center: Float64
    spread: Float64

    def __post_init__(self) -> None:
        if self.center.shape != self.spread.shape or self.center.ndim != 1 or not (self.spread > 0).all():
            raise InputError(
                f"Scale has center {self.center.shape} and spread {self.spread.shape}; both are (p + q,) with one "
                "entry per example, and every spread is above 0."
            )

    def score(self, level: npt.ArrayLike) -> Float32:
        """Levels of any shape -> float32 scores."""
        return tail_score(level).astype(np.float32)

    def level(self, score: float) -> float:
        """The level at which a score is reached."""
        return tail_level(score)


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """A collection's fixed random sample.

    vectors    float32 (b, d), at least LEAST_SAMPLE rows, as stored
    duplicate  cosine from which a sampled row is taken for the example itself or a near-duplicate, and left out
    """

    vectors: Float32
    duplicate: float = 0.98

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) < LEAST_SAMPLE:
            raise InputError(
                f"Background has vectors of shape {self.vectors.shape}; calibration needs at least {LEAST_SAMPLE} "
                "items, so use calibration 'none' for so small a collection."
            )

    def scale(self, question: ClassVectors) -> Scale:
        """Measure how the class's examples read this collection. InputError if the dimensions differ."""
        examples = np.concatenate([question.positive, question.negative])  # (p + q, d)
        if examples.shape[1] != self.vectors.shape[1]:
            raise InputError(
                f"Class {question.name!r} has {examples.shape[1]} dimensions and the background "
                f"{self.vectors.shape[1]}; embed both with one model."
            )
        cosines = examples @ self.vectors.T  # (p + q, b)
        center = np.empty(len(examples))
        spread = np.empty(len(examples))
        for row, cosine in enumerate(cosines):
            others = cosine[cosine < self.duplicate]
            if len(others) < LEAST_SAMPLE:  # a collection of copies: nothing is unusual in it
                others = cosine
            center[row] = np.median(others)
            spread[row] = max(MAD_TO_SIGMA * float(np.median(np.abs(others - center[row]))), LEAST_SPREAD)
        return Scale(center, spread)
