"""Meta classes over detected regions: which boxes an image's classes keep.

For an image's regions and a set of classes, the logit of an example t at a region being (cos(v, t) + shift) * scale:

    d       = sigmoid(logit), in 0..1
    P, N    = max of d over the positives, over the negatives of a class; N is 0 where there are none
    linked  = two boxes whose intersection over union is nms or more, and every box with itself
    valid   = P >= threshold, and P >= N of every box that it is linked with (a tie goes to the positive)
    agnostic    each box stands for its best valid class; one greedy suppression over all boxes
    class-wise  each class for itself: greedy suppression over its valid boxes

Greedy suppression takes the boxes by falling P and leaves out what is linked with one that was taken. A box that is
left out, or belongs to no class, still vetoes its neighbours. Of equals the first region goes first, and the first
class wins.

Logits are compared, not d, which runs together near 0 and 1: the cosine is the correctly rounded one of
`rule.settle`, so that an answer does not depend on which images were asked together, and a text that is on both sides
of a class is a tie. A threshold is compared with the score that is returned, in float64. Overlaps are computed in
float64; two boxes without area have none.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError
from clipsieve.index.calibrate import Float64
from clipsieve.index.rule import Bool, Compiled, compile_classes, maxima, settle
from clipsieve.types import ClassVectors, Float32, Int64, Mode, ModelId, Regions

BLOCK = 2**21
"""Numbers in the largest array of a block of regions."""

PAIRS = 2**15
"""Pairs of boxes whose overlaps are computed at a time: what the processor's cache holds."""

Intp = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class CompiledDetection:
    """What is looked for.

    rows, model  None without a class
    thresholds   float64 (c,), -inf where a class has none
    nms          overlap from which two boxes are linked; at 0 and below all are, above 1 none are
    """

    rows: Compiled | None
    model: ModelId | None
    thresholds: Float64
    nms: float
    mode: Mode


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """Boxes kept: by image, in an image by class, in a class by falling score. All arrays have one entry per box.

    region  int64, position in the Regions that were asked
    label   int64, position of the class
    score   float64 in 0..1, P
    """

    region: Int64
    label: Int64
    score: Float64


def compile_detection(
    classes: Sequence[ClassVectors], thresholds: Sequence[float | None], nms: float, mode: Mode
) -> CompiledDetection:
    """What `detect` looks for.

    classes     may be none, and then nothing is found; two of one name are an InputError
    thresholds  one for each class, on the score's scale; None for none
    """
    if len(thresholds) != len(classes):
        raise InputError(f"There are {len(thresholds)} thresholds for {len(classes)} classes; give one for each.")
    least = np.array([-math.inf if t is None else t for t in thresholds], np.float64)
    if math.isnan(nms) or np.isnan(least).any():
        raise InputError("nms or a threshold is NaN; give a number.")
    if not classes:
        return CompiledDetection(None, None, least, nms, mode)
    return CompiledDetection(compile_classes(classes), classes[0].model, least, nms, mode)


def detect(compiled: CompiledDetection, regions: Regions) -> Detections:
    """The boxes that the classes keep, in each image for itself.

    regions  of one image or of many; `item` says which is whose and does not descend

    ModelMismatch where regions and classes are of two models.
    """
    parts: list[tuple[Intp, Intp, Float64]] = []
    if compiled.rows is not None and compiled.model is not None:
        compiled.model.require(regions.model, "The regions")
        for images in _blocks(compiled.rows, regions):
            parts += _detect_block(compiled, compiled.rows, regions, images)
    if not parts:
        return Detections(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    region, label, score = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Detections(region.astype(np.int64), label.astype(np.int64), score)


def _blocks(rows: Compiled, regions: Regions) -> Iterator[list[tuple[int, int]]]:
    """Images, by their first region and the one after the last, as many as make a block."""
    steps = np.diff(regions.item, prepend=-1)
    if (steps < 0).any():
        raise InputError("Regions.item descends; the regions of an image must follow each other, images ascending.")
    bounds = [*np.flatnonzero(steps).tolist(), len(regions.item)]
    most = max(1, BLOCK // max(rows.units.shape))
    block: list[tuple[int, int]] = []
    for start, stop in pairwise(bounds):
        if block and stop - block[0][0] > most:
            yield block
            block = []
        block.append((start, stop))
    if block:
        yield block


def _detect_block(
    compiled: CompiledDetection, rows: Compiled, regions: Regions, images: list[tuple[int, int]]
) -> Iterator[tuple[Intp, Intp, Float64]]:
    """Regions, classes and scores for each image in which something is found."""
    first, last = images[0][0], images[-1][1]
    block = slice(first, last)
    levels = settle(rows, regions.vectors[block])  # (e, b)
    with np.errstate(over="ignore"):
        levels += regions.shift[block]
        levels *= regions.scale[block]
        best, worst = maxima(rows, levels)  # (c, b)
        score = 1 / (1 + np.exp(-best.astype(np.float64)))
    able = (score >= compiled.thresholds[:, np.newaxis]) & (best >= worst)
    promising: Bool = np.asarray(able.any(axis=0))  # (b,)
    for start, stop in images:
        here = slice(start - first, stop - first)
        if promising[here].any():
            boxes = regions.boxes[start:stop]
            box, label = _thin(best[:, here], worst[:, here], able[:, here], boxes, compiled.nms, compiled.mode)
            yield box + start, label, score[label, box + start - first]


def _thin(best: Float32, worst: Float32, able: Bool, boxes: Float32, nms: float, mode: Mode) -> tuple[Intp, Intp]:
    """Boxes of one image that are kept, and their classes.

    best, worst  (c, b), P and N as logits
    able         bool (c, b), what is valid but for the neighbours' vetoes
    boxes        (b, 4)
    """
    promising = able.any(axis=0)
    order = np.argsort(~promising, kind="stable")  # the others only veto: behind, where they are compared with less
    asked = int(np.count_nonzero(promising))
    best, worst, able = best[:, order[:asked]], worst[:, order], able[:, order[:asked]]
    linked = overlapping(boxes[order], asked, nms)  # (a, b)
    pair, neighbour = np.divmod(np.flatnonzero(linked), len(order))
    veto = np.maximum.reduceat(worst[:, neighbour], np.searchsorted(pair, np.arange(asked)), axis=1)  # (c, a)
    level = np.where(able & (best >= veto), best, np.float32(-np.inf))  # (c, a)
    if mode == "agnostic":
        kept = np.array(_greedy(level.max(axis=0, keepdims=True), linked[:, :asked])[0], np.intp)
        label = level.argmax(axis=0)[kept]
        by_label = np.argsort(label, kind="stable")
        return order[kept[by_label]], label[by_label]
    by_class = _greedy(level, linked[:, :asked])
    label = np.repeat(np.arange(len(by_class)), [len(kept) for kept in by_class])
    return order[np.array([i for kept in by_class for i in kept], np.intp)], label


def overlapping(boxes: Float32, first: int, nms: float) -> Bool:
    """Whether the intersection over union is nms or more, for the first boxes with all: bool (a, b) of (b, 4), a.

    Every box overlaps with itself.
    """
    x0, y0, x1, y1 = np.ascontiguousarray(boxes.T, np.float64)
    area = (x1 - x0) * (y1 - y0)
    linked = np.empty((first, len(boxes)), np.bool_)
    step = max(1, PAIRS // len(boxes))
    work = np.empty((3, step * len(boxes)))  # arrays of this size, made anew each time, would cost more than their use
    for start in range(0, first, step):
        some, others = np.s_[start : min(start + step, first), np.newaxis], np.s_[start:]  # pairs before were looked at
        shape = len(x0[some]), len(x0[others])
        shared, height, other = (part[: shape[0] * shape[1]].reshape(shape) for part in work)
        np.minimum(x1[some], x1[others], out=shared)
        shared -= np.maximum(x0[some], x0[others], out=other)
        np.maximum(shared, 0, out=shared)
        np.minimum(y1[some], y1[others], out=height)
        height -= np.maximum(y0[some], y0[others], out=other)
        np.maximum(height, 0, out=height)
        shared *= height
        union = np.add(area[some], area[others], out=other)
        union -= shared
        with np.errstate(invalid="ignore"):
            shared /= union
        stop = start + shape[0]
        np.greater_equal(shared, nms, out=linked[start:stop, start:])
        linked[stop:, start:stop] = linked[start:stop, stop:first].T
    if nms <= 0:
        linked[:] = True  # boxes without area too
    np.fill_diagonal(linked, True)
    return linked


def _greedy(level: Float32, linked: Bool) -> list[list[int]]:
    """The boxes kept, by falling level, for each row of level, float32 (c, a); -inf is for a box that may not be.

    linked  bool (a, a)
    """
    packed = np.packbits(linked, axis=1, bitorder="little")  # (a, bytes)
    data, size = packed.tobytes(), packed.shape[1]
    suppressed = [int.from_bytes(data[i * size : i * size + size], "little") for i in range(len(linked))]
    orders = np.argsort(-level, axis=1, kind="stable").tolist()
    found = []
    for order, count in zip(orders, np.count_nonzero(level > -np.inf, axis=1).tolist(), strict=True):
        gone, kept = 0, []
        for i in order[:count]:
            if not gone >> i & 1:
                kept.append(i)
                gone |= suppressed[i]
        found.append(kept)
    return found
