"""A finished labelling as the one file that was asked for."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow.parquet as pq

from clipsieve.durable import write_file
from clipsieve.errors import InputError
from clipsieve.index.label import PART_ROWS, SCHEMA, Keys, Labelling, label, to_csv
from clipsieve.index.rows import Rows
from clipsieve.output_path import require_path


def label_to(
    rows: Rows,
    labelling: Labelling,
    out: Path,
    keys: Keys,
    *,
    part_rows: int = PART_ROWS,
    progress: Callable[[int], object] | None = None,
    raw_csv: bool = False,
) -> dict[str | None, int]:
    """Label every live row into `out`; how many items each class got. The other arguments are those of `label`.

    out      a file ending in .parquet or .csv, or a folder (no suffix), which keeps the parts
    raw_csv  as in `CsvWriter`

    A file's parts lie in `out` + ".parts" until it is whole, so that a killed run goes on; the file appears at once.
    InputError if it is there already or ends in something else.
    """
    require_path(out)
    if not out.suffix or out.is_dir():
        return label(rows, labelling, out, keys, part_rows=part_rows, progress=progress)
    if out.suffix.lower() not in (".parquet", ".csv"):
        raise InputError(f"{out} does not say what it is to be; end it in .parquet or .csv, or name a folder.")
    if out.exists():
        raise InputError(f"{out} exists already; name another file, or remove it first.")
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = out.with_name(f"{out.name}.parts")
    counts = label(rows, labelling, parts, keys, part_rows=part_rows, progress=progress)
    if out.suffix.lower() == ".csv":
        to_csv(parts, out, raw=raw_csv)
    else:
        write_file(out, lambda file: _merge(parts, file))
    shutil.rmtree(parts)
    return counts


def _merge(parts: Path, file: BinaryIO) -> None:
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        for part in sorted(parts.glob("labels_*.parquet")):
            with pq.ParquetFile(part) as opened:
                for batch in opened.iter_batches():
                    writer.write_batch(batch)
