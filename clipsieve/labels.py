"""Labels on their way from the parts that `label` writes to the file that was asked for, and what is known beside them.

A part is a Parquet table of id, key, label, score, margin, runner_up, example; see `clipsieve.index.label`.
"""

import io
import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.csv_cells import CsvWriter
from clipsieve.durable import write_file
from clipsieve.errors import InputError
from clipsieve.path_text import canonical, to_path, to_text

Rows = Callable[[Sequence[int]], list[Mapping[str, object]]]
"""ids -> their metadata rows, in order."""

BATCH = 10_000


def short_path(path: str) -> str:
    """The last two components without the extension, as DirectAI's offline classifier names an image.

    >>> short_path("/data/test/cat/a.b.jpg")
    'cat/a.b'
    """
    parts = PurePosixPath(to_path(path).replace("\\", "/")).parts
    folders = [part for part in parts[-2:-1] if part != "/"]
    return to_text("/".join([*folders, PurePosixPath(parts[-1]).stem])) if parts else path


def read_only(path: Path) -> frozenset[str]:
    """The images named in a file, one per line: by key, or as `short_path` says it.

    A name may also stand there as its file has it, with bytes that are not UTF-8. InputError if no image is named.
    """
    lines = path.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    wanted = frozenset(canonical(line.strip()) for line in lines if line.strip())
    if not wanted:
        raise InputError(f"{path} names no image; write one key per line.")
    return wanted


def tables(parts: Path, rows: Rows, only: Collection[str] | None = None) -> Iterator[tuple[pa.Table, list[str]]]:
    """The labels of all parts in id order, some thousands at a time, and the place of each: its path, or its key.

    only  as from `read_only`: other images are left out
    """
    for part in sorted(parts.glob("labels_*.parquet")):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(BATCH):
                table = pa.Table.from_batches([batch])
                metadata = rows(table["id"].to_pylist())
                places = [str(row.get("image_path") or row["key"]) for row in metadata]
                if only is not None:
                    keys = table["key"].to_pylist()
                    keep = [key in only or short_path(place) in only for key, place in zip(keys, places, strict=True)]
                    table = table.filter(pa.array(keep, pa.bool_()))
                    places = [place for place, kept in zip(places, keep, strict=True) if kept]
                yield table, places


def write_table(stream: Iterator[pa.Table], schema: pa.Schema, path: Path, kind: str, *, raw_csv: bool = False) -> None:
    """The rows as one file, "parquet", "csv" or "jsonl"; it appears at once.

    In CSV, fields are empty where a value is null, and lists are JSON. In JSON lines ids are texts, and an infinite
    margin is null. `raw_csv` as in `CsvWriter`.
    """

    def write_parquet(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for table in stream:
                writer.write_table(table)

    def write_csv(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        lines = CsvWriter(text, raw=raw_csv)
        lines.writerow(schema.names)
        for table in stream:
            lines.writerows(zip(*map(_in_csv, table.columns), strict=True))
        text.detach()  # flushes, and leaves the file open

    def write_jsonl(file: BinaryIO) -> None:
        for table in stream:
            for row in table.to_pylist():
                finite = {name: None if value == math.inf else value for name, value in row.items()}
                file.write(json.dumps({**finite, "id": str(row["id"])}, ensure_ascii=False).encode() + b"\n")

    write_file(path, {"csv": write_csv, "jsonl": write_jsonl}.get(kind, write_parquet))


def write_directai(
    stream: Iterator[tuple[list[str], list[str | None], list[str | None] | None]], path: Path, *, raw_csv: bool = False
) -> None:
    """DirectAI's CSV: `path,pred`, or `path,label,pred,is_correct` where the truth is known; quoted where need be.

    stream  places, labels given, and true labels or None
    """

    def write(file: BinaryIO) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        lines = CsvWriter(text, raw=raw_csv)
        head = False
        for places, given, truth in stream:
            if not head:
                lines.writerow(["path", "pred"] if truth is None else ["path", "label", "pred", "is_correct"])
                head = True
            names = map(short_path, places)
            if truth is None:
                lines.writerows(zip(names, given, strict=True))
            else:
                right = [float(t == g) for t, g in zip(truth, given, strict=True)]
                lines.writerows(zip(names, truth, given, right, strict=True))
        if not head:
            lines.writerow(["path", "pred"])
        text.detach()

    write_file(path, write)


def truth_of(metadata: Sequence[Mapping[str, Any]], truth: str, classes: Sequence[str]) -> list[tuple[str | None, int]]:
    """What each image is said to be, and the position of that class, -1 where it is none of them.

    metadata  rows of the images
    truth     "folder": the name of the folder that the image lies in; else a column

    InputError if there is no such column. Names are compared as they are, then without regard to case, `_` and `-`.
    """
    exact = {name: i for i, name in enumerate(classes)}
    loose = {_loose(name): i for i, name in enumerate(classes)}
    found = []
    for row in metadata:
        if truth == "folder":
            name = _folder(str(row["key"])) or _folder(str(row.get("image_path") or ""))
        elif truth in row:
            name = None if row[truth] is None else str(row[truth])
        else:
            raise InputError(f"There is no column {truth!r} to take the truth from; there are {', '.join(row)}.")
        at = -1 if name is None else exact.get(name, loose.get(_loose(name), -1))
        found.append((name, at))
    return found


def _in_csv(column: pa.ChunkedArray) -> list[Any]:
    values: list[Any] = column.to_pylist()
    return [json.dumps(v, ensure_ascii=False) for v in values] if pa.types.is_list(column.type) else values


def _folder(path: str) -> str | None:
    return to_text(PurePosixPath(to_path(path).replace("\\", "/")).parent.name) or None


def _loose(name: str) -> str:
    return name.casefold().replace("_", " ").replace("-", " ")
