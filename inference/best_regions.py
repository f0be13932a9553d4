"""Which of a detector's boxes are worth keeping: the likeliest objects, each once."""

import numpy as np
import numpy.typing as npt

from clipsieve.types import Float32

Positions = npt.NDArray[np.intp]

SAME_IOU = 0.9
SAME_COSINE = 0.98
"""Two boxes are one object if they overlap by this much and their vectors are this alike; the likelier one is kept."""


def best_regions(boxes: Float32, vectors: Float32, most: int) -> Positions:
    """Positions of at most `most` boxes, ascending, near-duplicates of an earlier one left out.

    boxes, vectors  (c, 4) and (c, d) unit rows, likeliest first
    """
    kept = np.zeros(0, dtype=np.intp)
    for start in range(0, len(boxes), most):
        block = np.arange(start, min(start + most, len(boxes)))
        block = block[~_same(boxes, vectors, block, kept).any(axis=1)]
        same = _same(boxes, vectors, block, block)
        left = np.ones(len(block), dtype=bool)
        for i in np.flatnonzero(np.count_nonzero(same, axis=1) > 1):
            if left[i]:
                left[i + 1 :] &= ~same[i, i + 1 :]
        kept = np.concatenate([kept, block[left]])[:most]
        if len(kept) == most:
            break
    return kept


def _same(boxes: Float32, vectors: Float32, one: Positions, other: Positions) -> npt.NDArray[np.bool_]:
    alike = vectors[one] @ vectors[other].T >= SAME_COSINE
    return alike & (overlaps(boxes[one], boxes[other]) >= SAME_IOU)


def overlaps(boxes: Float32, others: Float32) -> Float32:
    """IoU of each of m boxes with each of n: float32 (m, n); 0 where neither has an area."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    union = _area(boxes)[:, None] + _area(others)[None, :] - shared
    ious: Float32 = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return ious


def _area(boxes: Float32) -> Float32:
    area: Float32 = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return area
