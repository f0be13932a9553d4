"""What the benchmarks share: competitors that alternate, raw measurements kept, made-up vectors.

What the measurements mean, and whether they reach their targets, is `report`'s to say.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from clipsieve.types import ClassVectors, Float32, ModelId

RAW = Path(__file__).parent / "raw"
MODEL = ModelId("random", "0", "none")
PAUSE = 0.05
"""Seconds between two competitors: the threads of one library's pool spin for a while after its last call (OpenBLAS's
for 25 ms), and would slow whoever comes next."""

PACKAGES = ("numpy", "torch", "faiss-cpu", "faiss-gpu", "faiss-gpu-cuvs", "pyarrow", "qdrant-edge-py", "clipsieve")


def arguments(description: str) -> argparse.Namespace:
    """--quick, --raw FOLDER and --scratch FOLDER, which becomes the folder of all temporary files."""
    args = parser_of(description).parse_args()
    set_scratch(args)
    return args


def parser_of(description: str) -> argparse.ArgumentParser:
    """The same for benchmarks that have options of their own; they call `set_scratch` with what was parsed."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    parser.add_argument("--scratch", help="folder for temporary files (2 GB for memory), by default the system's")
    return parser


def set_scratch(args: argparse.Namespace) -> None:
    """Let --scratch be the folder of all temporary files."""
    if args.scratch:
        tempfile.tempdir = args.scratch


def alternate(competitors: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, in turn, `rounds` times, after one round that does not count. Every round starts elsewhere."""
    seconds: dict[str, list[float]] = {name: [] for name in competitors}
    names = list(competitors)
    for i in range(rounds + 1):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            start = time.perf_counter()
            competitors[name]()
            if i:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def say(what: str, value: float, most: float | None = None, least: float | None = None) -> None:
    """One line: a figure as soon as it is known, its target and whether it is met."""
    goal = f"at most {most:g}" if most is not None else f"at least {least:g}" if least is not None else ""
    met = (most is None or value <= most) and (least is None or value >= least)
    print(f"{what:78} {value:8.3f}   {goal}{('   met' if met else '   MISSED') if goal else ''}", flush=True)


def keep(args: argparse.Namespace, name: str, record: Mapping[str, object]) -> None:
    """Write the raw measurements with what they were taken on, and print what `report` makes of them."""
    from benchmarks import report

    args.raw.mkdir(parents=True, exist_ok=True)
    whole = {"benchmark": name, "quick": args.quick, "machine": machine(), **record}
    (args.raw / f"{name}.json").write_text(json.dumps(whole, indent=1) + "\n")
    print(report.section(name, whole), flush=True)


def machine() -> dict[str, object]:
    """What the measurements depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "architecture": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": versions,
        "load_after": [round(load, 2) for load in os.getloadavg()],
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def cpu_model() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def unit(rows: Float32) -> Float32:
    """The rows at length 1, in place."""
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def unit_rows(rng: np.random.Generator, n: int, dim: int = 512) -> Float32:
    """Random unit rows, float32 (n, dim)."""
    return unit(rng.standard_normal((n, dim), np.float32))


def clustered(rng: np.random.Generator, n: int, dim: int, centres: Float32, spread: float = 1.0) -> Float32:
    """Unit rows around the centres: a random one plus `spread` times a random direction."""
    rows = unit_rows(rng, n, dim)
    rows *= spread
    rows += centres[rng.integers(0, len(centres), n)]
    return unit(rows)


def classes_of(rng: np.random.Generator, count: int, p: int, q: int, dim: int = 512) -> list[ClassVectors]:
    """`count` classes of p + q random examples."""
    return [ClassVectors(str(j), unit_rows(rng, p, dim), unit_rows(rng, q, dim), MODEL) for j in range(count)]
