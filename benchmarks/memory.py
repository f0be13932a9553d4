"""Labelling two million float16 rows from disk: how much memory does it take?

    python -m benchmarks.memory [--quick]

2,000,000 x 512 float16 in shards of 250,000 on disk (2 GB in the folder for temporary files), 20 classes x (5 + 5), to
Parquet. Shown is the greatest resident memory of the labelling process, and of it what is not a mapped file.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.measuring import arguments, classes_of, keep, say, unit_rows

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
    from clipsieve.index.scan import Rows
    from clipsieve.types import MetaClass

    peak = {"RssAnon": 0}
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            peak["RssAnon"] = max(peak["RssAnon"], status("RssAnon"))

    threading.Thread(target=watch, daemon=True).start()
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
    assert sum(counts.values()) == start
    print(json.dumps({"anonymous_mib": peak["RssAnon"], "peak_mib": status("VmHWM"), "rows": start}))


def status(field: str) -> int:
    """A line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field + ":"))


def main() -> None:
    """Measure, print, keep."""
    if len(sys.argv) == 3 and sys.argv[1] == "--label":
        label(Path(sys.argv[2]))
        return
    args = arguments("Memory of labelling.")
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), 20_000 if args.quick else 2_000_000)
        command = [sys.executable, "-m", "benchmarks.memory", "--label", folder]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    say(f"labelling {found['rows']} x {DIM} float16 from disk, peak resident MiB", found["peak_mib"], most=1024)
    say("  of it not a mapped file, MiB", found["anonymous_mib"], most=1024)
    keep(args, "memory", found)


if __name__ == "__main__":
    main()
