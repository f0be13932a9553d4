"""Metadata of clip-retrieval's index folders: Parquet, Arrow files or one HDF5 file. Row k of all files is vector k."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.errors import CollectionDamaged, MissingExtra

REORDERED = "metadata_reordered.hdf5"
"""Rows in the order of the index's lists instead of that of the vectors."""


def metadata_files(folder: Path) -> list[Path]:
    """The files that hold the folder's metadata, in the order of their rows; none if it has none.

    The first of: Parquet, Arrow, `metadata.hdf5`, `metadata_reordered.hdf5`.
    """
    inside = folder / "metadata"
    for found in (sorted(inside.glob("*.parquet")), sorted(inside.glob("**/*.arrow"))):
        if found:
            return found
    return [path for path in (folder / "metadata.hdf5", folder / REORDERED) if path.is_file()][:1]


def count_rows(path: Path) -> int:
    """Rows of one of these files. CollectionDamaged if it cannot be read, MissingExtra for HDF5 without h5py."""
    if path.suffix == ".parquet":
        try:
            return int(pq.read_metadata(path).num_rows)
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, "Parquet", error) from error
    if path.suffix == ".arrow":
        return int(read_table(path).num_rows)  # mapped: nothing is copied
    with _open_hdf5(path) as file:
        rows = {len(column) for column in _columns(path, file).values()}
    if len(rows) > 1:
        raise CollectionDamaged(f"The columns of {path} differ in rows ({sorted(rows)}); make it again.")
    return rows.pop() if rows else 0


def read_table(path: Path) -> pa.Table:
    """All rows of an Arrow file (memory-mapped) or of clip-retrieval's HDF5, where "" stands for no text."""
    if path.suffix == ".arrow":
        try:
            return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (pa.ArrowInvalid, OSError) as error:
            raise _damaged(path, "Arrow", error) from error
    with _open_hdf5(path) as file:
        return pa.table({name: _values(column[:]) for name, column in _columns(path, file).items()})


def _open_hdf5(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise MissingExtra(f"{path} is HDF5, which needs h5py; install clipsieve[hdf5].") from error
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise _damaged(path, "HDF5", error) from error


def _columns(path: Path, file: Any) -> dict[str, Any]:
    if "dataset" not in file:
        raise CollectionDamaged(f"{path} has no group 'dataset'; it is not clip-retrieval's, so make it again.")
    return dict(file["dataset"].items())


def _values(column: Any) -> pa.Array:
    if column.dtype == object:
        return pa.array([v.decode("utf-8", "replace") or None for v in column], pa.string())
    return pa.array(column)


def _damaged(path: Path, kind: str, error: Exception) -> CollectionDamaged:
    return CollectionDamaged(f"{path} is not readable {kind} ({error}); write it again.")
