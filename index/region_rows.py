"""Regions by number: those of a commit are counted from 0, shard after shard, by ascending item.

Numbers hold for one commit. An index over regions has logits for scores: its rows are the detector's vectors with scale
and shift worked in, [scale v, scale shift], and asked with [t, 1] their inner product is the logit of the text t.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve import shards
from clipsieve.index.rows import BLOCK, Buffer, Ids, Rows
from clipsieve.manifest import Manifest, Shard
from clipsieve.stored_regions import read_columns
from clipsieve.types import Float32, Int64

ROLES: dict[str, str] = {"region": "region_emb", "crop": "crop_emb"}
"""What is asked for, which is also the index's name -> role of the shards' files."""

Factors = Callable[[Int64], tuple[Float32, Float32]]
"""Numbers of regions -> their shift and scale."""


def spans(folder: Path, manifest: Manifest) -> list[tuple[Shard, range]]:
    """The shards that were looked through, by ascending id, and the numbers of their regions."""
    found, start = [], 0
    for shard in sorted((s for s in manifest.shards if "regions" in s.files), key=lambda s: s.first_id):
        count = len(shards.open_array(folder, shard, "region_emb"))
        found.append((shard, range(start, start + count)))
        start += count
    return found


def rows_of_regions(
    folder: Path, parts: Sequence[tuple[Shard, range]], what: str, dim: int, without: Int64 | None = None
) -> Rows:
    """The rows that an index over these shards holds, by number, without some of them.

    what  "region": rows whose inner product with [t, 1] is the logit; "crop": unit rows
    dim   of a stored vector
    """
    blocks = [(numbers, shards.open_array(folder, shard, ROLES[what])) for shard, numbers in parts]
    if what == "crop":
        return Rows(dim, blocks, without)
    return LogitRows(dim, blocks, read_factors(folder, parts), without)


def numbers_of(parts: Sequence[tuple[Shard, range]]) -> Int64:
    """All numbers of these shards' regions, in order."""
    return np.concatenate([np.zeros(0, np.int64), *(np.arange(n.start, n.stop) for _, n in parts)])


def read_factors(folder: Path, parts: Sequence[tuple[Shard, range]]) -> Factors:
    """Shift and scale of these shards' regions, read at once: 8 bytes for each."""
    numbers = [n for _, n in parts if len(n)]
    starts = np.array([n.start for n in numbers], np.int64)
    held = [read_columns(folder, shard, ("shift", "scale")) for shard, n in parts if len(n)]

    def factors(wanted: Int64) -> tuple[Float32, Float32]:
        found = np.empty((len(wanted), 2), np.float32)
        part = np.searchsorted(starts, wanted, side="right") - 1
        for p in np.unique(part):
            at = part == p
            found[at] = held[p][wanted[at] - starts[p]]
        return found[:, 0], found[:, 1]

    return factors


class LogitRows(Rows):
    """The rows of a region index: [scale v, scale shift, 0...], float32, made block by block of what is stored.

    dim      r, of the stored vectors v
    blocks   as in Rows
    factors  shift and scale by number
    """

    def __init__(
        self,
        dim: int,
        blocks: Sequence[tuple[Ids, npt.NDArray[Any]]],
        factors: Factors,
        without: Int64 | None = None,
    ) -> None:
        super().__init__(dim, blocks, without)
        self._unit = Rows(dim, blocks, without)
        self._factors = factors
        self.dim = logit_dim(dim)

    @property
    def dtype(self) -> npt.DTypeLike:
        """float32: scaled, they are no longer what float16 holds."""
        return np.float32

    def in_memory(self) -> Rows:
        """See Rows."""
        blocks = [(ids.copy(), vectors.copy()) for ids, vectors in self.blocks()]
        return Rows(self.dim, blocks)

    def take(self, ids: Int64) -> Float32:
        """See Rows."""
        return self._worked(ids, self._unit.take(ids))

    def questions(self, ids: Int64) -> Float32:
        """See Rows: [v, 1]."""
        return asked(self._unit.take(ids))

    def blocks(
        self,
        rows: int = BLOCK,
        only: Int64 | None = None,
        span: range | None = None,
        buffer: Buffer | None = None,
    ) -> Iterator[tuple[Int64, Float32]]:
        """See Rows."""
        for ids, vectors in self._unit.blocks(rows, only, span, buffer):
            yield ids, self._worked(ids, vectors)

    def buffer(self, rows: int) -> Buffer:
        """See Rows."""
        return self._unit.buffer(rows)

    def _worked(self, ids: Int64, vectors: Float32) -> Float32:
        shift, scale = self._factors(ids)
        r = vectors.shape[1]
        rows = np.zeros((len(ids), self.dim), np.float32)
        np.multiply(vectors, scale[:, None], out=rows[:, :r])
        np.multiply(shift, scale, out=rows[:, r])
        return rows


def logit_dim(r: int) -> int:
    """Dimensions of a region index's rows: a vector's and one more, filled up with zeros for product codes."""
    return -(-(r + 1) // 8) * 8


def asked(vectors: Float32) -> Float32:
    """Unit vectors (m, r) as a region index is asked with them: [t, 1], float32 (m, logit_dim(r))."""
    m, r = vectors.shape
    rows = np.zeros((m, logit_dim(r)), np.float32)
    rows[:, :r], rows[:, r] = vectors, 1
    return rows
