"""Counting in filters: `count('red circle') >= 3` holds for images that show so many.

A filter is SQL over the metadata, and SQLite calls `count` row by row. What it asks for the first time is not known: it
gets NULL, all such rows are looked at together, and the filter is asked again, until it asks for nothing new. So the
regions are read of those rows alone that the rest of the filter has not ruled out, and in blocks.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from clipsieve.errors import InputError, quoted
from clipsieve.types import Int64

NAME = "count"
LEAST = 0.1
"""Least score of a box that counts, where the filter does not say."""

MOST_TEXTS, MOST_LETTERS = 100, 10_000
"""Texts that one filter counts, and letters of each: it may make another text for each row."""

Count = Callable[[str, float, Int64], Int64]
"""A text, the least score of a box, int64 (n,) ids -> how many such boxes each of the items shows, int64 (n,)."""

_CALL = re.compile(r"""('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\])|\bcount\s*\(""", re.IGNORECASE)


def counts(where: str) -> bool:
    """Whether a filter counts anything."""
    return any(call[1] is None for call in _CALL.finditer(where))


def counted_texts(where: str) -> list[str]:
    """The texts that a filter counts, each once."""
    calls = (where[call.end() :] for call in _CALL.finditer(where) if call[1] is None)
    found = (re.match(r"\s*'((?:[^']|'')*)'", rest) for rest in calls)
    return list(dict.fromkeys(text[1].replace("''", "'") for text in found if text is not None))


def with_row(where: str) -> str:
    """The filter with each call of count being told which row it is about."""
    return _CALL.sub(lambda call: call[0] if call[1] is not None else f"{NAME}(id, ", where)


class Counting:
    """What one filter counts: the function for SQLite, and what is known so far.

    count  counts; None where nothing can
    """

    def __init__(self, count: Count | None) -> None:
        self._count = count
        self._known: dict[tuple[str, float], dict[int, int]] = {}
        self._asked: dict[tuple[str, float], set[int]] = {}
        self.wrong: InputError | None = None
        """Why what was asked for cannot be counted."""

    def __call__(self, id: int, text: Any, least: Any = LEAST) -> int | None:
        """How many an item shows; None where that is not known yet. Raises `wrong` where it cannot be counted."""
        try:
            what = self._checked(text, least)
        except InputError as error:
            self.wrong = error
            raise
        known = self._known.setdefault(what, {}).get(id)
        if known is None:
            self._asked.setdefault(what, set()).add(id)
        return known

    def settle(self) -> bool:
        """Count what was asked for and not known; whether there was anything."""
        asked, self._asked = self._asked, {}
        for (text, least), ids in asked.items():
            assert self._count is not None  # else nothing could be asked
            wanted = np.array(sorted(ids), np.int64)
            found = self._count(text, least, wanted)
            self._known[text, least].update(zip(wanted.tolist(), found.tolist(), strict=True))
        return bool(asked)

    def _checked(self, text: Any, least: Any) -> tuple[str, float]:
        if self._count is None:
            raise InputError(
                "The filter counts boxes, for which there is no detector here; leave out count(), or ask the "
                "collection itself, with `clipsieve search` or clipsieve.open."
            )
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"count has {quoted(text)} to look for; give it a text: count('red circle') >= 3.")
        if len(text) > MOST_LETTERS:
            raise InputError(f"count has {len(text):,} letters to look for, and at most {MOST_LETTERS:,} are read.")
        if isinstance(least, bool) or not isinstance(least, int | float) or not math.isfinite(least):
            raise InputError(f"count({quoted(text)}) has the least score {quoted(least)}; give a number in 0..1.")
        what = (text, float(least))
        if what not in self._known and len(self._known) == MOST_TEXTS:
            raise InputError(f"The filter counts more than {MOST_TEXTS} texts; ask for fewer.")
        return what
