"""Whether two images are copies of one picture, by their perceptual hashes (`clipsieve/perceptual.py`).

A copy may be compressed anew, scaled, or cut at its sides. So one hash is laid on the other by the scale and shift
along each axis that fit best, and what is left of the difference is counted in units of what copying leaves: NOISE grey
levels, and more where the picture changes from cell to cell (JITTER), since there a cut or a smaller size moves values.
docs/decisions/duplicates.md has what was tried and measured.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.perceptual import SIDE
from clipsieve.types import Float32

Hashes = npt.NDArray[np.uint8]
"""uint8 (n, perceptual.BYTES)."""

Cells = npt.NDArray[Any]
"""Numbers by cell, (n, side, side)."""

NOISE, JITTER = 3.0, 0.25
REACH = 0.13
"""The most that a picture is stretched or shifted to fit, as a share of half of its side."""
STEPS = 4

MOST, MOST_SPOT = 1.2, 3.6
"""Of the difference in luminance: over the whole picture, and where it is greatest (3 x 3 cells)."""
MOST_COLOUR, MOST_COLOUR_SPOT = 1.4, 2.8

SURELY = 0.3
"""Pictures that differ by less are copies, however many others look like them."""
WORTH_FITTING = 4.5
"""Pictures that differ by more before they are laid on each other are no copies."""
LEAST_CONTRAST = 3.0
"""Grey levels, standard deviation over the cells: a picture with less has nothing to be known by."""


@dataclass(frozen=True, slots=True, eq=False)
class Difference:
    """Of n pairs, float32 (n,) each: luminance and colour, over the whole picture and at its worst spot."""

    whole: Float32
    spot: Float32
    colour: Float32
    colour_spot: Float32

    @property
    def alike(self) -> npt.NDArray[np.bool_]:
        """Whether nothing in a pair speaks against a copy, bool (n,)."""
        near = (self.whole < MOST) & (self.spot < MOST_SPOT)
        return near & (self.colour < MOST_COLOUR) & (self.colour_spot < MOST_COLOUR_SPOT)


def contrast(hashes: Hashes) -> Float32:
    """Of each hash: the standard deviation of its luminance, float32 (n,)."""
    spread: Float32 = _luminance(hashes).std(axis=(1, 2))
    return spread


def descriptors(hashes: Hashes) -> Float32:
    """Vectors by whose inner products near pictures are found: float32 (n, 64), unit rows (zeros for a blank one)."""
    half = SIDE // 2
    rows = _luminance(hashes).reshape(-1, half, 2, half, 2).mean(axis=(2, 4)).reshape(-1, half * half)
    rows = rows - rows.mean(axis=1, keepdims=True)
    return np.ascontiguousarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)


def plain_difference(one: Hashes, other: Hashes) -> Float32:
    """The difference in luminance of n pairs as they lie, float32 (n,)."""
    a, b = _luminance(one), _luminance(other)
    y, x = (np.gradient(a, axis=k) ** 2 + np.gradient(b, axis=k) ** 2 for k in (1, 2))
    found: Float32 = np.sqrt(((a - b) ** 2 / (NOISE**2 + JITTER**2 * (x + y) / 2)).mean(axis=(1, 2)))
    return found


def difference(one: Hashes, other: Hashes) -> Difference:
    """That of n pairs, the second of each laid on the first."""
    a, b = _luminance(one), _luminance(other)
    fit = _fit(a, b)
    squares, inside = _squares(a, b, fit)
    colours = [_squares(p, q, fit) for p, q in zip(_colours(one), _colours(other), strict=True)]
    colour, colour_inside = (colours[0][0] + colours[1][0]) / 2, colours[0][1]
    return Difference(
        _mean(squares, inside), _spot(squares, inside), _mean(colour, colour_inside), _spot(colour, colour_inside)
    )


def _luminance(hashes: Hashes) -> Cells:
    return hashes[:, : SIDE * SIDE].reshape(-1, SIDE, SIDE).astype(np.float32)


def _colours(hashes: Hashes) -> tuple[Cells, Cells]:
    half = SIDE // 2
    both = hashes[:, SIDE * SIDE :].reshape(-1, 2, half, half).astype(np.float32)
    return both[:, 0], both[:, 1]


def _fit(a: Cells, b: Cells) -> Cells:
    """Stretch and shift along x, then along y, that lay b on a: float32 (n, 4), by Gauss and Newton's steps."""
    fit = best = np.zeros((len(a), 4), np.float32)
    least = np.full(len(a), np.inf, np.float32)
    x = _grid(SIDE)
    for step in range(STEPS + 1):
        laid, inside = _laid(b, fit)
        weights, down, across = _weights(a, laid, inside)
        rest = a - laid
        left = _mean(weights * rest**2, inside)
        better = left < least
        least, best = np.where(better, left, least), np.where(better[:, None], fit, best)
        if step == STEPS:
            break
        down, across = down * (SIDE / 2), across * (SIDE / 2)
        slopes = np.stack([across * x, across, down * x[:, None], down], axis=-1).reshape(len(a), -1, 4)
        turned = (slopes * weights.reshape(len(a), -1, 1)).transpose(0, 2, 1)
        normal = turned @ slopes
        normal += 0.005 * normal * np.eye(4, dtype=np.float32) + 1e-3 * np.eye(4, dtype=np.float32)
        moved = np.linalg.solve(normal, turned @ rest.reshape(len(a), -1, 1))[:, :, 0]
        fit = np.clip(fit + moved, -REACH, REACH).astype(np.float32)
    return best


def _squares(a: Cells, b: Cells, fit: Cells) -> tuple[Cells, Cells]:
    """The squared difference in each cell in units of what copying leaves, and which cells both pictures have."""
    laid, inside = _laid(b, fit)
    weights, _, _ = _weights(a, laid, inside)
    return weights * (a - laid) ** 2, inside


def _weights(a: Cells, laid: Cells, inside: Cells) -> tuple[Cells, Cells, Cells]:
    """What a squared difference counts in each cell; and the slopes of what was laid on a, down and across."""
    down, across = (np.gradient(laid, axis=k) for k in (1, 2))
    own = np.gradient(a, axis=1) ** 2 + np.gradient(a, axis=2) ** 2
    return inside / (NOISE**2 + JITTER**2 * (down**2 + across**2 + own) / 2), down, across


def _laid(b: Cells, fit: Cells) -> tuple[Cells, Cells]:
    """b at the places where a's cells are in it, (n, side, side); and 1 where it has such places, else 0."""
    side = b.shape[-1]
    x = _grid(side)
    places = [((x * (1 + fit[:, k, None]) + fit[:, k + 1, None]) + 1) * side / 2 - 0.5 for k in (0, 2)]
    within = [((p >= -0.3) & (p <= side - 0.7)).astype(np.float32) for p in places]
    across, down = (_interpolation(p, side) for p in places)
    return down @ b @ across.transpose(0, 2, 1), within[1][:, :, None] * within[0][:, None, :]


def _interpolation(places: Cells, side: int) -> Cells:
    """Weights of a row's cells at places in it, by Catmull and Rom: float32 (n, places, side)."""
    first = np.floor(places).astype(np.int64)
    f = (places - first).astype(np.float32)
    weights = (
        ((2 - f) * f - 1) * f / 2,
        ((3 * f - 5) * f * f + 2) / 2,
        ((4 - 3 * f) * f + 1) * f / 2,
        (f - 1) * f * f / 2,
    )
    made = np.zeros((*places.shape, side), np.float32)
    row, column = np.ogrid[: places.shape[0], : places.shape[1]]
    for k, weight in enumerate(weights):
        np.add.at(made, (row, column, np.clip(first + k - 1, 0, side - 1)), weight)
    return made


def _grid(side: int) -> Cells:
    """Middles of cells, the whole from -1 to 1."""
    return ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)


def _mean(squares: Cells, inside: Cells) -> Float32:
    found: Float32 = np.sqrt(squares.sum(axis=(1, 2)) / inside.sum(axis=(1, 2)))
    return found


def _spot(squares: Cells, inside: Cells) -> Float32:
    """The greatest mean of 3 x 3 cells."""
    found: Float32 = np.sqrt((_nine(squares) / np.maximum(_nine(inside), 1)).max(axis=(1, 2)))
    return found


def _nine(cells: Cells) -> Cells:
    side = cells.shape[-1]
    around = np.pad(cells, ((0, 0), (1, 1), (1, 1)))
    total: Cells = np.sum([around[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=0)
    return total
