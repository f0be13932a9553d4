"""What is known of each item beside its vector: rows by id, keys, and filters, over `cache.sqlite`.

The cache is derived from the metadata shards, row for row. It remembers which shard files it was made from (path, size,
checksum), reads in what it lacks when it is opened, and may be deleted at any time: nothing but the time to read the
shards again is lost. One that is damaged, or that anybody else has written to, is made again.
"""

import contextlib
import copy
import os
import sqlite3
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from clipsieve import shards
from clipsieve.errors import NotFound
from clipsieve.index import cache
from clipsieve.index import where as filters
from clipsieve.index.connections import Connections, Stale, explained
from clipsieve.index.counting import Count, Counting
from clipsieve.manifest import Manifest
from clipsieve.output_path import require_path
from clipsieve.types import Int64
from clipsieve.whole import changed

NAME = "cache.sqlite"
BULK = 20_000
"""From this many ids on, rows are read from the Parquet files in order: SQLite takes 7 us a row, they take 1."""

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_T = TypeVar("_T")


class SqliteMetadata:
    """A MetadataStore over the metadata shards of one manifest. Safe to read from several threads at once."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        manifest: Manifest,
        *,
        state: str | os.PathLike[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Open the cache and read in what it lacks.

        state     folder for the cache; by default the collection's own, or, where that cannot be written or belongs to
                  another program, a temporary one that vanishes on `close`
        progress  called with (rows read in, rows to read in) after each shard
        """
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
        self._manifest = manifest
        self._shards: frozenset[tuple[int, str]] = frozenset()  # number, and what the cache's rows of it are made from
        self._columns: list[tuple[str, str, str]] = []  # name, name in SQL, kind
        try:
            self.update(manifest, progress)
        except BaseException:
            self.close()
            raise

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that a filter may use, `id` and `key` first."""
        return tuple(sql for _, sql, _ in self._columns)

    def get(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        """The rows of these ids, in their order: column name -> value, None where the item has none.

        columns  those to read beside `id`, of which ones that there are not are left out; all by default

        Times are ISO 8601 texts; lists and structs are Python's. NotFound names an unknown id.
        """
        wanted = _int_list(ids)
        if len(wanted) >= BULK:
            with contextlib.suppress(pa.ArrowInvalid, pa.ArrowTypeError):  # a column whose type differs by shard
                return self._bulk(wanted, columns)
        read = [c for c in self._columns if columns is None or c[0] in {"id", *columns}]
        names, kinds = [name for name, _, _ in read], [kind for _, _, kind in read]
        special = [i for i, kind in enumerate(kinds) if kind != "plain"]
        twice = len(set(names)) < len(names)
        found: dict[int, Mapping[str, object]] = {}
        for row in self._rows(wanted, [sql for _, sql, _ in read]):
            for i in special:
                row[i] = cache.restore(kinds[i], row[i])
            found[row[0]] = _merged(names, row) if twice else dict(zip(names, row, strict=True))
        return [self._known(found, i) for i in wanted]

    def keys(self, ids: Sequence[int] | Int64) -> list[str]:
        """The keys of these ids, in their order. NotFound names an unknown id."""
        wanted = _int_list(ids)
        if len(wanted) >= BULK:
            keys: list[str] = self.table(wanted, ["key"])["key"].to_pylist()
            return keys
        found: dict[int, str] = dict(self._rows(wanted, ["id", "key"]))
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
                raise NotFound(f"{self._folder} has no item with key {key!r}; `clipsieve info` shows some of its keys.")
        return np.array([found[key] for key in keys], dtype=np.int64)

    def select(self, where: str, *, limit_s: float = 30.0, count: Count | None = None) -> Int64:
        """The ids of rows for which the SQL expression holds: int64 (r,), ascending.

        A column whose name is no plain word stands in double quotes, a text in single ones: `"a.b" = 'x' and year > 9`.
        count  counts what `count('red circle')` asks for, see `counting`

        InputError if it cannot be read, names no such column (it lists them), or takes longer than `limit_s` seconds,
        what is counted not among them.
        CollectionChanged where a later commit did away with rows.
        """
        counting = Counting(count)
        rows = self._run(lambda c: filters.run(c, where, self.columns, limit_s, counting), whole=True)
        while counting.settle():
            rows = self._run(lambda c: filters.run(c, where, self.columns, limit_s, counting), whole=True)
        ids = np.fromiter((row[0] for row in rows), dtype=np.int64, count=len(rows))
        return ids[self._inside(ids)]

    def table(self, ids: Sequence[int] | Int64, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of these ids, in their order, as the shards hold them; read shard by shard, for many ids at once.

        columns  those wanted, of which shards without them yield nulls; all by default
        """
        wanted = np.asarray(ids, dtype=np.int64)
        order = np.argsort(wanted, kind="stable")
        ascending = wanted[order]
        parts, found = [], 0
        for shard in sorted((s for s in self._manifest.shards if s.rows), key=lambda s: s.first_id):
            low, high = np.searchsorted(ascending, [shard.first_id, shard.last_id + 1])
            if low == high:
                continue
            here = shards.read_ids(self._folder, shard)
            rows = np.minimum(np.searchsorted(here, ascending[low:high]), len(here) - 1)
            missing = here[rows] != ascending[low:high]
            if missing.any():
                raise self._unknown(int(ascending[low:high][missing][0]))
            parts.append(cache.read_table(self._folder, shard, columns).take(pa.array(rows)))
            found += len(rows)
        if found < len(wanted):
            inside = np.zeros(len(ascending), dtype=bool)
            for shard in self._manifest.shards:
                inside |= (ascending >= shard.first_id) & (ascending <= shard.last_id)
            raise self._unknown(int(ascending[~inside][0]))
        if not parts:
            return pa.table({"id": pa.array([], pa.int64()), "key": pa.array([], pa.string())})
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return pa.concat_tables(parts, promote_options="permissive").take(pa.array(back))

    def update(self, manifest: Manifest, progress: Callable[[int, int], None] | None = None) -> None:
        """Follow the collection to another commit: read in new shards, forget those that are gone."""
        with self._lock:
            try:
                self._fill(manifest, progress)
            except (sqlite3.DatabaseError, PermissionError) as error:
                if isinstance(error, sqlite3.DatabaseError) and not _is_damage(error):
                    raise
                self._discard()
                self._fill(manifest, progress)
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

    def _rows(self, ids: list[int], columns: Sequence[str]) -> Iterator[list[Any]]:
        """Rows as one JSON text: sqlite3 lets go of the interpreter at each row that it steps to, and under load waits
        for it as often."""
        cells = ", ".join(_cell(filters.quote(column)) for column in columns)
        for chunk in _chunks(ids):
            sql = f"SELECT json_group_array(json_array({cells})) FROM items WHERE id IN ({', '.join('?' * len(chunk))})"
            try:
                ((text,),) = self._query(sql, chunk)
            except sqlite3.DataError:  # longer than the fence lets a text be
                if len(chunk) == 1:
                    raise
                for part in (chunk[::2], chunk[1::2]):
                    yield from self._rows(part, columns)
                continue
            for row in orjson.loads(text):
                yield [_uncell(value) if type(value) is list else value for value in row]

    def _bulk(self, ids: list[int], columns: Sequence[str] | None = None) -> list[Mapping[str, object]]:
        empty: dict[str, object] = {n: None for n, _, _ in self._columns if columns is None or n in {"id", *columns}}
        table = self.table(ids, list(empty))
        names, read = [], []
        for name in cache.named(table):
            kind, values = cache.plain(table[name])
            names.append(name)
            read.append(values if kind == "plain" else [cache.restore(kind, v) for v in values])
        return [empty | dict(zip(names, row, strict=True)) for row in zip(*read, strict=True)]

    def _known(self, found: Mapping[int, _T], wanted: int) -> _T:
        try:
            return found[wanted]
        except KeyError:
            raise self._unknown(wanted) from None

    def _unknown(self, wanted: int) -> NotFound:
        return NotFound(f"{self._folder} has no item {wanted}; ids are given once, and those compacted away are gone.")

    def _query(self, sql: str, values: Sequence[object], whole: bool = False) -> list[tuple[Any, ...]]:
        return self._run(lambda connection: connection.execute(sql, values).fetchall(), whole)

    def _run(self, query: Callable[[sqlite3.Connection], _T], whole: bool = False) -> _T:
        """`query` on a connection of its own; once more on a cache made anew if the file turns out to be damaged.

        whole  ask a cache that holds all rows of this commit. It may have followed others to a later one; then
               CollectionChanged
        """
        shards = self._shards if whole else None
        try:
            return self._connections.run(query, shards)
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            with self._lock:
                self._discard()
                self._fill(self._manifest, None)
        except Stale:
            with self._lock:
                self._fill(self._manifest, None)
        try:
            return self._connections.run(query, shards)
        except Stale:
            raise changed(self._folder) from None

    def _inside(self, ids: Int64) -> npt.NDArray[np.bool_]:
        """Which ids lie in the shards of this commit; the cache may hold others."""
        parts = sorted((shard.first_id, shard.last_id) for shard in self._manifest.shards if shard.rows)
        ranges = np.array(parts, dtype=np.int64).reshape(-1, 2)
        at = np.searchsorted(ranges[:, 0], ids, "right") - 1
        return (at >= 0) & (ids <= ranges[at, 1]) if len(ranges) else np.zeros(len(ids), np.bool_)

    def _discard(self) -> None:
        self._connections.drop()
        for suffix in ("", "-journal"):
            self.path.with_name(NAME + suffix).unlink(missing_ok=True)

    def _fill(self, manifest: Manifest, progress: Callable[[int, int], None] | None) -> None:
        with explained(self.path):
            self._columns = cache.fill(self.path, self._folder, manifest, progress)


def _cell(column: str) -> str:
    """SQL of a value as JSON: what JSON would round or cannot hold as a list, the number's text or the bytes' hex."""
    return (
        f"CASE typeof({column}) WHEN 'real' THEN json_array(printf('%!.17g', {column})) "
        f"WHEN 'blob' THEN json_array(hex({column}), 1) ELSE {column} END"
    )


def _uncell(value: list[Any]) -> float | bytes:
    return float(value[0]) if len(value) == 1 else bytes.fromhex(value[0])


def _merged(names: Sequence[str], row: Sequence[object]) -> dict[str, object]:
    """A row where one name has columns of several kinds, of which an item fills one at most."""
    merged: dict[str, object] = {}
    for name, value in zip(names, row, strict=True):
        if value is not None or name not in merged:
            merged[name] = value
    return merged


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED


def _int_list(ids: Sequence[int] | Int64 | npt.NDArray[np.int64]) -> list[int]:
    return ids.tolist() if isinstance(ids, np.ndarray) else [int(i) for i in ids]


def _chunks(values: list[_T]) -> Iterator[list[_T]]:
    for start in range(0, len(values), 500):
        yield values[start : start + 500]
