"""What the embedder needs of a model, whichever library it came from."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
from PIL import Image

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
