"""Image files: a folder and all below it, or some files by name."""

import copy
import os
import posixpath
import stat
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple, Self

from clipsieve.inference.decode import image_extensions
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.sidecar import caption_of, metadata_of
from clipsieve.ordered import ordered_map
from clipsieve.path_text import to_text
from clipsieve.types import FileState, ImageItem, Skipped

REMOTE_READS = 16
"""Files fetched at a time from behind an address, where each waits for the network. Local ones are read in turn."""

_SIDECARS = (".txt", ".json")


class _Entry(NamedTuple):
    """One image file below `root`, or, with a `problem`, a folder that could not be listed."""

    name: str
    root: Place
    relative: str
    has_caption: bool = False
    has_metadata: bool = False
    problem: str = ""


@dataclass(slots=True)
class _Listing:
    """Paths relative to the folder listed, with forward slashes, in no order; and what could not be listed, and why."""

    files: list[str]
    problems: dict[str, str]


class FileSource:
    """See `reader.Source`. Keys are paths relative to the folder given, or to the deepest one that all files share.

    A `.txt` beside an image, of the same stem, is its caption, a `.json` its metadata. Links are followed; a folder
    that was seen before under another name is passed over, so that loops end.
    """

    def __init__(self, name: str, places: Sequence[Place], partition: int = 0, partitions: int = 1) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._ignored: Counter[str] = Counter()
        names = [""] if len(places) == 1 and places[0].is_folder() else relative_names(places)
        entries = [entry for place, prefix in zip(places, names, strict=True) for entry in self._list(place, prefix)]
        self._entries = sorted(entries, key=attrgetter("name"))[partition::partitions]

    @property
    def total(self) -> int:
        """How many image files there are."""
        return len(self._entries)

    @property
    def ignored(self) -> Mapping[str, int]:
        """Other files, by extension; captions and metadata in use are not among them."""
        return self._ignored

    def items(
        self, start: int = 0, pass_over: Callable[[str, str, int, float], bool] | None = None
    ) -> Iterator[ImageItem | Skipped]:
        """See `reader.Source.items`."""
        entries = self._entries[start:]
        if not entries or entries[0].root.fs is None:
            for entry in entries:
                if pass_over is None or not _passed_over(entry, pass_over):
                    yield _read(entry)
            return
        with ThreadPoolExecutor(REMOTE_READS, "clipsieve-read") as pool:
            yield from ordered_map(pool, _read, entries, 2 * REMOTE_READS)

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

    def _list(self, place: Place, prefix: str) -> Iterator[_Entry]:
        if not place.is_folder():
            folder, _, file = place.path.rpartition("/")
            root = Place(place.fs, folder or "/", place.url.rpartition("/")[0])
            stem = posixpath.splitext(file)[0]
            has_caption, has_metadata = (root.child(stem + suffix).exists() for suffix in _SIDECARS)
            yield _Entry(prefix, root, file, has_caption, has_metadata)
            return
        listing = _list_local(place.path) if place.fs is None else _list_remote(place)
        images = image_extensions()
        pictures, others = list[str](), set[str]()
        for relative in listing.files:
            if _suffix(relative) in images:
                pictures.append(relative)
            else:
                others.add(relative)
        used: set[str] = set()
        for relative in pictures:
            name = posixpath.join(prefix, relative) if prefix else relative
            if not others:
                yield _Entry(name, place, relative)
                continue
            caption, metadata = _sidecars(relative)
            used.update((caption, metadata))
            yield _Entry(name, place, relative, caption in others, metadata in others)
        self._ignored.update(_suffix(relative) for relative in others - used)
        for relative, problem in listing.problems.items():
            yield _Entry(posixpath.join(prefix, relative), place, relative, problem=problem)


def _path(entry: _Entry) -> str:
    return to_text(entry.root.child(entry.relative).url)


def _state(entry: _Entry) -> FileState | None:
    return entry.problem or entry.root.child(entry.relative).state()


def _suffix(path: str) -> str:
    """The lower-case extension, with its dot; as `posixpath.splitext` has it, in a third of its time."""
    stem, dot, suffix = path.rpartition(".")
    if dot and stem and stem[-1] not in "/." and "/" not in suffix:
        return dot + suffix.lower()
    return posixpath.splitext(path)[1].lower()


def _sidecars(image: str) -> tuple[str, str]:
    """Where the caption and the metadata of an image would lie."""
    stem = image[: image.rindex(".")]
    return f"{stem}.txt", f"{stem}.json"


def _read(entry: _Entry) -> ImageItem | Skipped:
    key = to_text(entry.name)
    if entry.problem:
        return Skipped(key, entry.problem)
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
        return Skipped(key, f"{what}; restore the file.")
    except Exception as error:  # each file system behind fsspec raises its own
        return Skipped(
            key, f"It cannot be read ({readable(str(error)) or type(error).__name__}); check its permissions."
        )
    return ImageItem(key, data, caption, {**meta, "image_path": to_text(place.url)})


def _passed_over(entry: _Entry, pass_over: Callable[[str, str, int, float], bool]) -> bool:
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


def _list_local(root: str) -> _Listing:
    listing = _Listing([], {})
    seen: set[str] = set()
    # Real folders first: what is reached through a link as well keeps the name that it has without.
    folders, links = [""], list[str]()
    while folders or links:
        if not folders:
            links.sort(reverse=True)
            folders = [links.pop()]
        folder = folders.pop()
        path = posixpath.join(root, folder) if folder else root
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(path) as found:
                entries = list(found)
        except OSError as error:
            reason = f"The folder cannot be listed ({error.strerror}); check its permissions."
            listing.problems[folder or "."] = reason
            continue
        above = f"{folder}/" if folder else ""
        for entry in entries:
            relative = above + entry.name
            if entry.is_dir(follow_symlinks=False):
                folders.append(relative)
            elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112 (False, not an error, in a loop)
                links.append(relative)
            else:
                listing.files.append(relative)
    return listing


def _list_remote(place: Place) -> _Listing:
    base = place.path.rstrip("/")
    return _Listing([path[len(base) :].lstrip("/") for path in place.fs.find(place.path)], {})
