"""A VectorIndex on faiss: flat, IVF and HNSW, their rows as they are or quantised.

On disk it is a plain faiss index, as clip-retrieval reads: its rows are positions. Which id a position has is told
apart from it, by the shards that it covers. The package comes with one of three extras, which share the module name.
"""

import contextlib
import dataclasses
import itertools
import mmap
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipsieve.durable import write_file
from clipsieve.errors import CollectionDamaged, InputError, MissingExtra, quoted
from clipsieve.index.faiss_graph import graph_fault
from clipsieve.index.flat import Found, best_first, check_search, padded, single
from clipsieve.index.rows import Rows, contains
from clipsieve.types import Float32, Int64, Neighbors

MOST_EFFORT_HNSW = 8192

_READING = threading.Lock()
"""Held while `open_file` has set how much faiss may allocate, which it does for the whole process."""

_LISTS_HEAD = struct.Struct("<4sQQ")
"""Where faiss's lists in memory begin: a name, how many lists there are, and the bytes of a row's code."""

_SEARCHED, _MOST_CODE = 1 << 28, 1 << 20
"""Bytes of an index in which its lists begin, and bytes of a row's code at most."""

TIE = 1e-6
"""Rounding between two of faiss's own kernels: how far under a score others are looked for that may equal it."""


@dataclass(frozen=True, slots=True, eq=False)
class FaissIndex:
    """A faiss index and what a search of it needs to know. Nothing of it changes after it is made.

    index        faiss index by inner product: Flat, SQ, IVF or HNSW over flat, SQ or (IVF) PQ codes, or one of these
                 behind linear transforms (OPQ, PCA)
    ids          int64 (n,), ascending: the id of each position; None where they are equal
    effort       lists visited (IVF) or candidates kept (HNSW) by a search; None for the index's own setting
    score_error  bound on |score - inner product with the stored vector|; may be None for unquantised rows (0)
    recall       as measured by `tune`; None where unknown, or nothing is missed
    first        the label that faiss itself gives to the first row: other than 0 in a part of a partitioned index
    """

    index: Any
    ids: Int64 | None = None
    effort: int | None = None
    score_error: float = None  # type: ignore[assignment]  # a float once __post_init__ is through
    recall: float | None = None
    first: int = 0

    def __post_init__(self) -> None:
        faiss, inner = load_faiss(), self._inner
        codes = (faiss.IndexFlat, faiss.IndexScalarQuantizer, faiss.IndexIVF, faiss.IndexHNSWFlat, faiss.IndexHNSWSQ)
        kind = type(inner).__name__
        if not isinstance(inner, codes):
            raise InputError(
                f"A faiss {kind} cannot be searched here, it has no filters inside its search; use Flat, SQ8, "
                "SQfp16, HNSW or IVF (IVF1,PQ... stands for plain PQ)."
            )
        if self.index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise InputError(f"The faiss {kind} is not by inner product; build it with METRIC_INNER_PRODUCT.")
        if self.ids is not None and (self.ids.shape != (self.count,) or (np.diff(self.ids) <= 0).any()):
            raise InputError(
                f"FaissIndex got ids of shape {self.ids.shape} for {self.count} rows; it needs one each, ascending."
            )
        if self.effort is not None and self.effort < 1:
            raise InputError(f"FaissIndex got effort {self.effort}; it is a number of lists or candidates, from 1 up.")
        if self.score_error is None:
            if not self.lossless:
                raise InputError(f"A faiss {kind} is quantised; give its score_error (`measure_error` finds it).")
            object.__setattr__(self, "score_error", 0.0)

    @property
    def count(self) -> int:
        """Rows, removed ones included."""
        return int(self.index.ntotal)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.index.d)

    @property
    def lossless(self) -> bool:
        """True if it keeps rows as they were added; so may SQfp16 for rows that were float16, which it cannot know."""
        faiss = load_faiss()
        flat = (faiss.IndexFlat, faiss.IndexIVFFlat, faiss.IndexHNSWFlat)
        return self._inner is self.index and isinstance(self.index, flat)

    @property
    def exhaustive(self) -> bool:
        """True for flat kinds, and for an IVF that visits every list."""
        faiss, inner = load_faiss(), self._inner
        if not isinstance(inner, faiss.IndexIVF):
            return isinstance(inner, faiss.IndexFlat | faiss.IndexScalarQuantizer)
        # A graph over the centroids (IVF..._HNSW32) may miss lists even when asked for all of them.
        flat_lists = isinstance(faiss.downcast_index(inner.quantizer), faiss.IndexFlat)
        return flat_lists and (self.effort or inner.nprobe) >= inner.nlist and inner.max_codes == 0

    @property
    def most_effort(self) -> int:
        """The greatest effort that means anything; 1 for flat kinds, which have none."""
        faiss, inner = load_faiss(), self._inner
        if isinstance(inner, faiss.IndexIVF):
            return int(inner.nlist)
        return MOST_EFFORT_HNSW if isinstance(inner, faiss.IndexHNSW) else 1

    def search(self, queries: Float32, k: int, *, only: Int64 | None = None, without: Int64 | None = None) -> Neighbors:
        """See VectorIndex."""
        check_search(queries, self.dim, k)
        if not len(queries) or not self.count:
            return padded([best_first([])] * len(queries), k)
        params, keep_alive = self._params(only, without)
        exhaustive = self.exhaustive
        # One more than asked shows whether the last place is tied; faiss breaks ties as it meets them.
        asked = min(k + exhaustive, self.count)
        with _asking():
            scores, positions = self.index.search(np.ascontiguousarray(queries), asked, params=params)  # (m, asked)
        found = []
        for i in range(len(queries)):
            ids, score = self._found(positions[i], scores[i])
            if exhaustive and len(ids) > k and score[k] == score[k - 1]:
                tied = self._range(queries[i : i + 1], float(score[k - 1]) - TIE, params)[0]
                ids, score = best_first([tied])
            found.append((ids[:k], score[:k]))
        del keep_alive
        return padded(found, k)

    def range_search(
        self, queries: Float32, score: float, *, only: Int64 | None = None, without: Int64 | None = None
    ) -> list[Neighbors]:
        """See VectorIndex. An index that is not exhaustive finds what its effort reaches."""
        check_search(queries, self.dim, 1)
        if not len(queries) or not self.count:
            return [single(best_first([])) for _ in queries]
        params, keep_alive = self._params(only, without)
        found = self._range(queries, float(np.nextafter(np.float32(score), np.float32(-np.inf))), params)
        del keep_alive
        return [single((ids[s >= np.float32(score)], s[s >= np.float32(score)])) for ids, s in found]

    def _range(self, queries: Float32, above: float, params: Any) -> list[Found]:
        asked = np.ascontiguousarray(queries)
        # Of several, faiss's graphs end the process where a search takes long (by max_level * d * effort).
        step = 1 if isinstance(self._inner, load_faiss().IndexHNSW) else len(asked)
        found = []
        for start in range(0, len(asked), step):
            with _asking():
                limits, scores, positions = self.index.range_search(asked[start : start + step], above, params=params)
            cuts = [slice(int(a), int(b)) for a, b in itertools.pairwise(limits)]
            found += [self._found(positions[c], scores[c]) for c in cuts]
        return found

    def _found(self, positions: Int64, scores: Float32) -> Found:
        real = positions >= 0
        positions = positions[real] - self.first
        if len(positions) and not (positions.min() >= 0 and positions.max() < self.count):
            raise CollectionDamaged(
                f"An index of {self.count:,} rows found row {positions.max():,}; its ids are damaged, so build it anew."
            )
        return best_first([(positions if self.ids is None else self.ids[positions], scores[real])])

    @property
    def _inner(self) -> Any:
        """The index behind the transforms, if there are any."""
        faiss = load_faiss()
        return faiss.downcast_index(self.index.index) if isinstance(self.index, faiss.IndexPreTransform) else self.index

    def _params(self, only: Int64 | None, without: Int64 | None) -> tuple[Any, Any]:
        """Search parameters of one call, and what must outlive it. The index's own settings are never touched."""
        faiss, inner = load_faiss(), self._inner
        selector, bits = None, None
        if only is not None or (without is not None and len(without)):
            labels = self.first + self.count
            allowed = np.zeros(labels, np.bool_) if only is not None else np.ones(labels, np.bool_)
            if only is not None:
                allowed[self._positions(only) + self.first] = True
            if without is not None:
                allowed[self._positions(without) + self.first] = False
            bits = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(labels, faiss.swig_ptr(bits))
        if isinstance(inner, faiss.IndexIVF):
            params = faiss.SearchParametersIVF(sel=selector, nprobe=self.effort or inner.nprobe)
        elif isinstance(inner, faiss.IndexHNSW):
            params = faiss.SearchParametersHNSW(sel=selector, efSearch=self.effort or inner.hnsw.efSearch)
        else:
            params = faiss.SearchParameters(sel=selector)
        keep_alive = (bits, selector, params)
        if inner is not self.index:
            params = faiss.SearchParametersPreTransform(index_params=params)
        return params, keep_alive

    def _positions(self, ids: Int64) -> Int64:
        """Positions of those ids that are here."""
        if self.ids is None:
            return ids[(ids >= 0) & (ids < self.count)]
        return np.flatnonzero(contains(np.unique(ids), self.ids))


def load_faiss() -> Any:
    """The module faiss. MissingExtra names the extras where it is not installed."""
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "Searching through an index needs faiss; install clipsieve[cpu], or clipsieve[gpu] for CUDA 12 or "
            "clipsieve[gpu-cu13] for CUDA 13 (one of the three)."
        ) from error
    # Some wheels set this so high that a flat index never uses BLAS, at a fifth of the speed. Only speed depends on it.
    faiss.cvar.distance_compute_blas_threshold = 20
    return faiss


def train_and_build(factory: str, rows: Rows, seed: int = 0) -> FaissIndex:
    """Train and fill what faiss's `index_factory` makes of the string, over all live rows.

    A quantised index comes with its error measured; IVF and HNSW with faiss's own effort: `tune` sets it. InputError
    for a factory string that faiss or this class does not know, or with too few rows to train it.
    """
    faiss = load_faiss()
    if not rows.count:
        raise InputError("There is no row to build an index of.")
    try:
        index = faiss.index_factory(rows.dim, factory, faiss.METRIC_INNER_PRODUCT)
    except RuntimeError as error:
        raise InputError(f"faiss cannot make an index {quoted(factory)} of {rows.dim} dimensions: {error}") from error
    FaissIndex(index, score_error=0.0)  # refuses a kind that cannot be searched before it is filled
    inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
    if not index.is_trained:
        # 64 rows a centroid are what faiss asks for (39) and some more; a product quantiser has 256 centroids.
        wanted = 64 * max(inner.nlist if isinstance(inner, faiss.IndexIVF) else 0, 256)
        try:
            index.train(rows.take(rows.sample(wanted, seed)))
        except RuntimeError as error:
            raise InputError(f"faiss cannot train {quoted(factory)} on {rows.count} rows: {error}") from error
    ids = np.empty(rows.count, np.int64)
    for block_ids, vectors in rows.blocks():
        ids[index.ntotal : index.ntotal + len(block_ids)] = block_ids
        index.add(vectors)
    built = FaissIndex(index, None if ids[-1] == len(ids) - 1 else ids, score_error=0.0)
    if built.lossless:
        return built
    half = isinstance(inner, faiss.IndexScalarQuantizer | faiss.IndexIVFScalarQuantizer | faiss.IndexHNSWSQ)
    if half and inner is index and rows.dtype == np.float16 and inner.sq.qtype == faiss.ScalarQuantizer.QT_fp16:
        return built  # the rows' own format: nothing is lost
    return dataclasses.replace(built, score_error=measure_error(built, rows, seed=seed))


def measure_error(
    index: FaissIndex, rows: Rows, queries: Float32 | None = None, depth: int = 64, seed: int = 0
) -> float:
    """The greatest |score - inner product with the stored vector| among the neighbours of some queries.

    queries  float32 (m, d); 64 random rows by default. `score_error` of `index` is not looked at.
    """
    queries = rows.questions(rows.sample(64, seed)) if queries is None else queries
    near = index.search(queries, depth, without=rows.without)
    worst = 0.0
    for query, ids, scores in zip(queries, near.ids, near.scores, strict=True):
        real = ids >= 0
        true = rows.take(ids[real]).astype(np.float64) @ query
        worst = max(worst, float(np.abs(true - scores[real]).max(initial=0)))
    return worst


def measure_recall(found: Neighbors, truth: Neighbors) -> float:
    """recall@k: which share of the true neighbours (m, k) was found, over all queries together. 1.0 without any."""
    hits = sum(len(np.intersect1d(f, t[t >= 0])) for f, t in zip(found.ids, truth.ids, strict=True))
    return float(hits / max(1, (truth.ids >= 0).sum())) if (truth.ids >= 0).any() else 1.0


def tune(index: FaissIndex, queries: Float32, truth: Neighbors, recall: float) -> FaissIndex:
    """The same index with the least effort that reaches a recall, which it then carries as measured.

    queries  float32 (m, d), none of them used to build the index; for a service of texts, embedded texts
    truth    (m, k) from an exhaustive search
    recall   wanted, 0..1; where no effort reaches it the greatest is used, and the recall it has is carried
    """
    k = truth.ids.shape[1]

    def measured(effort: int) -> FaissIndex:
        tried = dataclasses.replace(index, effort=effort)
        return dataclasses.replace(tried, recall=measure_recall(tried.search(queries, k), truth))

    low, high = 0, 1
    best = measured(high)
    while (best.recall or 0) < recall and high < index.most_effort:
        low, high = high, min(2 * high, index.most_effort)
        best = measured(high)
    while high - low > max(1, high // 16):  # recall rises with effort: halve until it is within a sixteenth
        middle = (low + high) // 2
        tried = measured(middle)
        if (tried.recall or 0) >= recall:
            high, best = middle, tried
        else:
            low = middle
    return best


def write_index(index: FaissIndex, path: str | os.PathLike[str]) -> None:
    """Write the plain faiss index, at once or not at all. Ids, effort, error and recall are the caller's to keep."""
    faiss = load_faiss()
    write_file(Path(path), lambda file: faiss.write_index(index.index, faiss.PyCallbackIOWriter(file.write)))


def read_index(
    path: str | os.PathLike[str],
    ids: Int64 | None = None,
    effort: int | None = None,
    score_error: float | None = None,
    recall: float | None = None,
    mapped: bool = False,
    beside: bool = False,
) -> FaissIndex:
    """Open what `write_index` or clip-retrieval wrote; the other arguments are FaissIndex's own.

    mapped  leave the codes on disk and let the system read what a search touches (IVF and flat)
    beside  the lists are on disk anyway, in a file of their own beside this one

    CollectionDamaged if faiss cannot read the file.
    """
    faiss = load_faiss()
    flags = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if mapped else 0
    flags |= faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY if beside else 0
    return FaissIndex(open_file(path, flags), ids, effort, score_error, recall)  # type: ignore[arg-type]


def open_file(path: str | os.PathLike[str], flags: int = 0) -> Any:
    """What faiss makes of an index file, whoever wrote it.

    flags  faiss's IO_FLAG_...

    CollectionDamaged if it cannot be read, claims more than its size can hold, or has settings that no search can use.
    """
    faiss = load_faiss()
    _require_possible_lists(path)
    try:
        with _limited_to(Path(path).stat().st_size):
            index = faiss.read_index(os.fspath(path), flags)
        inner = faiss.downcast_index(index.index) if isinstance(index, faiss.IndexPreTransform) else index
        if isinstance(inner, faiss.IndexIVF):
            _require_lists_in_file(path, faiss.downcast_InvertedLists(inner.invlists))
        if isinstance(inner, faiss.IndexHNSW) and (fault := graph_fault(inner, faiss)) is not None:
            raise CollectionDamaged(f"{path} is damaged: its graph {fault}; build the index anew.")
    except CollectionDamaged:
        raise
    except (RuntimeError, MemoryError, OSError, UnicodeError) as error:
        raise CollectionDamaged(f"{path} is not readable by faiss ({error}); build the index anew.") from error
    efforts = {
        "nprobe": inner.nprobe if isinstance(inner, faiss.IndexIVF) else 1,
        "efSearch": inner.hnsw.efSearch if isinstance(inner, faiss.IndexHNSW) else 1,
    }
    for name, effort in efforts.items():
        if not 1 <= effort <= max(MOST_EFFORT_HNSW, index.ntotal):
            raise CollectionDamaged(f"{path} has {name} {effort:,} for {index.ntotal:,} rows; build the index anew.")
    return index


@contextlib.contextmanager
def _limited_to(size: int) -> Iterator[None]:
    """Let faiss allocate no vector larger than so many bytes while it reads a file.

    Of a vector whose length was made up it would else fill the memory before it finds the file too short.
    """
    faiss = load_faiss()
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):  # not in its older versions
        yield
        return
    with _READING:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(size)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before)


def _require_possible_lists(path: str | os.PathLike[str]) -> None:
    """CollectionDamaged where an IVF index claims more lists than its file has bytes: faiss makes them all at once."""
    file = Path(path)
    if not file.is_file() or file.stat().st_size < _LISTS_HEAD.size:
        return  # faiss says it
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:2] != b"Iw" and data[:4] != b"IxPT":
            return
        at = data.find(b"ilar", 0, _SEARCHED)
        while 0 <= at <= len(data) - _LISTS_HEAD.size:
            _, lists, code = _LISTS_HEAD.unpack_from(data, at)
            if 0 < code <= _MOST_CODE:  # else it is some number that reads like this
                if lists > len(data):
                    raise CollectionDamaged(f"{path} claims {lists:,} lists, more than it has bytes; build it anew.")
                return
            at = data.find(b"ilar", at + 1, _SEARCHED)


def _require_lists_in_file(path: str | os.PathLike[str], lists: Any) -> None:
    """CollectionDamaged where lists on disk reach beyond their file, of which faiss maps what the index says."""
    if not isinstance(lists, load_faiss().OnDiskInvertedLists):
        return
    file = lists.filename or os.fspath(path)  # none where the lists of the index file itself are mapped
    held, width = Path(file).stat().st_size, lists.code_size + 8
    one = (lists.lists.at(number) for number in range(lists.nlist))
    if lists.totsize > held or any(li.size > li.capacity or li.offset + li.capacity * width > held for li in one):
        raise CollectionDamaged(
            f"{path} has lists beyond the end of {file} ({held:,} bytes); restore that file, or build the index anew."
        )


@contextlib.contextmanager
def _asking() -> Iterator[None]:
    """Around a search: what faiss finds wrong with an index only when it is at it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise CollectionDamaged(f"An index cannot be searched by faiss ({error}); build it anew.") from error
