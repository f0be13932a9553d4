"""What is read from a collection's folder at one commit: manifest, rows, indices, groups, background, metadata.

Opening costs no memory: vectors are mapped, and an index is read when a question first needs it.
"""

import os
import sys
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from clipsieve import manifest as manifests
from clipsieve import shards
from clipsieve.errors import CollectionChanged, CollectionDamaged, CollectionMissing, NotFound
from clipsieve.index import bare, costs, region_rows, screen
from clipsieve.index.calibrate import SAMPLE, Background
from clipsieve.index.coarse import bytes_of, make_coarse
from clipsieve.index.duplicates import Groups
from clipsieve.index.gather import GatheredScan, PassCounts
from clipsieve.index.image_places import ImageAccess
from clipsieve.index.kinds import (
    OLD_K,
    KindRecall,
    Source,
    at_effort,
    kinds_of,
    measured_sources,
    sample_of,
    shapes_of,
    to_json,
    use_for,
)
from clipsieve.index.metadata import FILTER_SECONDS, SqliteMetadata
from clipsieve.index.originals import Originals
from clipsieve.index.query import reach
from clipsieve.index.regions import CollectionRegions
from clipsieve.index.rows import TORCH_PAYS, Rows
from clipsieve.index.rule import Question, Ranked
from clipsieve.index.scan import DIRECT_SHARE, scan_threshold, scan_topk
from clipsieve.index.stored import (
    FLAT,
    ROLES,
    entry_of,
    open_coarse_rows,
    open_covered,
    open_groups,
    open_index,
    rows_of,
    shards_of,
)
from clipsieve.manifest import File, Manifest
from clipsieve.protocols import VectorIndex
from clipsieve.stored_regions import ROLES as REGIONS
from clipsieve.types import Float32, Int64
from clipsieve.whole import Watch, changed, require_whole

_T = TypeVar("_T")
Signature = tuple[int, int, int] | None

DUPLICATE_COSINE = 0.98
"""From which an item counts as an example's near-duplicate where no index has measured it."""


class Opened:
    """One commit of a collection. Safe to use from several threads at once; parts are made when first asked for.

    row_memory  bytes up to which a copy of the rows of a modality without an index is held for scans; 0 for none
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        removed: Int64,
        metadata: SqliteMetadata,
        signature: Signature,
        access: ImageAccess,
    ) -> None:
        self.folder = folder
        self.manifest = manifest
        self.removed = removed
        self.metadata = metadata
        self.originals = Originals(folder, manifest, metadata, access)
        self._access = access
        self.passes = {modality: PassCounts() for modality in ROLES}
        self.row_memory = 0
        self._signature = signature
        watched = watched_files(manifest)
        self._watch = Watch(folder, watched["items"])
        self._watch_regions = Watch(folder, watched["regions"])
        self._made: dict[tuple[str, str], Any] = {}
        self._lock = threading.RLock()

    @classmethod
    def of(
        cls,
        folder: Path,
        state: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        filter_s: float = FILTER_SECONDS,
        access: ImageAccess | None = None,
    ) -> "Opened":
        """The folder's last commit; arguments as `open_collection` has them."""
        while True:
            signature = signature_of(folder)  # before reading: what is committed meanwhile shows as stale
            try:
                return cls._at(folder, signature, state, progress, filter_s, access or ImageAccess())
            except (CollectionChanged, CollectionDamaged):
                if signature_of(folder) == signature:
                    raise  # else files went because of a commit made meanwhile

    @classmethod
    def _at(
        cls,
        folder: Path,
        signature: Signature,
        state: str | os.PathLike[str] | None,
        progress: Callable[[int, int], None] | None,
        filter_s: float,
        access: ImageAccess,
    ) -> "Opened":
        manifest = _manifest_of(folder)
        require_whole(folder, manifest)
        metadata = SqliteMetadata(folder, manifest, state=state, progress=progress, filter_s=filter_s)
        try:
            opened = cls(folder, manifest, shards.read_removed(folder, manifest), metadata, signature, access)
            for modality in opened.modalities:  # so that what is damaged is said now
                if modality == "image" or "image" not in opened.modalities:
                    opened.rows(modality)
        except BaseException:
            metadata.close()
            raise
        return opened

    @property
    def revision(self) -> str:
        """Another text for each commit."""
        return "-".join(f"{part:x}" for part in self._signature or ())

    @property
    def committed(self) -> float | None:
        """When this commit was made, in seconds since 1970; None where the folder does not say."""
        return None if self._signature is None else self._signature[0] / 1e9

    def stale(self) -> bool:
        """Whether the folder has a newer manifest, or another program that has none wrote to its files."""
        if signature_of(self.folder) != self._signature:
            return True
        return self._signature is None and self._watch.touched()

    def again(self) -> "Opened":
        """The folder's last commit, with the same cache brought up to it, and what it still has of the indices.

        Who is at work with this one may go on.
        """
        while True:
            signature = signature_of(self.folder)
            try:
                manifest = _manifest_of(self.folder)
                require_whole(self.folder, manifest)
                removed = shards.read_removed(self.folder, manifest)
                new = Opened(self.folder, manifest, removed, self.metadata.at(manifest), signature, self._access)
            except (CollectionChanged, CollectionDamaged):
                if signature_of(self.folder) == signature:
                    raise
            else:
                new._keep_indices(self)
                new.passes, new.row_memory = self.passes, self.row_memory
                return new

    @property
    def modalities(self) -> tuple[str, ...]:
        """What can be asked: "image", "text" or both."""
        if bare.is_manifest(self.manifest):
            return tuple(index.name for index in self.manifest.indices)
        return tuple(m for m in ("image", "text") if shards_of(self.manifest, m))

    @property
    def count(self) -> int:
        """Items, removed ones not counted."""
        return self.manifest.rows - self._stored(self.removed)

    def _stored(self, removed: Int64) -> int:
        """How many of these ids have a row still."""
        stored = 0
        for shard in self.manifest.shards if len(removed) else ():
            inside = removed[(removed >= shard.first_id) & (removed <= shard.last_id)]
            if len(inside):  # once compacted, an id between two others may be nobody's
                stored += int(np.isin(inside, shards.read_ids(self.folder, shard)).sum())
        return stored

    def rows(self, modality: str) -> Rows:
        """The live rows. NotFound if the collection has none of this modality."""
        if modality not in self.modalities and self.manifest.rows:
            what = "embeddings of captions" if modality == "text" else "embeddings of images"
            has = " and ".join(self.modalities) or "nothing"
            raise NotFound(f"{self.folder} holds no {what}; it can be asked by {has}.")
        self._look()
        return self._once("rows", modality, lambda: self._open_rows(modality))

    def index(self, modality: str) -> tuple[VectorIndex | None, float | None]:
        """The index of a modality and its measured recall; None where rows are read in order instead."""
        return self._once("index", modality, lambda: self._open_index(modality))

    def index_for(
        self, modality: str, question: Question, sources: Collection[Source] | None
    ) -> tuple[VectorIndex | None, float | None]:
        """The index as such questions use it, and its recall for them; the index is None where rows are read.

        sources  what the question's positives are; None where that is not known

        The recall is None where nothing is missed, and where it was not measured for such questions.
        """
        index, recall = self.index(modality)
        if index is None or recall is None or index.exhaustive:
            return index, recall
        kinds = self.kinds(modality)
        shapes = shapes_of(question, lambda: self._once("sample", modality, lambda: sample_of(self.rows(modality))))
        use = use_for(kinds, measured_sources(kinds) if sources is None else sources, shapes, reach(question))
        if not use.index:
            return None, None
        return self._once(f"index at {use.effort}", modality, lambda: at_effort(index, use.effort)), use.recall

    def kinds(self, modality: str) -> tuple[KindRecall, ...]:
        """What is known of the recall of an approximate index by kinds of questions."""
        entry = entry_of(self.manifest, modality)
        if entry is not None and not bare.is_manifest(self.manifest):
            return kinds_of(entry)
        recall = self.index(modality)[1]
        return () if recall is None else (KindRecall("image", "one", OLD_K, None, recall),)

    def scan(self, modality: str) -> GatheredScan:
        """Answers questions by reading all rows, those of several threads in one pass."""
        return self._once("scan", modality, lambda: GatheredScan(self._pass_over(modality), self.passes[modality]))

    def everything(self, modality: str, question: Question) -> Iterator[Ranked]:
        """Every item of the question's view, block by block in id order; its k and groups are not looked at."""
        rows = self.rows(modality)
        few = question.only is not None and len(question.only) < DIRECT_SHARE * rows.count
        look = None if few else self._look_of(modality)
        return scan_threshold(rows, question) if look is None else look.threshold(question)

    @property
    def groups(self) -> Groups:
        """Duplicate groups. NotFound where none were looked for."""
        return self._once("groups", "", lambda: open_groups(self.folder, self.manifest))

    @property
    def has_groups(self) -> bool:
        """Whether duplicate groups were looked for."""
        entry = entry_of(self.manifest, "image")
        return entry is not None and "groups" in entry.files

    @property
    def unseen_copies(self) -> str | None:
        """Which copies cannot be told, as a sentence; None where all can."""
        entry = entry_of(self.manifest, "image")
        if entry is None or "groups" not in entry.files:
            return None
        if "duplicate_ratio" not in entry.parameters:
            return (
                "No near-duplicates are left out: the index was made by a release that told them by vectors alone; "
                f"`clipsieve index {self.folder} --rebuild` looks for them again."
            )
        lacking = entry.rows - int(entry.parameters.get("hashed", 0))
        if not lacking:
            return None
        return (
            f"Of {lacking:,} of {entry.rows:,} images no near-duplicates are left out, only files of the same content: "
            "they have no perceptual hash, which `clipsieve inference` makes, and no thumbnail."
        )

    @property
    def regions(self) -> CollectionRegions:
        """What a detector found in the images. NotFound where none looked."""
        if self._watch_regions.require_same():
            with self._lock:
                self._made.pop(("regions", ""), None)
        return self._once("regions", "", lambda: CollectionRegions(self.folder, self.manifest, self.removed))

    def background(self, modality: str) -> Background:
        """The sample that calibration is measured on. InputError for a collection too small to have one."""
        return self._once("background", modality, lambda: self._open_background(modality))

    def keys(self, ids: Sequence[int] | Int64) -> list[str]:
        """The keys of these ids, in order. NotFound names one that was never given; CollectionChanged, see `_asked`."""
        return self._asked(self.metadata.keys, ids)

    def items(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        """The metadata rows of these ids, in order; else as `keys`."""
        return self._asked(lambda wanted: self.metadata.get(wanted, columns), ids)

    def _asked(self, read: Callable[[Sequence[int] | Int64], _T], ids: Sequence[int] | Int64) -> _T:
        """The cache may have followed somebody else to a later commit: CollectionChanged if rows of this one went."""
        self._look()  # keys are the end of an answer: vectors that were written to meanwhile are not answered from
        try:
            return read(ids)
        except NotFound as error:
            if self.rows(self.modalities[0]).has(np.asarray(ids, dtype=np.int64)).all():
                raise changed(self.folder) from error
            raise

    def require(self, ids: Sequence[int] | Int64) -> None:
        """NotFound if one of these was removed."""
        gone = np.isin(np.asarray(ids, dtype=np.int64), self.removed)
        if gone.any():
            raise NotFound(f"Item {np.asarray(ids)[gone][0]} was removed from {self.folder}.")

    def vectors(self, ids: Sequence[int] | Int64, modality: str = "image") -> Float32:
        """The stored vectors of these items, float32 (n, d), in order; NotFound names one that has none."""
        return self.rows(modality).take(np.asarray(ids, dtype=np.int64))

    def image_bytes(self, id: int, *, thumbnails: bool) -> bytes:
        """The encoded image of an item; its thumbnail, if allowed, where that is gone. NotFound for a removed item."""
        self.require([id])
        return self.originals.read(id, thumbnails=thumbnails)

    def image_file(self, id: int) -> Path:
        """The file that an item's image is. NotFound for a removed item, and where there is none."""
        self.require([id])
        return self.originals.file(id)

    def image_size(self, id: int) -> tuple[int, int]:
        """Width and height of an item's image. NotFound for a removed item, and where it is gone."""
        self.require([id])
        return self.originals.size(id)

    def id_of(self, image: int | str) -> int:
        """The item that an image example means: an id as it is, a content hash by the item that has it."""
        if isinstance(image, int):
            return image
        if "content_hash" in self.metadata.columns:
            found = self.metadata.select(f"content_hash = '{image}'")
            found = found[~np.isin(found, self.removed)]
            if len(found):
                return int(found[0])
        raise NotFound(f"No image of content hash {image[:12]}... was uploaded, and no item has it; upload it again.")

    def info(self, *, timed: bool = False) -> dict[str, Any]:
        """What the commit holds, as JSON values; see `Collection.info`."""
        manifest = self.manifest
        sources = manifest.sources
        known = {
            "folder": str(self.folder),
            "count": self.count,
            "removed": manifest.rows - self.count,
            "skipped": manifest.skipped,
            "restorable": self._stored(np.setdiff1d(self.removed, [i for s in manifest.shards for i in s.replaces])),
            "dim": manifest.dim,
            "shards": len(manifest.shards),
            "licence": manifest.licence,
            "bytes": costs.sizes(manifest, self.metadata.path),
            "indices": [self._index_info(modality, timed) for modality in self.modalities],
            "regions": None if manifest.detection is None else self.regions.info(),
            "columns": list(self.metadata.columns),
            "types": self.metadata.types,
            "inputs": sorted({source.input for source in sources}),
            "read_only": manifest.read_only,
        }
        return known | ({"advice": costs.advice(known)} if timed else {})

    def _index_info(self, modality: str, timed: bool) -> dict[str, Any]:
        manifest, entry = self.manifest, entry_of(self.manifest, modality)
        parts = [] if bare.is_manifest(manifest) else shards_of(manifest, modality)
        rest = [s for s in parts if entry is None or s.number not in entry.shards]
        read = parts if entry is None or entry.kind == FLAT else rest  # by every question
        known = {
            "name": modality,
            "kind": None if entry is None else entry.kind,
            "recall": None if entry is None else entry.recall,
            "kinds": [] if entry is None or entry.recall is None else to_json(kinds_of(entry)),
            "rows": 0 if entry is None else entry.rows,
            "search_ms": None if entry is None else entry.parameters.get("search_ms"),
            "not_covered": sum(s.rows for s in rest),
        }
        look = self._look_of(modality) if timed and known["kind"] == FLAT else None
        if look is not None:
            known["scan_ms"] = costs.look_ms(look, self.rows(modality))
        elif timed:
            known["scan_ms"] = costs.scan_ms(self.folder, manifest.dim, read, modality, self.removed)
        return known

    def close(self) -> None:
        """Let go of the files."""
        self.metadata.close()

    def _keep_indices(self, before: "Opened") -> None:
        with before._lock:
            for modality in ROLES:
                same = entry_of(self.manifest, modality) == entry_of(before.manifest, modality)
                if same and ("covered", modality) in before._made:
                    self._made["covered", modality] = before._made["covered", modality]
            regions = before._made.get(("regions", ""))
            kept = None if regions is None else regions.again(self.manifest, self.removed)
            if kept is not None:
                self._made["regions", ""] = kept

    def _open_rows(self, modality: str) -> Rows:
        if bare.is_manifest(self.manifest):
            return bare.make_rows(self.folder, self._parts(modality))
        return rows_of(self.folder, self.manifest.dim, shards_of(self.manifest, modality), modality, self.removed)

    def _pass_over(self, modality: str) -> Callable[[Sequence[Question]], list[Ranked]]:
        """Reads all rows, by a coarse copy of them where there is one."""
        look, rows = self._look_of(modality), self.rows(modality)
        if look is not None:
            return look.topk
        if self.index(modality)[0] is None and 4 * rows.dim * (rows.count + len(rows.without)) <= self.row_memory:
            rows = rows.in_memory()
        return lambda questions: scan_topk(rows, questions)[0]

    def _look_of(self, modality: str) -> screen.Screen | None:
        """A coarse copy of rows that no index answers for: the folder's, or one in memory where it fits."""
        return self._once("look", modality, lambda: self._open_look(modality))

    def _open_look(self, modality: str) -> screen.Screen | None:
        rows = self.rows(modality)
        if self.index(modality)[0] is not None or not screen.can_look():
            return None
        large = "torch" in sys.modules or rows.count * rows.dim >= TORCH_PAYS
        kept = open_coarse_rows(self.folder, self.manifest, modality, self.removed) if large else None
        if kept is None and bytes_of(rows) <= self.row_memory:
            return screen.Screen(rows, *make_coarse(rows))
        return kept

    def _open_index(self, modality: str) -> tuple[VectorIndex | None, float | None]:
        if bare.is_manifest(self.manifest):
            return bare.make_index(self.folder, self._parts(modality), self.rows(modality))
        covered = self._once("covered", modality, lambda: open_covered(self.folder, self.manifest, modality))
        return open_index(self.folder, self.manifest, modality, self.removed, covered)

    def _parts(self, modality: str) -> list[bare.Part]:
        return self._once("parts", modality, lambda: bare.open_parts(self.folder, modality))

    def _open_background(self, modality: str) -> Background:
        rows = self.rows(modality)
        ids = np.array(self.manifest.background, dtype=np.int64)
        ids = ids[rows.has(ids)]
        if len(ids) < min(SAMPLE, rows.count) // 2:  # none was kept, or most of it is gone
            ids = rows.sample(SAMPLE)
        entry = entry_of(self.manifest, "image")
        known = {} if entry is None else entry.parameters
        return Background(rows.take(ids), float(known.get("duplicate_cosine", DUPLICATE_COSINE)))

    def _look(self) -> None:
        """CollectionDamaged or CollectionChanged if the vectors, or an index, are no longer what was opened."""
        if self._watch.require_same():
            with self._lock:  # maps, and what was made of them, are of the file that was replaced
                self._made = {key: made for key, made in self._made.items() if key[0] == "regions"}

    def _once(self, what: str, modality: str, make: Callable[[], _T]) -> _T:
        with self._lock:
            if (what, modality) not in self._made:
                self._made[what, modality] = make()
            made: _T = self._made[what, modality]
            return made


def watched_files(manifest: Manifest) -> dict[str, list[File]]:
    """What questions about "items" read of the folder, and those about "regions". It may change under them."""
    found: dict[str, list[File]] = {"items": [], "regions": []}
    for shard in manifest.shards:
        for role, file in shard.files.items():
            if role not in ("skipped", "thumbs"):  # looked at whenever they are read
                found["regions" if role in REGIONS else "items"].append(file)
    for index in manifest.indices:
        found["regions" if index.name in region_rows.ROLES else "items"] += index.files.values()
    return found


def _manifest_of(folder: Path) -> Manifest:
    try:
        return shards.open_manifest(folder)
    except CollectionMissing:
        if not bare.is_bare(folder):
            raise
        return bare.make_manifest(folder)


def signature_of(folder: Path) -> Signature:
    """Changes whenever a manifest is committed."""
    try:
        status = (folder / manifests.NAME).stat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
