"""Labelled images as unit vectors of a model: drawn scenes, tables, Fashion-MNIST, scikit-learn's digits.

Vectors are kept in a folder outside the repository, so that a second run embeds nothing.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.demo_model import PAIRS, a, embed, jpegs
from clipsieve.index.evaluate import Bools
from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from clipsieve.inference.mini.captions import fill
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, Ask, Part, sample_scene
from clipsieve.types import Float32

GARMENTS = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MOST = 5000
"""Items of a set: more are drawn from at random."""


@dataclass(frozen=True, slots=True, eq=False)
class NamedSet:
    """A labelled set.

    vectors  float32 (n, d), unit rows
    classes  name -> bool (n,), the items that show it
    texts    name -> a text for it
    """

    name: str
    vectors: Float32
    classes: Mapping[str, Bools]
    texts: Mapping[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say which sets are read, and where vectors are kept."""
    parser.add_argument("--table", type=Path, action="append", default=[], help="parquet with columns image and label")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's idx files (dataset-fashion-mnist)")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits")
    parser.add_argument("--scenes", type=int, default=3000, help="scenes to draw, 0 for none")
    parser.add_argument("--scenes-seed", type=int, default=20_261_201)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps vectors")


class Reader:
    """Embeds with one model, and keeps what it embedded."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self._embedder: TorchEmbedder | None = None
        args.cache.mkdir(parents=True, exist_ok=True)

    @property
    def embedder(self) -> TorchEmbedder:
        """The model, loaded when first needed."""
        if self._embedder is None:
            loaded = load_embedder(self.args.model, device="cpu")
            assert isinstance(loaded, TorchEmbedder)
            self._embedder = loaded
        return self._embedder

    def sets(self) -> Iterator[NamedSet]:
        """Every set that was asked for."""
        args = self.args
        if args.scenes:
            yield self._scenes(args.scenes, args.scenes_seed)
        for path in args.table:
            table = pq.read_table(path, columns=["image", "label"])
            at = drawn(len(table))
            files, labels = table["image"].take(at).to_pylist(), table["label"].take(at).to_pylist()
            yield self._labelled(path.stem, files, [str(label) for label in labels])
        if args.fashion is not None:
            images, marks = (
                read_idx(args.fashion, "t10k-images-idx3-ubyte"),
                read_idx(args.fashion, "t10k-labels-idx1-ubyte"),
            )
            at = drawn(len(images))
            files = [png(255 - image) for image in images[at]]
            yield self._labelled("fashion-mnist", files, [GARMENTS[i] for i in marks[at]])
        if args.digits:
            from sklearn.datasets import load_digits

            digits = load_digits()
            files = [png((255 - image * 15.9).astype(np.uint8)) for image in digits.images]
            yield self._labelled("digits", files, [DIGITS[i] for i in digits.target])

    def vectors(self, files: Sequence[bytes]) -> Float32:
        """float32 (n, d), from the folder where they were embedded before."""
        digest = hashlib.sha256(self.args.model.encode())
        for data in files:
            digest.update(hashlib.sha256(data).digest())
        kept = self.args.cache / f"{digest.hexdigest()[:24]}.npy"
        if not kept.exists():
            np.save(kept, embed(self.embedder, files))
        found: Float32 = np.load(kept)
        return found

    def text_vectors(self, found: NamedSet) -> dict[str, Float32]:
        """A unit vector float32 (d,) for each class's text."""
        kept = (
            self.args.cache
            / f"{hashlib.sha256(repr((self.args.model, sorted(found.texts.items()))).encode()).hexdigest()[:24]}.npy"
        )
        names = sorted(found.texts)
        if not kept.exists():
            np.save(kept, self.embedder.embed_texts([found.texts[n] for n in names]))
        return dict(zip(names, np.load(kept), strict=True))

    def _labelled(self, name: str, files: Sequence[bytes], labels: Sequence[str]) -> NamedSet:
        truth = np.array(labels)
        names = sorted(set(labels))
        texts = {n: fill("a photo of a {}", DIGITS[int(n)] if n.isdigit() else n) for n in names}
        return NamedSet(name, self.vectors(files), {n: truth == n for n in names}, texts)

    def _scenes(self, count: int, seed: int) -> NamedSet:
        rng = np.random.default_rng(seed)
        scenes = [sample_scene(rng) for _ in range(count)]

        def shows(**wanted: str) -> Bools:
            ask = Ask((Part(**wanted),))  # type: ignore[arg-type]
            return np.array([ask.matches(scene) for scene in scenes])

        classes = {a(pair): shows(colour=pair[0], shape=pair[1]) for pair in PAIRS}
        classes |= {f"something {colour}": shows(colour=colour) for colour in COLOURS}
        classes |= {fill("a {}", shape): shows(shape=shape) for shape in SHAPES}
        return NamedSet("scenes", self.vectors(jpegs(scenes)), classes, {name: name for name in classes})


def drawn(count: int) -> np.ndarray:
    """MOST positions at random, ascending, always the same; all where there are fewer."""
    return np.sort(np.random.default_rng(0).permutation(count)[:MOST])


def read_idx(folder: Path, name: str) -> np.ndarray:
    """The array in an idx file, which may be gzipped: uint8, of the dimensions that it names."""
    plain = folder / name
    data = plain.read_bytes() if plain.exists() else gzip.decompress((folder / f"{name}.gz").read_bytes())
    dims = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(dims)).reshape(dims)


def png(pixels: np.ndarray) -> bytes:
    """uint8 (h, w), grey -> an encoded image."""
    data = io.BytesIO()
    Image.fromarray(pixels).convert("RGB").save(data, "PNG")
    return data.getvalue()
