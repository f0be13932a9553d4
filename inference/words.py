"""Tables that say something of image files beside them: an imagefolder's metadata.csv, metadata.jsonl, ..."""

import posixpath
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from clipsieve.inference import lists
from clipsieve.inference.paths import Place, readable
from clipsieve.inference.sidecar import clean_caption, flatten
from clipsieve.inference.tables import CAPTION_NAMES
from clipsieve.types import Skipped

FILE_NAMES = ("file_name", "filename", "file", "file_path", "filepath", "image_path", "path", "image")
"""Columns that name files unless there is an earlier one; relative to the table's folder."""

_LOOK = 100
"""Rows of a table that are looked at to tell whether it names files that are there."""


class WordTable(NamedTuple):
    """A table whose `column` names files relative to `folder`."""

    place: Place
    folder: str
    column: str


def word_table(place: Place, folder: str, names: Collection[str]) -> WordTable | None:
    """The table at `place`, in `folder`, if one of its first rows names a file of `names`; None if not.

    What reading a damaged table raises is raised.
    """
    columns = lists.columns_of(place)
    column = next((name for name in FILE_NAMES if name in columns), None)
    if column is None:
        return None
    table = WordTable(place, folder, column)
    rows = lists.read_rows("", place, 0, lambda _, fields: _file_of(table, fields))
    try:
        found = any(isinstance(name, str) and name in names for _, name in zip(range(_LOOK), rows, strict=False))
    finally:
        rows.close()
    return table if found else None


class WordTables:
    """What tables say of files; they are read when the first file is asked for. Safe in many threads."""

    def __init__(self, tables: Sequence[WordTable]) -> None:
        self._tables = tables
        self._rows: dict[str, tuple[str | None, Mapping[str, Any]]] | None = None
        self._problem = ""
        self._lock = threading.Lock()

    def of(self, name: str) -> tuple[str | None, Mapping[str, Any]]:
        """Caption and metadata of the file of that name, of the first table that names it; none where none does.

        Where a table could not be read whole, what is not named has a `metadata_error` that says so.
        """
        with self._lock:
            if self._rows is None:
                self._rows = {}
                for table in self._tables:
                    self._read(table, self._rows)
        return self._rows.get(name) or (None, {"metadata_error": self._problem} if self._problem else {})

    def _read(self, table: WordTable, into: dict[str, tuple[str | None, Mapping[str, Any]]]) -> None:
        def made(_: str, fields: lists.Fields) -> tuple[str | None, lists.Fields]:
            return _file_of(table, fields), fields

        try:
            for row in lists.read_rows("", table.place, 0, made):
                if isinstance(row, Skipped):
                    self._note(table, row.reason)
                    continue
                name, fields = row
                if name is None:
                    continue
                caption = next((column for column in CAPTION_NAMES if column in fields), None)
                others = {n: value for n, value in fields.items() if n not in (table.column, caption)}
                into.setdefault(name, (clean_caption(fields[caption]) if caption else None, flatten(others)))
        except Exception as error:  # what Arrow and fsspec raise is open-ended; the images must not suffer for it
            self._note(table, readable(str(error)).strip() or type(error).__name__)

    def _note(self, table: WordTable, what: str) -> None:
        problem = f"The table {readable(table.place.url)!r} is damaged ({what}); mend it and embed again."
        self._problem = self._problem or problem


def _file_of(table: WordTable, fields: lists.Fields) -> str | None:
    given = fields.get(table.column)
    if not isinstance(given, str) or not given:
        return None
    return posixpath.normpath(posixpath.join(table.folder, given.replace("\\", "/")))
