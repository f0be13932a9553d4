"""What a service counts and times, for Prometheus: by clip-retrieval's names, and by ours."""

import contextlib
import time
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

STAGES: Mapping[str, str] = {
    "full_knn_request_time": "a whole /knn-service request",
    "download_time": "fetching an image by URL",
    "text_clip_inference_time": "embedding a text",
    "image_clip_inference_time": "embedding an image",
    "metadata_get_time": "reading metadata",
    "knn_index_time": "searching the index",
    "dedup_time": "leaving out duplicates",
    "safety_time": "leaving out what is flagged",
    "image_prepro_time": "preparing an image",
    "text_prepro_time": "preparing a text",
}
"""clip-retrieval's names of histograms -> what is timed, in seconds."""

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """The figures of one service; made once for it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stages = {
            name: Histogram(name, f"Seconds: {what}", registry=self.registry, buckets=BUCKETS)
            for name, what in STAGES.items()
        }
        self.requests = Counter(
            "clipsieve_requests", "Requests answered", ["route", "method", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "clipsieve_request_seconds", "Seconds of a request", ["route"], registry=self.registry, buckets=BUCKETS
        )
        self.in_flight = Gauge(
            "clipsieve_requests_in_flight", "Requests being answered or waiting", registry=self.registry
        )
        self.waiting = Gauge(
            "clipsieve_requests_waiting", "Requests on their way in or out, or waiting", registry=self.registry
        )

    @contextlib.contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time the block as one of STAGES."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._stages[stage].observe(time.perf_counter() - start)

    def exposition(self) -> bytes:
        """All figures in Prometheus's text format."""
        return generate_latest(self.registry)

    def summary(self) -> str:
        """The stages as a plain table: how often, and how long on average."""
        rows = []
        for name, what in STAGES.items():
            count = self.registry.get_sample_value(f"{name}_count") or 0.0
            total = self.registry.get_sample_value(f"{name}_sum") or 0.0
            if count:
                rows.append(f"{name:<28}{int(count):>10}{1000 * total / count:>14.2f}  {what}")
        if not rows:
            return "No request yet, go do some\n"
        return "\n".join([f"{'name':<28}{'calls':>10}{'average ms':>14}  what", *rows]) + "\n"
