"""Index folders of clip-retrieval: indices and metadata, without the embeddings that they were made of.

    image.index, text.index      faiss files; or folders with `populated.index` and its lists, as index_combiner leaves
                                 them; or folders with the parts of an index, or `image.index1`, `image.index2`, ...
    metadata/*.parquet           or metadata/**/*.arrow, metadata.hdf5, or metadata_reordered.hdf5: its rows lie in the
    ivf_old_to_new_mapping.npy   order of the index's lists: new position of each old one, int64 without a header

They open for reading; ids are rows of the metadata. Vectors are what the index still knows of them: what it has
quantised comes back as near as it can, so answers are exact only about that.
"""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.errors import CollectionDamaged
from clipsieve.index import faiss_index
from clipsieve.index.faiss_index import FaissIndex, measure_error, measure_recall
from clipsieve.index.flat import CombinedIndex, FlatIndex
from clipsieve.index.renumbered import Renumbered
from clipsieve.index.rows import Rows
from clipsieve.manifest import File, Index, Manifest, Shard
from clipsieve.peer_tables import REORDERED, count_rows, metadata_files
from clipsieve.protocols import VectorIndex
from clipsieve.types import Int64, Neighbors

KIND = "bare"
BLOCK = 65_536
QUERIES = 64
RECALL_AT = 40
MEASURED_ROWS = 200_000
"""Recall is measured among so many rows at most: more would be a pass over the whole collection at each opening."""

MAPPED_BYTES = 2 << 30
"""From this size on a file stays on disk, and vectors are read from it as they are needed."""

MAPPING = "ivf_old_to_new_mapping.npy"
_NAMES = ("image", "text")


@dataclass(frozen=True, slots=True)
class Part:
    """A faiss index that is part of one: its first row's id, and the label that faiss gives to that row."""

    index: Any
    start: int
    label: int
    mapped: bool


def is_bare(folder: Path) -> bool:
    """True for a folder with a faiss index of clip-retrieval's naming. Look for a manifest and embeddings first."""
    return any(index_files(folder, name) for name in _NAMES)


def index_files(folder: Path, name: str) -> list[Path]:
    """The faiss files of a modality, "image" or "text": one, or the parts of an index in the order of their ids."""
    path = folder / f"{name}.index"
    if path.is_file():
        return [path]
    if (path / "populated.index").is_file():
        return [path / "populated.index"]
    if path.is_dir():  # as index_combiner looks for them, without the lists of an unfinished merge
        return sorted(p for p in path.iterdir() if p.is_file() and "index" in p.name and p.suffix != ".ivfdata")
    return sorted(p for p in folder.glob(f"{name}.index*") if re.fullmatch(rf"{name}\.index[._-]?\d+", p.name))


def is_manifest(manifest: Manifest) -> bool:
    """Whether a manifest was made here."""
    return any(index.kind == KIND for index in manifest.indices)


def make_manifest(folder: Path) -> Manifest:
    """What the folder's manifest would say. CollectionDamaged if indices and metadata differ in rows."""
    files = {name: found for name in _NAMES if (found := index_files(folder, name))}
    headers = {name: [_open(path) for path in found] for name, found in files.items()}
    counts = {f"{name}.index": sum(int(h.ntotal) for h in found) for name, found in headers.items()}
    dims = {int(header.d) for found in headers.values() for header in found}
    if len(dims) > 1:
        raise CollectionDamaged(f"The indices of {folder} have {sorted(dims)} dimensions; build them of one model.")
    tables = [(path, count_rows(path)) for path in metadata_files(folder)]
    if tables:
        counts["metadata"] = sum(rows for _, rows in tables)
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise CollectionDamaged(f"{folder} does not agree in rows ({said}); build its indices anew.")
    total = next(iter(counts.values()))
    role = "metadata" if tables else "index"
    shards: list[Shard] = []
    start = 0
    for path, rows in tables or [(next(iter(files.values()))[0], total)]:
        ids = (start, start + rows - 1) if rows else (-1, -1)
        shards.append(Shard(len(shards), rows, *ids, {role: _file(folder, path)}))
        start += rows
    if _is_reordered(folder):
        _mapping(folder, total)
    indices = tuple(
        Index(
            name,
            KIND,
            {},
            tuple(range(len(shards))),
            total,
            None,
            {f"index{i or ''}": _file(folder, path) for i, path in enumerate(found)},
        )
        for name, found in files.items()
    )
    return Manifest(
        None,
        dims.pop(),
        next_id=total,
        next_shard=len(shards),
        shards=tuple(shards),
        indices=indices,
        decoding="reference",
        read_only=True,
    )


def make_index(folder: Path, parts: list[Part], rows: Rows) -> tuple[VectorIndex, float | None]:
    """The parts as one index, and its recall of the vectors that it gives back; None if it misses nothing."""
    found = [_index(part) for part in parts]
    if any(not index.lossless for index in found):
        # What rows hold is float16 of what the index gives back: its scores differ from that by rounding.
        loose = _whole(folder, found)
        error = measure_error(loose, rows)  # type: ignore[arg-type]  # any VectorIndex will do
        found = [FaissIndex(i.index, i.ids, score_error=error, first=i.first) for i in found]
    index = _whole(folder, found)
    if index.exhaustive or not rows.count:
        return index, None if index.score_error == 0 else 1.0
    among = rows.sample(MEASURED_ROWS) if rows.count > MEASURED_ROWS else None
    queries = rows.take(rows.sample(QUERIES))
    truth = FlatIndex(rows).search(queries, RECALL_AT, only=among)
    near: Neighbors = index.search(queries, 2 * RECALL_AT, only=among)
    return index, measure_recall(near, truth)


def open_parts(folder: Path, modality: str) -> list[Part]:
    """The parts of a modality's index. CollectionDamaged if their ids do not follow each other."""
    paths = index_files(folder, modality)
    parts: list[Part] = []
    start = 0
    for path in paths:
        on_disk = path.name == "populated.index"
        mapped = on_disk or path.stat().st_size > MAPPED_BYTES
        index = _open(path, None if not mapped else on_disk)
        label = _first_label(path, index, start) if len(paths) > 1 else 0
        parts.append(Part(index, start, label, mapped))
        start += int(index.ntotal)
    return parts


def make_rows(folder: Path, parts: list[Part]) -> Rows:
    """The parts' vectors, as float16 unless they hold them in full; of mapped parts only what is asked for is read.

    They may lie in the parts' own memory: keep those as long as these.
    """
    dim = int(parts[0].index.d)
    blocks = [
        (range(part.start, part.start + part.index.ntotal), _vectors(part)) for part in parts if part.index.ntotal
    ]
    if not _is_reordered(folder) or not blocks:
        return Rows(dim, blocks)
    new = _mapping(folder, sum(len(ids) for ids, _ in blocks))
    ordered = np.empty((len(new), dim), np.result_type(*(array.dtype for _, array in blocks)))
    for ids, array in blocks:
        for at in range(0, len(ids), BLOCK):
            ordered[new[ids.start + at : ids.start + min(at + BLOCK, len(ids))]] = array[at : at + BLOCK]
    return Rows(dim, [(range(len(ordered)), ordered)])


class Stored:
    """What a faiss index gives back of its rows, read as asked for: float16 (n, d), so far as Rows needs it."""

    dtype = np.dtype(np.float16)

    def __init__(self, part: Part) -> None:
        self.shape = (int(part.index.ntotal), int(part.index.d))
        self._index, self._label = part.index, part.label
        faiss = faiss_index.load_faiss()
        if (lists := faiss.try_extract_index_ivf(part.index)) is not None:
            kind = faiss.DirectMap.Hashtable if part.label else faiss.DirectMap.Array
            with _ids_expected(self.shape[0]):
                lists.set_direct_map_type(kind)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> npt.NDArray[np.float16]:
        rows = np.arange(*which.indices(len(self)), dtype=np.int64) if isinstance(which, slice) else which
        if not len(rows):
            return np.zeros((0, self.shape[1]), np.float16)
        with _ids_expected(len(self)):
            found: npt.NDArray[np.float32] = self._index.reconstruct_batch(rows + self._label)
        return found.astype(np.float16)


@contextlib.contextmanager
def _ids_expected(rows: int) -> Iterator[None]:
    """Where faiss looks rows up by their ids: parts that were combined with the same ids have some twice."""
    try:
        yield
    except RuntimeError as error:
        raise CollectionDamaged(
            f"The ids in an index of {rows:,} rows are not those of its rows ({error}); combine its parts again, with "
            "ids that follow each other."
        ) from error


def _vectors(part: Part) -> Any:
    faiss, index = faiss_index.load_faiss(), part.index
    if isinstance(index, faiss.IndexFlat) and not part.mapped:
        return faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(index.ntotal, index.d)
    stored = Stored(part)
    return stored if part.mapped else stored[:]


def _index(part: Part) -> FaissIndex:
    ids = np.arange(part.start, part.start + part.index.ntotal) if part.start else None
    return FaissIndex(part.index, ids, score_error=0.0, first=part.label)


def _whole(folder: Path, parts: list[FaissIndex]) -> VectorIndex:
    one: VectorIndex = parts[0] if len(parts) == 1 else CombinedIndex(*parts)
    return Renumbered(one, _mapping(folder, one.count)) if _is_reordered(folder) else one


def _is_reordered(folder: Path) -> bool:
    return [path.name for path in metadata_files(folder)] == [REORDERED]


def _mapping(folder: Path, rows: int) -> Int64:
    path = folder / MAPPING
    if not path.is_file():
        raise CollectionDamaged(
            f"{folder} has {REORDERED} and no {MAPPING}, which says whose rows they are; restore it, or the metadata "
            "in its first order."
        )
    new = np.fromfile(path, np.int64)
    seen = np.zeros(rows, np.bool_)
    if len(new) == rows and (not rows or (new.min() >= 0 and new.max() < rows)):
        seen[new] = True
    if len(new) != rows or not seen.all():
        raise CollectionDamaged(
            f"{path} does not give each of {rows} rows a place of its own; make it and {REORDERED} again."
        )
    return new


def _first_label(path: Path, index: Any, start: int) -> int:
    """What faiss calls the first row of a part: parts are filled with ids of their own, or with those of the whole."""
    faiss = faiss_index.load_faiss()
    lists = faiss.try_extract_index_ivf(index)
    rows = int(index.ntotal)
    if lists is None or not rows:
        return 0
    least, most = 2**62, -1
    inverted = lists.invlists
    for number in range(inverted.nlist):
        size = inverted.list_size(number)
        if size:
            pointer = inverted.get_ids(number)
            ids = faiss.rev_swig_ptr(pointer, size)
            least, most = min(least, int(ids.min())), max(most, int(ids.max()))
            inverted.release_ids(number, pointer)
    for label in (start, 0):
        if (least, most) == (label, label + rows - 1):
            return label
    raise CollectionDamaged(
        f"{path} holds {rows} rows with ids from {least} to {most}; as this part they run from {start} or from 0. "
        "Give the parts names that sort in the order of their ids."
    )


def _file(folder: Path, path: Path) -> File:
    return File(path.relative_to(folder).as_posix(), path.stat().st_size, "")


def _open(path: Path, on_disk: bool | None = True) -> Any:
    """A faiss index, mapped; in memory where `on_disk` is None."""
    faiss = faiss_index.load_faiss()
    # Lists on disk are looked for beside the index, wherever it says that they are.
    flags = faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_ONDISK_SAME_DIR
    if on_disk is not None and path.name != "populated.index":
        flags |= faiss.IO_FLAG_MMAP
    return faiss_index.open_file(path, flags)
