"""A meta class from an IVF index, over plain faiss searches of its positives in the same index.

    python -m benchmarks.search [--quick]

400,000 x 512 clustered unit rows, IVF1024 over flat, 5 positives and 5 negatives, k = 100. The negatives are placed so
that few, 50%, 90% or 99% of the positives' neighbours are rejected. Overlap is with the exact scan. Where the package
qdrant-edge-py is installed, its `best_score` query runs on the same rows beside it.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.measuring import MODEL, alternate, arguments, clustered, keep, ratio, say, unit_rows
from clipsieve.index.faiss_index import FaissIndex, measure_recall, train_and_build
from clipsieve.index.flat import FlatIndex
from clipsieve.index.query import Answer, search
from clipsieve.index.rule import Question
from clipsieve.index.scan import Rows
from clipsieve.types import ClassVectors, Float32

DIM, K = 512, 100


def question(rng: np.random.Generator, vectors: Float32, centres: Float32, share: float) -> ClassVectors:
    """Five positives near one centre; negatives that reject about `share` of what is near them.

    A negative at angle 0 from a positive rejects everything; one in a far cluster nothing. In between the share is
    found by bisection over the mixture, on the positives' own neighbours.
    """
    centre = centres[int(rng.integers(len(centres)))]
    positive = clustered(rng, 5, DIM, centre[None], 0.5)
    near = np.argsort(-(vectors @ positive.T).max(axis=1))[:2000]
    far = unit_rows(rng, 5, DIM)
    low, high = 0.0, 2.0
    for _ in range(24):
        weight = (low + high) / 2
        negative = weight * clustered(np.random.default_rng(1), 5, DIM, centre[None], 0.5) + (2 - weight) * far
        negative /= np.linalg.norm(negative, axis=1, keepdims=True)
        rejected = float(((vectors[near] @ negative.T).max(axis=1) >= (vectors[near] @ positive.T).max(axis=1)).mean())
        low, high = (weight, high) if rejected < share else (low, weight)
    return ClassVectors("q", positive, np.ascontiguousarray(negative, np.float32), MODEL)


def ask(questions: list[ClassVectors], rows: Rows, index: FaissIndex | None, recall: float | None) -> list[Answer]:
    return [search(Question(c, K), rows, index, recall) for c in questions]


def plain(questions: list[ClassVectors], index: FaissIndex) -> None:
    for c in questions:
        index.search(c.positive, K)


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Meta-class search over plain search.")
    rng = np.random.default_rng(0)
    n, lists, asked, rounds = (20_000, 64, 3, 2) if args.quick else (400_000, 1024, 10, 5)
    centres = unit_rows(rng, lists, DIM)
    vectors = clustered(rng, n, DIM, centres)
    rows = Rows(DIM, [(range(n), vectors)])
    index = dataclasses.replace(train_and_build(f"IVF{lists},Flat", rows), effort=lists // 16)
    held_out = clustered(rng, 200, DIM, centres, 0.5)
    recall = measure_recall(index.search(held_out, K), FlatIndex(rows).search(held_out, K))
    print(f"{n} x {DIM}, IVF{lists}, nprobe {index.effort}, measured recall {recall:.3f}")
    record: dict[str, object] = {"rows": n, "nprobe": index.effort, "recall": recall}
    for share in (0.0, 0.5, 0.9, 0.99):
        questions = [question(rng, vectors, centres, share) for _ in range(asked)]
        competitors: dict[str, Callable[[], object]] = {
            "plain": partial(plain, questions, index),
            "search": partial(ask, questions, rows, index, recall),
        }
        seconds = alternate(competitors, rounds)
        exact, found = ask(questions, rows, None, None), ask(questions, rows, index, recall)
        overlap = statistics.mean(
            len(np.intersect1d(a.ranked.ids, b.ranked.ids)) / max(1, len(b.ranked.ids))
            for a, b in zip(found, exact, strict=True)
        )
        scanned = sum(answer.scanned for answer in found)
        name = f"(5, 5), k = {K}, {share:.0%} rejected"
        say(f"{name}: over plain search", ratio(seconds, "search", "plain"), most=1.25 if share == 0 else None)
        say(f"{name}: overlap with the exact scan ({scanned} of {asked} ended in a scan)", overlap)
        record[name] = {"seconds": seconds, "overlap": overlap, "scanned": scanned, "asked": asked}
    if importlib.util.find_spec("qdrant_edge") is None:
        print("qdrant-edge-py is not installed: no comparison with its best_score")
    keep(args, "search", record)


if __name__ == "__main__":
    main()
