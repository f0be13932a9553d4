"""A collection that grows: what adding one percent costs over making it all, and whether searches notice.

    python -m benchmarks.growing [--quick] [--scratch FOLDER]

200,000 tiny image files go through the real pipeline with a model that looks their vectors up, so that its time does
not count. In each of five rounds the collection is made and indexed anew, 2,000 files are added and indexed, one item
and 2,000 are removed, and what was added and removed is asked for at once. In the last round twenty times 2,000 files
are added without indexing; then recall is compared with that of a collection made of all at once, and the time of a
question with those of earlier commits, which are still open. A gigabyte goes into the folder for temporary files.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.measuring import MODEL, alternate, arguments, clustered, keep, unit_rows
from clipsieve.index.build import build_indices
from clipsieve.index.collection import Collection
from clipsieve.inference.add import add_to_collection
from clipsieve.inference.checkpoint import Tensors
from clipsieve.inference.decode import decode
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import Manifest
from clipsieve.opening import open_collection
from clipsieve.types import Embeddings, Float32, Hit, MetaClass
from clipsieve.writer import open_writer

DIM, K, PER_FOLDER = 512, 40, 1_000
SPREAD = 2.2
"""Of the rows around their centres: so much that an index misses some of the nearest."""

_T = TypeVar("_T")


class Lookup:
    """A StagedEmbedder and TextEmbedder that makes nothing: image and text say which row of a table is their vector."""

    def __init__(self, vectors: npt.NDArray[np.float16], queries: Float32) -> None:
        self.model, self.dim, self.lanes = MODEL, vectors.shape[1], 1
        self._vectors, self._queries = vectors, queries

    def preprocess(self, data: bytes) -> Tensors:
        """See embedder.StagedEmbedder."""
        return self.preprocess_image(decode(data))

    def preprocess_image(self, image: Image.Image) -> Tensors:
        """See embedder.StagedEmbedder."""
        return {"number": np.array(int.from_bytes(image.tobytes()[:3], "big") % len(self._vectors))}

    pixels = None

    def from_pixels(self, pixels: Float32) -> list[Tensors]:
        """It takes none."""
        raise NotImplementedError

    def embed_tensors(self, batch: Sequence[Tensors]) -> Float32:
        """See embedder.StagedEmbedder."""
        return self._vectors[[one["number"] for one in batch]].astype(np.float32)

    def embed_images(self, images: Sequence[bytes]) -> Float32:
        """See protocols.ImageEmbedder."""
        return self.embed_tensors([self.preprocess(data) for data in images])

    def embed_texts(self, texts: Sequence[str]) -> Float32:
        """Of "item 17" the vector of that item, of "query 17" another one, of anything else the first."""
        rows = []
        for text in texts:
            what, _, number = text.partition(" ")
            table = self._vectors if what == "item" else self._queries
            rows.append(table[int(number) if number.isdecimal() else 0].astype(np.float32))
        return np.stack(rows) if rows else np.zeros((0, self.dim), np.float32)


def write_images(folder: Path, numbers: range) -> None:
    """One file for each number, whose only pixel says it."""
    for number in numbers:
        path = folder / f"{number // PER_FOLDER:04}" / f"{number:07}.ppm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"P6 1 1 255\n" + number.to_bytes(3, "big"))


def key_of(number: int) -> str:
    """Of the item of that file."""
    return f"{number // PER_FOLDER:04}/{number:07}.ppm"


class Rig:
    """The files, the model and the sizes of one run, and how long each step took."""

    def __init__(self, scratch: Path, quick: bool) -> None:
        self.base, self.step, self.adds = (2_000, 20, 3) if quick else (200_000, 2_000, 20)
        self.factory = "IVF16,SQfp16" if quick else None  # so few would be read in order otherwise
        self.dim = 64 if quick else DIM
        self.scratch, self.images = scratch, scratch / "images"
        rng = np.random.default_rng(0)
        centres = unit_rows(rng, self.base // 200, self.dim)
        total = self.base + self.adds * self.step
        self.vectors = np.empty((total, self.dim), np.float16)
        for start in range(0, total, 10_000):
            size = min(10_000, total - start)
            self.vectors[start : start + size] = clustered(rng, size, self.dim, centres, SPREAD)
        self.queries = clustered(rng, 200, self.dim, centres, SPREAD)
        self.embedder = Lookup(self.vectors, self.queries)
        self.seconds: dict[str, list[float]] = {}
        write_images(self.images, range(self.base))

    def timed(self, what: str, work: Callable[[], _T]) -> _T:
        """Do it, and keep the seconds that it took."""
        began = time.perf_counter()
        result = work()
        self.seconds.setdefault(what, []).append(time.perf_counter() - began)
        return result

    def make(self, folder: Path, count: int) -> None:
        """The collection of the first `count` files, which must be all there are, with its index."""
        shutil.rmtree(folder, ignore_errors=True)
        suffix = "" if count == self.base else "_all"
        embed = self.timed(f"embed{suffix}", lambda: embed_collection(open_source(self.images), self.embedder, folder))
        assert embed.embedded == count, embed
        self.index(folder, f"index{suffix}")

    def index(self, folder: Path, what: str) -> None:
        """Make or extend the index."""
        self.timed(what, lambda: build_indices(folder, factory=self.factory))

    def add(self, folder: Path, numbers: range) -> None:
        """Write these files and add them."""
        write_images(self.images, numbers)
        added = self.timed("add", lambda: add_to_collection(open_source(self.images), lambda _: self.embedder, folder))
        assert (added.embedded, added.same) == (len(numbers), numbers.start), added

    def open(self, folder: Path) -> Collection:
        """The collection, ready to answer."""
        photos = open_collection(folder, embedder=self.embedder)
        ask(photos, "query 0")
        return photos

    def recall(self, photos: Collection) -> float:
        """Which share of the true best K the questions find."""
        count = photos.count
        truth = best(self.vectors[:count], self.queries)
        found = [[hit.key for hit in ask(photos, f"query {i}")] for i in range(len(self.queries))]
        hits = sum(len({key_of(n) for n in t} & set(f)) for t, f in zip(truth.tolist(), found, strict=True))
        return hits / truth.size


def ask(photos: Collection, *texts: str, k: int = K) -> Sequence[Hit]:
    """The hits of a question."""
    return photos.search(MetaClass("asked", list(texts)), k=k).hits


def best(vectors: npt.NDArray[np.float16], queries: Float32) -> npt.NDArray[np.int64]:
    """The rows of the K greatest inner products of each query, int64 (m, K), in no order."""
    rows = np.zeros((len(queries), 0), np.int64)
    scores = np.zeros((len(queries), 0), np.float32)
    for start in range(0, len(vectors), 20_000):
        block = vectors[start : start + 20_000].astype(np.float32)
        scores = np.concatenate([scores, queries @ block.T], axis=1)
        numbers = np.arange(start, start + len(block))
        rows = np.concatenate([rows, np.broadcast_to(numbers, (len(queries), len(block)))], axis=1)
        kept = np.argpartition(-scores, K - 1, axis=1)[:, :K]
        rows, scores = np.take_along_axis(rows, kept, axis=1), np.take_along_axis(scores, kept, axis=1)
    return rows


def one_percent(rig: Rig, folder: Path) -> None:
    """Make the collection, then add to it, ask, remove, ask and index, each timed."""
    rig.make(folder, rig.base)
    new = range(rig.base, rig.base + rig.step)
    with rig.open(folder) as photos:
        rig.add(folder, new)
        rig.timed("refresh", photos.refresh)
        hits = rig.timed("ask_after_add", lambda: ask(photos, f"item {new[-1]}"))
        assert hits[0].key == key_of(new[-1])
        rig.timed("remove_one", lambda: photos.remove([hits[0].id]))
        hits = rig.timed("ask_after_remove", lambda: ask(photos, f"item {new[-1]}"))
        assert hits[0].key != key_of(new[-1])
        rig.timed("remove_many", lambda: photos.remove(range(rig.step)))
        assert photos.count == rig.base - 1
    rig.index(folder, "extend")
    for number in new:
        (rig.images / key_of(number)).unlink()


def many_percent(rig: Rig, folder: Path, rounds: int) -> dict[str, object]:
    """Add many times without indexing: recall, and the time of questions, beside those of a collection made at once."""
    rig.make(folder, rig.base)
    total = rig.base + rig.adds * rig.step
    opened = {"covered": rig.open(folder)}
    for start in range(rig.base, total, rig.step):
        rig.add(folder, range(start, start + rig.step))
        if start == rig.base:
            opened["one_percent_not_covered"] = rig.open(folder)
    grown = opened["many_percent_not_covered"] = rig.open(folder)
    recall = {"grown": rig.recall(grown)}
    build_indices(folder, factory=rig.factory)
    with rig.open(folder) as photos:
        recall["grown_and_indexed"] = rig.recall(photos)
    fresh = folder.with_name("fresh")
    rig.make(fresh, total)
    opened["made_at_once"] = rig.open(fresh)
    recall["made_at_once"] = rig.recall(opened["made_at_once"])
    opened["half_removed"] = rig.open(fresh)
    opened["half_removed"].remove(range(0, total, 2))
    texts = [f"query {i}" for i in range(5)]
    asked = {name: partial(ask, photos, *texts) for name, photos in opened.items()}
    seconds = alternate(asked, rounds)
    for photos in opened.values():
        photos.close()
    return {"recall": recall, "question_seconds": seconds}


def many_shards(scratch: Path, quick: bool, rounds: int) -> dict[str, list[float]]:
    """Seconds of opening the same rows in one shard and in a thousand."""
    shards = 20 if quick else 1_000
    vectors = unit_rows(np.random.default_rng(0), 2 * shards, 64)
    folders = {"one_shard": scratch / "one", "many_shards": scratch / "many"}
    for name, folder in folders.items():
        size = len(vectors) if name == "one_shard" else 2
        with open_writer(folder, Manifest(MODEL, 64)) as writer:
            for at in range(0, len(vectors), size):
                keys = tuple(str(i) for i in range(at, at + size))
                writer.append(Embeddings(vectors[at : at + size], keys, MODEL))
    return alternate({name: partial(open_and_close, folder) for name, folder in folders.items()}, rounds)


def open_and_close(folder: Path) -> None:
    """What every command does at least."""
    open_collection(folder).close()


def main() -> None:
    """Measure, print, keep."""
    args = arguments("A growing collection.")
    rounds = 1 if args.quick else 5
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        rig = Rig(scratch, args.quick)
        for number in range(rounds):
            one_percent(rig, scratch / "c")
            print(number, {what: round(seconds[-1], 3) for what, seconds in rig.seconds.items()}, flush=True)
        record = many_percent(rig, scratch / "c", 2 if args.quick else 15)
        record["opening_seconds"] = many_shards(scratch, args.quick, 2 if args.quick else 9)
    keep(args, "growing", {"rows": rig.base, "added": rig.step, "adds": rig.adds, "seconds": rig.seconds, **record})


if __name__ == "__main__":
    main()
