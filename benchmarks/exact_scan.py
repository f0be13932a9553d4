"""One exact question over all rows, over reading those bytes; batches of 16 over the matrix product.

    python -m benchmarks.exact_scan [--quick]

200,000 x 512 float32 rows in memory. Reading is a sum over the array, by torch or by numpy in as many threads as there
are cores: the faster.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from benchmarks.measuring import alternate, arguments, classes_of, keep, unit_rows
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.index.scan import scan_topk

DIM, K = 512, 100


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Exact questions over their floors.")
    rng = np.random.default_rng(0)
    n, rounds = (10_000, 2) if args.quick else (200_000, 9)
    vectors = unit_rows(rng, n, DIM)
    shared = torch.from_numpy(vectors)
    rows = Rows(DIM, [(range(n), vectors)])
    questions = [Question(c, K) for c in classes_of(rng, 16, 1, 0, DIM)]
    matrix = np.concatenate([q.vectors.positive for q in questions])
    threads = torch.get_num_threads()
    slabs = np.array_split(vectors, threads)
    with ThreadPoolExecutor(threads) as pool:
        seconds = alternate(
            {
                "read_torch": lambda: float(shared.sum()),
                "read_numpy": lambda: sum(pool.map(np.sum, slabs)),
                "one_question": lambda: scan_topk(rows, questions[:1]),
                "product_16_numpy": lambda: matrix @ vectors.T,
                "product_16_torch": lambda: torch.from_numpy(matrix) @ shared.T,
                "sixteen_questions": lambda: scan_topk(rows, questions),
            },
            rounds,
        )
    keep(args, "exact_scan", {"rows": n, "dim": DIM, "k": K, "threads": threads, "seconds": seconds})


if __name__ == "__main__":
    main()
