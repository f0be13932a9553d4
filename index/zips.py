"""Images and labels in one zip: the layout of YOLO's trainers, and a folder per label.

A zip lists its members at its end, so that their names are held in memory: half a kilobyte each.
"""

import json
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from clipsieve.errors import InputError
from clipsieve.index.records import Record, Tally, safe_name, suffix_of

MOST_ITEMS = 1_000_000

WHOLE_IMAGE = "0.5 0.5 1 1"
"""Centre and size of a box, as shares of the image."""


def write_yolo(
    file: BinaryIO, items: Iterable[tuple[Record, Mapping[str, Any], bytes | None]], tally: Tally, note: str
) -> None:
    """`data.yaml` with the names of the classes, `labels/NAME.txt`, and `images/NAME.jpg` where the bytes are given.

    A record with `boxes` has a line for each of them; of another one the box of the label is the whole image. An item
    without either has an empty file, as a background image. InputError for more than MOST_ITEMS.
    """
    categories: dict[str, int] = {}
    with _Zip(file) as out:
        for record, _, data in items:
            name = out.free(_name(record, data), record.id)
            if data is not None:
                out.add(f"images/{name}", data)
            placed = _placed(record)
            lines = [f"{categories.setdefault(label, len(categories))} {place}\n" for label, place in placed]
            out.add(f"labels/{PurePosixPath(name).with_suffix('.txt')}", "".join(lines).encode())
            tally.written += 1
        lines = [f"# {' '.join(note.split())}"] if note else []
        lines += ["path: .", "train: images", "val: images", "names:" if categories else "names: {}"]
        lines += [f"  {number}: {json.dumps(name, ensure_ascii=False)}" for name, number in categories.items()]
        out.add("data.yaml", "".join(f"{line}\n" for line in lines).encode())


def write_folders(file: BinaryIO, items: Iterable[tuple[Record, Mapping[str, Any], bytes]], tally: Tally) -> None:
    """`LABEL/NAME.jpg`; items without a label lie in `(none)`. InputError for more than MOST_ITEMS."""
    with _Zip(file) as out:
        for record, _, data in items:
            folder = safe_name(str(record.found.get("label") or "(none)")).replace("/", "_")
            out.add(out.free(f"{folder}/{_name(record, data)}", record.id), data)
            tally.written += 1


class _Zip:
    """A zip that is being written: no two of its items differ in their suffix alone, for they would share a label."""

    def __init__(self, file: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(file, "w")
        self._taken: set[str] = set()

    def free(self, name: str, id: int) -> str:
        """The name for an item, with its id where another one has it."""
        path = PurePosixPath(name)
        if str(path.with_suffix("")).casefold() in self._taken:
            path = path.with_name(f"{path.stem}~{id}{path.suffix}")
        self._taken.add(str(path.with_suffix("")).casefold())
        if len(self._taken) > MOST_ITEMS:
            raise InputError(f"A zip takes {MOST_ITEMS:,} images; narrow the question, or choose another format.")
        return str(path)

    def add(self, name: str, data: bytes) -> None:
        """One file. Images are packed already, and labels are too short for it to pay."""
        self._zip.writestr(zipfile.ZipInfo(name), data)

    def __enter__(self) -> "_Zip":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()


def box_shares(box: Sequence[float], width: int, height: int) -> str:
    """Left, top, width and height in pixels of such an image -> centre and size in 0..1, as YOLO writes a box."""
    x, y, w, h = box
    return " ".join(f"{share:.6f}" for share in ((x + w / 2) / width, (y + h / 2) / height, w / width, h / height))


def _placed(record: Record) -> list[tuple[str, str]]:
    """What an item shows, and where, as YOLO writes a box."""
    found = record.found
    if "boxes" in found:
        return [(one["class"], box_shares(one["box"], found["width"], found["height"])) for one in found["boxes"]]
    return [] if found.get("label") is None else [(str(found["label"]), WHOLE_IMAGE)]


def _name(record: Record, data: bytes | None) -> str:
    name = safe_name(record.key)
    if data is not None and not re.search(r"\.\w{2,5}$", name):
        name += suffix_of(data)
    return name
