"""Image files, one by one."""

import copy
import dataclasses
import os
import posixpath
import stat
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from typing import Any, NamedTuple, Protocol, Self

from clipsieve.inference.parts import Items
from clipsieve.inference.paths import Place, readable
from clipsieve.inference.sidecar import caption_of, metadata_of
from clipsieve.ordered import ordered_map
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

REMOTE_READS = 16
"""Files fetched at a time from behind an address, where each waits for the network. Local ones are read in turn."""


class Entry(NamedTuple):
    """One image file below `root`; with a `problem` a file that is not read, or a folder that could not be listed.

    name    its key
    limits  of the problem, see `Skipped.limits`
    """

    name: str
    root: Place
    relative: str
    has_caption: bool = False
    has_metadata: bool = False
    problem: str = ""
    limits: str | None = None


class Words(Protocol):
    """What tables say of files."""

    def of(self, name: str) -> tuple[str | None, Mapping[str, Any]]:
        """Caption and metadata of the file of that name."""


class FileSource:
    """See `reader.Source`. Keys are the entries' names.

    A `.txt` beside an image, of the same stem, is its caption, a `.json` its metadata; they go before what `words` has.
    """

    def __init__(
        self, name: str, entries: Sequence[Entry], partition: int = 0, partitions: int = 1, words: Words | None = None
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._entries = sorted(entries, key=attrgetter("name"))[partition::partitions]
        self._words = words

    @property
    def total(self) -> int:
        """How many image files there are."""
        return len(self._entries)

    def items(self, start: int = 0, pass_over: Callable[[str, str, int, float], bool] | None = None) -> Items:
        """See `reader.Source.items`."""
        entries = self._entries[start:]
        if not entries or entries[0].root.fs is None:
            for entry in entries:
                if pass_over is None or not _passed_over(entry, pass_over):
                    yield self._told(entry, _read(entry))
        else:
            with ThreadPoolExecutor(REMOTE_READS, "clipsieve-read") as pool:
                read = ordered_map(pool, _read, entries, 2 * REMOTE_READS)
                try:
                    for entry, item in zip(entries, read, strict=True):
                        yield self._told(entry, item)
                finally:
                    read.close()
        return len(self._entries)

    def _told(self, entry: Entry, item: ImageItem | Skipped) -> ImageItem | Skipped:
        """The item with what tables say of it."""
        if self._words is None or isinstance(item, Skipped):
            return item
        caption, meta = self._words.of(entry.name)
        return dataclasses.replace(item, caption=item.caption or caption, meta={**meta, **item.meta})

    def again(self, keys: Container[str]) -> Items:
        """See `reader.Source.again`. No other files are read."""
        other = copy.copy(self)
        other._entries = [entry for entry in self._entries if to_text(entry.name) in keys]
        return other.items()

    def local_files(self) -> list[tuple[str, str, int, float]]:
        """Key, path, bytes and time of last change of each file, as `pass_over` has them; none behind an address."""
        found: list[tuple[str, str, int, float]] = []

        def note(key: str, path: str, size: int, mtime: float) -> bool:
            found.append((key, path, size, mtime))
            return True

        for entry in self._entries if self._entries and self._entries[0].root.fs is None else ():
            _passed_over(entry, note)
        return found

    def states(self) -> Mapping[str, FileState]:
        """See `reader.Source.states`."""
        entries = self._entries
        if not entries or entries[0].root.fs is None:
            states = [_state(entry) for entry in entries]
        else:
            with ThreadPoolExecutor(REMOTE_READS, "clipsieve-read") as pool:
                states = list(pool.map(_state, entries))
        found = zip(map(_path, entries), states, strict=True)
        return {path: state for path, state in found if state is not None}

    def only(self, paths: Container[str]) -> Self:
        """See `reader.Source.only`."""
        other = copy.copy(self)
        other._entries = [entry for entry in self._entries if _path(entry) in paths]
        return other


def _path(entry: Entry) -> str:
    return to_text(entry.root.child(entry.relative).url)


def _state(entry: Entry) -> FileState | None:
    return entry.problem or entry.root.child(entry.relative).state()


def _read(entry: Entry) -> ImageItem | Skipped:
    key = to_text(entry.name)
    if entry.problem:
        return Skipped(key, entry.problem, limits=entry.limits)
    place = entry.root.child(entry.relative)
    try:
        meta: dict[str, Any] = {}
        if place.fs is None:
            status = os.stat(place.path)  # noqa: PTH116
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                return Skipped(key, "It is not a regular file but a folder, pipe or device; leave it out.")
            meta["mtime"] = status.st_mtime
        data = _bytes(place)
        stem = posixpath.splitext(entry.relative)[0]
        caption = caption_of(_bytes(entry.root.child(f"{stem}.txt"))) if entry.has_caption else None
        if entry.has_metadata:
            meta |= metadata_of(_bytes(entry.root.child(f"{stem}.json")))
    except FileNotFoundError:
        link = place.fs is None and os.path.islink(place.path)  # noqa: PTH114
        what = "It is a link to a file that does not exist" if link else "It, or a file beside it, has vanished"
        return Skipped(key, f"{what}; restore the file.", limits="")
    except Exception as error:  # each file system behind fsspec raises its own
        reason = f"It cannot be read ({readable(str(error)) or type(error).__name__}); check its permissions."
        return Skipped(key, reason, limits="")
    return ImageItem(key, data, caption, {**meta, "image_path": to_text(place.url)})


def _passed_over(entry: Entry, pass_over: Callable[[str, str, int, float], bool]) -> bool:
    path = f"{entry.root.path.rstrip('/')}/{entry.relative}"  # of this machine, where it is the url as well
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:  # reading it will say what is wrong
        return False
    return not entry.problem and pass_over(to_text(entry.name), to_text(path), status.st_size, status.st_mtime)


def _bytes(place: Place) -> bytes:
    if place.fs is not None:
        return bytes(place.fs.cat_file(place.path))
    with place.open() as file:
        return file.read()
