"""How good a first line is: F1 of filters at lines that are proposed, against the best line, on labelled sets.

    python -m benchmarks.thresholds --table cifar10-test.parquet --table clothing.parquet --table sign-digits.parquet \
        --fashion FOLDER --digits --cache FOLDER

A class is asked for by a text or by three images; all items but the examples are judged by P on levels. `before` is the
line that the page drew until there was this: score 3, z = 3.09.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.measuring import RAW, keep
from benchmarks.named_sets import NamedSet, Reader, add_arguments
from benchmarks.negatives import LEAST_RELEVANT, MODEL, SHOTS, best_line, f1, levels
from clipsieve.index.calibrate import Float64, tail_level
from clipsieve.index.first_line import first_line
from clipsieve.types import ClassVectors, Float32

SEED = 20_261_203
MOST_CLASSES = 40
BEYOND = "beyond"
"""Items not of the class over a score of 3, as a multiple of the one in a thousand of a normal tail."""

LINES: dict[str, Callable[[Float64], float]] = {
    "first_line": first_line,
    "before": lambda z: 3.09,
    "z = 2": lambda z: 2.0,
    "top 10%": lambda z: float(np.quantile(z, 0.9)),
    "top 5%": lambda z: float(np.quantile(z, 0.95)),
}


def measure(found: NamedSet, texts: dict[str, Float32]) -> dict[str, dict[str, float]]:
    """By kind of example, the mean F1 at the best line and at each proposed one."""
    rng = np.random.default_rng(SEED)
    names = [n for n, right in found.classes.items() if right.sum() >= LEAST_RELEVANT + SHOTS]
    names = [names[i] for i in np.sort(rng.permutation(len(names))[:MOST_CLASSES])]
    none = np.zeros((0, found.vectors.shape[1]), np.float32)
    result: dict[str, dict[str, float]] = {}
    for kind in ("text", "images"):
        figures: dict[str, list[float]] = {}
        for name in names:
            right = found.classes[name]
            shown = rng.permutation(np.flatnonzero(right))[:SHOTS] if kind == "images" else np.zeros(0, np.int64)
            positive = found.vectors[shown] if kind == "images" else texts[name][None]
            left = np.setdiff1d(np.arange(len(right)), shown)
            scores = levels(found, ClassVectors(name, positive, none, MODEL), True)[0][left]
            lines = {"best": best_line(scores, right[left])} | {n: line(scores) for n, line in LINES.items()}
            for line, at in lines.items():
                figures.setdefault(line, []).append(f1(scores >= at, right[left]))
            beyond = float((scores[~right[left]] >= tail_level(3)).mean()) / 1e-3
            figures.setdefault(BEYOND, []).append(beyond)
        result[kind] = {line: statistics.mean(values) for line, values in figures.items()}
    return result


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description="First lines.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    add_arguments(parser)
    args = parser.parse_args()
    reader, started = Reader(args), time.perf_counter()
    sets = {found.name: measure(found, reader.text_vectors(found)) for found in reader.sets()}
    keep(args, "thresholds", {"model": args.model, "sets": sets, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
