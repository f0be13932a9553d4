"""Connections to `cache.sqlite` for those who read it from several threads."""

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from clipsieve.errors import CollectionError, CollectionLocked

_REFUSED = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM}
_T = TypeVar("_T")

MOST_BYTES = 2**26
"""Of a value that is read; SQLite's own limit is a gigabyte."""


class Connections:
    """As many connections as threads ask at once, for reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[sqlite3.Connection] = []
        self._closed = False
        self._lock = threading.Lock()  # guards _idle

    def run(
        self,
        query: Callable[[sqlite3.Connection], _T],
        shards: frozenset[tuple[int, str]] | None = None,
        once: bool = False,
    ) -> _T:
        """What `query` returns.

        once    on a connection that is closed afterwards, as the query makes another one of it
        shards  (number, what its rows were made from) of shards that the cache must hold while it is asked

        Stale if it does not; sqlite3.DatabaseError for a cache that is damaged; `explained` errors.
        """
        with explained(self._path), self._one(once) as connection:
            if shards is None:
                return query(connection)
            connection.execute("BEGIN")  # so that both see one state
            try:
                if not shards <= set(connection.execute("SELECT number, made_from FROM shards").fetchall()):
                    raise Stale
                return query(connection)
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def close(self) -> None:
        """Let go of the file; who asks nevertheless gets a connection for that one time."""
        with self._lock:
            self._closed = True
        self.drop()

    def drop(self) -> None:
        """Let go of the file, which is about to be deleted."""
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _one(self, once: bool) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle and not once else None
        if connection is None:
            connection = sqlite3.connect(self._path, check_same_thread=False, timeout=60)
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MOST_BYTES)
            connection.execute("PRAGMA query_only = ON")
            connection.execute("PRAGMA automatic_index = OFF")  # a filter's join would keep one on disk
        try:
            yield connection
        except BaseException:
            connection.close()  # not back to the idle ones: it may hold a file that is about to be deleted
            raise
        with self._lock:
            if not (self._closed or once):
                self._idle.append(connection)
                return
        connection.close()


class Stale(Exception):
    """The cache does not hold what it should; it was made of another commit."""


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite says when the operating system refuses something, as an error of the operating system's kind."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path)) from error
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise CollectionLocked(
                f"{path} is locked by another process; end that one, or have the cache elsewhere with --state DIR."
            ) from error
        if code in _REFUSED:
            raise CollectionError(
                f"{path} cannot be written or read ({error}); see to its disk and permissions, or have it elsewhere "
                "with --state DIR."
            ) from error
        raise
