"""What a job is, how fast it goes and how long it is kept: the thinking of `back/jobs.py`, without files or threads."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

SKIPPED = "skipped.csv"
"""Beside a result: what could not be written, and why."""

KEPT = 50
DAYS = 7
"""Finished jobs that are kept, and for how long, each with its result."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]
FINISHED = ("done", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Job:
    """What became of a job so far. Times are seconds since 1970.

    title    what a download of the result is called, without its suffix
    stage    what is being done: "finding", "labelling" or "writing"; done and total are items of that
    rate     items a second
    message  a sentence where it failed
    result   the name of the file in the job's folder
    items    that the result holds
    skipped  items that could not be written; SKIPPED lists them
    """

    id: str
    kind: str
    collection: str
    format: str
    title: str
    made: float
    state: State = "waiting"
    began: float | None = None
    ended: float | None = None
    stage: str = ""
    done: int = 0
    total: int | None = None
    rate: float | None = None
    message: str = ""
    result: str | None = None
    bytes: int | None = None
    items: int | None = None
    skipped: int = 0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the stage is through; None where that is not known."""
        if self.state != "running" or self.total is None or not self.rate:
            return None
        return (self.total - self.done) / self.rate


@dataclass(frozen=True, slots=True)
class Result:
    """What came of the work: a file in the job's folder; the other fields are those of Job."""

    file: str
    items: int
    skipped: int = 0


class Pace:
    """Items a second of a stage, over about the last quarter of a minute."""

    SPACING = 0.25

    def __init__(self) -> None:
        self._stage = ""
        self._reports: deque[tuple[float, int]] = deque(maxlen=64)

    def at(self, stage: str, done: int, now: float) -> float | None:
        """The rate once so many are done; None for a stage that has only begun."""
        if stage != self._stage:
            self._stage = stage
            self._reports.clear()
        if not self._reports or now - self._reports[-1][0] >= self.SPACING:
            self._reports.append((now, done))
        since, before = self._reports[0]
        return (done - before) / (now - since) if now > since and done > before else None


def outdated(jobs: Iterable[Job], now: float) -> list[str]:
    """The ids of finished jobs that are too old, or too many, to be kept."""
    finished = sorted((job for job in jobs if job.state in FINISHED), key=lambda job: -(job.ended or job.made))
    return [job.id for i, job in enumerate(finished) if i >= KEPT or now - (job.ended or job.made) > DAYS * 86_400]
