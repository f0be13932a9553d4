"""A text and an image in one class: how they may be scaled so that both count, on labelled sets.

    python -m benchmarks.mixed_examples --table cifar10-test.parquet --table clothing.parquet \
        --table sign-digits.parquet --fashion FOLDER --digits --cache FOLDER

Of each way to scale the two: the mean average precision of the class, the greater scaled score of each item ranking it,
beside the better of text and image alone, and the share of the best BEST items where the image's is the greater.
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
from clipsieve.index.calibrate import MAD_TO_SIGMA, Float64
from clipsieve.index.evaluate import average_precision
from clipsieve.types import Float32

SEED = 20_261_204
BEST, DRAWS, LEAST_RELEVANT, MOST_CLASSES = 500, 3, 20, 10
TAIL = 0.1
"""Share of a sample whose excesses the tail is fitted to."""


def background(cosines: Float64) -> Float64:
    """As calibration "background"."""
    middle = np.median(cosines)
    scaled: Float64 = (cosines - middle) / (MAD_TO_SIGMA * np.median(np.abs(cosines - middle)))
    return scaled


def standard(cosines: Float64) -> Float64:
    """Mean and standard deviation."""
    scaled: Float64 = (cosines - cosines.mean()) / cosines.std()
    return scaled


def quantile(cosines: Float64) -> Float64:
    """-log10 of the share that is no less, with a generalised Pareto tail by its moments beyond the best tenth."""
    order = np.sort(cosines)
    base = np.quantile(cosines, 1 - TAIL)
    above = order[order > base] - base
    mean, variance = above.mean(), above.var()
    shape = 0.5 * (1 - mean**2 / variance)
    scale = 0.5 * mean * (mean**2 / variance + 1)
    share = 1 - np.searchsorted(order, cosines, side="left") / len(order)
    excess = np.maximum(cosines - base, 0)
    inside = np.maximum(1 + shape * excess / scale, 1e-9)
    tail = TAIL * inside ** (-1 / shape)
    scaled: Float64 = -np.log10(np.maximum(np.where(cosines > base, tail, share), 1e-30))
    return scaled


def at_quantile(share: float) -> Callable[[Float64], Float64]:
    """0 at the median, 1 at the item of that share from above: as many items of either example pass 1."""

    def scaled(cosines: Float64) -> Float64:
        middle, high = np.quantile(cosines, [0.5, 1 - share])
        found: Float64 = (cosines - middle) / (high - middle)
        return found

    return scaled


SCALES: dict[str, Callable[[Float64], Float64]] = {
    "cosines": lambda cosines: cosines,
    "background": background,
    "standard scores": standard,
    "quantile, Pareto tail": quantile,
    "equal at the best tenth": at_quantile(0.1),
    "equal at the best hundredth": at_quantile(0.01),
}


def measure(found: NamedSet, texts: dict[str, Float32]) -> dict[str, dict[str, float]]:
    """Of each way, "precision" and "share"."""
    rng = np.random.default_rng(SEED)
    names = [n for n, right in found.classes.items() if right.sum() >= LEAST_RELEVANT]
    names = [names[i] for i in np.sort(rng.permutation(len(names))[:MOST_CLASSES])]
    figures: dict[str, list[tuple[float, float]]] = {}
    for name in names:
        for shown in rng.permutation(np.flatnonzero(found.classes[name]))[:DRAWS]:
            left = np.delete(np.arange(len(found.vectors)), shown)
            right = found.classes[name][left]
            text, image = (
                (found.vectors[left] @ example).astype(np.float64) for example in (texts[name], found.vectors[shown])
            )
            alone = average_precision(text, right), average_precision(image, right)
            for way, value in (("text alone", alone[0]), ("image alone", alone[1]), ("better alone", max(alone))):
                figures.setdefault(way, []).append((value, float("nan")))
            for way, scale in SCALES.items():
                both = scale(text), scale(image)
                for how, key in ((way, np.maximum(*both)), (f"{way}, summed", both[0] + both[1])):
                    best = np.argsort(-key)[:BEST]
                    decided = float((both[1][best] > both[0][best]).mean())
                    figures.setdefault(how, []).append((average_precision(key, right), decided))
    return {
        way: {"precision": statistics.mean(p for p, _ in of), "share": statistics.mean(s for _, s in of)}
        for way, of in figures.items()
    }


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description="A text and an image in one class.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    add_arguments(parser)
    args = parser.parse_args()
    reader, started = Reader(args), time.perf_counter()
    sets = {found.name: measure(found, reader.text_vectors(found)) for found in reader.sets()}
    keep(args, "mixed_examples", {"model": args.model, "sets": sets, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
