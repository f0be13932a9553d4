"""Parquet tables with a column of encoded images, as written by Hugging Face datasets and many others."""

import posixpath
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from clipsieve.checked_tables import FAULTS, valid
from clipsieve.errors import InputError
from clipsieve.inference.parts import Items, read_parts, states
from clipsieve.inference.paths import Place, readable, relative_names
from clipsieve.inference.sidecar import unique, with_caption
from clipsieve.types import FileState, ImageItem, Skipped

ROWS = 64
"""Rows read at a time: what is held in memory beyond one row group's column pages."""

_IMAGE_NAMES = ("image", "img", "jpg", "png", "webp", "bytes")
CAPTION_NAMES = ("caption", "text", "TEXT")
"""Columns that hold captions unless another is named, the first that there is."""


class TableSource:
    """See `reader.Source`. The key of an image is its `key` field, else `table.parquet#row`, rows counted from 0.

    The image is a field of bytes, or a struct with a field `bytes`. Other columns are metadata, except bytes.

    left_out  columns of bytes that were left out of the tables read so far -> in how many
    """

    def __init__(
        self,
        name: str,
        tables: Sequence[Place],
        image_column: str | None = None,
        caption_column: str | None = None,
        partition: int = 0,
        partitions: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        self.name = name
        self.partition = partition
        self.partitions = partitions
        self._tables = list(zip(names or relative_names(tables), tables, strict=True))[partition::partitions]
        self._image_column = image_column
        self._caption_column = caption_column
        self.left_out: Counter[str] = Counter()

    @property
    def total(self) -> int | None:
        """Rows of all tables; None if one is unreadable, or so many lie behind an address that asking takes long."""
        if len(self._tables) > 64 and self._tables[0][1].fs is not None:
            return None
        try:
            return sum(_count(place) for _, place in self._tables)
        except Exception:  # it is met, and listed, again when its items are read
            return None

    def items(self, start: int = 0, pass_over: object = None) -> Items:
        """See `reader.Source.items`. Row groups before `start` are not read."""
        return read_parts(self._tables, self._read, start)

    def states(self) -> Mapping[str, FileState]:
        """See `reader.Source.states`."""
        return states(self._tables)

    def only(self, paths: Container[str]) -> Self:
        """See `reader.Source.only`."""
        return self

    def _read(self, name: str, place: Place, start: int) -> Items:
        with place.open() as opened, pq.ParquetFile(opened) as file:
            schema = file.schema_arrow
            image, caption = self._columns(name, schema)
            more = [field for field in schema if field.name not in (image, caption)]
            others = [field.name for field in more if not is_image(field.type)]
            self.left_out.update(field.name for field in more if is_image(field.type))
            row = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if row + rows <= start:
                    row += rows
                    continue
                columns = [image, *([caption] if caption else []), *others]
                end = row + rows
                try:
                    for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                        for fields in rows_of(batch):
                            if row >= start:
                                yield _item(f"{name}#{row}", fields, image, caption)
                            row += 1
                except FAULTS as error:
                    reason = f"The table's row group {group} is damaged ({error}); restore it from a copy."
                    for lost in range(max(row, start), end):
                        yield Skipped(f"{name}#{lost}", reason)
                row = end
            return row

    def _columns(self, name: str, schema: pa.Schema) -> tuple[str, str | None]:
        for asked in (self._image_column, self._caption_column):
            if asked is not None and asked not in schema.names:
                raise InputError(f"it has no column {asked!r}, its columns are {', '.join(schema.names)}")
        candidates = [field.name for field in schema if is_image(field.type)]
        named = [name for name in _IMAGE_NAMES if name in candidates]
        image = self._image_column or next(iter(named or candidates), None)
        if image is None:
            raise InputError(f"no column of {', '.join(schema.names)} holds bytes; name one with image_column")
        named = [n for n in CAPTION_NAMES if n in schema.names and n != image]
        texts = [n for n in named if _is_text(schema.field(n).type)]
        return image, self._caption_column or next(iter([*texts, *named]), None)


def _item(key: str, fields: dict[str, Any], image: str, caption: str | None) -> ImageItem | Skipped:
    value = fields.pop(image)
    data = value.get("bytes") if isinstance(value, Mapping) else value
    written = fields.pop(caption) if caption else None
    given = fields.pop("key", None)
    key = readable(str(given)) if given not in (None, "") else key
    if not isinstance(data, bytes):
        path = value.get("path") if isinstance(value, Mapping) else None
        what = f"a path ({posixpath.basename(str(path))}) and no bytes" if path else "no bytes"
        return Skipped(key, f"The row's column {image!r} holds {what}; write the encoded image into it.")
    text, meta = with_caption(caption, written, fields)
    return ImageItem(key, data, text, meta)


def _count(place: Place) -> int:
    with place.open() as opened, pq.ParquetFile(opened) as file:
        return int(file.metadata.num_rows)


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows of a batch of somebody's table; a second column of one name gets a number, `a_2`."""
    names = valid(batch).schema.names
    own = batch if len(set(names)) == len(names) else batch.rename_columns(unique(names))
    rows: list[dict[str, Any]] = own.to_pylist()
    return rows


def is_image(kind: pa.DataType) -> bool:
    """True for a column that may hold encoded images: bytes, or a struct with bytes."""
    return is_binary(kind) or (pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0)


def is_binary(kind: pa.DataType) -> bool:
    """True for a column of bytes."""
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    """True for a column of texts, however they are stored; other programs write bytes for texts, too."""
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind) or is_binary(kind)
    )
