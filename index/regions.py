"""What a detector found in the images of a collection: loaded by item, searched by its texts and examples."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow.parquet as pq

from clipsieve import shards
from clipsieve.errors import NotFound
from clipsieve.index.examples import unit_rows
from clipsieve.index.flat import FlatIndex, check_search
from clipsieve.index.region_rows import ROLES, asked, rows_of_regions, spans
from clipsieve.index.rows import Rows
from clipsieve.index.stored import entry_of, open_covered, open_index, shards_of
from clipsieve.manifest import Manifest, Shard
from clipsieve.protocols import VectorIndex
from clipsieve.stored_regions import BOX, NUMBERS, read_table, unseen_ids
from clipsieve.types import Box, Claim, Float32, Int64, ModelId, Regions
from clipsieve.whole import reading

_T = TypeVar("_T")

Space = Literal["region", "crop"]
"""Which vectors of the regions: the detector's, or those of their crops in the collection's own space."""


SAME = 1e-5
"""Difference, in 0..1 of an image, up to which two corners are one: what rounding leaves of a box that was printed."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionHits:
    """The k best regions for each of m vectors, best first.

    items    int64 (m, k), whose they are; -1 where there was no further region
    numbers  int64 (m, k), which regions, for `CollectionRegions.take`; -1 likewise
    scores   float32 (m, k), logits of the detector (cosines where crops were asked), exact; -inf where there is none
    claim    "exact" where every region was compared, else "complete": what the index found
    recall   of the index, as measured; None where nothing is missed
    """

    items: Int64
    numbers: Int64
    scores: Float32
    claim: Claim
    recall: float | None


class CollectionRegions:
    """The regions of one commit. Vectors are mapped; parts are read when first asked for. Safe in many threads.

    removed  ids whose regions are as if they were not there

    NotFound if the manifest has no detector.
    """

    def __init__(self, folder: Path, manifest: Manifest, removed: Int64) -> None:
        if manifest.detection is None:
            raise NotFound(f"{folder} holds no regions; find them with `clipsieve regions {folder} --detector MODEL`.")
        self.folder = folder
        self.manifest = manifest
        self.detection = manifest.detection
        self._removed = removed
        self._made: dict[Any, Any] = {}
        self._lock = threading.RLock()

    @property
    def model(self) -> ModelId:
        """The detector that found them, whose vectors they are compared with."""
        return self.detection.model

    @property
    def count(self) -> int:
        """Regions of live items."""
        return sum(len(numbers) for _, numbers in self._spans) - len(self._gone)

    @property
    def lacking(self) -> int:
        """Live items that nobody looked for regions in."""
        ids = [shards.read_ids(self.folder, s) for s in self.manifest.shards if s.rows and "regions" not in s.files]
        return int(sum((~np.isin(own, self._removed)).sum() for own in ids))

    @property
    def unseen(self) -> int:
        """Live items that could not be looked at."""
        return sum(int((~np.isin(ids, self._removed)).sum()) for ids in self._unseen())

    def looked_through(self) -> Iterator[Int64]:
        """The live items that were looked through, whether anything was found or not: int64, shard after shard."""
        for (shard, _), unseen in zip(self._spans, self._unseen(), strict=True):
            ids = shards.read_ids(self.folder, shard)
            yield ids[~(np.isin(ids, self._removed) | np.isin(ids, unseen))]

    @property
    def approximate(self) -> bool:
        """Whether the search of regions goes by an index that may miss some."""
        index, _ = self._index("region")
        return index is not None and not (index.exhaustive and index.score_error == 0)

    def live(self, only: Int64 | None = None) -> Int64:
        """The numbers of all regions of live items, or of these items alone: int64 (r,), ascending."""
        numbers = self.numbers_of(only) if only is not None else np.arange(self._end)
        return numbers[~np.isin(numbers, self._gone)]

    def of(self, ids: Sequence[int] | Int64) -> Regions:
        """All regions of these items, `item` being the id, by ascending id and falling objectness.

        An item may have none: because there is none, or because nobody looked. NotFound for ids that are removed.
        """
        wanted = np.unique(np.asarray(ids, dtype=np.int64))
        gone = np.isin(wanted, self._removed)
        if gone.any():
            raise NotFound(f"Item {wanted[gone][0]} was removed from {self.folder}.")
        return self.take(self.numbers_of(wanted))

    def take(self, numbers: Int64) -> Regions:
        """The regions of these numbers, in their order. NotFound for a number that is none."""
        m = len(numbers)
        vectors, columns = np.empty((m, self.detection.dim), np.float32), np.empty((m, 7), np.float32)
        item = np.empty(m, np.int64)
        for at, position, part in self._located(numbers):
            vectors[at] = part.vectors[position]
            columns[at] = part.columns(position)
            item[at] = part.items(position)
        boxes, (objectness, shift, scale) = np.ascontiguousarray(columns[:, :4]), columns[:, 4:].T.copy()
        return Regions(vectors, boxes, item, objectness, shift, scale, self.model)

    def crop(self, id: int, box: Box) -> Float32 | None:
        """The vector of what is in a box, in the collection's own space, where that box is stored with one: (d,)."""
        if not self.detection.crops:
            return None
        numbers = self.numbers_of(np.array([id], np.int64))
        at = np.flatnonzero(np.abs(self.take(numbers).boxes - np.array(box)).max(axis=1, initial=0) <= SAME)
        return unit_rows(self._rows("crop").take(numbers[at[:1]]))[0] if len(at) else None

    def numbers_of(self, ids: Int64) -> Int64:
        """The numbers of all regions of these items, ascending: int64 (r,)."""
        found = [np.zeros(0, np.int64)]
        for i, (shard, numbers) in enumerate(self._spans):
            own = ids[(ids >= shard.first_id) & (ids <= shard.last_id)]
            if len(own) and len(numbers):
                found.append(numbers.start + self._part(i).rows_of(own))
        return np.sort(np.concatenate(found))

    def search(self, vectors: Float32, k: int, *, only: Int64 | None = None, space: Space = "region") -> RegionHits:
        """The k regions with the highest logits for each of some texts or examples; or the likest crops.

        vectors  float32 (m, d), unit rows: of the detector that found them, for crops of the collection's own model
        only     ids of the items that may be found

        NotFound where crops are not kept. InputError for vectors of another dimension, or k < 1.
        """
        if space == "crop" and not any("crop_emb" in shard.files for shard, _ in self._spans):
            raise NotFound(f"{self.folder} keeps no vectors of crops; find its regions anew with --crops.")
        dim = self.detection.dim if space == "region" else self.manifest.dim
        check_search(vectors, dim, k)
        questions = asked(vectors) if space == "region" else vectors
        index, recall = self._index(space)
        numbers = None if only is None else self.numbers_of(np.unique(only))
        if index is None:
            near = FlatIndex(self._rows(space)).search(questions, k, only=numbers)
            return RegionHits(self._items(near.ids), near.ids, near.scores, "exact", None)
        # Twice as many, because an index may know scores to its rounding only; its recall is measured so.
        found = index.search(questions, 2 * k, only=numbers, without=self._gone)
        ids, scores = np.full((len(vectors), k), -1, np.int64), np.full((len(vectors), k), -np.inf, np.float32)
        for i in range(len(vectors)):
            real = found.ids[i][found.ids[i] >= 0]
            exact = self._exact(space, real, vectors[i])
            order = np.lexsort((real, -exact))[:k]
            ids[i, : len(order)], scores[i, : len(order)] = real[order], exact[order]
        sure = index.exhaustive and index.score_error == 0
        return RegionHits(self._items(ids), ids, scores, "exact" if sure else "complete", recall)

    def info(self) -> dict[str, Any]:
        """What there is, as JSON values."""
        return {
            "detector": self.model.name,
            "dim": self.detection.dim,
            "most": self.detection.most,
            "crops": self.detection.crops,
            "count": self.count,
            "lacking": self.lacking,
            "unseen": self.unseen,
            "indices": [self._index_info(what) for what in ROLES if what == "region" or self.detection.crops],
        }

    def again(self, manifest: Manifest, removed: Int64) -> "CollectionRegions | None":
        """The same of a later commit, with what this one has open of its indices; None if that has no regions."""
        if manifest.detection is None:
            return None
        new = CollectionRegions(self.folder, manifest, removed)
        with self._lock:
            kept = {what: self._made["covered", what] for what in ROLES if ("covered", what) in self._made}
        before = {shard.number: numbers for shard, numbers in self._spans} if kept else {}
        now = {shard.number: numbers for shard, numbers in new._spans} if kept else {}
        for what, index in kept.items():
            entry = entry_of(manifest, what)
            same = entry is not None and entry == entry_of(self.manifest, what)
            if entry is not None and same and all(before[number] == now[number] for number in entry.shards):
                new._made["covered", what] = index
        return new

    @property
    def _spans(self) -> list[tuple[Shard, range]]:
        return self._once("spans", lambda: spans(self.folder, self.manifest))

    @property
    def _end(self) -> int:
        return self._spans[-1][1].stop if self._spans else 0

    @property
    def _gone(self) -> Int64:
        """The numbers of removed items' regions."""
        return self._once("gone", lambda: self.numbers_of(self._removed))

    def _unseen(self) -> Iterator[Int64]:
        """Of each shard the items that could not be looked at, removed ones too."""
        for shard, _ in self._spans:
            yield unseen_ids(pq.read_schema(shards.path_of(self.folder, shard, "regions")))

    def _rows(self, space: Space) -> Rows:
        dim = self.detection.dim if space == "region" else self.manifest.dim

        def make() -> Rows:
            parts = [(shard, numbers) for shard, numbers in self._spans if ROLES[space] in shard.files]
            return rows_of_regions(self.folder, parts, space, dim, self._gone)

        return self._once(("rows", space), make)

    def _index(self, space: Space) -> tuple[VectorIndex | None, float | None]:
        def make() -> tuple[VectorIndex | None, float | None]:
            covered = self._once(("covered", space), lambda: open_covered(self.folder, self.manifest, space))
            return open_index(self.folder, self.manifest, space, self._gone, covered)

        return self._once(("index", space), make)

    def _exact(self, space: Space, numbers: Int64, vector: Float32) -> Float32:
        """The scores of some regions, from what is stored of them."""
        if space == "crop":
            cosines: Float32 = self._rows(space).take(numbers) @ vector
            return cosines
        regions = self.take(numbers)
        cosine = regions.vectors.astype(np.float64) @ vector
        logits: Float32 = ((cosine + regions.shift) * regions.scale).astype(np.float32)
        return logits

    def _index_info(self, what: str) -> dict[str, Any]:
        entry = entry_of(self.manifest, what)
        covered = () if entry is None else entry.shards
        counts = {shard.number: len(numbers) for shard, numbers in self._spans}
        return {
            "name": what,
            "kind": None if entry is None else entry.kind,
            "recall": None if entry is None else entry.recall,
            "rows": 0 if entry is None else entry.rows,
            "not_covered": sum(
                counts[shard.number] for shard in shards_of(self.manifest, what) if shard.number not in covered
            ),
        }

    def _items(self, numbers: Int64) -> Int64:
        items = np.full(numbers.size, -1, np.int64)
        real = np.flatnonzero(numbers.reshape(-1) >= 0)
        for at, position, part in self._located(numbers.reshape(-1)[real]):
            items[real[at]] = part.items(position)
        return items.reshape(numbers.shape)

    def _located(self, numbers: Int64) -> list[tuple[Int64, Int64, "_Part"]]:
        """Which of the numbers lie in each shard, and at which rows there."""
        starts = np.array([n.start for _, n in self._spans], np.int64)
        end = self._end
        wrong = (numbers < 0) | (numbers >= end)
        if wrong.any():
            raise NotFound(f"{self.folder} has no region {numbers[wrong][0]}; there are {end:,}.")
        which = np.searchsorted(starts, numbers, side="right") - 1
        found = []
        for i in np.unique(which):
            at = np.flatnonzero(which == i)
            found.append((at, numbers[at] - starts[i], self._part(int(i))))
        return found

    def _part(self, i: int) -> "_Part":
        return self._once(("part", i), lambda: _Part(self.folder, self._spans[i][0]))

    def _once(self, what: Any, make: Callable[[], _T]) -> _T:
        with self._lock:
            if what not in self._made:
                self._made[what] = make()
            made: _T = self._made[what]
            return made


class _Part:
    """The regions of one shard, by row."""

    def __init__(self, folder: Path, shard: Shard) -> None:
        self._folder = folder
        self._file = shard.files["regions"]
        self._ids = shards.read_ids(folder, shard)
        self.vectors = shards.open_array(folder, shard, "region_emb")
        owners = read_table(folder, shard, ["id"])["id"].to_numpy()
        self._starts = np.searchsorted(owners, self._ids)  # (items,), 8 bytes for each instead of one id per region
        self._count = len(owners)

    def items(self, rows: Int64) -> Int64:
        """Whose the regions at these rows are."""
        # Items without regions start where the next one does; the last of those that start here has them.
        owner: Int64 = self._ids[np.searchsorted(self._starts, rows, side="right") - 1]
        return owner

    def rows_of(self, ids: Int64) -> Int64:
        """The rows of these items' regions."""
        at = np.searchsorted(self._ids, ids)
        at = at[self._ids[np.minimum(at, len(self._ids) - 1)] == ids]
        first = self._starts[at]
        counts = np.append(self._starts, self._count)[at + 1] - first
        before = np.cumsum(counts) - counts  # how many come before each item's first
        rows: Int64 = np.repeat(first - before, counts) + np.arange(counts.sum())
        return rows

    def columns(self, rows: Int64) -> Float32:
        """Box, objectness, shift and scale of the regions at these rows, float32 (m, 7); only their groups are read."""
        found = np.empty((len(rows), 7), np.float32)
        with reading(self._folder, [self._file]), pq.ParquetFile(self._folder / self._file.path) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
            starts = np.cumsum([0, *sizes])
            group = np.searchsorted(starts, rows, side="right") - 1
            for i in np.unique(group):
                table = file.read_row_group(int(i), columns=[*BOX, *NUMBERS], use_threads=False)
                values = np.stack([table[name].to_numpy() for name in (*BOX, *NUMBERS)], axis=1)
                at = group == i
                found[at] = values[rows[at] - starts[i]]
        return found
