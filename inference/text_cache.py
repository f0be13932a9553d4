"""Vectors of texts that were asked for before; and a text that many ask for at once is embedded once."""

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from sys import getsizeof
from typing import Protocol

import numpy as np

from clipsieve.errors import InputError, TimedOut
from clipsieve.inference.batch_request import check_timeout
from clipsieve.protocols import DecodesImages, ImageEmbedder, TextEmbedder
from clipsieve.reading import Reading, read_texts, split_text
from clipsieve.types import Decoding, Float32


class PatientTextEmbedder(TextEmbedder, Protocol):
    """A TextEmbedder that takes a timeout and a priority, as a batcher does."""

    def embed_texts(self, texts: Sequence[str], *, timeout: float | None = None, priority: int = 0) -> Float32:
        """See BatchedEmbedder."""


class PatientEmbedder(PatientTextEmbedder, Protocol):
    """One for images too."""

    def embed_images(self, images: Sequence[bytes], *, timeout: float | None = None, priority: int = 0) -> Float32:
        """See BatchedImageEmbedder."""


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a TextCache holds and did.

    hits    texts that were there, or on their way for somebody else
    misses  texts that it had embedded
    texts   vectors held
    bytes   their size and that of their texts
    """

    hits: int
    misses: int
    texts: int
    bytes: int


class TextCache:
    """A TextEmbedder that keeps vectors by their text; those used last, up to `max_bytes`. Safe in many threads."""

    def __init__(self, embedder: PatientTextEmbedder, max_bytes: int = 64 * 2**20) -> None:
        if max_bytes < 0:
            raise InputError(f"max_bytes {max_bytes}: give a number of bytes, 0 or more.")
        self.model = embedder.model
        self.dim = embedder.dim
        self._texts = embedder
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._held: OrderedDict[str, Float32] = OrderedDict()  # the one used last comes last
        self._coming: dict[str, Future[Float32 | None]] = {}  # being embedded; None if that failed
        self._bytes = self._hits = self._misses = 0

    def embed_texts(self, texts: Sequence[str], *, timeout: float | None = None, priority: int = 0) -> Float32:
        """See protocols.TextEmbedder; what is not there goes to the embedder in one call.

        TimedOut after `timeout` seconds.
        """
        check_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        found: dict[str, Float32] = {}
        embedded = 0
        while missing := [text for text in dict.fromkeys(texts) if text not in found]:
            mine, others = self._claim(missing, found)
            if mine:
                found |= self._embed(mine, deadline, priority)
                embedded += len(mine)
            for text, coming in others.items():
                row = _result(coming, deadline)
                if row is not None:  # else once more: what failed for others need not fail for us
                    found[text] = row
        with self._lock:
            self._hits += len(texts) - embedded
        return np.stack([found[text] for text in texts]) if texts else np.zeros((0, self.dim), np.float32)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts."""
        return read_texts(self._texts, texts)

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        return split_text(self._texts, text)

    def statistics(self) -> CacheStatistics:
        """The counts of this moment."""
        with self._lock:
            return CacheStatistics(self._hits, self._misses, len(self._held), self._bytes)

    def _claim(
        self, texts: Sequence[str], found: dict[str, Float32]
    ) -> tuple[list[str], dict[str, Future[Float32 | None]]]:
        """Adds to `found` what is held. Of the rest: what the caller has to embed, and what is coming."""
        mine: list[str] = []
        others: dict[str, Future[Float32 | None]] = {}
        with self._lock:
            for text in texts:
                if text in self._held:
                    self._held.move_to_end(text)
                    found[text] = self._held[text]
                elif text in self._coming:
                    others[text] = self._coming[text]
                else:
                    self._coming[text] = Future()
                    mine.append(text)
        return mine, others

    def _embed(self, texts: list[str], deadline: float | None, priority: int) -> dict[str, Float32]:
        rows: dict[str, Float32] = {}
        try:
            vectors = self._texts.embed_texts(texts, timeout=_left(deadline), priority=priority)
            rows = {text: vector.copy() for text, vector in zip(texts, vectors, strict=True)}  # not all for one's sake
        finally:  # whatever happened, nobody may be left waiting
            with self._lock:
                coming = {text: self._coming.pop(text) for text in texts}
                self._misses += len(rows)
                for text, row in rows.items():
                    self._hold(text, row)
            for text, future in coming.items():
                future.set_result(rows.get(text))
        return rows

    def _hold(self, text: str, row: Float32) -> None:
        self._held[text] = row
        self._bytes += _size(text, row)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._held.popitem(last=False))


class CachedEmbedder(TextCache):
    """An ImageEmbedder too. Its images are not kept."""

    def __init__(self, embedder: PatientEmbedder, max_bytes: int = 64 * 2**20) -> None:
        super().__init__(embedder, max_bytes)
        self._images = embedder

    def decoding_as(self, decoding: Decoding) -> ImageEmbedder:
        """See protocols.DecodesImages."""
        return self._images.decoding_as(decoding) if isinstance(self._images, DecodesImages) else self

    def embed_images(self, images: Sequence[bytes], *, timeout: float | None = None, priority: int = 0) -> Float32:
        """See protocols.ImageEmbedder."""
        return self._images.embed_images(images, timeout=timeout, priority=priority)


def _size(text: str, row: Float32) -> int:
    return getsizeof(text) + getsizeof(row)


def _left(deadline: float | None) -> float | None:
    """Seconds until then. TimedOut if it has passed."""
    if deadline is None:
        return None
    left = deadline - time.monotonic()
    if left <= 0:
        raise _late()
    return left


def _result(coming: Future[Float32 | None], deadline: float | None) -> Float32 | None:
    left = _left(deadline)
    try:
        return coming.result(left)
    except TimeoutError:
        raise _late() from None


def _late() -> TimedOut:
    return TimedOut("The texts were not embedded in the time that was given; allow more, or come later.")
