"""Embedders for many threads: what they ask for at the same time runs as one batch.

`batched(embedder)` is an embedder like the one it is made of, and gives raw rows too where that one has
`features_of_tensors`. Requests are gathered by `row_queue`; images
are decoded in a pool of threads, ahead of the model. Texts are tokenized with their batch.
"""

import copy
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol, Self, TypedDict, TypeVar, Unpack, cast, overload

import numpy as np
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.inference.batch_request import BatchOptions, Request
from clipsieve.inference.batch_statistics import BatchStatistics
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import decoding_of, view_of
from clipsieve.inference.embedder import StagedEmbedder, StagedTextEmbedder
from clipsieve.inference.row_queue import Model, RowQueue
from clipsieve.ordered import processors
from clipsieve.protocols import DecodesImages
from clipsieve.raster import View
from clipsieve.reading import Reading, read_texts, split_text
from clipsieve.types import Decoding, Float32, Int64

_In = TypeVar("_In")
_Out = TypeVar("_Out")

Prepared = Callable[[str, int], None]
"""Told "image" and the nanoseconds that one took to preprocess, or "text" and those that a batch took to tokenize."""


def _nobody(kind: str, ns: int) -> None:
    pass


class Asking(TypedDict, total=False):
    """How a request is to be treated; see `Batched`."""

    timeout: float | None
    priority: int
    name: str | None
    raw: bool


class StagedClip(StagedEmbedder, StagedTextEmbedder, Protocol):
    """Images and texts."""


@overload
def batched(
    embedder: StagedClip,
    options: BatchOptions | None = None,
    *,
    clock: Callable[[], int] = ...,
    prepared: Prepared = ...,
) -> "BatchedEmbedder": ...
@overload
def batched(
    embedder: StagedEmbedder,
    options: BatchOptions | None = None,
    *,
    clock: Callable[[], int] = ...,
    prepared: Prepared = ...,
) -> "BatchedImageEmbedder": ...
@overload
def batched(
    embedder: StagedTextEmbedder,
    options: BatchOptions | None = None,
    *,
    clock: Callable[[], int] = ...,
    prepared: Prepared = ...,
) -> "BatchedTextEmbedder": ...
def batched(
    embedder: StagedEmbedder | StagedTextEmbedder,
    options: BatchOptions | None = None,
    *,
    clock: Callable[[], int] = time.monotonic_ns,
    prepared: Prepared = _nobody,
) -> "Batched":
    """The embedder for many threads: of images, of texts, or a BatchedEmbedder of both, as it is itself.

    clock     nanoseconds, for the statistics and the timeouts
    prepared  told by the thread that prepared something how long it took
    """
    models: dict[str, Model] = {}
    if isinstance(embedder, StagedEmbedder):
        models["image"] = getattr(embedder, "features_of_tensors", embedder.embed_tensors)
    if isinstance(embedder, StagedTextEmbedder):
        models["text"] = _texts_or_tokens(embedder, _timed(embedder.tokenize, "text", clock, prepared))
    queue = RowQueue(models, embedder.dim, embedder.lanes, options or BatchOptions(), clock)
    if not isinstance(embedder, StagedEmbedder):
        return BatchedTextEmbedder(embedder, queue)

    def timed(preprocess: Callable[[bytes], Tensors]) -> Callable[[bytes], Tensors]:
        return _timed(preprocess, "image", clock, prepared)

    if isinstance(embedder, StagedTextEmbedder):
        return BatchedEmbedder(embedder, queue, timed)
    return BatchedImageEmbedder(embedder, queue, timed)


class Batched:
    """What they share. A context manager, closed at its end.

    Every `embed_...` also takes

    timeout   seconds until the request is given up, with TimedOut; by default that of the options
    priority  requests of a lower number go first, however long those of a higher one have waited
    name      they are counted under it too
    raw       the rows of whatever length the model gives them, where the embedder has those, in place of unit rows

    and raises Overloaded if too much waits, Closed after `close`. A request that fails is alone in that.
    """

    def __init__(self, embedder: StagedEmbedder | StagedTextEmbedder, queue: RowQueue) -> None:
        self.model = embedder.model
        self.dim = embedder.dim
        self.lanes = embedder.lanes
        self._has_features = any(hasattr(embedder, f"features_of_{kind}") for kind in ("tensors", "tokens"))
        self._queue = queue

    @property
    def options(self) -> BatchOptions:
        """How it batches."""
        return self._queue.options

    def statistics(self) -> BatchStatistics:
        """What was done so far."""
        return self._queue.statistics()

    def close(self) -> None:
        """Accept nothing more, finish what was accepted, end the threads."""
        self._queue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _embed(
        self,
        kind: str,
        rows: int,
        prepared: Callable[[Request], Iterable[Sequence[Tensors | str]]],
        timeout: float | None = None,
        priority: int = 0,
        name: str | None = None,
        raw: bool = False,
    ) -> Float32:
        if not rows:
            return np.zeros((0, self.dim), np.float32)
        with self._queue.request(kind, rows, timeout, priority, name) as request:
            for some in prepared(request):
                self._queue.put(request, some)
            found = self._queue.wait(request)
        return found if raw or not self._has_features else found / np.linalg.norm(found, axis=1, keepdims=True)


class BatchedImageEmbedder(Batched):
    """A StagedEmbedder for many threads; made by `batched`."""

    def __init__(
        self,
        embedder: StagedEmbedder,
        queue: RowQueue,
        timed: Callable[[Callable[[bytes], Tensors]], Callable[[bytes], Tensors]],
    ) -> None:
        super().__init__(embedder, queue)
        self._embedder = embedder
        self._timed = timed
        self._preprocess = timed(embedder.preprocess)
        self._decoders = ThreadPoolExecutor(queue.options.workers or processors(), "clipsieve-decode")

    @property
    def decoding(self) -> Decoding:
        """How images are decoded."""
        return decoding_of(self._embedder)

    @property
    def view(self) -> View:
        """What it is to be shown of an image."""
        return view_of(self._embedder)

    def decoding_as(self, decoding: Decoding) -> Self:
        """See protocols.DecodesImages; both share one queue, which is closed with the one that was made first."""
        if decoding == self.decoding or not isinstance(self._embedder, DecodesImages):
            return self
        other = copy.copy(self)
        other._embedder = cast(StagedEmbedder, self._embedder.decoding_as(decoding))
        other._preprocess = self._timed(other._embedder.preprocess)
        return other

    def preprocess(self, data: bytes) -> Tensors:
        """See StagedEmbedder."""
        return self._embedder.preprocess(data)

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See StagedEmbedder."""
        return self._embedder.preprocess_image(image)

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """See StagedEmbedder."""
        return self._embedder.pixels

    def from_pixels(self, pixels: Float32) -> list[Tensors]:
        """See StagedEmbedder."""
        return self._embedder.from_pixels(pixels)

    def embed_tensors(self, batch: Sequence[Tensors], **asking: Unpack[Asking]) -> Float32:
        """See StagedEmbedder. They may differ in shape."""
        return self._embed("image", len(batch), lambda _: [batch], **asking)

    def embed_images(self, images: Sequence[bytes], **asking: Unpack[Asking]) -> Float32:
        """See protocols.ImageEmbedder."""
        return self._embed("image", len(images), lambda request: self._decoded(images, request), **asking)

    def close(self) -> None:
        """See Batched."""
        super().close()
        self._decoders.shutdown()

    def _decoded(self, images: Sequence[bytes], request: Request) -> Iterator[list[Tensors]]:
        """What the model takes, a batch at a time, so that it begins before all is decoded; two are decoded ahead."""
        size = self._queue.options.max_batch
        ahead: deque[Future[Tensors]] = deque()
        begun = 0
        try:
            for first in range(0, len(images), size):
                for data in images[begun : first + 2 * size]:
                    ahead.append(self._decoders.submit(self._preprocess, data))
                    begun += 1
                some = []
                for position in range(first, min(first + size, len(images))):
                    some.append(_result(ahead[0], position, request))
                    ahead.popleft()
                yield some
        finally:
            for future in ahead:
                future.cancel()


class BatchedTextEmbedder(Batched):
    """A StagedTextEmbedder for many threads; made by `batched`."""

    def __init__(self, texts: StagedTextEmbedder, queue: RowQueue) -> None:
        super().__init__(texts, queue)
        self._texts = texts

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """See StagedTextEmbedder."""
        return self._texts.tokenize(texts)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Token ids of each text before it is cut, its ends included; 0 for all where the embedder does not tell."""
        count = getattr(self._texts, "count_tokens", None)
        return [0] * len(texts) if count is None else list(count(texts))

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts."""
        return read_texts(self._texts, texts)

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        return split_text(self._texts, text)

    @property
    def context(self) -> int:
        """See StagedTextEmbedder."""
        return self._texts.context

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """See StagedTextEmbedder."""
        return self._texts.from_ids(ids)

    def embed_tokens(self, batch: Sequence[Tensors], **asking: Unpack[Asking]) -> Float32:
        """See StagedTextEmbedder. They may differ in shape."""
        return self._embed("text", len(batch), lambda _: [batch], **asking)

    def embed_texts(self, texts: Sequence[str], **asking: Unpack[Asking]) -> Float32:
        """See protocols.TextEmbedder."""
        return self._embed("text", len(texts), lambda _: [texts], **asking)

    def submit(
        self,
        rows: Sequence[Tensors] | Sequence[str],
        told: Callable[[Request], None],
        *,
        priority: int = 0,
        name: str | None = None,
    ) -> None:
        """Texts or tokens, one or more, that nobody waits for; see `RowQueue.submit`. Their rows are raw."""
        self._queue.submit("text", rows, priority, name, told)


class BatchedEmbedder(BatchedImageEmbedder, BatchedTextEmbedder):
    """Both in one: what it is made of is a StagedEmbedder and a StagedTextEmbedder."""


def _timed(
    prepare: Callable[[_In], _Out], kind: str, clock: Callable[[], int], prepared: Prepared
) -> Callable[[_In], _Out]:
    def timed(given: _In) -> _Out:
        start = clock()
        made = prepare(given)
        prepared(kind, clock() - start)
        return made

    return timed


def _texts_or_tokens(embedder: StagedTextEmbedder, tokenize: Callable[[Sequence[str]], list[Tensors]]) -> Model:
    """A batch holds only one of them: they differ in shape."""

    # Tokenized here and not by those who ask: a batch costs its tokenizer less than its texts one by one, and of the
    # threads that would do it, each would keep the model from the interpreter's lock.
    tokens: Model = getattr(embedder, "features_of_tokens", embedder.embed_tokens)

    def embed(rows: Sequence[Any]) -> Float32:
        return tokens(tokenize(rows) if isinstance(rows[0], str) else rows)

    return embed


def _result(future: Future[Tensors], position: int, request: Request) -> Tensors:
    try:
        return future.result(request.left())
    except InputError as error:
        raise InputError(f"Image {position} cannot be embedded: {error}") from error
    except TimeoutError:
        if future.done():
            return future.result()  # it came in this very moment, or the error is its own
        raise request.late() from None
