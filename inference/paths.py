"""What an input names: files and folders here or behind any fsspec address, after braces and globs are expanded."""

import os
import posixpath
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from clipsieve.errors import InputError, quoted
from clipsieve.types import FileState

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


@dataclass(frozen=True, slots=True)
class Place:
    """One file or folder.

    fs     the fsspec file system it lies in; None for this machine's own, which the standard library reads better:
           it keeps odd names and knows links
    path   absolute there
    url    how to name it to somebody else: the path itself when local, else with its protocol
    """

    fs: Any
    path: str
    url: str

    def open(self) -> BinaryIO:
        """The file, open for reading bytes, seekable. OSError for a pipe or device, which may never give any."""
        if self.fs is None:
            mode = os.stat(self.path).st_mode  # noqa: PTH116
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):  # opening a folder says itself what is wrong
                raise OSError("it is not a regular file but a pipe or device; leave it out")
            return Path(self.path).open("rb")
        file: BinaryIO = self.fs.open(self.path, "rb")
        return file

    def is_folder(self) -> bool:
        """True if it is a folder."""
        return os.path.isdir(self.path) if self.fs is None else bool(self.fs.isdir(self.path))  # noqa: PTH112

    def exists(self) -> bool:
        """True if there is a file or folder."""
        return os.path.exists(self.path) if self.fs is None else bool(self.fs.exists(self.path))  # noqa: PTH110

    def child(self, relative: str) -> "Place":
        """What lies at `relative`, with forward slashes, below it."""
        return Place(self.fs, _join(self.path, relative), _join(self.url, relative))

    def state(self) -> FileState | None:
        """Changes whenever somebody writes to the file; None if there is none."""
        try:
            if self.fs is not None:
                return repr(sorted(self.fs.info(self.path).items()))
            status = os.stat(self.path)  # noqa: PTH116
            return status.st_size, status.st_mtime
        except FileNotFoundError:
            return "a link to nothing" if self.fs is None and os.path.islink(self.path) else None  # noqa: PTH114
        except Exception as error:  # each file system behind fsspec raises its own; reading it will say what is wrong
            return type(error).__name__

    def names(self) -> list[str]:
        """Names directly in this folder, sorted."""
        if self.fs is None:
            return sorted(os.listdir(self.path))  # noqa: PTH208
        return sorted(posixpath.basename(p.rstrip("/")) for p in self.fs.ls(self.path, detail=False))


def expand(given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[Place]:
    """Every file or folder meant by `given`: paths, addresses, `{000..012}`, `{a,b}`, globs, or a list of those.

    A list, and the braces in it, keep their order; what a glob finds is sorted. InputError names what is not there.
    """
    patterns = [given] if isinstance(given, str | os.PathLike) else list(given)
    places = [place for pattern in patterns for place in _expand_one(os.fspath(pattern))]
    if not places:
        raise InputError("The input is an empty list; name at least one folder, tar or table.")
    return places


def expand_braces(pattern: str) -> Iterator[str]:
    """As the shell does: `{000..012}` counts, keeping the zeros; `{a,b}` takes turns; several multiply.

    >>> list(expand_braces("x{08..10}.tar"))
    ['x08.tar', 'x09.tar', 'x10.tar']
    """
    for found in _BRACES.finditer(pattern):
        body = found[1]
        counted = _RANGE.fullmatch(body)
        if counted:
            first, last = int(counted[1]), int(counted[2])
            padded = any(s.lstrip("-").startswith("0") and len(s.lstrip("-")) > 1 for s in counted.groups())
            width = max(map(len, counted.groups())) if padded else 0
            steps = range(first, last + 1) if first <= last else range(first, last - 1, -1)
            choices = [f"{i:0{width}d}" for i in steps]
        elif "," in body:
            choices = body.split(",")
        else:
            continue  # braces that mean themselves
        for choice in choices:
            for rest in expand_braces(pattern[found.end() :]):
                yield pattern[: found.start()] + choice + rest
        return
    yield pattern


def base_folder(pattern: str | os.PathLike[str]) -> str | None:
    """The folder of this machine below which all lies that `pattern` may ever name; None for an address."""
    fs, path = _file_system(os.fspath(pattern))
    if fs is not None:
        return None
    if os.path.isdir(path):  # noqa: PTH112
        return path
    plain = path if os.path.lexists(path) else re.split(r"[*?\[{]", path)[0]
    return os.path.dirname(plain)  # noqa: PTH120


def relative_names(places: Sequence[Place]) -> list[str]:
    """A name for each file, relative to the deepest folder that they share, with forward slashes."""
    folders = {posixpath.dirname(_slashes(place.path)) for place in places}
    try:
        common = posixpath.commonpath(folders)
    except ValueError:  # several file systems or drives
        return [place.url for place in places]
    return [posixpath.relpath(_slashes(place.path), common) if common else place.path for place in places]


def readable(name: str) -> str:
    r"""`name` as text that any file can hold: bytes that are not UTF-8 become \xe9, lone surrogates likewise."""
    if name.isascii():  # nearly all are, and a large input has many
        return name
    return name.encode("utf-8", "surrogateescape" if _escaped(name) else "backslashreplace").decode(
        "utf-8", "backslashreplace"
    )


def _escaped(name: str) -> bool:
    return all(0xDC80 <= ord(c) <= 0xDCFF for c in name if 0xD800 <= ord(c) <= 0xDFFF)


def _expand_one(pattern: str) -> list[Place]:
    fs, path = _file_system(pattern)
    if _exists(fs, path):  # a name that only looks like a pattern
        return [_place(fs, path)]
    found = []
    for single in expand_braces(pattern):
        fs, path = _file_system(single)
        if _exists(fs, path):
            found.append(_place(fs, path))
        elif any(c in single for c in "*?["):
            matches = sorted((fs or fsspec.filesystem("file")).glob(path))
            if not matches:
                raise InputError(f"The input pattern {quoted(readable(single))} matches nothing; check it.")
            found += [_place(fs, match) for match in matches]
        else:
            raise InputError(f"The input {quoted(readable(single))} does not exist; check the path.")
    return found


def _file_system(address: str) -> tuple[Any, str]:
    if "://" not in address and "::" not in address:
        return None, os.path.abspath(address)  # noqa: PTH100 (keeps links as given)
    try:
        fs, path = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise InputError(
            f"The input {quoted(address)} cannot be reached: {error}. Install what it names, or copy it here."
        ) from error
    fs.invalidate_cache()  # of listings; who opens an input again wants to know what is there now
    return (None, os.path.abspath(path)) if "file" in _protocols(fs) else (fs, path)  # noqa: PTH100


def _exists(fs: Any, path: str) -> bool:
    try:
        return os.path.lexists(path) if fs is None else bool(fs.exists(path))
    except (OSError, ValueError) as error:
        raise InputError(
            f"The input {quoted(readable(path))} cannot be reached: {error}. Check the address."
        ) from error


def _place(fs: Any, path: str) -> Place:
    return Place(fs, path, path if fs is None else fs.unstrip_protocol(path))


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _join(base: str, relative: str) -> str:
    return f"{base.rstrip('/')}/{relative}"


def _slashes(path: str) -> str:
    return path.replace(os.sep, "/")
