"""What a collection has taken of its inputs before: which of what an input holds now is new, changed, or the same."""

from pathlib import Path
from typing import Literal, NamedTuple

from clipsieve.manifest import Manifest
from clipsieve.shards import read_dismissed, read_metadata, read_removed, read_skipped
from clipsieve.types import ImageItem, Skipped, content_hash

COLUMNS = ["id", "key", "image_path", "content_hash", "size", "mtime"]

Standing = Literal["new", "changed", "same", "removed", "taken"]


class _Row(NamedTuple):
    id: int
    live: bool
    input: str | None
    path: str | None
    hash: str | None
    size: int | None
    mtime: float | None


class Known:
    """The items of a folder at one commit by key, and what was skipped on the way in. Some 400 bytes an item."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        removed = set(read_removed(folder, manifest).tolist())
        gone = removed - read_dismissed(folder, manifest)  # vanished, or replaced
        self._rows: dict[str, _Row] = {}
        self._skipped: set[Skipped] = set()
        for shard in manifest.shards:
            self._skipped.update(read_skipped(folder, shard))
            if not shard.rows:
                continue
            table = read_metadata(folder, shard, COLUMNS)
            columns = [table[n].to_pylist() if n in table.column_names else [None] * shard.rows for n in COLUMNS]
            source = None if shard.source is None else shard.source.input
            for id, key, *rest in zip(*columns, strict=True):
                if id not in gone:  # later items of a key stand for it
                    self._rows[key] = _Row(id, id not in removed, source, *rest)
        self._in_vain = {(s.key, s.content_hash) for s in self._skipped if s.content_hash is not None}

    def same_file(self, key: str, path: str, size: int, mtime: float) -> bool:
        """Whether the item of this key was read from this file, which nobody wrote to since."""
        row = self._rows.get(key)
        return row is not None and row.live and (row.path, row.size, row.mtime) == (path, size, mtime)

    def standing(self, item: ImageItem, input: str) -> Standing:
        """How an item that was just read from `input` stands to what is known of its key.

        "removed": somebody had this very image removed. "taken": the key is that of an item from somewhere else.
        """
        digest = content_hash(item.data)
        row = self._rows.get(item.key)
        if (item.key, digest) in self._in_vain:
            return "same"
        if row is None or (not row.live and row.hash != digest):
            return "new"
        if not row.live:
            return "removed"
        path = item.meta.get("image_path")
        by_path = path is not None and row.path is not None
        from_here = row.path == path if by_path else row.input in (None, input)  # None once compacted
        if row.hash == digest or (row.hash is None and from_here):  # vectors that were imported have no hash
            return "same"
        return "changed" if from_here else "taken"

    def skipped_before(self, skipped: Skipped) -> bool:
        """Whether the same was skipped for the same reason."""
        return skipped in self._skipped

    def id_of(self, key: str) -> int:
        """The id of the item of that key, which must be known."""
        return self._rows[key].id

    def where(self, key: str) -> str:
        """Where the item of that key came from, in words."""
        row = self._rows[key]
        return row.path or row.input or "elsewhere"
