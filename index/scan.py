"""The rows of a collection, and passes over all of them: the best k, everything over a threshold, the best class.

A pass reads one block after another into the same buffers, so that its memory does not grow with the collection, and
multiplies each with all examples at once. The block is small enough that its scores are still in the processor's cache
when the rule reads them. Labelling, whose rule costs the most, works on as many blocks at once as there are processors.
The one file of the room that may use torch, to widen float16: 10 times faster than numpy.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from typing import Any

import numpy as np
import numpy.typing as npt

from clipsieve.errors import CollectionDamaged, InputError, NotFound
from clipsieve.index.blas import one_thread_each, stay_alone
from clipsieve.index.rule import (
    Bool,
    Compiled,
    Question,
    Ranked,
    accepted,
    belongs,
    compile_classes,
    deciding,
    first_of_group,
    join,
    judge,
    maxima,
    no_items,
    products,
    winners,
)
from clipsieve.ordered import ordered_map, processors
from clipsieve.types import Float32, Int64

Ids = Int64 | range

SCORES = 2**21
"""float32 scores of one block, 8 MiB: they stay in a common L3 cache until the rule has read them."""

MOST_ROWS, LEAST_ROWS = 8192, 512
MOST_THREADS = 16
"""Each labels blocks of its own, in buffers of some 30 MiB."""

LEAST_SHARE = 2**21
"""Numbers to read from which a thread of its own is worth starting."""

TORCH_PAYS = 2**29
"""Numbers to widen from which importing torch (over a second) is worth it, where nobody has imported it yet."""


def contains(sorted_ids: Int64, ids: Int64) -> Bool:
    """bool (b,): which of `ids` are among `sorted_ids`."""
    if not len(sorted_ids):
        return np.zeros(len(ids), np.bool_)
    at = np.searchsorted(sorted_ids, ids)
    at[at == len(sorted_ids)] = 0
    found: Bool = sorted_ids[at] == ids
    return found


def block_rows(examples: int) -> int:
    """How many rows make a good block for a product with so many examples."""
    return min(max(SCORES // examples, LEAST_ROWS), MOST_ROWS)


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
        rows: int = MOST_ROWS,
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


class Pass:
    """Maxima of every class, block by block, in buffers that are made once."""

    def __init__(self, compiled: Compiled) -> None:
        self.rows = block_rows(len(compiled.matrix))
        self._compiled = compiled
        self._levels = np.empty((len(compiled.matrix), self.rows), np.float32)
        self._best = np.empty((len(compiled.slices), self.rows), np.float32)
        self._worst = np.empty_like(self._best)

    def __call__(self, vectors: Float32) -> tuple[Float32, Float32, Float32]:
        """float32 (b, d) -> levels (e, b), P (c, b), N (c, b), each valid until the next call."""
        b = len(vectors)
        levels = products(self._compiled, vectors, out=self._levels[:, :b])
        best, worst = maxima(self._compiled, levels, self._best[:, :b], self._worst[:, :b])
        return levels, best, worst


class _Best:
    """The best k of one question so far, exact for the rows offered."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self._top = no_items()
        self._new: list[Ranked] = []  # not sorted in yet: for a large k that would cost more than the pass itself
        self._compiled = question.compile()
        self._only = None if question.only is None else np.unique(question.only)
        self._without = None if question.without is None else np.unique(question.without)

    def offer(self, ids: Int64, vectors: Float32, best: Float32, worst: Float32) -> None:
        """A block, with its P and N (b,) to within the slack; ids above all offered before."""
        question, slack, k = self.question, self._compiled.slack, self.question.k
        floor = -np.inf if question.view == "below" else question.least
        if len(self._top.ids) == k:
            floor = max(floor, float(self._top.best[-1]))
        at = np.flatnonzero(best >= floor - slack)
        at = at[belongs(question.view, best[at], worst[at], question.least, slack)]
        if len(at) and self._only is not None:
            at = at[contains(self._only, ids[at])]
        if len(at) and self._without is not None:
            at = at[~contains(self._without, ids[at])]
        if len(at) > 2 * k:
            at = self._cut(at, ids, best, worst)
        if len(at):
            self._new.append(judge(question, self._compiled, ids[at], vectors[at]))
            if sum(len(part.ids) for part in self._new) > k // 2:
                self._sort()

    @property
    def found(self) -> Ranked:
        """The best k by (P descending, id ascending), one per group."""
        self._sort()
        return self._top

    def _sort(self) -> None:
        if self._new:
            self._top = join([self._top, *self._new]).top(self.question.k, self.question.groups)
            self._new = []

    def _cut(self, at: npt.NDArray[np.intp], ids: Int64, best: Float32, worst: Float32) -> npt.NDArray[np.intp]:
        """Of many candidates those that may be among the block's own best k."""
        question, slack, k = self.question, self._compiled.slack, self.question.k
        sure = at[belongs(question.view, best[at], worst[at], question.least, -2 * slack)]
        if question.groups is not None:
            sure = sure[np.argsort(-best[sure])]
            sure = sure[first_of_group(question.groups(ids[sure]))]
        if len(sure) < k:
            return at
        kth = np.partition(best[sure], -k)[-k]
        cut: npt.NDArray[np.intp] = at[best[at] >= kth - 2 * slack]
        return cut


def scan_topk(rows: Rows, questions: Sequence[Question], deadline: float | None = None) -> tuple[list[Ranked], bool]:
    """The best k of each question by (P descending, id ascending), all in one pass.

    deadline  a `time.perf_counter` value at which to stop
    returns   the answers, and whether every row was read
    """
    if not questions:
        return [], True
    compiled = compile_classes([q.vectors for q in questions], [q.scale for q in questions], distinct=False)
    only = _union(questions)

    def work(span: range | None) -> tuple[list[Ranked], bool]:
        step, bests = Pass(compiled), [_Best(q) for q in questions]
        for ids, vectors in rows.blocks(step.rows, only, span):
            if deadline is not None and time.perf_counter() > deadline:
                return [b.found for b in bests], False
            _, best, worst = step(vectors)
            for i, b in enumerate(bests):
                b.offer(ids, vectors, best[i], worst[i])
        return [b.found for b in bests], True

    count = rows.count if only is None else len(only)
    threads = min(processors(), MOST_THREADS, count * rows.dim // LEAST_SHARE)
    if threads < 2:
        return work(None)
    spans = rows.spans(-(-(rows.count + len(rows.without)) // threads))
    rows.buffer(1)  # imports torch, where that pays, before there are several threads to do it
    with one_thread_each(), ThreadPoolExecutor(len(spans), initializer=stay_alone) as pool:
        parts = list(pool.map(work, spans))
    found = [join([ranked[i] for ranked, _ in parts]).top(q.k, q.groups) for i, q in enumerate(questions)]
    return found, all(whole for _, whole in parts)


def scan_threshold(rows: Rows, question: Question) -> Iterator[Ranked]:
    """Every item of the question's view, block by block in id order; its k and groups are not looked at."""
    compiled = question.compile()
    step = Pass(compiled)
    without = None if question.without is None else np.unique(question.without)
    for ids, vectors in rows.blocks(step.rows, _union([question])):
        _, best, worst = step(vectors)
        at = np.flatnonzero(belongs(question.view, best[0], worst[0], question.least, compiled.slack))
        if without is not None:
            at = at[~contains(without, ids[at])]
        if len(at):
            found = judge(question, compiled, ids[at], vectors[at])
            if len(found.ids):
                yield found


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """A block of items and the class that wins each. All arrays (b,).

    label, runner_up  int64, class indices; -1 where no class may win
    best, worst       float32, P and N of the winner as levels; where label is -1, of the class with the greatest P
    example           int64, position of the deciding positive in the winner's class; -1 where label is
    """

    ids: Int64
    label: Int64
    runner_up: Int64
    best: Float32
    worst: Float32
    example: Int64


def scan_label(
    rows: Rows, compiled: Compiled, least: Sequence[float] | None = None, span: range | None = None
) -> Iterator[Labelled]:
    """The argmax of rank_score for every item, in id order.

    least  the level each class asks for (-inf for none): then only a class that accepts an item may win it, and an
           item that none accepts gets -1. Without, every item gets a label and thresholds are not looked at.
    span   ids, for a part of the collection
    """
    floor = None if least is None else np.array(least, np.float32)[:, None]  # (c, 1)
    own = threading.local()

    def work(part: range) -> list[Labelled]:
        if not hasattr(own, "step"):
            own.step = Pass(compiled)
            own.buffer = rows.buffer(own.step.rows)
        blocks = rows.blocks(own.step.rows, span=part, buffer=own.buffer)
        return [label_block(compiled, ids, own.step(vectors), floor) for ids, vectors in blocks]

    spans = rows.spans(2 * block_rows(len(compiled.matrix)), span)
    threads = min(processors(), MOST_THREADS, max(1, len(spans)))
    rows.buffer(1)  # imports torch, where that pays, before there are several threads to do it
    with one_thread_each(), ThreadPoolExecutor(threads, initializer=stay_alone) as pool:
        for blocks in ordered_map(pool, work, spans, ahead=2 * threads):
            yield from blocks


def label_block(
    compiled: Compiled, ids: Int64, block: tuple[Float32, Float32, Float32], floor: Float32 | None
) -> Labelled:
    """The winners of one block: levels (e, b), P and N (c, b); floor float32 (c, 1) as in `scan_label`, or None."""
    levels, best, worst = block
    label, runner_up = winners(best, worst, None if floor is None else accepted(best, worst, floor))
    shown = label if floor is None else np.where(label < 0, best.argmax(axis=0), label)
    at = np.arange(len(ids))
    return Labelled(ids, label, runner_up, best[shown, at], worst[shown, at], deciding(compiled, levels, label))


def _union(questions: Sequence[Question]) -> Int64 | None:
    """The ids that any of the questions may find; None if one of them may find all."""
    only = [q.only for q in questions if q.only is not None]
    return np.unique(np.concatenate(only)) if len(only) == len(questions) else None
