"""One writer at a time.

`clipsieve.lock` holds {"pid", "started", "host", "since", "token"} of the writer, and is empty when there is none.
It is never deleted: a file that may vanish between two calls cannot be taken over safely. flock guards only the moment
of reading and rewriting it. It is not held for the writer's lifetime, because forked workers would inherit it and
outlive a killed writer with it; whether the writer lives is asked of its process id instead.
"""

import contextlib
import errno
import json
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from clipsieve.durable import naming
from clipsieve.errors import CollectionLocked, CollectionReadOnly

NAME = "clipsieve.lock"

MOMENT = 2.0
"""Seconds that a commit may take without anybody being told that others wait for it."""


@contextlib.contextmanager
def writer_lock(folder: Path, waiting: Callable[[str], object] | None = None) -> Iterator[None]:
    """Hold the folder's lock for the block. CollectionLocked says who has it, and since when.

    waiting  wait for whoever has it instead, and call this with that sentence if it takes longer than a moment

    CollectionReadOnly where nothing may be written.

    The lock of a process that died on this host is taken over. That of another host is not: whether its writer lives
    cannot be known from here.
    """
    path = folder / NAME
    mine = {
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "token": uuid.uuid4().hex,  # tells two attempts of one process apart
    }
    if waiting is None:
        _take(path, mine)
    else:
        _take_in_turn(path, mine, waiting)
    try:
        yield
    finally:
        with exclusively(path) as file:
            if _read(file) == mine:
                _write(file, {})


def require_free(folder: Path) -> None:
    """CollectionLocked if somebody holds the folder's lock; asked before long work that would be in vain."""
    if (folder / NAME).exists():
        with writer_lock(folder):
            pass


def _take(path: Path, mine: dict[str, Any]) -> None:
    with exclusively(path) as file:
        holder = _read(file)
        if holder and _lives(holder):
            raise CollectionLocked(
                f"{path.parent} is being written by process {holder.get('pid')} on {holder.get('host')} since "
                f"{holder.get('since')}; wait for it, or, if that process is gone, delete {path}."
            )
        with naming(path):
            _write(file, mine)


def _take_in_turn(path: Path, mine: dict[str, Any], waiting: Callable[[str], object]) -> None:
    began, said, pause = time.monotonic(), False, 0.02
    while True:
        try:
            return _take(path, mine)
        except CollectionLocked as error:
            if not said and time.monotonic() - began > MOMENT:
                waiting(str(error))
                said = True
        time.sleep(pause * random.uniform(0.5, 1.5))  # so that many who wait do not all ask at once
        pause = min(1.5 * pause, 0.5)


def _lives(holder: dict[str, Any]) -> bool:
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return True
    try:
        os.kill(pid, 0)  # asks, does not kill
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # alive, and somebody else's
    return holder.get("started") == _started(pid)  # another start time: the number was given to a new process


def _started(pid: int) -> str:
    """When the process started, in the kernel's clock ticks; "" where there is no /proc, or if it ended.

    One that was killed keeps its number until its parent asks what became of it, which may be never.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


@contextlib.contextmanager
def exclusively(path: Path) -> Iterator[BinaryIO]:
    """The file, made if need be, open to one thread of one process at a time. CollectionReadOnly if it may not be."""
    import fcntl  # POSIX only; imported here so that reading a collection works anywhere

    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        raise CollectionReadOnly(
            f"{path.parent} may be read, not written ({error.strerror}); change its permissions, or copy it."
        ) from error
    with os.fdopen(descriptor, "r+b", buffering=0) as file:  # so that closing it has nothing left to write
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file  # closing the file lets go


def _read(file: BinaryIO) -> dict[str, Any]:
    """Who holds the lock; {} if nobody. Half a record was left by a writer that died while taking the lock: nobody."""
    try:
        value = json.loads(file.read())
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _write(file: BinaryIO, value: dict[str, Any]) -> None:
    file.seek(0)
    file.truncate()
    if value:
        file.write(json.dumps(value).encode())
    file.flush()
    os.fsync(file.fileno())
