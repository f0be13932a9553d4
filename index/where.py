"""Filters as users write them, made safe to hand to SQLite: one expression over the columns, and nothing else.

Three fences, each enough for what it stops: this module refuses text that is more than one expression; the authorizer
refuses everything but reading `items` and functions that only compute; a progress handler ends what takes too long.
"""

import re
import sqlite3
import time
from collections.abc import Callable, Sequence

from clipsieve.errors import InputError
from clipsieve.index.counting import NAME, Counting, with_row

FUNCTIONS = frozenset(
    re.findall(
        r"\S+",
        "-> ->> abs ceil ceiling coalesce count date datetime floor glob ifnull iif instr json_array_length "
        "json_extract json_type json_valid julianday length like ln log log10 log2 lower ltrim max min mod nullif pow "
        "power replace round rtrim sign sqrt strftime substr substring time trim trunc typeof unicode unixepoch upper",
    )
)
"""What a filter may call. None of them reads or writes anything beyond its arguments, save the clock and `count`,
which is not SQLite's: see `counting`."""

READING = frozenset({"hex", "json_array", "json_group_array", "printf"})
"""What is called beside them to read rows out. A filter that does can do no more with them than with FUNCTIONS."""

_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')
      | "(?P<name>(?:[^"]|"")*)"
      | `[^`]*` | \[[^\]]*\]
      | (?P<comment>--|/\*)
      | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def check_expression(where: str, columns: Sequence[str]) -> None:
    """Raise InputError unless `where` can only be one expression: balanced, without `;`, comments or open quotes.

    columns  the names it may put in double quotes. SQLite would take an unknown one for a string, in silence.
    """
    if not where.strip():
        raise _error(where, "it is empty", columns)
    if re.search("[\ud800-\udfff]", where):
        raise _error(where, "it holds half a character (a lone surrogate)", columns)
    known = {name.casefold() for name in columns}
    depth = 0
    for token in _TOKEN.finditer(where):
        name, other = token["name"], token["other"]
        if name is not None and name.replace('""', '"').casefold() not in known:
            raise _error(where, f'there is no column "{name}", and texts stand in single quotes', columns)
        if token["comment"]:
            raise _error(where, f"it holds the comment sign {token['comment']}", columns)
        if other is None:
            continue
        if other in "'\"`[":
            raise _error(where, f"a {other} is never closed", columns)
        if other in ";\0":
            raise _error(where, f"it holds {other!r}, which has no place in an expression", columns)
        depth += (other == "(") - (other == ")")
        if depth < 0:
            raise _error(where, "it closes a parenthesis that it did not open", columns)
    if depth:
        raise _error(where, "a parenthesis is never closed", columns)


def fence(connection: sqlite3.Connection) -> None:
    """From now on this connection can read the table `items`, and call FUNCTIONS, and nothing else."""

    def allowed(action: int, first: str | None, second: str | None, _database: str | None, _within: str | None) -> int:
        if action == sqlite3.SQLITE_SELECT:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and first == "items":
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in FUNCTIONS | READING:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY

    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 1_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1 << 26)  # bounds what replace() can blow up, in bytes
    connection.set_authorizer(allowed)


def run(
    connection: sqlite3.Connection, where: str, columns: Sequence[str], limit_s: float, counting: Counting
) -> list[tuple[int]]:
    """`SELECT id ... WHERE where`, ascending, on a fenced connection. InputError says what is wrong with `where`.

    counting  what `count` in it asks
    """
    check_expression(where, columns)
    for arguments in (2, 3):
        connection.create_function(NAME, arguments, counting)
    connection.set_progress_handler(_deadline(limit_s), 10_000)
    try:
        # A newline before the closing parenthesis costs nothing and keeps `where` on its own lines in SQLite's errors.
        return connection.execute(f"SELECT id FROM items WHERE ({with_row(where)}\n) ORDER BY id").fetchall()
    except (sqlite3.Error, sqlite3.Warning, OverflowError) as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code == sqlite3.SQLITE_INTERRUPT:
            raise InputError(f"The filter {where!r} took more than {limit_s:g} s; make it simpler.") from error
        if code == sqlite3.SQLITE_AUTH:
            reason = "it may only compare columns and call functions that compute"
            raise _error(where, reason, columns) from error
        if code not in (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_RANGE, sqlite3.SQLITE_MISUSE):
            raise  # the file's fault, not the expression's
        raise _error(where, str(error), columns) from error
    finally:
        connection.set_progress_handler(None, 0)


def quote(name: str) -> str:
    """The column's name as SQL writes it, always in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def _deadline(limit_s: float) -> Callable[[], bool]:
    end = time.monotonic() + limit_s
    return lambda: time.monotonic() > end


def _error(where: str, reason: str, columns: Sequence[str]) -> InputError:
    plain = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
    names = [name if plain.fullmatch(name) else quote(name) for name in columns]
    return InputError(f"The filter {where!r} cannot be used: {reason}. The columns are {', '.join(names)}.")
