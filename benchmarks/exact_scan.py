"""One exact question over all rows, over reading those bytes; batches of 16 over the matrix product.

    python -m benchmarks.exact_scan [--quick]

200,000 x 512 float32 rows in memory. Reading is a sum over the array by torch on all cores, the fastest of what was
tried (numpy's runs on one).
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.measuring import alternate, arguments, classes_of, keep, ratio, say, unit_rows
from clipsieve.index.rule import Question
from clipsieve.index.scan import Rows, scan_topk

DIM = 512


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Exact questions over their floors.")
    rng = np.random.default_rng(0)
    n, rounds = (10_000, 2) if args.quick else (200_000, 9)
    vectors = unit_rows(rng, n, DIM)
    shared = torch.from_numpy(vectors)
    rows = Rows(DIM, [(range(n), vectors)])
    questions = [Question(c, 100) for c in classes_of(rng, 16, 1, 0, DIM)]
    matrix = np.concatenate([q.vectors.positive for q in questions])
    seconds = alternate(
        {
            "read": lambda: float(shared.sum()),
            "one_question": lambda: scan_topk(rows, questions[:1]),
            "product_16_numpy": lambda: matrix @ vectors.T,
            "product_16_torch": lambda: torch.from_numpy(matrix) @ shared.T,
            "sixteen_questions": lambda: scan_topk(rows, questions),
        },
        rounds,
    )
    floor = min("product_16_numpy", "product_16_torch", key=lambda product: ratio(seconds, product, "read"))
    say(f"one exact question over reading {n} x {DIM} float32", ratio(seconds, "one_question", "read"), most=1.3)
    say(f"16 questions in one pass over the product ({floor})", ratio(seconds, "sixteen_questions", floor), most=1.5)
    keep(args, "exact_scan", {"rows": n, "dim": DIM, "k": 100, "seconds": seconds})


if __name__ == "__main__":
    main()
