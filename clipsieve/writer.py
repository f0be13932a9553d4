"""The collection folder, write side: shards are added, items removed, manifests committed, by one writer at a time."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import foreign
from clipsieve import manifest as manifests
from clipsieve.durable import TEMPORARY, append_line, write_file
from clipsieve.errors import CollectionMissing, CollectionReadOnly, InputError, NotFound
from clipsieve.lock import writer_lock
from clipsieve.manifest import File, Manifest, Shard, Source, commit, read_manifest
from clipsieve.output_path import require_collection_path
from clipsieve.shards import OWN_COLUMNS, REMOVED, ROLES, read_ids, read_metadata, read_removed
from clipsieve.stored_regions import ROLES as REGIONS
from clipsieve.stored_regions import StoredRegions, region_table, require_stored, write_table
from clipsieve.types import Embeddings, Int64, Skipped
from clipsieve.whole import describe_file, require_whole

THUMB_ROWS = 64
"""Rows in a row group of thumbs/: what has to be read to show one of them."""


@contextlib.contextmanager
def open_writer(
    folder: str | os.PathLike[str],
    new: Manifest | None = None,
    *,
    damaged: bool = False,
    waiting: Callable[[str], object] | None = None,
) -> Iterator["Writer"]:
    """The folder's one writer, for the length of the block.

    new  the manifest to start from where the folder has none yet; ignored where it has one, except that another model
         or dimension is a ModelMismatch or InputError
    damaged  open it even where files are not as they were written: to mend it
    waiting  wait for another writer, and say so; see `lock.writer_lock`

    CollectionDamaged if files are not as they were written, since what is made of them would be taken for whole;
    CollectionLocked if somebody else writes; CollectionReadOnly for a folder of clip-retrieval; CollectionMissing
    without a collection and without `new`.
    """
    require_collection_path(folder)
    path = Path(folder)
    has_manifest = (path / manifests.NAME).exists()
    if not has_manifest:
        if foreign.is_foreign(path):
            raise CollectionReadOnly(
                f"{path} was written by clip-retrieval and opens for reading only; `clipsieve import` it to add to it."
            )
        if new is None:
            raise CollectionMissing(f"{path} holds no collection; give the folder that `clipsieve inference` wrote.")
        path.mkdir(parents=True, exist_ok=True)
    with writer_lock(path, waiting):
        # Looked at again under the lock: another writer may have committed the first manifest meanwhile.
        if new is not None and not (path / manifests.NAME).exists():
            commit(path, new)
        writer = Writer(path, read_manifest(path))
        if new is not None:
            _require_compatible(path, writer.manifest, new)
        if not damaged:
            require_whole(path, writer.manifest)
        writer.clean()
        yield writer


class Place(NamedTuple):
    """Where an item lies: its key, and the path as text and time in seconds since 1970 of a file of its own."""

    key: str
    path: str | None
    mtime: float | None


class Writer:
    """Adds to a folder whose lock is held; made by `open_writer`. Each method that commits is durable on return."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def append(
        self,
        images: Embeddings,
        *,
        texts: Embeddings | None = None,
        captions: Sequence[str | None] | None = None,
        image_paths: Sequence[str | None] | None = None,
        columns: Mapping[str, Sequence[object]] | None = None,
        thumbs: Sequence[bytes | None] | None = None,
        regions: StoredRegions | None = None,
        skipped: Sequence[Skipped] = (),
        source: Source | None = None,
        replaces: Sequence[int] = (),
    ) -> Shard:
        """Write one shard of n items, which get the next n ids, and commit it.

        images       their vectors, stored as float16, and keys; n may be 0 if something was skipped
        texts        caption vectors, float32 (n, d), same keys. A row whose caption is missing must still be a unit
                     vector (that of the empty text, say) and is masked: zeros would beat every negative cosine
        captions     n strings; None or blank is no caption
        image_paths  n paths for those who open the original; None where it is no file
        columns      further metadata, n values each; mixed types in one column are an InputError
        thumbs       n small encoded images; None where there is none
        regions      of the n items, found by the detector that the manifest names
        skipped      inputs passed over on the way
        source       how far the input was read; its counts must be n and len(skipped)
        replaces     ids that count as removed from this commit on, since these items take their place
        """
        manifest = self.manifest
        n = len(images.keys)
        _require_same_space(self.folder, manifest, images, "The images' vectors")
        if texts is not None:
            _require_same_space(self.folder, manifest, texts, "The captions' vectors")
            if texts.keys != images.keys:
                raise InputError("The captions' keys are not those of the images; pass one row per image, in order.")
        if source is not None and (source.embedded, source.skipped) != (n, len(skipped)):
            raise InputError(
                f"The source counts {source.embedded} embedded and {source.skipped} skipped, but {n} vectors and "
                f"{len(skipped)} skipped inputs were passed."
            )
        if thumbs is not None and len(thumbs) != n:
            raise InputError(
                f"There are {len(thumbs)} thumbnails for {n} items; pass one each, None where there is none."
            )
        if n == 0 and not skipped:
            raise InputError("A shard of no items and nothing skipped says nothing; do not append it.")

        table = _metadata_table(manifest.next_id, images.keys, image_paths, captions, columns or {})
        number = manifest.next_shard
        files = {}
        if n:
            files["img_emb"] = self._write_array("img_emb", number, images.vectors)
            files["metadata"] = self._write_table("metadata", number, table)
            if texts is not None:
                files["text_emb"] = self._write_array("text_emb", number, texts.vectors)
            if thumbs is not None:
                rows = {"id": table["id"], "thumb": pa.array(thumbs, pa.binary())}
                files["thumbs"] = self._write_table("thumbs", number, pa.table(rows), THUMB_ROWS)
            if regions is not None:
                files |= self._write_regions(number, table["id"].to_numpy(), regions)
        if skipped:
            files["skipped"] = self._write_skipped(number, skipped)
        first, last = (manifest.next_id, manifest.next_id + n - 1) if n else (-1, -1)
        shard = Shard(number, n, first, last, files, source, tuple(replaces))
        self.commit(
            dataclasses.replace(
                manifest,
                shards=(*manifest.shards, shard),
                next_id=manifest.next_id + n,
                next_shard=number + 1,
            )
        )
        return shard

    def add_regions(self, number: int, regions: StoredRegions) -> None:
        """Give a shard that is there, and has none yet, the regions of its items, and commit."""
        old = next(s for s in self.manifest.shards if s.number == number)
        if "regions" in old.files:
            raise InputError(f"Shard {number} of {self.folder} has regions already; drop them first.")
        new = dataclasses.replace(
            old, files={**old.files, **self._write_regions(number, read_ids(self.folder, old), regions)}
        )
        kept = tuple(new if s is old else s for s in self.manifest.shards)
        self.commit(dataclasses.replace(self.manifest, shards=kept))

    def drop_regions(self) -> None:
        """Let go of all regions, of their indices, and of the detector that found them, and commit."""
        shards = tuple(
            dataclasses.replace(s, files={role: f for role, f in s.files.items() if role not in REGIONS})
            for s in self.manifest.shards
        )
        indices = tuple(i for i in self.manifest.indices if i.name not in ("region", "crop"))
        self.commit(dataclasses.replace(self.manifest, shards=shards, indices=indices, detection=None))
        self.clean()

    def commit(self, manifest: Manifest) -> None:
        """Make `manifest` the folder's. Ids and shard numbers must not run backwards."""
        if manifest.next_id < self.manifest.next_id or manifest.next_shard < self.manifest.next_shard:
            raise InputError(
                f"The new manifest of {self.folder} would give ids from {manifest.next_id} and shards from "
                f"{manifest.next_shard} again, which were given already; start from the writer's own manifest."
            )
        commit(self.folder, manifest)
        self.manifest = manifest

    def remove(self, ids: Sequence[int], *, gone: bool = False) -> None:
        """Mark items as removed. NotFound, and nothing removed, if an id was never given. Twice is no error.

        gone  their files are no longer there: should they come back, `clipsieve add` takes them again
        """
        if len(ids):
            self.commit(dataclasses.replace(self.manifest, removed=self._list(ids, {"gone": gone})))

    def restore(self, ids: Sequence[int]) -> None:
        """Take back that items were removed. Their rows must be there: see `restoring.restore`, which looks first."""
        if len(ids):
            removed = self._list(ids, {"restored": True})
            version = max(self.manifest.format_version, manifests.RESTORING)
            self.commit(dataclasses.replace(self.manifest, removed=removed, format_version=version))

    def note_input(self, input: str) -> None:
        """Note an input below which items lie now that were read from another one. Nothing if it is known."""
        if all(source.input != input for source in self.manifest.sources):
            found = Source(input, cursor=0, read=0, embedded=0, skipped=0, added=True)
            self.commit(dataclasses.replace(self.manifest, retired=(*self.manifest.retired, found)))

    def move(self, places: Mapping[int, Place], displaced: Sequence[int] = ()) -> None:
        """Note where the files of items lie now; ids and all else stay. One commit.

        displaced  ids to mark as removed with it, since their files were overwritten
        """
        found = []
        for shard in self.manifest.shards:
            at = [i for i in places if shard.rows and shard.first_id <= i <= shard.last_id]
            found.append(self._moved(shard, {i: places[i] for i in at}) if at else shard)
        removed = self._list(displaced, {"gone": True}) if displaced else self.manifest.removed
        self.commit(dataclasses.replace(self.manifest, shards=tuple(found), removed=removed))
        self.clean()

    def _moved(self, shard: Shard, places: Mapping[int, Place]) -> Shard:
        """The shard with a metadata file in which these of its items have new places."""
        table = read_metadata(self.folder, shard)
        rows = {id: row for row, id in enumerate(table["id"].to_pylist()) if id in places}
        for name, part in (("key", 0), ("image_path", 1), ("mtime", 2)):
            if name not in table.column_names:
                continue
            values = table[name].to_pylist()
            for id, row in rows.items():
                values[row] = places[id][part]
            at = table.column_names.index(name)
            type_ = table.schema.field(name).type
            table = table.set_column(at, name, pa.array(values, None if pa.types.is_null(type_) else type_))
        # Under a name of its own, since readers and the last commit have the old one; sorted where that was.
        before = re.fullmatch(r"(.*?)(?:\.r(\d+))?\.parquet", shard.files["metadata"].path)
        assert before is not None
        path = self.folder / f"{before[1]}.r{int(before[2] or 0) + 1}.parquet"
        write_file(path, lambda file: pq.write_table(table, file, compression="zstd"))
        return dataclasses.replace(shard, files={**shard.files, "metadata": self.file(path)})

    def _list(self, ids: Sequence[int], line: Mapping[str, object]) -> File:
        """Append a line to the list of removed items, which counts once it is committed."""
        wanted = [int(i) for i in ids]
        for i in wanted:
            if not 0 <= i < self.manifest.next_id:
                raise NotFound(f"{self.folder} has no item {i}; its ids run from 0 to {self.manifest.next_id - 1}.")
        path, counts = self.folder / REMOVED, self.manifest.removed
        read_removed(self.folder, self.manifest)  # nothing is added to a list that is damaged
        since = datetime.now(UTC).isoformat(timespec="seconds")
        append_line(path, {"ids": wanted, "since": since, **line}, 0 if counts is None else counts.size)
        return self.file(path)

    def clean(self) -> list[str]:
        """Delete what dead writers left: shard files that the manifest does not name. Foreign files are let be.

        Returns their paths, relative to the folder.
        """
        named = {file.path for shard in self.manifest.shards for file in shard.files.values()}
        garbage = [
            f"{role}/{path.name}"
            for role, suffix in ROLES.items()
            for path in sorted((self.folder / role).glob("*"))
            if re.fullmatch(rf"{role}_\d{{6,}}(\.r\d+)?{re.escape(suffix)}", _without_temporary(path.name))
            and f"{role}/{path.name}" not in named
        ]
        garbage += [
            path.name
            for path in sorted(self.folder.glob(f".*{TEMPORARY}"))
            if re.fullmatch(r"clipsieve\.json|\w+\.index", _without_temporary(path.name))
        ]
        for path in garbage:
            (self.folder / path).unlink(missing_ok=True)  # over a network a list may be older than what it lists
        return garbage

    def file(self, path: Path) -> File:
        """The manifest's entry for a file in the folder: its size and checksum as they are now."""
        return describe_file(self.folder, path)

    def _write_array(self, role: str, number: int, vectors: npt.NDArray[Any]) -> File:
        stored = vectors.astype(self.manifest.dtype)
        return self._write(role, number, lambda file: write_array(file, stored))

    def _write_table(self, role: str, number: int, table: pa.Table, group: int | None = None) -> File:
        def write(file: BinaryIO) -> None:
            pq.write_table(table, file, compression="zstd", row_group_size=group)

        return self._write(role, number, write)

    def _write_regions(self, number: int, ids: Int64, regions: StoredRegions) -> dict[str, File]:
        require_stored(regions, len(ids), self.manifest.detection, self.manifest.dim)
        files = {
            "region_emb": self._write_array("region_emb", number, regions.vectors),
            "regions": self._write("regions", number, lambda file: write_table(file, region_table(ids, regions))),
        }
        if regions.crops is not None:
            files["crop_emb"] = self._write_array("crop_emb", number, regions.crops)
        return files

    def _write_skipped(self, number: int, skipped: Sequence[Skipped]) -> File:
        names = ("key", "reason", "content_hash", "limits")
        rows = {name: [getattr(s, name) for s in skipped] for name in names}
        return self._write_table("skipped", number, pa.table(rows, schema=pa.schema([(n, pa.string()) for n in names])))

    def _write(self, role: str, number: int, write: Callable[[BinaryIO], object]) -> File:
        path = self.folder / role / f"{role}_{number:06d}{ROLES[role]}"
        path.parent.mkdir(exist_ok=True)
        write_file(path, write)
        return self.file(path)


class Draft(Writer):
    """A writer whose commits stay in memory: what it leads to is put together, and committed by another writer."""

    def commit(self, manifest: Manifest) -> None:
        """Keep `manifest` as this writer's own."""
        self.manifest = manifest

    def rewrite(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        metadata: pa.Table,
        thumbs: pa.Table | None,
        skipped: Sequence[Skipped],
        regions: StoredRegions | None = None,
    ) -> Shard:
        """Write a shard of n items that have their ids already, ascending; the manifest only learns of its number.

        arrays    role -> vectors (n, d)
        metadata  n rows with all columns
        thumbs    n rows of id and thumb
        regions   of the n items
        """
        number, n = self.manifest.next_shard, len(metadata)
        files = {}
        if n:
            files = {role: self._write_array(role, number, array) for role, array in arrays.items()}
            files["metadata"] = self._write_table("metadata", number, metadata)
            if thumbs is not None:
                files["thumbs"] = self._write_table("thumbs", number, thumbs, THUMB_ROWS)
            if regions is not None:
                files |= self._write_regions(number, metadata["id"].to_numpy(), regions)
        if skipped:
            files["skipped"] = self._write_skipped(number, skipped)
        self.commit(dataclasses.replace(self.manifest, next_shard=number + 1))
        ids = metadata["id"].to_numpy()
        return Shard(number, n, int(ids[0]) if n else -1, int(ids[-1]) if n else -1, files)


def write_array(file: BinaryIO, array: npt.NDArray[Any]) -> None:
    """Write an array in numpy's format. On a full disk numpy itself would say only how much was written."""
    array = np.ascontiguousarray(array)
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(array.data)


def _metadata_table(
    first_id: int,
    keys: Sequence[str],
    image_paths: Sequence[str | None] | None,
    captions: Sequence[str | None] | None,
    columns: Mapping[str, Sequence[object]],
) -> pa.Table:
    n = len(keys)
    captions = [None] * n if captions is None else captions
    values = {
        "id": pa.array(np.arange(first_id, first_id + n, dtype=np.int64)),
        "key": pa.array(keys, pa.string()),
        "image_path": pa.array([None] * n if image_paths is None else image_paths, pa.string()),
        "caption": pa.array(captions, pa.string()),
        "has_caption": pa.array([c is not None and bool(c.strip()) for c in captions], pa.bool_()),
    }
    for name, column in columns.items():
        if name in OWN_COLUMNS:
            raise InputError(f"The column name {name!r} is taken; rename yours.")
        try:
            values[name] = pa.array(column)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"The column {name!r} mixes types ({error}); make its values of one type.") from error
    for name, value in values.items():
        if len(value) != n:
            raise InputError(f"The column {name!r} has {len(value)} values for {n} items; it needs one each.")
    return pa.table(values)


def _require_same_space(folder: Path, manifest: Manifest, vectors: Embeddings, what: str) -> None:
    if manifest.model is not None:
        manifest.model.require(vectors.model, what)
    if vectors.vectors.shape[1] != manifest.dim:
        raise InputError(f"{what} have {vectors.vectors.shape[1]} dimensions and those of {folder} {manifest.dim}.")


def _require_compatible(folder: Path, there: Manifest, new: Manifest) -> None:
    if there.model is not None and new.model is not None:
        there.model.require(new.model, f"What is to be added to {folder}")
    if there.decoding != new.decoding:
        raise InputError(
            f"{folder} is of images decoded as --decode {there.decoding} has it, not {new.decoding}; go on with that, "
            "or choose another folder."
        )
    if there.dim != new.dim:
        raise InputError(f"{folder} holds vectors of {there.dim} dimensions, not {new.dim}; choose another folder.")


def _without_temporary(name: str) -> str:
    return name.removeprefix(".").removesuffix(TEMPORARY) if name.endswith(TEMPORARY) else name
