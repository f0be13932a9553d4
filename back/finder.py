"""Boxes found in images by deployed detectors. Nothing of HTTP."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clipsieve.back.deployed import Deployed, Suppression
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.index.examples import Remembered, embed_classes, embed_texts, texts_of
from clipsieve.index.suppress import CompiledDetection, compile_detection, detect
from clipsieve.index.templates import expand
from clipsieve.kept import Kept
from clipsieve.protocols import Detector
from clipsieve.reading import notes_of
from clipsieve.types import Example, Float32, Regions, content_hash

MOST_BYTES = 256 * 2**20
"""Of the classes' vectors that are kept, and again of the images' regions."""


@dataclass(frozen=True, slots=True)
class Found:
    """A box, and what it shows.

    tlbr   left, top, right and bottom, in pixels of the upright image
    score  in 0..1
    """

    tlbr: tuple[float, float, float, float]
    score: float
    name: str


class Finder:
    """Finds boxes with one detector. Texts are embedded and images searched once; safe to use from several threads.

    detector  gives it when the first question needs it, to be asked from many threads at once
    """

    def __init__(self, detector: Callable[[], Detector], most_bytes: int = MOST_BYTES) -> None:
        self._detector = detector
        self._texts = Remembered()
        self._compiled: Kept[CompiledDetection] = Kept(most_bytes, _bytes_of_classes)
        self._regions: Kept[Regions] = Kept(most_bytes, lambda regions: regions.vectors.nbytes)

    def regions(self, data: bytes) -> Regions:
        """What the detector finds in an encoded image. InputError if it cannot be decoded."""
        name = content_hash(data)
        regions = self._regions.find(name)
        if regions is None:  # one that others send meanwhile is searched twice, in one pass most likely
            regions = self._model().detect([data])
            self._regions.put(name, regions)
        return regions

    def keep(
        self, deployed: Deployed, suppression: Suppression, regions: Regions, size: tuple[int, int]
    ) -> list[Found]:
        """The boxes that a detector's classes keep, in the order of the classes, by falling score.

        size  width and height of the image in pixels
        """
        key = (deployed.classes, deployed.templates, suppression)
        compiled = self._compiled.get(key, lambda: self._compile(deployed, suppression))
        kept = detect(compiled, regions)
        pixels = regions.boxes[kept.region].astype(np.float64) * (size * 2)  # (k, 4)
        columns = zip(pixels.tolist(), kept.score.tolist(), kept.label.tolist(), strict=True)
        return [Found(tuple(tlbr), score, deployed.classes[label].name) for tlbr, score, label in columns]

    def notes(self, deployed: Deployed) -> tuple[str, ...]:
        """What is to be told of the texts of a configuration; see `reading.notes_of`. ModelUnavailable without one."""
        return notes_of(texts_of(deployed.classes), expand(deployed.templates), self._model())

    def _compile(self, deployed: Deployed, suppression: Suppression) -> CompiledDetection:
        detector = self._model()

        def texts(wanted: Sequence[str]) -> Float32:
            return embed_texts(wanted, deployed.templates, detector, self._texts)

        def images(wanted: Sequence[Example]) -> Float32:
            raise InputError("A deployed detector has texts only.")

        classes = embed_classes(deployed.classes, detector.model, texts, images) if deployed.classes else ()
        thresholds = [c.threshold for c in deployed.classes]
        return compile_detection(classes, thresholds, suppression.nms, suppression.mode)

    def _model(self) -> Detector:
        """The detector. ModelUnavailable where there is none, whatever the reason."""
        try:
            return self._detector()
        except InputError as error:  # a wrong name is the service's fault, not the request's
            raise ModelUnavailable(str(error)) from error


def _bytes_of_classes(compiled: CompiledDetection) -> int:
    return 0 if compiled.rows is None else compiled.rows.units.nbytes
