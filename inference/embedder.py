"""Images and texts to unit vectors, by any CLIP-like model."""

import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable, quoted
from clipsieve.image_memory import ImageMemory
from clipsieve.inference.checkpoint import Batch, Checkpoint, Tensors, TextCheckpoint, fetching, hash_weights
from clipsieve.inference.decode import MAX_PIXELS, decode_for_model, prepare_each
from clipsieve.inference.lanes import Lanes, find_devices, find_dtype
from clipsieve.inference.models import ModelName, parse_name
from clipsieve.inference.self_check import check_texts, pictures_to_tell_apart, require_apart
from clipsieve.inference.text_reader import TextReader, locked
from clipsieve.inference.token_ids import TokenIds
from clipsieve.ordered import processors
from clipsieve.protocols import ImageEmbedder, TextEmbedder
from clipsieve.raster import View
from clipsieve.reading import Reading
from clipsieve.types import Decoding, Float32, Int64, ModelId

if TYPE_CHECKING:
    import torch

CHUNK = 64
"""Images or texts in one forward pass where the caller does not batch."""


@runtime_checkable
class StagedEmbedder(ImageEmbedder, Protocol):
    """An ImageEmbedder in two steps, so that a pipeline can preprocess ahead while the model is at work."""

    @property
    def lanes(self) -> int:
        """How many batches it works on at once: `embed_tensors` from more threads than this waits."""

    def preprocess(self, data: bytes) -> Tensors:
        """An encoded file -> what the model takes. InputError says why it cannot be decoded. For any thread."""

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """The same for an image from `decode`. InputError if it is too narrow a strip to scale."""

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """(3, h, w): the shape of the pictures that `from_pixels` takes; None where the model takes none such."""

    def from_pixels(self, pixels: Float32) -> list[Tensors]:
        """float32 (n, 3, h, w), cut and scaled as the model wants it -> what it takes. InputError for other shapes."""

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """n preprocessed images -> float32 (n, d), C-contiguous, unit rows. InputError if a row is not finite."""


@runtime_checkable
class StagedTextEmbedder(TextEmbedder, Protocol):
    """A TextEmbedder in two steps, likewise."""

    @property
    def lanes(self) -> int:
        """See StagedEmbedder."""

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """n texts -> what the model takes of each. For any thread."""

    @property
    def context(self) -> int:
        """How many token ids a text has, with its padding."""

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """Token ids, int64 (n, context), padded -> what `tokenize` gives. InputError for ids that the model has not."""

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """n tokenized texts -> float32 (n, d), C-contiguous, unit rows. InputError if a row is not finite."""


def load_embedder(
    name: str, *, device: str = "auto", precision: str = "auto", image_memory: ImageMemory | None = None
) -> "TorchImageEmbedder":
    """The model of that name (see `models.parse_name`), ready: a TorchEmbedder, or without text a TorchImageEmbedder.

    device     "auto": every visible CUDA device, else Apple's, else the CPU; or "cpu", "cuda" (all), "cuda:1", "mps"
    precision  "auto": float16 on CUDA, float32 elsewhere; or "fp32", "fp16", "bf16". Weights stay float32
    image_memory  from which decoding reserves; by default the model has one of its own

    ModelUnavailable: the weights cannot be fetched or opened. InputError: no such model, device or precision.
    """
    parsed = parse_name(name)
    devices, dtype = devices_of(parsed, device), find_dtype(precision, device)
    with fetching(
        name,
        "give a folder with `--model local-dir:PATH`, or use the small model that comes along with `--model mini`",
    ):
        checkpoint = _load(parsed)
    kind = TorchImageEmbedder if checkpoint.tokenize is None else TorchEmbedder
    return kind(parsed.name, checkpoint, devices, dtype, image_memory)


def load_text_embedder(name: str, *, device: str = "auto", precision: str = "auto") -> "TorchTextEmbedder":
    """What embeds texts, as `load_embedder` has it; models without images too, such as multilingual ones (text_towers).

    InputError for a model that takes no texts, MissingExtra where the library of its format is not installed.
    """
    from clipsieve.inference.text_towers import load_text_tower

    parsed = parse_name(name)
    devices, dtype = devices_of(parsed, device), find_dtype(precision, device)
    with fetching(name, "or give a folder, local-dir:PATH"):
        tower = None if parsed.kind in ("open_clip", "onnx") else load_text_tower(parsed.where)
    if tower is not None:
        return TorchTextEmbedder(parsed.name, tower, devices, dtype)
    embedder = load_embedder(name, device=device, precision=precision)
    if not isinstance(embedder, TorchTextEmbedder):
        raise InputError(f"The model {quoted(name)} takes no texts; choose one that does.")
    return embedder


def devices_of(parsed: ModelName, device: str) -> list["torch.device"]:
    """Where a model runs. InputError for an ONNX model on a GPU."""
    if parsed.kind != "onnx":
        return find_devices(device)
    if device not in ("auto", "cpu"):
        raise InputError(f"ONNX models run on the CPU; the device {quoted(device)} is for others.")
    return find_devices("cpu")


def load_checkpoint(name: str) -> tuple[Checkpoint, Path]:
    """A checkpoint in a folder or on the hub, as it is, and the folder that its files are in. InputError for others."""
    from transformers.utils.hub import cached_file

    parsed = parse_name(name)
    if parsed.kind not in ("folder", "hub"):
        raise InputError(
            f"The model {quoted(name)} is no checkpoint in a folder; give mini, local-dir:PATH or hf:ORG/NAME."
        )
    with fetching(name, "or give a folder, local-dir:PATH"):
        checkpoint = _load(parsed)
        found = parsed.where if parsed.kind == "folder" else Path(str(cached_file(parsed.where, "config.json"))).parent
    return checkpoint, Path(found)


def use_all_processors() -> None:
    """Let models have all processors, in a process whose other work was told to keep to one thread each."""
    import torch

    torch.set_num_threads(processors())


class TorchModel:
    """What the embedders on torch share: one copy of the model per device. Safe in many threads."""

    dim: int

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint | TextCheckpoint,
        devices: Sequence["torch.device"],
        dtype: "torch.dtype | None",
    ) -> None:
        self.model = ModelId(name, hash_weights(checkpoint.module), checkpoint.preprocessing)
        self._lanes = Lanes(checkpoint.module, devices, dtype)
        self.lanes = self._lanes.count

    def _embed_chunks(self, embed: Callable[[list[Any]], Float32], inputs: Sequence[Any]) -> Float32:
        chunks = [list(inputs[i : i + CHUNK]) for i in range(0, len(inputs), CHUNK)]
        if not chunks:
            return np.zeros((0, self.dim), np.float32)
        if len(chunks) == 1 or self.lanes == 1:
            return np.concatenate([embed(chunk) for chunk in chunks])
        with ThreadPoolExecutor(self.lanes, "clipsieve-embed") as pool:
            return np.concatenate(list(pool.map(embed, chunks)))

    def _embed_stacked(
        self, encode: Callable[[Any, Batch], "torch.Tensor"], batch: Sequence[Tensors], what: str, unit: bool = True
    ) -> Float32:
        import torch

        if not batch:
            return np.zeros((0, self.dim), np.float32)
        stacked = {name: torch.from_numpy(np.stack([one[name] for one in batch])) for name in batch[0]}
        return self._embed(encode, stacked, what, unit)

    def _embed(
        self, encode: Callable[[Any, Batch], "torch.Tensor"], batch: Batch, what: str, unit: bool = True
    ) -> Float32:
        """Batch on the CPU -> float32 (n, d), unit rows unless they are to be of the model's own length."""

        def run(module: Any, moved: Batch) -> tuple["torch.Tensor"]:
            features = encode(module, moved).float()
            return (features / features.norm(dim=-1, keepdim=True) if unit else features,)

        (rows,) = self._lanes.run(run, batch)
        bad = ~(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
        if bad.any():
            raise InputError(
                f"The model {self.model.name!r} gives no finite vector for {what} {int(np.argmax(bad))} of the batch; "
                "leave it out, or check the weights."
            )
        return rows


class TorchImageEmbedder(TorchModel):
    """A StagedEmbedder; made by `load_embedder`."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        devices: Sequence["torch.device"],
        dtype: "torch.dtype | None",
        image_memory: ImageMemory | None = None,
    ) -> None:
        super().__init__(name, checkpoint, devices, dtype)
        self._checkpoint = checkpoint
        self._image_memory = image_memory or ImageMemory()
        self.decoding: Decoding = "own"
        pictures = [self.preprocess_image(picture) for picture in pictures_to_tell_apart(checkpoint.side)]
        self._image_name = min(pictures[0])
        rows = self.embed_tensors(pictures)
        require_apart(name, rows, "images")
        self.dim: int = rows.shape[1]

    def preprocess(self, data: bytes) -> Tensors:
        """See StagedEmbedder."""
        return decode_for_model(data, self._image_memory, self.preprocess_image, self.view)

    @property
    def view(self) -> View:
        """What it is to be shown of an image."""
        return "stored" if self.decoding == "reference" and self._checkpoint.converts else self.decoding

    def decoding_as(self, decoding: Decoding) -> Self:
        """See protocols.DecodesImages; the model itself is shared."""
        other = copy.copy(self)
        other.decoding = decoding
        return other

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See StagedEmbedder."""
        ratio = max(image.size) / min(image.size)
        if ratio * self._checkpoint.side**2 > MAX_PIXELS:  # scaled by its short side, a strip grows without bound
            width, height = image.size
            raise InputError(f"The image is a strip of {width} x {height} pixels, too long to be scaled; cut it up.")
        return self._checkpoint.prepare(image)

    @property
    def pixels(self) -> tuple[int, int, int] | None:
        """See StagedEmbedder."""
        return self._checkpoint.pixels

    def from_pixels(self, pixels: Float32) -> list[Tensors]:
        """See StagedEmbedder."""
        if pixels.shape[1:] != self.pixels:
            raise InputError(f"The pictures have the shape {pixels.shape[1:]}; the model takes {self.pixels}.")
        return [{self._image_name: picture} for picture in pixels]

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """See StagedEmbedder."""
        return self._embed_stacked(self._checkpoint.encode_images, batch, "image")

    def features_of_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """As `embed_tensors`, the rows of whatever length the model gives them."""
        return self._embed_stacked(self._checkpoint.encode_images, batch, "image", unit=False)

    def embed_images(self, images: Sequence[bytes]) -> Float32:
        """See protocols.ImageEmbedder."""
        return self._embed_chunks(self.embed_tensors, prepare_each(images, self.preprocess, "embedded"))


class TorchTextEmbedder(TorchModel):
    """A StagedTextEmbedder; made by `load_text_embedder`."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint | TextCheckpoint,
        devices: Sequence["torch.device"],
        dtype: "torch.dtype | None",
    ) -> None:
        super().__init__(name, checkpoint, devices, dtype)
        assert checkpoint.tokenize is not None
        assert checkpoint.encode_texts is not None
        self._tokenizer, self._encode_texts = checkpoint.tokenize, checkpoint.encode_texts
        self._count_tokens = checkpoint.count_tokens
        self._tokenizing = threading.Lock()  # fast tokenizers refuse a second caller: "Already borrowed"
        self.dim = check_texts(name, self.embed_texts).shape[1]
        self._reader = (
            None
            if checkpoint.count_tokens is None
            else TextReader(self.count_tokens, checkpoint.context, locked(checkpoint.unknown, self._tokenizing))
        )
        self._ids = TokenIds(self.tokenize([""])[0], checkpoint.vocabulary)

    @property
    def context(self) -> int:
        """See StagedTextEmbedder."""
        return self._ids.length

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """See StagedTextEmbedder."""
        return self._ids.tensors(ids)

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Token ids of each text before it is cut, its ends included; 0 for all where the tokenizer does not tell."""
        if self._count_tokens is None or not texts:
            return [0] * len(texts)
        with self._tokenizing:
            return self._count_tokens(texts)

    def read_texts(self, texts: Sequence[str]) -> list[Reading]:
        """See protocols.ReadsTexts."""
        return [Reading()] * len(texts) if self._reader is None else self._reader.read(texts)

    def split_text(self, text: str) -> list[str]:
        """See protocols.ReadsTexts."""
        return [text] if self._reader is None else self._reader.split(text)

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """See StagedTextEmbedder."""
        if not texts:
            return []
        arrays = {name: tensor.numpy() for name, tensor in self._tokenize(texts).items()}
        return [{name: array[i] for name, array in arrays.items()} for i in range(len(texts))]

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """See StagedTextEmbedder."""
        return self._embed_stacked(self._encode_texts, batch, "text")

    def features_of_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """As `embed_tokens`, the rows of whatever length the model gives them."""
        return self._embed_stacked(self._encode_texts, batch, "text", unit=False)

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """See protocols.TextEmbedder."""
        return self._embed_chunks(lambda chunk: self._embed(self._encode_texts, self._tokenize(chunk), "text"), texts)

    def _tokenize(self, texts: Sequence[str]) -> Batch:
        with self._tokenizing:
            return self._tokenizer(texts)


class TorchEmbedder(TorchImageEmbedder, TorchTextEmbedder):
    """A TorchImageEmbedder with a text tower: also a StagedTextEmbedder."""


def _load(parsed: ModelName) -> Checkpoint:
    from clipsieve.inference.from_open_clip import load_open_clip
    from clipsieve.inference.from_transformers import load_transformers
    from clipsieve.inference.onnx_towers import load_onnx

    if parsed.kind == "onnx":
        return load_onnx(Path(parsed.where))
    if parsed.kind == "open_clip":
        return load_open_clip(parsed.where, parsed.tag)
    if parsed.kind == "hub":
        return load_transformers(parsed.where)
    folder = Path(parsed.where)
    if not folder.is_dir():
        raise ModelUnavailable(f"The model {quoted(parsed.name)} is not there: {folder} is no folder; check the path.")
    if (folder / "open_clip_config.json").exists():
        return load_open_clip("", folder=parsed.where)
    if (folder / "config.json").exists():
        return load_transformers(parsed.where)
    raise InputError(
        f"The folder {folder} holds no model: neither open_clip_config.json (open_clip) nor config.json (transformers)."
    )
