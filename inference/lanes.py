"""A model on its devices: one copy on each, and whoever wants to run takes a copy out and puts it back."""

import queue
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from clipsieve.errors import InputError, quoted
from clipsieve.inference.checkpoint import Batch

if TYPE_CHECKING:
    import torch

Encode = Callable[[Any, Batch], tuple["torch.Tensor", ...]]
"""(module, batch of n) -> tensors with n rows each."""


class Lanes:
    """Runs batches on whichever copy is idle. Safe in many threads; more of them than copies wait.

    count  how many copies there are
    """

    def __init__(
        self, module: "torch.nn.Module", devices: Sequence["torch.device"], dtype: "torch.dtype | None"
    ) -> None:
        self._dtype = dtype
        self.count = len(devices)
        self._idle: queue.SimpleQueue[tuple[Any, torch.device]] = queue.SimpleQueue()
        for i, device in enumerate(devices):
            copy = module if i == len(devices) - 1 else deepcopy(module)
            self._idle.put((copy.requires_grad_(False).to(device), device))

    def run(self, encode: Encode, batch: Batch) -> tuple[npt.NDArray[np.float32], ...]:
        """What `encode` makes of a batch on the CPU, as float32; halved and tried again where memory is short.

        encode  called under the precision chosen; once more in float32 where half precision overflowed
        """
        import torch

        n = len(next(iter(batch.values())))
        module, device = self._idle.get()
        try:
            found = self._forward(encode, module, device, batch)
        except torch.OutOfMemoryError:
            if n == 1:
                raise
            found = None
        finally:
            self._idle.put((module, device))
        if found is None:  # out here, so that the failed pass has let go of its memory
            halves = [{name: t[part] for name, t in batch.items()} for part in (slice(n // 2), slice(n // 2, n))]
            pairs = zip(*(self.run(encode, half) for half in halves), strict=True)
            return tuple(np.concatenate(pair) for pair in pairs)
        return found

    def _forward(
        self, encode: Encode, module: Any, device: "torch.device", batch: Batch
    ) -> tuple[npt.NDArray[np.float32], ...]:
        import torch

        cuda = device.type == "cuda"
        moved = {name: (t.pin_memory() if cuda else t).to(device, non_blocking=cuda) for name, t in batch.items()}
        with torch.inference_mode():
            with torch.autocast(device.type, dtype=self._dtype, enabled=self._dtype is not None):
                found = [t.float() for t in encode(module, moved)]
            if self._dtype is not None and not all(bool(torch.isfinite(t).all()) for t in found):
                found = [t.float() for t in encode(module, moved)]  # half precision overflowed: some SigLIPs do
            return tuple(np.ascontiguousarray(t.cpu().numpy()) for t in found)


def find_devices(device: str) -> list["torch.device"]:
    """The devices meant by "auto", "cpu", "cuda" (all of them), "cuda:1" or "mps". InputError if there are none."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError:
        asked = torch.device("meta")
    if asked.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"The device {quoted(device)} is not known; choose auto, cpu, cuda, cuda:N or mps.")
    if asked.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("There is no Apple GPU here that torch can use; choose the device cpu.")
    if asked.type != "cuda":
        return [asked]
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (asked.index or 0) >= count:
        raise InputError(
            f"The device {quoted(device)} is not there: torch sees {count} CUDA devices; choose another, or cpu."
        )
    return [asked] if asked.index is not None else [torch.device("cuda", i) for i in range(count)]


def find_dtype(precision: str, device: str) -> "torch.dtype | None":
    """The type to compute in, for "auto", "fp32", "fp16" or "bf16"; None for float32 throughout."""
    import torch

    known = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}
    if precision == "auto":
        cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
        return torch.float16 if cuda else None
    if precision not in known:
        raise InputError(f"The precision {quoted(precision)} is not known; choose auto, {', '.join(known)}.")
    return known[precision]
