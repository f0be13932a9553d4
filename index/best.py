"""The best k of a question, from blocks whose levels are known to within a bound."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from clipsieve.index.rows import ascending, contains
from clipsieve.index.rule import Question, Ranked, first_of_group, join, judge, no_items
from clipsieve.types import Float32, Int64

Positions = npt.NDArray[np.intp]

CHUNK = 16_384
"""Vectors that are settled at a time."""

SPREAD = 16
"""Groups for each of k: so many that few hold two of the best k."""


class Best:
    """The best k so far, exact for the rows offered and settled.

    `offer` keeps what may be among them by levels that are off by up to a slack, of all rows or of each; `settle`
    decides about what was kept, from the vectors: at once where they will be gone, at the end where they can be had
    later.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self._top = no_items()
        self._new: list[Ranked] = []  # not sorted in yet: for a large k that would cost more than the pass itself
        self.compiled = question.compile()
        self._only = None if question.only is None else ascending(question.only)
        self._without = None if question.without is None else ascending(question.without)
        # What a key must reach; one that is rejected by the soft veto has fallen below the threshold itself.
        falls = question.view == "below" or (question.view == "rejected" and question.veto == "soft")
        self._floor = -np.inf if falls else question.least
        self._kept: list[tuple[Positions, Int64, Float32, Float32, Float32]] = []
        self._free = self._only is None and self._without is None and question.groups is None

    def offer(self, ids: Int64, best: Float32, worst: Float32, slack: float | Float32, start: int = 0) -> None:
        """A block: its ids, and its P and N, (b,) each; ids above all offered before. Rows whose P is NaN are no items.

        slack  how far P and N may be off, in all or row by row (b,)
        start  the position of its first row, for `settle`
        """
        question, k = self.question, self.question.k
        if self._free and len(best) > 2 * k:  # a first floor, before there is anything to compare with
            sure = question.shows(best, worst, -slack)
            least = np.where(sure, question.key(best - slack, worst + slack), np.float32(-np.inf))
            self._floor = max(self._floor, under_kth(least, k))
            self._free = False
        at = np.flatnonzero(best >= self._floor - np.max(slack, initial=0))  # no key is above its P
        off = slack[at] if isinstance(slack, np.ndarray) else np.full(len(at), slack, np.float32)
        may = question.key(best[at] + off, worst[at] - off) >= self._floor
        may &= question.shows(best[at], worst[at], off)
        at, off = at[may], off[may]
        for allowed, ids_of in ((True, self._only), (False, self._without)):
            if len(at) and ids_of is not None:
                kept = contains(ids_of, ids[at]) == allowed
                at, off = at[kept], off[kept]
        if not len(at):
            return
        self._kept.append((at + start, ids[at], best[at], worst[at], off))
        if sum(len(part[0]) for part in self._kept) > 2 * k:
            self._cut()

    def settle(self, take: Callable[[Positions], Float32]) -> None:
        """Decide about what was kept. `take` gives the vectors, float32 (r, d), at these positions."""
        if not self._kept:
            return
        at, ids, *_ = self._joined()
        self._kept = []
        for start in range(0, len(at), CHUNK):
            own = slice(start, start + CHUNK)
            self._new.append(judge(self.question, self.compiled, ids[own], take(at[own])))
        if sum(len(part.ids) for part in self._new) > self.question.k // 2:
            self._sort()

    @property
    def found(self) -> Ranked:
        """The best k of what was settled, by (key descending, id ascending), one per group."""
        self._sort()
        return self._top

    def _joined(self) -> tuple[Positions, Int64, Float32, Float32, Float32]:
        if len(self._kept) > 1:
            at, ids, best, worst, off = (np.concatenate(column) for column in zip(*self._kept, strict=True))
            self._kept = [(at, ids, best, worst, off)]
        return self._kept[0]

    def _sort(self) -> None:
        if self._new:
            self._top = join([self._top, *self._new]).top(self.question)
            self._new = []
            if len(self._top.ids) == self.question.k:
                last = self._top.pick(slice(-1, None))
                self._floor = max(self._floor, float(self.question.key(last.best, last.worst)[0]))

    def _cut(self) -> None:
        """Keep of many candidates those that may be among their own best k."""
        question, k = self.question, self.question.k
        at, ids, best, worst, off = self._joined()
        sure = question.shows(best, worst, -off)
        levels = question.key(best - off, worst + off)[sure]
        if question.groups is not None:
            order = np.argsort(-levels)
            levels = levels[order[first_of_group(question.groups(ids[sure][order]))]]
        if len(levels) < k:
            return
        self._floor = max(self._floor, under_kth(levels, k))  # k items surely reach it
        keep = question.key(best + off, worst - off) >= self._floor
        self._kept = [(at[keep], ids[keep], best[keep], worst[keep], off[keep])]


def under_kth(values: Float32, k: int) -> float:
    """A number that the k-th greatest of at least k values reaches, and is not much greater than.

    The k-th greatest among the greatest of each of many groups: a tenth of the time of the k-th greatest of all.
    """
    groups = SPREAD * k
    if len(values) >= 2 * groups:
        values = values[: len(values) // groups * groups].reshape(-1, groups).max(axis=0)
    return float(np.partition(values, -k)[-k])
