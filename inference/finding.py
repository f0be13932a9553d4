"""The regions of images that are being embedded, from the same decoding of each."""

import dataclasses
import io
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.image_files import open_raster
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import MAX_PIXELS
from clipsieve.inference.detector import StagedDetector
from clipsieve.inference.embedder import CHUNK, StagedEmbedder
from clipsieve.manifest import Detection
from clipsieve.ordered import processors
from clipsieve.stored_regions import StoredRegions, join, store
from clipsieve.types import Box, Float32, Regions
from clipsieve.writer import Writer

BATCH = 32
"""Images that a detector is given at a time: their pixels take twenty times the room of a CLIP's."""

LEAST_SIDE = 8
"""Pixels of a crop's side at least, where the image has them: a model scales a thinner strip to nothing it knows."""

Looked = tuple[bytes, Tensors]
"""An encoded image, and what the detector takes of it."""


class Finder:
    """Finds regions in batches of images; in the lanes of the detector, and for any thread.

    crops         the collection's own embedder, where each box is embedded by it, too
    image_memory  from which decoding images for crops reserves; by default one of its own
    """

    def __init__(
        self,
        detector: StagedDetector,
        crops: StagedEmbedder | None = None,
        *,
        max_pixels: int = MAX_PIXELS,
        image_memory: ImageMemory | None = None,
    ) -> None:
        self._detector = detector
        self._crops = crops
        self._max_pixels = max_pixels
        self._image_memory = image_memory or ImageMemory()
        self.detection = Detection(detector.model, detector.dim, detector.regions, crops is not None)

    def look(self, image: Image.Image, data: bytes) -> Looked:
        """What `find` takes of an image from `decode`, and of its file, which is decoded again for crops."""
        return (data if self._crops is not None else b""), self._detector.preprocess_image(image)

    def look_at(self, data: bytes, max_pixels: int) -> Looked:
        """The same of an encoded image. InputError if it cannot be decoded."""
        with open_raster(data, self._image_memory, max_pixels=max_pixels, factor=None) as raster:
            return self.look(raster.for_model(), data)

    def find(self, images: Sequence[Looked | None]) -> StoredRegions:
        """The regions of n images. Those that are None, or of which nothing finite comes, count as unseen."""
        looked = [one for one in images if one is not None]
        if len(looked) == len(images):
            try:
                regions = self._detector.detect_tensors([tensors for _, tensors in looked])
                return store(regions, len(images), self._embed_crops([data for data, _ in looked], regions))
            except InputError:
                pass  # one of them; the others must not suffer for it
        if len(images) == 1:
            nothing = self._detector.detect_tensors([])
            return store(nothing, 1, self._embed_crops([], nothing), unseen=[0])
        return join([self.find([one]) for one in images])

    def _embed_crops(self, images: Sequence[bytes], regions: Regions) -> Float32 | None:
        if self._crops is None:
            return None
        rows = [np.zeros((0, self._crops.dim), np.float32)]
        tensors: list[Tensors] = []
        with ThreadPoolExecutor(processors(), "clipsieve-crop") as pool:
            boxes = [regions.boxes[regions.item == i] for i in range(len(images))]
            for cut in pool.map(self._cut, images, boxes):
                tensors += cut
                while len(tensors) >= CHUNK:
                    rows.append(self._crops.embed_tensors(tensors[:CHUNK]))
                    del tensors[:CHUNK]
        return np.concatenate([*rows, self._crops.embed_tensors(tensors)])

    def _cut(self, data: bytes, boxes: Float32) -> list[Tensors]:
        assert self._crops is not None
        if not len(boxes):
            return []
        with open_raster(data, self._image_memory, max_pixels=self._max_pixels, crops=True) as raster:
            return [self._crops.preprocess_image(raster.crop(pixels)) for pixels in _pixels(raster.size, boxes)]


def settle(writer: Writer, finder: Finder) -> None:
    """Make the finder the collection's. ModelMismatch or InputError if it has another one."""
    there = writer.manifest.detection
    if there is None:
        writer.commit(dataclasses.replace(writer.manifest, detection=finder.detection))
        return
    there.model.require(finder.detection.model, f"What is to find regions in {writer.folder}")
    if there != finder.detection:
        raise InputError(
            f"{writer.folder} keeps {there.most} regions of an image {'with' if there.crops else 'without'} crops, not "
            f"{finder.detection.most} {'with' if finder.detection.crops else 'without'}; keep it so, or look through "
            "it anew with `clipsieve regions --anew`."
        )


def cut(data: bytes, box: Box, memory: ImageMemory | None = None) -> bytes:
    """What is in a box of an encoded image, as a crop is cut, as PNG. InputError if it cannot be decoded."""
    file = io.BytesIO()
    with open_raster(data, memory or ImageMemory(), crops=True) as raster:
        (pixels,) = _pixels(raster.size, np.array([box], np.float32))
        raster.crop(pixels).save(file, "PNG")
    return file.getvalue()


def _pixels(size: tuple[int, int], boxes: Float32) -> Iterator[tuple[int, int, int, int]]:
    """The boxes in whole pixels of an image of that size, grown to LEAST_SIDE where they are thinner."""
    for box in boxes.tolist():
        sides = [_span(box[axis] * size[axis], box[axis + 2] * size[axis], size[axis]) for axis in (0, 1)]
        yield sides[0][0], sides[1][0], sides[0][1], sides[1][1]


def _span(low: float, high: float, size: int) -> tuple[int, int]:
    first, last = math.floor(low), math.ceil(high)
    length = max(last - first, min(LEAST_SIDE, size))
    start = min(max(0, first - (length - (last - first)) // 2), size - length)
    return start, start + length
