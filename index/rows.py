"""The rows of a collection: by id, a sample of them, and block after block in id order.

Blocks are read into the same buffers, so that the memory of a pass does not grow with the collection. torch, where it
is at hand, widens float16 10 times faster than numpy.
"""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from io import FileIO
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.errors import CollectionDamaged, InputError, NotFound
from clipsieve.index.rule import Bool
from clipsieve.types import Float32, Int64

Ids = Int64 | range

BLOCK = 8192
"""Rows of a block, where nothing else is asked for."""

TORCH_PAYS = 2**29
"""Numbers to widen from which importing torch (over a second) is worth it, where nobody has imported it yet."""


def ascending(ids: Int64) -> Int64:
    """The ids ascending, each once: themselves where they are, which costs a hundredth of finding out by sorting."""
    return ids if (ids[1:] > ids[:-1]).all() else np.unique(ids)


def contains(sorted_ids: Int64, ids: Int64) -> Bool:
    """bool (b,): which of `ids` are among `sorted_ids`."""
    if not len(sorted_ids):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(sorted_ids, ids)
    at[at == len(sorted_ids)] = 0
    found: Bool = sorted_ids[at] == ids
    return found


class Rows:
    """The live rows of a collection, in id order.

    dim      d
    blocks   per shard its ids, ascending, and its vectors (n_i, d), float16 or float32, in memory or memory-mapped;
             shards ascend too. A `range` of ids costs no memory
    without  int64, removed ids: as if they were not there
    """

    def __init__(self, dim: int, blocks: Iterable[tuple[Ids, npt.NDArray[Any]]], without: Int64 | None = None) -> None:
        self.dim = dim
        self._parts = [(_as_range(ids), array) for ids, array in blocks if len(ids)]
        last = -1
        for ids, array in self._parts:
            if array.shape != (len(ids), dim) or array.dtype not in (np.float16, np.float32):
                raise InputError(
                    f"Rows got {array.dtype} {array.shape} for {len(ids)} ids; each block is float16 or float32 of "
                    f"shape ({len(ids)}, {dim})."
                )
            if ids[0] <= last:
                raise InputError(f"Rows got id {ids[0]} after {last}; ids ascend from block to block.")
            last = int(ids[-1])
        self._first = np.array([ids[0] for ids, _ in self._parts], np.int64)
        gone = np.unique(np.zeros(0, np.int64) if without is None else without)
        self.without: Int64 = gone[self._find(gone)[1] >= 0]
        self.count: int = sum(len(ids) for ids, _ in self._parts) - len(self.without)

    @property
    def dtype(self) -> npt.DTypeLike:
        """float16 if every stored block is, else float32."""
        return np.result_type(np.float16, *(array.dtype for _, array in self._parts))

    def in_memory(self) -> "Rows":
        """The same rows, held as float32: a pass over them reads no file and widens nothing."""
        return Rows(self.dim, [(ids, array.astype(np.float32)) for ids, array in self._parts], self.without)

    def has(self, ids: Int64) -> Bool:
        """bool (n,): which of these ids are live."""
        return (self._find(ids)[1] >= 0) & ~contains(self.without, ids)

    def take(self, ids: Int64) -> Float32:
        """The vectors of these ids in their order, float32 (n, d). NotFound names the first that is not live."""
        part, position = self._find(ids)
        lost = (position < 0) | contains(self.without, ids)
        if lost.any():
            raise NotFound(f"No item has the id {ids[np.argmax(lost)]}; it was removed or never given.")
        out = np.empty((len(ids), self.dim), np.float32)
        for p in np.unique(part):
            at = np.flatnonzero(part == p)
            out[at] = self._parts[p][1][position[at]]
        return out

    def questions(self, ids: Int64) -> Float32:
        """What is asked with where these rows are meant, float32 (n, d): the rows themselves, if they are unit rows."""
        return self.take(ids)

    def sample(self, count: int, seed: int = 0) -> Int64:
        """That many random live ids, or all where there are fewer: int64 (r,), ascending."""
        total = self.count + len(self.without)
        # As many more as were removed could be among those drawn.
        drawn = np.random.default_rng(seed).choice(total, min(total, count + len(self.without)), replace=False)
        starts = np.cumsum([0] + [len(ids) for ids, _ in self._parts])
        ids = np.empty(len(drawn), np.int64)
        part = np.searchsorted(starts, drawn, side="right") - 1
        for p in np.unique(part):
            at = np.flatnonzero(part == p)
            own, position = self._parts[p][0], drawn[at] - starts[p]
            ids[at] = own[0] + position if isinstance(own, range) else own[position]
        return np.sort(ids[~contains(self.without, ids)][:count])  # cut first: the least ids are no random sample

    def spans(self, rows: int, within: range | None = None) -> list[range]:
        """The collection cut into ranges of ids with `rows` stored rows each, removed ones included; the last has less.

        within  ids: the cuts begin and end there

        The cuts are the same as long as the shards are.
        """
        cuts, before, end = [], 0, 0
        for own, _ in self._parts:
            first, last = _inside(own, within)
            cuts += [int(own[at]) for at in range(first + -before % rows, last, rows)]
            before += last - first
            end = int(own[last - 1]) + 1 if last > first else end
        return [range(a, b) for a, b in zip(cuts, [*cuts[1:], end], strict=True)] if cuts else []

    def blocks(
        self,
        rows: int = BLOCK,
        only: Int64 | None = None,
        span: range | None = None,
        buffer: "Buffer | None" = None,
    ) -> Iterator[tuple[Int64, Float32]]:
        """Ids int64 (b,) and vectors float32 (b, d) of at most `rows` live rows at a time, in id order.

        only    ascending ids: no other row is read, and ids that are not live are passed over
        span    ids from its start to before its stop only
        buffer  of the same `rows`, for a caller that reads many spans

        The vectors lie in a buffer that the next block overwrites, or are the stored array itself: copy what is to
        last, write to nothing.
        """
        buffer = buffer or self.buffer(rows)
        if only is not None and span is not None:
            only = only[(only >= span.start) & (only < span.stop)]
        for own, array in self._parts:
            first, last = _inside(own, span)
            if first == last:
                continue
            if only is not None:
                wanted = only[np.searchsorted(only, own[0]) : np.searchsorted(only, own[-1], side="right")]
                wanted = wanted[self.has(wanted)]
                for start in range(0, len(wanted), rows):
                    ids = wanted[start : start + rows]
                    yield ids, buffer.widen(array[self._find(ids)[1]])
                continue
            with buffer.reader(array) as read:
                for start in range(first, last, rows):
                    ids = _ids(own, start, min(start + rows, last))
                    vectors = read(start, start + len(ids))
                    if len(self.without):
                        live = ~contains(self.without, ids)
                        if not live.all():
                            ids, vectors = ids[live], vectors[live]
                    if len(ids):
                        yield ids, vectors

    def buffer(self, rows: int) -> "Buffer":
        """What `blocks` reads into."""
        return Buffer(rows, self.dim, self.count * self.dim >= TORCH_PAYS)

    def _find(self, ids: Int64) -> tuple[Int64, Int64]:
        """The part and the position in it of each id, removed or not; position -1 where there is none."""
        part = np.searchsorted(self._first, ids, side="right") - 1  # (n,)
        position = np.full(len(ids), -1, np.int64)
        for p in np.unique(part[part >= 0]):
            at, own = np.flatnonzero(part == p), self._parts[p][0]
            where = ids[at] - own[0] if isinstance(own, range) else np.searchsorted(own, ids[at])
            inside = np.minimum(where, len(own) - 1)
            same = inside == where if isinstance(own, range) else own[inside] == ids[at]
            position[at] = np.where(same, inside, -1)
        return part, position


class Buffer:
    """Reads and widens blocks into two arrays that are made once.

    Memory maps are read as files: mapped pages would count as the process's own memory until it ends.
    """

    def __init__(self, rows: int, dim: int, large: bool) -> None:
        self._raw = np.empty((rows, dim), np.float16)
        self._wide = np.empty((rows, dim), np.float32)
        self._torch: Any = None
        if large or "torch" in sys.modules:
            try:
                import torch
            except ImportError:
                return
            self._torch = torch

    def reader(self, array: npt.NDArray[Any]) -> "_Reader":
        """Reads rows of the array, while a `with` lasts."""
        return _Reader(self, array)

    def target(self, dtype: npt.DTypeLike, rows: int) -> npt.NDArray[Any]:
        """Where rows of that type are read to."""
        return (self._raw if dtype == np.float16 else self._wide)[:rows]

    def widen(self, block: npt.NDArray[Any]) -> Float32:
        """The block as float32: itself, or in the buffer."""
        if block.dtype == np.float32:
            return block
        out = self._wide[: len(block)]
        if self._torch is None:
            widen(block, out)
        else:
            self._torch.from_numpy(out).copy_(self._torch.from_numpy(block))
        return out


def widen(block: npt.NDArray[Any], out: Float32) -> None:
    """Copy float16 numbers to `out`, contiguous and of the same shape: as numpy does it, in a quarter of the time.

    A float16's bits moved to where a float32 has them are the number times 2**-112, subnormal ones too. Infinity and
    NaN are not, and come in damaged rows only; a block that holds one is left to numpy.
    """
    bits = block.view(np.int16)
    unsigned = out.reshape(-1).view(np.int16)[: bits.size].reshape(bits.shape)
    np.bitwise_and(bits, 0x7FFF, out=unsigned)
    if unsigned.max(initial=0) >= 0x7C00:
        np.copyto(out, block)
        return
    wide = out.view(np.int32)
    np.copyto(wide, bits)  # with the sign in all of the upper half
    np.left_shift(wide, 13, out=wide)
    np.bitwise_and(wide, ~0x70000000, out=wide)
    np.multiply(out, np.float32(2.0**112), out=out)


class _Reader:
    """Rows start..stop of one array as float32, while the `with` lasts."""

    def __init__(self, buffer: Buffer, array: npt.NDArray[Any]) -> None:
        self._buffer, self._array = buffer, array
        self._file: FileIO | None = None

    def __enter__(self) -> "_Reader":
        array = self._array
        # Only a whole map says where in the file it begins; a slice of one keeps the offset of the whole.
        if isinstance(array, np.memmap) and array.flags.c_contiguous and not isinstance(array.base, np.memmap):
            with contextlib.suppress(FileNotFoundError):  # compacted away: what is mapped stays
                self._file = FileIO(str(array.filename))
                self._offset = array.offset
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def __call__(self, start: int, stop: int) -> Float32:
        array = self._array
        if self._file is None and array.dtype == np.float32:
            return array[start:stop]
        block = self._buffer.target(array.dtype, stop - start)
        if self._file is None:
            np.copyto(block, array[start:stop])
            return self._buffer.widen(block)
        self._file.seek(self._offset + start * array.strides[0])
        view, done = block.reshape(-1).view(np.uint8).data, 0
        while done < len(view):  # a read may return less than asked
            got = self._file.readinto(view[done:])
            if not got:
                raise CollectionDamaged(f"{self._file.name} ended before its last row; check the collection.")
            done += got
        return self._buffer.widen(block)


def _as_range(ids: Ids) -> Ids:
    """The same ids, as a range where they have no holes."""
    if isinstance(ids, range):
        if ids.step != 1:
            raise InputError(f"Rows got ids {ids}; a range of ids has step 1.")
        return ids
    if (ids[1:] <= ids[:-1]).any():
        raise InputError(f"Rows got a block of ids from {ids[0]} that does not ascend; sort its rows by id.")
    return range(int(ids[0]), int(ids[-1]) + 1) if ids[-1] - ids[0] + 1 == len(ids) else ids


def _ids(own: Ids, start: int, stop: int) -> Int64:
    return np.arange(own[0] + start, own[0] + stop) if isinstance(own, range) else own[start:stop]


def _inside(own: Ids, span: range | None) -> tuple[int, int]:
    """Positions of the first id in the span and of the first after it."""
    return (0, len(own)) if span is None else (_position(own, span.start), _position(own, span.stop))


def _position(own: Ids, id: int) -> int:
    """How many of the ids are less."""
    return min(max(id - own.start, 0), len(own)) if isinstance(own, range) else int(np.searchsorted(own, id))
