"""A first look at all rows by their coarse copy, and at the stored ones for what that look cannot rule out.

Coarse rows are a quarter of the bytes of float32 to read, and the processor multiplies them faster. A product is off by
no more than a bound that is known beforehand: what each row lost was measured when the copy was made, what an example
loses is measured here, and the Cauchy-Schwarz inequality does the rest. So whatever may be in the answer is settled
from the stored vectors, as in `scan_topk` and `scan_threshold`, and the answer is the same to the last bit.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsieve.blas import stay_alone
from clipsieve.index.best import Best
from clipsieve.index.coarse import Coarse
from clipsieve.index.coarse_products import Product, fastest
from clipsieve.index.rows import Rows, contains
from clipsieve.index.rule import SLACK, Compiled, Question, Ranked, compile_classes, join, judge, maxima
from clipsieve.index.scan import LEAST_SHARE, MOST_THREADS, scan_threshold, scan_topk
from clipsieve.ordered import ordered_map, processors
from clipsieve.types import Float32, Int64

SCORES = 2**19
"""float32 scores of one block, 2 MiB."""

MOST_ROWS, LEAST_ROWS = 32_768, 4096
"""Of a block."""


def can_look() -> bool:
    """Whether the library for it is there."""
    try:
        import torch  # noqa: F401
    except ImportError:
        return False
    return True


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Rows of a block: ids (b,), the position of the first; P and N (c, b), and how far each may be off, (c, b)."""

    ids: Int64
    start: int
    best: Float32
    worst: Float32
    slack: Float32


class Screen:
    """The coarse rows and the stored ones. Safe to use from several threads at once.

    rows    where what decides is read
    ids     int64 (n,), ascending, of the coarse rows: those of `rows`, and perhaps some that were removed
    coarse  the copy
    rest    rows of greater ids that the copy lacks: they are read as they are stored
    """

    def __init__(self, rows: Rows, ids: Int64, coarse: Coarse, rest: Rows | None = None) -> None:
        import torch

        self._rows, self._ids, self._rest = rows, ids, rest
        self._codes = torch.from_numpy(coarse.codes)
        scales, self._lost, length, own = coarse.bounds
        self._scales = torch.from_numpy(np.ascontiguousarray(scales)).bfloat16()  # without loss: they are such
        self._center, self._spread = coarse.dims.astype(np.float64)
        self._length, self._longest = float(length.max(initial=0)), max(1.0, float(own.max(initial=0)))
        self._ways: dict[int, Product] = {}
        self._lock = threading.Lock()
        self._threads = min(processors(), MOST_THREADS, max(1, len(ids) * rows.dim // LEAST_SHARE))
        self._pool = ThreadPoolExecutor(self._threads, "screen", initializer=stay_alone)

    def topk(self, questions: Sequence[Question]) -> list[Ranked]:
        """The best k of each question by (key descending, id ascending), exact, all in one pass."""
        if not questions:
            return []
        compiled = compile_classes([q.vectors for q in questions], [q.scale for q in questions], distinct=False)
        spans = iter(
            self._spans(_block_rows(compiled))
        )  # of all threads: who is kept waiting leaves more to the others

        def work(_: int) -> list[Ranked]:
            bests = [Best(question) for question in questions]
            for block in self._blocks(compiled, spans):
                for i, one in enumerate(bests):
                    one.offer(block.ids, block.best[i], block.worst[i], block.slack[i], block.start)
            for one in bests:
                one.settle(self._take)
            return [one.found for one in bests]

        parts = list(self._pool.map(work, range(self._threads)))
        if self._rest is not None:
            parts.append(scan_topk(self._rest, questions)[0])
        return [join([part[i] for part in parts]).top(q) for i, q in enumerate(questions)]

    def threshold(self, question: Question) -> Iterator[Ranked]:
        """Every item of the question's view, block by block in id order; its k and groups are not looked at."""
        compiled = question.compile()
        without = None if question.without is None else np.unique(question.without)
        only = None if question.only is None else np.unique(question.only)

        def work(span: range) -> list[Ranked]:
            found = []
            for block in self._blocks(compiled, [span]):
                at = np.flatnonzero(question.shows(block.best[0], block.worst[0], block.slack[0]))
                if only is not None:
                    at = at[contains(only, block.ids[at])]
                if without is not None:
                    at = at[~contains(without, block.ids[at])]
                ids = block.ids[at]
                if len(ids):
                    found.append(judge(question, compiled, ids, self._rows.take(ids)))
            return [ranked for ranked in found if len(ranked.ids)]

        for some in ordered_map(self._pool, work, self._spans(LEAST_ROWS), ahead=2 * self._threads):
            yield from some
        if self._rest is not None:
            yield from scan_threshold(self._rest, question)

    def _spans(self, share: int) -> list[range]:
        return [range(at, min(at + share, len(self._ids))) for at in range(0, len(self._ids), share)]

    def _blocks(self, compiled: Compiled, spans: Iterable[range]) -> Iterator[_Block]:
        """One for each span, of `_block_rows` at most. The arrays are overwritten by the next."""
        examples = compiled.matrix.astype(np.float64)  # (e, d)
        spread = np.zeros((len(examples), self._codes.shape[1]))  # as wide as the codes
        np.multiply(examples, self._spread, out=spread[:, : examples.shape[1]])
        way = self._way(spread)
        prepared, taken = way.prepare(spread)
        length = np.linalg.norm(examples, axis=1)  # (e,)
        # |x.t - x't'| <= |x - x'||t| + |x'||t - t'|, and what sums of float32 are off.
        off = np.linalg.norm(spread - taken, axis=1) * self._length
        off += 2 * SLACK * (np.maximum(length, 1) * self._longest + np.linalg.norm(taken, axis=1) * self._length)
        first = [positive.start for positive, _ in compiled.slices]
        length = np.maximum.reduceat(length, first)[:, None].astype(np.float32)  # (c, 1)
        known = (examples @ self._center)[:, None]  # (e, 1)
        if compiled.bias is not None:
            known = known + compiled.bias
        known = known.astype(np.float32)
        rows = _block_rows(compiled)
        levels = np.empty((len(examples), rows), np.float32)
        best, worst, slack = (np.empty((len(compiled.slices), rows), np.float32) for _ in range(3))
        for span in spans:
            own, b = slice(span.start, span.stop), len(span)
            product = levels[:, :b]
            product[:] = way.multiply(prepared, self._codes[own], self._scales[own]).float().numpy()
            rounded = way.rounding * np.maximum(product.max(axis=1), -product.min(axis=1)) if way.rounding else 0.0
            product += known
            maxima(compiled, product, best[:, :b], worst[:, :b])
            np.multiply(length, self._lost[own], out=slack[:, :b])
            slack[:, :b] += np.maximum.reduceat(off + rounded, first)[:, None].astype(np.float32)
            ids = self._ids[own]
            if len(self._rows.without):
                best[:, :b][:, contains(self._rows.without, ids)] = np.nan  # no items
            yield _Block(ids, span.start, best[:, :b], worst[:, :b], slack[:, :b])

    def _way(self, examples: npt.NDArray[np.float64]) -> Product:
        """The fastest way to multiply with about so many examples."""
        size = (len(examples) - 1).bit_length()
        with self._lock:
            if size not in self._ways:
                self._ways[size] = fastest(examples, self._codes, self._scales)
            return self._ways[size]

    def _take(self, at: npt.NDArray[np.intp]) -> Float32:
        return self._rows.take(self._ids[at])


def _block_rows(compiled: Compiled) -> int:
    """Rows of a block: its scores stay in the processor's cache."""
    return min(max(SCORES // len(compiled.matrix), LEAST_ROWS), MOST_ROWS)
