"""Rows of CSV, TSV and their kin, whatever their dialect.

The first lines tell the delimiter, how quotes within texts are written, and whether there is a header. A quote without
its pair costs its own line and not what follows: the csv module would take that for one long text.
"""

import csv
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from clipsieve.inference.sidecar import unique

LINES = 64
"""Lines that are looked at for the dialect, and read at a time."""
MOST_OPEN = 1 << 22
"""Letters after which a quote that is still open has no pair."""

_DELIMITERS = ",;\t|"
_NAMED = re.compile(r"sep=(.)\s*", re.IGNORECASE)  # Excel's own way of telling
_URL = re.compile(r"\s*([a-z][a-z0-9+.-]*://|data:image/)", re.IGNORECASE)

# The csv module counts a longer field as damage that ends the file; its limit of 131,072 letters holds for the process.
csv.field_size_limit(2**31 - 1)


class Dialect(NamedTuple):
    """How a table is written.

    columns    names of its columns, each once; those without a name are called `column_3`, by their place
    delimiter  the letter between two fields
    escape     the letter before a quote within a text; None where such a quote is doubled
    above      lines before the first row
    """

    columns: list[str]
    delimiter: str
    escape: str | None
    above: int


def dialect_of(lines: Sequence[str], usual: str) -> Dialect:
    """The dialect of a table that begins with these lines; `usual` is the delimiter if they do not tell.

    Without a header, which is where the first row holds a URL, the column of that is called `url`.
    """
    named = _NAMED.fullmatch(lines[0]) if lines else None
    above = next((n for n, line in enumerate(lines) if line.strip() and not (n == 0 and named)), len(lines))
    told = lines[above:]
    if not told:
        return Dialect([], named[1] if named else usual, None, above)
    if named:
        delimiter = named[1]
    else:
        others = "\t" if _URL.match(told[0]) else _DELIMITERS.replace(usual, "")  # a URL may hold all the others
        delimiter = max((usual, *others), key=lambda letter: _fit(told, letter))
    plain, escaped = (_errors(told, delimiter, escape) for escape in (None, "\\"))
    escape = "\\" if escaped < plain else None
    reader = csv.reader(told, delimiter=delimiter, escapechar=escape, strict=True)
    try:
        first, used = next(reader), reader.line_num
    except csv.Error:  # its quotes have no pairs
        first, used = told[0].rstrip("\r\n").split(delimiter), 1
    at = next((n for n, field in enumerate(first) if _URL.match(field)), None)
    if at is None:
        return Dialect(unique(first), delimiter, escape, above + used)
    return Dialect(unique("url" if n == at else "" for n in range(len(first))), delimiter, escape, above)


def read_lines(file: Iterable[str]) -> Iterator[list[str]]:
    """Lines of a file, some at a time; those before damage come before its error."""
    lines = iter(file)
    while True:
        some: list[str] = []
        try:
            some.extend(itertools.islice(lines, LINES))
        finally:
            if some:
                yield some
        if not some:
            return


def read_delimited(parts: Iterator[list[str]], dialect: Dialect) -> Iterator[list[str] | str]:
    """The fields of each row after the header, or a sentence on what is wrong with the row. Blank lines are left out.

    parts  the lines of the whole table, some at a time
    """
    held: list[str] = []
    above, wanted, more = dialect.above, 0, True
    while more or held:
        while more and (len(held) <= max(wanted, above)):
            try:
                some = next(parts, None)
            except Exception:  # the rows before the damage are whole
                yield from _rows(held[above:], dialect, True)[0]
                raise
            more = some is not None
            held += some or []
        held, above = held[above:], 0
        last = not more or sum(map(len, held)) > MOST_OPEN
        rows, used = _rows(held, dialect, last)
        yield from rows
        held = held[used:]
        wanted = 2 * len(held)  # so that a long text is not read again for every few lines of it


def _rows(lines: list[str], dialect: Dialect, last: bool) -> tuple[list[list[str] | str], int]:
    """The rows in these lines, and how many lines they take; less than all where a quote is open and more may come."""
    rows: list[list[str] | str] = []
    width, at = len(dialect.columns), 0
    while at < len(lines):
        found, used, opened = _parsed(lines[at:] if at else lines, dialect.delimiter, dialect.escape)
        if len(found) < used:
            found = _told_apart(lines[at : at + used], dialect)
        rows += [fields if len(fields) <= width else _too_many(len(fields), width) for fields in found if fields]
        at += used
        if opened is None:
            break
        if opened and not last:
            break
        rows.append(_alone(lines[at], dialect))
        at += 1
    return rows, at


def _parsed(lines: Sequence[str], delimiter: str, escape: str | None) -> tuple[list[list[str]], int, bool | None]:
    """Rows up to the first whose quotes are wrong, the lines that they take, and whether its text ran to the end.

    None instead of that where nothing is wrong.
    """
    found: list[list[str]] = []
    options: Any = {"delimiter": delimiter, "escapechar": escape, "strict": True}
    try:
        found.extend(csv.reader(lines, **options))
    except csv.Error:
        pass
    else:
        return found, len(lines), None
    # Once more, for the module does not tell where the row begins that it could not read.
    reader = csv.reader([*lines, "\n"], **options)
    used = 0
    for _ in found:
        next(reader)
        used = reader.line_num
    try:
        next(reader)
    except csv.Error:
        return found, used, reader.line_num > len(lines)
    return found, used, True  # only the line that is not there made it whole


def _told_apart(lines: Sequence[str], dialect: Dialect) -> list[list[str]]:
    """The rows of lines that are fewer rows. Where two lines of one row are rows themselves, each with a URL, they are
    told apart: there a quote without its pair met another one.
    """
    reader = csv.reader(lines, delimiter=dialect.delimiter, escapechar=dialect.escape)
    rows: list[list[str]] = []
    start = 0
    for fields in reader:
        taken = lines[start : reader.line_num]
        start = reader.line_num
        at = next((n for n, field in enumerate(fields) if _URL.match(field)), None)
        if len(taken) > 1 and at is not None:
            alone = [line.rstrip("\r\n").split(dialect.delimiter) for line in taken]
            if sum(len(own) == len(dialect.columns) and bool(_URL.match(own[at])) for own in alone) > 1:
                rows += alone
                continue
        rows.append(fields)
    return rows


def _alone(line: str, dialect: Dialect) -> list[str] | str:
    """The fields of a line whose quotes are wrong, as they are written if that gives one for each column."""
    text, width = line.rstrip("\r\n"), len(dialect.columns)
    as_written = text.split(dialect.delimiter)
    if len(as_written) == width:
        return as_written
    reader = csv.reader([line, "\n"], delimiter=dialect.delimiter, escapechar=dialect.escape)
    fields = next(reader)
    if reader.line_num == 1 and len(fields) <= width:
        return fields
    return "The row has a quote without its pair; double the quotes within a text, and put quotes around it."


def _too_many(fields: int, columns: int) -> str:
    return f"The row has {fields} fields for {columns} columns; put quotes around its text."


def _fit(lines: Sequence[str], delimiter: str) -> tuple[bool, float, int]:
    """How well a delimiter fits: whether there are columns, the share of rows with one field for each, how many."""
    rows = [fields for fields in csv.reader(lines, delimiter=delimiter) if fields]
    width = len(rows[0]) if rows else 0
    return width > 1, sum(len(fields) == width for fields in rows) / max(1, len(rows)), width


def _errors(lines: Sequence[str], delimiter: str, escape: str | None) -> int:
    """How many lines have quotes that are wrong if an escape is what it is taken for; the last row may be cut."""
    count = at = 0
    while at < len(lines):
        _, used, opened = _parsed(lines[at:], delimiter, escape)
        if opened is None or opened:
            break
        at += used + 1
        count += 1
    return count
