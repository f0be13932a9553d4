"""Images packed with what is known of them: webdataset tars, and Parquet that Hugging Face `datasets` loads.

Both take a stream of (record, metadata row, encoded image), write file after file, and give each its name only when it
is whole.
"""

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from clipsieve.durable import TEMPORARY
from clipsieve.errors import InputError
from clipsieve.index.records import Record, Tally, suffix_of

TAR_ITEMS = 10_000
TABLE_BYTES = 400 << 20
GROUP_ITEMS = 100

Packed = Iterable[tuple[Record, Mapping[str, Any], bytes]]


def write_webdataset(out: Path, items: Packed, tally: Tally, note: str) -> None:
    """Tars 000000.tar, 000001.tar, ... of up to TAR_ITEMS samples named by id: the image, its caption, its JSON."""
    _require_no(out, "*.tar")
    stream = iter(items)
    for number in range(1_000_000):
        first = next(stream, None)
        if first is None:
            return
        path = out / f"{number:06d}.tar"
        beside = path.with_name(f".{path.name}{TEMPORARY}")
        with tarfile.open(beside, "w") as tar:
            for count, (record, row, data) in enumerate(_from(first, stream), start=1):
                _add_sample(tar, record, row, data, note)
                tally.written += 1
                if count == TAR_ITEMS:
                    break
        beside.replace(path)


def write_tar(file: BinaryIO, items: Packed, tally: Tally, note: str) -> None:
    """The same samples, all in one tar."""
    with tarfile.open(fileobj=file, mode="w") as tar:
        for record, row, data in items:
            _add_sample(tar, record, row, data, note)
            tally.written += 1


def _add_sample(tar: tarfile.TarFile, record: Record, row: Mapping[str, Any], data: bytes, note: str) -> None:
    known = {**row, **record.found, "id": str(record.id)} | ({"note": note} if note else {})
    parts = {suffix_of(data): data, ".json": json.dumps(known, default=str, ensure_ascii=False).encode()}
    if row.get("caption"):
        parts[".txt"] = str(row["caption"]).encode()
    for suffix, content in parts.items():
        member = tarfile.TarInfo(f"{record.id:09d}{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    tar.members = []  # type: ignore[attr-defined]  # a million of them would fill the memory


def write_datasets(out: Path, items: Packed, tally: Tally, note: str) -> None:
    """Parquet train-00000.parquet, ... with an `image` column of bytes and path, which `datasets` reads as an Image.

    The columns are those of the first item's record and row; texts, numbers and booleans keep their kind, all else
    becomes JSON text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    _require_no(out, "train-*.parquet")
    stream = iter(items)
    schema: pa.Schema | None = None
    for number in range(1_000_000):
        first = next(stream, None)
        if first is None:
            return
        if schema is None:
            schema = _schema(first[0], first[1], note)
        path = out / f"train-{number:05d}.parquet"
        beside = path.with_name(f".{path.name}{TEMPORARY}")
        size, group = 0, []
        with pq.ParquetWriter(beside, schema, compression="none") as writer:  # the images are compressed already
            for record, row, data in _from(first, stream):
                group.append(_line(schema, record, row, data))
                size += len(data)
                tally.written += 1
                if len(group) == GROUP_ITEMS:
                    writer.write_table(pa.Table.from_pylist(group, schema=schema))
                    group = []
                if size >= TABLE_BYTES:
                    break
            if group:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
        beside.replace(path)


def _from(first: tuple[Record, Mapping[str, Any], bytes], rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _require_no(out: Path, pattern: str) -> None:
    there = next(out.glob(pattern), None)
    if there is not None:
        raise InputError(f"{there} exists already; export into an empty folder.")


_DTYPES = {bool: "bool", int: "int64", float: "float64", str: "string"}


def _schema(record: Record, row: Mapping[str, Any], note: str) -> Any:
    """An Arrow schema with the features that `datasets` looks for in its metadata."""
    import pyarrow as pa

    names = {"id": "int64", "key": "string"}
    for name, value in {**row, **record.found}.items():
        # None says nothing of a kind: a number may follow a margin that is absent, a text anything else.
        kind = "float64" if name in ("score", "margin") else _DTYPES.get(type(value), "string")
        if name != "image":
            names.setdefault(name, kind)
    features: dict[str, Any] = {"image": {"_type": "Image"}}
    features |= {name: {"dtype": kind, "_type": "Value"} for name, kind in names.items()}
    types = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
    fields = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))]
    fields += [(name, types[kind]) for name, kind in names.items()]
    metadata = {"huggingface": json.dumps({"info": {"features": features}}), "note": note}
    return pa.schema(fields, metadata=metadata)


def _line(schema: Any, record: Record, row: Mapping[str, Any], data: bytes) -> dict[str, Any]:
    values = {**row, **record.found, "id": record.id, "key": record.key}
    line: dict[str, Any] = {"image": {"bytes": data, "path": f"{record.id}{suffix_of(data)}"}}
    for field in schema:
        if field.name != "image":
            line[field.name] = _as(str(field.type), values.get(field.name))
    return line


def _as(kind: str, value: Any) -> Any:
    """The value as its column holds it; None where a later item's does not fit the first one's kind."""
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if kind == "double":
        return float(value) if isinstance(value, int | float) else None
    return value if isinstance(value, int) else None
