"""Questions of several threads answered in one pass over the rows.

A scan costs as much for sixteen questions as for two: reading the rows is most of it. Whoever comes first scans at
once; those who come meanwhile wait, and all of them are in the next pass. Nobody waits who would not have had to wait
for the processor.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from clipsieve.index.rule import Question, Ranked
from clipsieve.index.scan import Rows, scan_topk

MOST = 64
"""Questions in a pass: their products outweigh the reading long before, and the first one waits for the last."""


@dataclass(slots=True, eq=False)
class _Waiting:
    question: Question
    answered: threading.Event = field(default_factory=threading.Event)
    ranked: Ranked | None = None
    error: BaseException | None = None
    leads: bool = False


class GatheredScan:
    """Scans of the same rows, joined. Safe to use from several threads at once, which is what it is for."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
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
            answers, _ = scan_topk(self._rows, [one.question for one in together])
            for one, ranked in zip(together, answers, strict=True):
                one.ranked = ranked
        except BaseException as error:
            if len(together) == 1:
                together[0].error = error
                return
            for one in together:  # one of them may be at fault: the others must not suffer for it
                self._answer([one])
