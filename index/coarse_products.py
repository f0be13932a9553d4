"""Products of examples with coarse rows: which ways there are, and which one this processor does fastest.

Each is compared with float64 before it is used: a library that computes something else than is believed of it is passed
over. The last way, rows widened to float32 block by block, is everywhere.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipsieve.index.calibrate import Float64
from clipsieve.index.rule import SLACK

ROUNDING = 2.0**-8
"""Of a number to bfloat16, at most, as a share of it: eight bits of precision."""

MEASURED_ROWS, COMPARED_ROWS, ROUNDS = 4096, 256, 3
WIDENED_ROWS = 2048
"""Rows that are widened at a time: they stay in the processor's cache until the product has read them."""


@dataclass(frozen=True, slots=True)
class Product:
    """One way to multiply.

    multiply  examples (e, d) as `prepare` made them, codes int8 (b, d), scales bfloat16 (b,) -> (e, b), float32 or
              bfloat16: scale * (example . codes)
    half      whether the examples are rounded to bfloat16
    rounding  of a product, at most, as a share of it
    """

    name: str
    multiply: Callable[[Any, Any, Any], Any]
    half: bool
    rounding: float

    def prepare(self, examples: Float64) -> tuple[Any, Float64]:
        """The examples as `multiply` takes them, and as numbers, float64 (e, d)."""
        import torch

        made = torch.from_numpy(examples).to(torch.bfloat16 if self.half else torch.float32)
        return made, made.double().numpy()


def ways() -> list[Product]:
    """All that this processor and this torch have, the one that is everywhere last."""
    import torch

    found = []
    if hasattr(torch, "_weight_int8pack_mm"):
        found.append(Product("int8", _by_weights, True, ROUNDING))
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.9 on
    if known.get("avx512_bf16") or known.get("amx_bf16"):  # elsewhere sums might be of bfloat16
        found.append(Product("bfloat16", _by_bfloat16, True, ROUNDING))
    return [*found, Product("float32", _by_float32, False, 0.0)]


def fastest(examples: Float64, codes: Any, scales: Any) -> Product:
    """The way that takes the least time for so many examples, float64 (e, d), measured on the first of the rows."""
    codes, scales = codes[:MEASURED_ROWS], scales[:MEASURED_ROWS]
    *some, last = ways()
    good = [way for way in some if _computes(way, examples, codes[:COMPARED_ROWS], scales[:COMPARED_ROWS])]
    return min([last, *good], key=lambda way: _seconds(way, examples, codes, scales))


def _computes(way: Product, examples: Float64, codes: Any, scales: Any) -> bool:
    """Whether products are as near to those in float64 as they are believed to be."""
    exact = (codes.double() * scales.double()[:, None]).numpy()  # (b, d)
    prepared, taken = way.prepare(examples)
    try:
        found = way.multiply(prepared, codes, scales).double().numpy()
    except (
        RuntimeError,
        TypeError,
        NotImplementedError,
    ):  # torch's own function, which may come to want something else
        return False
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
