"""A closed loop of so many clients against an embedding service, in windows until three of them agree."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from clipsieve.errors import InputError, NotFound, ServiceUnavailable
from clipsieve.load_data import Body, Input

AGREEING = 3
"""Windows that have to agree, one after another."""
WITHIN = 0.10
"""Each of them of their mean, in throughput and in mean latency."""
PERCENTILES = (50, 90, 95, 99)
STAGES = ("queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Target:
    """A model of a service, at an address such as http://127.0.0.1:8000."""

    url: str
    model: str
    token: str | None = None

    def connect(self) -> http.client.HTTPConnection:
        """A connection to it. InputError if the address is none."""
        try:
            parts = urlsplit(self.url if "://" in self.url else f"http://{self.url}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if host is None or parts.scheme not in ("http", "https"):
            raise InputError(f"{self.url!r} is no address of a service; write for instance http://127.0.0.1:8000.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        return kind(host, port, timeout=120)

    def headers(self, body: Body | None = None) -> dict[str, str]:
        """Of a request."""
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        if body is not None:
            headers["Content-Type"] = "application/json" if body.json_bytes is None else "application/octet-stream"
            if body.json_bytes is not None:
                headers["Inference-Header-Content-Length"] = str(body.json_bytes)
        return headers

    def path(self, what: str) -> str:
        """Of one of the model's routes."""
        return f"/v2/models/{quote(self.model, safe='')}{what}"

    def get(self, what: str) -> Any:
        """The JSON of one of the model's routes. NotFound for another model, ServiceUnavailable where none answers."""
        connection = self.connect()
        try:
            connection.request("GET", self.path(what), headers=self.headers())
            answer = connection.getresponse()
            text = answer.read()
            value = json.loads(text) if text else {}
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ServiceUnavailable(f"{self.url} does not answer as an embedding service ({error}).") from error
        finally:
            connection.close()
        if answer.status != 200:
            kind = NotFound if answer.status == 404 else ServiceUnavailable
            raise kind(f"{self.url} answers {answer.status}: {_error(value)}")
        return value

    def inputs(self) -> list[Input]:
        """What the model takes."""
        declared = self.get("")["inputs"]
        return [Input(one["name"], one["datatype"], tuple(one["shape"][1:])) for one in declared]

    def statistics(self) -> Mapping[str, Any]:
        """What the model did so far, as its service says."""
        (one,) = self.get("/stats")["model_stats"]
        found: Mapping[str, Any] = one
        return found


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a load test.

    seconds    its length
    latencies  seconds of each request that was answered in it
    rows       of these
    failed     requests in it that were refused, by status and sentence
    before     the model's statistics when it began
    after      and when it ended
    cpu        seconds of processor time that the clients took
    """

    seconds: float
    latencies: Sequence[float]
    rows: int
    failed: Mapping[str, int] = field(default_factory=dict)
    before: Mapping[str, Any] = field(default_factory=dict)
    after: Mapping[str, Any] = field(default_factory=dict)
    cpu: float = 0.0

    @property
    def throughput(self) -> float:
        """Rows a second."""
        return self.rows / self.seconds

    @property
    def latency(self) -> float:
        """Seconds of a request, on average."""
        return float(np.mean(self.latencies)) if self.latencies else float("inf")


def agree(windows: Sequence[Window]) -> bool:
    """Whether the last AGREEING of them are WITHIN of their mean, in throughput and latency."""
    last = windows[-AGREEING:]
    if len(last) < AGREEING:
        return False
    for values in ([one.throughput for one in last], [one.latency for one in last]):
        mean = sum(values) / len(values)
        if not all(abs(value - mean) <= WITHIN * mean for value in values):
            return False
    return True


def summary(windows: Sequence[Window], stable: bool) -> dict[str, Any]:
    """The figures of these windows together: times in ms, throughput in rows a second."""
    latencies = np.array([seconds for one in windows for seconds in one.latencies]) * 1000
    seconds, rows = sum(one.seconds for one in windows), sum(one.rows for one in windows)
    failed: dict[str, int] = {}
    for one in windows:
        for what, count in one.failed.items():
            failed[what] = failed.get(what, 0) + count
    measured = len(latencies) > 0
    percentiles = np.percentile(latencies, PERCENTILES).tolist() if measured else [None] * len(PERCENTILES)
    return {
        "stable": stable,
        "windows": [round(one.throughput, 2) for one in windows],
        "seconds": seconds,
        "requests": len(latencies),
        "rows": rows,
        "throughput": rows / seconds,
        "latency_ms": {
            "mean": float(latencies.mean()) if measured else None,
            **{f"p{p}": value for p, value in zip(PERCENTILES, percentiles, strict=True)},
        },
        "client_cpu_ms": 1000 * sum(one.cpu for one in windows) / len(latencies) if measured else None,
        "failed": failed,
        "server": served(windows[0].before, windows[-1].after),
    }


def served(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """What the service did in between by its own statistics: times of a request in ms, and rows of an execution."""

    def grew(*names: str) -> int:
        values = []
        for one in (before, after):
            value: Any = one
            for name in names:
                value = value.get(name, {}) if name != names[-1] else value.get(name, 0)
            values.append(value)
        return int(values[1] - values[0])

    rows, executions = grew("inference_count"), grew("execution_count")
    count = grew("inference_stats", "success", "count")
    times = {stage: grew("inference_stats", stage, "ns") for stage in ("success", *STAGES)}
    return {
        "inference_count": rows,
        "execution_count": executions,
        "rows_per_execution": rows / executions if executions else None,
        **{f"{stage}_ms": times[stage] / count / 1e6 if count else None for stage in times},
    }


def run(
    target: Target,
    requests: Sequence[Body],
    concurrency: int,
    window: float,
    most: int,
    told: Callable[[int, Window], None],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[Window], bool]:
    """The windows that count, and whether they agree: the last AGREEING, of `most` at the most.

    window  seconds of each
    told    the number of each window and the window, when it is over

    ServiceUnavailable if a connection ends before its answer.
    """
    loop = _Loop(target, requests, concurrency, clock)
    windows: list[Window] = []
    with loop:
        loop.warm(window)
        while len(windows) < most and not agree(windows):
            windows.append(loop.window(window))
            told(len(windows), windows[-1])
    return windows[-AGREEING:], agree(windows)


class _Loop:
    """Threads that each ask, wait for the answer and ask again."""

    def __init__(self, target: Target, requests: Sequence[Body], concurrency: int, clock: Callable[[], float]) -> None:
        self._target, self._requests, self._clock = target, requests, clock
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._latencies: list[float] = []
        self._rows = 0
        self._failed: dict[str, int] = {}
        self._error: Exception | None = None
        step = max(1, len(requests) // concurrency)
        self._threads = [threading.Thread(target=self._ask, args=(i * step,), daemon=True) for i in range(concurrency)]

    def __enter__(self) -> "_Loop":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def warm(self, seconds: float) -> None:
        """Ask for a while before it counts, and until something was answered."""
        self._sleep(min(1.0, seconds))
        while not (self._latencies or self._failed):
            self._sleep(0.05)

    def window(self, seconds: float) -> Window:
        """What happens in so many seconds."""
        before = self._target.statistics()
        with self._lock:
            self._latencies, self._rows, self._failed = [], 0, {}
            start, cpu = self._clock(), time.process_time()
        self._sleep(seconds)
        with self._lock:
            took, used = self._clock() - start, time.process_time() - cpu
            latencies, rows, failed = self._latencies, self._rows, self._failed
            self._latencies, self._rows, self._failed = [], 0, {}
        return Window(took, latencies, rows, failed, before, self._target.statistics(), used)

    def _sleep(self, seconds: float) -> None:
        self._ended.wait(seconds)
        if self._error is not None:
            raise ServiceUnavailable(f"{self._target.url} ended a connection ({self._error}).") from self._error

    def _ask(self, first: int) -> None:
        connection, turn = self._target.connect(), first
        path = self._target.path("/infer")
        try:
            while not self._ended.is_set():
                body = self._requests[turn % len(self._requests)]
                turn += 1
                start = self._clock()
                connection.request("POST", path, body.data, self._target.headers(body))
                answer = connection.getresponse()
                data = answer.read()
                took = self._clock() - start
                with self._lock:
                    if answer.status == 200:
                        self._latencies.append(took)
                        self._rows += body.rows
                    else:
                        what = f"{answer.status}: {_sentence(data)}"
                        self._failed[what] = self._failed.get(what, 0) + 1
        except (OSError, http.client.HTTPException) as error:
            self._error = error
            self._ended.set()
        finally:
            connection.close()


def _error(value: Any) -> str:
    error = value.get("error", "") if isinstance(value, dict) else ""
    return str(error.get("message", "") if isinstance(error, dict) else error)


def _sentence(data: bytes) -> str:
    try:
        return _error(json.loads(data))
    except ValueError:
        return data[:80].decode(errors="replace")
