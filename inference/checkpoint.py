"""What the embedder needs of a model, whichever library it came from."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from PIL import Image

from clipsieve.errors import ClipsieveError, ModelUnavailable

if TYPE_CHECKING:
    import torch

Tensors = Mapping[str, npt.NDArray[Any]]
"""One preprocessed image, by the name of the model's input; opaque to everybody but its own embedder."""

Batch = Mapping[str, "torch.Tensor"]
"""The same for n images or texts, one more axis in front, on the model's device."""


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
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None


@dataclass(frozen=True, slots=True)
class TextCheckpoint:
    """The same for a model that takes texts only."""

    module: "torch.nn.Module"
    preprocessing: str
    tokenize: Callable[[Sequence[str]], Batch]
    encode_texts: Callable[["torch.nn.Module", Batch], "torch.Tensor"]
    vocabulary: int = 0
    count_tokens: Callable[[Sequence[str]], list[int]] | None = None


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
    except (ClipsieveError, AttributeError, NameError):  # the latter two would be our own mistakes
        raise
    except Exception as error:  # each library and hub client has its own ways to say that a file is not there
        what = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ModelUnavailable(
            f"The weights of {name!r} could not be fetched or opened ({what}); check the connection, {advice}."
        ) from error
