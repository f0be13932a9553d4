"""Writing so that a killed process or a power cut leaves the old state or the new one, never half of each."""

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from clipsieve.errors import CollectionDamaged

TEMPORARY = ".tmp"
"""Suffix of a file that is being written. One that is found later was left by a writer that died."""


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Put at `path` what `write` writes to the open binary file it is given, at once or not at all."""
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


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line and sync it. Only the folder's writer may call this.

    A last line without its newline was torn by a crash before anybody was told that it is there; it is cut off first.
    """
    new = not path.exists()
    with naming(path), path.open("ab+") as file:
        whole = _whole_lines(path)
        if whole < file.seek(0, os.SEEK_END):
            file.truncate(whole)
        file.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    if new:
        sync_folder(path.parent)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of the file, one per line; none if there is no file. A torn last line is left out.

    CollectionDamaged names the first other line that is not a JSON object.
    """
    data = b""
    with contextlib.suppress(FileNotFoundError):
        data = path.read_bytes()
    values = []
    for number, line in enumerate(data.split(b"\n")[:-1], start=1):
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise CollectionDamaged(f"{path} line {number} is not a JSON object; mend or remove that line.")
        values.append(value)
    return values


def _whole_lines(path: Path) -> int:
    """Bytes up to and including the last newline."""
    return path.read_bytes().rfind(b"\n") + 1
