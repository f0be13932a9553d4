"""The best k of a class, from any index: a threshold algorithm over plain nearest-neighbour searches.

Every positive is searched to some depth, everything found is scored exactly by the rule, and the worst neighbour of
each search bounds what was not seen. When the k-th accepted item is above that bound nothing unseen can displace it;
otherwise the search goes deeper (Fagin, Lotem, Naor, "Optimal aggregation algorithms for middleware", 2003). Negatives
need no search: they only ever remove or lower what a positive found.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from clipsieve.errors import InputError
from clipsieve.index.rows import Rows, ascending, contains
from clipsieve.index.rule import (
    Question,
    Ranked,
    first_of_group,
    join,
    judge,
    maxima,
    no_items,
    settle,
)
from clipsieve.index.scan import DIRECT_SHARE, Pass, scan_topk
from clipsieve.protocols import VectorIndex
from clipsieve.types import Claim, Distribution, Float32, Hit, Int64, MetaClass

Order = Literal["score", "margin", "new"]

LEAST_DEPTH = 64
DEEPEN = 4
SCAN_SHARE = 8
"""A search deeper than an 8th of the rows costs more than reading all of them in order."""

MOSTLY_REJECTED = 0.9
"""Share of rejected candidates from which deepening is given up for a scan, unless the next step should suffice."""

GROUPED = 4
"""Items that an answer of one per group is taken to look through, for each that it gives."""

CHUNK = 16_384
"""Candidates whose vectors are held at once."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """The best k of a question, and what may be claimed about them.

    ranked      items by (score descending, id ascending)
    claim       "exact", "complete" or "partial", as QueryResult says
    recall      given when complete
    scanned     whether rows were read in order instead of searched
    timings_ms  milliseconds by stage: search, score, scan, total
    unmeasured  whether it is partial because the index has no recall for it, and not because time ran out
    """

    ranked: Ranked
    claim: Claim
    recall: float | None
    scanned: bool
    timings_ms: Mapping[str, float]
    unmeasured: bool = False


def reach(question: Question) -> int:
    """Items that an index must find for it: of one per group is not known how many that takes."""
    return question.k if question.groups is None else GROUPED * question.k


def search(
    question: Question,
    rows: Rows,
    index: VectorIndex | None = None,
    recall: float | None = None,
    budget_ms: float | None = None,
    scan: Callable[[Question], Ranked] | None = None,
) -> Answer:
    """Answer a question from an index over the rows, or by a scan where there is none or it does not pay.

    index      holds all live rows (and may hold removed ones); None to scan, as for any view but "matched"
    recall     of an index that is not exhaustive or not exact, as measured on this collection with such questions;
               None where it was not, and an answer that rests on it is claimed as partial
    budget_ms  when to end with what was found, claimed as partial
    scan       answers by reading all rows, as `scan_topk` does; used where nothing ends the reading early

    InputError where the dimensions differ.
    """
    _check(question, rows, index)
    start = time.perf_counter()
    state = _Search(question, rows, None if budget_ms is None else start + budget_ms / 1000, scan)
    searched = index is not None and question.view == "matched" and state.worth_searching
    unmeasured = False
    claim = state.deepen(index) if searched and index is not None else state.scan()
    if claim == "complete" and recall is None:
        claim, unmeasured = "partial", True
    state.timings["total"] = (time.perf_counter() - start) * 1000
    top = state.found.top(question)
    return Answer(top, claim, recall if claim == "complete" else None, state.scanned, state.timings, unmeasured)


class _Search:
    """What is known so far of one question."""

    def __init__(
        self,
        question: Question,
        rows: Rows,
        deadline: float | None,
        scan: Callable[[Question], Ranked] | None,
    ) -> None:
        self.question, self.rows, self.deadline = question, rows, deadline
        self.whole_scan = scan
        self.compiled = question.compile()
        self.only = None if question.only is None else ascending(question.only)
        if self.only is not None:
            self.only = self.only[rows.has(self.only)]
            if question.without is not None:
                self.only = self.only[~contains(ascending(question.without), self.only)]
        self.count = rows.count if self.only is None else len(self.only)
        self.found = no_items()
        self.seen: Int64 = np.zeros(0, np.int64)  # ascending
        self.scanned = False
        self.timings: dict[str, float] = {}

    @property
    def worth_searching(self) -> bool:
        """False where the first search would already be too deep, or a filter leaves too little to search for."""
        return not self._rare and self._first_depth <= self.count / SCAN_SHARE

    @property
    def _rare(self) -> bool:
        return self.only is not None and len(self.only) < DIRECT_SHARE * self.rows.count

    @property
    def _first_depth(self) -> int:
        return max(2 * self.question.k, LEAST_DEPTH)

    def deepen(self, index: VectorIndex) -> Claim:
        """The threshold algorithm; the claim of what it leaves in `found`."""
        question, k = self.question, self.question.k
        without = self.rows.without
        if question.without is not None:
            without = np.union1d(without, question.without)
        depth = self._first_depth
        while True:
            started = time.perf_counter()
            near = index.search(question.vectors.positive, depth, only=self.only, without=without)  # (p, depth)
            self._clock("search", started)
            started = time.perf_counter()
            found = near.ids[near.ids >= 0]
            self._score(np.unique(found) if len(near.ids) > 1 else np.sort(found))  # one search finds nothing twice
            self._clock("score", started)
            short = bool((near.ids[:, -1] < 0).any())
            if short and not index.exhaustive:
                return self.scan()
            bound = self._bound(near.scores[:, -1], index.score_error)
            top = self.found.top(question)
            kth = float(question.key(top.best, top.worst)[-1]) if len(top.ids) == k else -np.inf
            if max(kth, question.least) > bound + self.compiled.slack or bound == -np.inf:
                return "exact" if index.exhaustive and index.score_error == 0 else "complete"
            if self.late:
                return "partial"
            rejected = 1 - len(self.found.ids) / max(1, len(self.seen))
            enough = len(top.ids) * DEEPEN >= k
            depth *= DEEPEN
            if depth > self.count / SCAN_SHARE or (rejected > MOSTLY_REJECTED and not enough):
                return self.scan()

    def scan(self) -> Claim:
        """Read every row that may be found."""
        started = time.perf_counter()
        self.scanned = True
        if self.whole_scan is not None and self.deadline is None and not self._rare:
            ranked, whole = self.whole_scan(self.question), True
        else:
            (ranked,), whole = scan_topk(self.rows, [self.question], self.deadline)
        self._clock("scan", started)
        if whole:
            self.found = ranked
            return "exact"
        new = ranked.pick(np.flatnonzero(~contains(self.seen, ranked.ids)))
        self.found = join([self.found, new])
        return "partial"

    @property
    def late(self) -> bool:
        """Whether the budget is spent."""
        return self.deadline is not None and time.perf_counter() > self.deadline

    def _score(self, ids: Int64) -> None:
        new = ids[~contains(self.seen, ids)]
        parts = [self.found]
        for start in range(0, len(new), CHUNK):
            chunk = new[start : start + CHUNK]
            parts.append(judge(self.question, self.compiled, chunk, self.rows.take(chunk)))
        self.found = join(parts)
        self.seen = np.union1d(self.seen, new) if len(self.seen) else new

    def _bound(self, last: Float32, score_error: float) -> float:
        """The greatest level that an item not seen by any search can have: last float32 (p,), -inf if all were seen."""
        bounds = last.astype(np.float64) + score_error  # -inf stays: that search returned everything there is
        scale = self.question.scale
        if scale is not None:
            p = len(bounds)
            bounds = (bounds - scale.center[:p]) / scale.spread[:p]
        return float(bounds.max())

    def _clock(self, stage: str, started: float) -> None:
        self.timings[stage] = self.timings.get(stage, 0.0) + (time.perf_counter() - started) * 1000


def in_order(question: Question, found: Iterable[Ranked], order: Order) -> Ranked:
    """All items of the question's view, by falling margin or by falling id, one per group; its k is not looked at.

    found  they, as `scan_threshold` finds them
    """
    ranked = join(list(found))
    first = ranked.best - ranked.worst if order == "margin" else ranked.ids
    ranked = ranked.pick(np.lexsort((ranked.ids, -question.key(ranked.best, ranked.worst), -first)))
    return ranked if question.groups is None else ranked.pick(first_of_group(question.groups(ranked.ids)))


def make_hits(question: Question, meta: MetaClass, ranked: Ranked, keys: Sequence[str]) -> tuple[Hit, ...]:
    """Hits from ranked items and their keys, in order. `meta` is the class whose examples the question embeds.

    A score is what ranks the item: under the soft veto less than P where a negative is nearer.
    """
    best, worst = ranked.best.astype(np.float64), ranked.worst.astype(np.float64)
    score = question.key(ranked.best, ranked.worst).astype(np.float64)
    if question.scale is not None:
        best, score = (question.scale.score(levels).astype(np.float64) for levels in (best, score))
        worst = np.where(np.isneginf(worst), -np.inf, question.scale.score(worst))
    return tuple(
        Hit(
            id=int(i),
            key=key,
            score=float(s),
            margin=float(b - w),
            positive=meta.positive[p],
            negative=None if n < 0 else meta.negative[n],
        )
        for i, key, s, b, w, p, n in zip(
            ranked.ids, keys, score, best, worst, ranked.positive, ranked.negative, strict=True
        )
    )


def distribution(
    question: Question, rows: Rows, sample: Int64 | None = None, edges: Float32 | None = None
) -> Distribution:
    """How the rows fall under a class: matched, below the threshold, rejected (the rest); histograms.

    sample  live ids to look at instead of all; the counts are then scaled up and not exact. What is left out counts as
            looked at: it may be known of the sample alone
    edges   float32 (b + 1,), ascending, on the score's scale; scores beyond either end count in the last bin there.
            By default hundredths from -1 to 1 for cosines, quarters from 0 to 20 where calibrated

    The question's `only` and `without` hold; its k and groups are not looked at.
    """
    scale = question.scale
    if edges is None:
        edges = np.linspace(-1, 1, 201, dtype=np.float32) if scale is None else np.linspace(0, 20, 81, dtype=np.float32)
    compiled = question.compile()
    without = np.zeros(0, np.int64) if question.without is None else np.unique(question.without)
    wanted = None if question.only is None else np.unique(question.only)
    scope = rows.count if wanted is None else int(rows.has(wanted).sum())
    if sample is not None:
        wanted = np.unique(sample) if wanted is None else np.intersect1d(sample, wanted)
    step, least = Pass(compiled), np.float32(question.least)
    matched = below = seen = looked = 0
    counts, rivalled, ranked = (np.zeros(len(edges) - 1, np.int64) for _ in range(3))
    asked = dataclasses.replace(question, view="matched")
    for ids, vectors in rows.blocks(step.rows, wanted):
        live = vectors[~contains(without, ids)] if len(without) else vectors
        best, worst = (side[0] for side in step(live)[1:])  # (b,), (b,)
        off = compiled.slack
        near = np.minimum(np.abs(best - worst) / 2, np.abs(best - least)) <= off
        doubtful = np.flatnonzero(near | (asked.shows(best, worst, off) != asked.shows(best, worst, -off)))
        if len(doubtful):
            (best[doubtful],), (worst[doubtful],) = maxima(compiled, settle(compiled, live[doubtful]))
        seen, looked = seen + len(live), looked + len(vectors)
        matched += int(asked.shows(best, worst).sum())
        below += int((best < least).sum())
        key = question.key(best, worst)
        score, by = (np.clip(of if scale is None else scale.score(of), edges[0], edges[-1]) for of in (best, key))
        counts += np.histogram(score, edges)[0]
        rivalled += np.histogram(score[worst >= best], edges)[0]
        ranked += np.histogram(by[worst < best] if question.veto == "hard" else by, edges)[0]
    if sample is None:
        return Distribution(matched, seen - matched - below, below, counts, rivalled, ranked, edges, exact=True)
    if not looked and scope:
        raise InputError("The sample holds none of the items asked about; draw a larger one.")
    factor = scope / max(1, looked)
    whole = np.rint(np.array([matched, below]) * factor).astype(int)
    rejected = max(0, round(seen * factor) - int(whole.sum()))
    scaled, rivals, by_key = (np.rint(c * factor).astype(np.int64) for c in (counts, rivalled, ranked))
    return Distribution(int(whole[0]), rejected, int(whole[1]), scaled, rivals, by_key, edges, exact=False)


def _check(question: Question, rows: Rows, index: VectorIndex | None) -> None:
    dim = question.vectors.positive.shape[1]
    if dim != rows.dim or (index is not None and index.dim != rows.dim):
        raise InputError(
            f"Class {question.vectors.name!r} has {dim} dimensions, the rows {rows.dim} and the index "
            f"{rows.dim if index is None else index.dim}; all must come from one model."
        )
