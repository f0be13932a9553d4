"""Arrow and Parquet files read so that what is wrong with them is an error before anything of them is used.

pyarrow believes the offsets, lengths and dictionary indices of an Arrow file, and the first value that is read by one
that points beyond its buffer ends the process. `validate(full=True)` compares them all without following any, at about
the cost of reading them.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

FAULTS = (pa.ArrowException, OSError, UnicodeError, MemoryError)
"""What reading a damaged or crafted table raises."""

BATCH_ROWS = 8192

SPARE = 1 << 30
RATIO = 1000
"""A Parquet file may hold so many bytes, and so many times its own size: what says more is a decompression bomb."""

_T = TypeVar("_T", pa.Table, pa.RecordBatch)


def valid(table: _T) -> _T:
    """The table or batch itself. One of FAULTS unless offsets, indices and UTF-8 of its columns and names are right."""
    for field in table.schema:
        _read_names(field)
    table.validate(full=True)
    return table


def require_distinct(table: _T) -> _T:
    """The table or batch itself. ArrowInvalid where two of its columns have one name, by which they are asked for."""
    names = table.schema.names
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise pa.ArrowInvalid(f"it has two columns named {twice!r}")
    return table


def read_ipc(path: str | os.PathLike[str]) -> pa.Table:
    """All of an Arrow file, in memory: a mapped one that somebody cuts short would end the process."""
    with pa.OSFile(os.fspath(path)) as source:
        return valid(pa.ipc.open_file(source).read_all())


def count_ipc_rows(path: str | os.PathLike[str]) -> int:
    """Rows of an Arrow file, by its batches' headers: mapped, so that only these are read."""
    with pa.memory_map(os.fspath(path)) as source:
        opened = pa.ipc.open_file(source)
        return sum(opened.get_batch(i).num_rows for i in range(opened.num_record_batches))


def ipc_batches(path: str | os.PathLike[str]) -> Iterator[pa.RecordBatch]:
    """The batches of an Arrow file, or of an Arrow stream that was saved as one."""
    with pa.OSFile(os.fspath(path)) as source:
        try:
            opened = pa.ipc.open_file(source)
        except pa.ArrowInvalid:  # what `datasets` saves is a stream
            source.seek(0)
            yield from map(valid, pa.ipc.open_stream(source))
        else:
            yield from (valid(opened.get_batch(i)) for i in range(opened.num_record_batches))


def read_parquet(
    path: str | os.PathLike[str], columns: Sequence[str] | None = None, *, trusted: bool = False
) -> pa.Table:
    """All rows of a Parquet file: all columns, or those named that it has.

    trusted  its checksum is known: it is read at once, where another one is read batch by batch up to its limit

    ArrowInvalid for a file that holds more than SPARE and RATIO let it.
    """
    wanted = None if columns is None else list(columns)
    limit = SPARE + RATIO * Path(path).stat().st_size
    with pq.ParquetFile(path) as file:
        if trusted or not file.metadata.num_rows:
            return valid(file.read(columns=wanted))
        found, size = [], 0
        for batch in file.iter_batches(BATCH_ROWS, columns=wanted):
            found.append(valid(batch))
            size += batch.nbytes
            if size > limit:
                raise pa.ArrowInvalid(f"it holds over {limit:,} bytes, more than a file of its size may")
        if not found:
            raise pa.ArrowInvalid(f"its footer counts {file.metadata.num_rows:,} rows, and it has none")
        return pa.Table.from_batches(found).unify_dictionaries()


def _read_names(field: pa.Field) -> None:
    """UnicodeDecodeError where a name, which pyarrow decodes only when it is asked for, is no UTF-8."""
    _ = field.name
    for inner in range(field.type.num_fields):
        _read_names(field.type.field(inner))


def count_parquet_rows(path: str | os.PathLike[str]) -> int:
    """Rows of a Parquet file, by its footer."""
    return int(pq.read_metadata(path).num_rows)
