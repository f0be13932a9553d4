"""How `cache.sqlite` is made from the metadata shards: its tables, and how a column of Parquet becomes one of SQL.

items     id, key, and what a filter compares of every other column that a shard has
more      values by id that cannot be read back from what is compared, as JSON: see `cells.dump_kept`
shards    which files the rows came from, so that what is stale or missing is found
columns   position, name as in Parquet, name in SQL ("" beyond COLUMNS), kinds of its values: see `cells.Column`
stamp     the file's time of last change; with another one, somebody else has written to it. A number that is another
          one whenever columns changed
"""

import contextlib
import os
import re
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import shards
from clipsieve.checked_tables import FAULTS
from clipsieve.errors import CollectionDamaged, CollectionError, quoted
from clipsieve.index.cells import Cells, Column, dump_kept, kind_of, read
from clipsieve.index.where import folded, quote
from clipsieve.manifest import Manifest, Shard
from clipsieve.perceptual import COLUMN

SCHEMA = 3
COLUMNS = 1900
"""Of a table that filters compare; SQLite has room for 2,000."""

COARSE_NS = 2_000_000_000
"""What the times of every file system are a multiple of, or finer."""

TABLES = {"items", "more", "shards", "columns", "stamp"}

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


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of a cache, `id` and `key` first, and the number that the file has as long as they are so."""

    number: int
    columns: tuple[Column, ...]


class _Differs(Exception):
    """A shard brings kinds of values that some columns were not made for."""

    def __init__(self, columns: list[Column]) -> None:
        self.columns = columns


def fill(
    path: Path, folder: Path, manifest: Manifest, progress: Callable[[int, int], None] | None = None
) -> tuple[Layout, bool]:
    """Bring the cache at `path` to the manifest of `folder`.

    Its columns, and whether it was made anew because it was none of ours. NotOurs if it has to be deleted first,
    sqlite3.DatabaseError if it is damaged.

    progress  called with (rows read in, rows to read in) after each shard

    A file that somebody else changed is made anew, and so is one whose columns get values of other kinds, as they
    compare otherwise. PermissionError if it is another user's: its owner alone may set the time by which that is seen.
    """
    with contextlib.closing(sqlite3.connect(path, timeout=600, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        if connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":  # set by somebody else
            raise NotOurs
        columns: list[Column] | None = None
        anew = False
        while True:
            try:
                anew |= _bring(connection, path, folder, manifest, columns, progress)
                return read_layout(connection), anew
            except _Differs as differs:  # each time with more kinds, of which there are few
                columns = differs.columns


def _bring(
    connection: sqlite3.Connection,
    path: Path,
    folder: Path,
    manifest: Manifest,
    columns: list[Column] | None,
    progress: Callable[[int, int], None] | None,
) -> bool:
    """`fill`, into tables made anew if `columns` are given. Whether the file was none of ours."""

    def read_in(shard: Shard) -> None:
        _read_in(folder, connection, shard)
        if progress is not None:
            done = sum(s.rows for s in lacking[: lacking.index(shard) + 1])
            progress(done, sum(s.rows for s in lacking))

    with _transaction(connection, path):
        ours = _is_ours(connection, path)
        anew = not ours or columns is not None
        if anew:
            _make_tables(connection, columns or [])
        lacking, forgot = _forget_stale(folder, connection, manifest)
        _add_columns(connection, _foreseen(folder, lacking))
        # What takes the place of rows comes in one transaction with their going: ids are looked up meanwhile.
        together = lacking if anew or forgot else []
        for shard in together:
            read_in(shard)
    for shard in () if together else lacking:  # one by one: those who read wait for one at most
        with _transaction(connection, path):
            # Another process may have read it in while this one waited for the file.
            if not connection.execute("SELECT 1 FROM shards WHERE number = ?", [shard.number]).fetchone():
                read_in(shard)
    return not ours


def read_layout(connection: sqlite3.Connection) -> Layout:
    """The cache's columns, of one state of the file."""
    sql = "SELECT name, sql, kinds, (SELECT layout FROM stamp) FROM columns ORDER BY position"
    found = connection.execute(sql).fetchall()
    columns = [Column(name, sql, frozenset(filter(None, kinds.split(",")))) for name, sql, kinds, _ in found]
    return Layout(found[0][-1] if found else 0, tuple(columns))


def _is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is as the last transaction left it: a flipped bit in it would show in no other way."""
    if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA:
        return False
    if not {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")} >= TABLES:
        return False
    (when,) = connection.execute("SELECT mtime_ns FROM stamp").fetchone() or (0,)
    return bool(path.stat().st_mtime_ns == when)


def _make_tables(connection: sqlite3.Connection, columns: Sequence[Column]) -> None:
    for name in sorted(TABLES):
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    connection.execute("CREATE TABLE shards (number INTEGER PRIMARY KEY, made_from TEXT, first_id INT, last_id INT)")
    connection.execute("CREATE TABLE more (id INTEGER PRIMARY KEY, kept TEXT)")
    connection.execute("CREATE TABLE columns (position INTEGER PRIMARY KEY, name TEXT, sql TEXT, kinds TEXT)")
    connection.execute("CREATE TABLE stamp (mtime_ns INT, layout INT)")
    connection.execute("INSERT INTO stamp VALUES (0, 0)")
    _make_items(connection, [Column("id", "id", frozenset({"int"})), Column("key", "key", frozenset({"text"}))])
    _add_columns(connection, columns)
    connection.execute(f"PRAGMA user_version = {SCHEMA}")


def _make_items(connection: sqlite3.Connection, columns: Sequence[Column]) -> None:
    """The empty table of items; one statement, as SQLite reads the whole schema again for each added column."""
    rest = "".join(f", {quote(column.sql)} {column.affinity}" for column in columns[2:] if column.sql)
    connection.execute("DROP TABLE IF EXISTS items")
    connection.execute(f"CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT{rest})")
    connection.execute("CREATE INDEX items_key ON items (key)")
    connection.execute("DELETE FROM columns")
    rows = [(column.name, column.sql, ",".join(sorted(column.kinds))) for column in columns]
    connection.executemany("INSERT INTO columns (name, sql, kinds) VALUES (?, ?, ?)", rows)
    _renumber(connection)


def _renumber(connection: sqlite3.Connection) -> None:
    """Have those notice who knew the columns as they were."""
    connection.execute("UPDATE stamp SET layout = ?", [secrets.randbits(62)])


def _add_columns(connection: sqlite3.Connection, wanted: Sequence[Column]) -> None:
    """Have a column for each that is wanted. _Differs if there is one that is not made for such values."""
    known = read_layout(connection).columns
    there = {column.name: column for column in known}
    merged = dict(there)
    for column in wanted:
        before = merged.get(column.name, Column(column.name, ""))
        merged[column.name] = Column(column.name, before.sql, before.kinds | column.kinds)
    if merged == there:
        return
    named = _with_sql_names(list(merged.values()))
    if not connection.execute("SELECT 1 FROM shards").fetchone():
        _make_items(connection, named)
        return
    if any(merged[column.name].kinds != column.kinds for column in known):
        raise _Differs(named)
    for old, new in zip(known, named, strict=False):  # as another one differs from it in nothing but case
        if old.sql != new.sql:
            connection.execute(f"ALTER TABLE items RENAME COLUMN {quote(old.sql)} TO {quote(new.sql)}")
            connection.execute("UPDATE columns SET sql = ? WHERE name = ?", [new.sql, new.name])
    for column in named[len(known) :]:
        if column.sql:
            connection.execute(f"ALTER TABLE items ADD COLUMN {quote(column.sql)} {column.affinity}")
        values = [column.name, column.sql, ",".join(sorted(column.kinds))]
        connection.execute("INSERT INTO columns (name, sql, kinds) VALUES (?, ?, ?)", values)
    _renumber(connection)


def _with_sql_names(columns: Sequence[Column]) -> list[Column]:
    """The columns with their names in SQL: their own, unless SQLite takes it for that of another column."""
    names = Counter(folded(column.name) for column in columns)
    taken = set(names)
    named = []
    for position, column in enumerate(columns):
        sql = column.name
        if position >= COLUMNS:
            sql = ""
        elif position > 1 and (names[folded(sql)] > 1 or not sql or "\0" in sql):
            sql = column.name.replace("\0", "") + f"#{position}"
            while folded(sql) in taken:
                sql += "#"
            taken.add(folded(sql))
        named.append(Column(column.name, sql, column.kinds))
    return named


def _foreseen(folder: Path, lacking: Iterable[Shard]) -> list[Column]:
    """The columns of these shards by their files' footers, so that the table need not be made again for each.

    Of files that other programs wrote not all columns are what the footer says: those are seen when they are read.
    """
    kinds: dict[str, frozenset[str]] = {}
    for shard in lacking:
        file = shard.files.get("metadata")
        if file is None or not file.sha256:
            continue
        try:
            schema = pq.read_schema(folder / file.path)
            for name, type_ in zip(_distinct(schema.names), schema.types, strict=True):
                if is_users(name):
                    kinds[name] = kinds.get(name, frozenset()) | ({kind_of(type_)} - {""})
        except FAULTS:
            continue  # reading it says what is wrong
    return [Column(name, "", its) for name, its in kinds.items()]


def _forget_stale(folder: Path, connection: sqlite3.Connection, manifest: Manifest) -> tuple[list[Shard], bool]:
    """Drop the rows of shards that are gone or changed; the shards to read in, and whether any were dropped."""
    wanted = {shard.number: made_from(folder, shard) for shard in manifest.shards if shard.rows}
    forgot = False
    for number, origin, first, last in connection.execute("SELECT * FROM shards").fetchall():
        if wanted.get(number) == origin:
            del wanted[number]
        else:
            connection.execute("DELETE FROM items WHERE id BETWEEN ? AND ?", [first, last])
            connection.execute("DELETE FROM more WHERE id BETWEEN ? AND ?", [first, last])
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
    cells = {name: read_column(folder, shard, table, name) for name in named(table)}
    known = {column.name: column.kinds for column in read_layout(connection).columns}
    _add_columns(connection, [Column(name, "", its.kinds(known.get(name, ()))) for name, its in cells.items()])
    columns = [column for column in read_layout(connection).columns if column.name in cells]
    inside = [column for column in columns if column.sql]
    listed = ", ".join(quote(column.sql) for column in inside)
    marks = ", ".join("?" * len(inside))
    kept: dict[int, dict[str, object]] = {}
    for column in columns:
        for row, value in column.kept(cells[column.name]).items():
            kept.setdefault(row, {})[column.name] = value
    ids = cells["id"].shown
    try:
        rows = zip(*(column.compared(cells[column.name]) for column in inside), strict=True)
        connection.executemany(f"INSERT INTO items ({listed}) VALUES ({marks})", rows)
        more = ((ids[row], dump_kept(values)) for row, values in kept.items())
        connection.executemany("INSERT INTO more VALUES (?, ?)", more)
    except (sqlite3.DataError, OverflowError) as error:
        raise CollectionError(
            f"{_origin(folder, shard)} has a row of more than a gigabyte, and SQLite takes no longer ones; "
            "embed again without its longest column."
        ) from error
    values = [shard.number, made_from(folder, shard), shard.first_id, shard.last_id]
    connection.execute("INSERT INTO shards VALUES (?, ?, ?, ?)", values)


def read_column(folder: Path, shard: Shard, table: pa.Table, name: str) -> Cells:
    """A column of the shard's table. CollectionDamaged if its values are none of its type."""
    try:
        return read(table[name])
    except (ValueError, OverflowError, LookupError, pa.ArrowException) as error:  # UnicodeError is a ValueError
        raise CollectionDamaged(
            f"{_origin(folder, shard)} has values in column {quoted(name)} that cannot be read "
            f"({quoted(str(error), '')}); run `clipsieve check`, then restore or embed again what it names."
        ) from error


def _origin(folder: Path, shard: Shard) -> Path:
    return folder / (shard.files["metadata"].path if "metadata" in shard.files else f"shard {shard.number}")


def read_table(folder: Path, shard: Shard, columns: Sequence[str] | None) -> pa.Table:
    """The shard's metadata, of which at least id and key can be made up. Names that occur twice get a number.

    Perceptual hashes are left out: they are for `build` alone.
    """
    if "metadata" in shard.files:
        asked = None if columns is None else _asked(columns)
        table = shards.read_metadata(folder, shard, asked)
        table = table.drop_columns([COLUMN] if COLUMN in table.column_names else [])
        table = table.rename_columns(_distinct(table.column_names))
        return table if columns is None else table.select([c for c in columns if c in table.column_names])
    if shard.last_id - shard.first_id + 1 != shard.rows:
        raise CollectionDamaged(
            f"Shard {shard.number} of {folder} has {shard.rows:,} rows and the ids {shard.first_id} to "
            f"{shard.last_id}, and no metadata that says which; restore its folder metadata, or embed again."
        )
    # clip-retrieval run without metadata: all that is known of an item is where its vector lies.
    name = Path(next(iter(shard.files.values())).path).name
    ids = np.arange(shard.first_id, shard.last_id + 1, dtype=np.int64)
    made = pa.table({"id": ids, "key": pa.array([f"{name}#{row}" for row in range(shard.rows)], pa.string())})
    return made if columns is None else made.select([c for c in columns if c in made.column_names])


def named(table: pa.Table) -> list[str]:
    """The columns that users put there: pandas' index column is left out."""
    return [name for name in table.column_names if is_users(name)]


def is_users(name: str) -> bool:
    """Whether a column of this name is for people: neither pandas' index nor what copies are known by."""
    return not name.startswith("__index_level_") and name != COLUMN


def _distinct(names: Sequence[str]) -> list[str]:
    """The names, where one that occurs again gets a number behind it."""
    found: dict[str, None] = {}
    taken = set(names)
    for name in names:
        free, number = name, 2
        while free in found or (free != name and free in taken):
            free, number = f"{name}_{number}", number + 1
        found[free] = None
    return list(found)


def _asked(columns: Sequence[str]) -> list[str]:
    """What to read for these columns, as one may be the second of its name."""
    return list(dict.fromkeys([*columns, *(re.sub(r"_[0-9]+$", "", column) for column in columns)]))


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
