"""The rows of many requests, gathered into few calls of a model.

Rows wait in heaps, one for each kind and shape, first those of the lower priority number, then of the older request.
Whenever fewer than `lanes` threads are at work, a new row starts one; it runs batches until nothing waits. So a lone
request is run at once, and what arrives while the model is busy gathers.
"""

import contextlib
import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from clipsieve.errors import Closed, InputError, Overloaded, quoted
from clipsieve.inference.batch_request import BatchOptions, Request, check_timeout
from clipsieve.inference.batch_statistics import BatchStatistics, KindCounts, Sum
from clipsieve.types import Float32

Model = Callable[[Sequence[Any]], Float32]
"""n rows of one kind and shape -> float32 (n, d)."""

Entry = tuple[int, int, int, Any, Request]
"""Priority, number of the request, position of the row in it, the row, the request. The first three are unique."""

LINGER, MOST_LINGER = 0.01, 200_000
"""After a batch its thread waits for this share of the time that it took, and at most so many ns: those it answered may
come again at once, and go into the next batch. Callers would fall into two groups otherwise, one waiting while the
other is served, and batches be half as large as they could."""


class RowQueue:
    """Takes rows from many threads and runs them in batches. Safe in many threads.

    models  kind -> what runs its rows
    dim     d
    lanes   batches run at once
    clock   nanoseconds
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        dim: int,
        lanes: int,
        options: BatchOptions,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._dim = dim
        self._clock = clock
        self._models = models
        self._lanes = lanes
        self.options = options
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._numbers = itertools.count()
        self._heaps: dict[tuple[Any, ...], list[Entry]] = {}  # kind and shape -> what waits, never empty
        self._open: set[Request] = set()
        self._waiting = 0  # rows accepted and not yet taken up, whether put or not
        self._pace = 0.0  # ns for a row, of late
        self._running = 0
        self._closed = False
        self._counts = {kind: KindCounts() for kind in models}
        self._names: dict[str, KindCounts] = {}
        # Its threads end when it is dropped, and with the interpreter, without being daemons.
        self._workers = ThreadPoolExecutor(lanes, "clipsieve-embed")

    @contextlib.contextmanager
    def request(
        self, kind: str, rows: int, timeout: float | None, priority: int, name: str | None = None
    ) -> Iterator[Request]:
        """A request for that many rows, to be `put` and waited for; leaving it early gives it up.

        It is counted under its kind, and its name if it has one. Overloaded if too much waits, Closed after `close`.
        """
        request = self._accept(kind, rows, timeout, priority, name)
        try:
            yield request
        finally:
            self._give_up(request, None)

    def submit(
        self, kind: str, rows: Sequence[Any], priority: int, name: str | None, told: Callable[[Request], None]
    ) -> None:
        """A request of 1 row or more that nobody waits for, so that it has no timeout. Overloaded and Closed as there.

        told  called with it once it is over, with its `vectors` or an `error`, by a thread that others wait for: it
              only passes it on
        """
        request = self._accept(kind, len(rows), None, priority, name)
        request.told = told
        self.put(request, rows)

    def put(self, request: Request, rows: Sequence[Any]) -> None:
        """The next rows of the request, not all of one shape perhaps. Raises what an earlier one has failed with."""
        keys = [(request.kind, *_shape(row)) for row in rows]
        with self._lock:
            if request.over:
                raise request.error or Closed(f"The {request.kind}s were given up already.")
            if not request.put:
                request.ready = self._clock()
            for key, row in zip(keys, rows, strict=True):
                entry = (request.priority, request.number, request.put, row, request)
                heapq.heappush(self._heaps.setdefault(key, []), entry)
                request.put += 1
            if self._running < self._lanes:
                self._workers.submit(self._drain)
                self._running += 1
            self._changed.notify_all()  # a thread may be waiting for company

    def wait(self, request: Request) -> Float32:
        """float32 (rows, d), once all of them are there. TimedOut, or what the model raised for one of them."""
        if not request.ended.acquire(timeout=request.left()):
            self._give_up(request, request.late())  # unless it came in this very moment
        if request.error is not None:
            try:
                raise request.error
            finally:
                request.error = None  # it holds this frame, which holds the request
        return request.vectors

    def statistics(self) -> BatchStatistics:
        """The counts of this moment."""
        with self._lock:
            kinds, names = ({k: c.taken() for k, c in some.items()} for some in (self._counts, self._names))
            return BatchStatistics(kinds, self._waiting, names)

    def close(self) -> None:
        """Accept nothing more, and return when all that was accepted is over."""
        with self._lock:
            self._closed = True
            self._changed.notify_all()
            while self._open:
                self._changed.wait()
        self._workers.shutdown()

    def _accept(self, kind: str, rows: int, timeout: float | None, priority: int, name: str | None) -> Request:
        check_timeout(timeout)
        seconds = self.options.timeout if timeout is None else timeout
        with self._lock:
            if self._closed:
                raise Closed("The embedder was closed and takes no more; open another.")
            if self._waiting and self._waiting + rows > self.options.queue_limit:
                for counts in self._counts_of(kind, name):
                    counts.refused += 1
                raise self._overloaded(rows)
            number = next(self._numbers)
            request = Request(kind, rows, seconds, priority, number, self._dim, self._clock, name)
            self._waiting += rows
            self._open.add(request)
        return request

    def _overloaded(self, rows: int) -> Overloaded:
        seconds = self._waiting * self._pace / self._lanes / 1e9 or 1.0
        return Overloaded(
            f"{self._waiting} rows wait for the model, and with these {rows} there would be more than the "
            f"{self.options.queue_limit} that may; come again in about {max(1.0, seconds):.0f} s.",
            seconds,
        )

    def _give_up(self, request: Request, error: BaseException | None) -> None:
        with self._lock:
            if not request.over:
                self._finish(request, error)

    def _finish(self, request: Request, error: BaseException | None) -> None:
        """The end of a request, with all its vectors or with an error. The lock is held."""
        request.over, request.error = True, error
        self._open.discard(request)
        if request.taken < request.rows:
            self._waiting -= request.rows - request.taken
            for key, heap in list(self._heaps.items()):
                heap[:] = [entry for entry in heap if entry[-1] is not request]
                heapq.heapify(heap)
                if not heap:
                    del self._heaps[key]
        now = self._clock()
        for counts in self._counts_of(request.kind, request.name):
            if request.done == request.rows:
                counts.succeeded.add(now - request.arrived)
                counts.rows += request.rows
                counts.prepare.add(request.ready - request.arrived)
                counts.queue.add(request.began - request.ready)
                counts.compute.add(request.compute)
            else:
                counts.failed.add(now - request.arrived)
        request.ended.release()
        if request.told is not None:
            request.told(request)
        if self._closed:
            self._changed.notify_all()

    def _counts_of(self, kind: str, *names: str | None) -> list[KindCounts]:
        """What is counted for a kind and these names. The lock is held."""
        return [self._counts[kind], *(self._names.setdefault(n, KindCounts()) for n in names if n is not None)]

    def _drain(self) -> None:
        """Run batches until nothing waits. One of the worker threads."""
        try:
            while batch := self._take():
                began = self._clock()
                self._execute(batch)
                if self._heaps or batch[0][-1] is not batch[-1][-1]:  # a lone caller is not made to wait
                    time.sleep(min(LINGER * (self._clock() - began), MOST_LINGER) / 1e9)
        except BaseException as error:  # a mistake of ours: nobody may be left waiting for a thread that is not there
            with self._lock:
                self._running -= 1
                for request in list(self._open):
                    self._finish(request, _died(error))

    def _take(self) -> list[Entry]:
        """The next batch. Empty if nothing waits; the thread no longer counts as running then."""
        with self._lock:
            while self._heaps:
                now = self._clock()
                due = {key: self._due(heap) for key, heap in self._heaps.items()}
                ripe = [key for key, when in due.items() if when <= now]
                if ripe:
                    return self._pop(min(ripe, key=lambda key: self._heaps[key][0][:3]), now)
                self._changed.wait((min(due.values()) - now) / 1e9)
            self._running -= 1
            return []

    def _due(self, heap: list[Entry]) -> int:
        """When its rows may wait for company no longer, by the clock."""
        if not self.options.queue_delay or self._closed or len(heap) >= self.options.max_batch:
            return 0
        return min(entry[-1].ready for entry in heap) + int(self.options.queue_delay * 1e9)

    def _pop(self, key: tuple[Any, ...], now: int) -> list[Entry]:
        heap = self._heaps[key]
        batch = [heapq.heappop(heap) for _ in range(min(len(heap), self.options.max_batch))]
        if not heap:
            del self._heaps[key]
        self._waiting -= len(batch)
        for *_, request in batch:
            if not request.taken:
                request.began = now
            request.taken += 1
        return batch

    def _execute(self, batch: list[Entry]) -> None:
        """One call of the model; if it fails, again by halves, so that it fails for the culprits alone."""
        kind, failure = batch[0][-1].kind, None
        began = self._clock()
        try:
            vectors = self._models[kind]([entry[3] for entry in batch])
            if vectors.shape != (len(batch), self._dim):
                raise RuntimeError(f"{len(batch)} rows of {self._dim} were expected of the model, not {vectors.shape}")
        except BaseException as error:
            failure = error
        took = self._clock() - began
        if failure is None:
            self._deliver(kind, batch, vectors, took)
            return
        self._fail(kind, batch, failure, took)
        middle = len(batch) // 2
        for half in (batch[:middle], batch[middle:]):
            needed = [entry for entry in half if not entry[-1].over]
            if needed:
                self._execute(needed)

    def _fail(self, kind: str, batch: list[Entry], error: BaseException, took: int) -> None:
        with self._lock:
            for counts in self._counts_of(kind, *{entry[-1].name for entry in batch}):
                counts.wasted.add(took)
            for request in {entry[-1] for entry in batch}:
                request.compute += took
            request = batch[0][-1]
            if len(batch) == 1 and not request.over:
                self._finish(request, _of_row(error, batch[0]))

    def _deliver(self, kind: str, batch: list[Entry], vectors: Float32, took: int) -> None:
        with self._lock:
            for counts in self._counts_of(kind, *{entry[-1].name for entry in batch}):
                counts.executions.setdefault(len(batch), Sum()).add(took)
            pace = took / len(batch)
            self._pace += (pace - self._pace) * (0.2 if self._pace else 1.0)
            requests = {entry[-1] for entry in batch}
            for request in requests:
                request.compute += took
            for (_, _, position, _, request), vector in zip(batch, vectors, strict=True):
                request.vectors[position] = vector
                request.done += 1
            for request in requests:
                if request.done == request.rows and not request.over:
                    self._finish(request, None)


def _shape(row: Any) -> tuple[Any, ...]:
    """What must be alike for rows to be stacked."""
    if not isinstance(row, Mapping):
        return ()
    return tuple((name, array.shape, array.dtype) for name, array in sorted(row.items()))


def _of_row(error: BaseException, entry: Entry) -> BaseException:
    """What the requester is told: an InputError names the row."""
    if isinstance(error, InputError):
        _, _, position, row, request = entry
        # A text by itself, since a cache asks for some of a user's texts only.
        what = f"The text {quoted(row[:80])}" if isinstance(row, str) else f"{request.kind.capitalize()} {position}"
        named = InputError(f"{what} cannot be embedded: {error}")
        named.__cause__ = error
        return named
    return error if isinstance(error, Exception) else _died(error)


def _died(error: BaseException) -> RuntimeError:
    told = RuntimeError(f"The thread that ran the model was ended by {quoted(error)}.")
    told.__cause__ = error
    return told
