"""The boxes of a collection's items that show a class. Nothing of HTTP."""

from collections.abc import Callable, Sequence

from clipsieve.errors import InputError
from clipsieve.index import boxes
from clipsieve.index.collection import Collection
from clipsieve.index.examples import Remembered, Templates
from clipsieve.index.regions import CollectionRegions
from clipsieve.protocols import Detector
from clipsieve.types import ClassSet, ClassVectors, MetaClass, Regions

Shown = list[float | str]
"""x, y, width, height, in 0..1 of the image from its top left corner; the score, in 0..1; the class."""


class Boxes:
    """Says where in items a class is seen. Texts are embedded once; safe to use from several threads at once.

    detector  gives the one that found the regions, when the first question needs it; None where there is none
    """

    def __init__(self, detector: Callable[[], Detector] | None) -> None:
        self._detector = detector
        self._texts = Remembered()

    def of(
        self, regions: CollectionRegions, ids: Sequence[int], classes: ClassSet, name: str | None, threshold: float
    ) -> dict[int, list[Shown]]:
        """The boxes of each of the items, by falling score; none of those that nobody looked for regions in.

        name       which class of the set; a set of one class needs none
        threshold  least score of a box

        The errors are those of `embed`; NotFound for a removed item.
        """
        meta = next(c for c in classes.classes if name is None or c.name == name)
        (vectors,) = self.embed(regions, [meta], classes.templates)
        some = regions.of(ids)
        nms = boxes.NMS if classes.nms is None else classes.nms
        kept = boxes.kept(some, vectors, threshold, nms)
        found: dict[int, list[Shown]] = {id: [] for id in ids}
        for region, score in zip(kept.region.tolist(), kept.score.tolist(), strict=True):
            found[int(some.item[region])].append([*_corner_and_size(some, region), score, meta.name])
        return found

    def embed(
        self, regions: CollectionRegions, classes: Sequence[MetaClass], templates: Templates
    ) -> tuple[ClassVectors, ...]:
        """Classes in the space of the regions.

        InputError without a detector, or for examples that are images; ModelMismatch for another detector.
        """
        if self._detector is None:
            raise InputError(
                f"Boxes need the detector that found them; start the service with --detector {regions.model.name}, or "
                "ask without boxes."
            )
        detector = self._detector()
        regions.model.require(detector.model, "The service's --detector")
        return boxes.embed_questions(classes, detector, templates, self._texts)


def all_boxes(collection: Collection, id: int) -> list[list[float]] | None:
    """x, y, width and height of all regions of an item, by falling objectness; None where no detector looked."""
    if collection.manifest.detection is None:
        return None
    some = collection.regions.of([id])
    return [_corner_and_size(some, i) for i in range(len(some.item))]


def _corner_and_size(regions: Regions, i: int) -> list[float]:
    x0, y0, x1, y1 = regions.boxes[i].tolist()
    return [x0, y0, x1 - x0, y1 - y0]
