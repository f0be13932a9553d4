"""What marks teach: average precision as a simulated user marks items, scenes and CIFAR-10's test images.

    python -m benchmarks.learning --cifar cifar10-test.parquet [--quick]

A user begins with a text, is shown five items at a time, in an order of review or at random, and says of each whether
it is of the class, always truthfully. What is made of the marks is the library's own: `Collection.review` proposes
examples, `Collection.learn` learns a direction. Average precision is that of the items of which nothing was said; what
the text alone reaches on the very same items is kept beside it.

The classes were written down before their figures were known, and what is learned was tuned on other scenes, other
classes and CIFAR-10's training images. A ceiling tells what the vectors hold: the same learning from the true labels of
400 random items, judged on half of the collection that they are not of.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.demo_model import embed, jpegs
from benchmarks.measuring import RAW, keep
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.evaluate import Bools, average_precision
from clipsieve.index.learn import LEAST_MARKS, MOST_MARKS
from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from clipsieve.inference.mini.captions import GROUPS, fill
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, SIZES, TEXTURES, Ask, Part, Scene, sample_scene
from clipsieve.manifest import Manifest
from clipsieve.types import ClassSet, Embeddings, Example, MetaClass
from clipsieve.writer import open_writer

SEED = 20_261_122
STEPS = (0, 5, 20, 50)
PAGE = 5
"""Items shown at a time."""

WEAK = 0.6
LEAST_RELEVANT = 25

WAYS = {
    "examples, review": ("examples", "doubtful"),
    "examples, random": ("examples", "random"),
    "learned, review": ("learned", "doubtful"),
    "learned, spread": ("learned", "spread"),
    "learned, random": ("learned", "random"),
}
"""What becomes of marks, and the order in which they are asked for."""


@dataclass(frozen=True, slots=True)
class Case:
    """A class, how it begins, and which items are of it."""

    kind: str
    name: str
    positive: tuple[str, ...]
    negative: tuple[str, ...]
    right: Bools


def scene_cases(scenes: Sequence[Scene], rng: np.random.Generator, per_kind: int) -> Iterator[Case]:
    """What the demo model's texts are weak at, and groups that a user may have a word for and the model has none."""

    def case(kind: str, text: str, is_right: Callable[[Scene], bool], but_not: str | None = None) -> Case:
        right = np.array([is_right(scene) for scene in scenes])
        return Case(
            kind, text if but_not is None else f"{text}, not {but_not}", (text,), tuple(filter(None, [but_not])), right
        )

    def one(values: Sequence[str]) -> str:
        return str(rng.choice(list(values)))

    def shows(**wanted: Any) -> Callable[[Scene], bool]:
        return Ask((Part(**wanted),)).matches

    textures = [texture for texture in TEXTURES if texture != "plain"]
    for _ in range(per_kind):
        shape, other = (str(s) for s in rng.choice(SHAPES, 2, replace=False))
        colour, texture, size = one(list(COLOURS)), one(textures), one(list(SIZES))
        row, column = one(("top", "bottom")), one(("left", "right"))
        yield case("texture", fill("a {}", f"{texture} {shape}"), shows(shape=shape, texture=texture))
        yield case("size", f"a {size} {other}", shows(shape=other, size=size))
        yield case("count", f"two {colour} things", shows(colour=colour, count=2))
        yield case("place", f"{fill('a {}', shape)} at the {row} {column}", shows(shape=shape, row=row, column=column))
        first, second = shows(colour=colour), shows(shape=shape)
        yield case(
            "but not",
            f"something {colour}",
            lambda scene, first=first, second=second: first(scene) and not second(scene),  # type: ignore[misc]
            fill("a {}", shape),
        )
    for word, attribute, values in (
        ("something cool", "colour", ("blue", "cyan", "green")),
        ("a pale thing", "colour", ("white", "pink", "yellow")),
        ("a traffic light", "colour", ("red", "yellow", "green")),
        ("something round", "shape", ("circle", "ring")),
        ("a playing card", "shape", ("heart", "diamond")),
        ("weather", "shape", ("bolt", "crescent")),
    )[:per_kind]:
        yield case(
            "group",
            word,
            lambda scene, a=attribute, v=values: any(getattr(thing, a) in v for thing in scene.objects),  # type: ignore[misc]
        )


def cifar_cases(labels: Sequence[str]) -> Iterator[Case]:
    """Synonyms and groups that the demo model knows, and words that it does not."""
    known = {"synonym": {"ostrich": "bird", "tabby": "cat", "big rig": "truck", "steed": "horse", "hound": "dog"}}
    groups = {name: GROUPS[name] for name in ("mammal", "road vehicle", "flying thing", "pet", "animal")}
    odd = {
        "something with a tail": ("cat", "dog", "horse"),
        "something with wheels": ("automobile", "truck"),
        "something that croaks": ("frog",),
        "a thing one rides": ("horse",),
        "at sea": ("ship",),
        "in the sky": ("airplane", "bird"),
        "something with antlers": ("deer",),
        "fur": ("cat", "dog"),
    }
    truth = np.array(labels)
    for word, name in known["synonym"].items():
        yield Case("synonym", word, (fill("a photo of a {}", word),), (), truth == name)
    for word, names in groups.items():
        yield Case("superclass", word, (fill("a photo of a {}", word),), (), np.isin(truth, list(names)))
    for word, members in odd.items():
        yield Case("odd wording", word, (word,), (), np.isin(truth, members))


class User:
    """Somebody who marks, and what has become of the class."""

    def __init__(self, photos: Collection, case: Case, way: tuple[str, str], seed: int) -> None:
        self.photos, self.case = photos, case
        self.teaching, self.asking = way
        self.rng = np.random.default_rng((SEED, seed))
        self.right: list[int] = []
        self.wrong: list[int] = []
        self.classes = ClassSet([MetaClass(case.name, case.positive, case.negative)], "background")
        self.learned: Any = None
        self.text = self.ranking()

    def look(self) -> None:
        """Mark a page of items, and let that have its effect."""
        said = [*self.right, *self.wrong]
        if self.asking == "random":
            shown = self.rng.permutation(np.setdiff1d(np.arange(self.photos.count), said))[:PAGE].tolist()
        else:
            asking: Any = self.asking
            found = self.photos.review(self.classes, self.right, self.wrong, PAGE, asking=asking, learned=self.learned)
            shown = [hit.id for hit in found.doubtful]
        for i in shown:
            (self.right if self.case.right[i] else self.wrong).append(i)
        if self.teaching == "learned":
            self.learned = None
            if self.right and self.wrong and len(self.right) + len(self.wrong) >= LEAST_MARKS:
                learned, _ = self.photos.learn(self.classes, self.right, self.wrong)
                self.learned = learned if learned.wins else None
            return
        # As the page does: marked items that the class gets wrong become its examples.
        found = self.photos.review(self.classes, self.right, self.wrong, PAGE)
        (meta,) = self.classes.classes
        positive = [*meta.positive, *(Example(image=hit.id) for hit in found.missed)]
        negative = [*meta.negative, *(Example(image=hit.id) for hit in found.mistaken)]
        self.classes = ClassSet([MetaClass(meta.name, positive, negative)], "background")

    def ranking(self) -> np.ndarray:
        """All ids, best first: those matched, then those rejected; or by what was learned."""
        count = self.photos.count
        if self.learned is not None:
            return self.photos.nearest(self.learned.direction, count)[0]
        views: tuple[Any, ...] = ("matched", "rejected")
        return np.concatenate([self.photos.rank(self.classes, count, view=view).ranked.ids for view in views])


def precision(ranking: np.ndarray, right: Bools, without: Sequence[int]) -> float:
    """Average precision of a ranking, items of which something was said left out."""
    left = ranking[~np.isin(ranking, without)]
    return average_precision(-np.arange(len(left), dtype=np.float64), right[left])


def simulate(photos: Collection, case: Case, way: str, seed: int) -> dict[str, Any]:
    """One user: average precision at each of STEPS, and the text's on the same items."""
    user = User(photos, case, WAYS[way], seed)
    after, text, right, offered = [], [], [], []
    while True:
        said = [*user.right, *user.wrong]
        if len(said) in STEPS:
            after.append(precision(user.ranking(), case.right, said))
            text.append(precision(user.text, case.right, said))
            right.append(len(user.right))
            offered.append(user.learned is not None)
        if len(said) >= STEPS[-1]:
            return {"after": after, "text": text, "right": right, "offered": offered}
        user.look()


def ceiling(photos: Collection, case: Case) -> float:
    """Average precision on half of the items of the better of the text and what 400 labels of the others teach."""
    half = np.random.default_rng(SEED).permutation(photos.count)
    taught, judged = half[:MOST_MARKS], half[len(half) // 2 :]
    user = User(photos, case, WAYS["learned, random"], 0)
    text = precision(user.text, case.right, np.setdiff1d(half, judged).tolist())
    right, wrong = taught[case.right[taught]].tolist(), taught[~case.right[taught]].tolist()
    user.learned, _ = photos.learn(user.classes, right, wrong)
    return max(text, precision(user.ranking(), case.right, np.setdiff1d(half, judged).tolist()))


def measure(
    folder: Path, embedder: TorchEmbedder, files: Sequence[bytes], cases: Sequence[Case], users: int
) -> list[dict[str, Any]]:
    """Every class in every way."""
    with open_writer(folder, Manifest(embedder.model, embedder.dim)) as writer:
        writer.append(Embeddings(embed(embedder, files), tuple(f"{i}.jpg" for i in range(len(files))), embedder.model))
    found = []
    with open_collection(folder, embedder=embedder) as photos:
        for case in cases:
            if case.right.sum() < LEAST_RELEVANT:
                continue
            seeds = {way: range(users if "random" in way else 1) for way in WAYS}
            ways = {way: [simulate(photos, case, way, s) for s in seeds[way]] for way in WAYS}
            found.append(
                {
                    "kind": case.kind,
                    "name": case.name,
                    "relevant": int(case.right.sum()),
                    "ceiling": ceiling(photos, case),
                    "ways": ways,
                }
            )
            gained = [r["after"][2] - r["text"][2] for r in ways["learned, spread"]]
            start = ways["learned, spread"][0]["after"][0]
            print(f"{case.kind:12} {case.name:32} {start:.3f} {statistics.mean(gained):+.3f}", flush=True)
    return found


def main() -> None:
    """Measure, keep, print."""
    parser = argparse.ArgumentParser(description="What marks teach.")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--cifar", type=Path, help="parquet with columns image and label; without it scenes alone")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--raw", type=Path, default=RAW, help="folder of the raw measurements")
    parser.add_argument("--scratch", help="folder for temporary files, by default the system's")
    args = parser.parse_args()
    embedder = load_embedder(args.model, device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    started, rng = time.perf_counter(), np.random.default_rng(SEED)
    scenes = [sample_scene(rng) for _ in range(1200 if args.quick else 3000)]
    collections = {}
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        cases = list(scene_cases(scenes, rng, 1 if args.quick else 5))
        users = 1 if args.quick else 2
        collections["scenes"] = measure(Path(scratch) / "scenes", embedder, jpegs(scenes), cases, users)
        if args.cifar is not None:
            table = pq.read_table(args.cifar, columns=["image", "label"])
            drawn = np.random.default_rng(SEED).permutation(len(table))[: 1000 if args.quick else 3000]
            table = table.take(drawn)  # files are often sorted by class
            cases = list(cifar_cases(table["label"].to_pylist()))
            files = table["image"].to_pylist()
            collections["CIFAR-10"] = measure(Path(scratch) / "cifar", embedder, files, cases, users)
    record = {"model": args.model, "steps": STEPS, "weak": WEAK, "collections": collections}
    keep(args, "learning", record | {"seconds": time.perf_counter() - started})


if __name__ == "__main__":
    main()
