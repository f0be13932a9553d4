"""Labelling two million float16 rows from disk: how much memory does it take?

    python -m benchmarks.memory [--quick] [--scratch FOLDER]

2,000,000 x 512 float16 in shards of 250,000 on disk (2 GB in the folder for temporary files), 20 classes x (5 + 5), to
Parquet. A thread of the labelling process reads its memory 50 times a second: anonymous, all but mapped files, all;
the system's own high-water mark is kept beside them. What is mapped are libraries: rows are read, not mapped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.measuring import arguments, classes_of, keep, unit_rows

DIM, SHARD = 512, 250_000


def write_shards(folder: Path, rows: int) -> None:
    """Shards of random unit rows; one block of random rows is repeated, drawing two million would take minutes."""
    rng = np.random.default_rng(0)
    block = unit_rows(rng, min(rows, 50_000), DIM).astype(np.float16)
    for number, start in enumerate(range(0, rows, SHARD)):
        size = min(SHARD, rows - start)
        shard = np.lib.format.open_memmap(folder / f"{number:02}.npy", "w+", np.float16, (size, DIM))
        for at in range(0, size, len(block)):
            shard[at : at + len(block)] = np.roll(block, number + at, axis=0)[: size - at]


def label(folder: Path) -> None:
    """What the measured process does; it prints its memory in MiB as JSON."""
    from clipsieve.index.label import Labelling
    from clipsieve.index.label import label as label_rows
    from clipsieve.index.rows import Rows
    from clipsieve.types import MetaClass

    before = status()
    peak = {"anonymous_mib": 0, "not_files_mib": 0, "resident_mib": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            now = status()
            found = (now["RssAnon"], now["VmRSS"] - now["RssFile"], now["VmRSS"])
            for name, value in zip(peak, found, strict=True):
                peak[name] = max(peak[name], value)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    blocks, start = [], 0
    for path in sorted(folder.glob("*.npy")):
        array = np.load(path, mmap_mode="r")
        blocks.append((range(start, start + len(array)), array))
        start += len(array)
    vectors = tuple(classes_of(np.random.default_rng(1), 20, 5, 5, DIM))
    texts = [str(i) for i in range(5)]
    classes = tuple(MetaClass(v.name, texts, texts) for v in vectors)
    counts = label_rows(
        Rows(DIM, blocks), Labelling(vectors, classes), folder / "out", lambda ids: [f"image_{i}.jpg" for i in ids]
    )
    done.set()
    watcher.join()
    assert sum(counts.values()) == start
    found = {"rows": start, "peak_mib": status()["VmHWM"], **peak, "before": before, "labelled": len(counts)}
    print(json.dumps(found))


def status() -> dict[str, int]:
    """The process's memory as the system counts it, in MiB."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    return {words[0][:-1]: int(words[1]) // 1024 for words in lines if words[0].startswith(("Rss", "VmRSS", "VmHWM"))}


def main() -> None:
    """Measure, print, keep."""
    if len(sys.argv) == 3 and sys.argv[1] == "--label":
        label(Path(sys.argv[2]))
        return
    args = arguments("Memory of labelling.")
    rows = 20_000 if args.quick else 2_000_000
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < rows * DIM * 3:  # float16, and half as much again for the labels and for others
        sys.exit(f"{tempfile.gettempdir()} has {free >> 20} MiB free; give another folder with --scratch.")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), rows)
        command = [sys.executable, "-m", "benchmarks.memory", "--label", folder]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    keep(args, "memory", found)


if __name__ == "__main__":
    main()
