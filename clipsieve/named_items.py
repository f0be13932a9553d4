"""Which items `--ids` means: ids, or a file that names items by id or key."""

import contextlib
import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from clipsieve.csv_cells import exact_text
from clipsieve.errors import InputError, NotFound
from clipsieve.path_text import canonical, given_path


def named_ids(text: str, ids_of_keys: Callable[[Sequence[str]], Any]) -> list[int]:
    """The ids of "17,4 21", or of the items that a file of that name lists.

    ids_of_keys  ids, int64 (n,), of keys; NotFound names one that there is not

    A file has one id or key per line, keys as answers show them; or it is a CSV or .jsonl with a column `id` or `key`,
    as answers are written. InputError for what is neither.
    """
    path = Path(given_path(text))
    if re.fullmatch(r"[\d\s,]*\d[\d\s,]*", text) or not path.is_file():
        return parse_ids(text)
    lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    if path.suffix.lower() == ".csv":
        names = list(_of_rows(path, csv.DictReader(lines.splitlines(keepends=True))))
    elif path.suffix.lower() == ".jsonl":
        names = list(_of_rows(path, _json_lines(path, lines)))
    else:
        names = [line.rstrip("\r") for line in lines.split("\n") if line.strip()]
    if not names:
        raise InputError(f"The file {text} names no item; write one id or key per line.")
    written_by_us = path.suffix.lower() == ".csv"
    return [int(name) if name.strip().isdecimal() else _id_of(name, ids_of_keys, written_by_us) for name in names]


def parse_ids(text: str) -> list[int]:
    """The numbers of "17,4 21". InputError names what is none."""
    parts = re.split(r"[\s,]+", text.strip())
    for part in parts:
        if not part.isdecimal():
            raise InputError(
                f"{part!r} in --ids is no id, and there is no such file; ids are whole numbers, separated by commas."
            )
    return [int(part) for part in parts]


def _of_rows(path: Path, rows: Iterator[Any]) -> Iterator[str]:
    for row in rows:
        name = row.get("id") or row.get("key") if isinstance(row, dict) else None
        if not name:
            raise InputError(f"{path} has no column `id` or `key`; write one id or key per line instead.")
        yield str(name)


def _json_lines(path: Path, text: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError:
                raise InputError(f"{path} line {number} is not JSON; write one object per line.") from None


def _id_of(key: str, ids_of_keys: Callable[[Sequence[str]], Any], csv_cell: bool) -> int:
    if csv_cell and (exact := exact_text(key)) != key:
        with contextlib.suppress(NotFound):
            return _id_of(exact, ids_of_keys, False)
    spelt = canonical(key)  # a line may have a name as its file has it
    if key.isprintable() and key != spelt:
        with contextlib.suppress(NotFound):
            return int(ids_of_keys([key])[0])
    return int(ids_of_keys([spelt])[0])
