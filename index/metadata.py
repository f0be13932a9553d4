"""What is known of each item beside its vector: rows by id, keys, and filters, over `cache.sqlite`.

The cache is derived from the metadata shards, row for row. It remembers which shard files it was made from (path, size,
checksum), reads in what it lacks when it is opened, and may be deleted at any time: nothing but the time to read the
shards again is lost. One that is damaged, or that anybody else has written to, is made again; the file is looked at
before each question, so that this holds while it is served too.
"""

import copy
import itertools
import logging
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from clipsieve import shards
from clipsieve.errors import CollectionError, InputError, NotFound, Overloaded, quoted
from clipsieve.index import cache, cells
from clipsieve.index import where as filters
from clipsieve.index.cells import Column
from clipsieve.index.connections import Connections, Stale, explained
from clipsieve.index.counting import Count, Counting
from clipsieve.manifest import Manifest, Shard
from clipsieve.output_path import require_path
from clipsieve.types import Int64
from clipsieve.whole import changed

NAME = "cache.sqlite"
CELLS = 100
"""Values of one JSON list: SQLite gives a function at most 127 arguments."""

BULK = 20_000
"""From this many ids on, rows are read from the Parquet files in order: SQLite takes 7 us a row, they take 1."""

FILTER_SECONDS = 30.0
"""That a filter may take, where nothing else is said."""
FILTERS, WAIT_SECONDS = 4, 2.0
"""Filters that work at once, and how long one more waits for its turn: each takes a core and some hundred megabytes at
worst."""
ATTEMPTS = 3
"""How often a question is put to a cache that turns out to be damaged, and is made again."""

LOOKS = 20
LOOK_S = 0.005
"""A cache that another process commits to has its new time of last change a moment later: how often, and after how many
seconds each, it is looked at before it counts as changed by somebody else."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_NOT_OURS = {*_DAMAGED, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_SCHEMA}
"""What SQLite says of a file whose tables are missing, or other ones than those of `cache`."""

_T = TypeVar("_T")
log = logging.getLogger("clipsieve")


class SqliteMetadata:
    """A MetadataStore over the metadata shards of one manifest. Safe to read from several threads at once."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        manifest: Manifest,
        *,
        state: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        filter_s: float = FILTER_SECONDS,
    ) -> None:
        """Open the cache and read in what it lacks.

        state     folder for the cache; by default the collection's own, or, where that cannot be written or belongs to
                  another program, a temporary one that vanishes on `close`
        progress  called with (rows read in, rows to read in) after each shard
        filter_s  seconds that a filter may take
        """
        self._filter_s = filter_s
        self._filtering = threading.BoundedSemaphore(FILTERS)
        self._folder = Path(folder)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if state is not None:
            require_path(os.fspath(state))
            Path(state).mkdir(parents=True, exist_ok=True)
        elif manifest.read_only or not os.access(folder, os.W_OK):
            self._temporary = tempfile.TemporaryDirectory(prefix="clipsieve-")
            state = self._temporary.name
        self.path = Path(folder if state is None else state) / NAME
        self._connections = Connections(self.path)
        self._lock = threading.Lock()  # so that only one thread makes the cache again
        self._seen: cache.Signature = None  # of the file, when it was last found to be ours
        self._manifest = manifest
        self._shards: frozenset[tuple[int, str]] = frozenset()  # number, and what the cache's rows of it are made from
        self._layout = cache.Layout(0, ())
        try:
            self.update(manifest, progress)
        except BaseException:
            self.close()
            raise

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that a filter may use, `id` and `key` first; in quotes where two differ only in case."""
        return tuple(column.name for column in self._layout.columns)

    @property
    def types(self) -> dict[str, str]:
        """What each column's values are, in plain words: number, text, boolean, time, seconds, json, bytes."""
        return {column.name: column.words for column in self._layout.columns}

    def get(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        """The rows of these ids, in their order: column name -> value, None where the item has none.

        columns  those to read beside `id`, of which ones that there are not are left out; all by default

        Times are ISO 8601 texts, decimals texts and durations seconds; lists and structs are Python's; NaN is None.
        NotFound names an unknown id.
        """
        wanted = _int_list(ids)
        if len(wanted) >= BULK:
            return self._bulk(wanted, columns)
        found: dict[int, Mapping[str, object]] = {}
        for chunk in _chunks(list(dict.fromkeys(wanted))):
            found.update(self._read(chunk, columns))
        return [self._known(found, i) for i in wanted]

    def keys(self, ids: Sequence[int] | Int64) -> list[str]:
        """The keys of these ids, in their order. NotFound names an unknown id."""
        wanted = _int_list(ids)
        keys: list[str]
        if len(wanted) >= BULK:
            keys = self.table(wanted, ["key"])["key"].to_pylist()
            return keys
        found: dict[int, Any] = {
            i: row["key"] for chunk in _chunks(wanted) for i, row in self._read(chunk, ["key"]).items()
        }
        return [self._known(found, i) for i in wanted]

    def ids_of_keys(self, keys: Sequence[str]) -> Int64:
        """The ids of these keys, int64 (n,), in their order; the greatest where a key was given twice (added anew).

        NotFound names an unknown key; CollectionChanged where a later commit may have done away with it.
        """
        found: dict[str, int] = {}
        for chunk in _chunks(list(keys)):
            sql = f"SELECT key, id FROM items WHERE key IN ({', '.join('?' * len(chunk))}) ORDER BY id"
            pairs = self._query(sql, chunk, whole=True)
            inside = self._inside(np.array([id for _, id in pairs], dtype=np.int64))
            found.update(pair for pair, is_inside in zip(pairs, inside, strict=True) if is_inside)
        for key in keys:
            if key not in found:
                raise NotFound(
                    f"{self._folder} has no item with key {quoted(key)}; `clipsieve info` shows some of its keys."
                )
        return np.array([found[key] for key in keys], dtype=np.int64)

    def select(self, where: str, *, limit_s: float | None = None, count: Count | None = None) -> Int64:
        """The ids of rows for which the SQL expression holds: int64 (r,), ascending.

        A column whose name is no plain word, or differs from another one only in case, stands in double quotes, a text
        in single ones: `"a.b" = 'x' and year > 9`.
        limit_s  seconds that it may take, what is counted not among them; by default the store's
        count    counts what `count('red circle')` asks for, see `counting`

        InputError if it cannot be read, names no such column (it lists them), or takes longer. Overloaded where FILTERS
        others are at work and go on for WAIT_SECONDS. CollectionChanged where a later commit did away with rows.
        """
        counting, limit = Counting(count), self._filter_s if limit_s is None else limit_s
        rows = self._filtered(where, limit, counting)
        while counting.settle():
            rows = self._filtered(where, limit, counting)
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        return ids[self._inside(ids)]

    def table(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these ids, in their order, as the shards hold them; read shard by shard, for many ids at once.

        columns  those wanted, of which shards without them yield nulls; all by default
        """
        wanted = np.asarray(ids, dtype=np.int64)
        parts = [(at, table) for at, _, table in self._parts(wanted, columns)]
        if not parts:
            return pa.table({"id": pa.array([], pa.int64()), "key": pa.array([], pa.string())})
        order = np.concatenate([at for at, _ in parts])
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables([table for _, table in parts], promote_options="permissive").take(pa.array(back))

    def _parts(
        self, wanted: Int64, columns: Sequence[str] | None
    ) -> Iterator[tuple[npt.NDArray[np.intp], Shard, pa.Table]]:
        """The rows of these ids shard by shard: where in `wanted` they stand, the shard, and the rows."""
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        found = 0
        for shard in sorted((s for s in self._manifest.shards if s.rows), key=lambda s: s.first_id):
            low, high = np.searchsorted(ascending, [shard.first_id, shard.last_id + 1])
            if low == high:
                continue
            here = shards.read_ids(self._folder, shard)
            rows = np.minimum(np.searchsorted(here, ascending[low:high]), len(here) - 1)
            missing = here[rows] != ascending[low:high]
            if missing.any():
                raise self._unknown(int(ascending[low:high][missing][0]))
            yield order[low:high], shard, cache.read_table(self._folder, shard, columns).take(pa.array(rows))
            found += len(rows)
        if found < len(wanted):
            inside = np.zeros(len(ascending), dtype=bool)
            for shard in self._manifest.shards:
                inside |= (ascending >= shard.first_id) & (ascending <= shard.last_id)
            raise self._unknown(int(ascending[~inside][0]))

    def update(self, manifest: Manifest, progress: Callable[[int, int], None] | None = None) -> None:
        """Follow the collection to another commit: read in new shards, forget those that are gone."""
        with self._lock:
            existed = os.path.lexists(self.path)
            try:
                made_again = self._fill(manifest, progress)
            except (sqlite3.DatabaseError, cache.NotOurs, PermissionError) as error:
                if isinstance(error, sqlite3.DatabaseError) and _code(error) not in _NOT_OURS:
                    raise
                self._discard()
                made_again = self._fill(manifest, progress)
            if made_again and existed:
                self._log_made_again()
            self._manifest = manifest
            made = ((shard.number, cache.made_from(self._folder, shard)) for shard in manifest.shards if shard.rows)
            self._shards = frozenset(made)

    def at(self, manifest: Manifest) -> "SqliteMetadata":
        """The same cache for another commit, in place of this one, which only those go on with who are at it."""
        other = copy.copy(self)
        other._connections, other._lock = Connections(self.path), threading.Lock()
        other.update(manifest)
        with self._lock:
            self._connections.close()
            self._temporary = None  # the other's now
        return other

    def close(self) -> None:
        """Let go of the file, and delete it if it was temporary."""
        with self._lock:
            self._connections.close()
            if self._temporary is not None:
                self._temporary.cleanup()

    def __enter__(self) -> "SqliteMetadata":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _filtered(self, where: str, limit_s: float, counting: Counting) -> list[tuple[int]]:
        if not self._filtering.acquire(timeout=WAIT_SECONDS):
            raise Overloaded(f"{FILTERS} filters are at work on {self._folder} already; ask again in a moment.")
        try:
            return self._run(lambda c: _filter(c, where, limit_s, counting), whole=True, once=True)
        finally:
            self._filtering.release()

    def _read(self, ids: list[int], columns: Sequence[str] | None) -> dict[int, Mapping[str, object]]:
        """At most some hundred rows by id, without those that there are not."""
        try:
            layout, read, text = self._run(lambda connection: _rows(connection, self._layout, ids, columns))
        except sqlite3.DataError:  # longer than the connection lets a text be
            if len(ids) == 1:
                return {ids[0]: self._bulk(ids, columns)[0]}
            return self._read(ids[::2], columns) | self._read(ids[1::2], columns)
        self._layout = layout
        names = [column.name for column in read]
        restored = [i for i, column in enumerate(read) if not column.kinds <= {"int", "text", "time", "blob"}]
        found: dict[int, Mapping[str, object]] = {}
        for parts in orjson.loads(text):
            *lists, kept = parts
            row = lists[0] if len(lists) == 1 else list(itertools.chain.from_iterable(lists))
            row = [_uncell(value) if type(value) is list else value for value in row]
            for i in restored:
                row[i] = read[i].restore(row[i])
            values = dict(zip(names, row, strict=True))
            if kept:
                values |= {name: value for name, value in cells.load_kept(kept).items() if name in values}
            found[row[0]] = values
        return found

    def _bulk(self, ids: list[int], columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        """The rows of these ids from the shards' files."""
        empty: dict[str, object] = {
            column.name: None for column in self._layout.columns if columns is None or column.name in {"id", *columns}
        }
        found: list[Mapping[str, object]] = [empty] * len(ids)
        for at, shard, table in self._parts(np.asarray(ids, dtype=np.int64), list(empty)):
            names = cache.named(table)
            shown = [cache.read_column(self._folder, shard, table, name).shown for name in names]
            for position, row in zip(at.tolist(), zip(*shown, strict=True), strict=True):
                found[position] = empty | dict(zip(names, row, strict=True))
        return found

    def _known(self, found: Mapping[int, _T], wanted: int) -> _T:
        try:
            return found[wanted]
        except KeyError:
            raise self._unknown(wanted) from None

    def _unknown(self, wanted: int) -> NotFound:
        return NotFound(f"{self._folder} has no item {wanted}; ids are given once, and those compacted away are gone.")

    def _query(self, sql: str, values: Sequence[object], whole: bool = False) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(sql, values).fetchall(), whole)

    def _run(self, query: Callable[[sqlite3.Connection], _T], whole: bool = False, once: bool = False) -> _T:
        """`query` on a connection of its own; once more on a cache made anew if the file turns out to be damaged.

        whole  ask a cache that holds all rows of this commit. It may have followed others to a later one; then
               CollectionChanged
        once   on a connection that is closed afterwards
        """
        for tried in range(ATTEMPTS):
            seen = self._seen  # before looking: another thread may make it again between that and the question
            self._look()
            shards = self._shards if whole else None
            try:
                return self._connections.run(query, shards, once)
            except Stale:
                if tried:
                    raise changed(self._folder) from None
                with self._lock:
                    self._fill(self._manifest, None)
            except (sqlite3.DatabaseError, CollectionError, InputError) as error:
                # An InputError may be a filter's fault, or that of a cache whose columns went while it was asked.
                damaged = isinstance(error, sqlite3.DatabaseError) and _code(error) in _DAMAGED
                if tried == ATTEMPTS - 1 or (not self._look(seen if damaged else None, damaged) and self._seen == seen):
                    raise
        raise changed(self._folder)

    def _look(self, asked: cache.Signature = None, damaged: bool = False) -> bool:
        """Make the cache again if the file is no longer what this, or another process of ours, wrote; whether it was.

        damaged  the file that was `asked` is damaged, whatever it looks like
        """
        if not damaged and cache.signature(self.path) == self._seen:
            return False
        with self._lock:
            seen = cache.signature(self.path)
            if seen == self._seen and not (damaged and seen == asked):
                return True  # another thread made it meanwhile
            if not damaged and self._is_ours():
                if seen is None or self._seen is None or seen[0] != self._seen[0]:
                    self._reconnect()  # it was replaced: those that are open have the old one
                self._seen = seen
                return False
            self._make_again()
            return True

    def _make_again(self) -> None:
        for tried in range(ATTEMPTS):
            self._discard()
            try:
                self._fill(self._manifest, None)
                break
            except (sqlite3.DatabaseError, CollectionError):  # another program may write to it meanwhile, too
                if tried == ATTEMPTS - 1:
                    raise
        self._log_made_again()

    def _is_ours(self) -> bool:
        for _ in range(LOOKS):
            with explained(self.path):
                if cache.is_ours(self.path):
                    return True
            if cache.signature(self.path) is None:
                return False
            time.sleep(LOOK_S)
        return False

    def _log_made_again(self) -> None:
        log.warning(
            "%s was damaged, of another version or changed by another program; it has been made again.", self.path
        )

    def _inside(self, ids: Int64) -> npt.NDArray[np.bool_]:
        """Which ids lie in the shards of this commit; the cache may hold others."""
        parts = sorted((shard.first_id, shard.last_id) for shard in self._manifest.shards if shard.rows)
        ranges = np.array(parts, dtype=np.int64).reshape(-1, 2)
        at = np.searchsorted(ranges[:, 0], ids, "right") - 1
        return (at >= 0) & (ids <= ranges[at, 1]) if len(ranges) else np.zeros(len(ids), np.bool_)

    def _reconnect(self) -> None:
        self._connections.close()
        self._connections = Connections(self.path)

    def _discard(self) -> None:
        self._reconnect()
        for suffix in ("", "-journal", "-wal", "-shm"):
            _remove(self.path.with_name(NAME + suffix))

    def _fill(self, manifest: Manifest, progress: Callable[[int, int], None] | None) -> bool:
        """Bring the cache to the manifest; whether it had to be made from nothing."""
        with explained(self.path):
            self._layout, anew = cache.fill(self.path, self._folder, manifest, progress)
        self._seen = cache.signature(self.path)
        return anew


def _cell(column: str) -> str:
    """SQL of a value as JSON: what JSON would round or cannot hold as a list, the number's text or the bytes' hex."""
    return (
        f"CASE typeof({column}) WHEN 'real' THEN json_array(printf('%!.17g', {column})) "
        f"WHEN 'blob' THEN json_array(hex({column}), 1) ELSE {column} END"
    )


def _uncell(value: list[Any]) -> float | bytes:
    return float(value[0]) if len(value) == 1 else bytes.fromhex(value[0])


def _filter(connection: sqlite3.Connection, where: str, limit_s: float, counting: Counting) -> list[tuple[int]]:
    columns = {column.name: column.sql for column in cache.read_layout(connection).columns}
    return filters.run(connection, where, columns, limit_s, counting)


def _rows(
    connection: sqlite3.Connection, layout: cache.Layout, ids: Sequence[int], columns: Sequence[str] | None
) -> tuple[cache.Layout, list[Column], str]:
    """The file's layout, the columns that were read, and JSON of the rows: lists of CELLS values, and what is kept.

    layout  what the file is expected to have; another process may have given it other columns

    One text for all: sqlite3 lets go of the interpreter at each row that it steps to, and under load waits for it as
    often.
    """
    while True:
        read = [column for column in layout.columns if columns is None or column.name in {"id", *columns}]
        values = [_cell(filters.quote(column.sql)) if column.sql else "NULL" for column in read]
        lists = [f"json_array({', '.join(values[at : at + CELLS])})" for at in range(0, len(values), CELLS)]
        kept = "(SELECT kept FROM more WHERE more.id = items.id)" if any(c.keeps for c in read) else "NULL"
        row = f"json_array({', '.join([*lists, kept])})"
        found = f"SELECT json_group_array({row}), (SELECT layout FROM stamp) FROM items"
        try:
            sql = f"{found} WHERE id IN ({', '.join('?' * len(ids))})"
            ((text, number),) = connection.execute(sql, ids).fetchall()
            if number == layout.number:
                return layout, read, text
            layout = cache.read_layout(connection)
        except sqlite3.OperationalError:  # a column has another name now, or the file is damaged
            now = cache.read_layout(connection)
            if now.number == layout.number:
                raise
            layout = now


def _code(error: sqlite3.DatabaseError) -> int:
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:  # a folder, or in one that may not be written
        raise CollectionError(
            f"{path} cannot be replaced ({error.strerror}); move it away, or have the cache elsewhere with --state DIR."
        ) from error


def _int_list(ids: Sequence[int] | Int64 | npt.NDArray[np.int64]) -> list[int]:
    return ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]


def _chunks(values: list[_T]) -> Iterator[list[_T]]:
    for start in range(0, len(values), 500):
        yield values[start : start + 500]
