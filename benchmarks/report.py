"""The ratios that raw measurements amount to, beside their targets.

    python -m benchmarks.report [--raw FOLDER]

Ratios are of medians within one run, whose competitors alternated; times of two machines, or of two runs, are never
compared. A target at quick sizes means nothing, and is not judged.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import figures_of_collections, figures_of_services
from benchmarks.figure import Figure, Record
from benchmarks.measuring import RAW

FIGURES: dict[str, Callable[[Record], Iterable[Figure]]] = {
    "labelling": figures_of_collections.labelling,
    "exact_scan": figures_of_collections.exact_scan,
    "search": figures_of_collections.search,
    "qdrant": figures_of_collections.qdrant,
    "large_answers": figures_of_collections.large_answers,
    "memory": figures_of_collections.memory,
    "pipeline": figures_of_services.pipeline,
    "regions": figures_of_services.regions,
    "growing": figures_of_collections.growing,
    "batcher": figures_of_services.batcher,
    "serving": figures_of_services.serving,
    "suppress": figures_of_collections.suppress,
    "learning": figures_of_collections.learning,
    "triton": figures_of_services.triton,
    "embedding": figures_of_services.embedding,
    "page": figures_of_services.page,
    "recall": figures_of_collections.recall,
    "negatives": figures_of_collections.negatives,
    "thresholds": figures_of_collections.thresholds,
    "mixed_examples": figures_of_collections.mixed_examples,
    "onnx": figures_of_services.onnx,
}


def section(name: str, record: Record) -> str:
    """One benchmark's table, as Markdown."""
    lines = [f"### {name}{' (quick: too small to judge)' if record['quick'] else ''}", ""]
    if facts := record.get("machine"):
        lines += [f"{facts['cpu']}, {facts['cores']} cores, load {facts['load_after'][0]}, {facts['when'][:10]}", ""]
    lines += ["| figure | value | target | |", "|---|---|---|---|"]
    for figure in FIGURES[name](record):
        value = figure.value if isinstance(figure.value, str) else f"{figure.value:.4g}"
        verdict = "" if figure.met is None or record["quick"] else "met" if figure.met else "MISSED"
        lines.append(f"| {figure.what} | {value} | {figure.target} | {verdict} |")
    return "\n".join(lines) + "\n"


def report(raw: Path, names: Sequence[str] = tuple(FIGURES)) -> str:
    """The tables of these benchmarks, as far as they were measured."""
    parts = []
    for name in names:
        path = raw / f"{name}.json"
        if not path.exists():
            parts.append(f"### {name}\n\nnot measured yet\n")
            continue
        try:
            parts.append(section(name, json.loads(path.read_text())))
        except KeyError as missing:
            parts.append(f"### {name}\n\n{path.name} was measured by another version ({missing} is not in it)\n")
    return "\n".join(parts)


def main() -> None:
    """Print all of them."""
    parser = argparse.ArgumentParser(description="The ratios of the last run, beside their targets.")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    print(report(parser.parse_args().raw))


if __name__ == "__main__":
    main()
