"""One request to a batcher, and what requests are subject to."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clipsieve.errors import InputError, TimedOut
from clipsieve.types import Float32


@dataclass(frozen=True, slots=True)
class BatchOptions:
    """How requests are batched.

    max_batch    rows in one call of the model, at most
    queue_delay  seconds that a row may wait for company while the model is idle
    queue_limit  rows that may wait; a request that comes when none does is accepted whatever its size
    timeout      seconds until a request that does not say itself is given up; None for never
    workers      threads that decode images; one per processor by default

    InputError for figures that cannot be meant.
    """

    max_batch: int = 64
    queue_delay: float = 0.0
    queue_limit: int = 1024
    timeout: float | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        workers = 1 if self.workers is None else self.workers
        if min(self.max_batch, self.queue_limit, workers) < 1:
            raise InputError(
                f"max_batch {self.max_batch}, queue_limit {self.queue_limit}, workers {workers}: each is 1 or more."
            )
        if not 0 <= self.queue_delay < threading.TIMEOUT_MAX:
            raise InputError(f"queue_delay {self.queue_delay}: give a number of seconds, 0 or more.")
        check_timeout(self.timeout)


def check_timeout(timeout: float | None) -> None:
    """InputError unless it is None or a number of seconds."""
    if timeout is not None and not 0 < timeout < threading.TIMEOUT_MAX:
        raise InputError(f"timeout {timeout}: give a number of seconds, more than 0.")


class Request:
    """Some rows of one kind on their way. All but `left` and `late` is RowQueue's to use, holding its lock.

    name               what it is counted under beside its kind
    number             in the order of arrival
    arrived            ns, when it was accepted
    ready, began       ns, when its first rows were put, and when the model took up the first of them
    compute            ns in the model so far
    put, taken, done   rows put, taken up by the model, and back from it, so far
    over               nothing more happens to it: `vectors` is whole, or there is an `error`, or nobody wants it
    ended              locked until it is over; a plain lock costs a quarter of an Event
    told               called with it once it is over, where nobody waits for it
    """

    def __init__(
        self,
        kind: str,
        rows: int,
        timeout: float | None,
        priority: int,
        number: int,
        dim: int,
        clock: Callable[[], int],
        name: str | None = None,
    ) -> None:
        self.kind = kind
        self.name = name
        self.rows = rows
        self.priority = priority
        self.number = number
        self.arrived = self.ready = self.began = clock()
        self.compute = self.put = self.taken = self.done = 0
        self.over = False
        self.error: BaseException | None = None
        self.vectors: Float32 = np.empty((rows, dim), np.float32)
        self.ended = threading.Lock()
        self.ended.acquire()
        self.told: Callable[[Request], None] | None = None
        self._timeout = threading.TIMEOUT_MAX if timeout is None else timeout
        self._clock = clock

    def left(self) -> float:
        """Seconds until its time is over; 0.0 from then on."""
        return max(0.0, self._timeout - (self._clock() - self.arrived) / 1e9)

    def late(self) -> TimedOut:
        """The error that says that it is over."""
        return TimedOut(f"The {self.kind}s were not embedded within {self._timeout:g} s; allow more, or come later.")
