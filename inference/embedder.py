"""Images and texts to unit vectors, by any CLIP-like model."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.inference.checkpoint import Batch, Checkpoint, Tensors, fetching, hash_weights
from clipsieve.inference.decode import MAX_PIXELS, decode
from clipsieve.inference.lanes import Lanes, find_devices, find_dtype
from clipsieve.inference.models import ModelName, parse_name
from clipsieve.ordered import processors
from clipsieve.protocols import ImageEmbedder, TextEmbedder
from clipsieve.types import Float32, ModelId

if TYPE_CHECKING:
    import torch

CHUNK = 64
"""Images or texts in one forward pass where the caller does not batch."""


class StagedEmbedder(ImageEmbedder, Protocol):
    """An ImageEmbedder in two steps, so that a pipeline can preprocess ahead while the model is at work."""

    @property
    def lanes(self) -> int:
        """How many batches it works on at once: `embed_tensors` from more threads than this waits."""

    def preprocess(self, data: bytes) -> Tensors:
        """An encoded file -> what the model takes. InputError says why it cannot be decoded. For any thread."""

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """The same for an image from `decode`. InputError if it is too narrow a strip to scale."""

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """n preprocessed images -> float32 (n, d), C-contiguous, unit rows. InputError if a row is not finite."""


@runtime_checkable
class StagedTextEmbedder(TextEmbedder, Protocol):
    """A TextEmbedder in two steps, likewise."""

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """n texts -> what the model takes of each. For any thread."""

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """n tokenized texts -> float32 (n, d), C-contiguous, unit rows. InputError if a row is not finite."""


def load_embedder(name: str, *, device: str = "auto", precision: str = "auto") -> "TorchImageEmbedder":
    """The model of that name (see `models.parse_name`), ready: a TorchEmbedder, or without text a TorchImageEmbedder.

    device     "auto": every visible CUDA device, else Apple's, else the CPU; or "cpu", "cuda" (all), "cuda:1", "mps"
    precision  "auto": float16 on CUDA, float32 elsewhere; or "fp32", "fp16", "bf16". Weights stay float32

    ModelUnavailable: the weights cannot be fetched or opened. InputError: no such model, device or precision.
    """
    parsed = parse_name(name)
    devices, dtype = find_devices(device), find_dtype(precision, device)
    with fetching(
        name,
        "give a folder with `--model local-dir:PATH`, or use the small model that comes along with `--model mini`",
    ):
        checkpoint = _load(parsed)
    kind = TorchImageEmbedder if checkpoint.tokenize is None else TorchEmbedder
    return kind(parsed.name, checkpoint, devices, dtype)


def use_all_processors() -> None:
    """Let models have all processors, in a process whose other work was told to keep to one thread each."""
    import torch

    torch.set_num_threads(processors())


class TorchImageEmbedder:
    """A StagedEmbedder on torch, one copy of the model per device; made by `load_embedder`. Safe in many threads."""

    def __init__(
        self, name: str, checkpoint: Checkpoint, devices: Sequence["torch.device"], dtype: "torch.dtype | None"
    ) -> None:
        self._checkpoint = checkpoint
        self.model = ModelId(name, hash_weights(checkpoint.module), checkpoint.preprocessing)
        self._lanes = Lanes(checkpoint.module, devices, dtype)
        self.lanes = self._lanes.count
        self._tokenizing = threading.Lock()  # fast tokenizers refuse a second caller: "Already borrowed"
        blank = Image.new("RGB", (checkpoint.side, checkpoint.side), "grey")
        self.dim: int = self.embed_tensors([self.preprocess_image(blank)]).shape[1]

    def preprocess(self, data: bytes) -> Tensors:
        """See StagedEmbedder."""
        return self.preprocess_image(decode(data))

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See StagedEmbedder."""
        ratio = max(image.size) / min(image.size)
        if ratio * self._checkpoint.side**2 > MAX_PIXELS:  # scaled by its short side, a strip grows without bound
            width, height = image.size
            raise InputError(f"The image is a strip of {width} x {height} pixels, too long to be scaled; cut it up.")
        return self._checkpoint.prepare(image)

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """See StagedEmbedder."""
        return self._embed_stacked(self._checkpoint.encode_images, batch, "image")

    def embed_images(self, images: Sequence[bytes]) -> Float32:
        """See protocols.ImageEmbedder."""
        tensors = []
        for position, data in enumerate(images):
            try:
                tensors.append(self.preprocess(data))
            except InputError as error:
                raise InputError(f"Image {position} cannot be embedded: {error}") from error
        return self._embed_chunks(self.embed_tensors, tensors)

    def _embed_chunks(self, embed: Callable[[list[Any]], Float32], inputs: Sequence[Any]) -> Float32:
        chunks = [list(inputs[i : i + CHUNK]) for i in range(0, len(inputs), CHUNK)]
        if not chunks:
            return np.zeros((0, self.dim), np.float32)
        if len(chunks) == 1 or self.lanes == 1:
            return np.concatenate([embed(chunk) for chunk in chunks])
        with ThreadPoolExecutor(self.lanes, "clipsieve-embed") as pool:
            return np.concatenate(list(pool.map(embed, chunks)))

    def _embed_stacked(
        self, encode: Callable[[Any, Batch], "torch.Tensor"], batch: Sequence[Tensors], what: str
    ) -> Float32:
        import torch

        if not batch:
            return np.zeros((0, self.dim), np.float32)
        stacked = {name: torch.from_numpy(np.stack([one[name] for one in batch])) for name in batch[0]}
        return self._embed(encode, stacked, what)

    def _embed(self, encode: Callable[[Any, Batch], "torch.Tensor"], batch: Batch, what: str) -> Float32:
        """Batch on the CPU -> float32 (n, d), unit rows."""

        def unit(module: Any, moved: Batch) -> tuple["torch.Tensor"]:
            features = encode(module, moved).float()
            return (features / features.norm(dim=-1, keepdim=True),)

        (rows,) = self._lanes.run(unit, batch)
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise InputError(
                f"The model {self.model.name!r} gives no finite vector for {what} {int(np.argmax(bad))} of the batch; "
                "leave it out, or check the weights."
            )
        return rows


class TorchEmbedder(TorchImageEmbedder):
    """A TorchImageEmbedder with a text tower: also a StagedTextEmbedder."""

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """See StagedTextEmbedder."""
        if not texts:
            return []
        arrays = {name: tensor.numpy() for name, tensor in self._tokenize(texts).items()}
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(texts))]

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """See StagedTextEmbedder."""
        assert self._checkpoint.encode_texts is not None
        return self._embed_stacked(self._checkpoint.encode_texts, batch, "text")

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.TextEmbedder."""
        encode = self._checkpoint.encode_texts
        assert encode is not None
        return self._embed_chunks(lambda chunk: self._embed(encode, self._tokenize(chunk), "text"), texts)

    def _tokenize(self, texts: Sequence[str]) -> Batch:
        assert self._checkpoint.tokenize is not None
        with self._tokenizing:
            return self._checkpoint.tokenize(texts)


def _load(parsed: ModelName) -> Checkpoint:
    from clipsieve.inference.from_open_clip import load_open_clip
    from clipsieve.inference.from_transformers import load_transformers

    if parsed.kind == "open_clip":
        return load_open_clip(parsed.where, parsed.tag)
    if parsed.kind == "hub":
        return load_transformers(parsed.where)
    folder = Path(parsed.where)
    if not folder.is_dir():
        raise ModelUnavailable(f"The model {parsed.name!r} is not there: {folder} is no folder; check the path.")
    if (folder / "open_clip_config.json").exists():
        return load_open_clip("", folder=parsed.where)
    if (folder / "config.json").exists():
        return load_transformers(parsed.where)
    raise InputError(
        f"The folder {folder} holds no model: neither open_clip_config.json (open_clip) nor config.json (transformers)."
    )
