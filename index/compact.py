"""A collection without what was removed from it, and with its many small shards made into few.

New shards and new indices are written beside the old ones, one manifest brings them all, and then the old files go.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve import shards, stored_regions
from clipsieve.errors import InputError
from clipsieve.index.build import build_indices_of, clean_indices
from clipsieve.index.train import Progress
from clipsieve.manifest import Shard
from clipsieve.skips import current_skips
from clipsieve.stored_regions import read_regions
from clipsieve.types import Int64, Skipped
from clipsieve.writer import Draft, open_writer

MERGED = ("img_emb", "text_emb", "metadata", "thumbs", "skipped", *stored_regions.ROLES)
"""Roles of files that can be cut and joined by rows; a shard with others stays as it is."""

REGION_BYTES = 512 * 2**20
"""Vectors of regions in a joined shard at most: they are in memory while it is written."""


@dataclass(frozen=True, slots=True)
class Compacted:
    """What `compact` did: removed rows dropped, and shards before and after."""

    dropped: int
    before: int
    after: int


def compact(
    folder: str | os.PathLike[str], *, shard_size: int = 100_000, progress: Progress | None = None
) -> Compacted:
    """Rewrite the shards that hold removed items, join small ones, cut large ones, and index what is left; one commit.

    shard_size  most rows of a shard; larger ones are cut

    Ids stay as they are. A removed item's key and content are kept among the skipped ones, so that `clipsieve add` does
    not bring it back. Nothing is written if there is nothing to do. Readers that opened the folder before may meet a
    CollectionChanged, and open it again then. The errors are those of `open_writer`.
    """
    if shard_size < 1:
        raise InputError(f"shard_size is {shard_size}; it must be 1 or more.")
    with open_writer(folder) as writer:
        manifest, path = writer.manifest, Path(folder)
        removed = shards.read_removed(path, manifest)
        live = {shard.number: len(_live(path, shard, removed)) for shard in manifest.shards}
        groups = group_shards(manifest.shards, live, shard_size)
        untouched = [g[0] for g in groups if len(g) == 1 and live[g[0].number] == g[0].rows <= shard_size]
        changed = [g for g in groups if g[0] not in untouched]
        if not changed:
            return Compacted(0, len(manifest.shards), len(manifest.shards))
        draft, dismissed = Draft(path, manifest), shards.read_dismissed(path, manifest)
        kept, skips = list(untouched), current_skips(path, manifest)
        total, done = sum(s.rows for g in changed for s in g), 0
        for group in changed:
            kept += _rewrite(draft, group, removed, dismissed, skips, shard_size)
            done += sum(s.rows for s in group)
            if progress is not None:
                progress("compacting", done, total)
        kept += _still_skipped(draft, kept, skips)
        sources = [s.source for g in changed for s in g if s.source is not None and s not in kept]
        whole = dataclasses.replace(
            draft.manifest,
            shards=tuple(sorted(kept, key=lambda s: s.number)),
            retired=(*manifest.retired, *sources),
        )
        draft.commit(whole)
        if manifest.indices and whole.rows:
            build_indices_of(draft, progress=progress)
        there = {shard.number for shard in whole.shards}
        indices = tuple(index for index in draft.manifest.indices if there.issuperset(index.shards))
        writer.commit(dataclasses.replace(draft.manifest, indices=indices))
        writer.clean()
        clean_indices(path, writer.manifest)
    dropped = manifest.rows - whole.rows
    return Compacted(dropped, len(manifest.shards), len(whole.shards))


def group_shards(parts: Sequence[Shard], live: dict[int, int], shard_size: int) -> list[list[Shard]]:
    """Shards by ascending id, those together that are to become one: neighbours with the same kinds of files.

    live  number of each shard -> how many of its rows count
    """
    groups: list[list[Shard]] = []
    size = regions = 0
    for shard in sorted((s for s in parts if s.rows), key=lambda s: s.first_id):
        rows = live[shard.number]
        more = sum(shard.files[role].size for role in ("region_emb", "crop_emb") if role in shard.files)
        alike = bool(groups) and _kinds(groups[-1][0]) == _kinds(shard)
        fits = size + rows <= shard_size and regions + more <= REGION_BYTES
        if alike and fits and max(rows, size) < shard_size / 2:
            groups[-1].append(shard)
            size, regions = size + rows, regions + more
        else:
            groups.append([shard])
            size, regions = rows, more
    return groups + [[shard] for shard in parts if not shard.rows]


def _live(folder: Path, shard: Shard, removed: Int64) -> Int64:
    """Which rows of a shard count, ascending."""
    return np.flatnonzero(~np.isin(shards.read_ids(folder, shard), removed))


def _kinds(shard: Shard) -> frozenset[str]:
    return frozenset(shard.files) - {"skipped"}


def _rewrite(
    draft: Draft,
    group: Sequence[Shard],
    removed: Int64,
    dismissed: set[int],
    skips: Mapping[int, list[Skipped]],
    shard_size: int,
) -> list[Shard]:
    """The group in as few new shards as its rows need, written; the group itself where it cannot be cut or joined."""
    folder = draft.folder
    if any(_kinds(shard) - set(MERGED) for shard in group):
        return list(group)
    live = {shard.number: _live(folder, shard, removed) for shard in group}
    tables = [shards.read_metadata(folder, shard) for shard in group]
    try:
        table = pa.concat_tables(
            [t.take(live[s.number]) for t, s in zip(tables, group, strict=True)], promote_options="default"
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError):  # a column that has another type in each of them
        if len(group) == 1:
            return list(group)
        return [new for shard in group for new in _rewrite(draft, [shard], removed, dismissed, skips, shard_size)]
    skipped = [skip for shard in group for skip in skips[shard.number]]
    for old in tables:
        skipped += _dismissed(old, dismissed)

    def joined(role: str) -> Any:
        return np.concatenate([shards.open_array(folder, shard, role)[live[shard.number]] for shard in group])

    arrays = {role: joined(role) for role in ("img_emb", "text_emb") if role in group[0].files}
    thumbs = None
    if "thumbs" in group[0].files:
        thumbs = pa.concat_tables([shards.read_thumbs(folder, s).take(live[s.number]) for s in group])
    regions = None
    if "regions" in group[0].files:
        regions = stored_regions.join([read_regions(folder, s).take(live[s.number]) for s in group])
    if not len(table) and not skipped:
        return []
    made = []
    for first in range(0, max(1, len(table)), shard_size):
        rows = slice(first, first + shard_size)
        some = np.arange(len(table), dtype=np.int64)[rows]
        made.append(
            draft.rewrite(
                {role: array[rows] for role, array in arrays.items()},
                table.slice(first, shard_size),
                None if thumbs is None else thumbs.slice(first, shard_size),
                [] if first else skipped,
                None if regions is None else regions.take(some),
            )
        )
    return made


def _still_skipped(draft: Draft, kept: Sequence[Shard], before: Mapping[int, Sequence[Skipped]]) -> list[Shard]:
    """A shard that lists what counts as skipped before and would not any more, in `kept`; [] without any.

    An image that came in and could not be read once it changed is such a one: the row, in a new shard, would seem to
    come after the skip in an old one.
    """
    after = current_skips(draft.folder, dataclasses.replace(draft.manifest, shards=tuple(kept)))
    there = {(skip.key, skip.reason) for some in after.values() for skip in some}
    lost = [skip for some in before.values() for skip in some if (skip.key, skip.reason) not in there]
    return [draft.rewrite({}, pa.table({"id": pa.array([], pa.int64())}), None, lost)] if lost else []


def _dismissed(table: pa.Table, dismissed: set[int]) -> list[Skipped]:
    """The rows of a shard that somebody removed on purpose, as skipped inputs, where it is known what they were."""
    if "content_hash" not in table.column_names:
        return []
    rows = table.select(["id", "key", "content_hash"]).to_pylist()
    return [
        Skipped(r["key"], shards.DISMISSED, r["content_hash"])
        for r in rows
        if r["id"] in dismissed and r["content_hash"]
    ]
