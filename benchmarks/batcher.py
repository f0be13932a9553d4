"""Requests of one row from many threads, over the embedder itself called with whole batches.

    python -m benchmarks.batcher [--quick]

1, 4, 16 and 60 threads ask for one row each, and again as soon as they are answered. The floor is the same embedder in
one thread, with as many rows at a time as the batcher may take. One model is made up: asleep for 20 ms a call and 50
microseconds a row, it leaves the processors to the threads, as one on a GPU does, and cares for nothing but how full
its batches are. The others are the demo model's towers, on all processors but one, which is left to the threads;
images are JPEGs of 640 x 480, or given as pixels. All take turns within a round, whose ratios the medians are of.
"""

from __future__ import annotations

import io
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import arguments, keep
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batch_statistics import KindStatistics
from clipsieve.inference.batcher import batched
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.embedder import load_embedder
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.ordered import processors
from clipsieve.types import Float32

MAX_BATCH = 32
CONCURRENCY = (1, 4, 16, 60)
PER_CALL, PER_ROW = 0.020, 0.000_05


class Asleep(FakeEmbedder):
    """A model that costs time and nothing else."""

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """Any unit rows, in due time."""
        time.sleep(PER_CALL + PER_ROW * len(texts))
        return np.full((len(texts), self.dim), self.dim**-0.5, np.float32)


def make_photo() -> bytes:
    """A JPEG of 640 x 480."""
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize((640, 480))
    file = io.BytesIO()
    smooth.save(file, "JPEG", quality=88)
    return file.getvalue()


def repeat(embed: Callable[[list[Any]], Float32], rows: list[Any], seconds: float) -> list[float]:
    """Seconds of each call, for about that long, after one that does not count."""
    embed(rows)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while not took or time.perf_counter() < end:
        start = time.perf_counter()
        embed(rows)
        took.append(time.perf_counter() - start)
    return took


def closed_loop(ask: Callable[[], object], threads: int, seconds: float) -> tuple[float, list[float]]:
    """Answers a second, and the seconds of each, in a time in which all of the threads were at it."""
    all_at_it = threading.Barrier(threads + 1)
    stop = threading.Event()
    answers: list[tuple[float, float]] = []

    def loop() -> None:
        ask()
        all_at_it.wait()
        while not stop.is_set():
            start = time.perf_counter()
            ask()
            answers.append((time.perf_counter(), time.perf_counter() - start))

    asking = [threading.Thread(target=loop) for _ in range(threads)]
    for thread in asking:
        thread.start()
    all_at_it.wait()
    begin = time.perf_counter()
    time.sleep(seconds)
    while len(answers) < threads:  # a busy machine
        time.sleep(seconds / 10)
    end = time.perf_counter()
    stop.set()
    for thread in asking:
        thread.join()
    took = [seconds for when, seconds in answers if begin <= when <= end]
    return len(took) / (end - begin), took


def totals(kinds: Sequence[KindStatistics]) -> tuple[int, int, int]:
    """Rows and nanoseconds of the executions so far, and how many they were."""
    calls = [(rows, tally) for kind in kinds for rows, tally in kind.executions.items()]
    return sum(rows * t.count for rows, t in calls), sum(t.ns for _, t in calls), sum(t.count for _, t in calls)


def measure(embedder: Any, method: str, row: Any, rounds: int, seconds: float) -> dict[str, Any]:
    """Every timing of one model: the floor, a lone row without a batcher, and the loops."""
    direct = getattr(embedder, method)
    found: dict[str, Any] = {"rows_per_s": [], "alone_s": [], "loops": {str(c): [] for c in CONCURRENCY}}
    for i in range(rounds):
        found["rows_per_s"].append(MAX_BATCH / statistics.median(repeat(direct, [row] * MAX_BATCH, seconds)))
        found["alone_s"].append(statistics.median(repeat(direct, [row], seconds)))
        for threads in CONCURRENCY[i % 4 :] + CONCURRENCY[: i % 4]:
            with batched(embedder, BatchOptions(max_batch=MAX_BATCH)) as many:
                ask = getattr(many, method)
                rate, took = closed_loop(lambda ask=ask: ask([row]), threads, seconds)  # type: ignore[misc]
                rows, ns, calls = totals(list(many.statistics().kinds.values()))
            found["loops"][str(threads)].append(
                {"rows_per_s": rate, "median_s": statistics.median(took), "rows_per_call": rows / calls,
                 "model_rows_per_s": rows / ns * 1e9}
            )  # fmt: skip
    return found


def main() -> None:
    """Measure, print, keep."""
    args = arguments("A batcher over the embedder that it wraps.")
    rounds, seconds = (1, 0.2) if args.quick else (7, 1.0)
    import torch

    torch.set_num_threads(max(1, processors() - 1))
    mini = load_embedder("mini", device="cpu")
    photo = make_photo()
    pixels: Tensors = mini.preprocess(photo)
    models: dict[str, tuple[Any, str, Any]] = {
        "20 ms a call": (Asleep(512), "embed_texts", "a photo of a red bus"),
        "mini, texts": (mini, "embed_texts", "a photo of a red bus"),
        "mini, pixels": (mini, "embed_tensors", pixels),
        "mini, images": (mini, "embed_images", photo),
    }
    measured = {name: measure(*model, rounds, seconds) for name, model in models.items()}
    keep(args, "batcher", {"max_batch": MAX_BATCH, "models": measured})


if __name__ == "__main__":
    main()
