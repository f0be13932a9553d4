"""What `detect` leaves behind: boxes as COCO JSON, YOLO labels, a Parquet table, webdataset tars, or drawn images.

All take a stream of (record, metadata row); a record is that of `detecting.record`. COCO and YOLO name every image that
was looked through, the others those in which something was kept.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, get_args

from clipsieve.durable import TEMPORARY, write_file
from clipsieve.errors import InputError, quoted
from clipsieve.index.export import Exported, list_skipped, with_bytes
from clipsieve.index.packs import write_webdataset
from clipsieve.index.records import Images, Record, Tally, safe_name
from clipsieve.index.zips import box_shares
from clipsieve.output_path import require_path
from clipsieve.types import ClassSet

DetectFormat = Literal["coco", "yolo", "parquet", "webdataset", "drawn"]

ONE_FILE = ("coco", "parquet")
SUFFIXES: Mapping[str, DetectFormat] = {".json": "coco", ".parquet": "parquet"}

TABLE_ROWS = 65_536

Rows = Iterable[tuple[Record, Mapping[str, Any]]]
Draw = Callable[[bytes, Sequence[tuple[tuple[float, float, float, float], int, str]]], bytes]
"""An encoded image, and boxes in pixels, their classes and what to write into them -> the JPEG."""


def choose_detect_format(given: str | None, out: Path) -> DetectFormat:
    """How to write: the format asked for, else what the suffix means. InputError for anything else."""
    if given is None:
        if out.suffix.lower() not in SUFFIXES:
            raise InputError(f"{out} does not say what it is to be; end it in .json or .parquet, or give --format.")
        return SUFFIXES[out.suffix.lower()]
    for known in get_args(DetectFormat):
        if given == known:
            chosen: DetectFormat = known
            return chosen
    raise InputError(f"The format {quoted(given)} is not known; choose one of {', '.join(get_args(DetectFormat))}.")


def require_place(out: Path, kind: DetectFormat) -> None:
    """InputError unless `out` can be made anew: a file that is not there, or a folder that is empty or not there."""
    require_path(out)
    if out.exists() and (kind in ONE_FILE or not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists already; name another place, or remove it first.")


def write_detections(
    rows: Rows, out: Path, kind: DetectFormat, classes: ClassSet, images: Images, tally: Tally, draw: Draw, note: str
) -> Exported:
    """Write the boxes to `out`: a file for what is ONE_FILE, else a folder.

    tally  counts the images that were written; may have skipped ones already
    note   goes into the output where there is a place for it
    """
    require_place(out, kind)
    names = [c.name for c in classes.classes]
    if kind in ONE_FILE:
        out.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            write_file(out, lambda file: _write_parquet(file, rows, tally, note))
        else:
            with tempfile.TemporaryFile(dir=out.parent) as beside:
                write_file(out, lambda file: _write_coco(file, beside, rows, names, tally, note))
        return Exported(tally.written, out, tuple(tally.skipped))
    out.mkdir(parents=True, exist_ok=True)
    if kind == "yolo":
        _write_yolo(out, rows, names, tally)
    elif kind == "webdataset":
        write_webdataset(out, with_bytes(_with_boxes(rows), images, tally), tally, note)
    else:
        _write_drawn(out, rows, names, images, tally, draw)
    list_skipped(out, tally)
    return Exported(tally.written, out, tuple(tally.skipped))


def _with_boxes(rows: Rows) -> Iterator[tuple[Record, Mapping[str, Any]]]:
    return ((record, row) for record, row in rows if record.found["boxes"])


def _write_coco(file: BinaryIO, beside: BinaryIO, rows: Rows, names: Sequence[str], tally: Tally, note: str) -> None:
    """beside: where annotations wait until all images are written."""
    number = {name: i for i, name in enumerate(names, start=1)}
    count = 0
    file.write(b'{"info": ' + _json({"description": "boxes found by clipsieve", "class_set": note}) + b', "images": [')
    for record, _ in rows:
        size = {name: record.found[name] for name in ("width", "height")}
        file.write((b",\n" if tally.written else b"\n") + _json({"id": record.id, "file_name": record.key, **size}))
        tally.written += 1
        for one in record.found["boxes"]:
            annotation = {"id": count + 1, "image_id": record.id, "category_id": number[one["class"]]}
            annotation |= {"bbox": one["box"], "area": one["box"][2] * one["box"][3]}
            beside.write((b",\n" if count else b"\n") + _json({**annotation, "score": one["score"], "iscrowd": 0}))
            count += 1
    file.write(b'], "annotations": [')
    beside.seek(0)
    shutil.copyfileobj(beside, file)
    file.write(b'], "categories": ' + _json([{"id": i, "name": name} for name, i in number.items()]) + b"}\n")


def _write_yolo(out: Path, rows: Rows, names: Sequence[str], tally: Tally) -> None:
    """`classes.txt`, and `labels/NAME.txt` with lines "CLASS X Y WIDTH HEIGHT": centre and size in 0..1."""
    number = {name: i for i, name in enumerate(names)}
    for record, _ in rows:
        width, height = record.found["width"], record.found["height"]
        lines = []
        for one in record.found["boxes"]:
            lines.append(f"{number[one['class']]} {box_shares(one['box'], width, height)}\n")
        _place(out / "labels" / safe_name(record.key), ".txt", record, "".join(lines).encode())
        tally.written += 1
    (out / "classes.txt").write_text("".join(f"{' '.join(name.split())}\n" for name in names), encoding="utf-8")


def _write_drawn(out: Path, rows: Rows, names: Sequence[str], images: Images, tally: Tally, draw: Draw) -> None:
    """JPEGs under the items' keys. One that cannot be decoded any more is skipped."""
    number = {name: i for i, name in enumerate(names)}
    for record, _, data in with_bytes(_with_boxes(rows), images, tally):
        boxes = [
            (tuple(one["box"]), number[one["class"]], f"{one['class']} {one['score']:.2f}")
            for one in record.found["boxes"]
        ]
        try:
            drawn = draw(data, boxes)
        except InputError as error:
            tally.skip(record, error)
            continue
        _place(out / safe_name(record.key), ".jpg", record, drawn)
        tally.written += 1


def _place(path: Path, suffix: str, record: Record, data: bytes) -> None:
    """Put a file under the item's name with another suffix, or with its id where another item has that."""
    target = Path(PurePosixPath(path.as_posix()).with_suffix(suffix))
    while target.exists():
        target = target.with_name(f"{target.stem}~{record.id}{suffix}")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name[-100:]}{TEMPORARY}")
    beside.write_bytes(data)
    beside.replace(target)


def _write_parquet(file: BinaryIO, rows: Rows, tally: Tally, note: str) -> None:
    """A row per box: id, key, class, score, and box: left, top, width and height in pixels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    fields = [("id", pa.int64()), ("key", pa.string()), ("class", pa.string()), ("score", pa.float64())]
    schema = pa.schema(
        [*fields, ("box", pa.list_(pa.float64(), 4))], metadata={"note": note, "box": "x y width height"}
    )

    def lines() -> Iterator[dict[str, Any]]:
        for record, _ in _with_boxes(rows):
            tally.written += 1
            yield from ({"id": record.id, "key": record.key, **one} for one in record.found["boxes"])

    stream = lines()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while batch := list(islice(stream, TABLE_ROWS)):
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()
