"""How `cache.sqlite` is made from the metadata shards: its tables, and how a column of Parquet becomes one of SQL.

items     id, key, and a column for every other one that a shard has
shards    which files the rows came from, so that what is stale or missing is found
columns   position, name as in Parquet, name in SQL, kind: "plain", "bool" (0 and 1) or "json" (text)
stamp     the file's time of last change; with another one, somebody else has written to it
"""

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve import shards
from clipsieve.index.where import quote
from clipsieve.manifest import Manifest, Shard

SCHEMA = 2
COARSE_NS = 2_000_000_000
"""What the times of every file system are a multiple of, or finer."""

TABLES = {"items", "shards", "columns", "stamp"}

Signature = tuple[int, int, int] | None
"""Inode, size and time of last change of the file, None where there is none: another one after each change."""


class NotOurs(Exception):
    """The file has a form that this module never gives it, so that its tables cannot be made in it."""


def signature(path: Path) -> Signature:
    """What tells a cache from one that somebody changed or replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def is_ours(path: Path) -> bool:
    """Whether the file is as the last `fill` left it, with all its tables. Nothing is written, nothing is made."""
    if signature(path) is None:
        return False
    try:
        opened = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=60, isolation_level=None)
        with contextlib.closing(opened) as connection:
            connection.execute("BEGIN")
            return _is_ours(connection, path)
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _ELSEWHERE:
            raise
        return False


_ELSEWHERE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
"""What is the fault of the disk, or of another process at work, and not of the file."""


def fill(
    path: Path, folder: Path, manifest: Manifest, progress: Callable[[int, int], None] | None = None
) -> tuple[list[tuple[str, str, str]], bool]:
    """Bring the cache at `path` to the manifest of `folder`.

    Its columns as (name, name in SQL, kind), and whether it was made anew because it was none of ours. NotOurs if it
    has to be deleted first, sqlite3.DatabaseError if it is damaged.

    progress  called with (rows read in, rows to read in) after each shard

    A file that somebody else changed is made anew. PermissionError if it is another user's: its owner alone may set the
    time by which that is seen.
    """

    def read_in(lacking: Sequence[Shard], shard: Shard) -> None:
        _read_in(folder, connection, shard)
        if progress is not None:
            done = sum(s.rows for s in lacking[: lacking.index(shard) + 1])
            progress(done, sum(s.rows for s in lacking))

    with contextlib.closing(sqlite3.connect(path, timeout=600, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":  # set by somebody else
            raise NotOurs
        with _transaction(connection, path):
            anew = not _is_ours(connection, path)
            if anew:
                _make_tables(connection)
            lacking, forgot = _forget_stale(folder, connection, manifest)
            # What takes the place of rows comes in one transaction with their going: ids are looked up meanwhile.
            together = lacking if anew or forgot else []
            for shard in together:
                read_in(lacking, shard)
        for shard in () if together else lacking:  # one by one: those who read wait for one at most
            with _transaction(connection, path):
                # Another process may have read it in while this one waited for the file.
                if not connection.execute("SELECT 1 FROM shards WHERE number = ?", [shard.number]).fetchone():
                    read_in(lacking, shard)
        return connection.execute("SELECT name, sql, kind FROM columns ORDER BY position").fetchall(), anew


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is as the last transaction left it: a flipped bit in it would show in no other way."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        return False
    if not {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} >= TABLES:
        return False
    (when,) = connection.execute("SELECT mtime_ns FROM stamp").fetchone() or (0,)
    return bool(path.stat().st_mtime_ns == when)


def _make_tables(connection: sqlite3.Connection) -> None:
    for name in sorted(TABLES):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT)")
    connection.execute("CREATE INDEX items_key ON items (key)")
    connection.execute("CREATE TABLE shards (number INTEGER PRIMARY KEY, made_from TEXT, first_id INT, last_id INT)")
    connection.execute("CREATE TABLE columns (position INTEGER PRIMARY KEY, name TEXT, sql TEXT, kind TEXT)")
    connection.execute("CREATE TABLE stamp (mtime_ns INT)")
    connection.execute("INSERT INTO stamp VALUES (0)")
    own = [("id", "id", "plain"), ("key", "key", "plain")]
    connection.executemany("INSERT INTO columns (name, sql, kind) VALUES (?, ?, ?)", own)
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _forget_stale(folder: Path, connection: sqlite3.Connection, manifest: Manifest) -> tuple[list[Shard], bool]:
    """Drop the rows of shards that are gone or changed; the shards to read in, and whether any were dropped."""
    wanted = {shard.number: made_from(folder, shard) for shard in manifest.shards if shard.rows}
    forgot = False
    for number, origin, first, last in connection.execute("SELECT * FROM shards").fetchall():
        if wanted.get(number) == origin:
            del wanted[number]
        else:
            connection.execute("DELETE FROM items WHERE id BETWEEN ? AND ?", [first, last])
            connection.execute("DELETE FROM shards WHERE number = ?", [number])
            forgot = True
    return [shard for shard in manifest.shards if shard.number in wanted], forgot


def made_from(folder: Path, shard: Shard) -> str:
    """Tells a shard's metadata from any other: by checksum, or by time where another program wrote it."""
    file = shard.files.get("metadata")
    name = "" if file is None else f"{file.path}|{file.size}|{file.sha256}"
    if file is not None and not file.sha256:
        name += f"|{(folder / file.path).stat().st_mtime_ns}"
    return f"{shard.first_id}|{shard.last_id}|{name}"


def _read_in(folder: Path, connection: sqlite3.Connection, shard: Shard) -> None:
    table = read_table(folder, shard, None)
    names, columns = [], []
    for name in named(table):
        kind, values = plain(table[name])
        names.append(_column(connection, name, kind, table.schema.field(name).type))
        columns.append(values)
    marks = ", ".join("?" * len(names))
    listed = ", ".join(quote(name) for name in names)
    connection.executemany(f"INSERT INTO items ({listed}) VALUES ({marks})", zip(*columns, strict=True))
    values = [shard.number, made_from(folder, shard), shard.first_id, shard.last_id]
    connection.execute("INSERT INTO shards VALUES (?, ?, ?, ?)", values)


def _column(connection: sqlite3.Connection, name: str, kind: str, type_: pa.DataType) -> str:
    """The SQL name of a column, which is added if there is none of this name and kind.

    SQLite's names ignore case and a column's kind may differ between shards, so a second one gets a number behind it.
    """
    known = connection.execute("SELECT name, sql, kind FROM columns").fetchall()
    for there, sql, its in known:
        if (there, its) == (name, kind):
            return str(sql)
    taken = {sql.casefold() for _, sql, _ in known}
    sql, number = name, 2
    while sql.casefold() in taken:
        sql, number = f"{name}_{number}", number + 1
    numeric = pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_)
    # NUMERIC lets `year > '2000'` compare numbers; texts get TEXT for the same reason, the other way round.
    affinity = "NUMERIC" if numeric else "TEXT" if kind == "plain" and not pa.types.is_null(type_) else ""
    connection.execute(f"ALTER TABLE items ADD COLUMN {quote(sql)} {affinity}")
    connection.execute("INSERT INTO columns (name, sql, kind) VALUES (?, ?, ?)", [name, sql, kind])
    return sql


def read_table(folder: Path, shard: Shard, columns: Sequence[str] | None) -> pa.Table:
    """The shard's metadata, of which at least id and key can be made up."""
    if "metadata" in shard.files:
        return shards.read_metadata(folder, shard, columns)
    # clip-retrieval run without metadata: all that is known of an item is where its vector lies.
    name = Path(next(iter(shard.files.values())).path).name
    ids = np.arange(shard.first_id, shard.last_id + 1, dtype=np.int64)
    made = pa.table({"id": ids, "key": pa.array([f"{name}#{row}" for row in range(shard.rows)], pa.string())})
    return made if columns is None else made.select([c for c in columns if c in made.column_names])


def named(table: pa.Table) -> list[str]:
    """The columns that users put there: pandas' index column, and ones without a name, are left out."""
    return [name for name in table.column_names if name and not name.startswith("__index_level_")]


def plain(column: pa.ChunkedArray) -> tuple[str, list[Any]]:
    """A column as values that SQLite holds, and its kind: "plain", "bool" (as 0 and 1) or "json" (as text)."""
    type_ = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    values = column.to_pylist()
    if pa.types.is_boolean(type_):
        return "bool", values
    if pa.types.is_nested(type_):
        return "json", [None if v is None else json.dumps(v, default=str, ensure_ascii=False) for v in values]
    if pa.types.is_uint64(type_):  # beyond SQLite's range they become floats
        return "plain", [v if v is None or v < 2**63 else float(v) for v in values]
    if pa.types.is_temporal(type_):
        return "plain", [v if v is None else v.isoformat() if hasattr(v, "isoformat") else str(v) for v in values]
    if pa.types.is_decimal(type_):
        return "plain", [v if v is None else str(v) for v in values]
    if pa.types.is_floating(type_):  # SQLite has no NaN and would make it NULL; so that both ways of reading agree
        return "plain", [v if v is None or v == v else None for v in values]
    return "plain", values


def restore(kind: str, value: Any) -> Any:
    """The value that `plain` made a plain one of."""
    if value is None:
        return None
    return bool(value) if kind == "bool" else json.loads(value) if kind == "json" else value


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """What changes the file gives it a time of last change of its own, which is in the file as well."""
    connection.execute("BEGIN IMMEDIATE")
    before = connection.total_changes
    try:
        yield
        changed = connection.total_changes > before
        when = time.time_ns() // COARSE_NS * COARSE_NS
        if changed:
            connection.execute("UPDATE stamp SET mtime_ns = ?", [when])
    except BaseException:
        # After some errors SQLite has rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
    if changed:
        os.utime(path, ns=(when, when))
