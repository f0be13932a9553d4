"""What the embedder needs of a model, whichever library it came from."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from PIL import Image

from clipsieve.errors import ClipsieveError, InputError, ModelUnavailable, lacks_memory
from clipsieve.inference.text_reader import Count, Unknown

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, npt.NDArray[Any]]
"""One preprocessed image, by the name of the model's input; opaque to everybody but its own embedder."""

Batch = Mapping[str, "torch.Tensor"]
"""The same for n images or texts, one more axis in front, on the model's device."""


MOST_SAID = 300
"""Characters of what a library says that a sentence repeats."""

_BUFFERS = ("position_ids", "num_batches_tracked", "inv_freq", "masked_bias", "attn.bias")
"""Ends of the names of buffers that older releases saved and newer ones make."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model on the CPU, in float32, in evaluation mode.

    preprocessing  short stable description, for ModelId
    side           pixels along the longer side of the model's input
    prepare        upright RGB image -> Tensors; for many threads at once, so it stays off torch, whose thread pools
                   would fight with those of the forward pass
    encode_images  (module, batch of what `prepare` gives) -> (n, d), not normalised
    tokenize       texts -> batch; None where there is no text tower
    encode_texts   (module, batch of what `tokenize` gives) -> (n, d), not normalised
    pixels         (3, h, w), where `encode_images` also takes float32 of this shape, scaled already, under the one name
                   that `prepare` has; None where the input is no such picture
    vocabulary     token ids are below this; 0 where there is no text tower
    count_tokens   texts -> how many token ids each has before it is cut, its ends included; None where none tells
    context        token ids that are read of a text, its ends included; None where that is not known
    unknown        words -> whether the tokenizer has no token for each; None where it has one for all
    converts       whether `prepare` also takes images of any mode in `raster.SCALABLE`, and makes RGB of them itself
    """

    module: "torch.nn.Module"
    preprocessing: str
    side: int
    prepare: Callable[[Image.Image], Tensors]
    encode_images: Callable[["torch.nn.Module", Batch], "torch.Tensor"]
    tokenize: Callable[[Sequence[str]], Batch] | None = None
    encode_texts: Callable[["torch.nn.Module", Batch], "torch.Tensor"] | None = None
    pixels: tuple[int, int, int] | None = None
    vocabulary: int = 0
    count_tokens: Count | None = None
    context: int | None = None
    unknown: Unknown | None = None
    converts: bool = False


@dataclass(frozen=True, slots=True)
class TextCheckpoint:
    """The same for a model that takes texts only."""

    module: "torch.nn.Module"
    preprocessing: str
    tokenize: Callable[[Sequence[str]], Batch]
    encode_texts: Callable[["torch.nn.Module", Batch], "torch.Tensor"]
    vocabulary: int = 0
    count_tokens: Count | None = None
    context: int | None = None
    unknown: Unknown | None = None


def require_weights(source: str, info: Mapping[str, Any], module: "torch.nn.Module", spare: Sequence[str] = ()) -> None:
    """InputError where a checkpoint's file and its model are not of one architecture.

    info   transformers' loading info: the names of weights that the file lacks, and of those that the model has not
    spare  parts of the model that are not used and may be lacking, "pooler" for instance
    """
    missing = sorted(n for n in map(str, info["missing_keys"]) if not any(part in n.split(".") for part in spare))
    if missing:
        raise InputError(
            f"The checkpoint {source!r} lacks {len(missing)} of its model's weights ({_some(missing)}), which would "
            "be random; use a whole one."
        )
    parts = {name for name, _ in module.named_children()}
    prefix = f"{getattr(module, 'base_model_prefix', '')}."
    # Heads beside the model's own parts are common, and layers beyond those of the configuration are not.
    surplus = sorted(
        name
        for name in map(str, info["unexpected_keys"])
        if name.removeprefix(prefix).split(".")[0] in parts and not name.endswith(_BUFFERS)
    )
    if surplus:
        raise InputError(
            f"The checkpoint {source!r} has {len(surplus)} weights for which its config.json has no place "
            f"({_some(surplus)}); take both files from one checkpoint."
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def hash_weights(module: "torch.nn.Module") -> str:
    """SHA-256 of every parameter and buffer by name, in lowercase hex. About a second per gigabyte.

    The same for one checkpoint whatever file it lay in. Buffers that hold no learned value come and go with the
    libraries' versions, so they do not count.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.endswith(("position_ids", "num_batches_tracked")):
            continue
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextlib.contextmanager
def fetching(name: str, advice: str) -> Iterator[None]:
    """Around the loading of a model's files: what goes wrong is a ModelUnavailable, a sentence with advice."""
    try:
        yield
    except ClipsieveError:
        raise
    except Exception as error:  # each library and hub client has its own ways to say that a file is not there
        if isinstance(error, AttributeError | NameError) and _is_ours(error):
            raise
        if lacks_memory(error):
            raise ModelUnavailable(
                f"There is not enough memory to load the model {name!r}; give this process more, or take a "
                "smaller model."
            ) from error
        # torch lists the weights that are missing on lines of their own.
        what = " ".join(str(error).split())[:MOST_SAID].rstrip(".") or type(error).__name__
        raise ModelUnavailable(
            f"The weights of {name!r} could not be fetched or opened ({what}); check the connection, {advice}."
        ) from error


def _is_ours(error: BaseException) -> bool:
    """Whether it was raised by our code: a mistake of ours, and none of the model's files."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and str(trace.tb_frame.f_globals.get("__name__", "")).startswith("clipsieve.")
