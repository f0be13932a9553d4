"""What answers of an approximate index state of their recall, less what they find: by kind of question.

    python -m benchmarks.recall [--quick] [--cifar FILE] [--vectors FOLDER] [--only made scenes photographs] [--why]

Three sets: vectors made with texts away from images; drawn scenes embedded by the demo model, with noisy copies; and
photographs (--cifar: a Parquet file with a column "image"), likewise. Each is indexed as `clipsieve index` does. Then
it is asked with images that are not in it, texts that were not used to tune, and filters that leave cells of the
space, as labels do. The vectors that a model made are kept in the folder --vectors. With --why it measures what efforts
find and what filters cost, instead.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measuring import RAW, keep, parser_of, set_scratch, unit
from clipsieve.index import faiss_index, query
from clipsieve.index.asked_kinds import Pool, make_questions
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.faiss_index import FaissIndex
from clipsieve.index.kinds import Shape, Source, sample_of, shapes_of
from clipsieve.index.measure import EffortNeeded, ask, recall_of
from clipsieve.index.opened import Opened
from clipsieve.index.rows import Rows
from clipsieve.index.rule import Question
from clipsieve.index.scan import scan_topk
from clipsieve.manifest import Manifest
from clipsieve.types import ClassVectors, Embeddings, Float32, ModelId
from clipsieve.writer import open_writer

LISTS = 1024
CELLS = 10
KS = (20, 40, 100)
FAR_BELOW = 0.05
HELD_OUT = 400
"""Images that are asked with and are not in the set."""


@dataclass(frozen=True, slots=True, eq=False)
class Set:
    """What is indexed, float32 (n, d), and what it is asked with, (h, d) and (t, d), unit rows."""

    vectors: Float32
    images: Float32
    texts: Float32
    embed: Callable[[Sequence[str]], Float32]
    model: ModelId


def main() -> None:
    """Measure, print, keep."""
    parser = parser_of(__doc__ or "")
    parser.add_argument("--cifar", type=Path, help="Parquet file of photographs, in the column image")
    parser.add_argument("--vectors", type=Path, help="folder that keeps the vectors of images between runs")
    parser.add_argument("--only", nargs="+", choices=("made", "scenes", "photographs"), help="these sets alone")
    parser.add_argument("--why", action="store_true", help="what efforts find, and what filters cost, instead")
    args = parser.parse_args()
    set_scratch(args)
    rows, asked = (5_000, 24) if args.quick else (50_000, 60)
    record: dict[str, dict[str, Any]] = {}
    for name, made in _sets(args, rows):
        if args.only is None or name in args.only:
            start = time.perf_counter()
            factory = f"IVF{64 if args.quick else LISTS},SQfp16"
            if args.why:
                _explain(name, made(), factory)
                continue
            record[name] = measure(made(), factory, asked)
            record[name]["seconds"] = time.perf_counter() - start
            _say(name, record[name])
    if record and (args.raw != RAW or len(record) == 3):
        keep(args, "recall", {"sets": record})


def measure(which: Set, factory: str, asked: int) -> dict[str, Any]:
    """Index the set and ask it: answers by kind, and how many of them a scan gave."""
    found: dict[str, list[tuple[float, float]]] = {}
    scanned: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        keys = tuple(f"{i}.jpg" for i in range(len(which.vectors)))
        with open_writer(folder, Manifest(which.model, which.vectors.shape[1])) as writer:
            writer.append(Embeddings(which.vectors, keys, which.model))
        start = time.perf_counter()
        (built,) = build_indices(folder, factory=factory, texts=which.embed)
        indexed = time.perf_counter() - start
        with open_collection(folder) as collection:
            opened = Opened.of(Path(folder))
            rows, scan = opened.rows("image"), opened.scan("image")
            for source, question in _questions(which, rows, asked):
                shapes = shapes_of(question, lambda: sample_of(rows))
                kind = f"{source}: {', '.join(sorted(shapes))}"
                index, recall = opened.index_for("image", question, {source})
                answer = query.search(question, rows, index, recall, scan=scan)
                if answer.claim != "complete":
                    scanned[kind] = scanned.get(kind, 0) + 1
                    continue
                (truth,), _ = scan_topk(rows, [question])
                found.setdefault(kind, []).append((answer.recall or 0.0, recall_of(answer.ranked, truth)))
            opened.close()
            assert collection.count == len(keys)
    return {
        "rows": len(which.vectors),
        "dim": which.vectors.shape[1],
        "kind": factory,
        "index_seconds": indexed,
        "kinds": built.entry.parameters["kinds"],
        "answers": found,
        "scanned": scanned,
    }


def _questions(which: Set, rows: Rows, asked: int) -> Iterator[tuple[Source, Question]]:
    rng = np.random.default_rng(77)
    cells = _cells(rows, rng)
    pools: dict[Source, Pool] = {"image": _pool(which.images), "text": _pool(which.texts)}
    shapes: tuple[Shape, ...] = ("one", "several", "negative")
    for number, (source, shape, k) in enumerate(itertools.product(pools, shapes, KS)):
        for made in make_questions(pools[source], shape, asked // 3, k, rows, 1_000 + number):
            yield source, made.question
    for source, k in itertools.product(pools, KS):
        for vector in pools[source].vectors[rng.integers(0, len(pools[source].vectors), asked)]:
            kept = rng.choice(CELLS, int(rng.integers(1, 6)), replace=False)
            only = np.flatnonzero(np.isin(cells, kept))
            yield (
                source,
                Question(ClassVectors("q", vector[None], vector[:0].reshape(0, rows.dim), which.model), k, only=only),
            )


def _explain(name: str, which: Set, factory: str) -> None:
    """Print the share of the best 40 in the lists that an effort visits, mean and 5% quantile; and milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "rows.npy", which.vectors.astype(np.float16))
        stored = np.load(Path(folder) / "rows.npy", mmap_mode="r")
        rows = Rows(stored.shape[1], [(range(len(stored)), stored)])
        index = faiss_index.train_and_build(factory, rows)
        needs = EffortNeeded(index)
        efforts = [index.most_effort // part for part in (64, 16, 8, 4, 2)]
        print(f"{name}: {factory}, lists visited {efforts}")
        for source, vectors in (("image", which.images), ("text", which.texts)):
            for shape in get_args(Shape):
                asked = ask(_pool(vectors), shape, 40, rows, 5)
                needed = [need for need in needs(asked) if len(need)]
                shares = np.array([[(need <= effort).mean() for effort in efforts] for need in needed])
                low = np.quantile(shares, 0.05, axis=0)
                print(
                    f"  {source + ', ' + shape:18}",
                    *(f"{m:.3f}/{q:.2f}" for m, q in zip(shares.mean(0), low, strict=True)),
                )
        questions = [made.question for made in make_questions(_pool(which.images), "one", 15, 40, rows, 6)]
        print(f"  all rows read: {_milliseconds(questions, rows, None):.1f} ms")
        for effort in efforts:
            tried = dataclasses.replace(index, effort=effort)
            print(f"  {effort} lists: {_milliseconds(questions, rows, tried):.1f} ms")
        for share in (0.02, 0.05, 0.1, 0.2, 0.4):
            only = np.flatnonzero(np.random.default_rng(9).random(rows.count) < share)
            some = [dataclasses.replace(question, only=only) for question in questions]
            tried = dataclasses.replace(index, effort=efforts[-2])
            print(
                f"  a filter of {share:.0%}: scored directly {_milliseconds(some, rows, None):.1f} ms, "
                f"searched in {tried.effort} lists {_milliseconds(some, rows, tried):.1f} ms"
            )


def _milliseconds(questions: Sequence[Question], rows: Rows, index: FaissIndex | None) -> float:
    took = []
    for question in questions:
        start = time.perf_counter()
        query.search(question, rows, index, 0.9)
        took.append(time.perf_counter() - start)
    return statistics.median(took) * 1000


def _pool(vectors: Float32) -> Pool:
    return Pool(vectors, np.full(len(vectors), -1), np.zeros(len(vectors), np.int64))


def _cells(rows: Rows, rng: np.random.Generator) -> np.ndarray:
    """Each row's nearest of a few random rows: int64 (n,). What is labelled alike lies so."""
    centres = rows.take(rng.choice(rows.count, CELLS, replace=False))
    return np.concatenate([(vectors @ centres.T).argmax(axis=1) for _, vectors in rows.blocks()])


def _sets(args: argparse.Namespace, rows: int) -> Iterator[tuple[str, Callable[[], Set]]]:
    yield "made", lambda: _made(rows)
    if args.cifar is not None:
        yield "photographs", lambda: _photographs(args.cifar, args.vectors, 2 * rows)
    yield "scenes", lambda: _scenes(args.vectors, rows)


def _made(rows: int) -> Set:
    dim, rng = 64, np.random.default_rng(0)
    centres, gap = rng.standard_normal((500, dim)), np.full(dim, 9 / dim**0.5)
    near = centres[rng.integers(0, 500, rows + HELD_OUT)] * np.exp(rng.normal(0, 0.5, (rows + HELD_OUT, 1)))
    images = unit((near + 0.5 * rng.standard_normal(near.shape) + gap).astype(np.float32))

    def texts(count: int, seed: int) -> Float32:
        return unit((np.random.default_rng(seed).standard_normal((count, dim)) - gap).astype(np.float32))

    def embed(asked: Sequence[str]) -> Float32:
        return texts(len(asked), sum(map(len, asked)))

    return Set(images[HELD_OUT:], images[:HELD_OUT], texts(HELD_OUT, 10**6), embed, ModelId("made", "0", "none"))


def _photographs(file: Path, folder: Path | None, rows: int) -> Set:
    from clipsieve.inference.mini.captions import CLASSES, describe_class

    rng = np.random.default_rng(5)
    texts = [describe_class(rng, CLASSES[i % len(CLASSES)]) for i in range(HELD_OUT)]
    return _embedded("photographs", folder, lambda: _images_of(file, rows // 2), texts, rows)


def _images_of(file: Path, count: int) -> list[bytes]:
    images = pq.read_table(file, columns=["image"]).column("image").to_pylist()
    return [image["bytes"] if isinstance(image, dict) else image for image in images[: count + HELD_OUT]]


def _scenes(folder: Path | None, rows: int) -> Set:
    import io

    from clipsieve.inference.mini.captions import describe
    from clipsieve.inference.mini.scenes import COLOURS, SHAPES, Ask, Part, render, sample_scene

    rng = np.random.default_rng(6)

    def draw() -> list[bytes]:
        drawn = []
        for _ in range(rows // 20 + HELD_OUT):
            file = io.BytesIO()
            render(sample_scene(rng), 64).save(file, "PNG")
            drawn.append(file.getvalue())
        return drawn

    colours, words = list(COLOURS), np.random.default_rng(7)
    texts = [
        describe(words, Ask((Part(colours[words.integers(len(colours))], SHAPES[words.integers(len(SHAPES))]),)))
        for _ in range(HELD_OUT)
    ]
    return _embedded("scenes", folder, draw, texts, rows)


def _embedded(name: str, folder: Path | None, images: Callable[[], list[bytes]], texts: list[str], rows: int) -> Set:
    """The images by the demo model, and noisy copies until there are enough rows."""
    from clipsieve.opening import load_model

    model = load_model("mini")
    kept = None if folder is None else folder / f"{name}_{rows}.npy"
    if kept is not None and kept.exists():
        vectors: Float32 = np.load(kept)
    else:
        vectors = model.embed_images(images())
        if kept is not None:
            np.save(kept, vectors)
    rng = np.random.default_rng(8)
    own = vectors[HELD_OUT:]
    copies = np.tile(own, (-(-rows // len(own)), 1))[:rows]
    noise = 0.3 / copies.shape[1] ** 0.5 * rng.uniform(0.3, 1.5, (len(copies), 1)) * rng.standard_normal(copies.shape)
    noise[: len(own)] = 0
    return Set(
        unit((copies + noise).astype(np.float32)),
        vectors[:HELD_OUT],
        model.embed_texts(texts),
        model.embed_texts,
        model.model,
    )


def _say(name: str, record: dict[str, Any]) -> None:
    print(f"{name}: {record['rows']:,} x {record['dim']}, {record['kind']}, {record['seconds']:.0f} s")
    everything = []
    for kind in sorted(record["answers"].keys() | record["scanned"].keys()):
        answers = np.array(record["answers"].get(kind, [])).reshape(-1, 2)
        read = record["scanned"].get(kind, 0)
        if len(answers):
            stated, measured = answers.mean(axis=0)
            below = float((answers[:, 1] < answers[:, 0] - FAR_BELOW).mean())
            print(
                f"  {kind:28} stated {stated:.3f} measured {measured:.3f} ratio {measured / stated:.3f} "
                f"far below {below:.1%} of {len(answers)}, {read} exact"
            )
            everything.append(answers)
        else:
            print(f"  {kind:28} {read} exact")
    if everything:
        answers = np.concatenate(everything)
        less, below = (answers[:, 0] - answers[:, 1]).mean(), (answers[:, 1] < answers[:, 0] - FAR_BELOW).mean()
        print(f"  all: stated less measured {less:+.4f} (at most 0.01), far below {below:.1%} (at most 5%)")


if __name__ == "__main__":
    main()
