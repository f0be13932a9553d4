"""Questions about boxes: their texts and images go through the detector that found them, loaded with the first one."""

import threading
from collections.abc import Callable, Sequence

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index import boxes
from clipsieve.index.counting import Count
from clipsieve.index.examples import Remembered, Templates, texts_of
from clipsieve.index.opened import Opened
from clipsieve.index.templates import expand
from clipsieve.protocols import Detector
from clipsieve.reading import LongText, notes_of
from clipsieve.types import ClassVectors, Int64, MetaClass


class BoxQuestions:
    """Embeds questions about a collection's boxes, and counts boxes for its filters. Safe in many threads.

    load  makes a detector of a name; None where none can be had
    """

    def __init__(self, load: Callable[[str], Detector] | None, long_text: LongText = "cut") -> None:
        self._load, self._long_text = load, long_text
        self._detectors: dict[str, Detector] = {}
        self._loading = threading.Lock()  # guards _detectors
        self._boxed = Remembered()  # examples in the detector's space

    def embed(
        self,
        opened: Opened,
        meta: MetaClass,
        detector: Detector | None,
        templates: Templates,
        pictures: boxes.ImageBytes | None = None,
    ) -> ClassVectors:
        """A class in the detector's space; else as `boxes.embed_question`.

        detector  None for the one that found the regions: NotFound where nothing did, InputError where it cannot be had
        """
        finder = self._detector(opened) if detector is None else detector
        memory = self._boxed if detector is None else None
        return boxes.embed_question(meta, finder, templates, memory, pictures, self._long_text)

    def notes(
        self, opened: Opened, classes: Sequence[MetaClass], detector: Detector | None, templates: Templates
    ) -> tuple[str, ...]:
        """What is to be told of the classes' texts, as the detector reads them; see `reading.notes_of`."""
        texts = texts_of(classes)
        if not texts:
            return ()
        finder = self._detector(opened) if detector is None else detector
        return notes_of(texts, expand(templates), finder, self._long_text)

    def counter(self, opened: Opened) -> Count | None:
        """Counts boxes for a filter; None where no detector can be had."""
        if self._load is None:
            return None

        def count(text: str, least: float, ids: Int64) -> Int64:
            vectors = self.embed(opened, MetaClass(text, [text]), None, None)
            vectors.model.require(opened.regions.model, "The regions")
            counts, live = np.zeros(len(ids), np.int64), ~np.isin(ids, opened.removed)
            counts[live] = boxes.count(opened.regions, vectors, ids[live], least)
            return counts

        return count

    def _detector(self, opened: Opened) -> Detector:
        model = opened.regions.model
        if self._load is None:
            raise InputError(
                f"Boxes are asked for with the detector that found them, {model.name!r}, and none was given; open the "
                "collection with clipsieve.open."
            )
        with self._loading:
            if model.name not in self._detectors:
                self._detectors = {model.name: self._load(model.name)}
            return self._detectors[model.name]
