"""A meta class from an IVF index, over plain faiss searches of its positives in the same index.

    python -m benchmarks.search [--quick]

400,000 x 512 clustered unit rows, IVF1024 over flat, 5 positives and 5 negatives, k = 100. The negatives are placed so
that few, half, 90% or 99% of the candidates (the positives' 2k nearest) are rejected. Overlap is with the exact scan.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.measuring import MODEL, alternate, arguments, clustered, keep, unit, unit_rows
from clipsieve.index.faiss_index import FaissIndex, load_faiss, measure_recall, train_and_build, tune
from clipsieve.index.flat import FlatIndex
from clipsieve.index.query import Answer
from clipsieve.index.query import search as ask
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.types import ClassVectors, Float32

DIM, K, EXAMPLES = 512, 100, 5
CLUSTERS, LISTS, EFFORT, RECALL = 100, 1024, 64, 0.95
SHARES = {"few": 0.0, "50%": 0.5, "90%": 0.9, "99%": 0.99}


def make_rows(n: int, clusters: int = CLUSTERS) -> tuple[Float32, Float32]:
    """The centres, float32 (clusters, d), and n rows around them."""
    rng = np.random.default_rng(0)
    centres = unit_rows(rng, clusters, DIM)
    return centres, clustered(rng, n, DIM, centres)


def rejected(vectors: Float32, positive: Float32, negative: Float32) -> float:
    """Which share of the rows the negatives reject."""
    return float(((vectors @ negative.T).max(axis=1) >= (vectors @ positive.T).max(axis=1)).mean())


def make_question(
    rng: np.random.Generator, centres: Float32, near: Callable[[Float32], Float32], share: float
) -> tuple[Question, float]:
    """A question about one cluster that rejects about `share` of its candidates, and the share that it does reject.

    near  positives -> the vectors of their candidates

    Positives lie beside the centre of the cluster. A negative at the centre rejects nearly all of the cluster, one in a
    random direction next to nothing; in between, the mixture that rejects the share is found by bisection.
    """
    centre = centres[int(rng.integers(len(centres)))]
    positive = clustered(rng, EXAMPLES, DIM, centre[None], 0.5)
    candidates, far = near(positive), unit_rows(rng, EXAMPLES, DIM)

    def negative(weight: float) -> Float32:
        return unit((weight * centre + (1 - weight) * far).astype(np.float32))

    low, high = 0.0, 1.0
    while share and high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if rejected(candidates, positive, negative(middle)) >= share else (middle, high)
    chosen = negative(high if share else 0.0)
    question = Question(ClassVectors("cluster", positive, chosen, MODEL), K)
    return question, rejected(candidates, positive, chosen)


def make_index(rows: Rows, centres: Float32, lists: int, effort: int) -> tuple[FaissIndex, float]:
    """An IVF with that effort, or more if it takes more to find RECALL of what single queries ask for; its recall."""
    index = dataclasses.replace(train_and_build(f"IVF{lists},Flat", rows), effort=effort)
    queries = clustered(np.random.default_rng(1), 200, DIM, centres, 0.5)
    truth = FlatIndex(rows).search(queries, K)
    recall = measure_recall(index.search(queries, K), truth)
    if recall < RECALL:
        index = tune(index, queries, truth, RECALL)
        recall = index.recall or 0.0
    return index, recall


def overlap(found: Sequence[Answer], exact: Sequence[Answer]) -> float:
    """Which share of the exact answers was found."""
    shares = [
        len(np.intersect1d(a.ranked.ids, b.ranked.ids)) / max(1, len(b.ranked.ids))
        for a, b in zip(found, exact, strict=True)
    ]
    return statistics.mean(shares)


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Meta-class search over plain search.")
    n, lists, effort, asked, rounds = (20_000, 64, 8, 3, 2) if args.quick else (400_000, LISTS, EFFORT, 10, 7)
    centres, vectors = make_rows(n, CLUSTERS // 10 if args.quick else CLUSTERS)
    rows = Rows(DIM, [(range(n), vectors)])
    index, recall = make_index(rows, centres, lists, effort)
    params = load_faiss().SearchParametersIVF(nprobe=index.effort)

    def near(positive: Float32) -> Float32:
        found = np.unique(index.search(positive, 2 * K).ids)
        return rows.take(found[found >= 0])

    rng = np.random.default_rng(2)
    cases = {}
    for name, share in SHARES.items():
        made = [make_question(rng, centres, near, share) for _ in range(asked)]
        questions = [question for question, _ in made]

        def plain(questions: list[Question] = questions) -> None:
            for q in questions:
                index.index.search(q.vectors.positive, K, params=params)

        def search(questions: list[Question] = questions) -> list[Answer]:
            return [ask(q, rows, index, recall) for q in questions]

        def scan(questions: list[Question] = questions) -> list[Answer]:
            return [ask(q, rows) for q in questions]

        seconds = alternate({"plain": plain, "search": search, "scan": scan}, rounds)
        found = search()
        cases[name] = {
            "rejected": statistics.mean(reached for _, reached in made),
            "questions": asked,
            "seconds": seconds,
            "overlap": overlap(found, scan()),
            "scanned": sum(answer.scanned for answer in found),
            "stages_ms": [dict(answer.timings_ms) for answer in found],
        }
    record = {"rows": n, "dim": DIM, "k": K, "lists": lists, "nprobe": index.effort, "recall": recall}
    keep(args, "search", {**record, "cases": cases})


if __name__ == "__main__":
    main()
