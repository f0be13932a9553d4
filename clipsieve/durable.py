"""Writing so that a killed process or a power cut leaves the old state or the new one, never half of each."""

import contextlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from clipsieve.errors import CollectionDamaged
from clipsieve.output_path import require_path

TEMPORARY = ".tmp"
"""Suffix of a file that is being written. One that is found later was left by a writer that died."""


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put at `path` what `write` writes to the open binary file it is given, at once or not at all."""
    require_path(path)
    beside = path.with_name(f".{path.name}{TEMPORARY}")
    try:
        with naming(path), beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the operating system inside, of which few say which file they are about, say that it is `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error


def sync_folder(folder: Path) -> None:
    """Make the names in the folder, not only the bytes behind them, survive a power cut."""
    if os.name == "nt":  # folders cannot be opened there, and renames are durable already
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def append_line(path: Path, value: Mapping[str, Any], size: int | None = None) -> None:
    """Append one JSON line, with a checksum of its own, and sync it; see `append_lines`."""
    append_lines(path, [value], size)


def append_lines(path: Path, values: Sequence[Mapping[str, Any]], size: int | None = None) -> None:
    """Append JSON lines, each with a checksum of its own, and sync them together. Only one writer at a time may.

    size  bytes of the file that count; what follows is cut off. By default all whole lines: a last one without its
          newline was torn by a crash before anybody was told that it is there
    """
    new = not path.exists()
    with naming(path), path.open("ab+") as file:
        kept = _whole_lines(path) if size is None else size
        if kept < file.seek(0, os.SEEK_END):
            file.truncate(kept)
        file.write(b"".join(_line(value) for value in values))
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def write_lines(path: Path, values: Sequence[Mapping[str, Any]]) -> None:
    """Put at `path` what appending each of the values to an empty file would."""
    write_file(path, lambda file: file.write(b"".join(_line(value) for value in values)))


def read_lines(path: Path, size: int | None = None) -> list[dict[str, Any]]:
    """What was appended, in order; nothing if there is no file. A torn last line is left out.

    size  bytes of the file that count; all by default

    CollectionDamaged names the first line that is not as it was written.
    """
    good, bad = sift_lines(path, size)
    if bad:
        raise CollectionDamaged(
            f"{path} line {bad[0]} is not as it was written: its checksum disagrees; restore the file from a copy, or "
            "run `clipsieve check --repair`."
        )
    return good


def sift_lines(path: Path, size: int | None = None) -> tuple[list[dict[str, Any]], list[int]]:
    """What the whole lines of the file say, and the numbers, from 1, of those that are not as they were written."""
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()[:size]
    good, bad = [], []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            value = json.loads(line)
            del value["crc"]
        except (ValueError, TypeError, KeyError):
            value = None
        if isinstance(value, dict) and _line(value) == line + b"\n":
            good.append(value)
        else:
            bad.append(number)
    return good, bad


def _line(value: Mapping[str, Any]) -> bytes:
    text = json.dumps(value, separators=(",", ":"))
    return json.dumps({**value, "crc": f"{zlib.crc32(text.encode()):08x}"}, separators=(",", ":")).encode() + b"\n"


def _whole_lines(path: Path) -> int:
    """Bytes up to and including the last newline."""
    return path.read_bytes().rfind(b"\n") + 1
