"""What a collection has taken of its inputs before: which of what an input holds now is new, changed, or the same."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from clipsieve.manifest import Manifest
from clipsieve.members import container_of
from clipsieve.path_text import canonical
from clipsieve.shards import read_dismissed, read_metadata, read_removed
from clipsieve.skips import current_skips
from clipsieve.types import ImageItem, Skipped, content_hash
from clipsieve.writer import Place

COLUMNS = ["id", "key", "image_path", "content_hash", "size", "mtime"]

Standing = Literal["new", "changed", "same", "in vain", "removed", "taken"]


class _Row(NamedTuple):
    live: bool
    input: str | None
    path: str | None
    hash: str | None


class Item(NamedTuple):
    """An item that was read from a file of this machine, as the last commit has it; `path` is text."""

    id: int
    key: str
    path: str
    hash: str
    size: int
    mtime: float | None
    live: bool


class Known:
    """The items of a folder at one commit by key, and what was skipped on the way in. Some 400 bytes an item.

    limits  what images are decoded with now: those that could not be with others are new
    """

    def __init__(self, folder: Path, manifest: Manifest, limits: str) -> None:
        self._removed = set(read_removed(folder, manifest).tolist())
        gone = self._removed - read_dismissed(folder, manifest)  # vanished, or replaced
        # Columns, and not an object for each item: of 200,000 those would take longer to make than all the rest.
        self._columns: list[list[Any]] = [[] for _ in COLUMNS]
        self._sources: list[tuple[int, str | None]] = []  # position of a shard's first item, and the input it is of
        self._at: dict[str, int] = {}
        self._members: dict[str, list[int]] | None = None  # of tars and tables, by hash, once it is asked for
        self._skipped: set[Skipped] = set()
        self._skipped.update(s for some in current_skips(folder, manifest).values() for s in some)
        for shard in manifest.shards:
            if not shard.rows:
                continue
            table = read_metadata(folder, shard, COLUMNS)
            columns = [table[n].to_pylist() if n in table.column_names else [None] * shard.rows for n in COLUMNS]
            ids, keys, paths = cast(list[list[Any]], columns[:3])
            for row, path in enumerate(paths):
                if path is not None and "\\" in path + keys[row]:  # of an older version, which left backslashes alone
                    keys[row], paths[row] = canonical(keys[row]), canonical(path)
            first = len(self._columns[0])
            for whole, column in zip(self._columns, columns, strict=True):
                whole += column
            self._sources.append((first, None if shard.source is None else shard.source.input))
            places = zip(keys, range(first, first + len(ids)), strict=True)  # later items of a key stand for it
            self._at.update((p for p, i in zip(places, ids, strict=True) if i not in gone) if gone else places)
        self._in_vain = {
            (s.key, s.content_hash) for s in self._skipped if s.content_hash is not None and s.limits in (None, limits)
        }
        self.open = {s.key for s in self._skipped if s.limits is not None}
        """Keys of what was skipped and may be tried again."""

    def same_file(self, key: str, path: str, size: int, mtime: float) -> bool:
        """Whether the item of this key was read from this file, which nobody wrote to since."""
        at = self._at.get(key)
        if at is None:
            return False
        ids, _, paths, _, sizes, mtimes = self._columns
        return mtimes[at] == mtime and sizes[at] == size and paths[at] == path and ids[at] not in self._removed

    def standing(self, item: ImageItem, input: str) -> Standing:
        """How an item that was just read from `input` stands to what is known of its key.

        "in vain": the same bytes could not be used before, with the same decoder. "removed": somebody had this very
        image removed. "taken": the key is that of an item from somewhere else.
        """
        digest = content_hash(item.data)
        row = self._row(item.key)
        if (item.key, digest) in self._in_vain:
            return "in vain"
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

    def items_of(self, sizes: Container[int]) -> Iterator[Item]:
        """Items that were read from files of these sizes: those that count, and those that somebody had removed."""
        ids, keys, paths, hashes, lengths, mtimes = self._columns
        for at in self._at.values():
            path, hash = paths[at], hashes[at]
            if lengths[at] in sizes and path and hash and "://" not in path:
                yield Item(ids[at], keys[at], path, hash, lengths[at], mtimes[at], ids[at] not in self._removed)

    def members_of(self, hash: str) -> Iterator[tuple[Item, str | None]]:
        """Items of that content that were read from within a tar or table, and their inputs."""
        if self._members is None:
            self._members = defaultdict(list)
            _, keys, paths, hashes, _, _ = self._columns
            for at in self._at.values():
                if paths[at] is None and hashes[at] and container_of(keys[at]):
                    self._members[hashes[at]].append(at)
        for at in self._members.get(hash, ()):
            id, key, path, _, size, mtime = (column[at] for column in self._columns)
            live = id not in self._removed
            yield Item(id, key, path or "", hash, size or 0, mtime, live), self._input_at(at)

    def item_of(self, key: str) -> Item | None:
        """The item of that key, be it from a file or not."""
        at = self._at.get(key)
        if at is None:
            return None
        id, key, path, hash, size, mtime = (column[at] for column in self._columns)
        return Item(id, key, path or "", hash or "", size or 0, mtime, id not in self._removed)

    def follow(self, places: Mapping[int, Place], displaced: Collection[int]) -> None:
        """Know these items by their new places, and those that were displaced no longer."""
        ids, keys, paths, _, _, mtimes = self._columns
        self._removed.update(displaced)
        away = {*places, *displaced}
        moved = {key: at for key, at in self._at.items() if ids[at] in away}
        for key in moved:
            del self._at[key]
        for at in moved.values():
            if ids[at] in places:
                keys[at], paths[at], mtimes[at] = places[ids[at]]
        # those that count last, since a key may be that of a removed item as well
        for at in sorted(moved.values(), key=lambda at: ids[at] not in self._removed):
            if ids[at] in places:
                self._at[keys[at]] = at

    def skipped_before(self, skipped: Skipped) -> bool:
        """Whether the same was skipped for the same reason."""
        return skipped in self._skipped

    def id_of(self, key: str) -> int:
        """The id of the item of that key, which must be known."""
        ids: list[int] = self._columns[0]
        return ids[self._at[key]]

    def where(self, key: str) -> str:
        """Where the item of that key came from, in words."""
        row = self._row(key)
        return (row and (row.path or row.input)) or "elsewhere"

    def _row(self, key: str) -> _Row | None:
        at = self._at.get(key)
        if at is None:
            return None
        id, _, path, hash, _, _ = (column[at] for column in self._columns)
        return _Row(id not in self._removed, self._input_at(at), path, hash)

    def _input_at(self, at: int) -> str | None:
        """The input that an item was read from; None once compacted."""
        return self._sources[bisect_right(self._sources, at, key=lambda s: s[0]) - 1][1]
