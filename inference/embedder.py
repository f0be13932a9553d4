"""Images and texts to unit vectors, by any CLIP-like model."""

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from clipsieve.errors import ClipsieveError, InputError, ModelUnavailable
from clipsieve.inference.checkpoint import Batch, Checkpoint, Tensors, hash_weights
from clipsieve.inference.decode import MAX_PIXELS, decode
from clipsieve.inference.models import ModelName, parse_name
from clipsieve.inference.token_ids import TokenIds
from clipsieve.ordered import processors
from clipsieve.protocols import ImageEmbedder, TextEmbedder
from clipsieve.types import Float32, Int64, ModelId

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

    def tokenize(self, texts: Sequence[str]) -> list[Tensors]:
        """n texts -> what the model takes of each. For any thread."""

    @property
    def context(self) -> int:
        """How many token ids a text has, with its padding."""

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """Token ids, int64 (n, context), padded -> what `tokenize` gives. InputError for ids that the model has not."""

    def embed_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """n tokenized texts -> float32 (n, d), C-contiguous, unit rows. InputError if a row is not finite."""


def load_embedder(name: str, *, device: str = "auto", precision: str = "auto") -> "TorchImageEmbedder":
    """The model of that name (see `models.parse_name`), ready: a TorchEmbedder, or without text a TorchImageEmbedder.

    device     "auto": every visible CUDA device, else Apple's, else the CPU; or "cpu", "cuda" (all), "cuda:1", "mps"
    precision  "auto": float16 on CUDA, float32 elsewhere; or "fp32", "fp16", "bf16". Weights stay float32

    ModelUnavailable: the weights cannot be fetched or opened. InputError: no such model, device or precision.
    """
    parsed = parse_name(name)
    devices, dtype = _devices(device), _dtype(precision, device)
    try:
        checkpoint = _load(parsed)
    except (ClipsieveError, AttributeError, NameError):  # the latter two would be our own mistakes
        raise
    except Exception as error:  # each library and hub client has its own ways to say that a file is not there
        what = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelUnavailable(
            f"The weights of {name!r} could not be fetched or opened ({what}); check the connection, give a folder "
            "with `--model local-dir:PATH`, or use the small model that comes along with `--model mini`."
        ) from error
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
        self._dtype = dtype
        self.model = ModelId(name, hash_weights(checkpoint.module), checkpoint.preprocessing)
        self.lanes = len(devices)
        self._tokenizing = threading.Lock()  # fast tokenizers refuse a second caller: "Already borrowed"
        # Whoever wants to run takes a copy out and puts it back: the devices share the work, none runs two batches.
        self._idle: queue.SimpleQueue[tuple[Any, torch.device]] = queue.SimpleQueue()
        for i, device in enumerate(devices):
            module = checkpoint.module if i == len(devices) - 1 else deepcopy(checkpoint.module)
            self._idle.put((module.requires_grad_(False).to(device), device))
        blank = Image.new("RGB", (checkpoint.side, checkpoint.side), "grey")
        self._image_name = min(self.preprocess_image(blank))
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
        """Batch on the CPU -> float32 (n, d); halved and tried again where the device's memory is short."""
        import torch

        n = len(next(iter(batch.values())))
        module, device = self._idle.get()
        try:
            rows = self._forward(encode, module, device, batch, unit)
        except torch.OutOfMemoryError:
            if n == 1:
                raise
            rows = None
        finally:
            self._idle.put((module, device))
        if rows is None:  # out here, so that the failed pass has let go of its memory
            halves = [{name: t[part] for name, t in batch.items()} for part in (slice(n // 2), slice(n // 2, n))]
            return np.concatenate([self._embed(encode, half, what, unit) for half in halves])
        bad = ~(np.isfinite(rows).all(axis=1) & rows.any(axis=1))
        if bad.any():
            raise InputError(
                f"The model {self.model.name!r} gives no finite vector for {what} {int(np.argmax(bad))} of the batch; "
                "leave it out, or check the weights."
            )
        return rows

    def _forward(
        self,
        encode: Callable[[Any, Batch], "torch.Tensor"],
        module: Any,
        device: "torch.device",
        batch: Batch,
        unit: bool,
    ) -> Float32:
        import torch

        cuda = device.type == "cuda"
        moved = {name: (t.pin_memory() if cuda else t).to(device, non_blocking=cuda) for name, t in batch.items()}
        with torch.inference_mode():
            with torch.autocast(device.type, dtype=self._dtype, enabled=self._dtype is not None):
                features = encode(module, moved).float()
            if self._dtype is not None and not bool(torch.isfinite(features).all()):
                features = encode(module, moved).float()  # half precision overflowed: some SigLIPs do
            if unit:
                features = features / features.norm(dim=-1, keepdim=True)
            rows: Float32 = np.ascontiguousarray(features.cpu().numpy())
        return rows


class TorchEmbedder(TorchImageEmbedder):
    """A TorchImageEmbedder with a text tower: also a StagedTextEmbedder."""

    def __init__(
        self, name: str, checkpoint: Checkpoint, devices: Sequence["torch.device"], dtype: "torch.dtype | None"
    ) -> None:
        super().__init__(name, checkpoint, devices, dtype)
        self._ids = TokenIds(self.tokenize([""])[0], checkpoint.vocabulary)

    @property
    def context(self) -> int:
        """See StagedTextEmbedder."""
        return self._ids.length

    def from_ids(self, ids: Int64) -> list[Tensors]:
        """See StagedTextEmbedder."""
        return self._ids.tensors(ids)

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

    def features_of_tokens(self, batch: Sequence[Tensors]) -> Float32:
        """As `embed_tokens`, the rows of whatever length the model gives them."""
        assert self._checkpoint.encode_texts is not None
        return self._embed_stacked(self._checkpoint.encode_texts, batch, "text", unit=False)

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


def _devices(device: str) -> list["torch.device"]:
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = torch.device("meta")
    if asked.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"The device {device!r} is not known; choose auto, cpu, cuda, cuda:N or mps.")
    if asked.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("There is no Apple GPU here that torch can use; choose the device cpu.")
    if asked.type != "cuda":
        return [asked]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (asked.index or 0) >= count:
        raise InputError(
            f"The device {device!r} is not there: torch sees {count} CUDA devices; choose another, or cpu."
        )
    return [asked] if asked.index is not None else [torch.device("cuda", i) for i in range(count)]


def _dtype(precision: str, device: str) -> "torch.dtype | None":
    """The type to compute in; None for float32 throughout."""
    import torch

    known = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision == "auto":
        cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        return torch.float16 if cuda else None
    if precision not in known:
        raise InputError(f"The precision {precision!r} is not known; choose auto, {', '.join(known)}.")
    return known[precision]
