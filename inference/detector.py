"""Images to regions by a detector that takes texts: boxes, their vectors, and how a text's logit comes of them."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.best_regions import best_regions, overlaps
from clipsieve.inference.checkpoint import Batch, Tensors, fetching, hash_weights
from clipsieve.inference.decode import decode_for_model, prepare_each
from clipsieve.inference.lanes import Lanes, find_devices, find_dtype
from clipsieve.inference.models import parse_detector
from clipsieve.inference.owl import NOWHERE, Owl, load_owl
from clipsieve.inference.self_check import check_texts
from clipsieve.protocols import Detector
from clipsieve.reading import Reading
from clipsieve.types import Box, Float32, ModelId, Regions

if TYPE_CHECKING:
    import torch

Columns = tuple[npt.NDArray[Any], ...]

DEFAULT_REGIONS = 32
MOST_REGIONS = 300
MOST_BYTES = 40_000
"""What the regions of one image may take on disk unless more are asked for."""

CANDIDATES = 4
"""Regions are chosen from so many times as many of the likeliest boxes, of which near-duplicates are left out."""

CHUNK = 8
"""Images in one forward pass where the caller does not batch; one takes a hundred times the work of a CLIP's."""


TEXTS = 64
"""Texts in one forward pass."""

NEAR_BEST = 0.8
"""An example's vector is that of the likeliest box among those that overlap it this nearly as well as the best does."""


class StagedDetector(Detector, Protocol):
    """A Detector in two steps, so that a pipeline can preprocess ahead while the model is at work."""

    @property
    def regions(self) -> int:
        """How many it finds in an image at most."""

    @property
    def lanes(self) -> int:
        """How many batches it works on at once: `detect_tensors` from more threads than this waits."""

    def preprocess(self, data: bytes) -> Tensors:
        """An encoded file -> what the model takes. InputError says why it cannot be decoded. For any thread."""

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """An image from `decode` -> what the model takes. For any thread."""

    def detect_tensors(self, batch: Sequence[Tensors]) -> Regions:
        """n preprocessed images -> what `detect` says of them. InputError if what is found is not finite."""


def open_detector(
    name: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    regions: int | None = None,
    image_memory: ImageMemory | None = None,
) -> "OwlDetector":
    """The OWL-ViT or OWLv2 of that name (see `models.parse_detector`), ready.

    device, precision, image_memory  as for `embedder.load_embedder`
    regions            of an image at most, up to MOST_REGIONS; by default DEFAULT_REGIONS, or fewer where the model's
                       vectors are so long that they would take more than MOST_BYTES

    ModelUnavailable: the weights cannot be fetched or opened. InputError: no such model, device, precision or count.
    """
    if regions is not None and not 1 <= regions <= MOST_REGIONS:
        raise InputError(f"{regions} regions of an image were asked for; it can be 1 to {MOST_REGIONS}.")
    parsed = parse_detector(name)
    devices, dtype = find_devices(device), find_dtype(precision, device)
    if parsed.kind == "folder" and not _has_config(parsed.where):
        raise ModelUnavailable(f"The detector {name!r} is not there: {parsed.where} holds no config.json.")
    with fetching(name, "give a folder with local-dir:PATH, or use the small detector that comes along, `mini`"):
        flash = dtype is not None and devices[0].type == "cuda"
        owl = load_owl(parsed.where, flash=flash, whole_words=parsed.name == "mini")
    detector = OwlDetector(parsed.name, owl, Lanes(owl.module, devices, dtype), regions, image_memory)
    check_texts(parsed.name, detector.embed_texts)
    return detector


def region_bytes(dim: int) -> int:
    """What a region takes on disk: a float16 vector, and nine numbers beside it, before compression."""
    return 2 * dim + 8 + 7 * 4


class OwlDetector:
    """A StagedDetector on torch, one copy of the model per device; made by `open_detector`. Safe in many threads."""

    def __init__(
        self, name: str, owl: Owl, lanes: Lanes, regions: int | None = None, image_memory: ImageMemory | None = None
    ) -> None:
        self._owl = owl
        self._image_memory = image_memory or ImageMemory()
        self._lanes = lanes
        self._tokenizing = threading.Lock()  # fast tokenizers refuse a second caller: "Already borrowed"
        self.model = ModelId(name, hash_weights(owl.module), owl.preprocessing)
        self.lanes = lanes.count
        self.dim = owl.dim
        self.regions = regions or min(DEFAULT_REGIONS, MOST_BYTES // region_bytes(owl.dim))

    def preprocess(self, data: bytes) -> Tensors:
        """See StagedDetector."""
        return decode_for_model(data, self._image_memory, self.preprocess_image)

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See StagedDetector."""
        return self._owl.prepare(image)

    def detect(self, images: Sequence[bytes]) -> Regions:
        """See protocols.Detector."""
        tensors = prepare_each(images, self.preprocess, "searched for regions")
        chunks = [self._detect(tensors[i : i + CHUNK], i) for i in range(0, len(tensors), CHUNK)]
        return self._joined([regions for chunk in chunks for regions in chunk])

    def detect_tensors(self, batch: Sequence[Tensors]) -> Regions:
        """See StagedDetector."""
        return self._joined(self._detect(batch, 0))

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.Detector."""

        def encode(module: Any, batch: Batch) -> "tuple[torch.Tensor, ...]":
            features = self._owl.encode_texts(module, batch).float()
            return (torch.nn.functional.normalize(features, dim=-1),)

        import torch

        rows = [np.zeros((0, self.dim), np.float32)]
        for start in range(0, len(texts), TEXTS):
            with self._tokenizing:
                tokens = self._owl.tokenize(texts[start : start + TEXTS])
            rows.append(self._lanes.run(encode, tokens)[0])
        return np.concatenate(rows)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts."""
        with self._tokenizing:
            return self._owl.reader.read(texts)

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        with self._tokenizing:
            return self._owl.reader.split(text)

    def embed_example(self, image: bytes, box: Box | None = None) -> Float32:
        """See protocols.Detector."""
        if box is not None and not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise InputError(f"The box is {box}; it must be x0, y0, x1, y1 in 0..1 of the image, x0 < x1 and y0 < y1.")
        boxes, vectors, objectness, *_ = (v[0] for v in self._candidates([self.preprocess(image)], self._owl.patches))
        there = objectness > NOWHERE
        if box is not None:
            overlap = overlaps(np.array([box], np.float32), boxes)[0]
            there &= (overlap >= NEAR_BEST * overlap.max()) & (overlap > 0)
        if not there.any():
            raise InputError(f"The detector sees nothing in {box or 'the image'}; draw a larger box, or take another.")
        vector: Float32 = vectors[np.argmax(there)]
        return vector

    def _detect(self, batch: Sequence[Tensors], first: int) -> list[Columns]:
        """Of each image its number, counted from `first`, boxes, vectors, objectness, shift and scale."""
        found = self._candidates(batch, CANDIDATES * self.regions)
        columns = []
        for i, of_image in enumerate(zip(*found, strict=True)):
            boxes, vectors, objectness = of_image[:3]
            kept = best_regions(boxes, vectors, self.regions)
            kept = kept[objectness[kept] > NOWHERE]
            columns.append((np.full(len(kept), first + i, np.int64), *(values[kept] for values in of_image)))
        return columns

    def _candidates(self, batch: Sequence[Tensors], count: int) -> tuple[Float32, ...]:
        """What `Owl.encode_images` gives. InputError if a number is not finite."""
        import torch

        if not batch:
            return ()
        stacked = {name: torch.from_numpy(np.stack([one[name] for one in batch])) for name in batch[0]}
        found = self._lanes.run(lambda module, moved: self._owl.encode_images(module, moved, count), stacked)
        for values in found:
            bad = ~np.isfinite(values).reshape(len(batch), -1).all(axis=1)
            if bad.any():
                raise InputError(
                    f"The detector {self.model.name!r} gives no finite numbers for image {int(np.argmax(bad))} of the "
                    "batch; leave it out, or check the weights."
                )
        return found

    def _joined(self, columns: Sequence[Columns]) -> Regions:
        none, boxes = np.zeros(0, np.float32), np.zeros((0, 4), np.float32)
        first = (np.zeros(0, np.int64), boxes, np.zeros((0, self.dim), np.float32), none, none, none)
        item, boxes, vectors, objectness, shift, scale = map(np.concatenate, zip(first, *columns, strict=True))
        return Regions(vectors, boxes, item, objectness, shift, scale, self.model)


def _has_config(folder: str) -> bool:
    return (Path(folder) / "config.json").is_file()
