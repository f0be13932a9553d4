"""A detector for many threads: the images that they ask for at the same time go through it in one pass.

Images are gathered by `row_queue` as rows are by `batcher`: in the order in which they came, decoded in a pool of
threads ahead of the model, and one that fails is alone in that. What is found in an image travels as one row of
numbers, since images differ in how many regions they have.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batch_statistics import BatchStatistics
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import prepare_each
from clipsieve.inference.detector import CHUNK, StagedDetector
from clipsieve.inference.row_queue import RowQueue
from clipsieve.ordered import processors
from clipsieve.reading import Reading, read_texts, split_text
from clipsieve.types import Box, Float32, ModelId, Regions

COLUMNS = 7
"""Numbers of a region beside its vector: the box, objectness, shift and scale."""


class BatchedDetector:
    """A Detector for many threads; texts and examples go to the one that it is made of.

    options  how images are batched; by default at most CHUNK in a pass

    `detect` raises Overloaded if too much waits, Closed after `close`.
    """

    def __init__(
        self,
        detector: StagedDetector,
        options: BatchOptions | None = None,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._detector = detector
        self.model: ModelId = detector.model
        self.dim: int = detector.dim
        self.regions, self.lanes = detector.regions, detector.lanes
        options = options or BatchOptions(max_batch=CHUNK)
        width = 1 + detector.regions * (detector.dim + COLUMNS)
        self._queue = RowQueue({"image": self._run}, width, detector.lanes, options, clock)
        self._decoders = ThreadPoolExecutor(options.workers or processors(), "clipsieve-decode")

    def detect(self, images: Sequence[bytes]) -> Regions:
        """See protocols.Detector."""
        with self._queue.request("image", len(images), None, 0) as request:
            if images:
                coming = [self._decoders.submit(self._prepare, data) for data in images]
                tensors = prepare_each(coming, Future.result, "searched for regions")
                self._queue.put(request, tensors)
                return self._unpack(self._queue.wait(request))
        return self._detector.detect_tensors([])

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.Detector."""
        return self._detector.embed_texts(texts)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts."""
        return read_texts(self._detector, texts)

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        return split_text(self._detector, text)

    def embed_example(self, image: bytes, box: Box | None = None) -> Float32:
        """See protocols.Detector."""
        return self._detector.embed_example(image, box)

    def statistics(self) -> BatchStatistics:
        """What was done so far, of images."""
        return self._queue.statistics()

    def close(self) -> None:
        """Accept nothing more, finish what was accepted, end the threads."""
        self._queue.close()
        self._decoders.shutdown()

    def _prepare(self, data: bytes) -> Tensors:
        return self._detector.preprocess(data)

    def _run(self, batch: Sequence[Tensors]) -> Float32:
        """n preprocessed images -> float32 (n, width): how many regions, then the regions one after the other."""
        found = self._detector.detect_tensors(batch)
        numbers = (found.objectness[:, None], found.shift[:, None], found.scale[:, None])
        flat = np.concatenate([found.vectors, found.boxes, *numbers], axis=1)  # (m, dim + COLUMNS)
        rows = np.zeros((len(batch), 1 + self.regions * flat.shape[1]), np.float32)
        for i, row in enumerate(rows):
            own = flat[found.item == i]
            row[0], row[1 : 1 + own.size] = len(own), own.reshape(-1)
        return rows

    def _unpack(self, rows: Float32) -> Regions:
        width = self.dim + COLUMNS
        counts = rows[:, 0].astype(np.int64)
        none = np.zeros((0, width), np.float32)
        flat = np.concatenate(
            [none, *(row[1 : 1 + n * width].reshape(n, width) for row, n in zip(rows, counts.tolist(), strict=True))]
        )
        vectors, boxes, numbers = np.split(flat, [self.dim, self.dim + 4], axis=1)
        objectness, shift, scale = numbers.T.copy()
        item = np.repeat(np.arange(len(rows)), counts)
        contiguous = np.ascontiguousarray
        return Regions(contiguous(vectors), contiguous(boxes), item, objectness, shift, scale, self.model)
