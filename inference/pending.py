"""Embedded batches on their way to becoming a shard."""

import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from clipsieve.captions import NO_TEXT
from clipsieve.errors import InputError
from clipsieve.inference.kinds import suffix_of
from clipsieve.inference.reader import Source
from clipsieve.inference.turns import Turn
from clipsieve.manifest import Manifest
from clipsieve.manifest import Source as Progress
from clipsieve.protocols import ImageEmbedder, TextEmbedder
from clipsieve.stored_regions import StoredRegions, join
from clipsieve.types import Embeddings, Float32, Skipped
from clipsieve.writer import Writer

REGION_BYTES = 512 * 2**20
"""Regions that may wait for their commit: those of 15,000 images, of which a shard would else hold seven times more."""

TWICE = "Its key was given to an earlier item; give each a key of its own."


@dataclass(frozen=True, slots=True)
class Row:
    """What is stored of one item beside its vectors; `columns` may hold `image_path`."""

    key: str
    caption: str | None
    columns: Mapping[str, Any]
    thumb: bytes | None


@dataclass(frozen=True, slots=True)
class Embedded:
    """One batch: n rows in the source's order, and what was skipped among them.

    vectors  float32 (n, d), unit rows
    texts    float32 (n, d), that of the empty text where there is no caption; None if no row has one
    regions  of the n rows; None where nothing looks for any
    captions_cut  of the n rows' captions so many are longer than the model reads
    """

    rows: Sequence[Row]
    vectors: Float32
    texts: Float32 | None
    skipped: Sequence[Skipped]
    regions: StoredRegions | None = None
    captions_cut: int = 0

    @property
    def captions_no_text(self) -> int:
        """How many of the rows' captions are no text; their column `NO_TEXT` says what they are."""
        return sum(NO_TEXT in row.columns for row in self.rows)

    @property
    def read(self) -> int:
        """Inputs that went into it."""
        return len(self.rows) + len(self.skipped)


class Pending:
    """Takes batches in order and writes what it holds as one shard when told to.

    turn      gives the folder's writer for the length of a commit: always the same one, or whenever nobody else writes
    cursor    inputs of the source read before the first batch; None where what comes is only what was new in it
    before    what `read_of` says at the beginning
    taken     keys of items that the folder holds; may grow. A row with one of them is skipped
    replaces  key -> id of the item that the item of this key takes the place of; may grow
    again     keys that are listed as skipped and may be tried again; those that come are taken out of it
    """

    def __init__(
        self,
        turn: Turn,
        source: Source,
        embedder: ImageEmbedder,
        cursor: int | None,
        before: int,
        taken: Container[str] = (),
        replaces: Mapping[str, int] | None = None,
        again: set[str] | None = None,
    ) -> None:
        self._turn = turn
        self._source = source
        self._embedder = embedder
        self._cursor = cursor
        self._before = before
        self._taken = taken
        self._replaces = {} if replaces is None else replaces
        self._again = set[str]() if again is None else again
        self._advances = True
        self._batches: list[Embedded] = []
        self.reasons: Counter[str] = Counter()
        """Why inputs were skipped, of what was committed."""
        self.kinds: Counter[str] = Counter()
        """The extensions of the files that were skipped, likewise."""
        self.embedded = self.skipped = 0
        """What was committed."""

    @property
    def read(self) -> int:
        """Inputs taken since the last commit."""
        return sum(batch.read for batch in self._batches)

    @property
    def heavy(self) -> bool:
        """Whether the regions taken since the last commit fill the memory that is meant for them."""
        return sum(b.regions.bytes for b in self._batches if b.regions is not None) >= REGION_BYTES

    def stand(self, again: set[str]) -> None:
        """From now on what comes was read before and comes again, under these keys: the cursor stays where it is."""
        self._again, self._advances = again, False

    def take(self, batch: Embedded) -> None:
        """Add a batch behind the others."""
        self._batches.append(batch)

    def commit(self) -> None:
        """Write and commit a shard; does nothing if no batch was taken since the last, or theirs is done.

        InputError if somebody else read from the same part of the source meanwhile.
        """
        if not self.read:
            return
        with self._turn() as writer:
            before = read_of(self._source, writer.manifest)
            if before == self._before:
                self._append(writer)
            elif before != self._before + self.read:  # as it is if Ctrl-C came between the commit and its return
                raise InputError(
                    f"{writer.folder} holds {before:,} inputs of {_part(self._source)} now and not {self._before:,}; "
                    "let only one process embed it, and start that again."
                )

    def _append(self, writer: Writer) -> None:
        batches = [_without(batch, self._taken) for batch in self._batches]
        read = self.read
        rows = [row for batch in batches for row in batch.rows]
        skipped = [skip for batch in batches for skip in batch.skipped]
        keys = tuple(row.key for row in rows)
        model = self._embedder.model
        texts = self._texts(batches)
        thumbs = [row.thumb for row in rows]
        retried = self._again.intersection([*keys, *(skip.key for skip in skipped if skip.limits is not None)])
        cursor = read if self._cursor is None else self._cursor + read * self._advances
        regions = [batch.regions for batch in batches if batch.regions is not None]
        writer.append(
            Embeddings(np.concatenate([batch.vectors for batch in batches]), keys, model),
            texts=None if texts is None else Embeddings(texts, keys, model),
            captions=[row.caption for row in rows],
            image_paths=[row.columns.get("image_path") for row in rows],
            columns=columns_of([row.columns for row in rows]),
            thumbs=thumbs if any(thumbs) else None,
            regions=join(regions) if regions else None,
            skipped=skipped,
            source=Progress(
                input=self._source.name,
                cursor=cursor,
                read=read,
                embedded=len(rows),
                skipped=len(skipped),
                partition=self._source.partition,
                partitions=self._source.partitions,
                added=self._cursor is None,
                retried=len(retried),
            ),
            replaces=[self._replaces[key] for key in keys if key in self._replaces],
        )
        if self._cursor is not None:
            self._cursor = cursor
        self._again -= retried
        self._before += read
        self._batches = []
        self.embedded += len(rows)
        self.skipped += len(skipped)
        self.reasons.update(skip.reason for skip in skipped)
        self.kinds.update(suffix_of(skip.key) for skip in skipped if "#" not in skip.key and "://" not in skip.key)

    def _texts(self, batches: Sequence[Embedded]) -> Float32 | None:
        if all(batch.texts is None for batch in batches):
            return None
        assert isinstance(self._embedder, TextEmbedder)
        empty = self._embedder.embed_texts([""])
        return np.concatenate([empty.repeat(len(b.rows), axis=0) if b.texts is None else b.texts for b in batches])


def read_of(source: Source, manifest: Manifest) -> int:
    """How many inputs of this part of the source were read in all, in order or by `clipsieve add`."""
    here = (source.name, source.partition, source.partitions)
    return sum(s.read for s in manifest.sources if (s.input, s.partition, s.partitions) == here)


def _without(batch: Embedded, taken: Container[str]) -> Embedded:
    """The batch, its rows of these keys skipped."""
    kept = [i for i, row in enumerate(batch.rows) if row.key not in taken]
    if len(kept) == len(batch.rows):
        return batch
    twice = [Skipped(row.key, TWICE) for row in batch.rows if row.key in taken]
    rows = [batch.rows[i] for i in kept]
    texts = None if batch.texts is None else batch.texts[kept]
    regions = None if batch.regions is None else batch.regions.take(np.array(kept, dtype=np.int64))
    return Embedded(rows, batch.vectors[kept], texts, [*batch.skipped, *twice], regions)


def _part(source: Source) -> str:
    return source.name if source.partitions == 1 else f"part {source.partition} of {source.name}"


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The rows' fields as columns, None where a row lacks one; without `image_path`, which has its own place.

    Values that Parquet has no column for, of several types or nested, become text: JSON, but strings as they are.
    """
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: _column([row.get(name) for row in rows]) for name in names if name != "image_path"}


def _column(values: list[Any]) -> list[Any]:
    try:
        kind = pa.array(values).type
        if not pa.types.is_nested(kind) or (pa.types.is_list(kind) and not pa.types.is_nested(kind.value_type)):
            return values
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    return [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values]
