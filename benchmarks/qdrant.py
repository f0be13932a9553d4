"""Qdrant's `best_score` beside search: the same rows, the same questions.

    python -m pip install qdrant-edge-py
    python -m benchmarks.qdrant [--quick]

qdrant-edge-py is the server's engine in process. Its exact query and its HNSW at two efforts answer the questions of
`search` over the same 400,000 rows; building its graph takes many minutes. Without the package nothing is measured, and
the report says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measuring import alternate, arguments, keep
from benchmarks.search import CLUSTERS, DIM, EFFORT, LISTS, SHARES, K, make_index, make_question, make_rows
from clipsieve.index.query import search as ask
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.types import Float32, Int64

BATCH = 2_000
EFFORTS = (64, 256)


class Shard:
    """The rows in a Qdrant shard, with a graph."""

    def __init__(self, folder: str, vectors: Float32) -> None:
        self.q: Any = importlib.import_module("qdrant_edge")
        q = self.q
        graph = q.HnswIndexConfig(m=16, ef_construct=100, full_scan_threshold=10)
        params = q.EdgeVectorParams(size=vectors.shape[1], distance=q.Distance.Cosine)
        segments = q.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=10)
        config = q.EdgeConfig(vectors=params, hnsw_config=graph, optimizers=segments, wal_enabled=False)
        self.shard = q.EdgeShard.create(folder, config)
        for start in range(0, len(vectors), BATCH):
            block = vectors[start : start + BATCH].tolist()
            points = [q.Point(start + i, row) for i, row in enumerate(block)]
            self.shard.update(q.UpdateOperation.upsert_points(points))
        while self.shard.optimize():
            pass
        self.indexed = int(self.shard.info().indexed_vectors_count)

    def request(self, question: Question, effort: int | None) -> Any:
        """`best_score` by graph with that effort, or exact."""
        q = self.q
        positive, negative = question.vectors.positive.tolist(), question.vectors.negative.tolist()
        query = q.Query.RecommendBestScore(q.RecommendQuery(positive, negative))
        return q.QueryRequest(limit=K, query=query, params=q.SearchParams(hnsw_ef=effort, exact=effort is None))

    def answer(self, request: Any) -> Int64:
        """Ids of the accepted: rejected items have scores below 0."""
        hits = self.shard.query(request)
        return np.array([hit.id for hit in hits if hit.score > 0], np.int64)


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Qdrant's best_score beside search.")
    if importlib.util.find_spec("qdrant_edge") is None:
        keep(args, "qdrant", {"installed": False})
        return
    n, lists, effort, asked, rounds = (5_000, 64, 8, 3, 2) if args.quick else (400_000, LISTS, EFFORT, 10, 5)
    centres, vectors = make_rows(n, CLUSTERS // 10 if args.quick else CLUSTERS)
    rows = Rows(DIM, [(range(n), vectors)])
    index, recall = make_index(rows, centres, lists, effort)

    def near(positive: Float32) -> Float32:
        found = np.unique(index.search(positive, 2 * K).ids)
        return rows.take(found[found >= 0])

    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        shard = Shard(folder, vectors)
        record = {"rows": n, "dim": DIM, "k": K, "recall": recall, "built_s": time.perf_counter() - start}
        record |= {"installed": True, "indexed_rows": shard.indexed}
        rng = np.random.default_rng(2)
        cases = {}
        for name, share in SHARES.items():
            questions = [make_question(rng, centres, near, share)[0] for _ in range(asked)]
            exact = [ask(question, rows).ranked.ids for question in questions]
            rivals: dict[str, Callable[[], list[Int64]]] = {
                "search": lambda questions=questions: [ask(q, rows, index, recall).ranked.ids for q in questions]  # type: ignore[misc]
            }
            for ef in (None, *EFFORTS):
                requests = [shard.request(question, ef) for question in questions]
                rival = "best_score exact" if ef is None else f"best_score HNSW, ef {ef}"
                rivals[rival] = partial(lambda requests: [shard.answer(r) for r in requests], requests)
            shares = {
                rival: statistics.mean(
                    len(np.intersect1d(a, b)) / max(1, len(b)) for a, b in zip(run(), exact, strict=True)
                )
                for rival, run in rivals.items()
            }
            cases[name] = {"questions": asked, "overlap": shares, "seconds": alternate(rivals, rounds)}
    keep(args, "qdrant", {**record, "cases": cases})


if __name__ == "__main__":
    main()
