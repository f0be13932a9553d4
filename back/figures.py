"""What a service's parts count of themselves, read when Prometheus asks: nothing of it costs a request anything."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from clipsieve.back.protect import Protection
from clipsieve.back.shelf import Shelf
from clipsieve.errors import ClipsieveError
from clipsieve.index.collection import Collection

ModelFigures = Callable[[], Mapping[str, tuple[Any, Any]]]
"""Model -> the BatchStatistics of its batcher and the CacheStatistics of its texts or None (`clipsieve.inference`)."""

SIZES = (1, 2, 4, 8, 16, 32, 64)
"""Upper ends of the buckets that batches and passes are counted in."""


def no_models() -> Mapping[str, tuple[Any, Any]]:
    """There is none."""
    return {}


class Figures(Collector):
    """The figures of one service at the moment that they are asked for. Safe to use from several threads at once."""

    def __init__(self, shelf: Shelf, protection: Protection, models: ModelFigures = no_models) -> None:
        self._shelf, self._protection, self._models = shelf, protection, models
        self._items: dict[str, tuple[str, int]] = {}  # collection -> revision and items: counting may read files

    def describe(self) -> Iterator[Metric]:
        """None beforehand: nothing is asked while the service is put together."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        yield from self._service()
        yield from self._collections()
        figures = self._models()
        yield from _embedding({name: batches for name, (batches, _) in figures.items()})
        yield from _texts({name: texts for name, (_, texts) in figures.items() if texts is not None})

    def _service(self) -> Iterator[Metric]:
        ready = self._protection.state.status == "ok"
        yield GaugeMetricFamily("clipsieve_ready", "1 when questions can be answered, as /readyz says", int(ready))
        gate = self._protection.gate
        if gate is not None:
            what = "Requests on their way in or out, or waiting"
            yield GaugeMetricFamily("clipsieve_requests_waiting", what, gate.waiting)
            what = "Requests that may wait (--queue)"
            yield GaugeMetricFamily("clipsieve_requests_waiting_limit", what, gate.most_waiting)

    def _collections(self) -> Iterator[Metric]:
        items = GaugeMetricFamily("clipsieve_collection_items", "Items", labels=["collection"])
        what = "When the commit that is served was made, in seconds since 1970"
        committed = GaugeMetricFamily("clipsieve_collection_commit_timestamp_seconds", what, labels=["collection"])
        what = "Bytes of the file system that the collection lies on"
        disk = GaugeMetricFamily("clipsieve_collection_disk_size_bytes", what, labels=["collection"])
        what = "Bytes that are free there"
        free = GaugeMetricFamily("clipsieve_collection_disk_free_bytes", what, labels=["collection"])
        what = "Questions answered in one pass over all rows"
        passes = HistogramMetricFamily("clipsieve_scan_questions", what, labels=["collection", "modality"])
        for served in self._shelf:
            name, collection = served.name, served.collection
            with contextlib.suppress(ClipsieveError, OSError):  # a folder that went shows by what is not there
                items.add_metric([name], self._count(name, collection))
            if collection.committed is not None:
                committed.add_metric([name], collection.committed)
            with contextlib.suppress(OSError):
                usage = shutil.disk_usage(collection.folder)
                disk.add_metric([name], usage.total)
                free.add_metric([name], usage.free)
            for modality, counts in collection.passes.items():
                _add_sizes(passes, [name, modality], counts)
        yield from (items, committed, disk, free, passes)

    def _count(self, name: str, collection: Collection) -> int:
        revision = collection.revision
        known = self._items.get(name)
        if known is None or known[0] != revision:
            known = self._items[name] = revision, collection.count
        return known[1]


def _embedding(figures: Mapping[str, Any]) -> Iterator[Metric]:
    labels = ["model", "kind"]
    requests = CounterMetricFamily(
        "clipsieve_embed_requests", "Requests to a model for texts or images", labels=[*labels, "outcome"]
    )
    what = "Rows that a model worked on in one execution"
    rows = HistogramMetricFamily("clipsieve_embed_batch_rows", what, labels=labels)
    what = "Seconds that executions of a model took"
    executing = CounterMetricFamily("clipsieve_embed_execution_seconds", what, labels=labels)
    failed = CounterMetricFamily("clipsieve_embed_failed_executions", "Executions that failed", labels=labels)
    stages = {
        "prepare": "Seconds from a request's arrival until its first row was ready for the model",
        "queue": "Seconds from then until the model took it up",
        "compute": "Seconds of the executions that a request had rows in",
    }
    times = {
        stage: SummaryMetricFamily(f"clipsieve_embed_{stage}_seconds", what, labels=labels)
        for stage, what in stages.items()
    }
    waiting = GaugeMetricFamily("clipsieve_embed_waiting_rows", "Rows that a model has not taken up", labels=["model"])
    for model, statistics in figures.items():
        waiting.add_metric([model], statistics.waiting)
        for kind, counts in statistics.kinds.items():
            outcomes = {"succeeded": counts.succeeded.count, "failed": counts.failed.count, "refused": counts.refused}
            for outcome, count in outcomes.items():
                requests.add_metric([model, kind, outcome], count)
            _add_sizes(rows, [model, kind], {size: tally.count for size, tally in counts.executions.items()})
            executing.add_metric([model, kind], sum(tally.ns for tally in counts.executions.values()) / 1e9)
            failed.add_metric([model, kind], counts.wasted.count)
            for stage, family in times.items():
                tally = getattr(counts, stage)
                family.add_metric([model, kind], tally.count, tally.ns / 1e9)
    yield from (requests, rows, executing, failed, *times.values(), waiting)


def _texts(figures: Mapping[str, Any]) -> Iterator[Metric]:
    hits = CounterMetricFamily(
        "clipsieve_text_cache_hits",
        "Texts whose vectors were there, beyond what each collection keeps",
        labels=["model"],
    )
    misses = CounterMetricFamily("clipsieve_text_cache_misses", "Texts that were embedded", labels=["model"])
    texts = GaugeMetricFamily("clipsieve_text_cache_texts", "Texts whose vectors are kept", labels=["model"])
    size = GaugeMetricFamily("clipsieve_text_cache_bytes", "Bytes of these texts and vectors", labels=["model"])
    for model, statistics in figures.items():
        hits.add_metric([model], statistics.hits)
        misses.add_metric([model], statistics.misses)
        texts.add_metric([model], statistics.texts)
        size.add_metric([model], statistics.bytes)
    yield from (hits, misses, texts, size)


def _add_sizes(family: HistogramMetricFamily, labels: list[str], counts: Mapping[int, int]) -> None:
    """counts  size -> how many had it"""
    ends = [(str(float(end)), sum(n for size, n in counts.items() if size <= end)) for end in SIZES]
    total = sum(size * n for size, n in counts.items())
    family.add_metric(labels, [*ends, ("+Inf", sum(counts.values()))], total)
