"""Detection over a collection: which of its stored regions a class set keeps, image by image, in blocks.

The rule is that of `suppress.py`. No image is looked at: a detector is needed for the set's texts alone.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clipsieve.errors import InputError, NotFound
from clipsieve.index.boxes import ImageBytes, embed_questions
from clipsieve.index.calibrate import Float64
from clipsieve.index.records import Images, Record, Tally
from clipsieve.index.regions import CollectionRegions
from clipsieve.index.suppress import CompiledDetection, compile_detection, detect
from clipsieve.protocols import Detector
from clipsieve.reading import LongText
from clipsieve.types import ClassSet, Int64, Mode

BLOCK_IMAGES = 128
"""Images whose regions are in memory at a time: 120 MB of float32 at 300 regions of 768 dimensions."""

NMS = 0.4
MODE: Mode = "agnostic"
THRESHOLD = 0.1
"""What holds where neither the caller nor the set says anything; those of DirectAI."""


Size = Callable[[int, Mapping[str, object]], tuple[int, int]]
"""An item's id and metadata -> width and height of the upright image in pixels. NotFound or InputError: not known."""


@dataclass(frozen=True, slots=True, eq=False)
class ImageBoxes:
    """What is kept in one image, in the order of the classes, by falling score.

    id     the item's
    boxes  float64 (k, 4), x0 y0 x1 y1 in 0..1 of the upright image
    label  int64 (k,), position of the class
    score  float64 (k,), in 0..1
    """

    id: int
    boxes: Float64
    label: Int64
    score: Float64


@dataclass(slots=True)
class Counts:
    """What a walk counts while it goes on: images looked through, those with a box, and boxes of each class."""

    images: int = 0
    with_boxes: int = 0
    boxes: Counter[int] = field(default_factory=Counter)

    def add(self, found: ImageBoxes) -> None:
        """Count one image."""
        self.images += 1
        self.with_boxes += bool(len(found.label))
        self.boxes.update(found.label.tolist())


def compile_set(
    classes: ClassSet,
    detector: Detector,
    *,
    nms: float | None = None,
    mode: Mode | None = None,
    threshold: float = THRESHOLD,
    pictures: ImageBytes | None = None,
    long_text: LongText = "cut",
) -> CompiledDetection:
    """A class set as what to look for.

    nms, mode  in place of the set's own; NMS and MODE where neither says anything
    threshold  least score of the classes that have none of their own
    pictures   the images that are examples; None where there can be none
    long_text  what is done with a text that is longer than the detector reads

    InputError for a calibrated set; else the errors are those of `boxes.embed_questions`.
    """
    if classes.calibration != "none":
        raise InputError(
            f"The set has calibration {classes.calibration!r}; a detector's scores have a scale of their own, so give "
            'a set with calibration "none".'
        )
    found = classes.classes
    vectors = embed_questions(found, detector, classes.templates, None, pictures, long_text) if found else ()
    return compile_detection(
        vectors,
        [threshold if c.threshold is None else c.threshold for c in classes.classes],
        nms if nms is not None else NMS if classes.nms is None else classes.nms,
        mode or classes.mode or MODE,
    )


def walk(regions: CollectionRegions, compiled: CompiledDetection, only: Int64 | None = None) -> Iterator[ImageBoxes]:
    """The boxes kept in each image that was looked through, by ascending id within a shard; images without any too.

    only  ids to keep to

    ModelMismatch where the regions were found by another detector than the classes were embedded by.
    """
    for ids in wanted_ids(regions, only):
        for start in range(0, len(ids), BLOCK_IMAGES):
            yield from boxes_of(regions, compiled, ids[start : start + BLOCK_IMAGES])


def wanted_ids(regions: CollectionRegions, only: Int64 | None = None) -> Iterator[Int64]:
    """The ids that `walk` goes through, int64, shard after shard."""
    for ids in regions.looked_through():
        yield ids if only is None else ids[np.isin(ids, only)]


def record(found: ImageBoxes, key: str, size: tuple[int, int], names: Sequence[str]) -> Record:
    """An image with its boxes as plain values: left, top, width and height in pixels.

    size  width and height of the upright image
    """
    corners = found.boxes * (size * 2)
    corners[:, 2:] -= corners[:, :2]
    boxes: list[Mapping[str, Any]] = [
        {"class": names[label], "score": score, "box": box}
        for label, score, box in zip(found.label.tolist(), found.score.tolist(), corners.tolist(), strict=True)
    ]
    return Record(found.id, key, {"width": size[0], "height": size[1], "boxes": boxes})


def with_boxes(
    records: Iterable[Record],
    images: Images,
    regions: CollectionRegions,
    compiled: CompiledDetection,
    names: Sequence[str],
    size: Size,
    tally: Tally,
) -> Iterator[Record]:
    """The records and what `record` says of their boxes; those whose size is not known are skipped.

    names  of the classes
    """
    stream = iter(records)
    while block := list(itertools.islice(stream, BLOCK_IMAGES)):
        ids = np.array([one.id for one in block], np.int64)
        rows = images.items(ids)
        for one, row, found in zip(block, rows, boxes_of(regions, compiled, ids), strict=True):
            try:
                pixels = size(one.id, row)
            except (NotFound, InputError) as error:
                tally.skip(one, unknown_size(error))
                continue
            yield replace(one, found={**one.found, **record(found, one.key, pixels, names).found})


def unknown_size(error: Exception) -> str:
    """Why an image is left out whose boxes cannot be told in pixels."""
    return f"How large it is is not known. {error}"


def boxes_of(regions: CollectionRegions, compiled: CompiledDetection, ids: Int64) -> Iterator[ImageBoxes]:
    """The boxes kept in each of these images, in their order; none where nobody looked."""
    own = regions.of(ids)
    kept = detect(compiled, own)
    boxes = own.boxes[kept.region].astype(np.float64).clip(0, 1)
    owner = own.item[kept.region]
    starts, stops = np.searchsorted(owner, ids, "left"), np.searchsorted(owner, ids, "right")
    for id, start, stop in zip(ids.tolist(), starts.tolist(), stops.tolist(), strict=True):
        yield ImageBoxes(id, boxes[start:stop], kept.label[start:stop], kept.score[start:stop])
