"""CSV that a spreadsheet may open: a text that it would compute gets an apostrophe in front, the sign of a text.

`'=x` becomes `''=x`, so that taking one apostrophe from such a field gives back what it was, see `exact_text`.
"""

import csv
import re
from collections.abc import Iterable
from typing import Any

_COMPUTED = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")  # noqa: RUF001 (spreadsheets take the wide ones, too)
_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")


def plain_cell(value: Any) -> Any:
    """The value as a cell that no spreadsheet computes; numbers, also written out, are let be."""
    if isinstance(value, str) and _COMPUTED.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def exact_text(cell: str) -> str:
    """The text that `plain_cell` made this cell of."""
    return cell[1:] if cell.startswith("'") and _COMPUTED.match(cell) else cell


class CsvWriter:
    """csv.writer, and no spreadsheet computes what it writes, except where it is `raw`: the values as they are."""

    def __init__(self, file: Any, lineterminator: str = "\r\n", *, raw: bool = False) -> None:
        self._writer = csv.writer(file, lineterminator=lineterminator)
        self._raw = raw

    def writerow(self, row: Iterable[Any]) -> None:
        """Write one row."""
        self._writer.writerow(row if self._raw else [plain_cell(value) for value in row])

    def writerows(self, rows: Iterable[Iterable[Any]]) -> None:
        """Write rows."""
        for row in rows:
            self.writerow(row)
