"""The encoded files that items were made from, found again: image files, members of tars, rows of Parquet tables.

A key says where an image came from: a path relative to its input, `name.tar/member`, or `table.parquet#row`. Where that
input lies is in the manifest's `source`. Files have their absolute path in the metadata as well. `image_places` says
which of them may be opened, and whatever is read there must be an image. What has moved or changed is not guessed at: a
thumbnail stands in where the collection has them, else the error says what was looked for.
"""

import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve import shards
from clipsieve.checked_tables import FAULTS, valid
from clipsieve.errors import CollectionDamaged, InputError, NotFound, Overloaded, TooLarge, quoted
from clipsieve.image_files import header_size, require_image
from clipsieve.index.image_places import (
    ImageAccess,
    Places,
    base_of,
    is_address,
    is_file,
    is_own,
    is_read,
    open_place,
    options_of,
    read_place,
    sources_of,
)
from clipsieve.manifest import Manifest, Shard, Source
from clipsieve.members import in_table, in_tar
from clipsieve.path_text import canonical, to_text
from clipsieve.protocols import MetadataStore
from clipsieve.tar_samples import Sample, Samples, Suffixes
from clipsieve.types import content_hash
from clipsieve.whole import reading

_IMAGE_NAMES = ("image", "img", "jpg", "png", "webp", "bytes")
_TARS_REMEMBERED = 16
_FOOTERS_REMEMBERED = 64

Members = Mapping[str, tuple[int, int]]
"""Stem of a tar's image, as `path_text` has it -> where its bytes start, and how many they are."""


class Originals:
    """Reads images of one collection back. Safe to use from several threads at once."""

    def __init__(self, folder: Path, manifest: Manifest, metadata: MetadataStore, access: ImageAccess) -> None:
        self._folder = folder
        self._memory = access.memory
        self._places = Places(folder, access.folders)
        self._manifest = manifest
        self._metadata = metadata
        self._tars: dict[str, Members] = {}
        self._footers: dict[str, pq.FileMetaData] = {}  # of thumbnails' files: reading one takes longer than a picture
        self._lock = threading.Lock()  # guards the two before

    def read(self, id: int, *, thumbnails: bool = True) -> bytes:
        """The encoded image of the item, as it was embedded.

        thumbnails  whether its thumbnail will do where the original is gone or has changed

        NotFound says what was looked for, and where. Overloaded where there is no memory to see that it is an image.
        """
        row = self._metadata.get([id])[0]
        shard = self._shard(id)
        tried: list[str] = []
        for data in self._candidates(shard, row, tried):
            known = row.get("content_hash")
            if known and content_hash(data) != known:
                tried.append("it has changed since it was embedded")
            elif self._is_image(data, tried, known=bool(known)):
                return data
        try:
            thumbnail = self.thumbnail(id) if thumbnails else None
        except CollectionDamaged as error:
            tried.append(str(error))
        else:
            if thumbnail:
                return thumbnail
        what = (
            f"The image of item {id} ({quoted(str(row['key']), '')}) cannot be read: {'; '.join(dict.fromkeys(tried))}"
        )
        if not is_own(self._sources(shard), row):
            raise NotFound(f"{what}.")
        raise NotFound(f"{what}. Restore it, or, if it was moved, say where it is: clipsieve add {self._folder} FOLDER")

    def file(self, id: int) -> Path:
        """The file that the item's image is, on its own. NotFound where there is none, or it is no image."""
        row = self._metadata.get([id])[0]
        path = row.get("image_path")
        if not path:
            raise NotFound("it is no file of its own; export it as copy.")
        place = self._places.path(self._sources(self._shard(id)), row, str(path))
        if is_address(place):
            raise NotFound(f"{quoted(place)} is an address; export it as copy.")
        tried: list[str] = []
        data = read_place(place)
        if not self._is_image(data, tried, known=content_hash(data) == row.get("content_hash")):
            raise NotFound(f"{place}: {tried[0]}.")
        return Path(place)

    def size(self, id: int) -> tuple[int, int]:
        """Width and height of the image, upright, in pixels. NotFound as `read`; InputError for what is damaged."""
        return header_size(self.read(id, thumbnails=False), self._memory)

    def _is_image(self, data: bytes, tried: list[str], *, known: bool) -> bool:
        """Whether bytes are an image.

        known  they are what was embedded, by the metadata's hash, and so were decoded then: the header will do
        """
        try:
            require_image(data, self._memory, whole=not known)
        except (InputError, TooLarge) as error:
            tried.append(f"what lies there is not given out as an image: {error}")
            return False
        return True

    def thumbnail(self, id: int) -> bytes | None:
        """The small image that the collection keeps of the item; None if it keeps none.

        CollectionDamaged where the file of thumbnails cannot be read, or holds something else.
        """
        shard = self._shard(id)
        if "thumbs" not in shard.files:
            return None
        position = int(np.searchsorted(shards.read_ids(self._folder, shard), id))
        file = shard.files["thumbs"]
        with reading(self._folder, [file]):
            try:
                data = _cell(self._folder / file.path, position, None, self._footer(self._folder / file.path))
                if data:
                    require_image(data, self._memory, whole=False)
            except (*FAULTS, InputError, TooLarge) as error:
                raise CollectionDamaged(
                    f"The thumbnail of item {id} in {self._folder / file.path} cannot be read ({quoted(error, '')}); "
                    f"run `clipsieve check {self._folder}`."
                ) from error
            return data

    def _footer(self, table: Path) -> pq.FileMetaData:
        with self._lock:
            found = self._footers.get(str(table))
        if found is None:
            found = pq.read_metadata(table)
            with self._lock:
                while len(self._footers) >= _FOOTERS_REMEMBERED:
                    self._footers.pop(next(iter(self._footers)))
                self._footers[str(table)] = found
        return found

    def _sources(self, shard: Shard) -> list[Source]:
        return sources_of(self._manifest, shard)

    def _shard(self, id: int) -> Shard:
        for shard in self._manifest.shards:
            if shard.rows and shard.first_id <= id <= shard.last_id:
                return shard
        raise NotFound(f"{self._folder} has no item {id}.")

    def _candidates(self, shard: Shard, row: Mapping[str, Any], tried: list[str]) -> Iterator[bytes]:
        url = row.get("url")
        for find, read in () if url and url == row["key"] else self._ways(shard, row):
            place = None
            try:
                place = find()
                data = read(place)
            except (MemoryError, Overloaded):
                raise
            except NotFound as error:
                tried.append(str(error))
            except Exception as error:  # each file system behind fsspec raises its own, and so does a damaged tar
                tried.append(f"{place or row['key']} cannot be read ({error})")
            else:
                yield data
        if url:
            tried.append(f"it was fetched from {url}, and is not a second time (export a list to have it fetched)")
        elif not tried:
            tried.append("its metadata names no file")

    def _ways(self, shard: Shard, row: Mapping[str, Any]) -> Iterator[tuple[Callable[[], str], Callable[[str], bytes]]]:
        """How to find what may hold the image, and how to read it there."""
        sources, key, path = self._sources(shard), str(row["key"]), row.get("image_path")
        own = is_own(sources, row)
        # What moved with its tar or table was found below another input since: its hash says whether it is the same.
        sources = [*sources, *self._others(sources)] if own else sources
        named = partial(self._places.named, sources, row)
        member, cell = in_tar(key), in_table(key)
        if path:
            yield partial(self._places.path, sources, row, str(path)), read_place
        if member:
            yield partial(named, member[0]), partial(self._member, shard, member[1])
        if cell:
            yield partial(named, cell[0]), partial(self._table_row, shard, cell[1])
        if not (path or member or cell):
            yield partial(named, key), read_place
            for source in sources if own else ():
                if source.input.startswith("parquet:"):  # its table has keys of its own, which say nothing of the place
                    yield from self._keyed(shard, base_of(source), key)

    def _others(self, sources: Sequence[Source]) -> list[Source]:
        """Inputs of the collection beside these, as far as our own reader read them."""
        known = {source.input for source in sources}
        return [s for s in {s.input: s for s in self._manifest.sources}.values() if s.input not in known and is_read(s)]

    def _keyed(self, shard: Shard, base: str, key: str) -> Iterator[tuple[Callable[[], str], Callable[[str], bytes]]]:
        tables = sorted(Path(base).glob("*")) if Path(base).is_dir() else [Path(base)]
        for table in map(str, tables):
            if table.lower().endswith((".parquet", ".pq")) and is_file(table):
                with open_place(table) as opened, pq.ParquetFile(opened) as file:
                    keys = (
                        valid(file.read(columns=["key"]))["key"].to_pylist() if "key" in file.schema_arrow.names else []
                    )
                if key in keys:
                    yield partial(str, table), partial(self._table_row, shard, keys.index(key))

    def _member(self, shard: Shard, stem: str, tar: str) -> bytes:
        with self._lock:
            members = self._tars.get(tar)
        if members is None:
            options = options_of(self._sources(shard))
            members = _list_tar(tar, options.get("wds_image_key"), options.get("wds_caption_key"))
            with self._lock:
                while len(self._tars) >= _TARS_REMEMBERED:
                    self._tars.pop(next(iter(self._tars)))
                self._tars[tar] = members
        stem = canonical(stem)
        if stem not in members:
            raise NotFound(f"it has no member {stem}")
        start, size = members[stem]
        with open_place(tar) as file:
            if tar.lower().endswith(".tar"):
                file.seek(start)
                return file.read(size)
            with tarfile.open(fileobj=file) as opened:  # compressed: read through from its beginning
                member = next(m for m in opened if m.offset_data == start)
                content = opened.extractfile(member)
                return b"" if content is None else content.read()

    def _table_row(self, shard: Shard, row: int, table: str) -> bytes:
        data = _cell(table, row, options_of(self._sources(shard)).get("image_column"))
        if not data:
            raise NotFound(f"its row {row} holds no image")
        return data


def _list_tar(place: str, image_key: str | None, caption_key: str | None) -> Members:
    """The image of each sample, as the reader chooses it: see `clipsieve.tar_samples`."""
    from PIL import Image

    known = frozenset(suffix[1:] for suffix in Image.registered_extensions())
    chosen = None if image_key is None else frozenset(p.strip().lower().lstrip(".") for p in image_key.split(";"))
    suffixes = Suffixes(chosen or known, (caption_key or "txt").lower().lstrip("."), chosen is not None)
    samples = Samples[tuple[int, int]](suffixes)
    members: dict[str, tuple[int, int]] = {}

    def take(done: list[Sample[tuple[int, int]]]) -> None:
        for sample in done:
            image = sample.image(suffixes)
            if image is not None:
                members.setdefault(to_text(sample.name), sample.members[image])

    with open_place(place) as file, tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in tar:
            if member.isfile():
                take(samples.turn(member.name))
                take(samples.add(member.name, member.size, (member.offset_data, member.size)))
    take(samples.finish())
    return members


def _cell(table: str | Path, row: int, column: str | None, footer: pq.FileMetaData | None = None) -> bytes | None:
    """The image bytes in one row of a Parquet file; only the row group that holds it is read.

    footer  the file's, where it was read before
    """
    with open_place(str(table)) as opened, pq.ParquetFile(opened, metadata=footer) as file:
        column = column or _image_column(file.schema_arrow)
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if row < rows:
                value = valid(file.read_row_group(group, columns=[column]))[column][row].as_py()
                data = value.get("bytes") if isinstance(value, dict) else value
                return data if isinstance(data, bytes) else None
            row -= rows
    return None


def _image_column(schema: pa.Schema) -> str:
    def holds_bytes(type_: pa.DataType) -> bool:
        binary = pa.types.is_binary(type_) or pa.types.is_large_binary(type_)
        return bool(binary or (pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0))

    found = [field.name for field in schema if holds_bytes(field.type)]
    named = [name for name in _IMAGE_NAMES if name in found]
    if not found:
        raise InputError(f"no column of {', '.join(schema.names)} holds bytes")
    return str((named or found)[0])
