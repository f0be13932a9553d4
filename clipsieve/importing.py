"""Vectors that exist already, and what is known of them, into a collection: normalised, counted, resumable."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from clipsieve.captions import NO_TEXT, caption_text, no_text
from clipsieve.errors import InputError
from clipsieve.manifest import Manifest, Source
from clipsieve.shards import OWN_COLUMNS, read_metadata
from clipsieve.types import Decoding, Embeddings, Float32, ModelId, Skipped
from clipsieve.writer import Writer, open_writer

NOT_KNOWN = ModelId("not known", "", "")
_KEYS = ("key", "image_path", "url")
_CAPTIONS = ("caption", "text", "TEXT")


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a source, one after another.

    vectors  (n, d), any floats; a row that cannot be read is NaN
    places   n strings: where each row lies, "vectors.npy#17"
    columns  what is known of them: name -> n values
    texts    (n, d) caption vectors, or None
    """

    vectors: npt.NDArray[Any]
    places: Sequence[str]
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    texts: npt.NDArray[Any] | None = None


class VectorSource(Protocol):
    """What vectors are imported from. `name` says which; `total` is its rows, None if not known."""

    name: str
    total: int | None

    def blocks(self, start: int, size: int) -> Iterator[Block]:
        """Its rows from number `start` on, in an order that stays, at most `size` at a time."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What one run did. read = written + skipped; `before` were read by earlier runs."""

    read: int
    written: int
    skipped: int
    before: int


def import_vectors(
    source: VectorSource,
    out: str | os.PathLike[str],
    *,
    model: ModelId | None = None,
    dim: int | None = None,
    key_column: str | None = None,
    caption_column: str | None = None,
    shard_size: int = 100_000,
    decoding: Decoding = "own",
    progress: Callable[[int, int | None, int], None] | None = None,
) -> Imported:
    """Make the collection `out` of what `source` holds, or go on where a run that was stopped had got to.

    model           that made the vectors; None leaves it open, and texts need one named when they are asked
    dim             that the model has, if known; other vectors are a ModelMismatch
    key_column      what names an item; by default `key`, `image_path` or `url`, else where it lies
    caption_column  by default `caption`, `text` or `TEXT`
    shard_size      rows in a shard, and so in a commit
    decoding        how images of questions, and what is added, are to be decoded, of a new collection
    progress        called with (rows read in all, their total or None, skipped) after each commit

    Rows without direction (zero, NaN, infinite) are listed in skipped/, and so is a second one of a key.
    """
    if shard_size < 1:
        raise InputError(f"A shard of {shard_size} rows was asked for; it takes 1 or more.")
    blocks = source.blocks(0, 1)
    first = next(blocks, None)
    if first is None:
        raise InputError(f"{source.name} holds no vectors; check the path.")
    found = first.vectors.shape[1]
    if dim is not None and dim != found:
        raise InputError(f"{source.name} has {found} dimensions and the model {dim}; name the model that made it.")
    for column in (key_column, caption_column):
        if column is not None and column not in first.columns:
            raise InputError(f"{source.name} has no column {column!r}; it has {', '.join(first.columns) or 'none'}.")
    with open_writer(out, Manifest(model=model, dim=found, decoding=decoding)) as writer:
        return _Import(writer, source, key_column, caption_column).run(shard_size, progress)


class _Import:
    def __init__(self, writer: Writer, source: VectorSource, key: str | None, caption: str | None) -> None:
        self.writer, self.source, self.key, self.caption = writer, source, key, caption
        others = {s.source.input for s in writer.manifest.shards if s.source is not None} - {source.name}
        if others:
            raise InputError(f"{writer.folder} holds {min(others)!r} already; import into another folder.")
        self.keys = {
            k
            for shard in writer.manifest.shards
            if shard.rows
            for k in read_metadata(writer.folder, shard, ["key"])["key"].to_pylist()
        }

    def run(self, size: int, progress: Callable[[int, int | None, int], None] | None) -> Imported:
        before = self.writer.manifest.progress(self.source.name)
        cursor, written, skipped = before.cursor, 0, 0
        if self.source.total is not None and cursor > self.source.total:
            raise InputError(f"{self.source.name} has become shorter since it was imported; use another folder.")
        for block in self.source.blocks(cursor, size):
            cursor += len(block.places)
            kept, left_out = self._append(block, cursor)
            written, skipped = written + kept, skipped + left_out
            if progress is not None:
                progress(cursor, self.source.total, before.skipped + skipped)
        return Imported(written + skipped, written, skipped, before.cursor)

    def _append(self, block: Block, cursor: int) -> tuple[int, int]:
        n = len(block.places)
        vectors, why = unit_rows(block.vectors)
        captions = self._column(block, self.caption, _CAPTIONS)
        captions, whole, problems = _captions(captions)
        texts = None
        if block.texts is not None:
            texts, wrong = unit_rows(block.texts)
            for row, reason in wrong.items():
                if captions[row] is not None:
                    why.setdefault(row, reason.replace("Its vector", "The vector of its caption"))
                texts[row] = np.eye(1, texts.shape[1], dtype=np.float32)  # masked, but it has to be of unit length
        named = self._column(block, self.key, _KEYS)
        keys = [str(k) if k not in (None, "") else place for k, place in zip(named, block.places, strict=True)]
        for row, key in enumerate(keys):
            if row in why:
                continue
            if key in self.keys and self.key is None:
                key = keys[row] = block.places[row]
            if key in self.keys:
                why[row] = "Its key was given to an earlier item; give each a key of its own."
            self.keys.add(key)
        rows = [row for row in range(n) if row not in why]
        used = {self.key or next((c for c in _KEYS if c in block.columns), ""), "image_path", "has_caption"}
        if whole:
            used.add(self.caption or next((c for c in _CAPTIONS if c in block.columns), ""))
        used -= {"url"} if self.key is None else set()
        columns = {
            f"meta.{name}" if name in OWN_COLUMNS else name: [values[row] for row in rows]
            for name, values in block.columns.items()
            if name and name not in used and not name.startswith("__index_level_")
        }
        if any(problems):
            columns[NO_TEXT] = [problems[row] for row in rows]
        paths = block.columns.get("image_path", [None] * n)
        model = self.writer.manifest.model or NOT_KNOWN
        kept = tuple(keys[row] for row in rows)
        self.writer.append(
            Embeddings(vectors[rows], kept, model),
            texts=None if texts is None else Embeddings(texts[rows], kept, model),
            captions=[captions[row] for row in rows],
            image_paths=[None if paths[row] is None else str(paths[row]) for row in rows],
            columns=columns,
            skipped=[Skipped(keys[row], why[row]) for row in sorted(why)],
            source=Source(self.source.name, cursor, n, len(rows), len(why)),
        )
        return len(rows), len(why)

    @staticmethod
    def _column(block: Block, asked: str | None, usual: Sequence[str]) -> Sequence[Any]:
        if asked is not None and asked not in block.columns:
            raise InputError(f"{block.places[0]} has no column {asked!r}; it has {', '.join(block.columns)}.")
        names = [asked] if asked is not None else [c for c in usual if c in block.columns]
        return block.columns[names[0]] if names else [None] * len(block.places)


def _captions(values: Sequence[Any]) -> tuple[list[str | None], bool, list[str | None]]:
    """The captions, whether they are all that the fields hold, and for each what is wrong with it, if anything is."""
    found = [caption_text(value) for value in values]
    return [text for text, _ in found], all(whole for _, whole in found), [no_text(value) for value in values]


def unit_rows(vectors: npt.NDArray[Any]) -> tuple[Float32, dict[int, str]]:
    """The rows at unit length, float32 (n, d), and of those that cannot be: row -> a sentence on why."""
    wide = np.asarray(vectors, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        lengths = np.linalg.norm(wide, axis=1)
    why = {
        int(row): "Its vector holds NaN or infinity, or could not be read."
        for row in np.flatnonzero(~np.isfinite(lengths))
    }
    why |= {int(row): "Its vector is all zeros." for row in np.flatnonzero(lengths == 0)}
    lengths[list(why)] = 1
    return np.ascontiguousarray(wide / lengths[:, None], np.float32), why
