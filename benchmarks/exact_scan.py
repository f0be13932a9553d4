"""Exact questions over reading what they are answered from; batches of 16 over the product.

    python -m benchmarks.exact_scan [--quick]

1,000,000 x 512 rows, float16 in memory, with their coarse copy: one question over reading the copy, 16 over its product
by the way that was chosen for so many. Then 200,000 x 512 float32 rows: one question over reading them, by the plain
scan and by a copy. Reading is a sum, by torch or by numpy in as many threads as there are cores: the faster; that of
the copy as int64. Rows have a common direction and a few large dimensions, as CLIP's, and questions are noisy rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from benchmarks.measuring import MODEL, alternate, arguments, keep, unit, unit_rows
from clipsieve.blas import stay_alone
from clipsieve.index.coarse import Coarse, make_coarse
from clipsieve.index.coarse_products import fastest
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.index.scan import scan_topk
from clipsieve.index.screen import LEAST_ROWS, MOST_ROWS, SCORES, Screen
from clipsieve.ordered import processors
from clipsieve.types import ClassVectors, Float32, Int64

DIM, K, MANY = 512, 100, 16
STEP = 50_000


class CountedRows(Rows):
    """Rows that know how many of them were taken."""

    taken = 0

    def take(self, ids: Int64) -> Float32:
        """As Rows."""
        self.taken += len(ids)
        return super().take(ids)


def made(rng: np.random.Generator, n: int, dtype: type[np.float16] | type[np.float32]) -> CountedRows:
    """Unit rows that have a direction in common, of half their length, and six large dimensions."""
    common = unit_rows(rng, 1, DIM)
    common[0, rng.integers(0, DIM, 6)] = 0.3
    array = np.empty((n, DIM), dtype)
    for start in range(0, n, STEP):
        some = unit_rows(rng, min(STEP, n - start), DIM)
        array[start : start + len(some)] = unit(some + common)
    return CountedRows(DIM, [(range(n), array)])


def questions_of(rng: np.random.Generator, rows: Rows) -> list[Question]:
    """MANY questions of one positive."""
    some = rows.take(rows.sample(MANY))
    asked = unit(some + unit_rows(rng, MANY, DIM))
    return [Question(ClassVectors("q", one[None], one[:0].reshape(0, DIM), MODEL), K) for one in asked]


def readers(array: np.ndarray, pool: ThreadPoolExecutor) -> dict[str, Callable[[], object]]:
    """Ways to read every byte."""
    slabs = np.array_split(array, pool._max_workers)
    shared = torch.from_numpy(array)
    return {
        "read_torch": lambda: int(shared.sum()),
        "read_numpy": lambda: [float(some) for some in pool.map(np.sum, slabs)],
        "read_numpy_max": lambda: max(pool.map(np.max, slabs)),
    }


def product(coarse: Coarse, questions: list[Question], pool: ThreadPoolExecutor) -> tuple[str, Callable[[], object]]:
    """The product of the questions with the copy alone, in all threads, and the way it goes."""
    codes = torch.from_numpy(coarse.codes)
    scales = torch.from_numpy(coarse.bounds[0].copy()).bfloat16()
    examples = np.zeros((len(questions), codes.shape[1]))
    examples[:, :DIM] = np.concatenate([q.vectors.positive for q in questions]) * coarse.dims[1]
    way = fastest(examples, codes, scales)
    prepared, _ = way.prepare(examples)
    rows = min(max(SCORES // len(examples), LEAST_ROWS), MOST_ROWS)

    def work(start: int) -> None:
        way.multiply(prepared, codes[start : start + rows], scales[start : start + rows])

    return way.name, lambda: list(pool.map(work, range(0, len(codes), rows)))


def million(rng: np.random.Generator, n: int, rounds: int, pool: ThreadPoolExecutor) -> dict[str, object]:
    """By the coarse copy."""
    rows = made(rng, n, np.float16)
    began = time.perf_counter()
    ids, coarse = make_coarse(rows)
    making = time.perf_counter() - began
    questions, look = questions_of(rng, rows), Screen(rows, ids, coarse)
    for ranked, plain in zip(look.topk(questions), scan_topk(rows, questions)[0], strict=True):
        assert ranked.ids.tolist() == plain.ids.tolist()
        assert ranked.best.tolist() == plain.best.tolist()
    rows.taken = 0
    look.topk(questions)
    settled = rows.taken / (n * MANY)
    (way, one), (ways, many) = (product(coarse, asked, pool) for asked in (questions[:1], questions))
    competitors = readers(coarse.codes.view(np.int64).reshape(-1), pool) | {
        "product_1": one,
        "one_question": lambda: look.topk(questions[:1]),
        "product_16": many,
        "sixteen_questions": lambda: look.topk(questions),
        "one_question_as_stored": lambda: scan_topk(rows, questions[:1]),
    }
    return {
        "rows": n,
        "bytes": coarse.codes.nbytes,
        "making_s": making,
        "settled": settled,
        "ways": {"1": way, "16": ways},
        "seconds": alternate(competitors, rounds),
    }


def as_float32(rng: np.random.Generator, n: int, rounds: int, pool: ThreadPoolExecutor) -> dict[str, object]:
    """By the rows as they are, and by a copy."""
    rows = made(rng, n, np.float32)
    vectors = np.concatenate([block for _, block in rows.blocks(n)])
    questions, look = questions_of(rng, rows), Screen(rows, *make_coarse(rows))
    matrix = np.concatenate([q.vectors.positive for q in questions])
    shared = torch.from_numpy(vectors)
    competitors = readers(vectors, pool) | {
        "one_question": lambda: scan_topk(rows, questions[:1]),
        "one_question_by_copy": lambda: look.topk(questions[:1]),
        "product_16_numpy": lambda: matrix @ vectors.T,
        "product_16_torch": lambda: torch.from_numpy(matrix) @ shared.T,
        "sixteen_questions": lambda: scan_topk(rows, questions),
        "sixteen_questions_by_copy": lambda: look.topk(questions),
    }
    return {"rows": n, "bytes": vectors.nbytes, "seconds": alternate(competitors, rounds)}


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Exact questions over their floors.")
    rng = np.random.default_rng(0)
    large, small, rounds = (20_000, 10_000, 2) if args.quick else (1_000_000, 200_000, 7)
    threads = processors()
    with ThreadPoolExecutor(threads, initializer=stay_alone) as pool:
        cases = {"copy": million(rng, large, rounds, pool), "float32": as_float32(rng, small, rounds, pool)}
    keep(args, "exact_scan", {"dim": DIM, "k": K, "threads": threads, "cases": cases})


if __name__ == "__main__":
    main()
