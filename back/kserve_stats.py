"""What models did, in the shape of Triton's statistics."""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any


class Answers:
    """Counts what the batcher does not see: how long answers took to be written. Safe to use from several threads.

    clock  seconds since 1970
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._written: dict[str, tuple[int, int, int]] = {}  # model -> answers, ns, ms since 1970

    def wrote(self, model: str, ns: int) -> None:
        """An answer of a model was written."""
        with self._lock:
            count, total, _ = self._written.get(model, (0, 0, 0))
            self._written[model] = (count + 1, total + ns, int(1000 * self._clock()))

    def of(self, model: str) -> tuple[int, int, int]:
        """How many, their nanoseconds, and when the last one was, in milliseconds since 1970; 0 for never."""
        with self._lock:
            return self._written.get(model, (0, 0, 0))


def model_stats(model: str, version: str, counts: Any, written: tuple[int, int, int]) -> dict[str, Any]:
    """One entry of `model_stats`.

    counts   the batcher's KindStatistics of this model, or None where it was not asked yet
    written  see `Answers.of`

    An execution counts with all its rows for every model that has some in it. Files are decoded before a batch is made,
    so that `compute_input` is none of a batch's; answers are written one by one, so that neither is `compute_output`.
    """
    output_count, output_ns, last = written
    none = _figure(0, 0)
    if counts is None:
        names = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
        figures: Mapping[str, Any] = dict.fromkeys(names, none)
        sizes: Mapping[int, Any] = {}
    else:
        figures = {
            "success": _tally(counts.succeeded),
            "fail": _tally(counts.failed),
            "queue": _tally(counts.queue),
            "compute_input": _tally(counts.prepare),
            "compute_infer": _tally(counts.compute),
            "compute_output": _figure(output_count, output_ns),
        }
        sizes = counts.executions
    return {
        "name": model,
        "version": version,
        "last_inference": last,
        "inference_count": 0 if counts is None else counts.rows,
        "execution_count": sum(calls.count for calls in sizes.values()),
        "inference_stats": {**figures, "cache_hit": none, "cache_miss": none},
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": rows,
                "compute_input": _figure(calls.count, 0),
                "compute_infer": _tally(calls),
                "compute_output": _figure(calls.count, 0),
            }
            for rows, calls in sorted(sizes.items())
        ],
        "memory_usage": [],
    }


def _tally(tally: Any) -> dict[str, int]:
    return _figure(tally.count, tally.ns)


def _figure(count: int, ns: int) -> dict[str, int]:
    return {"count": count, "ns": ns}
