"""Files of kinds whose library a crafted file can crash or keep busy for ever: read by a process of their own.

HDF5, Lance, and CSV and JSON as pyarrow reads them, are parsed by a child process with limits of memory and of time,
`python -m clipsieve.apart KIND PATH ROWS`. It writes what it reads as an Arrow stream to its standard output, and the
parent validates each batch of that. What ends the child, be it a signal, is an InputError in the parent, which goes on.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from clipsieve.errors import InputError, MissingExtra

MEMORY = 16 << 30
"""Bytes of address space of the child, of which its libraries map 2 to 4 GiB before they read anything."""

PATIENCE_S: Mapping[str, int] = {"hdf5": 20, "lance": 60, "csv": 300, "json": 300}
"""Seconds that the child may take for one batch; for a text, which is read as a whole, before the first."""

BUSY_S: Mapping[str, int] = {"hdf5": 5, "lance": 60, "csv": 300, "json": 300}
"""Seconds of processor time of the same: a file that is read in circles is told sooner than one on a slow disk."""

Kind = Literal["hdf5", "lance", "csv", "json"]

ROWS = b"rows"
"""Key in the stream's metadata: how many rows there are in all, in digits."""

_NAMES = {"hdf5": "HDF5", "lance": "Lance", "csv": "CSV", "json": "JSON lines"}
_REFUSED, _NO_LIBRARY = 3, 4
"""Exit statuses of the child, which has said why."""


def batches(kind: Kind, path: Path, size: int) -> Iterator[Any]:
    """The rows of a file of one kind as validated pyarrow.RecordBatch of at most `size` rows.

    InputError if the file cannot be read, or its reader dies of it; MissingExtra without the library.
    """
    from clipsieve.checked_tables import FAULTS, valid

    with _stream(kind, path, size) as reader:
        for batch in reader:
            try:
                valid(batch)
            except FAULTS as error:  # and not what becomes of the child, which is cut short now
                raise _unreadable(kind, path, error) from error
            yield batch


def count_rows(kind: Kind, path: Path) -> int:
    """How many rows `batches` gives in all. The errors are the same."""
    with _stream(kind, path, 0) as reader:
        reader.read_all()  # to the end, so that the child is not cut short
        return int((reader.schema.metadata or {})[ROWS])


@contextlib.contextmanager
def _stream(kind: str, path: Path, size: int) -> Iterator[Any]:
    import pyarrow as pa

    command = [sys.executable, "-P", "-m", "clipsieve.apart", kind, os.fspath(path), str(size)]
    # -P: no module of the folder that this happens to run in. HDF5 would load filters as shared libraries.
    environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::"}
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, env=environment
        ) as child,
    ):
        try:
            yield pa.ipc.open_stream(child.stdout)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            child.stdout.close()  # type: ignore[union-attr]
            if child.wait() == 0:
                raise _unreadable(kind, path, error) from error
            raise _why(kind, path, child.returncode, said) from error
        except BaseException:  # who reads has had enough
            child.kill()
            raise
        child.stdout.close()  # type: ignore[union-attr]
        if child.wait() != 0:
            raise _why(kind, path, child.returncode, said)


def _why(kind: str, path: Path, code: int, said: Any) -> InputError | MissingExtra:
    said.seek(0)
    lines = said.read(1 << 16).decode("utf-8", "replace").strip().splitlines() or ["no reason was given"]
    if code == _NO_LIBRARY:
        return MissingExtra(f"{path}: {lines[-1]}")
    reason = lines[-1][:500]
    if -code in (signal.SIGALRM, signal.SIGPROF):
        reason = f"its reader was at one batch for {(BUSY_S if -code == signal.SIGPROF else PATIENCE_S)[kind]} s"
    elif code < 0:
        reason = f"its reader died of {signal.Signals(-code).name}"
    return _unreadable(kind, path, reason)


def _unreadable(kind: str, path: Path, reason: object) -> InputError:
    return InputError(f"{path} is not readable {_NAMES[kind]} ({reason}); restore it from a copy, or write it again.")


def _hdf5(path: str, size: int) -> tuple[int, Iterator[Any]]:
    import h5py
    import numpy as np
    import pyarrow as pa

    file = h5py.File(path, "r")
    if not isinstance(file.get("dataset", getlink=True), h5py.HardLink):
        raise InputError("it has no group 'dataset' of its own, so it is not clip-retrieval's")
    group = file["dataset"]
    for name in group:
        column = group[name] if isinstance(group.get(name, getlink=True), h5py.HardLink) else None
        if not isinstance(column, h5py.Dataset) or column.external or column.is_virtual:
            raise InputError(f"its column {name!r} lies outside the file, and is not followed")
        if column.ndim != 1:
            raise InputError(f"its column {name!r} has shape {column.shape} instead of one value a row")
    rows = {len(column) for column in group.values()}
    if len(rows) > 1:
        raise InputError(f"its columns differ in rows ({sorted(rows)})")
    total = rows.pop() if rows else 0

    def values(column: Any, start: int) -> Any:
        found = column[start : start + size]
        if found.dtype != np.dtype(object):
            return pa.array(found)
        return pa.array([v.decode("utf-8", "replace") or None for v in found], pa.string())

    def read() -> Iterator[Any]:
        for start in range(0, max(total, 1) if size else 1, size or 1):
            yield pa.RecordBatch.from_arrays([values(c, start) for c in group.values()], names=list(group))

    return total, read()


def _lance(path: str, size: int) -> tuple[int, Iterator[Any]]:
    import lance

    opened = lance.dataset(path)
    return opened.count_rows(), opened.to_batches(batch_size=size, scan_in_order=True)


def _csv(path: str, size: int) -> tuple[int, Iterator[Any]]:
    from pyarrow import csv

    return _cut(csv.read_csv(path), size)


def _json(path: str, size: int) -> tuple[int, Iterator[Any]]:
    from pyarrow import json

    return _cut(json.read_json(path), size)


def _cut(table: Any, size: int) -> tuple[int, Iterator[Any]]:
    import pyarrow as pa

    none = pa.RecordBatch.from_pylist([], schema=table.schema)  # has the columns
    return table.num_rows, iter(table.to_batches(size) or [none])


_KINDS: dict[str, tuple[Callable[[str, int], tuple[int, Iterator[Any]]], str]] = {
    "hdf5": (_hdf5, "HDF5 needs h5py; install clipsieve[hdf5]."),
    "lance": (_lance, "a Lance table needs pylance; install clipsieve[lance]."),
    "csv": (_csv, "CSV needs pyarrow; install clipsieve with its dependencies."),
    "json": (_json, "JSON needs pyarrow; install clipsieve with its dependencies."),
}


def main(kind: str, path: str, size: int) -> int:
    """Write the file's rows to the standard output as an Arrow stream; the exit status for `_why`.

    size  rows of a batch; 0 for the schema alone, which says how many rows there are
    """
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    import pyarrow as pa

    read, lacking = _KINDS[kind]
    out = sys.stdout.buffer
    try:
        _allow(PATIENCE_S[kind], BUSY_S[kind])
        total, found = read(path, size)
        writer = None
        for batch in found:
            if writer is None:
                metadata = {**(batch.schema.metadata or {}), ROWS: str(total).encode()}
                writer = pa.ipc.new_stream(out, batch.schema.with_metadata(metadata))
            if not size:
                break
            _allow(0, 0)  # without limits: who reads may take his time
            writer.write_batch(batch)
            _allow(PATIENCE_S[kind], BUSY_S[kind])
        if writer is None:
            writer = pa.ipc.new_stream(out, pa.schema([], metadata={ROWS: b"0"}))
        writer.close()
        out.flush()
    except ImportError:
        print(lacking, file=sys.stderr)
        return _NO_LIBRARY
    except BaseException as error:  # each library has its own; Rust's panics are no Exception
        print(" ".join(str(error).split()) or type(error).__name__, file=sys.stderr)
        return _REFUSED
    return 0


def _allow(patience: int, busy: int) -> None:
    """From now on, end this process after so many seconds, or so many of processor time; 0 for never."""
    signal.setitimer(signal.ITIMER_REAL, patience)
    signal.setitimer(signal.ITIMER_PROF, busy)


if __name__ == "__main__":
    status = main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    sys.stderr.flush()
    os._exit(status)  # not by way of what the library has to tidy up
