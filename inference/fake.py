"""An embedder and a detector without a model, for tests: yours as well as ours."""

import copy
import hashlib
import re
from collections.abc import Sequence
from typing import Self

import numpy as np
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import decode, decode_for_model, prepare_each
from clipsieve.inference.token_ids import TokenIds
from clipsieve.reading import Reading
from clipsieve.types import Box, Decoding, Float32, Int64, ModelId, Regions

MOST_WORDS = 40
"""Words of a text that a FakeEmbedder reads."""

QUARTERS: tuple[Box, ...] = ((0, 0, 0.5, 0.5), (0.5, 0, 1, 0.5), (0, 0.5, 0.5, 1), (0.5, 0.5, 1, 1))


class FakeEmbedder:
    """A StagedEmbedder and StagedTextEmbedder whose vectors are drawn from a hash of the pixels, or of the text.

    The same picture or text always gets the same vector, on every machine; different ones are about orthogonal.
    """

    def __init__(self, dim: int = 32, name: str = "fake", image_memory: ImageMemory | None = None) -> None:
        self.model = ModelId(name, hashlib.sha256(f"{name} {dim}".encode()).hexdigest(), "none")
        self._image_memory = image_memory or ImageMemory()
        self.dim = dim
        self.lanes = 1
        self.decoding: Decoding = "own"

    def decoding_as(self, decoding: Decoding) -> Self:
        """See protocols.DecodesImages."""
        other = copy.copy(self)
        other.decoding = decoding
        return other

    def preprocess(self, data: bytes) -> Tensors:
        """See embedder.StagedEmbedder."""
        return decode_for_model(data, self._image_memory, self.preprocess_image, self.decoding)

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See embedder.StagedEmbedder."""
        return {"hash": _hash(f"image {image.size} ".encode() + image.tobytes())}

    @property
    def pixels(self) -> tuple[int, int, int]:
        """See embedder.StagedEmbedder."""
        return 3, 4, 4

    def from_pixels(self, pixels: Float32) -> list[Tensors]:
        """See embedder.StagedEmbedder."""
        if pixels.shape[1:] != self.pixels:
            raise InputError(f"The pictures have the shape {pixels.shape[1:]}; the model takes {self.pixels}.")
        return [{"hash": _hash(b"pixels " + picture.tobytes())} for picture in pixels]

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """See embedder.StagedEmbedder."""
        rows = [_direction(one["hash"], self.dim) for one in batch]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def embed_images(self, images: Sequence[bytes]) -> Float32:
        """See protocols.ImageEmbedder."""
        return self.embed_tensors(prepare_each(images, self.preprocess, "embedded"))

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """See embedder.StagedTextEmbedder."""
        return [{"hash": _hash(b"text " + _read(text).encode("utf-8", "replace"))} for text in texts]

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts; it reads MOST_WORDS words."""
        return [Reading(text[len(_read(text)) :].lstrip()) for text in texts]

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        words = text.split()
        return [" ".join(words[i : i + MOST_WORDS]) for i in range(0, len(words), MOST_WORDS)]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Words, and two ends."""
        return [len(text.split()) + 2 for text in texts]

    @property
    def context(self) -> int:
        """See embedder.StagedTextEmbedder."""
        return 8

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """See embedder.StagedTextEmbedder."""
        return TokenIds(self.tokenize([""])[0], 2**32).tensors(ids)

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """See embedder.StagedTextEmbedder."""
        return self.embed_tensors(batch)

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.TextEmbedder."""
        return self.embed_tokens(self.tokenize(texts))


class FakeDetector:
    """A StagedDetector that finds one region in each quarter of an image, or as many of them as are asked for.

    A region's vector is drawn from a hash of its pixels, or of the text: like pixels are found again in any image.
    """

    def __init__(self, dim: int = 32, regions: int = 4, name: str = "fake") -> None:
        self.model = ModelId(name, hashlib.sha256(f"{name} detector {dim}".encode()).hexdigest(), "none")
        self.dim = dim
        self.regions = regions
        self.lanes = 1

    def preprocess(self, data: bytes) -> Tensors:
        """See detector.StagedDetector."""
        return self.preprocess_image(decode(data))

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See detector.StagedDetector."""
        quarters = (image.crop(_pixels(image, box)) for box in QUARTERS)
        return {"hash": np.stack([_hash(f"region {q.size} ".encode() + q.tobytes()) for q in quarters])}

    def detect(self, images: Sequence[bytes]) -> Regions:
        """See protocols.Detector."""
        looked = prepare_each(images, self.preprocess, "searched for regions")
        return self.detect_tensors(looked)

    def detect_tensors(self, batch: Sequence[Tensors]) -> Regions:
        """See detector.StagedDetector."""
        most = min(self.regions, len(QUARTERS))
        rows = [_direction(seed, self.dim) for one in batch for seed in one["hash"][:most]]
        n = len(batch)
        return Regions(
            np.stack(rows) if rows else np.zeros((0, self.dim), np.float32),
            np.tile(np.array(QUARTERS[:most], np.float32), (n, 1)),
            np.repeat(np.arange(n), most),
            np.tile(-np.arange(most, dtype=np.float32), n),
            np.full(n * most, -0.1, np.float32),
            np.tile(np.linspace(5, 10, most, dtype=np.float32), n),
            self.model,
        )

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.Detector."""
        rows = [_direction(_hash(b"text " + text.encode("utf-8", "replace")), self.dim) for text in texts]
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)

    def embed_example(self, image: bytes, box: Box | None = None) -> Float32:
        """See protocols.Detector; the vector of the quarter that the middle of the box lies in."""
        if box is not None and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise InputError(f"The box is {box}; it must be x0, y0, x1, y1 in 0..1 of the image.")
        quarter = 0 if box is None else int(box[0] + box[2] >= 1) + 2 * int(box[1] + box[3] >= 1)
        return _direction(self.preprocess(image)["hash"][quarter], self.dim)


def _read(text: str) -> str:
    """The text up to the end of its last word that is read."""
    end = next((match.end() for i, match in enumerate(re.finditer(r"\S+", text), 1) if i == MOST_WORDS), len(text))
    return text[:end]


def _pixels(image: Image.Image, box: Box) -> tuple[int, int, int, int]:
    (w, h), (x0, y0, x1, y1) = image.size, box
    return round(x0 * w), round(y0 * h), round(x1 * w), round(y1 * h)


def _hash(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint32]]:
    return np.frombuffer(hashlib.sha256(data).digest(), "<u4").astype(np.uint32)


def _direction(seed: np.ndarray[tuple[int], np.dtype[np.uint32]], dim: int) -> Float32:
    row = np.random.Generator(np.random.PCG64(seed.tolist())).standard_normal(dim)
    unit: Float32 = (row / np.linalg.norm(row)).astype(np.float32)
    return unit
