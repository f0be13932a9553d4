"""Questions of several threads answered in one pass over the rows.

A pass costs little more for sixteen questions than for two: reading the rows is most of it. Those who come during one
are answered together by the next. It begins once there are as many as there were about the last one (those it answered,
and those who waited at its end), or when as much time has gone by as the last one took, and PATIENCE at most: who asks
again as soon as he is answered comes in time, and nobody waits longer than if another pass had been under way. Who is
alone never waits.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clipsieve.index.rule import Question, Ranked

MOST = 64
"""Questions in a pass: their products outweigh the reading long before, and the first one waits for the last."""

PATIENCE = 0.05
"""Seconds: who asks again at once is back by then."""


class PassCounts:
    """How many questions the passes answered. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._passes: dict[int, int] = {}
        self._lock = threading.Lock()

    def add(self, questions: int) -> None:
        """One more pass."""
        with self._lock:
            self._passes[questions] = self._passes.get(questions, 0) + 1

    def taken(self) -> dict[int, int]:
        """Questions in a pass -> such passes, as they stand."""
        with self._lock:
            return dict(sorted(self._passes.items()))


@dataclass(slots=True, eq=False)
class _Waiting:
    question: Question
    answered: threading.Event = field(default_factory=threading.Event)
    ranked: Ranked | None = None
    error: BaseException | None = None
    leads: bool = False


class GatheredScan:
    """Scans of the same rows, joined. Safe to use from several threads at once, which is what it is for.

    answer  the best k of each question, in one pass over the rows, as `scan_topk` finds them
    counts  what its passes are counted in
    clock   seconds, ascending
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Question]], list[Ranked]],
        counts: PassCounts | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._answer_all = answer
        self._counts = counts or PassCounts()
        self._clock = clock
        self._lock = threading.Lock()
        self._enough = threading.Condition(self._lock)
        self._busy = False
        self._queue: list[_Waiting] = []
        self._expected = 1
        self._ended = self._took = 0.0  # of the last pass, in seconds

    def __call__(self, question: Question) -> Ranked:
        """The best k of the question by (P descending, id ascending), exact."""
        mine = _Waiting(question)
        with self._lock:
            self._queue.append(mine)
            if self._busy:
                if len(self._queue) >= self._expected:
                    self._enough.notify()
            else:
                self._busy = mine.leads = True
        if not mine.leads:
            mine.answered.wait()
        if mine.leads:
            self._lead()
        if mine.error is not None:
            raise mine.error
        assert mine.ranked is not None
        return mine.ranked

    def _lead(self) -> None:
        """Answer those that wait, and hand over to the first of those that came meanwhile."""
        with self._lock:
            until = self._ended + min(self._took, PATIENCE)
            while len(self._queue) < self._expected and (left := until - self._clock()) > 0:
                self._enough.wait(left)
            together, self._queue = self._queue[:MOST], self._queue[MOST:]
        start = self._clock()
        try:
            self._answer(together)
        finally:
            with self._lock:
                self._ended = self._clock()
                self._took = self._ended - start
                self._expected = min(len(together) + len(self._queue), MOST)
                following = self._queue[0] if self._queue else None
                self._busy = following is not None
            if following is not None:
                following.leads = True
                following.answered.set()
            for one in together:
                one.answered.set()

    def _answer(self, together: Sequence[_Waiting]) -> None:
        try:
            answers = self._answer_all([one.question for one in together])
            for one, ranked in zip(together, answers, strict=True):
                one.ranked = ranked
            self._counts.add(len(together))
        except BaseException as error:
            if len(together) == 1:
                together[0].error = error
                return
            for one in together:  # one of them may be at fault: the others must not suffer for it
                self._answer([one])
