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
    asked = np.flatnonzero(able.any(axis=0))  # (a,), the others veto, and are never kept
    linked = overlapping(boxes, asked, nms)  # (a, b)
    pair, neighbour = np.nonzero(linked)
    veto = np.maximum.reduceat(worst[:, neighbour], np.searchsorted(pair, np.arange(len(asked))), axis=1)  # (c, a)
    level = np.where(able[:, asked] & (best[:, asked] >= veto), best[:, asked], np.float32(-np.inf))  # (c, a)
    suppressed = _bits(linked[:, asked])
    if mode == "agnostic":
        kept = np.array(_greedy(level.max(axis=0), suppressed), np.intp)
        label = level.argmax(axis=0)[kept]
        order = np.argsort(label, kind="stable")
        return asked[kept[order]], label[order]
    by_class = [_greedy(one, suppressed) for one in level]
    box = asked[np.array([i for kept in by_class for i in kept], np.intp)]
    return box, np.repeat(np.arange(len(by_class)), [len(kept) for kept in by_class])


def overlapping(boxes: Float32, asked: Intp, nms: float) -> Bool:
    """Whether the intersection over union is nms or more, for the boxes asked with all: bool (a, b) of (b, 4), (a,).

    Every box overlaps with itself.
    """
    x0, y0, x1, y1 = boxes.T.astype(np.float64)
    area = (x1 - x0) * (y1 - y0)
    shared = np.minimum(x1[asked, np.newaxis], x1)  # (a, b)
    shared -= np.maximum(x0[asked, np.newaxis], x0)
    np.maximum(shared, 0, out=shared)
    height = np.minimum(y1[asked, np.newaxis], y1)
    height -= np.maximum(y0[asked, np.newaxis], y0)
    np.maximum(height, 0, out=height)
    shared *= height
    union = area[asked, np.newaxis] + area
    union -= shared
    with np.errstate(invalid="ignore"):
        shared /= union
    linked: Bool = shared >= nms if nms > 0 else np.ones(shared.shape, np.bool_)
    linked[np.arange(len(asked)), asked] = True
    return linked


def _bits(linked: Bool) -> list[int]:
    """Each row of bool (a, a) as a number, whose bit i is entry i."""
    packed = np.packbits(linked, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in packed]


def _greedy(level: Float32, suppressed: list[int]) -> list[int]:
    """Positions kept, by falling level, of those with one above -inf; suppressed[i] says in bits what i leaves out."""
    order = np.argsort(-level, kind="stable")[: np.count_nonzero(level > -np.inf)]
    gone, kept = 0, []
    for i in order.tolist():
        if not gone >> i & 1:
            kept.append(i)
            gone |= suppressed[i]
    return kept
