"""Index folders of clip-retrieval: `image.index`, `text.index` and metadata, without the embeddings they were made of.

They open for reading, ids are positions. Vectors are what the index still knows of them: what it has quantised comes
back as near as it can, so answers are exact only about that.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from clipsieve.errors import CollectionDamaged
from clipsieve.index import faiss_index
from clipsieve.index.faiss_index import FaissIndex, measure_error, measure_recall
from clipsieve.index.flat import FlatIndex
from clipsieve.index.scan import Rows
from clipsieve.manifest import File, Index, Manifest, Shard
from clipsieve.protocols import VectorIndex

KIND = "bare"
BLOCK = 65_536
QUERIES = 64
RECALL_AT = 40

_NAMES = ("image", "text")


def is_bare(folder: Path) -> bool:
    """True for a folder with a faiss index of clip-retrieval's naming. Look for a manifest and embeddings first."""
    return any((folder / f"{name}.index").is_file() for name in _NAMES)


def is_manifest(manifest: Manifest) -> bool:
    """Whether a manifest was made here."""
    return any(index.kind == KIND for index in manifest.indices)


def make_manifest(folder: Path) -> Manifest:
    """What the folder's manifest would say. CollectionDamaged if indices and metadata differ in rows."""
    paths = {name: folder / f"{name}.index" for name in _NAMES if (folder / f"{name}.index").is_file()}
    headers = {name: _open(path) for name, path in paths.items()}
    counts = {path.name: int(headers[name].ntotal) for name, path in paths.items()}
    parts = sorted(p for p in (folder / "metadata").glob("*.parquet") if re.fullmatch(r"metadata_\d+", p.stem))
    if parts:
        counts["metadata"] = sum(int(pq.read_metadata(p).num_rows) for p in parts)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise CollectionDamaged(f"{folder} does not agree in rows ({said}); build its indices anew.")
    shards: list[Shard] = []
    start = 0
    first = next(iter(paths.values()))
    for path in parts or [first]:
        rows = int(pq.read_metadata(path).num_rows) if parts else counts[first.name]
        role = "metadata" if parts else "index"
        file = File(path.relative_to(folder).as_posix(), path.stat().st_size, "")
        shards.append(Shard(len(shards), rows, start if rows else -1, start + rows - 1 if rows else -1, {role: file}))
        start += rows
    indices = tuple(
        Index(
            name, KIND, {}, tuple(range(len(shards))), start, None, {"index": File(path.name, path.stat().st_size, "")}
        )
        for name, path in paths.items()
    )
    dim = int(next(iter(headers.values())).d)
    return Manifest(
        None, dim, next_id=start, next_shard=len(shards), shards=tuple(shards), indices=indices, read_only=True
    )


def open_index(folder: Path, modality: str) -> tuple[VectorIndex, float | None]:
    """The index, and its recall of the vectors that it gives back; None if it misses nothing."""
    index = faiss_index.read_index(folder / f"{modality}.index", score_error=0.0)
    rows = make_rows(index)
    if not index.lossless:
        # What rows hold is float16 of what the index gives back: its scores differ from that by rounding.
        index = FaissIndex(index.index, score_error=measure_error(index, rows))
    if index.exhaustive or not rows.count:
        return index, None if index.score_error == 0 else 1.0
    queries = rows.take(rows.sample(QUERIES))
    truth = FlatIndex(rows).search(queries, RECALL_AT)
    return index, measure_recall(index.search(queries, 2 * RECALL_AT), truth)


def make_rows(index: VectorIndex) -> Rows:
    """The vectors as the index gives them back, as float16 unless it holds them in full."""
    assert isinstance(index, FaissIndex)
    faiss, inner = faiss_index.load_faiss(), index.index
    if isinstance(inner, faiss.IndexFlat):
        whole = faiss.rev_swig_ptr(inner.get_xb(), index.count * index.dim).reshape(index.count, index.dim)
        return Rows(index.dim, [(range(index.count), whole)] if index.count else [])
    half = np.empty((index.count, index.dim), np.float16)
    for start in range(0, index.count, BLOCK):
        half[start : start + BLOCK] = inner.reconstruct_n(start, min(BLOCK, index.count - start))
    return Rows(index.dim, [(range(index.count), half)] if index.count else [])


def _open(path: Path) -> Any:
    faiss = faiss_index.load_faiss()
    try:  # mapped: only its header is wanted
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except RuntimeError as error:
        raise CollectionDamaged(f"{path} is not readable by faiss ({error}); build the index anew.") from error
