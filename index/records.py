"""Items on their way out: what is exported of each, and what their files are called."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from clipsieve.path_text import to_path
from clipsieve.types import Example, Hit, Int64, Skipped


@dataclass(frozen=True, slots=True)
class Record:
    """One item to export, and what was found out about it: score, margin, label, ... (plain JSON values)."""

    id: int
    key: str
    found: Mapping[str, Any]


@dataclass(slots=True)
class Tally:
    """What an export counts while it runs."""

    written: int = 0
    skipped: list[Skipped] = field(default_factory=list)

    def skip(self, record: Record, reason: object) -> None:
        """Note an item that could not be written."""
        self.skipped.append(Skipped(record.key, str(reason)))


class Images(Protocol):
    """What an export reads from; a Collection is one."""

    def items(self, ids: Sequence[int] | Int64) -> list[Mapping[str, object]]:
        """The metadata rows of these ids."""

    def image_bytes(self, id: int, *, thumbnails: bool = True) -> bytes:
        """The encoded original of an item; NotFound if it is gone."""

    def image_file(self, id: int) -> Path:
        """The file that an item's image is; NotFound where it is none of its own, or gone."""


def hit_records(hits: Iterable[Hit]) -> Iterator[Record]:
    """Hits as records of score, margin (None where infinite), positive and negative."""
    for hit in hits:
        margin = None if hit.margin == math.inf else hit.margin
        negative = None if hit.negative is None else example_name(hit.negative)
        found = {"score": hit.score, "margin": margin, "positive": example_name(hit.positive), "negative": negative}
        yield Record(hit.id, hit.key, found)


def label_records(labels: Path) -> Iterator[Record]:
    """The rows that `label` wrote, from one Parquet file or a folder of its parts; an infinite margin becomes None."""
    import pyarrow.parquet as pq

    for part in sorted(labels.glob("labels_*.parquet")) if labels.is_dir() else [labels]:
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(4096):
                for row in batch.to_pylist():
                    finite: dict[str, Any] = {
                        name: None if isinstance(value, float) and not math.isfinite(value) else value
                        for name, value in row.items()
                    }
                    yield Record(finite.pop("id"), finite.pop("key"), finite)


def example_name(example: Example) -> str:
    """An example in a word or two: its text, "item 17", "image 1a2b3c4d5e6f", "a part of item 17"."""
    if example.text is not None:
        return example.text
    name = f"item {example.image}" if isinstance(example.image, int) else f"image {str(example.image)[:12]}"
    return name if example.box is None else f"a part of {name}"


def safe_name(key: str, bytes: bool = False) -> str:
    """A relative path, with forward slashes, for a file called `key`: it stays inside any folder, on any system.

    Folders of the key are kept; an address loses its query. What systems forbid becomes `_`.

    bytes  keep those that are not UTF-8, as lone surrogates: for a file system that takes them
    """
    forbidden = r'[<>:"|?*\x00-\x1f\x7f]|[\ud800-\udc7f\udd00-\udfff]' + ("" if bytes else r"|[\udc80-\udcff]")
    if "://" in key:
        address = urlsplit(key)
        key = f"{address.netloc}/{unquote(address.path)}"
    else:
        key = to_path(key)
    parts = []
    for part in re.split(r"[/\\]", key):
        clean = re.sub(forbidden, "_", part).rstrip(". ")
        if not clean:
            continue  # "", ".", ".."
        if re.fullmatch(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", clean, re.IGNORECASE):
            clean = f"_{clean}"
        stem, dot, suffix = clean.rpartition(".")
        if _size(clean) > 200:  # most file systems take 255 bytes
            tail = f"{dot}{suffix}" if stem and _size(suffix) <= 10 else ""
            while _size(clean) > 200 - _size(tail):
                clean = clean[:-1]
            clean += tail
        parts.append(clean)
    return "/".join(parts) or "_"


def _size(name: str) -> int:
    return len(name.encode("utf-8", "surrogateescape"))


def suffix_of(data: bytes) -> str:
    """The file suffix of an encoded image by its first bytes, with the dot; ".bin" if it is none of the common ones."""
    kinds = {b"\xff\xd8\xff": ".jpg", b"\x89PNG\r\n\x1a\n": ".png", b"GIF8": ".gif", b"BM": ".bmp", b"II*\0": ".tif"}
    kinds[b"MM\0*"] = ".tif"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return ".webp"
    if data[4:12] in (b"ftypavif", b"ftypheic"):
        return "." + data[8:12].decode()
    return next((suffix for start, suffix in kinds.items() if data.startswith(start)), ".bin")
