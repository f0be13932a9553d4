"""Labelling: the rule and the winner for every row, over the matrix product alone.

    python -m benchmarks.labelling [--quick]

Rows are float32 in memory unless said. The floor is the product of all examples with all rows in the same blocks,
by numpy and by torch, the faster. The flat-scatter formulation is the older system's: positive columns gathered and
scattered to their class by an index array, maxima by `scatter_reduce`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.measuring import alternate, arguments, classes_of, keep, ratio, say, unit_rows
from clipsieve.index.rule import Compiled, compile_classes
from clipsieve.index.scan import Rows, block_rows, scan_label
from clipsieve.types import Float32

DIM = 512


def product_numpy(compiled: Compiled, vectors: Float32) -> Callable[[], None]:
    rows = block_rows(len(compiled.matrix))
    out = np.empty((len(compiled.matrix), rows), np.float32)

    def run() -> None:
        for start in range(0, len(vectors), rows):
            block = vectors[start : start + rows]
            np.matmul(compiled.matrix, block.T, out=out[:, : len(block)])

    return run


def product_torch(compiled: Compiled, vectors: Float32) -> Callable[[], None]:
    rows = block_rows(len(compiled.matrix))
    matrix, all_rows = torch.from_numpy(compiled.matrix), torch.from_numpy(vectors)
    out = torch.empty((len(matrix), rows))

    def run() -> None:
        for start in range(0, len(vectors), rows):
            block = all_rows[start : start + rows]
            torch.matmul(matrix, block.T, out=out[:, : len(block)]) if len(block) == rows else matrix @ block.T

    return run


def scatter(compiled: Compiled, vectors: Float32) -> Callable[[], None]:
    rows, classes = block_rows(len(compiled.matrix)), len(compiled.slices)
    matrix, all_rows = torch.from_numpy(compiled.matrix), torch.from_numpy(vectors)
    sides = []
    for side in (0, 1):
        columns = [i for pair in compiled.slices for i in range(pair[side].start, pair[side].stop)]
        owner = [j for j, pair in enumerate(compiled.slices) for _ in range(pair[side].start, pair[side].stop)]
        sides.append((torch.tensor(columns), torch.tensor(owner)))

    def run() -> None:
        for start in range(0, len(vectors), rows):
            scores = (1 + all_rows[start : start + rows] @ matrix.T) / 2  # (b, e)
            b, maxima = len(scores), []
            for columns, owner in sides:
                flat = scores[:, columns].flatten()
                index = (torch.arange(b)[:, None] * classes + owner).flatten()
                maxima.append(torch.zeros(b * classes).scatter_reduce(0, index, flat, "amax").view(b, classes))
            best, worst = maxima
            torch.where(best > worst, best, 1 - worst).argmax(dim=1)

    return run


def label(rows: Rows, compiled: Compiled) -> Callable[[], None]:
    def run() -> None:
        for _ in scan_label(rows, compiled):
            pass

    return run


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Labelling over the matrix product alone.")
    rng = np.random.default_rng(0)
    record: dict[str, object] = {}
    for classes, examples, n, most, aim in [(100, 10, 40_000, 1.25, 1.15), (10, 5, 200_000, 1.65, 1.4)]:
        n, rounds = (4_000, 2) if args.quick else (n, 7)
        vectors = unit_rows(rng, n, DIM)
        compiled = compile_classes(classes_of(rng, classes, examples, examples, DIM))
        with tempfile.TemporaryDirectory() as folder:
            np.save(Path(folder) / "rows.npy", vectors.astype(np.float16))
            stored = np.load(Path(folder) / "rows.npy", mmap_mode="r")
            seconds = alternate(
                {
                    "product_numpy": product_numpy(compiled, vectors),
                    "product_torch": product_torch(compiled, vectors),
                    "label": label(Rows(DIM, [(range(n), vectors)]), compiled),
                    "label_float16_on_disk": label(Rows(DIM, [(range(n), stored)]), compiled),
                    "flat_scatter": scatter(compiled, vectors),
                },
                rounds,
            )
        name = f"{classes} x ({examples} + {examples})"
        floor = min("product_numpy", "product_torch", key=lambda product: ratio(seconds, product, "label"))
        say(f"labelling {name} over the product ({floor})", ratio(seconds, "label", floor), most=most, aim=aim)
        say(f"flat scatter {name} over labelling", ratio(seconds, "flat_scatter", "label"), least=3)
        say(
            f"labelling {name} from float16 on disk over float32 in memory",
            ratio(seconds, "label_float16_on_disk", "label"),
        )
        record[name] = {"rows": n, "dim": DIM, "seconds": seconds}
    keep(args, "labelling", record)


if __name__ == "__main__":
    main()
