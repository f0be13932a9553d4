"""Filters as users write them, made safe to hand to SQLite: one expression over the columns, and nothing else.

A filter is refused as text if it is more than one expression. The authorizer lets it read `items` and call functions
that only compute. It makes no value longer than `_longest_made` says, it calls nothing that takes long by itself (see
`functions`), and a timer interrupts it. It keeps nothing on disk or in memory but its values and the ids it found.
"""

import contextlib
import re
import sqlite3
import string
import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from clipsieve.errors import InputError, quoted
from clipsieve.index.counting import NAME, Counting, with_row
from clipsieve.index.functions import PATTERN_BYTES, Functions, TooLong

FUNCTIONS = frozenset(
    re.findall(
        r"\S+",
        "-> ->> abs ceil ceiling coalesce count date datetime floor glob ifnull iif instr json_array_length "
        "json_extract json_type json_valid julianday length like ln log log10 log2 lower ltrim max min mod nullif pow "
        "power replace round rtrim sign sqrt strftime substr substring time trim trunc typeof unicode unixepoch upper",
    )
)
"""What a filter may call. None of them reads or writes anything beyond its arguments, save the clock and `count`,
which is not SQLite's (see `counting`), and none makes much more than it was given (`printf` and `hex` do)."""

MOST_LETTERS = 100_000
"""Of a filter: a list of 10,000 ids has about as many."""

VALUE_BYTES = 1_000_000
WORK = 2_000_000_000
"""Longest value that a filter makes, and its product with the filter's length: SQLite works through one row without a
look at the clock, and may hold a value for each few letters."""

SHORT_BYTES, SHORT_WORK = 2**16, 2**21
"""As long as values are shorter, and the product of their length with the filter's calls is less, SQLite calls its own
functions, which takes about a second for a row at worst. Beyond, we look at the clock before each call that costs much,
which takes some microseconds."""

_LOWER = {ord(letter): letter.lower() for letter in string.ascii_uppercase}

_KEEPS = frozenset({"OpenEphemeral", "OpenAutoindex", "SorterOpen"})
"""SQLite's instructions for rows that are kept apart, on disk if they are many."""

_TOO_LONG = (TooLong, sqlite3.DataError)

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
      | "(?P<name>(?:[^"]|"")*)" | `(?P<ticked>(?:[^`]|``)*)` | \[(?P<bracketed>[^\]]*)\]
      | (?P<word>[A-Za-z_\x80-\U0010ffff][\w$\x80-\U0010ffff]*)
      | (?P<comment>--|/\*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def checked(where: str, columns: Mapping[str, str]) -> str:
    """`where` with the names that it has in quotes as SQLite has them.

    columns  the names that it may use -> those in SQLite, "" where a filter cannot use it

    InputError unless it can only be one expression: balanced, without `;`, comments or open quotes, and each name in
    quotes is a column's. SQLite would take an unknown one for a string, in silence.
    """
    if not where.strip():
        raise _error(where, "it is empty", columns)
    if len(where) > MOST_LETTERS:
        raise _error(where, f"it has {len(where):,} letters, and at most {MOST_LETTERS:,} are read", columns)
    if re.search("[\ud800-\udfff]", where):
        raise _error(where, "it holds half a character (a lone surrogate)", columns)
    if "\0" in where:
        raise _error(where, "it holds '\\x00', which has no place in an expression", columns)
    depth = 0
    parts = []
    for token in _TOKEN.finditer(where):
        other = token["other"]
        name = _name_in(token)
        if name is not None:
            parts.append(quote(_resolved(where, name, columns)))
            continue
        parts.append(token[0])
        if token["word"]:
            _check_word(where, token["word"], columns)
        if token["comment"]:
            raise _error(where, f"it holds the comment sign {token['comment']}", columns)
        if other is None:
            continue
        if other in "'\"`[":
            raise _error(where, f"a {other} is never closed", columns)
        if other == ";":
            raise _error(where, "it holds ';', which has no place in an expression", columns)
        depth += (other == "(") - (other == ")")
        if depth < 0:
            raise _error(where, "it closes a parenthesis that it did not open", columns)
    if depth:
        raise _error(where, "a parenthesis is never closed", columns)
    return "".join(parts)


def _name_in(token: re.Match[str]) -> str | None:
    """The name that a token has in quotes of any kind."""
    if token["name"] is not None:
        return token["name"].replace('""', '"')
    if token["ticked"] is not None:
        return token["ticked"].replace("``", "`")
    return token["bracketed"]


def _resolved(where: str, name: str, columns: Mapping[str, str]) -> str:
    """The name in SQLite of the column called so, or, where there is none, of the one that differs in case alone."""
    found = [name] if name in columns else [known for known in columns if folded(known) == folded(name)]
    found = found or [known for known in columns if _normal(known) == _normal(name)]
    if not found and name.lower() in ("items", "main"):
        return name
    if not found:
        raise _error(where, f"there is no column {quoted(name, chr(34))}, and texts stand in single quotes", columns)
    if len(found) > 1:
        raise _error(where, _ambiguous(name, found), columns)
    if not columns[found[0]]:
        said = f"{quoted(name, chr(34))} is none of the first {sum(map(bool, columns.values())):,} columns, which are"
        raise _error(where, f"{said} all that filters compare", columns)
    return columns[found[0]]


def _check_word(where: str, word: str, columns: Mapping[str, str]) -> None:
    """Refuse the name of SQLite's own for a row's id, or of `id` and `key`, where other columns are called so, too."""
    if folded(word) not in ("id", "key", "rowid", "oid", "_rowid_") or word in ("id", "key"):
        return
    found = [known for known in columns if folded(known) == folded(word)]
    if len(found) > 1:
        raise _error(where, _ambiguous(word, found), columns)


def _ambiguous(name: str, found: Sequence[str]) -> str:
    listed = " or ".join(quote(known) for known in found)
    return f"{quoted(name, '')} may be {quoted(listed, '', 300)}; put the one that you mean in double quotes"


def run(
    connection: sqlite3.Connection, where: str, columns: Mapping[str, str], limit_s: float, counting: Counting
) -> list[tuple[int]]:
    """`SELECT id ... WHERE where`, ascending. InputError says what is wrong with `where`.

    connection  is good for nothing else afterwards: it has limits and functions of the filter's
    columns     the names that it may use -> those in SQLite
    limit_s     seconds it may take
    counting    what `count` in it asks
    """
    expression = checked(where, columns)
    # A newline before the closing parenthesis costs nothing and keeps `where` on its own lines in SQLite's errors.
    sql = f"SELECT id FROM items WHERE ({with_row(expression)}\n) ORDER BY id"
    filter = _Filter(connection, sql, time.monotonic() + limit_s)
    for arguments in (2, 3):
        connection.create_function(NAME, arguments, counting)
    try:
        with _interrupting(connection, limit_s):
            return filter.run(_longest_made(where), [sql for sql in columns.values() if sql])
    except (sqlite3.Error, sqlite3.Warning, OverflowError, MemoryError) as error:
        if counting.wrong is not None:
            raise counting.wrong from None
        cause = filter.cause or error
        code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # none where Python's module refuses
        if code == sqlite3.SQLITE_INTERRUPT or isinstance(cause, TimeoutError):
            raise InputError(f"The filter {quoted(where)} took more than {limit_s:g} s; make it simpler.") from error
        if filter.refused:
            raise _error(where, filter.refused, columns) from error
        if isinstance(cause, _TOO_LONG):
            reason = f"it makes a value of more than {_longest_made(where):,} bytes, the most for its length"
            raise _error(where, reason, columns) from error
        if isinstance(cause, MemoryError):
            raise _error(where, "it takes more memory than there is", columns) from error
        if code not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISUSE):
            raise  # the file's fault, not the expression's
        said = str(cause)
        if "pattern too complex" in said:
            said = f"a pattern of LIKE or GLOB has more than {PATTERN_BYTES} bytes; instr finds longer texts"
        missing = said.removeprefix("no such column: ")
        found = [name for name in columns if folded(name) == folded(missing.rpartition(".")[2])]
        if missing != said and found:
            if len(found) > 1:
                raise _error(where, _ambiguous(missing, found), columns) from error
            _resolved(where, found[0], columns)  # says that filters cannot use it
        raise _error(where, quoted(said, ""), columns) from error
    finally:
        connection.set_authorizer(None)  # so that its transaction can be ended


def quote(name: str) -> str:
    """The column's name as SQL writes it, always in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def written(columns: Sequence[str]) -> list[str]:
    """The names as a filter has them: in double quotes unless they are plain words, and no other one's in capitals."""
    plain, names = re.compile(r"[A-Za-z_][A-Za-z0-9_]*"), Counter(map(folded, columns))
    alone = [plain.fullmatch(name) and (names[folded(name)] == 1 or name in ("id", "key")) for name in columns]
    return [name if is_alone else quote(name) for name, is_alone in zip(columns, alone, strict=True)]


def folded(name: str) -> str:
    """The name as SQLite compares names: it ignores the case of ASCII letters alone."""
    return name.translate(_LOWER)


def _normal(name: str) -> str:
    """The name as a reader sees it: "é" may be one character or two."""
    return unicodedata.normalize("NFC", name).casefold()


@dataclass
class _Filter:
    """One filter on its way through SQLite.

    until    the moment of `time.monotonic` by which it is over
    most     bytes of a value that the connection reads
    refused  why the authorizer refused it
    cause    what one of our functions raised
    """

    connection: sqlite3.Connection
    sql: str
    until: float
    most: int = 0
    refused: str = ""
    cause: BaseException | None = None
    calls: int = 0
    queries: int = 0

    def __post_init__(self) -> None:
        self.most = self.connection.getlimit(sqlite3.SQLITE_LIMIT_LENGTH)
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES)
        self.connection.set_authorizer(self._allowed)
        # EXPLAIN names the filter's own values, and x'80' is no text.
        self.connection.text_factory = partial(str, encoding="utf-8", errors="replace")

    def run(self, made: int, columns: Sequence[str]) -> list[tuple[int]]:
        """The ids. `made` are the bytes of the longest value that it may make."""
        kept = {row[1] for row in self._ask(f"EXPLAIN {self.sql}", made, guarded=False)} & _KEEPS
        if kept and self.queries > 1:
            self.refused = "a query in it may not collect or sort rows (IN, DISTINCT, GROUP BY, ORDER BY)"
            raise sqlite3.DatabaseError(self.refused)
        try:
            return self._ask(self.sql, min(made, SHORT_BYTES, SHORT_WORK // max(self.calls, 1)), guarded=False)
        except (sqlite3.Error, OverflowError) as error:
            if not isinstance(self.cause or error, _TOO_LONG):
                raise
        # A filter compares what the table holds, however long.
        sizes = ", ".join(f"max(length(CAST({quote(name)} AS BLOB)))" for name in columns)
        ((*longest,),) = self._ask(f"SELECT {sizes} FROM items", self.most, guarded=True)
        return self._ask(self.sql, max(made, *(size or 0 for size in longest)), guarded=True)

    def _ask(self, sql: str, made: int, guarded: bool) -> list[Any]:
        self.calls = self.queries = 0
        self.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, made)
        functions = Functions(made, self.until)
        try:
            functions.install(self.connection, guarded)
            return self.connection.execute(sql).fetchall()
        finally:
            self.cause = functions.error
            functions.close()

    def _allowed(
        self, action: int, first: str | None, second: str | None, _database: str | None, _within: str | None
    ) -> int:
        if action == sqlite3.SQLITE_READ and first == "items":
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_SELECT:
            self.queries += 1
            if self.queries <= 2:  # ours, and one; queries in queries multiply when SQLite unfolds them
                return sqlite3.SQLITE_OK
            self.refused = "it holds more than one query"
        elif action == sqlite3.SQLITE_FUNCTION:
            self.calls += 1
            if (second or "").lower() in FUNCTIONS:
                return sqlite3.SQLITE_OK
            self.refused = f"it may not call {quoted(second or '')}; it may call {', '.join(sorted(FUNCTIONS))}"
        else:
            self.refused = "it may only compare columns and call functions that compute"
        return sqlite3.SQLITE_DENY


@contextlib.contextmanager
def _interrupting(connection: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Interrupt what the connection does after so many seconds."""
    timer = threading.Timer(seconds, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # so that it interrupts nothing that comes later


def _longest_made(where: str) -> int:
    return min(VALUE_BYTES, WORK // len(where))


def _error(where: str, reason: str, columns: Iterable[str]) -> InputError:
    listed = quoted(", ".join(written(list(columns))), "", 1_000)
    return InputError(f"The filter {quoted(where)} cannot be used: {reason}. The columns are {listed}.")
