"""Rows held as bfloat16 for a first look at all of them, and as they are stored for what that look cannot rule out.

A bfloat16 product reads half the bytes of a float32 one and, where the processor has instructions for it, takes a
third to a quarter of its time. It is off by no more than a bound that is known beforehand: the rounding of each row is
measured when it is made, and the Cauchy-Schwarz inequality does the rest. So whatever may be among the best k is
settled from the stored vectors, as in `scan_topk`, and the answer is the same to the last bit.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.blas import stay_alone
from clipsieve.index.best import Best
from clipsieve.index.rows import Rows
from clipsieve.index.rule import SLACK, Compiled, Question, Ranked, compile_classes, join, maxima
from clipsieve.index.scan import LEAST_SHARE, MOST_THREADS
from clipsieve.ordered import processors
from clipsieve.types import Float32

ROUNDING = 2.0**-8
"""Of a number to bfloat16, at most, as a share of it: eight bits of precision."""

SCORES = 2**19
"""float32 scores of one block, 2 MiB."""

MOST_ROWS, LEAST_ROWS = 32_768, 4096
"""Of a block. Products come in few shapes, padded by zeros: oneDNN keeps half a megabyte for each that it has met."""


def pays() -> bool:
    """Whether this processor multiplies bfloat16 faster than float32, with sums in float32, as the bound assumes."""
    try:
        import torch
    except ImportError:
        return False
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # from torch 2.9 on
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def bytes_of(rows: Rows) -> int:
    """Memory that a Screen of these rows takes."""
    return rows.count * rows.dim * (2 + np.dtype(rows.dtype).itemsize)


class Screen:
    """The live rows, in memory. Safe to use from several threads at once."""

    def __init__(self, rows: Rows) -> None:
        import torch

        self._ids = np.empty(rows.count, np.int64)
        self._stored = np.empty((rows.count, rows.dim), rows.dtype)
        self._coarse = torch.zeros((_up(rows.count, LEAST_ROWS), rows.dim), dtype=torch.bfloat16)
        longest = rounded = 0.0
        at = 0
        for ids, vectors in rows.blocks():
            own = slice(at, at + len(ids))
            self._ids[own], self._stored[own] = ids, vectors
            exact = torch.from_numpy(vectors)
            self._coarse[own] = exact.bfloat16()
            longest = max(longest, float(exact.norm(dim=1).max()))
            rounded = max(rounded, float((exact - self._coarse[own].float()).norm(dim=1).max()))
            at += len(ids)
        self._longest, self._rounded = longest, rounded
        self._threads = min(processors(), MOST_THREADS, max(1, rows.count * rows.dim // LEAST_SHARE))
        self._pool = ThreadPoolExecutor(self._threads, "screen", initializer=stay_alone)

    def topk(self, questions: Sequence[Question]) -> list[Ranked]:
        """The best k of each question by (key descending, id ascending), exact, all in one pass."""
        if not questions:
            return []
        compiled = compile_classes([q.vectors for q in questions], [q.scale for q in questions], distinct=False)
        share = _up(-(-len(self._ids) // self._threads), LEAST_ROWS) or 1
        spans = [range(at, min(at + share, len(self._ids))) for at in range(0, len(self._ids), share)]
        parts = list(self._pool.map(lambda span: self._work(questions, compiled, span), spans))
        return [join([part[i] for part in parts]).top(q) for i, q in enumerate(questions)]

    def _work(self, questions: Sequence[Question], compiled: Compiled, span: range) -> list[Ranked]:
        import torch

        exact = torch.from_numpy(compiled.matrix)  # (e, d)
        matrix = torch.zeros((1 << (len(exact) - 1).bit_length(), exact.shape[1]), dtype=torch.bfloat16)
        matrix[: len(exact)] = exact
        off = self._off(exact, matrix[: len(exact)])
        first = [positive.start for positive, _ in compiled.slices]
        bests = [Best(question) for question in questions]
        rows = min(max(SCORES // len(matrix), LEAST_ROWS), MOST_ROWS)
        levels, best = np.empty((len(exact), rows), np.float32), np.empty((len(questions), rows), np.float32)
        worst = np.empty_like(best)
        for start in range(span.start, span.stop, rows):
            own = slice(start, min(start + rows, span.stop))
            b = own.stop - own.start
            product = torch.mm(matrix, self._coarse[start : start + min(rows, _up(b, LEAST_ROWS))].T)
            product = product[: len(exact), :b]  # (e, b)
            rounded = product.abs().amax(dim=1).float().numpy() * ROUNDING
            slack = np.maximum.reduceat(off + rounded, first)  # (c,)
            torch.from_numpy(levels)[:, :b] = product
            if compiled.bias is not None:
                levels[:, :b] += compiled.bias
            maxima(compiled, levels[:, :b], best[:, :b], worst[:, :b])
            for i, one in enumerate(bests):
                one.offer(self._ids[own], best[i, :b], worst[i, :b], float(slack[i]), start)
        for one in bests:
            one.settle(self._take)
        return [one.found for one in bests]

    def _off(self, exact: Any, matrix: Any) -> Float32:
        """How far each example's products may be off before they are rounded, (e,).

        |x.t - x't'| <= |x - x'||t| + |x'||t - t'|, and what every float32 sum is off.
        """
        length, rounded = exact.norm(dim=1).numpy(), (exact - matrix.float()).norm(dim=1).numpy()
        off: Float32 = self._rounded * length + (self._longest + self._rounded) * rounded
        off += np.float32(2 * SLACK) * np.maximum(length, 1)
        return off

    def _take(self, at: npt.NDArray[np.intp]) -> Float32:
        import torch

        found: Float32 = torch.from_numpy(self._stored[at]).float().numpy()
        return found


def _up(count: int, step: int) -> int:
    """The multiple of the step that is no less."""
    return -(-count // step) * step
