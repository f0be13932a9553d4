"""Passes over all rows of a collection: the best k, everything over a threshold, the best class.

A pass reads one block after another into the same buffers, so that its memory does not grow with the collection, and
multiplies each with all examples at once. The block is small enough that its scores are still in the processor's cache
when the rule reads them. Labelling, whose rule costs the most, works on as many blocks at once as there are processors.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from clipsieve.blas import one_thread_each, stay_alone
from clipsieve.index.best import Best
from clipsieve.index.rows import Rows, ascending, contains
from clipsieve.index.rule import (
    Compiled,
    Question,
    Ranked,
    accepted,
    compile_classes,
    deciding,
    join,
    judge,
    maxima,
    products,
    winners,
)
from clipsieve.ordered import ordered_map, processors
from clipsieve.types import Float32, Int64

SCORES = 2**21
"""float32 scores of one block, 8 MiB: they stay in a common L3 cache until the rule has read them."""

MOST_ROWS, LEAST_ROWS = 8192, 512
MOST_THREADS = 16
"""Each labels blocks of its own, in buffers of some 30 MiB."""

DIRECT_SHARE = 0.05
"""Share of the rows under which a filter's rows are scored directly: graphs and lists find too few of so rare ones."""

LEAST_SHARE = 2**21
"""Numbers to read from which a thread of its own is worth starting."""


def block_rows(examples: int) -> int:
    """How many rows make a good block for a product with so many examples."""
    return min(max(SCORES // examples, LEAST_ROWS), MOST_ROWS)


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


def scan_topk(rows: Rows, questions: Sequence[Question], deadline: float | None = None) -> tuple[list[Ranked], bool]:
    """The best k of each question by (key descending, id ascending), all in one pass.

    deadline  a `time.perf_counter` value at which to stop
    returns   the answers, and whether every row was read
    """
    if not questions:
        return [], True
    compiled = compile_classes([q.vectors for q in questions], [q.scale for q in questions], distinct=False)
    only = _union(questions)

    def work(span: range | None) -> tuple[list[Ranked], bool]:
        step, bests = Pass(compiled), [Best(q) for q in questions]
        for ids, vectors in rows.blocks(step.rows, only, span):
            if deadline is not None and time.perf_counter() > deadline:
                return [b.found for b in bests], False
            _, best, worst = step(vectors)
            for i, b in enumerate(bests):
                b.offer(ids, best[i], worst[i], b.compiled.slack)
                b.settle(vectors.__getitem__)
        return [b.found for b in bests], True

    count = rows.count if only is None else len(only)
    threads = min(processors(), MOST_THREADS, count * rows.dim // LEAST_SHARE)
    if threads < 2:
        return work(None)
    spans = rows.spans(-(-(rows.count + len(rows.without)) // threads))
    rows.buffer(1)  # imports torch, where that pays, before there are several threads to do it
    with one_thread_each(), ThreadPoolExecutor(len(spans), initializer=stay_alone) as pool:
        parts = list(pool.map(work, spans))
    found = [join([ranked[i] for ranked, _ in parts]).top(q) for i, q in enumerate(questions)]
    return found, all(whole for _, whole in parts)


def scan_threshold(rows: Rows, question: Question) -> Iterator[Ranked]:
    """Every item of the question's view, block by block in id order; its k and groups are not looked at."""
    compiled = question.compile()
    step = Pass(compiled)
    without = None if question.without is None else np.unique(question.without)
    for ids, vectors in rows.blocks(step.rows, _union([question])):
        _, best, worst = step(vectors)
        at = np.flatnonzero(question.shows(best[0], worst[0], compiled.slack))
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
    if any(q.only is None for q in questions):
        return None
    only = list({id(q.only): q.only for q in questions if q.only is not None}.values())  # many may share a filter
    return ascending(only[0]) if len(only) == 1 else np.unique(np.concatenate(only))
