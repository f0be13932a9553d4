"""faiss indices trained, filled, tuned and opened, for a collection's rows."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from clipsieve.durable import TEMPORARY, naming
from clipsieve.errors import CollectionDamaged, InputError, MissingExtra, quoted
from clipsieve.index import faiss_index
from clipsieve.index.faiss_index import FaissIndex
from clipsieve.index.flat import FlatIndex
from clipsieve.index.measure import RECALL_AT, VISITED
from clipsieve.index.plan import TRAINING_PER_LIST
from clipsieve.index.rows import Rows
from clipsieve.manifest import Index
from clipsieve.types import Float32, Int64, Neighbors
from clipsieve.whole import reading

QUERIES = 256
"""Of each kind, half to tune on and half to measure with."""

Progress = Callable[[str, int, int], None]
"""Called with (what is being done, how much is done, of how much)."""


def train(factory: str, rows: Rows, device: str, progress: Progress) -> Any:
    """What faiss's `index_factory` makes of the string, trained on random rows, empty. InputError if it cannot."""
    faiss = faiss_index.load_faiss()
    try:
        index = faiss.index_factory(rows.dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(f"faiss cannot make an index {quoted(factory)} of {rows.dim} dimensions: {error}") from error
    FaissIndex(index, score_error=0.0)  # refuses a kind that cannot be searched before time is spent on it
    if index.is_trained:
        return index
    ivf = faiss.try_extract_index_ivf(index)
    if device == "cuda" and ivf is not None:
        ivf.clustering_index = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(ivf.d))
    wanted = max(TRAINING_PER_LIST * (ivf.nlist if ivf is not None else 0), 256 * TRAINING_PER_LIST)
    progress("training", 0, 1)
    try:
        index.train(rows.take(rows.sample(wanted)))
    except RuntimeError as error:
        raise InputError(f"faiss cannot train {quoted(factory)} on {rows.count} rows: {error}") from error
    progress("training", 1, 1)
    return index


def fill(index: Any, rows: Rows, device: str, progress: Progress) -> Any:
    """Add all rows behind those it holds, in order; the index, which is another one after a visit to a GPU."""
    faiss = faiss_index.load_faiss()
    if device == "cuda":
        index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    done = 0
    for ids, vectors in rows.blocks():
        index.add(vectors)
        done += len(ids)
        progress("filling", done, rows.count)
    return faiss.index_gpu_to_cpu(index) if device == "cuda" else index


def fill_on_disk(index: Any, rows: Rows, lists: Path, memory_bytes: int, progress: Progress) -> Any:
    """Add all rows to a trained, empty IVF whose lists become the file `lists`: parts that fit, merged at the end."""
    faiss = faiss_index.load_faiss()
    from faiss.contrib.ondisk import merge_ondisk

    empty, names = faiss.serialize_index(index), list[str]()
    most, done = max(1, memory_bytes // (2 * (rows.dim + 8))), 0
    part = faiss.deserialize_index(empty)
    try:
        for ids, vectors in rows.blocks():
            part.add_with_ids(vectors, np.arange(done, done + len(ids)))
            done += len(ids)
            progress("filling", done, rows.count)
            if part.ntotal >= most or done == rows.count:
                names.append(str(lists.with_name(f".{lists.stem}_{len(names) + 1}.index{TEMPORARY}")))
                with naming(Path(names[-1])), open(names[-1], "wb") as file:  # noqa: PTH123
                    faiss.write_index(part, faiss.PyCallbackIOWriter(file.write))
                part = faiss.deserialize_index(empty)
        _require_room(lists, sum(Path(name).stat().st_size for name in names))
        merge_ondisk(index, names, str(lists))
    finally:
        for name in names:
            Path(name).unlink(missing_ok=True)
    return index


def _require_room(path: Path, size: int) -> None:
    """Raise as writing would. faiss maps the file, and whoever writes to a map on a full disk is killed."""
    if shutil.disk_usage(path.parent).free < size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def tune_and_measure(index: FaissIndex, rows: Rows, recall: float, known: int | None = None) -> FaissIndex:
    """The index of regions with the least effort that reaches the recall, and the recall of rows not tuned with.

    rows   what it holds. Queries are drawn from them, and none may count finding itself
    known  an effort that sufficed before some rows were added: it is kept, without tuning, if it still does

    Recall counts the RECALL_AT true neighbours that are among twice as many found: a search looks that deep, and then
    scores what it found exactly.
    """
    selves = rows.sample(QUERIES, seed=2)
    queries = rows.questions(selves)
    order = np.random.default_rng(0).permutation(len(queries))
    half = max(1, len(queries) // 2)
    tuning, rest = order[:half], order[half:] if len(order) > 1 else order
    test = queries[rest], _truth(rows, queries[rest], selves[rest])
    if known is not None:
        kept = _measured(index, known, *test)
        if (kept.recall or 0) >= recall:
            return kept
    effort = faiss_index.tune(index, queries[tuning], _truth(rows, queries[tuning], selves[tuning]), recall).effort or 1
    # Lists that hold fewer rows than a search asks for would send every question to a scan, however good they are.
    least = -(-index.most_effort * VISITED // max(1, rows.count)) if index.most_effort < rows.count else 1
    return _measured(index, min(max(effort, least), index.most_effort), *test)


def _measured(index: FaissIndex, effort: int, queries: Float32, truth: Neighbors) -> FaissIndex:
    """The index with that effort, and the recall that it has so."""
    tried = dataclasses.replace(index, effort=effort)
    found = tried.search(queries, truth.ids.shape[1])
    return dataclasses.replace(tried, recall=faiss_index.measure_recall(found, truth))


def _truth(rows: Rows, queries: Float32, selves: Int64) -> Neighbors:
    """The RECALL_AT true neighbours of each query without itself, in an answer twice as wide."""
    near = FlatIndex(rows).search(queries, RECALL_AT + 1)
    ids = np.full((len(queries), 2 * RECALL_AT), -1, np.int64)
    scores = np.full(ids.shape, -np.inf, np.float32)
    for i, own in enumerate(selves):
        others = np.flatnonzero((near.ids[i] != own) & (near.ids[i] >= 0))[:RECALL_AT]
        ids[i, : len(others)], scores[i, : len(others)] = near.ids[i, others], near.scores[i, others]
    return Neighbors(ids, scores)


def open_faiss(folder: Path, entry: Index, ids: Int64) -> FaissIndex:
    """The faiss index of a manifest's entry, over the rows of these ids. CollectionDamaged if it is not that."""
    path = folder / entry.files["index"].path
    effort, error = entry.parameters.get("effort"), float(entry.parameters.get("score_error", 0.0))
    try:
        with reading(folder, entry.files.values()):
            index = faiss_index.read_index(path, positions(ids), effort, error, beside="lists" in entry.files)
    except CollectionDamaged as damage:
        raise CollectionDamaged(
            f"{path} is not the index that the manifest names; run `clipsieve index --rebuild`."
        ) from damage
    if index.count != len(ids) or index.count != entry.rows:
        raise CollectionDamaged(
            f"{path} holds {index.count} rows and the manifest says {entry.rows}; run `clipsieve index --rebuild`."
        )
    return dataclasses.replace(index, recall=entry.recall)


def positions(ids: Int64) -> Int64 | None:
    """Ids as FaissIndex takes them: None where they are the positions themselves."""
    return None if not len(ids) or int(ids[-1]) == len(ids) - 1 else ids


def keeps_half(index: Any, rows: Rows) -> bool:
    """Whether it stores float16, which is what the rows are: nothing is lost then."""
    faiss = faiss_index.load_faiss()
    half = isinstance(index, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer)
    return half and rows.dtype == np.float16 and index.sq.qtype == faiss.ScalarQuantizer.QT_fp16


def check_device(device: str) -> None:
    """InputError or MissingExtra unless an index can be built on the device, "cpu" or "cuda"."""
    if device not in ("cpu", "cuda"):
        raise InputError(f"There is no device {quoted(device)} to build on; choose cpu or cuda.")
    if device == "cuda":
        faiss = faiss_index.load_faiss()
        if not hasattr(faiss, "StandardGpuResources"):
            raise MissingExtra(
                "The faiss that is installed has no GPU support; install clipsieve[gpu] (CUDA 12) or "
                "clipsieve[gpu-cu13] (CUDA 13) in its place, or build with --device cpu."
            )
        if not faiss.get_num_gpus():
            raise InputError("faiss sees no GPU here; build with --device cpu.")
