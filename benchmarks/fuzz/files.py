"""Files of others: vectors, tables, tars, lists and images."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import itertools
import json
import lzma
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from PIL import Image

from clipsieve import peer_tables, vector_sources
from clipsieve.errors import ClipsieveError
from clipsieve.importing import Block, VectorSource
from clipsieve.inference import lists
from clipsieve.inference.decode import decode
from clipsieve.inference.parts import read_parts
from clipsieve.inference.paths import Place, expand
from clipsieve.inference.reader import open_source
from clipsieve.types import ImageItem, Skipped

Read = Callable[[bytes], object]

NPY_WORDS = (b"'descr': '|O'", b"<f2", b">f4", b"|V8", b"'shape': (", b"-1", b"9" * 20, b"'fortran_order': True", b"()")
LIST_WORDS = (b'"', b"\n", b"\r", b",", b"\t", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"[", b"{", b"url", b"1984", b"NaN")


def npy(folder: Path) -> Read:
    """.npy files as vectors to import."""
    path = folder / "vectors.npy"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return _blocks(vector_sources.NpySource(path))

    return read


def npy_seeds() -> list[bytes]:
    """Vectors of both widths, and what are none."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 4)).astype(kind) for kind in ("f2", "f4", ">f8")]
    return [_npy(a) for a in (*arrays, np.asfortranarray(arrays[1]), np.zeros((0, 4), "f4"), np.arange(4))]


def arrow(folder: Path) -> Read:
    """Arrow files as a table of vectors to import, and as metadata of clip-retrieval's."""
    path = folder / "t.arrow"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return [
            _tried(lambda: _blocks(vector_sources.TableSource(path))),
            _tried(lambda: peer_tables.read_table(path).to_pydict()),
        ]

    return read


def arrow_seeds() -> list[bytes]:
    """The file and the stream, of plain and of nested types, and compressed."""
    table, made = _table(), []
    for new in (pa.ipc.new_file, pa.ipc.new_stream):
        for compression in (None, "lz4"):
            sink = io.BytesIO()
            with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
                writer.write_table(table)
            made.append(sink.getvalue())
    return made


def hdf5(folder: Path) -> Read:
    """clip-retrieval's HDF5 metadata."""
    path = folder / "metadata.hdf5"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        return peer_tables.count_rows(path), peer_tables.read_table(path).to_pydict()

    return read


def hdf5_seeds() -> list[bytes]:
    """Texts of any length and numbers, plain and in chunks."""
    made = []
    for options in ({}, {"chunks": (2,), "compression": "gzip"}):
        sink = io.BytesIO()
        with h5py.File(sink, "w", libver="latest") as file:
            group = file.create_group("dataset")
            group.create_dataset("caption", data=["a bus", "", "x"], dtype=h5py.string_dtype(), **options)
            group.create_dataset("width", data=np.arange(3), **options)
        made.append(sink.getvalue())
    return made


def tar(folder: Path) -> Read:
    """Webdataset tars as images: as they are, and under a compression with the headers' checksums made right."""
    packers: list[tuple[str, Callable[[bytes], bytes]]] = [
        ("t.tar", bytes), ("t.tar.gz", gzip.compress), ("t.tar.bz2", bz2.compress), ("t.tar.xz", lzma.compress),
    ]  # fmt: skip

    def read(data: bytes) -> object:
        name, pack = packers[hashlib.sha256(data).digest()[0] % len(packers)]
        return [_items(folder / name, data), _items(folder / name, pack(_tar_checksums(data)))]

    return read


def tar_seeds() -> list[bytes]:
    """Samples with captions, dotted names, links, long names and pax headers, plain and compressed."""
    image = _image("PNG")
    plain = {
        "a.png": image,
        "a.txt": b"a bus",
        "a.json": b'{"x": 1, "caption": "b"}',
        "22.05.jpg": image,
        "b.cls": b"3",
    }
    long = {f"{'d/' * 60}{'n' * 60}.png": image, "é.png": image}
    made = [_tar(plain), _tar(long, tarfile.PAX_FORMAT), _tar(long, tarfile.GNU_FORMAT)]
    return [*made, gzip.compress(made[0]), bz2.compress(made[0]), lzma.compress(made[0])]


def vector_tar(folder: Path) -> Read:
    """Tars whose members are vectors."""
    path = folder / "v.tar"

    def read(data: bytes) -> object:
        path.write_bytes(_tar_checksums(data))
        return _blocks(vector_sources.TarSource(path))

    return read


def vector_tar_seeds() -> list[bytes]:
    """Samples of a vector, a caption and an object."""
    vector = _npy(np.ones(4, np.float32))
    return [_tar({"a.npy": vector, "a.txt": b"bus", "a.json": b'{"x": [1]}', "b.npy": vector, "b.json": b'{"x": "y"}'})]


def list_(folder: Path) -> Read:
    """Lists of URLs and rows, by the suffix that their first line is."""

    def read(data: bytes) -> object:
        place = expand(str(_listed(folder, data)))[0]
        rows, later = _rows(place, 0), _rows(place, 1)
        assert repr(later) == repr(rows[1:]), "it goes on from its second row with other rows"
        return rows

    return read


def table(folder: Path) -> Read:
    """The same as tables of vectors, each read in a process of its own."""

    def read(data: bytes) -> object:
        return _tried(lambda: vector_sources.read_table(_listed(folder, data)).to_pydict())

    return read


def _listed(folder: Path, data: bytes) -> Path:
    suffix, _, rest = data.partition(b"\n")
    name = suffix.decode("latin-1")
    path = folder / f"l{name if name in lists.LIST_SUFFIXES else '.csv'}"
    path.write_bytes(gzip.compress(rest) if path.suffix == ".gz" else rest)
    return path


def list_seeds() -> list[bytes]:
    """Every dialect with the same two rows, and odd ones."""
    csv = b'url,caption,year\nhttp://x.org/1.jpg,"a ""b"",\nc",1984\nhttp://x.org/2.jpg,,0.5\n'
    rows = [
        {"url": "http://x.org/1.jpg", "caption": "a", "n": {"m": [1]}},
        {"url": "http://x.org/2.jpg", "caption": 1984},
    ]
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    array, text = json.dumps(rows).encode(), b"http://x.org/1.jpg\n\nhttp://x.org/2.jpg"
    parts = {
        ".csv": csv,
        ".tsv": csv.replace(b",", b"\t"),
        ".json": array,
        ".jsonl": lines,
        ".txt": text,
        ".csv.gz": csv,
    }
    return [suffix.encode() + b"\n" + data for suffix, data in parts.items()]


def parquet(folder: Path) -> Read:
    """Parquet as images, as a list and as vectors."""
    path = folder / "t.parquet"

    def read(data: bytes) -> object:
        path.write_bytes(data)
        place = expand(str(path))[0]
        return [
            _tried(lambda: _described(open_source(path, format="parquet").items())),
            _rows(place, 0),
            _tried(lambda: vector_sources.read_table(path).to_pydict()),
            _tried(lambda: _blocks(vector_sources.TableSource(path))),
        ]

    return read


def parquet_seeds() -> list[bytes]:
    """Images with captions and vectors, under both versions of pages and three compressions."""
    image, made = _image("PNG"), []
    table = _table().append_column("image", pa.array([{"bytes": image, "path": "a.png"}] * 3))
    for compression, version, dictionary in (("none", "1.0", True), ("snappy", "2.0", False), ("zstd", "2.0", True)):
        sink = io.BytesIO()
        pq.write_table(table, sink, compression=compression, data_page_version=version, use_dictionary=dictionary,
                       row_group_size=2)  # fmt: skip
        made.append(sink.getvalue())
    return made


def image(_: Path) -> Read:
    """Encoded images: as they are, and a PNG with the checksums of its parts made right."""

    def one(data: bytes) -> object:
        picture = decode(data, max_pixels=4_000_000)
        assert picture.mode == "RGB", f"the mode is {picture.mode}"
        return picture.size, zlib.crc32(picture.tobytes())

    def read(data: bytes) -> object:
        return [_tried(lambda: one(data)), _tried(lambda: one(_png_checksums(data)))]

    return read


def image_seeds() -> list[bytes]:
    """The common formats, with transparency, a palette, 16 bits, several frames and EXIF."""
    exif = Image.Exif()
    exif[0x0112] = 6
    made = [_image(kind, mode) for kind, mode in (("PNG", "RGBA"), ("PNG", "P"), ("PNG", "I;16"), ("JPEG", "L"),
            ("JPEG", "CMYK"), ("GIF", "P"), ("BMP", "RGB"), ("WEBP", "RGBA"), ("TIFF", "RGB"), ("TIFF", "F"),
            ("ICO", "RGBA"), ("PPM", "RGB"), ("TGA", "RGBA"), ("PCX", "L"), ("SGI", "RGB"), ("DDS", "RGBA"),
            ("JPEG2000", "RGB"), ("AVIF", "RGB"))]  # fmt: skip
    sink, frames = io.BytesIO(), [Image.new("RGB", (6, 4), color) for color in ("red", "blue")]
    frames[0].save(sink, "GIF", save_all=True, append_images=frames[1:])
    turned = io.BytesIO()
    frames[0].save(turned, "JPEG", progressive=True, exif=exif)
    return [*made, sink.getvalue(), turned.getvalue()]


def _tried(read: Callable[[], object]) -> object:
    """What is read, or the sentence that says why not."""
    try:
        return read()
    except ClipsieveError as error:
        return f"{type(error).__name__}: {error}"


def _blocks(source: VectorSource) -> object:
    return [_block(block) for block in itertools.islice(source.blocks(0, 100), 100)]


def _block(block: Block) -> object:
    vectors = np.asarray(block.vectors)
    return vectors.shape, zlib.crc32(vectors.tobytes()), list(block.places), dict(block.columns)


def _items(path: Path, data: bytes) -> object:
    path.write_bytes(data)
    found = _described(open_source(path, format="webdataset").items())
    later = _described(open_source(path, format="webdataset").items(1))
    assert repr(later) == repr(found[1:]), "it goes on from its second item with other items"
    return found


def _rows(place: Place, start: int) -> list[Any]:
    """As sources read a list: what cannot be opened is a Skipped."""

    def read(name: str, place: Place, start: int) -> Any:
        return lists.read_rows(name, place, start, lambda name, fields: (name, dict(fields)))

    return list(itertools.islice(read_parts([("l", place)], read, start), 10_000 - start))


def _described(items: Iterable[ImageItem | Skipped]) -> list[Any]:
    kept = itertools.islice(items, 1000)
    return [i if isinstance(i, Skipped) else (i.key, i.caption, dict(i.meta), zlib.crc32(i.data)) for i in kept]


def _table() -> pa.Table:
    return pa.table(
        {
            "key": ["a", "b", "c"],
            "caption": ["a bus", None, "x" * 40],
            "vector": pa.array([[1.0, 0.0], [0.0, 1.0], None], pa.list_(pa.float32())),
            "year": pa.array([1984, None, -1], pa.int64()),
            "when": pa.array([0, 1, None], pa.timestamp("us")),
            "tags": pa.array([[{"t": "x"}], [], None]),
            "kind": pa.array(["u", "v", "u"]).dictionary_encode(),
        }
    )


def _npy(array: Any) -> bytes:
    sink = io.BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def _tar(members: dict[str, bytes], format: int = tarfile.USTAR_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return sink.getvalue()[: 512 * 22]


def _tar_checksums(data: bytes) -> bytes:
    made = bytearray(data)
    for at in range(0, len(made) - 511, 512):
        block = made[at : at + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            made[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(made)


def _png_checksums(data: bytes) -> bytes:
    made, at = bytearray(data), 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(made):
        (size,) = struct.unpack_from(">I", made, at)
        if at + 12 + size > len(made):
            break
        struct.pack_into(">I", made, at + 8 + size, zlib.crc32(made[at + 4 : at + 8 + size]))
        at += 12 + size
    return bytes(made)


def _image(kind: str, mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    picture = Image.radial_gradient("L").resize((9, 7)).convert("RGB")
    picture.putpixel((2, 3), (200, 30, 40))
    Image.fromarray(np.arange(63, dtype=np.uint16).reshape(7, 9) * 999).save(sink, kind) if mode == "I;16" else (
        picture.convert(mode).save(sink, kind)
    )
    return sink.getvalue()
