"""What negative examples do to a ranking and to a filter: the hard veto beside soft ones, on labelled sets.

    python -m benchmarks.negatives --table cifar10-test.parquet --table clothing.parquet --table sign-digits.parquet \
        --fashion FOLDER --digits --cache FOLDER

A case is a class A asked for with a class B as its negative, by one text each or by three images each. Every item of A
is right, and in scenes, which may show both, those of A that do not show B. Of each way to let negatives count: the
mean gain in average precision over the positives alone, and the share of cases that it takes more than HARM from, all
of it on cosines and on levels (calibration "background"). Filters are compared at the line that is best for P alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.measuring import RAW, keep
from benchmarks.named_sets import NamedSet, Reader, add_arguments
from clipsieve.index.calibrate import Background, Float64
from clipsieve.index.evaluate import Bools, average_precision
from clipsieve.index.rule import compile_classes, maxima, rank_score, settle
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

SEED = 20_261_202
HARM = 0.02
SHOTS, DRAWS = 3, 2
MOST_CASES = 150
LEAST_RELEVANT = 10
BACKGROUND = 10_000

MODEL = ModelId("benchmark", "0", "none")

Key = Callable[[Float64, Float64], Float64]


def _less(factor: float, offset: float = 0.0) -> Key:
    return lambda best, worst: best - factor * np.maximum(0, worst - best + offset)


WAYS: dict[str, Key] = {
    "hard: P if P > N, else behind all": lambda best, worst: rank_score(
        best.astype(np.float32), worst.astype(np.float32)
    ),
    "P - max(0, N - P)": _less(1),
    "P - 0.5 max(0, N - P)": _less(0.5),
    "P - 0.25 max(0, N - P)": _less(0.25),
    "P - 2 max(0, N - P)": _less(2),
    "P - 0.5 N": lambda best, worst: best - 0.5 * worst,
    "P - N": lambda best, worst: best - worst,
}


def cases(found: NamedSet, rng: np.random.Generator) -> Iterator[tuple[str, str, Bools]]:
    """Pairs (A, B) and which items are right."""
    names = [n for n, right in found.classes.items() if right.sum() >= LEAST_RELEVANT + SHOTS * DRAWS]
    pairs = [(a, b) for a in names for b in names if a != b]
    for i in np.sort(rng.permutation(len(pairs))[:MOST_CASES]):
        a, b = pairs[i]
        right = found.classes[a] & ~found.classes[b]
        if right.sum() >= LEAST_RELEVANT:
            yield a, b, right


def look_alikes(found: NamedSet) -> set[tuple[str, str]]:
    """Each class with the one whose items' mean is nearest to its own."""
    names = list(found.classes)
    means = np.stack([found.vectors[found.classes[n]].mean(axis=0) for n in names])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    near = means @ means.T
    np.fill_diagonal(near, -2)
    return {(names[i], names[int(j)]) for i, j in enumerate(near.argmax(axis=1))}


def levels(found: NamedSet, asked: ClassVectors, scaled: bool) -> tuple[Float64, Float64]:
    """P and N of every item, as the rule has them."""
    scale = None
    if scaled:
        drawn = np.random.default_rng(0).permutation(len(found.vectors))[:BACKGROUND]
        scale = Background(found.vectors[drawn]).scale(asked)
    compiled = compile_classes([asked], [scale])
    best, worst = maxima(compiled, settle(compiled, found.vectors))
    return best[0].astype(np.float64), worst[0].astype(np.float64)


def judge(best: Float64, worst: Float64, right: Bools) -> dict[str, float]:
    """Average precision of the positives alone ("alone") and of every way; F1 of filters."""
    figures = {"alone": average_precision(best, right)}
    for name, key in WAYS.items():
        figures[name] = average_precision(key(best, worst), right)
    line = best_line(best, right)
    figures["F1 alone"] = f1(best >= line, right)
    figures["F1 hard"] = f1((best >= line) & (best > worst), right)
    figures["F1 soft"] = f1(best - np.maximum(0, worst - best) >= line, right)
    figures["F1 rule alone"] = f1(best > worst, right)
    return figures


def f1(kept: Bools, right: Bools) -> float:
    """Of a filter."""
    return float(2 * (kept & right).sum() / max(1, kept.sum() + right.sum()))


def best_line(scores: Float64, right: Bools) -> float:
    """The threshold of the greatest F1."""
    order = np.argsort(-scores, kind="stable")
    hits = right[order].cumsum()
    return float(scores[order[np.argmax(2 * hits / (np.arange(1, len(hits) + 1) + right.sum()))]])


def examples(found: NamedSet, name: str, but: Bools, rng: np.random.Generator) -> Int64:
    """SHOTS random items of a class."""
    drawn: Int64 = rng.permutation(np.flatnonzero(found.classes[name] & but))[:SHOTS]
    return drawn


def measure(found: NamedSet, texts: dict[str, Float32]) -> dict[str, list[dict[str, object]]]:
    """By kind of example and scale, the figures of each case."""
    rng = np.random.default_rng(SEED)
    alike = look_alikes(found)
    result: dict[str, list[dict[str, object]]] = {}
    for a, b, right in cases(found, rng):
        said = {"case": f"{a}, not {b}", "alike": (a, b) in alike}
        asked = ClassVectors(a, texts[a][None], texts[b][None], MODEL)
        for scaled, kind in ((False, "text, cosines"), (True, "text, levels")):
            result.setdefault(kind, []).append(said | judge(*levels(found, asked, scaled), right))
        for _ in range(DRAWS):
            positive, negative = examples(found, a, ~found.classes[b], rng), examples(found, b, ~found.classes[a], rng)
            asked = ClassVectors(a, found.vectors[positive], found.vectors[negative], MODEL)
            left = np.setdiff1d(np.arange(len(right)), np.concatenate([positive, negative]))
            for scaled, kind in ((False, "images, cosines"), (True, "images, levels")):
                best, worst = levels(found, asked, scaled)
                result.setdefault(kind, []).append(said | judge(best[left], worst[left], right[left]))
    return result


def summary(figures: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Of each way: mean gain, share harmed, worst, and the mean gain on look-alikes."""
    found = {}
    for way in WAYS:
        gains = [float(f[way]) - float(f["alone"]) for f in figures]  # type: ignore[arg-type]
        alike = [gain for gain, f in zip(gains, figures, strict=True) if f["alike"]]
        found[way] = {
            "gain": statistics.mean(gains),
            "harmed": sum(gain < -HARM for gain in gains) / len(gains),
            "helped": sum(gain > HARM for gain in gains) / len(gains),
            "worst": min(gains),
            "alike": statistics.mean(alike) if alike else float("nan"),
            "alike_harmed": sum(gain < -HARM for gain in alike) / max(1, len(alike)),
        }
    return found


def filters(figures: list[dict[str, object]]) -> dict[str, tuple[float, float]]:
    """Of each filter the mean F1, and the share of cases in which it is more than HARM under that of P alone."""
    found = {}
    for name in (n for n in figures[0] if n.startswith("F1")):
        values = [(float(f[name]), float(f["F1 alone"])) for f in figures]  # type: ignore[arg-type]
        found[name] = (
            statistics.mean(own for own, _ in values),
            sum(own < alone - HARM for own, alone in values) / len(values),
        )
    return found


def show(of: dict[str, dict[str, float]], figures: list[dict[str, object]]) -> None:
    """A line for each way and filter."""
    for name, (mean, harmed) in filters(figures).items():
        print(f"  {name:36} {mean:.3f} harmed {harmed:4.0%}")
    for way, f in of.items():
        print(
            f"  {way:36} gain {f['gain']:+.3f} harmed {f['harmed']:4.0%} helped {f['helped']:4.0%} "
            f"worst {f['worst']:+.3f}   look-alikes {f['alike']:+.3f} harmed {f['alike_harmed']:4.0%}",
            flush=True,
        )


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description="What negatives do.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    add_arguments(parser)
    args = parser.parse_args()
    reader, started = Reader(args), time.perf_counter()
    sets = {}
    for found in reader.sets():
        embedded = reader.text_vectors(found)
        figures = measure(found, embedded)
        summaries = {kind: summary(of) for kind, of in figures.items()}
        sets[found.name] = {kind: {"ways": of, "filters": filters(figures[kind])} for kind, of in summaries.items()}
        for kind, of in figures.items():
            alone = statistics.mean(float(f["alone"]) for f in of)  # type: ignore[arg-type]
            print(f"{found.name}, {kind}: {len(of)} cases, positives alone {alone:.3f}", flush=True)
            show(summaries[kind], of)
    keep(args, "negatives", {"model": args.model, "sets": sets, "seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
