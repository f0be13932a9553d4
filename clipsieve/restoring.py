"""Removed items brought back, as long as `compact` has not dropped their rows."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipsieve.errors import InputError, NotFound
from clipsieve.manifest import Manifest
from clipsieve.shards import read_ids, read_metadata, read_removals, read_removed
from clipsieve.writer import open_writer


@dataclass(frozen=True, slots=True)
class Restored:
    """What `restore` did.

    ids    those that count again, ascending
    taken  (id, key, id of the item that has the key now) of those that stay removed, since their place is taken
    """

    ids: tuple[int, ...]
    taken: tuple[tuple[int, str, int], ...]


def restore(folder: str | os.PathLike[str], ids: Sequence[int] | None = None) -> Restored:
    """Undo that items were removed: they are found again, with their ids, marks, vectors and all.

    ids  which; None for those of the last remove that can still be undone, and, asked again, of the one before

    NotFound for an id that was never given, InputError for one that is not removed, that `compact` dropped, or whose
    file was embedded anew since; then nothing is restored. The errors are those of `open_writer`.
    """
    with open_writer(folder) as writer:
        path, manifest = Path(folder), writer.manifest
        removed = set(read_removed(path, manifest).tolist())
        replaced = {i for shard in manifest.shards for i in shard.replaces}
        if ids is None:
            wanted = _last(path, manifest, removed - replaced)
        else:
            wanted = sorted({int(i) for i in ids})
            there = _stored(path, manifest, set(wanted))
            for i in wanted:
                if not 0 <= i < manifest.next_id:
                    raise NotFound(f"{folder} has no item {i}; its ids run from 0 to {manifest.next_id - 1}.")
                if i not in there:
                    raise InputError(f"Item {i} of {folder} was dropped by `clipsieve compact`, which is final.")
                if i in replaced:
                    raise InputError(f"Item {i} of {folder} was not removed: its file changed and was embedded anew.")
                if i not in removed:
                    raise InputError(f"Item {i} of {folder} is not removed; `clipsieve info` counts those that are.")
        taken = _taken(path, manifest, wanted, removed)
        kept = {i for i, _, _ in taken}
        done = tuple(i for i in wanted if i not in kept)
        writer.restore(done)
    return Restored(done, taken)


def _last(folder: Path, manifest: Manifest, removed: set[int]) -> list[int]:
    """Ids of the last removal of which some can be restored. InputError if there is none."""
    there = _stored(folder, manifest, removed)
    for line in reversed(read_removals(folder, manifest)):
        found = there & set(line["ids"]) if "restored" not in line else set()
        if found:
            return sorted(found)
    if removed:
        raise InputError(f"What was removed from {folder} was dropped by `clipsieve compact`, which is final.")
    raise InputError(f"Nothing is removed from {folder} that could be restored.")


def _stored(folder: Path, manifest: Manifest, ids: set[int]) -> set[int]:
    """Those that have a row still."""
    return {i for shard in manifest.shards if shard.rows for i in ids & set(read_ids(folder, shard).tolist())}


def _taken(folder: Path, manifest: Manifest, ids: Sequence[int], removed: set[int]) -> tuple[tuple[int, str, int], ...]:
    """Those whose key another item has by now, or an earlier one of them."""
    wanted, keys, holders = set(ids), dict[int, str](), dict[str, int]()
    for shard in manifest.shards:
        if shard.rows:
            table = read_metadata(folder, shard, ["id", "key"])
            for id, key in zip(table["id"].to_pylist(), table["key"].to_pylist(), strict=True):
                if id in wanted:
                    keys[id] = key
                elif id not in removed:
                    holders[key] = id
    taken = []
    for id in sorted(keys, reverse=True):  # of several versions of a file, the newest
        if keys[id] in holders:
            taken.append((id, keys[id], holders[keys[id]]))
        else:
            holders[keys[id]] = id
    return tuple(reversed(taken))
