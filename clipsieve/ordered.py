"""Work ahead in threads, results in order."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


def ordered_map(
    pool: Executor,
    work: Callable[[In], Out],
    inputs: Iterable[In],
    ahead: int,
    *,
    weigh: Callable[[In], int] = lambda _: 0,
    limit: int = 1,
) -> Generator[Out, None, None]:
    """`map(work, inputs)` with up to `ahead` inputs taken and worked on before their turn, fewer when they are heavy.

    weigh, limit  at least one input is taken, and no further one once their weights reach `limit`

    Unlike Executor.map it does not exhaust `inputs` first, so memory stays bounded. What was begun and is not asked for
    any more is cancelled or left to end by itself.
    """
    pending: deque[tuple[Future[Out], int]] = deque()
    load = 0
    try:
        for entry in inputs:
            weight = weigh(entry)
            load += weight
            pending.append((pool.submit(work, entry), weight))
            del entry  # the only reference left is the worker's, until it is done
            while pending and (len(pending) >= ahead or load >= limit):
                load -= pending[0][1]
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
    finally:
        for future, _ in pending:
            future.cancel()


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
