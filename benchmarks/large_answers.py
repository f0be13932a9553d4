"""Large answers: 100,000 hits from an IVF index, and the metadata of a million rows.

    python -m benchmarks.large_answers [--quick]

Hits are compared with plain faiss in the same index at the same depth, rows with reading the columns in order.
"""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measuring import MODEL, alternate, arguments, clustered, keep, unit_rows
from clipsieve.index.faiss_index import load_faiss, train_and_build
from clipsieve.index.metadata import SqliteMetadata
from clipsieve.index.query import search
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.manifest import Manifest
from clipsieve.shards import open_manifest
from clipsieve.types import ClassVectors, Embeddings
from clipsieve.writer import open_writer

DIM = 512


def make_collection(folder: Path, rows: int) -> None:
    """Shards of 100,000 rows with the columns that image lists have; their vectors do not matter here."""
    rng = np.random.default_rng(0)
    with open_writer(folder, Manifest(model=MODEL, dim=8)) as writer:
        for start in range(0, rows, 100_000):
            n = min(100_000, rows - start)
            numbers = range(start, start + n)
            writer.append(
                Embeddings(unit_rows(rng, n, 8), tuple(f"{i % 1000:03}/{i}.jpg" for i in numbers), MODEL),
                captions=[f"caption number {i} of this list" for i in numbers],
                columns={"url": [f"https://images.example/{i}.jpg" for i in numbers], "width": list(numbers)},
            )


def many_hits(n: int, lists: int, k: int, rounds: int) -> dict[str, object]:
    """Seconds for the best k of n rows: faiss alone, the answer, a scan."""
    rng = np.random.default_rng(0)
    centres = unit_rows(rng, lists, DIM)
    vectors = clustered(rng, n, DIM, centres)
    rows = Rows(DIM, [(range(n), vectors)])
    index = dataclasses.replace(train_and_build(f"IVF{lists},Flat", rows), effort=lists // 2)
    params = load_faiss().SearchParametersIVF(nprobe=index.effort)
    one = clustered(rng, 1, DIM, centres, 0.5)
    asked = Question(ClassVectors("q", one, np.zeros((0, DIM), np.float32), MODEL), k)
    seconds = alternate(
        {
            "plain": lambda: index.index.search(one, k, params=params),
            "search": lambda: search(asked, rows, index, 0.95),
            "scan": lambda: search(asked, rows),
        },
        rounds,
    )
    scanned = search(asked, rows, index, 0.95).scanned
    return {"rows": n, "lists": lists, "k": k, "scanned": scanned, "hits": seconds}


def main() -> None:
    """Measure, print, keep."""
    args = arguments("Large answers over their floors.")
    n, lists, k, count, rounds = (20_000, 64, 2_000, 5_000, 2) if args.quick else (400_000, 1024, 100_000, 10**6, 5)
    record = many_hits(n, lists, k, rounds)
    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_collection(folder / "c", count)
        manifest = open_manifest(folder / "c")
        store = SqliteMetadata(folder / "c", manifest)
        ids = rng.permutation(count).astype(np.int64)
        files = sorted((folder / "c" / "metadata").glob("*.parquet"))
        fetched = alternate(
            {
                "columns_in_order": lambda: [pq.read_table(path) for path in files],
                "rows_in_order": lambda: store.table(np.arange(count)),
                "rows_shuffled": lambda: store.table(ids),
            },
            rounds,
        )
        store.close()
    keep(args, "large_answers", {**record, "metadata_rows": count, "metadata": fetched})


if __name__ == "__main__":
    main()
