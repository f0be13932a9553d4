"""Rows of a list, read in order, a few at a time.

A list is Parquet, CSV or TSV in any dialect, JSON (an array of objects, an object that holds one, or an object on each
line), or a text file with one URL on each line. What is not Parquet may be gzipped, and in UTF-8 or UTF-16. A file's
content decides where its name says something else. Numbers in CSV and TSV become numbers, so that filters can compare
them.
"""

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple, TextIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.checked_tables import FAULTS
from clipsieve.errors import InputError, quoted
from clipsieve.inference.delimited import dialect_of, read_delimited, read_lines
from clipsieve.inference.paths import Place, readable
from clipsieve.inference.sidecar import WESTERN, encoding_of, object_of
from clipsieve.inference.tables import is_image
from clipsieve.inference.tables import rows_of as rows_of_batch
from clipsieve.types import Skipped

ROWS = 1024
"""Rows of a Parquet file read at a time."""
ROWS_LOOKED_AT = 64
"""Rows of JSON of which the first that is an object names the columns."""

Fields = Mapping[str, Any]
T = TypeVar("T")

_PARQUET = (".parquet", ".pq")
_JSON = (".json", ".jsonl", ".ndjson")
_TEXTS = (".csv", ".tsv", *_JSON, ".txt")
LIST_SUFFIXES = (*_PARQUET, *_TEXTS, *(f"{suffix}.gz" for suffix in _TEXTS))

URL_NAMES = ("url", "image_url", "img_url", "image_link", "link", "src")
"""Columns that hold the URLs unless another is named, the first that there is; in lower or upper case."""

_TAKEN_FOR_JSON = re.compile(r'\s*(\{\s*("|$)|\[\s*(\{|$))')  # and not the first letter of a table's header
_MOST_JSON = 1 << 28
"""Letters up to which a file that begins with one JSON object over several lines is read whole."""

_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")  # no leading zeros: those are codes and not numbers
_DECIMAL = re.compile(r"-?(0|[1-9]\d*)\.\d+([eE][-+]?\d+)?")
_BETWEEN = re.compile(r"[\s,]*")
_NEXT_ENTRY = re.compile(r",\s*(?=\{)")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_DECODER = json.JSONDecoder(object_pairs_hook=object_of)
_MOST_DAMAGE = 1000
"""Entries of an array that may be damaged before the rest of it is given up."""
_GZIP = b"\x1f\x8b"
DAMAGE = (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException)
"""What reading a damaged list raises."""


def columns_of(place: Place) -> list[str]:
    """The columns of a list, without those of bytes; of JSON, the first object's fields. ["url"] for a text file.

    InputError if it is no list, or empty.
    """
    if _is_parquet(place):
        with place.open() as opened, pq.ParquetFile(opened) as file:
            return [field.name for field in file.schema_arrow if not is_image(field.type)]
    with _text(place) as file:
        columns, _ = _table(file, place)
        return columns


def columns_left_out(place: Place) -> list[str]:
    """The columns of bytes of a list in Parquet, which `read_rows` leaves out."""
    if not _is_parquet(place):
        return []
    with place.open() as opened, pq.ParquetFile(opened) as file:
        return [field.name for field in file.schema_arrow if is_image(field.type)]


def find_url_column(names: Iterable[str]) -> str | None:
    """The column that is taken for that of the URLs; None if there is none by its name."""
    known: dict[str, str] = {}
    for name in names:
        known.setdefault(name.strip().lower(), name)
    return next((known[name] for name in URL_NAMES if name in known), None)


def holds_images(place: Place) -> bool:
    """True for a Parquet file with a column that may hold encoded images."""
    if not _is_parquet(place):
        return False
    with place.open() as opened, pq.ParquetFile(opened) as file:
        return any(is_image(field.type) for field in file.schema_arrow)


def first_line(place: Place) -> str:
    """The first line of a text file that is not blank; "" if there is none."""
    with _text(place) as file:
        return next((line.strip() for lines in read_lines(file) for line in lines if line.strip()), "")


def count_rows(place: Place) -> int:
    """How many rows `read_rows` gives for it, if it is whole."""
    if _is_parquet(place):
        with place.open() as opened, pq.ParquetFile(opened) as file:
            return int(file.metadata.num_rows)
    with _text(place) as file:
        return sum(1 for _ in _table(file, place)[1])


def read_rows(
    name: str, place: Place, start: int, make: Callable[[str, Fields], T], texts: Container[str] = ("caption", "text")
) -> Generator[T | Skipped, None, int]:
    """What `make` makes of the rows of one list from number `start` on; returns how many there are in all.

    make   what to call the row, `name#number` with rows counted from 0, and its fields -> anything
    texts  columns of CSV and TSV whose numbers stay as they are written

    A row that says nothing is a Skipped. A list that is damaged somewhere gives what comes before, and one Skipped for
    the rest; of Parquet, one for each row of the row group.
    """
    if _is_parquet(place):
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
        columns = [field.name for field in file.schema_arrow if not is_image(field.type)]
        row = 0
        for group in range(file.num_row_groups):
            end = row + file.metadata.row_group(group).num_rows
            if end > start:
                try:
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                        for fields in rows_of_batch(batch):
                            if row >= start:
                                yield make(f"{name}#{row}", fields)
                            row += 1
                except FAULTS as error:
                    reason = f"The list's row group {group} is damaged ({error}); restore it from a copy."
                    yield from (Skipped(f"{name}#{lost}", reason) for lost in range(max(row, start), end))
            row = end
        return row


def _text_rows(file: TextIO, place: Place, texts: Container[str] = ()) -> Iterator[Fields | str]:
    """Each row's fields, or a sentence on what is wrong with it."""
    columns, rows = _table(file, place)
    read = [_plain if name in texts else _value for name in columns]
    for row in rows:
        if isinstance(row, list):
            yield {name: value(field) for name, value, field in zip(columns, read, row, strict=False)}
        else:
            yield row


def _table(file: TextIO, place: Place) -> tuple[list[str], Iterator[list[str] | Fields | str]]:
    """The columns of a text, and its rows: their fields, or an object, or a sentence on what is wrong."""
    suffix = _suffix(place)
    parts = read_lines(file)
    head = next(parts, [])
    all_parts = itertools.chain([head], parts)
    first = next((line for line in head if line.strip()), "")
    in_json = suffix in _JSON and any(line.lstrip().startswith(("[", "{")) for line in head)
    if in_json or _TAKEN_FOR_JSON.match(first):
        rows = _objects(all_parts, place)
        first_rows = list(itertools.islice(rows, ROWS_LOOKED_AT))
        named = next((row for row in first_rows if isinstance(row, Mapping)), {})
        return list(named), itertools.chain(first_rows, rows)
    dialect = dialect_of(head, "\t" if suffix == ".tsv" or (suffix == ".txt" and "\t" in first) else ",")
    if suffix in _JSON and find_url_column(dialect.columns) is None:
        return [], _objects(all_parts, place)
    if suffix == ".txt" and "\t" not in first and (dialect.above == 0 or find_url_column(dialect.columns) is None):
        return ["url"], ({"url": line.strip()} for lines in all_parts for line in lines if line.strip())
    return dialect.columns, read_delimited(all_parts, dialect)


def _objects(parts: Iterator[list[str]], place: Place) -> Iterator[Fields | str]:
    """The rows of JSON: of one value, of several after each other, or of one on each line."""
    lines = (line for some in parts for line in some if line.strip())
    start = next(lines, "")
    entries: Iterator[Any]
    if start.lstrip().startswith("["):
        entries = _array(start + "".join(lines), place)
    elif _decoded(start) is not None:
        second = next(lines, None)  # without it the line is not a row but the whole
        whole = rows_of(_decoded(start)) if second is None else itertools.chain([start, second], lines)
        entries = iter(whole) if second is None else map(_decoded, whole)
    else:  # values over several lines, or a first line that is damaged
        held, size = [start], len(start)
        for line in lines:
            held.append(line)
            size += len(line)
            if size > _MOST_JSON:
                break
        values = _values("".join(held)) if size <= _MOST_JSON else None
        entries = iter(values) if values is not None else map(_decoded, itertools.chain(held, lines))
    for entry in entries:
        if isinstance(entry, _Damage):
            yield entry.reason
        elif isinstance(entry, str) and _ADDRESS.match(entry):
            yield {"url": entry}
        else:
            yield entry if isinstance(entry, Mapping) else "The row is no JSON object; write one with a URL in it."


class _Damage(NamedTuple):
    reason: str


def _array(text: str, place: Place) -> Iterator[Any]:
    """The entries of a JSON array. A damaged one is a _Damage, and costs what follows only where none is found."""
    try:
        entries = json.loads(text, object_pairs_hook=object_of)
    except (ValueError, RecursionError) as error:
        refused = error
    else:
        yield from entries
        return
    at, count, damaged = text.index("[") + 1, 0, 0
    while damaged < _MOST_DAMAGE:
        at = _skip(text, at)
        if text.startswith("]", at):
            return
        try:
            entry, at = _DECODER.raw_decode(text, at)
            count += 1
        except (ValueError, RecursionError) as error:
            found = _NEXT_ENTRY.search(text, at + 1)
            if found is None:
                break
            entry, at = _Damage(f"The entry is no JSON ({error}); mend it."), found.end()
            damaged += 1
        yield entry
    if not count:
        raise InputError(f"The list {quoted(readable(place.url))} is no JSON ({refused}); mend it.") from refused
    yield _Damage(
        f"The list is no JSON past its row {count + damaged - 1} ({refused}); mend it, or restore it from a copy."
    )


def _values(text: str) -> list[Any] | None:
    """The rows in JSON values that come one after another, or in one; None where that is not what the text is."""
    values, at = [], _skip(text, 0)
    while at < len(text):
        try:
            value, at = _DECODER.raw_decode(text, at)
        except (ValueError, RecursionError):
            return None
        values.append(value)
        at = _skip(text, at)
    return rows_of(values[0]) if len(values) == 1 else values


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    assert found is not None
    return found.end()


def rows_of(value: Any) -> list[Any]:
    """The rows in one JSON value: an array, or an object that is a row, or holds an array of them, or columns."""
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, list) else [value]
    if isinstance(columns := value.get("columns"), list) and isinstance(
        data := value.get("data"), list
    ):  # pandas' split
        return [dict(zip(map(str, columns), row, strict=False)) if isinstance(row, list) else row for row in data]
    fields = list(value.values())
    if fields and all(isinstance(field, list) and not any(isinstance(e, Mapping) for e in field) for field in fields):
        return [dict(zip(value, row, strict=True)) for row in zip(*fields, strict=True)] if _even(fields) else [value]
    if len(fields) > 1 and all(isinstance(field, Mapping) and field for field in fields):  # pandas' columns, or index
        keys = [list(field) for field in fields]
        if all(own == keys[0] for own in keys):
            by_row = find_url_column(map(str, keys[0])) is not None
            return fields if by_row else [{name: value[name][key] for name in value} for key in keys[0]]
    if find_url_column(map(str, value)) is None:
        tables = [found for field in fields if (found := _table_in(field)) is not None]
        named = _table_in(value.get("images"))
        if len(tables) == 1 or named is not None:
            return tables[0] if named is None else named
    return [value]


def _even(fields: list[list[Any]]) -> bool:
    return len({len(field) for field in fields}) == 1


def _table_in(field: Any) -> list[Any] | None:
    """The array of objects that a field is, or an object in it holds; None for another."""
    if isinstance(field, list):
        return field if any(isinstance(entry, Mapping) for entry in field) else None
    found = (
        [rows for inner in field.values() if (rows := _table_in(inner)) is not None]
        if isinstance(field, Mapping)
        else []
    )
    return found[0] if len(found) == 1 else None


def _decoded(line: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=object_of)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> str | None:
    return text or None


def _value(text: str) -> str | int | float | None:
    if not text:
        return None
    if text[0] > "9":  # no digit and no sign
        return text
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text


def _text(place: Place) -> TextIO:
    opened = place.open()
    try:
        plain: Any = opened
        if _head(opened, 2) == _GZIP:
            plain = gzip.GzipFile(fileobj=opened)
        encoding = encoding_of(_head(plain, 1024))
        return _Closing(plain, opened.close, encoding)
    except BaseException:
        opened.close()
        raise


class _Closing(io.TextIOWrapper):
    """Text of a file; closes what it was opened from as well, which GzipFile does not."""

    def __init__(self, file: Any, also: Callable[[], None], encoding: str) -> None:
        errors = WESTERN if encoding.startswith("utf-8") else "replace"
        super().__init__(file, encoding=encoding, errors=errors, newline="")
        self._also = also

    def close(self) -> None:
        super().close()
        self._also()


def _head(file: Any, size: int) -> bytes:
    """The first bytes of a file, which is then read from its beginning again; damage shows when it is."""
    try:
        head: bytes = file.read(size)
    except DAMAGE:
        head = b""
    file.seek(0)
    return head


def _is_parquet(place: Place) -> bool:
    """Whether a list is Parquet, by its name or by its first bytes."""
    if _suffix(place) in _PARQUET:
        return True
    with place.open() as opened:
        return _head(opened, 4) == b"PAR1"


def _suffix(place: Place) -> str:
    """The suffix that says what it is, in lower case; InputError if that is none of a list's."""
    name = place.path.lower().removesuffix(".gz")
    suffix = PurePosixPath(name).suffix
    if suffix not in (*_PARQUET, *_TEXTS):
        raise InputError(
            f"{quoted(readable(place.url))} is no list by its name; end it in one of {', '.join(LIST_SUFFIXES)}."
        )
    return suffix
