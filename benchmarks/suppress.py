"""Classes over stored regions: whole detections, over a loop that takes one class at a time and over the product alone.

    python -m benchmarks.suppress [--quick]

10 classes of 3 + 3 examples, 512 dimensions, one core. An image has 20 things with as many boxes around each as make
300, or 32. "few" has thresholds that one region in a hundred reaches, as in a search; "all" none, so that every box of
every class goes through the suppression. The loop is what one would write for one class, around which a loop is put:
product, sigmoid, maxima, vetoes and suppression by numpy, in float32; the graph is computed once per image there too.
Both must keep the same boxes but for one in a thousand, because float32 decides near-ties by chance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.measuring import MODEL, alternate, arguments, classes_of, clustered, keep, unit, unit_rows
from clipsieve.index.rule import Bool
from clipsieve.index.suppress import CompiledDetection, Detections, compile_detection, detect
from clipsieve.types import ClassVectors, Float32, Int64, Mode, Regions

DIM, CLASSES, EXAMPLES, THINGS, NMS = 512, 10, 3, 20, 0.4
MODES: tuple[Mode, ...] = ("agnostic", "class-wise")
SAME = 1e-3
Found = list[tuple[int, int]]
"""Regions and their classes."""


def make_images(rng: np.random.Generator, images: int, boxes: int, classes: list[ClassVectors]) -> Regions:
    """Regions of images. The boxes around a thing look alike, and somewhat like a class's example."""
    centres = unit_rows(rng, images * THINGS, DIM)
    examples = np.concatenate([rows for c in classes for rows in (c.positive, c.negative)])
    centres += examples[rng.integers(0, len(examples), len(centres))]
    unit(centres)
    thing = np.sort(rng.integers(0, THINGS, (images, boxes)), axis=1) + np.arange(images)[:, None] * THINGS
    rows = np.concatenate([clustered(rng, 1, DIM, centres[t : t + 1]) for t in thing.flatten()])
    place, size = rng.random((len(centres), 2)), 0.05 + 0.3 * rng.random((len(centres), 2))
    corner = place[thing] + 0.1 * size[thing] * rng.standard_normal((images, boxes, 2))
    extent = size[thing] * np.exp(0.2 * rng.standard_normal((images, boxes, 2)))
    placed = np.concatenate([corner - extent / 2, corner + extent / 2], axis=2).clip(0, 1).astype(np.float32)
    n = images * boxes
    ones = np.ones(n, np.float32)
    items = np.repeat(np.arange(images), boxes)
    return Regions(rows, placed.reshape(n, 4), items, ones, 0.1 * rng.standard_normal(n).astype(np.float32), 8 * ones,
                   MODEL)  # fmt: skip


def pick(regions: Regions, part: slice) -> Regions:
    """Some of the regions."""
    r = regions
    return Regions(
        r.vectors[part], r.boxes[part], r.item[part], r.objectness[part], r.shift[part], r.scale[part], MODEL
    )


def pairs(detections: Detections, start: int = 0) -> Found:
    """Regions and classes, in order."""
    return list(zip((detections.region + start).tolist(), detections.label.tolist(), strict=True))


def graph(boxes: Float32) -> Bool:
    shared = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    shared = shared.clip(0).prod(axis=2)  # (b, b)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    linked: Bool = shared / (area[:, None] + area - shared) >= NMS
    return linked


def greedy(level: Float32, at: Int64, linked: Bool) -> list[int]:
    order = at[np.argsort(-level[at], kind="stable")]
    kept = []
    while len(order):
        kept.append(int(order[0]))
        order = order[1:][~linked[order[0], order[1:]]]
    return kept


def per_class(
    vectors: Float32, regions: Regions, classes: list[ClassVectors], thresholds: list[float], mode: Mode
) -> Found:
    """One image by a loop over classes. `vectors` are those of `regions`, which hold the rest."""
    linked = graph(regions.boxes)
    found: Found = []
    levels = []
    for j, (c, threshold) in enumerate(zip(classes, thresholds, strict=True)):
        positive, negative = (
            (1 / (1 + np.exp(-(rows @ vectors.T + regions.shift) * regions.scale))).max(axis=0)  # (p, b) -> (b,)
            for rows in (c.positive, c.negative)
        )
        veto = np.where(linked, negative, 0).max(axis=1)
        valid = (positive >= threshold) & (positive >= veto)
        if mode == "class-wise":
            found += [(i, j) for i in greedy(positive, np.flatnonzero(valid), linked)]
        levels.append(np.where(valid, positive, 0))
    if mode == "agnostic":
        level = np.stack(levels)
        label, best = level.argmax(axis=0), level.max(axis=0)
        found = sorted(((i, int(label[i])) for i in greedy(best, np.flatnonzero(best), linked)), key=lambda one: one[1])
    return found


def loop(
    regions: Regions, boxes: int, classes: list[ClassVectors], thresholds: list[float], mode: Mode
) -> Callable[[], Found]:
    parts = [pick(regions, slice(start, start + boxes)) for start in range(0, len(regions.item), boxes)]

    def run() -> Found:
        found: Found = []
        for i, part in enumerate(parts):
            found += [(b + i * boxes, j) for b, j in per_class(part.vectors, part, classes, thresholds, mode)]
        return found

    return run


def one_by_one(regions: Regions, boxes: int, compiled: CompiledDetection) -> Callable[[], Found]:
    starts = range(0, len(regions.item), boxes)

    def run() -> Found:
        return [one for i in starts for one in pairs(detect(compiled, pick(regions, slice(i, i + boxes))), start=i)]

    return run


def all_at_once(regions: Regions, compiled: CompiledDetection) -> Callable[[], Found]:
    return lambda: pairs(detect(compiled, regions))


def stored(regions: Regions, compiled: CompiledDetection) -> Callable[[], Found]:
    """From float16, as regions lie on disk, and all that a Regions checks."""
    half = regions.vectors.astype(np.float16)

    def run() -> Found:
        columns = (regions.boxes, regions.item, regions.objectness, regions.shift, regions.scale)
        return pairs(detect(compiled, Regions(half.astype(np.float32), *columns, regions.model)))

    return run


def product(regions: Regions, boxes: int, matrix: Float32) -> Callable[[], None]:
    out = np.empty((len(matrix), boxes), np.float32)

    def run() -> None:
        for start in range(0, len(regions.item), boxes):
            np.matmul(matrix, regions.vectors[start : start + boxes].T, out=out)

    return run


def measure(boxes: int, images: int, rounds: int) -> dict[str, object]:
    """Seconds of every competitor, for all images together, and how many boxes are kept."""
    rng = np.random.default_rng(0)
    classes = classes_of(rng, CLASSES, EXAMPLES, EXAMPLES, DIM)
    matrix = np.concatenate([rows for c in classes for rows in (c.positive, c.negative)])
    regions = make_images(rng, images, boxes, classes)
    best = np.stack([(c.positive @ regions.vectors.T + regions.shift).max(axis=0) for c in classes])  # (c, b)
    few = (1 / (1 + np.exp(-8 * np.quantile(best, 0.99, axis=1)))).tolist()
    kept = {}
    competitors: dict[str, Callable[[], object]] = {"product": product(regions, boxes, matrix)}
    for fill, thresholds in (("few", few), ("all", [0.0] * CLASSES)):
        for mode in MODES:
            compiled = compile_detection(classes, thresholds, NMS, mode)
            case = f"{fill} {mode}"
            ours = {
                "image by image": one_by_one(regions, boxes, compiled),
                "all at once": all_at_once(regions, compiled),
                "stored": stored(regions, compiled),
            }
            rival = loop(regions, boxes, classes, thresholds, mode)
            found, expected = ours["all at once"](), rival()
            if found != ours["image by image"]() or len(set(found) ^ set(expected)) > SAME * len(expected):
                raise AssertionError(f"{case}: the loop, one image and all of them keep other boxes")
            kept[case] = len(expected)
            competitors |= {f"{case}, {name}": run for name, run in {**ours, "loop": rival}.items()}
    seconds = alternate(competitors, rounds)
    linked = np.mean([boxes * graph(regions.boxes[i : i + boxes]).mean() for i in range(0, len(regions.item), boxes)])
    return {"boxes": boxes, "images": images, "linked": float(linked), "kept": kept, "seconds": seconds}


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Classes over stored regions.")
    with threadpool_limits(1):
        cases = [measure(*size, rounds=2) for size in ((300, 2), (32, 8))] if args.quick else [
            measure(*size, rounds=9) for size in ((300, 40), (32, 400))
        ]  # fmt: skip
    keep(args, "suppress", {"dim": DIM, "classes": CLASSES, "examples": EXAMPLES, "nms": NMS, "cases": cases})


if __name__ == "__main__":
    main()
