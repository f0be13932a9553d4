"""Kill a collection's writers at random instants, and see that nothing is lost, doubled or half there.

    python -m benchmarks.faults [--kills 200] [--seed 0]

A process makes, adds to, indexes, compacts or labels a small collection of real files, and sends itself SIGKILL right
before its n-th change of the file system below the collection that Python makes: opening a file for writing, renaming,
linking, removing. After each kill `check` must find no problem, every item that was committed must be there once under
its id, and the same command must then finish.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from PIL import Image

from clipsieve.index.check import check
from clipsieve.manifest import NAME, read_manifest
from clipsieve.shards import read_metadata, read_removed
from clipsieve.writer import open_writer

STEPS = {"inference": (29, 20), "add": (18, 29), "index": (8, 29), "label": (8, 29), "compact": (27, 24)}
"""Step -> how many changes it makes, and how many items there are after it."""


def work(step: str, images: Path, folder: Path) -> None:
    """One step, in the process that may be killed."""
    from clipsieve.index.build import build_indices
    from clipsieve.index.compact import compact
    from clipsieve.inference.add import add_to_collection
    from clipsieve.inference.fake import FakeEmbedder
    from clipsieve.inference.reader import open_source
    from clipsieve.inference.run import embed_collection
    from clipsieve.opening import open_collection
    from clipsieve.types import ClassSet, MetaClass

    if step == "inference":
        embed_collection(open_source(images), FakeEmbedder(), folder, batch_size=4, shard_size=8)
    elif step == "add":
        add_to_collection(open_source(images), lambda _: FakeEmbedder(), folder, batch_size=4, shard_size=8)
    elif step == "index":
        build_indices(folder, factory="IVF2,Flat")
    elif step == "compact":
        compact(folder)
    else:
        with open_collection(folder, embedder=FakeEmbedder()) as photos:
            photos.label(ClassSet([MetaClass("a", ["a"]), MetaClass("b", ["b"])]), folder.parent / "labels.parquet")


def kill_before(count: int, below: str) -> None:
    """SIGKILL this process before its `count`-th change of the file system below a folder."""
    left = count

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal left
        if event == "open":
            change = isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR)
        else:
            change = event in ("os.rename", "os.remove", "os.link", "os.mkdir", "os.truncate")
        if change and any(os.fspath(g).startswith(below) for g in given if isinstance(g, str | Path)):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def attempt(step: str, images: Path, folder: Path, count: int) -> bool:
    """Run a step in a process of its own; whether it was killed. RuntimeError if it failed by itself."""
    words = [sys.executable, "-m", "benchmarks.faults", "--step", step, str(images), str(folder), str(count)]
    ended = subprocess.run(words, capture_output=True, text=True)
    if ended.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{step} failed after a kill:\n{ended.stderr}")
    return ended.returncode != 0


def committed(folder: Path) -> dict[str, int]:
    """Key -> id of the items that count. AssertionError if one is there twice."""
    manifest = read_manifest(folder)
    gone = set(read_removed(folder, manifest).tolist())
    found: dict[str, int] = {}
    for shard in manifest.shards:
        if shard.rows:
            for row in read_metadata(folder, shard, ["id", "key"]).to_pylist():
                if row["id"] not in gone:
                    assert row["key"] not in found, f"{row['key']} is there twice"
                    found[row["key"]] = row["id"]
    return found


def require_whole(folder: Path, before: dict[str, int]) -> dict[str, int]:
    """What is committed now. AssertionError unless all is well and `before` is still there under the same ids."""
    if not (folder / NAME).exists():
        assert not before
        return {}
    problems = check(folder).problems
    assert not problems, problems
    now = committed(folder)
    for key, id in before.items():
        assert now.get(key) == id, f"{key} had the id {id} and has {now.get(key)}"
    return now


def draw(images: Path, name: str, rng: random.Random) -> None:
    """A picture of one random colour."""
    images.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (rng.randrange(256), rng.randrange(256), rng.randrange(256))).save(images / name)


def run(kills: int, seed: int, scratch: Path) -> Counter[str]:
    """Kill so many times or a few more; how often in each step. AssertionError or RuntimeError says what went wrong."""
    rng, done, number = random.Random(seed), Counter[str](), 0
    while done.total() < kills:
        top = scratch / str(number)
        images, folder, number = top / "images", top / "c", number + 1
        for i in range(20):
            draw(images, f"{i:02}.png", rng)
        (images / "broken.jpg").write_bytes(b"?")
        for step, (changes, items) in STEPS.items():
            before, replaced = require_whole(folder, {}), {}
            if step == "add":
                changed = [f"{i:02}.png" for i in rng.sample(range(20), 3)]
                for name in [*changed, *(f"new{i}.png" for i in range(9))]:
                    draw(images, name, rng)
                replaced = {name: before.pop(name) for name in changed}
            if step == "compact":
                gone = rng.sample(sorted(before), 5)
                with open_writer(folder) as writer:
                    writer.remove([before.pop(key) for key in gone])
            if attempt(step, images, folder, rng.randint(1, changes)):
                done[step] += 1
                now = require_whole(folder, before)
                before = {key: id for key, id in now.items() if replaced.get(key) != id}
                attempt(step, images, folder, 0)
            now = require_whole(folder, before)
            assert len(now) == items, f"{len(now)} items after {step}, not {items}"
        shutil.rmtree(top)
    return done


def main() -> None:
    """Print how many kills each step survived."""
    if "--step" in sys.argv:
        _, _, step, images, folder, count = sys.argv
        if int(count):
            kill_before(int(count), str(Path(folder).parent / "c") if step != "label" else str(Path(folder).parent))
        work(step, Path(images), Path(folder))
        return
    parser = argparse.ArgumentParser(description="Kill a collection's writers at random instants.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        done = run(args.kills, args.seed, Path(scratch))
    print(json.dumps({"kills": done.total(), **done}))


if __name__ == "__main__":
    main()
