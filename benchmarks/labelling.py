"""Labelling: the rule and the winner for every row, over the matrix product alone.

    python -m benchmarks.labelling [--quick]

Rows are float32 in memory unless said. The floor is the product of all examples with all rows, in blocks or whole, by
numpy or by torch: the fastest. The flat-scatter formulation is an older system's: all scores at once, positive columns
gathered and scattered to their class by an index array, maxima by `scatter_reduce`. What it would cost had it our
blocks is measured too. The float16 file was just written, so that the system still holds it in memory: what shows is
reading and widening, not the disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import alternate, arguments, classes_of, keep, unit_rows
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Compiled, compile_classes
from clipsieve.index.scan import block_rows, scan_label
from clipsieve.types import Float32

DIM = 512


def product_numpy(compiled: Compiled, vectors: Float32, rows: int) -> Callable[[], None]:
    out = np.empty((len(compiled.matrix), rows), np.float32)

    def run() -> None:
        for start in range(0, len(vectors), rows):
            block = vectors[start : start + rows]
            np.matmul(compiled.matrix, block.T, out=out[:, : len(block)])

    return run


def product_torch(compiled: Compiled, vectors: Float32, rows: int) -> Callable[[], None]:
    matrix, all_rows = torch.from_numpy(compiled.matrix), torch.from_numpy(vectors)
    out = torch.empty((len(matrix), rows))

    def run() -> None:
        for start in range(0, len(vectors), rows):
            block = all_rows[start : start + rows]
            torch.matmul(matrix, block.T, out=out[:, : len(block)]) if len(block) == rows else matrix @ block.T

    return run


Side = tuple[torch.Tensor, torch.Tensor]
"""Columns of the scores, and the class of each."""


def sides_of(compiled: Compiled) -> list[Side]:
    """The positives, and the negatives."""
    sides = []
    for side in (0, 1):
        columns = [i for pair in compiled.slices for i in range(pair[side].start, pair[side].stop)]
        owner = [j for j, pair in enumerate(compiled.slices) for _ in range(pair[side].start, pair[side].stop)]
        sides.append((torch.tensor(columns), torch.tensor(owner)))
    return sides


def scatter_maxima(scores: torch.Tensor, sides: list[Side], classes: int) -> list[torch.Tensor]:
    """Maxima (b, classes) of either side from scores (b, e) of 0 and above.

    As that system does it, for every score the offset of its row and the class of its column are written out in full.
    """
    b, maxima = len(scores), []
    for columns, owner in sides:
        flat = scores[:, columns].flatten()
        offsets = torch.arange(b)[:, None].expand(-1, len(columns)).flatten() * classes
        index = owner.repeat(b) + offsets
        maxima.append(torch.zeros(b * classes).scatter_reduce(0, index, flat, "amax").view(b, classes))
    return maxima


def scatter(compiled: Compiled, vectors: Float32, rows: int) -> Callable[[], None]:
    sides = sides_of(compiled)
    matrix, all_rows = torch.from_numpy(compiled.matrix), torch.from_numpy(vectors)

    def run() -> None:
        for start in range(0, len(vectors), rows):
            scores = (1 + all_rows[start : start + rows] @ matrix.T) / 2  # (b, e)
            best, worst = scatter_maxima(scores, sides, len(compiled.slices))
            torch.where(best > worst, best, 1 - worst).argmax(dim=1)

    return run


def label(rows: Rows, compiled: Compiled) -> Callable[[], None]:
    def run() -> None:
        for _ in scan_label(rows, compiled):
            pass

    return run


CASES = ((100, 10, 40_000), (10, 5, 200_000))
"""Classes, examples of each sign, rows."""


def measure(classes: int, examples: int, n: int, rounds: int) -> dict[str, object]:
    """Seconds of every competitor."""
    rng = np.random.default_rng(0)
    vectors = unit_rows(rng, n, DIM)
    compiled = compile_classes(classes_of(rng, classes, examples, examples, DIM))
    block = block_rows(len(compiled.matrix))
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", vectors.astype(np.float16))
        stored = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        competitors = {
            "product_numpy_blocks": product_numpy(compiled, vectors, block),
            "product_torch_blocks": product_torch(compiled, vectors, block),
            "product_numpy_whole": product_numpy(compiled, vectors, n),
            "product_torch_whole": product_torch(compiled, vectors, n),
            "label": label(Rows(DIM, [(range(n), vectors)]), compiled),
            "label_float16_on_disk": label(Rows(DIM, [(range(n), stored)]), compiled),
            "flat_scatter_whole": scatter(compiled, vectors, n),
            "flat_scatter_blocks": scatter(compiled, vectors, block),
        }
        return {"rows": n, "dim": DIM, "block": block, "seconds": alternate(competitors, rounds)}


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Labelling over the matrix product alone.")
    cases = {}
    for classes, examples, n in CASES:
        n, rounds = (4_000, 2) if args.quick else (n, 7)
        cases[f"{classes} x ({examples} + {examples})"] = measure(classes, examples, n, rounds)
    keep(args, "labelling", {"cases": cases})


if __name__ == "__main__":
    main()
