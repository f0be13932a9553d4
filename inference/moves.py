"""Files that moved: what the collection knows lies at another path now, and no longer where it was.

Only what could have moved is read: new files of the size of an item whose file is gone or was written to. Images within
tars and tables are read anyway, one after another: one moved if its content is known from a tar or table that is gone.
"""

import os
import posixpath
import stat
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

from clipsieve.inference.known import Item, Known
from clipsieve.inference.reader import Source, input_of
from clipsieve.members import container_of
from clipsieve.ordered import processors
from clipsieve.path_text import stored_path
from clipsieve.types import ImageItem, content_hash
from clipsieve.writer import Place, Writer


class Found(NamedTuple):
    """A file of the input: its key, its path as text, bytes, and seconds since 1970."""

    key: str
    path: str
    size: int
    mtime: float


@dataclass(frozen=True, slots=True)
class Moves:
    """What moved.

    places     each item's place now; also of items that somebody removed, which stay so
    displaced  items whose files were overwritten by files that moved there
    live       keys of the items that moved and that nobody had removed
    """

    places: dict[int, Place] = field(default_factory=dict)
    displaced: tuple[int, ...] = ()
    live: frozenset[str] = frozenset()


def follow_moves(source: Source, known: Known, writer: Writer) -> Moves:
    """Find what moved to the files of `source`, let writer and `known` follow it, and commit that; no model is needed.

    Nothing is found among files behind an address; for tars and tables see `MemberMoves`.
    """
    moves = find_moves([Found(*one) for one in source.local_files()], known, _digest)
    if moves.places:
        writer.move(moves.places, moves.displaced)
        known.follow(moves.places, moves.displaced)
    return moves


def find_moves(files: Sequence[Found], known: Known, digest: Callable[[str], str | None]) -> Moves:
    """Which items' files are now among `files`, all that the input has.

    digest  content hash of the file of a path, None where there is none to read

    An item moved if its content is at a path where no item lay with it, and its own path has none or another one. Of
    several copies each item takes the one of its key, else of its file name, else the next.
    """
    here = {file.path for file in files if known.same_file(*file)}
    news = [file for file in files if file.path not in here]
    suspects = [item for item in known.items_of({file.size for file in news}) if not _unchanged(item, here)]
    sizes = {item.size for item in suspects}
    read = _Digests(digest)
    # A path of an item may be that of a new file as well: two files that changed places.
    by_hash: dict[str, list[Found]] = defaultdict(list)
    for file, hash in zip(maybe := [f for f in news if f.size in sizes], read.all(f.path for f in maybe), strict=True):
        if hash is not None:
            by_hash[hash].append(file)
    moved: dict[str, list[Item]] = defaultdict(list)
    for item in suspects:
        if item.hash in by_hash:
            if read.of(item.path) == item.hash:  # it was only touched
                by_hash[item.hash] = [file for file in by_hash[item.hash] if file.path != item.path]
            elif read.of(item.path) is not None or not os.path.exists(stored_path(item.path)):  # noqa: PTH110
                moved[item.hash].append(item)
    pairs = [pair for hash, items in moved.items() for pair in _pair(items, by_hash[hash])]
    pairs, displaced = _settle(pairs, known)
    return Moves(
        {item.id: Place(file.key, file.path, file.mtime) for item, file in pairs},
        displaced,
        frozenset(file.key for item, file in pairs if item.live),
    )


class MemberMoves:
    """Finds items whose tar or table is gone among what is read. `places` grows with what moved."""

    def __init__(self, known: Known) -> None:
        self.places: dict[int, Place] = {}
        self._known = known
        self._gone: dict[tuple[str, str], bool] = {}

    def find(self, read: ImageItem) -> Item | None:
        """The item that `read`, whose key is new, was before; one that nobody had removed comes first."""
        found = self._known.members_of(content_hash(read.data))
        moved = [item for item, input in found if item.id not in self.places and self._is_gone(item.key, input)]
        item = min(moved, key=lambda item: (not item.live, item.key != read.key, item.id), default=None)
        if item is not None:
            path, mtime = read.meta.get("image_path"), read.meta.get("mtime")
            if isinstance(path, str) and isinstance(mtime, float):  # what a tar held was unpacked
                self.places[item.id] = Place(read.key, path, mtime)
            else:
                self.places[item.id] = Place(read.key, None, None)
        return item

    def _is_gone(self, key: str, input: str | None) -> bool:
        """Whether the tar or table of a key lies nowhere below its input; one behind an address is not looked for."""
        base, name = input_of(input or ""), container_of(key)
        if not base or name is None or "://" in base:
            return False
        if (base, name) not in self._gone:
            places = [base, *map(str, PurePath(base).parents)]
            self._gone[base, name] = not any(os.path.exists(stored_path(posixpath.join(p, name))) for p in places)  # noqa: PTH110
        return self._gone[base, name]


class _Digests:
    """Content hashes of files by path, each read once."""

    def __init__(self, digest: Callable[[str], str | None]) -> None:
        self._digest = digest
        self._known: dict[str, str | None] = {}

    def all(self, paths: Iterable[str]) -> list[str | None]:
        wanted = list(paths)
        with ThreadPoolExecutor(processors(), "clipsieve-hash") as pool:
            self._known |= zip(wanted, pool.map(self._digest, wanted), strict=True)
        return [self._known[path] for path in wanted]

    def of(self, path: str) -> str | None:
        if path not in self._known:
            self._known[path] = self._digest(path)
        return self._known[path]


def _digest(path: str) -> str | None:
    place = stored_path(path)
    try:
        if not stat.S_ISREG(os.stat(place).st_mode):  # noqa: PTH116 (reading a pipe would wait for ever)
            return None
        with open(place, "rb") as file:  # noqa: PTH123
            return content_hash(file.read())
    except (OSError, ValueError):
        return None


def _unchanged(item: Item, here: set[str]) -> bool:
    """Whether the item's file lies where it did, as far as can be told without reading it."""
    if item.path in here:
        return True
    try:
        status = os.stat(stored_path(item.path))  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):  # what cannot be looked at is not known to be gone
        return True
    return (status.st_size, status.st_mtime) == (item.size, item.mtime)


def _pair(items: Sequence[Item], files: Sequence[Found]) -> list[tuple[Item, Found]]:
    """Each item with a file of its content: those that nobody removed first."""
    pairs: list[tuple[Item, Found]] = []
    items = sorted(items, key=lambda item: (not item.live, item.id))

    def take(of_item: Callable[[Item], object], of_file: Callable[[Found], object]) -> None:
        nonlocal items, files
        free: dict[object, list[Found]] = defaultdict(list)
        for file in reversed(files):
            free[of_file(file)].append(file)
        rest = []
        for item in items:
            alike = free.get(of_item(item))
            if alike:
                pairs.append((item, alike.pop()))
            else:
                rest.append(item)
        taken = {file.path for _, file in pairs}
        items, files = rest, [file for file in files if file.path not in taken]

    take(lambda item: item.key, lambda file: file.key)
    take(lambda item: posixpath.basename(item.path), lambda file: posixpath.basename(file.path))
    take(lambda _: None, lambda _: None)
    return pairs


def _settle(pairs: list[tuple[Item, Found]], known: Known) -> tuple[list[tuple[Item, Found]], tuple[int, ...]]:
    """Those whose new key is free once all have moved, and the items whose files they overwrote."""
    while True:
        moving = {item.id for item, _ in pairs}
        displaced, kept = [], []
        for item, file in pairs:
            holder = known.item_of(file.key)
            if holder is None or not holder.live or holder.id in moving:
                kept.append((item, file))
            elif holder.path == file.path:
                kept.append((item, file))
                displaced.append(holder.id)
        if len(kept) == len(pairs):
            return kept, tuple(displaced)
        pairs = kept  # who was to have a key of another input stays, and so does the key that it was to leave
