"""Where images may be read from, and how files there are opened.

What our own reader wrote into metadata is opened wherever it lies: an image is believed only if it still has the hash
that it was embedded with. Metadata that others wrote, clip-retrieval's or an imported table's, may name any file and
any address; of what it names only files below the collection's folder, or below folders that the operator names, are
opened. Nowhere is anything opened but regular files: no device, no pipe, nothing that the system makes up.
"""

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from clipsieve.errors import InputError, NotFound, quoted
from clipsieve.image_memory import ImageMemory
from clipsieve.manifest import Manifest, Shard, Source
from clipsieve.path_text import stored_path, to_path

MOST_BYTES = 2 * 2**30
"""Of one encoded image."""

_READERS = ("files", "webdataset", "parquet", "urls")
"""Kinds of inputs that `inference` and `add` read; `import` has others, and webdataset, too."""

_SYSTEM = ("/proc", "/sys", "/dev")
_MEMORY_DISK = "/dev/shm"
_OPTIONS = re.compile(r" (wds_image_key|wds_caption_key|image_column|caption_column)=(\S+)")
_MORE = re.compile(r" and \d+ more \([0-9a-f]+\)$")
_PATTERN = re.compile(r"[{*?\[]")


@dataclass(frozen=True, slots=True)
class ImageAccess:
    """What a collection's images are read with.

    folders  of images; there paths are opened that are in metadata of others
    memory   from which decoding reserves
    """

    folders: tuple[Path, ...] = ()
    memory: ImageMemory = field(default_factory=ImageMemory)

    @classmethod
    def of(cls, folders: Sequence[str | os.PathLike[str]], memory: ImageMemory | None = None) -> "ImageAccess":
        """InputError for a folder that is not there."""
        for folder in folders:
            if not Path(folder).is_dir():
                raise InputError(f"The folder of images {quoted(os.fspath(folder))} is not there; check --images.")
        return cls(tuple(Path(folder) for folder in folders), memory or ImageMemory())


class Places:
    """Where the paths in a collection's metadata lead. Each method returns a path or an address that can be opened.

    folder   the collection's
    folders  named by the operator
    """

    def __init__(self, folder: Path, folders: Sequence[Path]) -> None:
        self._folder = folder
        self._roots = [os.path.realpath(root) for root in (folder, *folders)]

    def path(self, sources: Sequence[Source], row: Mapping[str, Any], text: str) -> str:
        """Where an item's `image_path` leads. NotFound where it is not there, or must not be opened."""
        if not is_own(sources, row):
            return self._of_others(text)
        if is_address(text):
            return _below_input(sources, text)
        place = stored_path(text)
        if not is_file(place):
            raise NotFound(f"there is no {text}")
        return place

    def named(self, sources: Sequence[Source], row: Mapping[str, Any], name: str) -> str:
        """Where a file lies that a key names relative to its input. NotFound likewise."""
        if not is_own(sources, row):
            return self._of_others(name)
        found = next(filter(None, (_find(source, name) for source in sources)), None)
        if found is None:
            raise NotFound(f"there is no {name}")
        return found

    def _of_others(self, text: str) -> str:
        """The real path of a file that metadata of others names: absolute, or relative to one of the folders or here.

        Whether a file exists elsewhere is not told.
        """
        inside = [] if is_address(text) else [place for place in self._real(text) if self._is_inside(place)]
        for place in inside:
            if is_file(place):
                return place
        named = f"its metadata, which others wrote, names {quoted(text)}"
        allowed = f"below {self._folder} or a folder given with --images DIR"
        raise NotFound(
            f"{named}, and there is no such file {allowed}" if inside else f"{named}, which is not {allowed}"
        )

    def _real(self, text: str) -> Iterator[str]:
        for path in dict.fromkeys((to_path(text), text)):  # others write backslashes as they are
            if "\0" not in path:
                for base in (".", *self._roots):
                    yield os.path.realpath(os.path.join(base, path))  # noqa: PTH118 (names of any bytes, as text)

    def _is_inside(self, place: str) -> bool:
        return any(place.startswith(root.rstrip(os.sep) + os.sep) for root in self._roots)


def sources_of(manifest: Manifest, shard: Shard) -> list[Source]:
    """What a shard may have been read from: of one that `compact` wrote, that is any input of the collection."""
    found = manifest.sources if shard.source is None else [shard.source]
    return list({source.input: source for source in found}.values())


def is_own(sources: Sequence[Source], row: Mapping[str, Any]) -> bool:
    """Whether our own reader wrote an item's metadata, and so the hash of what was embedded."""
    return bool(sources and all(map(is_read, sources)) and row.get("content_hash"))


def is_read(source: Source) -> bool:
    """Whether our own reader read the images of an input, and wrote down their hashes."""
    return source.input.partition(":")[0] in _READERS and " vectors=" not in source.input


def is_address(text: str) -> bool:
    """Whether a text is an address, or a chain of them, and no path on this machine."""
    return "://" in text


def open_place(place: str) -> BinaryIO:
    """What lies at a path, or at an address below a collection's input, for reading.

    InputError for what is no regular file; OSError, and at addresses nearly anything, where it cannot be opened.
    """
    if is_address(place):
        file: BinaryIO = fsspec.open(to_path(place), "rb").open()
        return file
    real = os.path.realpath(place)
    if _is_system(real) or not stat.S_ISREG(Path(real).stat().st_mode):  # opening a device may do something
        raise InputError("it is no regular file")
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    opened = os.fdopen(os.open(real, flags), "rb")
    if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):  # it was replaced meanwhile
        opened.close()
        raise InputError("it is no regular file")
    return opened


def read_place(place: str) -> bytes:
    """The same, read. InputError for more than MOST_BYTES as well."""
    with open_place(place) as file:
        data = file.read(MOST_BYTES + 1) if is_address(place) or _size(file) > MOST_BYTES else file.read()
    if len(data) > MOST_BYTES:
        raise InputError(f"it has more than {MOST_BYTES:,} bytes")
    return data


def is_file(place: str) -> bool:
    """Whether a regular file lies at a path, or a file at an address."""
    if is_address(place):
        fs, path = fsspec.core.url_to_fs(to_path(place))
        return bool(fs.isfile(path))
    try:
        return stat.S_ISREG(Path(place).stat().st_mode) and not _is_system(os.path.realpath(place))
    except (OSError, ValueError):  # too long for a name, or with a zero byte
        return False


def base_of(source: Source) -> str:
    """The input, without its kind and options: a path, an address or a pattern."""
    return _MORE.sub("", _OPTIONS.sub("", source.input.partition(":")[2]))


def options_of(sources: Sequence[Source]) -> dict[str, str]:
    """The options with which the inputs were read."""
    return {name: value for source in sources for name, value in _OPTIONS.findall(source.input)}


def is_relative(name: str) -> bool:
    """Whether a name stays below whatever folder it is looked for in."""
    return all(
        "\0" not in path and not os.path.isabs(path) and ".." not in re.split(r"[/\\]", path)  # noqa: PTH117
        for path in (name, to_path(name))
    )


def _is_system(real: str) -> bool:
    if real.startswith(_MEMORY_DISK + "/"):  # an ordinary disk for files, in memory
        return False
    return any(real == top or real.startswith(top + "/") for top in _SYSTEM)


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _below_input(sources: Sequence[Source], text: str) -> str:
    """An address that lies on a server, or in a bucket, that an input was read from."""
    found = (re.match(r"[^:]+://[^/]*/", base_of(source)) for source in sources)
    servers = [match[0] for match in found if match is not None]
    if not any(text.startswith(server) and "::" not in text[len(server) :] for server in servers):
        raise NotFound(f"{quoted(text)} is not where its input was read from")
    if not is_file(text):
        raise NotFound(f"there is no {text}")
    return text


def _find(source: Source, relative: str) -> str | None:
    """Where a file of this relative name lies, given the input; None if nowhere.

    Names are relative to the folder given, to that of the file given, or, of several, to the deepest folder that all
    share, above each.
    """
    if not is_relative(relative):
        return None
    base = base_of(source)
    for place in _folders(base, several=_MORE.search(_OPTIONS.sub("", source.input)) is not None):
        found = posixpath.join(place, relative)
        if is_address(found):
            if is_file(found):
                return found
        elif is_file(stored_path(found)):
            return stored_path(found)
    return None


def _folders(base: str, several: bool) -> Iterator[str]:
    levels = 1 if _PATTERN.search(base) or _is_folder(base) else 2
    if several and not is_address(base):  # asking a network for every folder above would take long
        levels = 64
    while base and levels:
        if not _PATTERN.search(base):  # of a pattern, only the folders before it
            yield base
            levels -= 1
        parent = posixpath.dirname(base.rstrip("/"))
        if parent == base:
            return
        base = parent


def _is_folder(base: str) -> bool:
    """Whether an input is a folder on this machine."""
    return not is_address(base) and Path(stored_path(base)).is_dir()
