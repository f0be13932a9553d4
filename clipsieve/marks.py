"""What people said of items, `marks.jsonl`: one line for each time that somebody said something.

    {"item": "17", "class": "bus", "verdict": "right", "set": "street", "at": "2026-01-31T12:00:00+00:00", "crc": "..."}

The last line of an item and a class holds; a verdict of null takes back what was said. A class goes by its name alone,
so that what was said before its set was stored stays said; `set` is a note. Ids are texts: JavaScript rounds above
2**53.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from clipsieve.durable import append_lines, sift_lines
from clipsieve.errors import CollectionDamaged
from clipsieve.lock import exclusively

NAME = "marks.jsonl"
LOCK = "marks.lock"

Verdict = Literal["right", "wrong"]
Signature = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True)
class Mark:
    """Whether an item is of a class, as somebody said.

    verdict  None takes back what was said
    set      the stored set in which the class was, where it was in one
    at       when it was said, ISO 8601
    """

    item: int
    class_name: str
    verdict: Verdict | None
    set: str | None = None
    at: str = ""

    @property
    def about(self) -> tuple[str, int]:
        """What it is said of: the class's name and the item."""
        return self.class_name, self.item


class Marks:
    """The marks of one folder. Safe to use from several threads, and beside other processes that do."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.path = folder / NAME
        self._lock = threading.Lock()
        self._read: Signature = None
        self._standing: dict[tuple[str, int], Mark] = {}

    def standing(self, class_name: str | None = None) -> list[Mark]:
        """What holds now, of one class or of all, in the order in which it was said.

        CollectionDamaged names the first line that is not as it was written; nothing is told from such a file.
        """
        with self._lock:
            self._refresh()
            return [m for m in self._standing.values() if class_name is None or m.class_name == class_name]

    def add(self, marks: Sequence[Mark]) -> int:
        """Say these, one after the other, and keep them for good; how many were not said already.

        CollectionReadOnly where the folder may not be written, CollectionDamaged as in `standing`.
        """
        with self._writing() as (standing, lines):
            for mark in marks:
                there = standing.get(mark.about)
                if there is None or (there.verdict, there.set) != (mark.verdict, mark.set):
                    _say(standing, lines, mark)
        return len(lines)

    def take_back(self, marks: Sequence[Mark]) -> int:
        """Take back what was said of these items and classes, or that verdict alone where they have one; how many.

        The errors are those of `add`.
        """
        with self._writing() as (standing, lines):
            for mark in marks:
                there = standing.get(mark.about)
                if there is not None and mark.verdict in (None, there.verdict):
                    _say(standing, lines, dataclasses.replace(there, verdict=None))
        return len(lines)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[tuple[dict[tuple[str, int], Mark], list[dict[str, Any]]]]:
        """What holds, to be changed, and a list for the lines that say so, which are written at the end."""
        with self._lock, exclusively(self._folder / LOCK):
            self._refresh()
            lines: list[dict[str, Any]] = []
            try:
                yield self._standing, lines
                if lines:
                    append_lines(self.path, lines)
            except BaseException:
                self._read, self._standing = None, {}  # what is on disk holds, and is read again
                raise
            self._read = _signature(self.path)

    def _refresh(self) -> None:
        now = _signature(self.path)
        while now != self._read:
            good, bad = sift_lines(self.path)
            before, now = now, _signature(self.path)
            if bad and now != before:
                continue  # read while another process cut a torn end off
            if bad:
                raise CollectionDamaged(
                    f"{self.path} line {bad[0]} is not as it was written: its checksum disagrees; restore the file "
                    "from a copy, or delete that line to go on without it."
                )
            self._standing = _read(self.path, good)
            self._read = now = before  # what came since is read next time


def _say(standing: dict[tuple[str, int], Mark], lines: list[dict[str, Any]], mark: Mark) -> None:
    mark = dataclasses.replace(mark, at=datetime.now(UTC).isoformat(timespec="seconds"))
    lines.append(
        {"item": str(mark.item), "class": mark.class_name, "verdict": mark.verdict, "set": mark.set, "at": mark.at}
    )
    _hold(standing, mark)


def _hold(standing: dict[tuple[str, int], Mark], mark: Mark) -> None:
    standing.pop(mark.about, None)  # so that it comes last
    if mark.verdict is not None:
        standing[mark.about] = mark


def _read(path: Path, lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, int], Mark]:
    standing: dict[tuple[str, int], Mark] = {}
    for number, line in enumerate(lines, start=1):
        try:
            mark = Mark(int(line["item"]), line["class"], line["verdict"], line.get("set"), line.get("at", ""))
        except (KeyError, TypeError, ValueError):
            mark = None
        if mark is None or not isinstance(mark.class_name, str) or mark.verdict not in ("right", "wrong", None):
            raise CollectionDamaged(f"{path} line {number} is no mark of an item; delete it to go on without it.")
        _hold(standing, mark)
    return standing


def _signature(path: Path) -> Signature:
    """Changes whenever somebody writes to the file."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    return (status.st_mtime_ns, status.st_size, status.st_ino)
