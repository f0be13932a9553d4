"""The boxes of a collection's items that show a class. Nothing of HTTP."""

from collections.abc import Callable, Sequence
from pathlib import Path

from clipsieve.errors import InputError
from clipsieve.index import boxes
from clipsieve.index.collection import Collection
from clipsieve.index.examples import Remembered, Templates, texts_of
from clipsieve.index.regions import CollectionRegions
from clipsieve.index.templates import expand
from clipsieve.protocols import Detector
from clipsieve.reading import notes_of
from clipsieve.types import ClassVectors, MetaClass, Regions

Shown = list[float | str]
"""x, y, width, height, in 0..1 of the image from its top left corner; the score, in 0..1; the class."""


class Boxes:
    """Says where in items a class is seen. Examples are embedded once; safe to use from several threads at once.

    detector  gives the one that found the regions, when the first question needs it; None where there is none
    name      what it is called, where that is known before it is loaded
    """

    def __init__(self, detector: Callable[[], Detector] | None, name: str | None = None) -> None:
        self._detector, self._name = detector, name
        self._examples: dict[Path, Remembered] = {}  # an item's id means another image in another collection

    def fits(self, collection: Collection) -> bool:
        """Whether the detector is, by its name, the one that found the collection's regions."""
        found = collection.manifest.detection
        return found is not None and self._detector is not None and self._name == found.model.name

    def notes(self, collection: Collection, classes: Sequence[MetaClass], templates: Templates) -> tuple[str, ...]:
        """What is to be told of the classes' texts, as the detector reads them; the errors are those of `embed`."""
        return notes_of(texts_of(classes), expand(templates), self._require(collection))

    def embed(
        self, collection: Collection, classes: Sequence[MetaClass], templates: Templates
    ) -> tuple[ClassVectors, ...]:
        """Classes in the space of the collection's regions.

        InputError without a detector; ModelMismatch for another one; else the errors are those of `embed_questions`.
        """
        detector = self._require(collection)
        memory = self._examples.setdefault(collection.folder, Remembered())
        return boxes.embed_questions(classes, detector, templates, memory, collection.example_bytes)

    def _require(self, collection: Collection) -> Detector:
        regions = collection.regions
        if self._detector is None:
            raise InputError(
                f"Boxes need the detector that found them; start the service with --detector {regions.model.name}, or "
                "ask without boxes."
            )
        detector = self._detector()
        regions.model.require(detector.model, "The service's --detector")
        return detector


def boxes_of(
    regions: CollectionRegions, ids: Sequence[int], vectors: ClassVectors, threshold: float, nms: float | None
) -> dict[int, list[Shown]]:
    """The boxes of each of the items, by falling score; none of those that nobody looked for regions in.

    vectors    the class as `Boxes.embed` makes it
    threshold  least score of a box
    nms        overlap from which two boxes are one, in place of the usual one

    NotFound for a removed item.
    """
    some = regions.of(ids)
    kept = boxes.kept(some, vectors, threshold, boxes.NMS if nms is None else nms)
    found: dict[int, list[Shown]] = {id: [] for id in ids}
    for region, score in zip(kept.region.tolist(), kept.score.tolist(), strict=True):
        found[int(some.item[region])].append([*_corner_and_size(some, region), score, vectors.name])
    return found


def all_boxes(collection: Collection, id: int) -> list[list[float]] | None:
    """x, y, width and height of all regions of an item, by falling objectness; None where no detector looked."""
    if collection.manifest.detection is None:
        return None
    some = collection.regions.of([id])
    return [_corner_and_size(some, i) for i in range(len(some.item))]


def _corner_and_size(regions: Regions, i: int) -> list[float]:
    x0, y0, x1, y1 = regions.boxes[i].tolist()
    return [x0, y0, x1 - x0, y1 - y0]
