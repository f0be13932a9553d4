"""Metadata of clip-retrieval's index folders: Parquet, Arrow files or one HDF5 file. Row k of all files is vector k."""

from pathlib import Path

import pyarrow as pa

from clipsieve import apart, checked_tables
from clipsieve.errors import CollectionDamaged, CollectionError, InputError

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
    try:
        if path.suffix == ".parquet":
            return checked_tables.count_parquet_rows(path)
        return checked_tables.count_ipc_rows(path) if path.suffix == ".arrow" else apart.count_rows("hdf5", path)
    except (*checked_tables.FAULTS, InputError) as error:
        raise _damaged(path, error) from error


def read_table(path: Path) -> pa.Table:
    """All rows of a Parquet or Arrow file, or of clip-retrieval's HDF5, where "" stands for no text.

    FileNotFoundError if it is not there; else the errors of `count_rows`.
    """
    try:
        if path.suffix == ".parquet":
            return checked_tables.require_distinct(checked_tables.read_parquet(path))
        if path.suffix == ".arrow":
            return checked_tables.require_distinct(checked_tables.read_ipc(path))
        return pa.Table.from_batches(apart.batches("hdf5", path, checked_tables.BATCH_ROWS))
    except FileNotFoundError:
        raise
    except (*checked_tables.FAULTS, InputError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CollectionError:
    if isinstance(error, InputError | CollectionError):
        return error if isinstance(error, CollectionError) else CollectionDamaged(str(error))
    kind = "Arrow" if path.suffix == ".arrow" else "Parquet"
    return CollectionDamaged(f"{path} is not readable {kind} ({error}); write it again.")
