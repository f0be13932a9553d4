"""A collection's vectors as the room reads them: rows of one modality, which of them count, and its indices opened."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from clipsieve import shards
from clipsieve.errors import CollectionDamaged, CollectionError, NotFound
from clipsieve.index import coarse, region_rows
from clipsieve.index.duplicates import Groups
from clipsieve.index.flat import CombinedIndex, FlatIndex
from clipsieve.index.rows import Ids, Rows
from clipsieve.index.screen import Screen
from clipsieve.manifest import Index, Manifest, Shard
from clipsieve.protocols import VectorIndex
from clipsieve.types import Int64
from clipsieve.whole import reading

Modality = Literal["image", "text"]

ROLES: dict[str, str] = {"image": "img_emb", "text": "text_emb"}
"""Modality, which is also the index's name -> role of the shards' files."""

FLAT = "flat"
"""Kind of an index that is the shards themselves, read in order: there is no file of it."""


def shards_of(manifest: Manifest, modality: str) -> list[Shard]:
    """The shards that have rows of this modality, by ascending id."""
    role = (ROLES | region_rows.ROLES)[modality]
    return sorted((s for s in manifest.shards if s.rows and role in s.files), key=lambda s: s.first_id)


def rows_of(
    folder: Path, dim: int, parts: Sequence[Shard], modality: str, removed: Int64 | None = None, *, masked: bool = True
) -> Rows:
    """The rows of these shards without those removed, and, where `masked`, without texts of items without a caption."""
    without = [np.zeros(0, np.int64) if removed is None else removed]
    blocks: list[tuple[Ids, np.ndarray]] = []
    for shard in parts:
        ids = shards.read_ids(folder, shard)
        dense = shard.last_id - shard.first_id + 1 == shard.rows
        array = shards.open_array(folder, shard, ROLES[modality])
        if array.shape[1] != dim:
            raise CollectionDamaged(
                f"Shard {shard.number} of {folder} has {array.shape[1]} dimensions and its manifest says {dim}; run "
                "`clipsieve check`, then restore or embed again what it names."
            )
        blocks.append((range(shard.first_id, shard.last_id + 1) if dense else ids, array))
        if masked and modality == "text" and "metadata" in shard.files:
            without.append(ids[~shards.read_caption_mask(folder, shard)])
    return Rows(dim, blocks, np.unique(np.concatenate(without)))


def indexed_ids(folder: Path, parts: Sequence[Shard], modality: str) -> Int64:
    """The ids that an index over these shards has by position, ascending: all of them, or those with a caption."""
    if modality == "text":
        rows = rows_of(folder, shards.open_array(folder, parts[0], "text_emb").shape[1], parts, "text")
        return np.concatenate([ids.copy() for ids, _ in rows.blocks()] or [np.zeros(0, np.int64)])
    return np.concatenate([shards.read_ids(folder, shard) for shard in parts])


def all_rows(
    folder: Path, manifest: Manifest, parts: Sequence[Shard], modality: str, removed: Int64 | None = None
) -> Rows:
    """The rows that an index of these shards holds, or is asked for beside it: `rows_of`, or those of regions.

    removed  ids; of regions their numbers
    """
    if modality in ROLES:
        return rows_of(folder, manifest.dim, parts, modality, removed)
    assert manifest.detection is not None
    dim = manifest.detection.dim if modality == "region" else manifest.dim
    return region_rows.rows_of_regions(folder, _spans(folder, manifest, parts), modality, dim, removed)


def all_ids(folder: Path, manifest: Manifest, parts: Sequence[Shard], modality: str) -> Int64:
    """The ids that an index over these shards has by position: `indexed_ids`, or the numbers of regions."""
    if modality in ROLES:
        return indexed_ids(folder, parts, modality)
    return region_rows.numbers_of(_spans(folder, manifest, parts))


def _spans(folder: Path, manifest: Manifest, parts: Sequence[Shard]) -> list[tuple[Shard, range]]:
    wanted = {shard.number for shard in parts}
    return [(shard, numbers) for shard, numbers in region_rows.spans(folder, manifest) if shard.number in wanted]


def entry_of(manifest: Manifest, modality: str) -> Index | None:
    """The manifest's index of this modality, unless it covers shards that are gone."""
    entry = next((i for i in manifest.indices if i.name == modality), None)
    return entry if entry is not None and covers(manifest, entry) else None


def covers(manifest: Manifest, index: Index) -> bool:
    """Whether all shards that an index covers are there, with what it is made of."""
    return {shard.number for shard in shards_of(manifest, index.name)}.issuperset(index.shards)


def open_covered(folder: Path, manifest: Manifest, modality: str) -> VectorIndex | None:
    """The index of a modality over the shards that it covers, removed rows included; None where a scan is the index.

    CollectionDamaged if its file is not the one that the manifest names.
    """
    entry = entry_of(manifest, modality)
    if entry is None or entry.kind == FLAT:
        return None
    from clipsieve.index.train import open_faiss

    covered = [s for s in shards_of(manifest, modality) if s.number in entry.shards]
    return open_faiss(folder, entry, all_ids(folder, manifest, covered, modality))


def open_index(
    folder: Path, manifest: Manifest, modality: str, removed: Int64 | None = None, covered: VectorIndex | None = None
) -> tuple[VectorIndex | None, float | None]:
    """The index of a modality over all its shards, and its measured recall; None where a scan is the index.

    covered  what `open_covered` gives, if it is open already

    Shards that it does not cover are searched exhaustively beside it. The errors are those of `open_covered`.
    """
    index = covered or open_covered(folder, manifest, modality)
    entry = entry_of(manifest, modality)
    if index is None or entry is None:
        return None, None
    if modality in ROLES and index.exhaustive and index.score_error:
        return None, None  # no faster than reading the rows by their coarse copy, and less exact
    rest = [s for s in shards_of(manifest, modality) if s.number not in entry.shards]
    if not rest:
        return index, entry.recall
    return CombinedIndex(index, FlatIndex(all_rows(folder, manifest, rest, modality, removed))), entry.recall


def open_coarse_rows(folder: Path, manifest: Manifest, modality: str, removed: Int64) -> Screen | None:
    """The coarse copy of a modality's rows that was kept when it was indexed, ready to be asked; None without one.

    Shards that it does not cover are read beside it. CollectionDamaged if a file of it is not the one that the manifest
    names.
    """
    entry = entry_of(manifest, modality)
    if entry is None or not coarse.FILES.keys() <= entry.files.keys():
        return None
    parts = shards_of(manifest, modality)
    covered = [s for s in parts if s.number in entry.shards]
    rest = [s for s in parts if s.number not in entry.shards]
    if rest and rest[0].first_id < covered[-1].last_id:
        return None
    with reading(folder, [entry.files[role] for role in coarse.FILES]):
        paths = {role: folder / entry.files[role].path for role in coarse.FILES}
        found = coarse.open_coarse(paths, entry.rows, manifest.dim)
    ids = all_ids(folder, manifest, covered, modality)
    if len(ids) != entry.rows:
        raise CollectionDamaged(
            f"The coarse rows of {folder} are {entry.rows:,} and its shards have {len(ids):,}; run `clipsieve index "
            "--rebuild`."
        )
    own = all_rows(folder, manifest, covered, modality, removed)
    return Screen(own, ids, found, all_rows(folder, manifest, rest, modality, removed) if rest else None)


def open_groups(folder: Path, manifest: Manifest) -> Groups:
    """The duplicate groups that were found when the image index was made. NotFound if they never were."""
    entry = entry_of(manifest, "image")
    if entry is None or "groups" not in entry.files:
        raise NotFound(f"{folder} has no duplicate groups yet; run `clipsieve index {folder}` to find them.")
    covered = [s for s in shards_of(manifest, "image") if s.number in entry.shards]
    path = folder / entry.files["groups"].path
    groups: Int64
    try:
        with reading(folder, [entry.files["groups"]]):
            groups = np.load(path, mmap_mode="r")
    except CollectionError:
        raise
    except (OSError, ValueError) as error:
        raise CollectionDamaged(f"{path} cannot be read ({error}); run `clipsieve index --rebuild`.") from error
    ids = indexed_ids(folder, covered, "image")
    if groups.ndim == 1:  # of an index that went by vectors alone, which take likeness for copies
        return Groups(ids, ids)
    return Groups(ids, groups[0], groups[1])
