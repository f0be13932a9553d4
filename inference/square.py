"""An image of any shape to OWLv2's square, as its processor does it, in a twentieth of the time.

The processor pads the image with black to a square, blurs that with a Gaussian (sigma (f - 1) / 2 where f pixels become
one) and reads it off bilinearly. Each step is linear and works on rows and columns apart, so all of it is one banded
matrix per axis; black needs no arithmetic at all.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from clipsieve.types import Float32

BLOCK = 32
"""Rows of the result computed together: more makes the bands' dense blocks emptier, fewer the products smaller."""


def fit_square(pixels: npt.NDArray[np.uint8], out: int) -> npt.NDArray[np.uint8]:
    """uint8 (h, w, 3) -> uint8 (3, out, out): padded at the bottom or right, scaled, and rounded.

    The processor does not round. Half a grey level is what any other resize gives away, and what waits for a model, and
    is moved to it, is a quarter.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    rows = np.zeros((out, 3, width), np.float32)
    flat = pixels.reshape(height, width * 3)
    for block, span, weights in _bands(height, side, out):
        rows[block] = (weights @ flat[span].astype(np.float32)).reshape(-1, width, 3).transpose(0, 2, 1)
    square = np.zeros((out * 3, out), np.float32)
    lines = rows.reshape(out * 3, width)
    for block, span, weights in _bands(width, side, out):
        square[:, block] = lines[:, span] @ weights.T
    square += 0.5
    return np.ascontiguousarray(square.astype(np.uint8).reshape(out, 3, out).transpose(1, 0, 2))


def _bands(size: int, side: int, out: int) -> Iterator[tuple[slice, slice, Float32]]:
    """The matrix that takes `size` pixels, padded to `side`, to `out` of them, in blocks.

    Yields which pixels of the result, which of the image, and their weights (r, s), where the image has any part.
    """
    taps, weights = _taps(side, out)
    weights[taps >= size] = 0  # padding
    for start in range(0, out, BLOCK):
        block = slice(start, min(start + BLOCK, out))
        first, end = int(taps[block].min()), min(int(taps[block].max()) + 1, size)
        if first >= end:
            continue
        dense = np.zeros((block.stop - start, end - first), np.float32)
        which = np.minimum(taps[block], end - 1) - first
        np.add.at(dense, (np.arange(len(dense))[:, None], which), weights[block])
        yield block, slice(first, end), dense


def _taps(side: int, out: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Which of `side` pixels make each of `out`, and how much of each: both (out, t), mirrored at the ends."""
    sigma = max(0.0, (side / out - 1) / 2)
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    gauss = np.exp(-0.5 * (offsets / sigma) ** 2) if radius else np.ones(1)
    gauss /= gauss.sum()
    at = (np.arange(out) + 0.5) * (side / out) - 0.5
    left = np.floor(at)
    part = (at - left)[:, None]
    weights = (1 - part) * np.append(gauss, 0) + part * np.append(0, gauss)
    taps = left.astype(np.int64)[:, None] + np.arange(-radius, radius + 2)
    period = max(2 * (side - 1), 1)
    taps = np.abs(taps) % period
    return np.where(taps < side, taps, period - taps), weights
