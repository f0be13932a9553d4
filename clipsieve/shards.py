"""The collection folder, read side. `writer.py` is the other.

With `manifest.py` (what exists), `foreign.py` (folders of clip-retrieval) and `lock.py` (one writer), these two are all
that knows the format:

    img_emb/img_emb_000000.npy            float16 (rows, d), unit rows, C order
    text_emb/text_emb_000000.npy          the same for captions; rows without one are masked by has_caption
    metadata/metadata_000000.parquet      id int64, key, image_path, caption, has_caption, and the caller's columns
    skipped/skipped_000000.parquet        key, reason, content_hash, limits: inputs that could not be read
    removed.jsonl                         {"ids": [...], "since": "...", "gone": bool, "crc": "..."} per line;
                                          "restored": true in place of "gone" where they were taken back

Regions, where a detector found some, are what `stored_regions.py` knows.

A reader takes no lock. It holds one Manifest, and all it opens belongs to that commit.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from clipsieve import foreign, peer_tables
from clipsieve import manifest as manifests
from clipsieve.arrays import UNREADABLE, map_array
from clipsieve.checked_tables import FAULTS, read_parquet
from clipsieve.durable import read_lines
from clipsieve.errors import CollectionDamaged, CollectionMissing, NotFound
from clipsieve.manifest import Manifest, Shard, read_manifest
from clipsieve.output_path import require_collection_path
from clipsieve.types import Int64, Skipped
from clipsieve.whole import problem_of, why_absent

ROLES = {
    "img_emb": ".npy",
    "text_emb": ".npy",
    "metadata": ".parquet",
    "skipped": ".parquet",
    "region_emb": ".npy",
    "regions": ".parquet",
    "crop_emb": ".npy",
    "thumbs": ".parquet",
}
"""Role of a shard's file -> its suffix. The role is also the name of the folder it lies in."""

REMOVED = "removed.jsonl"

_ALWAYS = {"id": pa.int64(), "key": pa.string(), "has_caption": pa.bool_()}
"""Columns that every row of our own metadata has a value of."""

DISMISSED = "It was removed from the collection."
"""Why an item is skipped that somebody removed and `compact` dropped; it is not tried again."""

OWN_COLUMNS = ("id", "key", "image_path", "caption", "has_caption")
"""Columns that `writer.Writer.append` fills itself."""


def open_manifest(folder: str | os.PathLike[str]) -> Manifest:
    """The folder's manifest, or one made up for a folder of clip-retrieval (`read_only`, `model` None, ids = rows).

    CollectionMissing if the folder is neither.
    """
    require_collection_path(folder)
    path = Path(folder)
    if not (path / manifests.NAME).exists() and foreign.is_foreign(path):
        return foreign.make_manifest(path)
    if not path.is_dir():
        raise CollectionMissing(f"{path} is not a folder; give the folder that `clipsieve inference` wrote.")
    return read_manifest(path)


def open_array(folder: str | os.PathLike[str], shard: Shard, role: str = "img_emb") -> npt.NDArray[Any]:
    """The shard's vectors as a read-only memory map (rows, d), of the manifest's dtype.

    NotFound if the shard has no such file; CollectionDamaged if file and manifest disagree; CollectionChanged if a
    later commit is without the file. A shard of no rows has no vectors: pass over those with `rows` 0.
    """
    path = path_of(folder, shard, role)
    try:
        array = map_array(path)
    except FileNotFoundError:
        raise why_absent(folder, shard.files[role]) from None
    except UNREADABLE as error:
        raise _damaged(path, f"cannot be mapped ({error})") from error
    if array.dtype.kind != "f" or not array.dtype.isnative:
        raise _damaged(path, f"holds {array.dtype} instead of vectors")
    if array.ndim != 2 or (role not in ("region_emb", "crop_emb") and len(array) != shard.rows):
        raise _damaged(path, f"has shape {array.shape} where the manifest counts {shard.rows} rows")
    return array


def read_metadata(folder: str | os.PathLike[str], shard: Shard, columns: Sequence[str] | None = None) -> pa.Table:
    """The shard's metadata in row order: all columns, or those named that it has, in the order named.

    `id`, `key` and `has_caption` are always there; for folders of clip-retrieval they are made up.
    """
    table = _read_table(folder, shard, "metadata", columns) if "metadata" in shard.files else pa.table({})
    if "metadata" not in shard.files or not shard.files["metadata"].sha256:
        table = foreign.complete(table, shard)
    if columns is None:
        return table
    places: dict[str, list[int]] = {}  # tables of others may have a name twice
    for place, name in enumerate(table.column_names):
        places.setdefault(name, []).append(place)
    return table.select([place for name in columns for place in places.get(name, ())])


def read_ids(folder: str | os.PathLike[str], shard: Shard) -> Int64:
    """The ids of the shard's rows, int64 (rows,), ascending."""
    if shard.rows == 0 or shard.last_id - shard.first_id + 1 == shard.rows:
        return np.arange(shard.first_id, shard.first_id + shard.rows, dtype=np.int64)
    ids: Int64 = read_metadata(folder, shard, ["id"])["id"].to_numpy()
    return ids


def read_caption_mask(folder: str | os.PathLike[str], shard: Shard) -> npt.NDArray[np.bool_]:
    """bool (rows,): True where the item has a caption. Only those rows of text_emb mean anything."""
    mask: npt.NDArray[np.bool_] = read_metadata(folder, shard, ["has_caption"])["has_caption"].to_numpy()
    return mask


def read_skipped(folder: str | os.PathLike[str], shard: Shard) -> list[Skipped]:
    """The inputs that were passed over while this shard was made, in the order read.

    Earlier versions kept no `limits`: what they skipped is worth another try, except what somebody removed.
    """
    if "skipped" not in shard.files:
        return []
    path = path_of(folder, shard, "skipped")
    try:
        rows = read_parquet(path, trusted=bool(shard.files["skipped"].sha256)).to_pylist()
        return [
            Skipped(
                row["key"],
                row["reason"],
                row.get("content_hash"),
                None if row["reason"] == DISMISSED else row.get("limits", ""),
            )
            for row in rows
        ]
    except FileNotFoundError:
        raise why_absent(folder, shard.files["skipped"]) from None
    except (*FAULTS, KeyError) as error:
        raise _damaged(path, f"is no list of what was skipped ({error})") from error


def read_removed(folder: str | os.PathLike[str], manifest: Manifest) -> Int64:
    """Ids that were removed or replaced: int64 (r,), ascending, each once. Their rows are still in the shards."""
    ids = [i for shard in manifest.shards for i in shard.replaces]
    ids += _standing(read_removals(folder, manifest))
    return np.unique(np.array(ids, dtype=np.int64))


def read_dismissed(folder: str | os.PathLike[str], manifest: Manifest) -> set[int]:
    """Ids that somebody removed on purpose, and not because their files had gone."""
    return {i for i, gone in _standing(read_removals(folder, manifest)).items() if not gone}


def read_thumbs(folder: str | os.PathLike[str], shard: Shard) -> pa.Table:
    """The shard's small images: id, thumb (encoded, null where there is none), in row order."""
    return _read_table(folder, shard, "thumbs", None)


def _standing(removals: Sequence[Mapping[str, Any]]) -> dict[int, bool]:
    """Ids that are removed after all of these lines -> whether that is only because their files had gone."""
    gone: dict[int, bool] = {}
    for line in removals:
        for i in line["ids"]:
            if "restored" in line:
                gone.pop(i, None)
            else:
                gone[i] = gone.get(i, True) and line["gone"]
    return gone


def read_removals(folder: str | os.PathLike[str], manifest: Manifest) -> list[dict[str, Any]]:
    """The lines of the list of removed items, in order, without those named by a shard's `replaces`."""
    if manifest.removed is None:
        return []
    path = Path(folder) / REMOVED
    lines = read_lines(path, manifest.removed.size)  # names the line that is damaged
    problem = problem_of(folder, manifest.removed)
    if problem is not None:
        raise CollectionDamaged(
            f"{Path(folder) / problem} Restore it from a copy, or run `clipsieve check --repair`, which keeps the "
            "lines that can be read."
        )
    return lines


def _read_table(folder: str | os.PathLike[str], shard: Shard, role: str, columns: Sequence[str] | None) -> pa.Table:
    path = path_of(folder, shard, role)
    try:
        if not shard.files[role].sha256:  # it may need columns that were not asked for to make up a key from
            table = peer_tables.read_table(path)
        else:
            table = read_parquet(path, columns or None, trusted=True)
    except FileNotFoundError:
        raise why_absent(folder, shard.files[role]) from None
    except CollectionDamaged:
        raise
    except FAULTS as error:
        raise _damaged(path, f"is not readable Parquet ({error})") from error
    if table.num_rows != shard.rows:
        raise _damaged(path, f"has {table.num_rows} rows where the manifest counts {shard.rows}")
    if role == "metadata" and shard.files[role].sha256:
        for name, kind in _ALWAYS.items():
            if columns is None or name in columns:
                found = [field.type for field in table.schema if field.name == name]
                if found != [kind] or table[name].null_count:
                    raise _damaged(path, f"has no column {name!r} of {kind} without gaps")
    return table


def path_of(folder: str | os.PathLike[str], shard: Shard, role: str) -> Path:
    """Where the shard's file lies. NotFound if it has none of that role."""
    if role not in shard.files:
        raise NotFound(f"Shard {shard.number} of {folder} has no {role}; it has {', '.join(sorted(shard.files))}.")
    return Path(folder) / shard.files[role].path


def _damaged(path: Path, what: str) -> CollectionDamaged:
    return CollectionDamaged(f"{path} {what}; run `clipsieve check`, then restore or embed again what it names.")
