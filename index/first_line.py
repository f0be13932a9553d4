"""Where to draw the first line through the scores of a class, from their shape alone.

A class that stands apart leaves a gap: past the bulk of the collection the density falls and rises again, and the line
goes where it is lowest before the greatest rise. Where there is none, the bulk is taken for symmetric about its median:
what is above it in excess of what lies as far below is of the class, and the line is where that guess has the greatest
F1, within SHARES of the items. docs/decisions/thresholds.md says how far that gets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.index.calibrate import Float64, Scale
from clipsieve.index.rows import Rows
from clipsieve.index.rule import accepted, compile_classes
from clipsieve.index.scan import Pass
from clipsieve.types import ClassVectors, Int64

SAMPLE = 10_000
"""Items that are looked at, or all where there are fewer."""

BINS = 48
SMOOTH = np.array([1, 2, 3, 2, 1]) / 9
SURE = 2.0
"""Standard errors by which the density must rise after a gap."""

MOST_ABOVE = 0.3
"""Share of the items that may be above a gap: in the bulk itself the density rises by chance."""

SHARES = (0.02, 0.2)
"""Least and most of the items that are above a line where there is no gap."""

LEAST = 20
"""Of fewer items the shape tells nothing."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """Thresholds for classes that have none, and what they would change.

    thresholds       one per class, on its score's scale: its own, or a first line
    without, within  how many items some class accepts without any threshold, and with these
    count            of how many
    exact            False where the numbers are scaled up from a sample
    """

    thresholds: tuple[float, ...]
    without: int
    within: int
    count: int
    exact: bool


def first_line(scores: npt.NDArray[np.floating]) -> float:
    """A line through the scores (n,) of a class's items, n > 0, on whatever scale they are."""
    values: Float64 = np.sort(scores.astype(np.float64))
    if len(values) < LEAST:
        return float(values[-1])
    found = _gap(values)
    return _excess(values) if found is None else found


def _gap(values: Float64) -> float | None:
    """The lowest place before a rise of the density that is no chance; values ascending."""
    low, high = float(np.median(values)), float(values[-1])
    if not low < high:
        return None
    counts, edges = np.histogram(values[values > low], BINS, (low, high))
    density = np.convolve(np.pad(counts.astype(np.float64), 2, "edge"), SMOOTH, "valid")  # (BINS,)
    after = np.maximum.accumulate(density[::-1])[::-1]
    rise = (after - density) / np.sqrt((after + density) / 3 + 0.5)
    rise[edges[:-1] < np.quantile(values, 1 - MOST_ABOVE)] = 0
    at = int(rise.argmax())
    return float((edges[at] + edges[at + 1]) / 2) if rise[at] >= SURE else None


def _excess(values: Float64) -> float:
    """The line of the greatest F1 if the items not of the class lie symmetric about the median; values ascending."""
    middle = float(np.median(values))
    above = values[values > middle][::-1] - middle  # falling
    below = np.sort(middle - values[values < middle])
    least, most = np.quantile(values, [1 - SHARES[1], 1 - SHARES[0]])
    if not len(above):
        return float(most)
    chosen = np.arange(1, len(above) + 1)
    right = np.maximum(chosen - (len(below) - np.searchsorted(below, above, side="left")), 0)
    guess = middle + above[(2 * right / (chosen + max(1, right.max()))).argmax()]
    return float(np.clip(guess, least, most))


def propose(
    rows: Rows,
    classes: Sequence[ClassVectors],
    scales: Sequence[Scale | None],
    given: Sequence[float | None],
    only: Int64 | None = None,
) -> Proposal:
    """First lines for these classes, from a random sample of the rows.

    given  per class the threshold that it has, which stays
    only   ids that alone may be found
    """
    wanted = None if only is None else np.unique(only)
    count = rows.count if wanted is None else int(rows.has(wanted).sum())
    if rows.count > SAMPLE:
        wanted = rows.sample(SAMPLE) if wanted is None else np.intersect1d(rows.sample(SAMPLE), wanted)
    compiled = compile_classes(classes, scales)
    step = Pass(compiled)
    sides = [tuple(side.copy() for side in step(vectors)[1:]) for _, vectors in rows.blocks(step.rows, wanted)]
    if not sides:
        return Proposal((0.0,) * len(classes), 0, 0, count, count == 0)
    best, worst = (np.concatenate(side, axis=1) for side in zip(*sides, strict=True))  # (c, n)
    thresholds, least = [], []
    for own, scale, threshold in zip(best, scales, given, strict=True):
        if threshold is None:
            line = first_line(own)
            threshold = round(line, 3) if scale is None else round(float(scale.score(line)), 2)
        thresholds.append(threshold)
        least.append(threshold if scale is None else scale.level(threshold))
    passing = accepted(best, worst)
    kept = accepted(best, worst, np.array(least, np.float32)[:, None])
    factor = count / best.shape[1]
    totals = [round(float(found.any(axis=0).sum()) * factor) for found in (passing, kept)]
    return Proposal(tuple(thresholds), totals[0], totals[1], count, best.shape[1] == count)
