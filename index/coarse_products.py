"""Products of examples with coarse rows: which ways there are, and which one this processor does fastest.

Each is compared with float64 before it is used: a library that computes something else than is believed of it is passed
over. The last way, rows widened to float32 block by block, is everywhere.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.index.calibrate import Float64
from clipsieve.index.coarse import LARGEST
from clipsieve.index.rule import SLACK

ROUNDING = 2.0**-8
"""Of a number to bfloat16, at most, as a share of it: eight bits of precision."""

STEPS = 63
"""Of the largest number of an example, in whole numbers of 7 bits."""

MEASURED_ROWS, COMPARED_ROWS, ROUNDS = 4096, 256, 3
WIDENED_ROWS = 2048
"""Rows that are widened at a time: they stay in the processor's cache until the product has read them."""


@dataclass(frozen=True, slots=True)
class Product:
    """One way to multiply.

    prepare   examples float64 (e, d) -> as `multiply` takes them, and the numbers that they are then, float64 (e, d)
    multiply  what `prepare` made, codes int8 (b, d), scales bfloat16 (b,) -> (e, b), float32 or bfloat16:
              scale * (example . codes)
    rounding  of a product, at most, as a share of it
    """

    name: str
    prepare: Callable[[Float64], tuple[Any, Float64]]
    multiply: Callable[[Any, Any, Any], Any]
    rounding: float


def ways() -> list[Product]:
    """All that this processor and this torch have, the one that is everywhere last."""
    import torch

    found = []
    if hasattr(torch, "_weight_int8pack_mm"):
        found.append(Product("int8", _as_bfloat16, _by_weights, ROUNDING))
    if hasattr(torch.ops.onednn, "qlinear_pointwise"):
        found.append(Product("integers", _as_integers, _by_integers, 0.0))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.9 on
    if known.get("avx512_bf16") or known.get("amx_bf16"):  # elsewhere sums might be of bfloat16
        found.append(Product("bfloat16", _as_bfloat16, _by_bfloat16, ROUNDING))
    return [*found, Product("float32", _as_float32, _by_float32, 0.0)]


def fastest(examples: Float64, codes: Any, scales: Any) -> Product:
    """The way that takes the least time for so many examples, float64 (e, d), measured on the first of the rows."""
    codes, scales = codes[:MEASURED_ROWS], scales[:MEASURED_ROWS]
    *some, last = ways()
    good = [way for way in some if _computes(way, examples, codes[:COMPARED_ROWS], scales[:COMPARED_ROWS])]
    return min([last, *good], key=lambda way: _seconds(way, examples, codes, scales))


def _computes(way: Product, examples: Float64, codes: Any, scales: Any) -> bool:
    """Whether products are as near to those in float64 as they are believed to be."""
    import torch

    try:
        prepared, taken = way.prepare(examples)
        # Sums as large as they come: 16 bits, which some processors sum pairs in, would not hold all of them.
        large = torch.from_numpy(LARGEST * np.where(taken[:2] < 0, -1, 1)).to(torch.int8)
        codes = torch.cat([large, -large, codes])
        scales = torch.cat([scales[:1].expand(2 * len(large)), scales])
        found = way.multiply(prepared, codes, scales).double().numpy()
    except (RuntimeError, TypeError, AttributeError):  # torch's own functions, which may go, or want something else
        return False
    exact = (codes.double() * scales.double()[:, None]).numpy()  # (b, d)
    lengths = np.linalg.norm(exact, axis=1)
    most = way.rounding * np.abs(found) + SLACK * np.linalg.norm(taken, axis=1)[:, None] * lengths
    return bool((np.abs(found - taken @ exact.T) <= most).all())


def _seconds(way: Product, examples: Float64, codes: Any, scales: Any) -> float:
    prepared, took = way.prepare(examples)[0], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        way.multiply(prepared, codes, scales)
        took.append(time.perf_counter() - start)
    return min(took)


def _as_bfloat16(examples: Float64) -> tuple[Any, Float64]:
    import torch

    made = torch.from_numpy(examples).bfloat16()
    return made, made.double().numpy()


def _as_float32(examples: Float64) -> tuple[Any, Float64]:
    import torch

    made = torch.from_numpy(examples).float()
    return made, made.double().numpy()


def _as_integers(examples: Float64) -> tuple[Any, Float64]:
    """Each example as two of whole numbers of 7 bits, coarse and fine: one alone would lose more than the codes do.

    With 8 bits, sums of two products would not fit into the 16 bits that processors without VNNI have for them.
    """
    import torch

    step = np.maximum(np.abs(examples).max(axis=1, keepdims=True) / STEPS, 1e-30).astype(np.float32)  # (e, 1)
    fine = step / np.float32(2 * STEPS)
    most = np.rint(examples / step)
    rest = np.clip(np.rint((examples - most * step) / fine), -STEPS, STEPS)
    whole, steps = _two_to_the((*most, *rest)), _two_to_the((*step, *fine))
    packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(whole.astype(np.int8)), None)
    scales = torch.from_numpy(steps[:, 0].astype(np.float32))
    taken = most * step.astype(np.float64) + rest * fine.astype(np.float64)
    return (packed, scales, len(examples)), taken


def _two_to_the(rows: Sequence[npt.NDArray[Any]]) -> Float64:
    """The rows (2e, n) and zeros, up to a power of two of them."""
    out = np.zeros((1 << (len(rows) - 1).bit_length(), len(rows[0])))
    out[: len(rows)] = rows
    return out


def _by_integers(examples: Any, codes: Any, scales: Any) -> Any:
    """oneDNN's product of integers, with sums of 32 bits; as fast as it gets with VNNI or AMX."""
    import torch

    packed, steps, e = examples
    none, out = torch.zeros(len(steps), dtype=torch.int64), torch.empty((e, len(codes)))
    for start in range(0, len(codes), WIDENED_ROWS):
        some = codes[start : start + WIDENED_ROWS]
        b = len(some)
        if b < WIDENED_ROWS:
            some = torch.cat([some, torch.zeros((WIDENED_ROWS - b, codes.shape[1]), dtype=torch.int8)])
        found = torch.ops.onednn.qlinear_pointwise(
            some, 1.0, 0, packed, steps, none, None, 1.0, 0, torch.float32, "none", [], ""
        )  # (b, 2e)
        torch.add(found[:b, :e].T, found[:b, e : 2 * e].T, out=out[:, start : start + b])
    return out.mul_(scales.float())


def _by_weights(examples: Any, codes: Any, scales: Any) -> Any:
    """torch's product for models whose weights are int8; sums are of float32."""
    import torch

    return torch._weight_int8pack_mm(examples, codes, scales)


def _by_bfloat16(examples: Any, codes: Any, scales: Any) -> Any:
    import torch

    return _widened(examples, codes, scales, torch.bfloat16)


def _by_float32(examples: Any, codes: Any, scales: Any) -> Any:
    import torch

    return _widened(examples, codes, scales, torch.float32)


def _widened(examples: Any, codes: Any, scales: Any, dtype: Any) -> Any:
    """Codes are whole numbers of 8 bits, which both types hold.

    Products come in few shapes, padded by zeros: oneDNN keeps half a megabyte for each that it has met.
    """
    import torch

    e, d = examples.shape
    left = torch.zeros((1 << (e - 1).bit_length(), d), dtype=dtype)
    left[:e] = examples
    out = torch.empty((e, len(codes)))
    wide = torch.zeros((WIDENED_ROWS, d), dtype=dtype)
    for start in range(0, len(codes), WIDENED_ROWS):
        some = codes[start : start + WIDENED_ROWS]
        wide[: len(some)] = some
        out[:, start : start + len(some)] = torch.mm(left, wide.T)[:e, : len(some)]
    return out.mul_(scales.float())
