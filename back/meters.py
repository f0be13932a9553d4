"""What a service counts and times, for Prometheus: by clip-retrieval's names, and by ours.

What is counted elsewhere anyway, `back/figures.py` reads when it is asked for.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

import clipsieve
from clipsieve.back.guard import REASONS

STAGES: Mapping[str, str] = {
    "full_knn_request_time": "a whole /knn-service request",
    "download_time": "fetching an image by URL",
    "text_clip_inference_time": "embedding a text, with preparing it and waiting for the model",
    "image_clip_inference_time": "embedding an image, with preparing it and waiting for the model",
    "metadata_get_time": "reading metadata, with small JPEGs of local images",
    "knn_index_time": "searching, with leaving out duplicates",
    "dedup_time": "telling duplicates while searching, a part of knn_index_time",
    "safety_time": "finding what is flagged, which the search leaves out",
    "image_prepro_time": "decoding and scaling an image",
    "text_prepro_time": "tokenizing the texts of a batch",
}
"""clip-retrieval's names of histograms -> what is timed, in seconds."""

PREPARING = {"image": "image_prepro_time", "text": "text_prepro_time"}

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
        self._refused = Counter(
            "clipsieve_requests_refused", "Requests refused before their route", ["reason"], registry=self.registry
        )
        for reason in REASONS:  # at 0 from the start: the first of a kind would be no increase otherwise
            self._refused.labels(reason)
        build = Info("clipsieve_build", "What runs", registry=self.registry)
        build.info({"version": clipsieve.__version__})
        ProcessCollector(registry=self.registry)

    def time(self, stage: str) -> AbstractContextManager[object]:
        """Time the block as one of STAGES."""
        return self._stages[stage].time()

    def took(self, stage: str, seconds: float) -> None:
        """One of STAGES took so long."""
        self._stages[stage].observe(seconds)

    def prepared(self, kind: str, ns: int) -> None:
        """An image was made ready for a model, or a batch of texts, in so many nanoseconds."""
        self.took(PREPARING[kind], ns / 1e9)

    def refused(self, reason: str) -> None:
        """A request was refused for one of `guard.REASONS`."""
        self._refused.labels(reason).inc()

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
