"""The functions of filters whose cost SQLite does not bound, and a guard before each call of the others.

SQLite looks at the clock between rows, never within one. A call that takes hours is not ended by anything, so each has
to be short: `instr`, `replace` and `trim` with two texts cost the product of their lengths in SQLite, and about the sum
here.
"""

import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any

COSTLY = frozenset({"->", "->>", "date", "datetime", "glob", "json_array_length", "json_extract", "json_type"}) | {
    *("json_valid", "julianday", "like", "strftime", "time", "unixepoch"),
}
"""Functions that cost more than a look at each byte of their arguments: up to half a second for a megabyte."""

PATTERN_BYTES = 200
"""Of a pattern of LIKE or GLOB, which may be compared at each letter of a value."""


class TooLong(Exception):
    """A function would make a value that is longer than the filter may have."""


class Functions:
    """What one filter calls in the place of SQLite's own functions. For the thread that runs the filter.

    most   bytes of a value that a filter makes
    until  the moment of `time.monotonic` after which no call is begun
    """

    def __init__(self, most: int, until: float) -> None:
        self._most, self._until = most, until
        self._sqlite = sqlite3.connect(":memory:")
        self._sqlite.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, most)
        self._sqlite.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, PATTERN_BYTES)
        self.error: BaseException | None = None
        """What a call raised, of which SQLite says only that it did."""

    def install(self, connection: sqlite3.Connection, guarded: bool) -> None:
        """Make the connection call these. `guarded`: the costly ones as well, each after a look at the clock."""
        own: dict[tuple[str, int], Callable[..., Any]] = {
            ("instr", 2): self._instr,
            ("replace", 3): self._replace,
            ("trim", 2): partial(self._trim, True, True),
            ("ltrim", 2): partial(self._trim, True, False),
            ("rtrim", 2): partial(self._trim, False, True),
        }
        if guarded:
            own |= {(name, -1): partial(self._call, name) for name in COSTLY}
        for (name, arguments), function in own.items():
            connection.create_function(name, arguments, self._kept(function), deterministic=True)

    def close(self) -> None:
        """Let go of SQLite; what is installed can no longer be called."""
        self._sqlite.close()

    def _kept(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*values: Any) -> Any:
            try:
                if time.monotonic() > self._until:
                    raise TimeoutError
                return function(*values)
            except Exception as error:
                self.error = error
                raise

        return called

    def _call(self, name: str, *values: Any) -> Any:
        return self._sqlite.execute(f'SELECT "{name}"({", ".join("?" * len(values))})', values).fetchone()[0]

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        (text,) = self._sqlite.execute("SELECT CAST(? AS TEXT)", [value]).fetchone()
        return str(text)

    def _instr(self, text: Any, part: Any) -> int | None:
        if text is None or part is None:
            return None
        if isinstance(text, bytes) and isinstance(part, bytes):
            return text.find(part) + 1
        return self._text(text).find(self._text(part)) + 1

    def _replace(self, text: Any, old: Any, new: Any) -> str | None:
        if text is None or old is None or new is None:
            return None
        text, old, new = self._text(text), self._text(old), self._text(new)
        if not old:
            return str(text)
        size = len(text.encode()) + text.count(old) * (len(new.encode()) - len(old.encode()))
        if size > self._most:  # before it is made
            raise TooLong
        return str(text.replace(old, new))

    def _trim(self, left: bool, right: bool, text: Any, letters: Any) -> str | None:
        if text is None or letters is None:
            return None
        text, away = self._text(text), frozenset(self._text(letters))
        start, end = 0, len(text)
        while left and start < end and text[start] in away:
            start += 1
        while right and end > start and text[end - 1] in away:
            end -= 1
        return str(text[start:end])
