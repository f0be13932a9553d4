"""Questions of several threads answered in one pass over the rows.

A scan costs as much for sixteen questions as for two: reading the rows is most of it. Whoever comes first scans at
once; those who come meanwhile wait, and all of them are in the next pass. Nobody waits who would not have had to wait
for the processor.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from clipsieve.index.rule import Question, Ranked

MOST = 64
"""Questions in a pass: their products outweigh the reading long before, and the first one waits for the last."""


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
    """

    def __init__(self, answer: Callable[[Sequence[Question]], list[Ranked]], counts: PassCounts | None = None) -> None:
        self._answer_all = answer
        self._counts = counts or PassCounts()
        self._lock = threading.Lock()
        self._busy = False
        self._queue: list[_Waiting] = []

    def __call__(self, question: Question) -> Ranked:
        """The best k of the question by (P descending, id ascending), exact."""
        mine = _Waiting(question)
        with self._lock:
            if self._busy:
                self._queue.append(mine)
            else:
                self._busy = mine.leads = True
        if not mine.leads:
            mine.answered.wait()
        if mine.leads:
            self._lead(mine)
        if mine.error is not None:
            raise mine.error
        assert mine.ranked is not None
        return mine.ranked

    def _lead(self, mine: _Waiting) -> None:
        """Answer this one and those that wait, and hand over to the first of those that came meanwhile."""
        with self._lock:
            others, self._queue = self._queue[: MOST - 1], self._queue[MOST - 1 :]
        together = [mine, *others]
        try:
            self._answer(together)
        finally:
            with self._lock:
                following = self._queue.pop(0) if self._queue else None
                self._busy = following is not None
            if following is not None:
                following.leads = True
                following.answered.set()
            for one in others:
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
