"""Rows of a list, read in order, a few at a time.

A list is Parquet, CSV, TSV, JSON (an array of objects), JSON lines, or a text file with one URL on each line. What is
not Parquet may be gzipped (`.csv.gz`). Numbers in CSV and TSV become numbers, so that filters can compare them.
"""

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Container, Generator, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.errors import InputError, quoted
from clipsieve.inference.paths import Place, readable
from clipsieve.inference.sidecar import object_of, unique
from clipsieve.inference.tables import is_binary, is_image
from clipsieve.types import Skipped

ROWS = 1024
"""Rows of a Parquet file read at a time."""

Fields = Mapping[str, Any]
T = TypeVar("T")

_PARQUET = (".parquet", ".pq")
_TEXTS = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt")
LIST_SUFFIXES = (*_PARQUET, *_TEXTS, *(f"{suffix}.gz" for suffix in _TEXTS))

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")  # no leading zeros: those are codes and not numbers
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][-+]?\d+)?")
# The csv module counts a longer field as damage that ends the file; its limit of 131,072 letters holds for the process.
csv.field_size_limit(2**31 - 1)
DAMAGE = (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException)
"""What reading a damaged list raises."""


def columns_of(place: Place) -> list[str]:
    """The columns of a list, without those of bytes; of JSON, the first object's fields. ["url"] for a text file.

    InputError if it is no list, or empty.
    """
    if _suffix(place) in _PARQUET:
        with place.open() as opened, pq.ParquetFile(opened) as file:
            return [field.name for field in file.schema_arrow if not is_binary(field.type)]
    if _suffix(place) == ".txt":
        return ["url"]
    with _text(place) as file:
        if _suffix(place) in (".csv", ".tsv"):
            return unique(next(_delimited(file, _suffix(place)), []))
        first = next(_objects(file, place), None)
        return list(first) if isinstance(first, Mapping) else []


def holds_images(place: Place) -> bool:
    """True for a Parquet file with a column that may hold encoded images."""
    if _suffix(place) not in _PARQUET:
        return False
    with place.open() as opened, pq.ParquetFile(opened) as file:
        return any(is_image(field.type) for field in file.schema_arrow)


def first_line(place: Place) -> str:
    """The first line of a text file that is not blank; "" if there is none."""
    with _text(place) as file:
        return next((line.strip() for line in file if line.strip()), "")


def count_rows(place: Place) -> int:
    """How many rows `read_rows` gives for it, if it is whole."""
    if _suffix(place) in _PARQUET:
        with place.open() as opened, pq.ParquetFile(opened) as file:
            return int(file.metadata.num_rows)
    with _text(place) as file:
        return sum(1 for _ in _text_rows(file, place))


def read_rows(
    name: str, place: Place, start: int, make: Callable[[str, Fields], T], texts: Container[str] = ("caption", "text")
) -> Generator[T | Skipped, None, int]:
    """What `make` makes of the rows of one list from number `start` on; returns how many there are in all.

    make   what to call the row, `name#number` with rows counted from 0, and its fields -> anything
    texts  columns of CSV and TSV whose numbers stay as they are written

    A row that says nothing is a Skipped. A list that is damaged somewhere gives what comes before, and one Skipped for
    the rest; of Parquet, one for each row of the row group.
    """
    if _suffix(place) in _PARQUET:
        return (yield from _parquet_rows(name, place, start, make))
    number = 0
    with _text(place) as file:
        rows = _text_rows(file, place, texts)
        while True:
            try:
                row = next(rows, None)
            except DAMAGE as error:
                if number >= start:
                    reason = f"The list could not be read past its row {number} ({error}); restore it from a copy."
                    yield Skipped(f"{name}#{number}", reason)
                return number + 1
            if row is None:
                return number
            if number >= start:
                called = f"{name}#{number}"
                yield Skipped(called, row) if isinstance(row, str) else make(called, row)
            number += 1


def _parquet_rows(
    name: str, place: Place, start: int, make: Callable[[str, Fields], T]
) -> Generator[T | Skipped, None, int]:
    with place.open() as opened, pq.ParquetFile(opened) as file:
        columns = [field.name for field in file.schema_arrow if not is_binary(field.type)]
        row = 0
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            if end > start:
                try:
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                        for fields in batch.to_pylist():
                            if row >= start:
                                yield make(f"{name}#{row}", fields)
                            row += 1
                except (pa.ArrowException, OSError) as error:
                    reason = f"The list's row group {group} is damaged ({error}); restore it from a copy."
                    yield from (Skipped(f"{name}#{lost}", reason) for lost in range(max(row, start), end))
            row = end
        return row


def _text_rows(file: TextIO, place: Place, texts: Container[str] = ()) -> Iterator[Fields | str]:
    """Each row's fields, or a sentence on what is wrong with it."""
    suffix = _suffix(place)
    if suffix == ".txt":
        yield from ({"url": line.strip()} for line in file if line.strip())
    elif suffix in (".csv", ".tsv"):
        lines = _delimited(file, suffix)
        header = unique(next(lines, []))
        for fields in lines:
            if len(fields) > len(header):
                yield f"The row has {len(fields)} fields for {len(header)} columns; put quotes around its text."
            elif fields:
                yield {n: (f or None) if n in texts else _value(f) for n, f in zip(header, fields, strict=False)}
    else:
        yield from _objects(file, place)


def _delimited(file: TextIO, suffix: str) -> Iterator[list[str]]:
    return csv.reader(file, delimiter="\t" if suffix == ".tsv" else ",")


def _objects(file: TextIO, place: Place) -> Iterator[Fields | str]:
    """The objects of one JSON array, or of a file with one on each line."""
    start = next((line for line in file if line.strip()), "")
    entries: Iterator[Any]
    if start.lstrip().startswith("["):
        try:
            entries = iter(json.loads(start + file.read(), object_pairs_hook=object_of))
        except (ValueError, RecursionError) as error:
            raise InputError(f"The list {quoted(readable(place.url))} is no JSON ({error}); mend it.") from error
    else:
        entries = (_parsed(line) for line in itertools.chain([start], file) if line.strip())
    for entry in entries:
        yield entry if isinstance(entry, Mapping) else "The row is no JSON object; write one with a URL in it."


def _parsed(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        return None


def _value(text: str) -> str | int | float | None:
    if not text:
        return None
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _text(place: Place) -> TextIO:
    opened = place.open()
    try:
        plain: Any = gzip.GzipFile(fileobj=opened) if place.path.lower().endswith(".gz") else opened
        return _Closing(plain, opened.close)
    except BaseException:
        opened.close()
        raise


class _Closing(io.TextIOWrapper):
    """Text of a file; closes what it was opened from as well, which GzipFile does not."""

    def __init__(self, file: Any, also: Callable[[], None]) -> None:
        super().__init__(file, encoding="utf-8-sig", errors="replace", newline="")
        self._also = also

    def close(self) -> None:
        super().close()
        self._also()


def _suffix(place: Place) -> str:
    """The suffix that says what it is, in lower case; InputError if that is none of a list's."""
    name = place.path.lower().removesuffix(".gz")
    suffix = PurePosixPath(name).suffix
    if suffix not in (*_PARQUET, *_TEXTS):
        raise InputError(
            f"{quoted(readable(place.url))} is no list by its name; end it in one of {', '.join(LIST_SUFFIXES)}."
        )
    return suffix
