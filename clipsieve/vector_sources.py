"""Where vectors are imported from: .npy files with a table, tables with a column of vectors, tars of .npy members."""

import io
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from clipsieve import apart
from clipsieve.arrays import UNREADABLE, load_array, map_array
from clipsieve.checked_tables import BATCH_ROWS, FAULTS, ipc_batches, read_parquet, require_distinct, valid
from clipsieve.errors import InputError
from clipsieve.foreign import is_foreign
from clipsieve.importing import Block
from clipsieve.tar_samples import Sample, Samples, Suffixes

Kind = Literal["clip-retrieval", "npy", "datasets", "lance", "webdataset"]
_VECTORS = ("vector", "embedding", "embeddings", "image_embedding", "img_emb", "emb")
_TABLES = (".parquet", ".arrow")
_TEXTS: Mapping[str, apart.Kind] = {".csv": "csv", ".jsonl": "json", ".json": "json"}
_TARS = (".tar", ".tar.gz", ".tgz")
_TAR_DAMAGE = (
    tarfile.TarError,
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    ValueError,
    KeyError,  # a hard link to what the tar does not hold
    ArithmeticError,
    MemoryError,
)
_MOST_MEMBER = 1 << 28
"""Bytes of a tar's member that are read: a larger one, or one that claims to be, is no vector."""
_MOST_EMPTY = 1 << 28
"""Numbers that stand for rows without a vector of the right length, in one block: a GiB of them."""


def guess_kind(path: Path) -> Kind:
    """What the path holds. InputError if that cannot be told."""
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    if path.suffix == ".lance":
        return "lance"
    if path.is_dir() and (is_foreign(path) or any(path.glob("image.index*"))):
        return "clip-retrieval"
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for kind, suffixes in (("npy", (".npy",)), ("webdataset", _TARS), ("datasets", _TABLES)):
        if any(file.name.endswith(suffixes) for file in files):
            return kind  # type: ignore[return-value]
    raise InputError(f"{path} holds no vectors that are known here; say with --kind what it is.")


class NpySource:
    """One .npy file (n, d), or a folder of them in the order of their names; and a table of as many rows, if any."""

    def __init__(self, path: Path, table: Path | None = None) -> None:
        self.name = f"npy:{path.resolve()}" + (f" table={table.resolve()}" if table else "")
        paths = [path] if path.is_file() else sorted(path.glob("*.npy"))
        if not paths:
            raise InputError(f"{path} holds no .npy file; name the file, or the folder with its parts.")
        self._parts = [(p.name, _map(p)) for p in paths]
        shapes = {(array.shape[1], array.dtype.kind) for _, array in self._parts}
        if len(shapes) > 1:
            raise InputError(f"The parts in {path} differ in dimension or type ({sorted(shapes)}); import them apart.")
        self.total: int | None = sum(len(array) for _, array in self._parts)
        self._table = None if table is None else read_table(table)
        if self._table is not None and self._table.num_rows != self.total:
            raise InputError(f"{table} has {self._table.num_rows} rows for {self.total} vectors; it needs one each.")

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See VectorSource."""
        passed = 0
        for name, array in self._parts:
            for first in range(max(0, start - passed), len(array), size):
                vectors = array[first : first + size]
                places = [f"{name}#{first + row}" for row in range(len(vectors))]
                table = None if self._table is None else self._table.slice(passed + first, len(vectors))
                yield Block(vectors, places, {} if table is None else _values(table, "The table"))
            passed += len(array)


class TableSource:
    """Parquet or Arrow tables, what Hugging Face `datasets` saved, or a Lance table, with a column of vectors."""

    def __init__(self, path: Path, column: str | None = None, lance: bool = False) -> None:
        self.name = f"{'lance' if lance else 'datasets'}:{path.resolve()}" + (f" vectors={column}" if column else "")
        self.total: int | None = None
        self._column, self._lance = column, lance
        self._paths = [path]
        if not lance and path.is_dir():
            self._paths = sorted(p for p in path.rglob("*") if p.suffix in _TABLES and not p.name.startswith("cache-"))
        if not self._paths:
            raise InputError(f"{path} holds no Parquet or Arrow file; check the path.")
        self._base = path if path.is_dir() and not lance else path.parent
        self._dim: int | None = None

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See VectorSource."""
        passed = 0
        for path in self._paths:
            name, row = path.relative_to(self._base).as_posix(), 0
            for table in _gathered(
                apart.batches("lance", path, min(size, 65_536)) if self._lance else _batches(path, size), size
            ):
                skip = min(max(0, start - passed), table.num_rows)
                if skip < table.num_rows:
                    yield self._block(table.slice(skip), name, row + skip)
                row, passed = row + table.num_rows, passed + table.num_rows

    def _block(self, batch: pa.Table, name: str, row: int) -> Block:
        column = self._column or _vector_column(batch.schema, name)
        if column not in batch.schema.names:
            raise InputError(f"{name} has no column {column!r}; its columns are {', '.join(batch.schema.names)}.")
        kind = batch.schema.field(column).type
        if not _is_list(kind) or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
            raise InputError(f"{name} has {kind} in {column!r}; vectors are lists of numbers.")
        vectors = pa.concat_arrays(batch.column(column).chunks)
        lengths = pc.fill_null(pc.list_value_length(vectors), 0).to_numpy(zero_copy_only=False)
        if self._dim is None and lengths.max(initial=0) > 0:
            self._dim = int(lengths[lengths > 0][0])
        if self._dim is None:
            raise InputError(f"The first rows of {name} have no vectors in {column!r}; leave them out.")
        good = lengths == self._dim
        if int((~good).sum()) * self._dim > _MOST_EMPTY:
            raise InputError(f"Few rows of {name} have {self._dim:,} numbers in {column!r} as its first one; check it.")
        rows = np.full((batch.num_rows, self._dim), np.nan, np.float32)
        values = vectors.filter(pa.array(good)).flatten().to_numpy(zero_copy_only=False)
        rows[good] = values.astype(np.float32).reshape(-1, self._dim)
        others = _values(batch.drop_columns([column]), name)
        return Block(rows, [f"{name}#{row + i}" for i in range(len(rows))], others)


class TarSource:
    """Webdataset tars whose samples have a vector as .npy, and perhaps a .txt and a .json."""

    def __init__(self, path: Path, extension: str | None = None) -> None:
        self.name = f"webdataset:{path.resolve()}" + (f" vectors={extension}" if extension else "")
        self.total: int | None = None
        self._tars = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.name.endswith(_TARS))
        if not self._tars:
            raise InputError(f"{path} holds no tar; check the path.")
        self._extension = (extension or "npy").lower().lstrip(".")
        self._suffixes = Suffixes(frozenset({self._extension}), exact=True)
        self._base = path if path.is_dir() else path.parent
        self._dim: int | None = None

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """See VectorSource."""
        waiting: list[tuple[str, dict[str, bytes]]] = []
        number = 0
        for tar in self._tars:
            for sample in self._samples(tar):
                number += 1
                if number <= start:
                    continue
                waiting.append(sample)
                if len(waiting) == size:
                    yield self._block(waiting)
                    waiting = []
        if waiting:
            yield self._block(waiting)

    def _samples(self, path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
        name = path.relative_to(self._base).as_posix()
        samples = Samples[bytes](self._suffixes)

        def named(done: list[Sample[bytes]]) -> Iterator[tuple[str, dict[str, bytes]]]:
            for sample in done:
                vector = sample.image(self._suffixes)
                usual = {ending: sample.beside(vector, ending)[:1] for ending in ("txt", "json")}
                found = {ending: sample.members[suffixes[0]] for ending, suffixes in usual.items() if suffixes}
                if vector is not None:
                    found[self._extension] = sample.members[vector]
                yield f"{name}/{sample.name}", {**sample.members, **found}

        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    content = tar.extractfile(member)
                    if content is not None:
                        yield from named(samples.turn(member.name))
                        data = content.read() if member.size <= _MOST_MEMBER else b""
                        yield from named(samples.add(member.name, member.size, data))
        except _TAR_DAMAGE as error:
            raise InputError(f"{path} cannot be read to its end ({error}); restore it from a copy.") from error
        yield from named(samples.finish())

    def _block(self, samples: list[tuple[str, dict[str, bytes]]]) -> Block:
        found = [_vector(members.get(self._extension)) for _, members in samples]
        self._dim = self._dim or next((len(v) for v in found if v is not None), None)
        if self._dim is None:
            has = ", ".join(sorted(samples[0][1]))
            raise InputError(f"{samples[0][0]} has no vector as .{self._extension} (it has {has}); name its extension.")
        rows = np.full((len(samples), self._dim), np.nan, np.float32)
        for row, vector in enumerate(found):
            if vector is not None and len(vector) == self._dim:
                rows[row] = vector
        metas = [_json(members.get("json")) for _, members in samples]
        for meta, (_, members) in zip(metas, samples, strict=True):
            if "txt" in members:
                meta["caption"] = members["txt"].decode("utf-8", "replace").strip()
        names = dict.fromkeys(name for meta in metas for name in meta)
        columns = {name: _column([meta.get(name) for meta in metas]) for name in names}
        return Block(rows, [place for place, _ in samples], columns)


def read_table(path: Path) -> pa.Table:
    """A table by its suffix: .parquet, .csv, .jsonl (or .json), .arrow. InputError if it cannot be read."""
    try:
        if path.suffix == ".parquet":
            return require_distinct(read_parquet(path))
        if path.suffix in _TEXTS:
            return require_distinct(pa.Table.from_batches(apart.batches(_TEXTS[path.suffix], path, BATCH_ROWS)))
        if path.suffix == ".arrow":
            return pa.Table.from_batches(list(_batches(path, 1 << 30)))
    except FAULTS as error:
        raise InputError(f"The table {path} cannot be read ({error}); check it.") from error
    raise InputError(f"The table {path} is none of .parquet, .csv, .jsonl and .arrow; convert it.")


def _batches(path: Path, size: int) -> Iterator[pa.RecordBatch]:
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                yield from (require_distinct(valid(batch)) for batch in file.iter_batches(min(size, 65_536)))
            return
        yield from map(require_distinct, ipc_batches(path))
    except FAULTS as error:
        raise InputError(f"{path} cannot be read ({error}); check or restore it.") from error


def _gathered(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """The batches as tables of `size` rows, the last one shorter: files are often cut finer than shards should be."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + batch.num_rows >= size:
            yield pa.Table.from_batches([*waiting, batch.slice(0, size - rows)])
            batch, waiting, rows = batch.slice(size - rows), [], 0
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting)


def _vector_column(schema: pa.Schema, name: str) -> str:
    found = [f.name for f in schema if _is_list(f.type) and pa.types.is_floating(f.type.value_type)]
    usual = [n for n in _VECTORS if n in found]
    if not usual and len(found) != 1:
        what = f"several columns of floats ({', '.join(found)})" if found else "no column of lists of floats"
        raise InputError(f"{name} has {what}; name the one with --vector-column.")
    return str((usual or found)[0])


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _values(table: pa.Table, name: str) -> dict[str, list[Any]]:
    """Column -> its values; as text where Python has no such value, which is so of times beyond the year 9999."""
    found = {}
    for column in table.column_names:
        try:
            found[column] = table[column].to_pylist()
        except (OverflowError, ValueError):
            try:
                found[column] = table[column].cast(pa.string()).to_pylist()
            except FAULTS as error:
                raise InputError(f"{name} has unreadable values in {column!r} ({error}); mend them.") from error
    return found


def _map(path: Path) -> npt.NDArray[Any]:
    try:
        array = map_array(path)
    except UNREADABLE as error:
        raise InputError(f"{path} is no readable .npy file ({error}); write it again.") from error
    if array.ndim != 2 or array.dtype.kind != "f":
        raise InputError(f"{path} holds {array.dtype} of shape {array.shape}; vectors are floats of shape (n, d).")
    return array


def _vector(data: bytes | None) -> npt.NDArray[Any] | None:
    if data is None:
        return None
    try:
        array = load_array(io.BytesIO(data))
    except UNREADABLE:
        return None
    return array.reshape(-1) if array.dtype.kind == "f" and array.size == max(array.shape, default=0) else None


def _json(data: bytes | None) -> dict[str, Any]:
    try:
        value = json.loads(data or b"{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {"json": value}


def _column(values: list[Any]) -> list[Any]:
    """The values, or as JSON where they are of several types."""
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError):
        return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]
    return values
