"""The effort and the recall of an approximate index for each kind of question.

Half of the questions of a kind choose the effort; the figure comes from the other half, answered as a user's would be.
Which lists hold the true answers tells the recall at every effort at once, so that no search is needed to choose one.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from clipsieve.index import query
from clipsieve.index.asked_kinds import MadeQuestion, Pool, make_questions
from clipsieve.index.faiss_index import FaissIndex, load_faiss
from clipsieve.index.kinds import KindRecall, Shape, Source
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question, Ranked
from clipsieve.index.scan import scan_topk
from clipsieve.types import Float32

RECALL_AT = 40
"""Recall is measured at the number of answers that a search gives by default."""

MOST_AT = 1000
"""And at the greatest number that /api/v1 gives in one answer. For more, rows are read in order."""

QUESTIONS: Mapping[int, int] = {RECALL_AT: 128, MOST_AT: 32}
"""Questions of a kind in each half, by the number of answers."""

PAYS = 0.5
"""Share of an index's lists from which reading all rows costs no more; that is exact, and serves several at once."""

WORSE_BY, WORSE_SHARE = 0.05, 0.03
"""At most this share of the answers has a recall that is lower than the figure by more than that."""

LEAST_ANSWERS = 12
"""Answers of a sort that make a figure."""

MORE = 1.4
"""By so much the effort grows until the figure of the half that did not choose it suffices, too."""

TOGETHER = 32
"""Questions that share a pass over the rows."""

VISITED = 16 * 2 * RECALL_AT
"""Rows that a search visits at least: a search deepens to several times twice the number of answers."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """Made questions and their true answers, in the same order."""

    questions: Sequence[MadeQuestion]
    truth: Sequence[Ranked]

    @property
    def sorts(self) -> npt.NDArray[np.int64]:
        """int64 (m,), the sort of each."""
        return np.array([made.sort for made in self.questions], np.int64)


def measure_kinds(
    index: FaissIndex,
    rows: Rows,
    pools: Mapping[Source, tuple[Pool, Pool]],
    recall: float,
    known: Sequence[KindRecall] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[KindRecall]:
    """What the index is worth for each kind of question whose source has a pool.

    pools   by source the examples that efforts are chosen with, and those that recall is measured with
    recall  that is asked for, 0..1
    known   what was measured before rows were added: its efforts are kept, unchosen, where they still suffice
    """
    lists = EffortNeeded(index)
    jobs = [(source, shape, k) for source in pools for shape in get_args(Shape) for k in QUESTIONS]
    before = {(kind.source, kind.shape, kind.k): kind for kind in known}
    found = []
    for number, (source, shape, k) in enumerate(jobs):
        progress(number, len(jobs))
        tuning, stating = pools[source]
        tests = functools.cache(functools.partial(ask, stating, shape, k, rows, 2 * number + 1))
        kept = _kept(index, rows, before.get((source, shape, k)), tests, recall)
        if kept is None:
            tuned = ask(tuning, shape, k, rows, 2 * number)
            kept = _chosen(index, rows, lists, (source, shape, k), tuned, tests, recall)
        found.append(kept)
    progress(len(jobs), len(jobs))
    return found


def figure(recalls: Float64, sorts: npt.NDArray[np.int64]) -> float | None:
    """What may be said of answers with these recalls: of their worst sort; None where no sort has enough.

    It is no more than their mean less its standard error, and all but WORSE_SHARE of them are above it less WORSE_BY.
    """
    said = []
    for sort in np.unique(sorts):
        own = recalls[sorts == sort]
        if len(own) >= LEAST_ANSWERS:
            mean = float(own.mean()) - float(own.std()) / len(own) ** 0.5
            said.append(min(mean, float(np.quantile(own, WORSE_SHARE, method="lower")) + WORSE_BY - 1e-6))
    return max(0.0, min(1.0, *said)) if said else None


def recall_of(found: Ranked, truth: Ranked) -> float:
    """Share of a true answer that was found. An item that scores as the last true one does counts as much as that."""
    if not len(truth.ids):
        return 1.0
    tied = (found.best == truth.best[-1]) & (found.worst == truth.worst[-1])
    return min(1.0, int((np.isin(found.ids, truth.ids) | tied).sum()) / len(truth.ids))


def ask(pool: Pool, shape: Shape, k: int, rows: Rows, seed: int) -> Asked:
    """QUESTIONS of a shape, made of a pool, and their true answers."""
    made = make_questions(pool, shape, QUESTIONS[k], k, rows, seed)
    truth: list[Ranked] = []
    for start in range(0, len(made), TOGETHER):
        truth += scan_topk(rows, [m.question for m in made[start : start + TOGETHER]])[0]
    return Asked(made, truth)


def _kept(
    index: FaissIndex, rows: Rows, known: KindRecall | None, tests: Callable[[], Asked], recall: float
) -> KindRecall | None:
    """The kind as it was known, measured anew; None unless its effort still suffices."""
    if known is None or known.recall is None or known.effort is None:
        return None
    stated = _stated(index, rows, known.effort, tests())
    return None if stated is None or stated < recall else dataclasses.replace(known, recall=stated)


def _chosen(
    index: FaissIndex,
    rows: Rows,
    lists: "EffortNeeded",
    which: tuple[Source, Shape, int],
    tuning: Asked,
    tests: Callable[[], Asked],
    recall: float,
) -> KindRecall:
    """The least effort with which the recall is reached on both halves; no use of the index where that is none."""
    source, shape, k = which
    needed = lists(tuning)  # (k,) each
    most = lists.most
    least = min(most, -(-index.most_effort * max(VISITED, 8 * k) // max(1, rows.count))) if lists.by_list else 1

    _, searched = _answers(index, rows, max(least, most // 8), tuning)  # what a scan answers says nothing of the index

    def reached(effort: int) -> float:
        recalls = np.array([float((n <= effort).mean()) if len(n) else 1.0 for n in needed])
        return figure(recalls[searched], tuning.sorts[searched]) or 0.0

    if reached(most) < recall:
        return KindRecall(source, shape, k, None, None)
    low, high = max(0, least - 1), most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= recall else (middle, high)
    while True:  # chance may have favoured the half that chose: then it takes more
        stated = _stated(index, rows, high, tests())
        if stated is None or stated >= recall or high == most:
            break
        high = min(most, math.ceil(MORE * high))
    if stated is not None and stated >= recall:
        return KindRecall(source, shape, k, high, stated)
    return KindRecall(source, shape, k, None, None)


def _stated(index: FaissIndex, rows: Rows, effort: int, tests: Asked) -> float | None:
    """The figure of those answers that the index gives; None where it gives too few, and most come from a scan."""
    recalls, searched = _answers(index, rows, effort, tests)
    return figure(recalls[searched], tests.sorts[searched])


def _answers(index: FaissIndex, rows: Rows, effort: int, asked: Asked) -> tuple[Float64, npt.NDArray[np.bool_]]:
    """The recall of each answer, float64 (m,), and whether the index gave it, and no scan, bool (m,)."""
    tried = dataclasses.replace(index, effort=effort)
    recalls, searched = np.ones(len(asked.questions)), np.zeros(len(asked.questions), np.bool_)
    for i, (made, truth) in enumerate(zip(asked.questions, asked.truth, strict=True)):
        answer = query.search(made.question, rows, tried, 1.0, scan=lambda _, true=truth: true)  # type: ignore[misc]
        recalls[i], searched[i] = recall_of(answer.ranked, truth), not answer.scanned
    return recalls, searched


class EffortNeeded:
    """Which effort finds each of some items.

    by_list  whether effort is a number of lists
    most     the greatest effort that pays
    """

    def __init__(self, index: FaissIndex) -> None:
        faiss = load_faiss()
        self._index = index
        self._ivf = faiss.try_extract_index_ivf(index.index)
        self.by_list = self._ivf is not None
        self.most = max(1, int(PAYS * index.most_effort)) if self.by_list else index.most_effort
        if self.by_list:
            self._list_of = np.full(index.count, -1, np.int32)
            lists = self._ivf.invlists
            for number in range(lists.nlist):
                size = lists.list_size(number)
                if size:
                    pointer = lists.get_ids(number)
                    self._list_of[faiss.rev_swig_ptr(pointer, size) - index.first] = number
                    lists.release_ids(number, pointer)

    def __call__(self, asked: Asked) -> list[npt.NDArray[np.int64]]:
        """Per question, for each item of its true answer, the least effort that finds it, int64 (k,).

        It is beyond `most` where none does. Of a graph it is known to the next power of two.
        """
        found = []
        for start in range(0, len(asked.questions), TOGETHER):
            part = slice(start, start + TOGETHER)
            questions = [made.question for made in asked.questions[part]]
            positives = np.concatenate([q.vectors.positive for q in questions])
            ranks = iter(self._ranks(positives)) if self.by_list else iter(())
            for question, truth in zip(questions, asked.truth[part], strict=True):
                if not self.by_list:
                    found.append(self._by_search(question, truth))
                    continue
                ids = self._index.ids
                held = self._list_of[truth.ids if ids is None else np.searchsorted(ids, truth.ids)]
                visited = np.array([next(ranks) for _ in question.vectors.positive], np.int32)  # (p, lists + 1)
                found.append(visited[:, held].min(axis=0).astype(np.int64) + 1)
        return found

    def _ranks(self, positives: Float32) -> npt.NDArray[np.int32]:
        """When each list is visited for each positive, int32 (p, lists + 1); the last is for rows of no list."""
        faiss, whole, lists = load_faiss(), self._index.index, self._index.most_effort
        asked = positives
        for number in range(whole.chain.size() if isinstance(whole, faiss.IndexPreTransform) else 0):
            asked = faiss.downcast_VectorTransform(whole.chain.at(number)).apply(asked)
        _, order = self._ivf.quantizer.search(np.ascontiguousarray(asked), lists)  # (p, lists)
        rank: npt.NDArray[np.int32] = np.full((len(asked), lists + 1), lists, np.int32)
        np.put_along_axis(rank, np.where(order < 0, lists, order), np.arange(lists, dtype=np.int32)[None], axis=1)
        rank[:, -1] = lists  # also where a quantizer that is a graph found fewer
        return rank

    def _by_search(self, question: Question, truth: Ranked) -> npt.NDArray[np.int64]:
        needed = np.full(len(truth.ids), self.most + 1, np.int64)
        for effort in _powers(self.most):
            tried = dataclasses.replace(self._index, effort=effort)
            near = tried.search(question.vectors.positive, 2 * question.k, only=question.only, without=question.without)
            needed[np.isin(truth.ids, near.ids) & (needed > effort)] = effort
        return needed


def _powers(most: int) -> Iterable[int]:
    effort = 16
    while effort < most:
        yield effort
        effort *= 2
    yield most
