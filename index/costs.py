"""What a collection takes on disk, what its questions pay for that an index would spare them, and what is worth doing.

Where the figures of the rules come from is in docs/benchmarks.md, `growing`.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clipsieve.index.coarse import make_coarse
from clipsieve.index.flat import FlatIndex
from clipsieve.index.kinds import OLD_K
from clipsieve.index.measure import RECALL_AT
from clipsieve.index.plan import EXACT_ROWS, FLAT_ROWS
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.index.screen import Screen, can_look
from clipsieve.index.stored import FLAT, rows_of
from clipsieve.manifest import Manifest, Shard
from clipsieve.protocols import VectorIndex
from clipsieve.types import ClassVectors, Float32, Int64, ModelId

TIMED = 65_536
"""Rows that are read to time the reading of all: more than the processor's cache holds."""

POSITIVES = 5
"""Of the question that is timed."""

SAMPLE = 20_000
"""Rows that are read at least, where there are so many, to time the reading of all."""

NOTICED_MS = 20.0
"""What reading beside an index may cost a question; a hundred such pay for extending an index of 200,000 rows."""

REMOVED_SHARE = 0.2
"""From which compacting is worth it: it writes all that is left anew, and gains space; searches lose nothing by it."""

MANY_SHARDS = 1_000
"""So many more than need be cost a fifth of a second whenever the collection is opened."""

SHARD_ROWS = 100_000

_KINDS = {
    "vectors": ("img_emb", "text_emb"),
    "metadata": ("metadata", "skipped"),
    "regions": ("region_emb", "regions", "crop_emb"),
    "thumbs": ("thumbs",),
}


def sizes(manifest: Manifest, cache: Path) -> dict[str, int]:
    """Bytes on disk by kind: vectors, metadata, regions, thumbs, indices, cache; `cache` is its file."""
    files = [(role, file.size) for shard in manifest.shards for role, file in shard.files.items()]
    found = {kind: sum(size for role, size in files if role in roles) for kind, roles in _KINDS.items()}
    found["indices"] = sum(file.size for index in manifest.indices for file in index.files.values())
    found["cache"] = cache.stat().st_size if cache.exists() else 0
    return found


def question_ms(index: VectorIndex, queries: Float32) -> float:
    """Milliseconds of one search for all the queries (m, d) to the usual depth: a question of m positives."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        index.search(queries, 2 * RECALL_AT)
        took.append((time.perf_counter() - began) * 1000)
    return min(took)  # the first one reads what the next ones find in memory, and others may have been at work


def scan_ms(folder: Path, dim: int, parts: Sequence[Shard], modality: str, removed: Int64) -> float:
    """Milliseconds that reading these shards costs a question, timed on some of them and scaled up."""
    some: list[Shard] = []
    for shard in parts:
        if sum(s.rows for s in some) < SAMPLE:
            some.append(shard)
    rows = rows_of(folder, dim, some, modality, removed)
    if not rows.count:
        return 0.0
    took = question_ms(FlatIndex(rows), rows.take(rows.sample(POSITIVES)))
    return took * sum(s.rows for s in parts) / sum(s.rows for s in some)


def exact_ms(rows: Rows) -> float:
    """Milliseconds of an exact question of POSITIVES positives to all of these rows, timed on some and scaled up."""
    some = rows.sample(TIMED)
    if not len(some):
        return 0.0
    held = Rows(rows.dim, [(some, rows.take(some))])
    share = len(some) / rows.count
    if can_look():
        return look_ms(Screen(held, *make_coarse(held)), rows) / share
    return question_ms(FlatIndex(held), rows.questions(some[:POSITIVES])) / share


def look_ms(look: Screen, rows: Rows) -> float:
    """Milliseconds of a question of POSITIVES positives, of these rows, by a coarse copy."""
    queries = rows.questions(rows.sample(POSITIVES))
    if not len(queries):
        return 0.0
    question = Question(ClassVectors("timed", queries, queries[:0], ModelId("timed", "", "")), 2 * RECALL_AT)
    took = []
    for _ in range(4):  # the first one finds out how to multiply, and reads what the next ones find in memory
        began = time.perf_counter()
        look.topk([question])
        took.append((time.perf_counter() - began) * 1000)
    return min(took)


def advice(info: Mapping[str, Any]) -> list[str]:
    """What is worth doing, a sentence each: `info` is that of a collection, with what was timed."""
    if info["read_only"]:
        return []
    said = [_index_advice(info["folder"], index) for index in info["indices"]]
    return [*dict.fromkeys(s for s in said if s), *_region_advice(info), *_compact_advice(info)]


def _index_advice(folder: str, index: Mapping[str, Any]) -> str | None:
    """When making or extending an index is worth it."""
    new, scan = index["not_covered"], index["scan_ms"]
    if index["kind"] is None:
        return f"Run `clipsieve index {folder}`: it finds duplicates, and makes an index where one is worth it."
    if index["kind"] == FLAT and new and index["rows"] + new > EXACT_ROWS:
        return f"Run `clipsieve index {folder}`: there are so many images now that an index is worth it."
    if index["kind"] == FLAT and new and index["name"] == "image":
        return f"{new:,} images were not looked through for duplicates yet; `clipsieve index {folder}` does that."
    if any(kind["k"] == OLD_K for kind in index["kinds"]):
        return f"Run `clipsieve index {folder}`: what the {index['name']} index finds was measured with images alone."
    if index["kind"] != FLAT and scan > max(NOTICED_MS, index["search_ms"] or 0):
        return f"Run `clipsieve index {folder}`: reading what the {index['name']} index lacks takes {scan:.0f} ms."
    return None


def _region_advice(info: Mapping[str, Any]) -> list[str]:
    """When looking for regions, or indexing them, is worth it."""
    regions = info["regions"]
    if regions is None:
        return []
    said = []
    if regions["lacking"]:
        said.append(f"Run `clipsieve regions {info['folder']}`: {regions['lacking']:,} images were not looked through.")
    if any(index["not_covered"] > FLAT_ROWS for index in regions["indices"]):
        said.append(f"Run `clipsieve index {info['folder']}`: there are so many regions now that an index is worth it.")
    return said


def _compact_advice(info: Mapping[str, Any]) -> list[str]:
    """When compacting is worth it."""
    said = []
    rows = info["count"] + info["removed"]
    if rows and info["removed"] / rows >= REMOVED_SHARE:
        said.append(
            f"Run `clipsieve compact {info['folder']}`: {info['removed'] / rows:.0%} of what is stored was removed."
        )
    if info["shards"] - rows // SHARD_ROWS > MANY_SHARDS:
        said.append(f"Run `clipsieve compact {info['folder']}`: {info['shards']:,} shards are slow to open.")
    return said
