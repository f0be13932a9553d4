"""Questions about boxes: their texts and images go through the detector that found them, loaded with the first one."""

import threading
from collections.abc import Callable

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index import boxes
from clipsieve.index.counting import Count
from clipsieve.index.examples import Remembered, Templates
from clipsieve.index.opened import Opened
from clipsieve.protocols import Detector
from clipsieve.types import ClassVectors, Int64, MetaClass


class BoxQuestions:
    """Embeds questions about a collection's boxes, and counts boxes for its filters. Safe in many threads.

    load  makes a detector of a name; None where none can be had
    """

    def __init__(self, load: Callable[[str], Detector] | None) -> None:
        self._load = load
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
        return boxes.embed_question(meta, finder, templates, memory, pictures)

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
