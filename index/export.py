"""What `filter`, `label` and the jobs of the service leave behind: images as files, links or packed, and lists of them.

Everything goes through a stream of records, so that memory does not grow with their number (the names in a zip
excepted). An image whose original is gone is skipped, counted and, in a folder, listed in `skipped.csv`. A file that
was there before is never overwritten.
"""

import io
import itertools
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from clipsieve.csv_cells import CsvWriter
from clipsieve.durable import write_file
from clipsieve.errors import InputError, NotFound, quoted
from clipsieve.index.packs import write_datasets, write_tar, write_webdataset
from clipsieve.index.records import Images, Record, Tally, safe_name, suffix_of
from clipsieve.index.zips import write_folders, write_yolo
from clipsieve.output_path import require_path
from clipsieve.path_text import to_text
from clipsieve.types import Skipped

As = Literal["copy", "link", "list", "webdataset", "datasets", "folders", "coco", "tar", "zip", "yolo", "yolo-images"]
"""copy, link   the image files under their keys            folders     copies, in one folder per label
list         .csv, .txt (places alone), .parquet, .jsonl   coco        one JSON file, image-level categories
webdataset   tars of image, caption and JSON               datasets    Parquet that Hugging Face `datasets` loads
tar          the same in one tar                           zip         folders, in one zip
yolo         one zip of labels, image-level boxes          yolo-images the same with the images"""

ONE_FILE = ("list", "coco", "tar", "zip", "yolo", "yolo-images")
LISTS = (".csv", ".txt", ".parquet", ".jsonl")

BATCH = 256

KEEPS_BYTES = sys.platform not in ("darwin", "win32")
"""Whether file names here may be bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Exported:
    """How many items were written, where (the file or folder), and which could not be."""

    written: int
    path: Path
    skipped: tuple[Skipped, ...] = ()


def export(
    records: Iterable[Record], out: Path, kind: As, images: Images, *, note: str = "", raw_csv: bool = False
) -> Exported:
    """Write the records to `out`, a folder; for what is ONE_FILE, a file or a folder to put it into.

    The suffix of a "list" decides what it is; in a folder it is a .csv.

    note     goes into the output where there is a place for it: what was asked, or the class set's hash
    raw_csv  as in `CsvWriter`

    InputError if the kind is not known or `out` cannot hold it; what already lies there stays as it is.
    """
    if kind not in get_args(As):
        raise InputError(f"Nothing is known of exporting as {quoted(kind)}; choose one of {', '.join(get_args(As))}.")
    require_path(out)
    tally = Tally()
    rows = _with_rows(records, images)
    if kind in ONE_FILE:
        name = {"list": "list.csv", "coco": "coco.json", "tar": "images.tar"}.get(kind, "images.zip")
        path = out if out.suffix else out / name
        if path.exists():
            raise InputError(f"{path} exists already; name another file, or remove it first.")
        suffix = path.suffix.lower()
        if kind == "list" and suffix not in LISTS:
            raise InputError(f"{path} does not say which list it is to be; end it in one of {', '.join(LISTS)}.")
        path.parent.mkdir(parents=True, exist_ok=True)

        def write(file: BinaryIO) -> None:
            if kind == "list":
                _write_list(file, suffix, rows, tally, note, raw_csv)
            elif kind == "coco":
                with tempfile.TemporaryFile(dir=path.parent) as beside:
                    _write_coco(file, beside, rows, tally, note)
            elif kind == "tar":
                write_tar(file, with_bytes(rows, images, tally), tally, note)
            elif kind == "zip":
                write_folders(file, with_bytes(rows, images, tally), tally)
            elif kind == "yolo":
                write_yolo(file, ((record, row, None) for record, row in rows), tally, note)
            else:
                write_yolo(file, with_bytes(rows, images, tally), tally, note)

        write_file(path, write)  # whole or not at all, since a path that is taken is refused
        return Exported(tally.written, path, tuple(tally.skipped))
    if out.is_file():
        raise InputError(f"{out} is a file; name a folder to export into.")
    out.mkdir(parents=True, exist_ok=True)
    if kind == "webdataset":
        write_webdataset(out, with_bytes(rows, images, tally), tally, note)
    elif kind == "datasets":
        write_datasets(out, with_bytes(rows, images, tally), tally, note)
    elif kind == "link":
        _link(out, rows, images, tally)
    else:
        _copy(out, rows, images, tally, by_label=kind == "folders")
    list_skipped(out, tally, raw_csv=raw_csv)
    return Exported(tally.written, out, tuple(tally.skipped))


def list_skipped(out: Path, tally: Tally, *, raw_csv: bool = False) -> None:
    """Say in `skipped.csv` in the folder `out` what was skipped, if anything was."""
    if tally.skipped:
        path = _free(out / "skipped.csv")
        with path.open("x", newline="", encoding="utf-8") as file:
            CsvWriter(file, raw=raw_csv).writerows([("key", "reason"), *((s.key, s.reason) for s in tally.skipped)])


Row = Mapping[str, Any]


def _with_rows(records: Iterable[Record], images: Images) -> Iterator[tuple[Record, Row]]:
    stream = iter(records)
    while batch := list(itertools.islice(stream, BATCH)):
        yield from zip(batch, images.items([record.id for record in batch]), strict=True)


def with_bytes(rows: Iterable[tuple[Record, Row]], images: Images, tally: Tally) -> Iterator[tuple[Record, Row, bytes]]:
    """The records whose original can be read, with its bytes; the others are skipped."""
    for record, row in rows:
        try:
            data = images.image_bytes(record.id, thumbnails=False)
        except NotFound as error:
            tally.skip(record, error)
            continue
        yield record, row, data


def _copy(out: Path, rows: Iterable[tuple[Record, Row]], images: Images, tally: Tally, by_label: bool) -> None:
    for record, _, data in with_bytes(rows, images, tally):
        name = safe_name(record.key, KEEPS_BYTES)
        if not re.search(r"\.\w{2,5}$", name):
            name += suffix_of(data)
        if by_label:
            name = f"{safe_name(str(record.found.get('label') or '(none)')).replace('/', '_')}/{name}"
        _place(out / name, record, tally, partial(_write, data), partial(_holds, data))


def _link(out: Path, rows: Iterable[tuple[Record, Row]], images: Images, tally: Tally) -> None:
    for record, _ in rows:
        try:
            target = images.image_file(record.id)
        except NotFound as error:
            tally.skip(record, f"It cannot be linked to: {error}")
            continue
        _place(
            out / safe_name(record.key, KEEPS_BYTES),
            record,
            tally,
            partial(_point_to, target),
            partial(_points_to, target),
        )


def _place(
    path: Path, record: Record, tally: Tally, make: Callable[[Path], object], same: Callable[[Path], bool]
) -> None:
    """Make the file at `path`, or beside it under a name with the id where another file has the name."""
    for candidate in (path, path.with_name(f"{path.stem}~{record.id}{path.suffix}")):
        try:
            candidate.parent.mkdir(parents=True, exist_ok=True)
            if not candidate.is_symlink() and not candidate.exists():
                make(candidate)
            elif not same(candidate):
                continue
        except OSError as error:
            tally.skip(record, f"{to_text(candidate)} cannot be written ({error.strerror or error}).")
            return
        tally.written += 1
        return
    tally.skip(record, f"{to_text(path)} exists already and is another file; export into an empty folder.")


def _write(data: bytes, path: Path) -> None:
    # Under another name first: a killed export leaves no half image under a real one.
    beside = path.with_name(f".{path.name[-100:]}.tmp")
    beside.write_bytes(data)
    beside.replace(path)


def _holds(data: bytes, path: Path) -> bool:
    return path.is_file() and path.read_bytes() == data


def _point_to(target: Path, path: Path) -> None:
    path.symlink_to(target)


def _points_to(target: Path, path: Path) -> bool:
    return path.is_symlink() and path.readlink() == target


def _write_list(
    file: BinaryIO, suffix: str, rows: Iterable[tuple[Record, Row]], tally: Tally, note: str, raw_csv: bool
) -> None:
    def place(row: Row) -> str:
        return str(row.get("image_path") or row.get("url") or row["key"])

    if suffix == ".txt":
        for _, row in rows:
            file.write((place(row).replace("\n", "\\x0a") + "\n").encode())
            tally.written += 1
        return

    def web(row: Row) -> Row:
        """What img2dataset reads, where the collection knows URLs."""
        return {"url": row["url"], "caption": row.get("caption")} if "url" in row else {}

    lines = ({"id": r.id, "key": r.key, "image": place(row), **web(row), **r.found} for r, row in rows)
    if suffix == ".parquet":
        _write_parquet(file, lines, tally, note)
        return
    if suffix == ".jsonl":
        for line in lines:
            file.write(json.dumps({**line, "id": str(line["id"])}, default=str, ensure_ascii=False).encode() + b"\n")
            tally.written += 1
        return
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer, names = None, list[str]()
    for line in lines:
        if "boxes" in line:
            line["boxes"] = json.dumps(line["boxes"], ensure_ascii=False)
        if writer is None:
            writer, names = CsvWriter(text, raw=raw_csv), list(line)
            writer.writerow(names)
        writer.writerow(line.get(name) for name in names)
        tally.written += 1
    if writer is None:
        CsvWriter(text).writerow(["id", "key", "image"])
    text.detach()  # flushes, and leaves the file open


def _write_parquet(file: BinaryIO, lines: Iterator[dict[str, Any]], tally: Tally, note: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"id": pa.int64(), "score": pa.float32(), "margin": pa.float32()}
    types |= {"width": pa.int64(), "height": pa.int64(), "boxes": boxes_type()}
    writer = None
    try:
        while batch := list(itertools.islice(lines, 65_536)):
            if writer is None:
                fields = [(name, types.get(name, pa.string())) for name in batch[0]]
                writer = pq.ParquetWriter(file, pa.schema(fields, metadata={"note": note}), compression="zstd")
            writer.write_table(pa.Table.from_pylist(batch, schema=writer.schema))
            tally.written += len(batch)
        if writer is None:
            empty = pa.schema([("id", pa.int64()), ("key", pa.string()), ("image", pa.string())])
            pq.write_table(empty.empty_table(), file)
    finally:
        if writer is not None:
            writer.close()


def _write_coco(file: BinaryIO, beside: BinaryIO, rows: Iterable[tuple[Record, Row]], tally: Tally, note: str) -> None:
    """An annotation for each box of a record that has `boxes`; else an image-level one, whose box is the whole image.

    Without a box, or a label, there is none.

    beside  where annotations wait until all images are written
    """
    categories: dict[str, int] = {}
    annotations = 0

    def annotate(image: int, label: object, more: Mapping[str, Any]) -> None:
        nonlocal annotations
        annotations += 1
        category = categories.setdefault(str(label), len(categories) + 1)
        one = {"id": annotations, "image_id": image, "category_id": category, **more, "iscrowd": 0}
        beside.write((b",\n" if annotations > 1 else b"\n") + _json(one))

    file.write(b'{"info": ' + _json({"description": note or "made by clipsieve"}) + b', "images": [')
    for record, row in rows:
        known = {**row, **record.found}
        size = {name: int(known[name]) for name in ("width", "height") if known.get(name) is not None}
        file.write((b",\n" if tally.written else b"\n") + _json({"id": record.id, "file_name": record.key, **size}))
        tally.written += 1
        label = record.found.get("label")
        if "boxes" in record.found:
            for one in record.found["boxes"]:
                area = one["box"][2] * one["box"][3]
                annotate(record.id, one["class"], {"bbox": one["box"], "area": area, "score": one["score"]})
        elif label is not None:
            whole: dict[str, Any] = {}
            if len(size) == 2:
                whole |= {"bbox": [0, 0, size["width"], size["height"]], "area": size["width"] * size["height"]}
            if record.found.get("score") is not None:
                whole["score"] = record.found["score"]
            annotate(record.id, label, whole)
    file.write(b'], "annotations": [')
    beside.seek(0)
    shutil.copyfileobj(beside, file)
    named = [{"id": number, "name": name} for name, number in categories.items()]
    file.write(b'], "categories": ' + _json(named) + b"}")


def boxes_type() -> Any:
    """How Arrow holds the boxes of a record: left, top, width and height in pixels, the class and the score of each."""
    import pyarrow as pa

    fields = [("class", pa.string()), ("score", pa.float64()), ("box", pa.list_(pa.float64(), 4))]
    return pa.list_(pa.struct(fields))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _free(path: Path) -> Path:
    """The path, or the first of its kind with a number that no file has."""
    names = itertools.chain([path], (path.with_name(f"{path.stem}_{i}{path.suffix}") for i in itertools.count(2)))
    return next(name for name in names if not name.exists())
