"""Columns of Arrow tables as values for SQLite: one to compare in filters, and the one that users read.

Mostly both are the same. A decimal is compared as a number and read as its exact text, a time is compared in UTC and
read in its own time zone. `Column` says how the values of one column compare when shards disagree about its type.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ODD = "odd"
"""Kind of a column of numbers and texts some of whose texts SQLite would take for another number: '007', '1e3'."""

_NUMBERS = frozenset({"int", "uint64", "float", "bool", "decimal", "duration"})
_TEXTS = frozenset({"text", "time", "json"})
_AS_COMPARED = frozenset({"int", "float", "bool", "json", "text", "blob", "duration"})
"""Kinds whose values come back from what is compared, as long as the column has no other kind."""

_WORDS = {"int": "number", "uint64": "number", "float": "number", "decimal": "number", "duration": "seconds"}
_WORDS |= {"bool": "boolean", "blob": "bytes"}

_NUMERIC = re.compile(r"[ \t\n\v\f\r]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \t\n\v\f\r]*")
"""What SQLite takes for a number where a column has numeric affinity."""

_NO_JSON = re.compile(r'"(?:[^"\\]|\\.)*"|NaN|-?Infinity')
_AS_JSON = {"NaN": "null", "Infinity": "1e999", "-Infinity": "-1e999"}

_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the metadata.

    name   as users write it
    sql    its name in SQLite; "" for one that filters cannot use, as SQLite has no room for it
    kinds  of the values that the shards have in it, and perhaps ODD
    """

    name: str
    sql: str
    kinds: frozenset[str] = frozenset()

    @property
    def affinity(self) -> str:
        """What SQLite makes of a text or number that this column is compared with."""
        if ODD in self.kinds:
            return ""
        if self.kinds == {"float"}:
            return "REAL"
        return "NUMERIC" if self.kinds & _NUMBERS else "TEXT" if self.kinds & _TEXTS else ""

    @property
    def words(self) -> str:
        """Its types in plain words: "number", "text or time"."""
        return " or ".join(sorted({_WORDS.get(kind, kind) for kind in self.kinds - {ODD}})) or "empty"

    @property
    def keeps(self) -> bool:
        """Whether some values are read from elsewhere than what is compared."""
        return not (self.sql and len(self.kinds) < 2 and self.kinds <= _AS_COMPARED)

    def restore(self, value: Any) -> Any:
        """The value that users read, of the one that is compared; for one that is not kept elsewhere."""
        if value is None or len(self.kinds) != 1:
            return value
        (kind,) = self.kinds
        if kind == "bool":
            return bool(value)
        if kind == "float":
            return float(value)
        return json.loads(value) if kind == "json" else value

    def compared(self, cells: "Cells") -> list[Any]:
        """The values as SQLite is to hold them."""
        if cells.kind == "text" and self.kinds & _NUMBERS and ODD not in self.kinds:
            return [value if value is None else _number(value, value) for value in cells.compared]
        return cells.compared

    def kept(self, cells: "Cells") -> dict[int, Any]:
        """Row -> value, for values that `restore` does not make of `compared`."""
        if not self.keeps:
            return {}
        if not self.sql:
            return {row: value for row, value in enumerate(cells.shown) if value is not None}
        pairs = enumerate(zip(cells.shown, self.compared(cells), strict=True))
        return {row: shown for row, (shown, compared) in pairs if not _same(shown, compared)}


@dataclass(frozen=True, slots=True)
class Cells:
    """The values of one column of one table.

    kind      int, uint64, float, bool, decimal, duration, text, time, json, blob; "" where there is none
    shown     what users read: None, bool, int, float, str, bytes, and lists and dicts of them
    compared  what a filter sees: None, int, float, str or bytes
    """

    kind: str
    shown: list[Any]
    compared: list[Any]

    def kinds(self, known: Iterable[str]) -> frozenset[str]:
        """Those of a column that had the `known` kinds and gets these values as well."""
        kinds = frozenset(known) | ({self.kind} if self.kind else frozenset())
        odd = self.kind == "text" and kinds & _NUMBERS and any(map(_is_odd, self.compared))
        return kinds | {ODD} if odd else kinds


def kind_of(type_: pa.DataType) -> str:
    """The kind of a column of this type."""
    if isinstance(type_, pa.BaseExtensionType):
        return kind_of(type_.storage_type)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return kind_of(type_.value_type)
    tests = {
        "": pa.types.is_null,
        "bool": pa.types.is_boolean,
        "uint64": pa.types.is_uint64,
        "int": pa.types.is_integer,
        "float": pa.types.is_floating,
        "decimal": pa.types.is_decimal,
        "duration": pa.types.is_duration,
        "json": pa.types.is_nested,
        "text": pa.types.is_interval,
        "time": pa.types.is_temporal,
    }
    for kind, test in tests.items():
        if test(type_):
            return kind
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary, pa.types.is_binary_view)
    return "blob" if any(test(type_) for test in binary) else "text"


def read(column: pa.ChunkedArray) -> Cells:
    """The values of a column. NaN counts as missing: neither SQLite nor JSON has it."""
    column = _decoded(column)
    kind = kind_of(column.type)
    if kind == "time":
        return _times(column)
    if kind == "duration":
        seconds = [_seconds(value, _UNITS[column.type.unit]) for value in column.cast(pa.int64()).to_pylist()]
        return Cells(kind, seconds, seconds)
    values = column.to_pylist()
    if kind == "json":
        texts = [None if value is None else dumps(value) for value in values]
        return Cells(kind, [None if text is None else json.loads(text) for text in texts], texts)
    if kind == "uint64":  # beyond SQLite's integers they are compared as floats
        return Cells(kind, values, [v if v is None or v < 2**63 else float(v) for v in values])
    if kind == "decimal":
        texts = [None if v is None else str(v) for v in values]
        return Cells(kind, texts, [None if v is None else _number(str(v), float(v)) for v in values])
    if kind == "float":
        values = [v if v is None else float(v) if v == v else None for v in values]
    if pa.types.is_interval(column.type):
        values = [v if v is None else str(v) for v in values]
    return Cells(kind, values, values)


def dumps(value: Any) -> str:
    """JSON of a nested value. NaN becomes null, an infinite number 1e999, which is read as one."""
    text = json.dumps(value, default=_plain, ensure_ascii=False)
    if "NaN" in text or "Infinity" in text:
        text = _NO_JSON.sub(lambda found: _AS_JSON.get(found[0], found[0]), text)
    return text


def dump_kept(values: Mapping[str, Any]) -> str:
    """Kept values by column as JSON: a list of the value, or of the hex of bytes and 1."""
    return dumps({name: [v.hex(), 1] if isinstance(v, bytes) else [v] for name, v in values.items()})


def load_kept(text: str) -> dict[str, Any]:
    """What `dump_kept` was given."""
    return {name: bytes.fromhex(v[0]) if len(v) == 2 else v[0] for name, v in json.loads(text).items()}


def _decoded(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without encodings and extensions."""
    while True:
        type_ = column.type
        if isinstance(type_, pa.BaseExtensionType):
            column = pa.chunked_array([chunk.storage for chunk in column.chunks], type_.storage_type)
        elif pa.types.is_dictionary(type_):
            column = pa.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], type_.value_type)
        elif pa.types.is_run_end_encoded(type_):
            column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], type_.value_type)
        else:
            return column


def _times(column: pa.ChunkedArray) -> Cells:
    """Dates, times and timestamps as ISO 8601. Compared are texts of one form, and those with a time zone in UTC."""
    type_ = column.type
    if pa.types.is_time(type_):
        numbers = column.cast(pa.int32() if type_.bit_width == 32 else pa.int64()).to_pylist()
        texts = [None if n is None else _clock(n * (10**9 // _UNITS[type_.unit])) for n in numbers]
        return Cells("time", texts, texts)
    if pa.types.is_date32(type_):
        unit, numbers = "D", column.cast(pa.int32())
    else:
        unit, numbers = ("ms" if pa.types.is_date64(type_) else type_.unit), column.cast(pa.int64())
    filled = pc.fill_null(numbers, 0).to_numpy().astype(np.int64).view(f"datetime64[{unit}]")
    if pa.types.is_date64(type_):
        filled = filled.astype("datetime64[D]")
    zoned = pa.types.is_timestamp(type_) and type_.tz is not None
    ending = "+00:00" if zoned else ""
    valid = column.is_valid().to_pylist()
    written = np.datetime_as_string(filled).tolist()
    texts = [_shortened(text) + ending if is_valid else None for text, is_valid in zip(written, valid, strict=True)]
    if not zoned or type_.tz in ("UTC", "Etc/UTC", "Z", "+00:00"):
        return Cells("time", texts, texts)
    whole = pa.array(filled.astype(np.int64) // _UNITS[type_.unit], pa.timestamp("s", type_.tz))
    try:  # Python knows nothing of years beyond 9999 and of some time zones
        local = [at.isoformat() for at in whole.to_pylist()]
    except (ValueError, OverflowError, LookupError, pa.ArrowException):
        return Cells("time", texts, texts)
    shown = [
        text if text is None else there[:19] + text[19 : -len(ending)] + there[19:]
        for text, there in zip(texts, local, strict=True)
    ]
    return Cells("time", shown, texts)


def _shortened(text: str) -> str:
    """A fraction of a second has no digits, six, or nine, as Python writes them."""
    head, dot, fraction = text.partition(".")
    if not dot or not fraction.strip("0"):
        return head
    fraction = fraction.ljust(6, "0")
    return f"{head}.{fraction[:6] if not fraction[6:].strip('0') else fraction}"


def _clock(nanoseconds: int) -> str:
    seconds, fraction = divmod(nanoseconds, 10**9)
    hour, second = divmod(seconds, 3600)
    return _shortened(f"{hour:02}:{second // 60:02}:{second % 60:02}.{fraction:09}")


def _seconds(value: int | None, per_second: int) -> int | float | None:
    if value is None:
        return None
    return value // per_second if value % per_second == 0 else value / per_second


def _number(text: str, otherwise: Any) -> Any:
    """The number that a text is; `otherwise` unless the number's own text is this one."""
    if not _NUMERIC.fullmatch(text) or len(text) > 30:
        return otherwise
    if text.lstrip("-").isdigit():
        number = int(text)
        return number if str(number) == text and -(2**63) <= number < 2**63 else otherwise
    real = float(text)
    return real if repr(real) == text and not real.is_integer() else otherwise


def _is_odd(text: str | None) -> bool:
    return text is not None and _NUMERIC.fullmatch(text) is not None and isinstance(_number(text, text), str)


def _same(shown: Any, compared: Any) -> bool:
    """Whether SQLite gives `shown` back for `compared`; it makes integers of booleans and of whole floats."""
    if type(shown) is not type(compared) or shown != compared:
        return False
    return not (type(shown) is bool or (type(shown) is float and shown.is_integer()))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
