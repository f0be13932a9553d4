"""What the benchmarks share: competitors that alternate, raw measurements kept, ratios printed."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from clipsieve.types import ClassVectors, Float32, ModelId

RAW = Path(__file__).parent / "raw"
MODEL = ModelId("random", "0", "none")


def arguments(description: str) -> argparse.Namespace:
    """--quick (small sizes, to see that it runs) and --raw FOLDER, where the measurements go."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    return parser.parse_args()


def alternate(competitors: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turn, `rounds` times, after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    for i in range(rounds + 1):
        for name, run in competitors.items():
            start = time.perf_counter()
            run()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: Mapping[str, list[float]], over: str, under: str) -> float:
    """Median of `over` by median of `under`."""
    return statistics.median(seconds[over]) / statistics.median(seconds[under])


def say(
    what: str, value: float, most: float | None = None, least: float | None = None, aim: float | None = None
) -> None:
    """One line: the figure, its target and whether it is met."""
    goal = f"at most {most:g}" if most is not None else f"at least {least:g}" if least is not None else ""
    if aim is not None:
        goal += f", aim {aim:g}"
    met = (most is None or value <= most) and (least is None or value >= least)
    print(f"{what:78} {value:8.3f}   {goal}{('   met' if met else '   MISSED') if goal else ''}", flush=True)


def keep(args: argparse.Namespace, name: str, record: Mapping[str, object]) -> None:
    """Write the raw measurements with what they were taken on."""
    args.raw.mkdir(parents=True, exist_ok=True)
    machine = {"processors": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    whole = {"benchmark": name, "quick": args.quick, "machine": machine, **record}
    (args.raw / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")


def unit_rows(rng: np.random.Generator, n: int, dim: int = 512) -> Float32:
    """Random unit rows, float32 (n, dim)."""
    rows = rng.standard_normal((n, dim), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def clustered(rng: np.random.Generator, n: int, dim: int, centres: Float32, spread: float = 1.0) -> Float32:
    """Unit rows around the centres: a random one plus `spread` times a random direction."""
    rows = unit_rows(rng, n, dim)
    rows *= spread
    rows += centres[rng.integers(0, len(centres), n)]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def classes_of(rng: np.random.Generator, count: int, p: int, q: int, dim: int = 512) -> list[ClassVectors]:
    """`count` classes of p + q random examples."""
    return [ClassVectors(str(j), unit_rows(rng, p, dim), unit_rows(rng, q, dim), MODEL) for j in range(count)]
