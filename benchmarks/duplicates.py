"""Which items are taken for copies: of what is none, how many; of planted copies, how many are found.

    python -m benchmarks.duplicates --data DIR --fashion DIR --cache DIR [--tuning] [--only NAME] [--sheets DIR]
    python -m benchmarks.duplicates --cost

Each set is made a collection and indexed as users do it, once as it is, and once for each kind of copy with 500 planted
ones. The pairs that are found in the set as it is are for the eye: `--sheets` draws them. Constants were chosen on
other sets (`--tuning`) than those whose figures are stated. Vectors are the demo model's, and cached.

data     holds cifar10-train, cifar10-test, clothing and sign-digits, each a .parquet with a column `image`
fashion  holds Fashion-MNIST's train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz (Debian: dataset-fashion-mnist)
"""

from __future__ import annotations

import argparse
import gzip
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from clipsieve.image_files import open_raster
from clipsieve.image_memory import ImageMemory
from clipsieve.index.build import build_indices
from clipsieve.index.stored import open_groups
from clipsieve.index.witness import Hashes
from clipsieve.inference.decode import decode
from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from clipsieve.inference.mini.scenes import render, sample_scene
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.perceptual import BYTES, COLUMN, perceptual_hash
from clipsieve.types import Embeddings, Float32, Int64, content_hash
from clipsieve.writer import open_writer

PLANTED = 500
MODEL = "mini"

Make = Callable[[Image.Image, np.random.Generator], bytes]


def encode(image: Image.Image, format: str = "JPEG", **options: object) -> bytes:
    """The image as a file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def cut(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """The image without these shares of its sides."""
    width, height = image.size
    box = (round(left * width), round(top * height), width - round(right * width), height - round(bottom * height))
    return image.crop(box)


def cut_corner(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The image without 5% of its width and of its height, at a corner drawn at random."""
    right, bottom = rng.integers(0, 2, 2)
    return cut(image, 0.05 * (1 - right), 0.05 * (1 - bottom), 0.05 * right, 0.05 * bottom)


KINDS: dict[str, Make] = {
    "JPEG, quality 90": lambda image, _: encode(image, quality=90),
    "JPEG, quality 60": lambda image, _: encode(image, quality=60),
    "JPEG, quality 30": lambda image, _: encode(image, quality=30),
    "half size": lambda image, _: encode(
        image.resize((max(1, image.width // 2), max(1, image.height // 2)), Image.Resampling.BICUBIC), quality=90
    ),
    "5% off each side": lambda image, _: encode(cut(image, 0.05, 0.05, 0.05, 0.05), quality=90),
    "5% off at a corner": lambda image, rng: encode(cut_corner(image, rng), quality=90),
}


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """What is stored of n images: unit vectors float32 (n, d), hashes uint8 (n, b), width, height and bytes (n, 3)."""

    vectors: Float32
    hashes: Hashes
    sizes: Int64
    contents: list[str]

    def __add__(self, other: Items) -> Items:
        return Items(
            np.concatenate([self.vectors, other.vectors]),
            np.concatenate([self.hashes, other.hashes]),
            np.concatenate([self.sizes, other.sizes]),
            self.contents + other.contents,
        )


def images_of(path: Path) -> list[bytes]:
    """The images of a Parquet file."""
    files: list[bytes] = pq.read_table(path, columns=["image"])["image"].to_pylist()
    return files


def half_of(files: Sequence[bytes], which: int) -> list[bytes]:
    """One of two random halves."""
    order = np.random.default_rng(0).permutation(len(files))
    middle = len(files) // 2
    return [files[i] for i in np.sort(order[middle:] if which else order[:middle])]


def garments(path: Path, count: int) -> list[bytes]:
    """The first images of an idx file."""
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=16).reshape(-1, 28, 28)
    return [encode(Image.fromarray(one), "PNG") for one in pixels[:count]]


def drawn(seed: int, count: int) -> list[bytes]:
    """Scenes of the demo's kind, drawn from a seed."""
    rng = np.random.default_rng(seed)
    return [encode(render(sample_scene(rng), 192), quality=90) for _ in range(count)]


def sets(data: Path, fashion: Path, tuning: bool) -> dict[str, Callable[[], list[bytes]]]:
    """Those that constants were chosen on, or those whose figures are stated."""
    half = 0 if tuning else 1
    cifar, rows = ("cifar10-train", 6000) if tuning else ("cifar10-test", None)
    part = "train" if tuning else "t10k"
    return {
        "CIFAR-10": lambda: images_of(data / f"{cifar}.parquet")[:rows],
        "garments": lambda: half_of(images_of(data / "clothing.parquet"), half),
        "hand signs": lambda: half_of(images_of(data / "sign-digits.parquet"), half),
        "scenes": lambda: drawn(202 - 101 * tuning, 3000),
        "Fashion-MNIST": lambda: garments(fashion / f"{part}-images-idx3-ubyte.gz", 6000),
    }


def look(files: Sequence[bytes], embedder: TorchEmbedder) -> Items:
    """Embed and hash files as `clipsieve inference` does."""
    vectors, hashes, sizes = [], [], []
    for start in range(0, len(files), 256):
        images = [decode(file) for file in files[start : start + 256]]
        vectors.append(embedder.embed_tensors([embedder.preprocess_image(image) for image in images]))
        hashes += [np.frombuffer(perceptual_hash(image), np.uint8) for image in images]
        sizes += [image.size for image in images]
    lengths = np.array([len(file) for file in files])[:, None]
    made = np.concatenate([np.array(sizes), lengths], axis=1).astype(np.int64)
    return Items(np.concatenate(vectors), np.stack(hashes), made, [content_hash(file) for file in files])


def cached(path: Path, files: list[bytes], embedder: Callable[[], TorchEmbedder]) -> Items:
    """What `look` says of files, from a cache of vectors; hashes are made anew each time."""
    if not path.exists():
        made = look(files, embedder())
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, vectors=made.vectors)
        return made
    vectors = np.load(path)["vectors"]
    images = [decode(file) for file in files]
    hashes = np.stack([np.frombuffer(perceptual_hash(image), np.uint8) for image in images])
    sizes = np.array([(*image.size, len(file)) for image, file in zip(images, files, strict=True)], dtype=np.int64)
    return Items(vectors, hashes, sizes, [content_hash(file) for file in files])


def group(items: Items, embedder: TorchEmbedder) -> tuple[Int64, float, float]:
    """The group of each item of a collection made of them; the ratio that it measured; seconds that indexing took."""
    n = len(items.vectors)
    keys = tuple(f"{i:06d}" for i in range(n))
    columns = {
        "width": items.sizes[:, 0].tolist(),
        "height": items.sizes[:, 1].tolist(),
        "size": items.sizes[:, 2].tolist(),
        "content_hash": items.contents,
        COLUMN: [one.tobytes() for one in items.hashes],
    }
    with tempfile.TemporaryDirectory() as folder:
        with open_writer(folder, Manifest(embedder.model, embedder.dim)) as writer:
            writer.append(Embeddings(items.vectors, keys, embedder.model), columns=columns)
        began = time.perf_counter()
        build_indices(folder)
        seconds = time.perf_counter() - began
        manifest = read_manifest(Path(folder))
        ids = np.arange(n, dtype=np.int64)
        ratio = next(i.parameters["duplicate_ratio"] for i in manifest.indices if i.name == "image")
        return open_groups(Path(folder), manifest)(ids), ratio, seconds


def report(name: str, make: Callable[[], list[bytes]], cache: Path, sheets: Path | None) -> Iterator[str]:
    """Lines of a table: the set as it is, then with each kind of copy."""
    loaded: list[TorchEmbedder] = []

    def embedder() -> TorchEmbedder:
        if not loaded:
            model = load_embedder(MODEL, device="cpu")
            assert isinstance(model, TorchEmbedder)
            loaded.append(model)
        return loaded[0]

    files = make()
    bare = cached(cache / f"{name}.npz", files, embedder)
    n = len(files)
    alone, ratio, seconds = group(bare, embedder())
    hidden = np.flatnonzero(alone != np.arange(n))
    same = sum(bare.contents[i] == bare.contents[alone[i]] for i in hidden)
    yield f"| {name} | as it is | {n:,} | {ratio:.2f} | {len(hidden)}, {same} of the same content | | {seconds:.0f} |"
    if sheets is not None:
        draw_pairs(sheets / f"{name}.png", files, [(int(alone[i]), int(i)) for i in hidden])
    chosen = np.sort(np.random.default_rng(5).permutation(n)[:PLANTED])
    for kind, copy in KINDS.items():
        rng = np.random.default_rng(7)
        made = [copy(decode(files[i]), rng) for i in chosen]
        copies = cached(cache / f"{name}, {kind}.npz", made, embedder)
        groups, ratio, seconds = group(bare + copies, embedder())
        planted = groups[n:]
        found = planted == groups[chosen]
        wrong = int(((planted != np.arange(n, n + len(chosen))) & ~found).sum())
        more = int(((groups[:n] != np.arange(n)) & (groups[:n] != alone)).sum())
        precision = found.sum() / max(1, found.sum() + wrong + more)
        yield (
            f"| {name} | {kind} | {len(chosen)} | {ratio:.2f} | recall {found.mean():.3f}, precision {precision:.3f} | "
            f"{wrong + more} | {seconds:.0f} |"
        )


def draw_pairs(path: Path, files: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> None:
    """A contact sheet of pairs, six in a row."""
    side, columns = 96, 6
    rows = max(1, -(-len(pairs) // columns))
    sheet = Image.new("RGB", (columns * (2 * side + 8), rows * (side + 14)), "white")
    draw = ImageDraw.Draw(sheet)
    for k, pair in enumerate(pairs):
        x, y = k % columns * (2 * side + 8), k // columns * (side + 14)
        draw.text((x, y), f"{pair[0]} {pair[1]}", fill="black")
        for i, one in enumerate(pair):
            sheet.paste(decode(files[one]).resize((side, side)), (x + i * side, y + 12))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def cost() -> Iterator[str]:
    """What hashing adds to decoding and preparing, image by image in turn: medians of threads' processor time."""
    memory = ImageMemory()
    picture = render(sample_scene(np.random.default_rng(1)), 640)
    yield "| image | decoded, ms | prepared for 224 x 224, ms | hashed, ms | share of both |"
    yield "|---|---|---|---|---|"
    for size in ((32, 32), (640, 480), (2560, 1920)):
        data = encode(picture.resize(size), quality=90)
        times: tuple[list[float], list[float], list[float]] = ([], [], [])
        for _ in range(60):
            ticks = [time.thread_time()]
            with open_raster(data, memory, factor=None) as raster:
                image = raster.for_model()
            ticks.append(time.thread_time())
            image.resize((224, 224), Image.Resampling.BICUBIC)
            ticks.append(time.thread_time())
            perceptual_hash(image)
            ticks.append(time.thread_time())
            for list_, a, b in zip(times, ticks, ticks[1:], strict=False):
                list_.append(1000 * (b - a))
        decoded, prepared, hashed = map(statistics.median, times)
        share = hashed / (decoded + prepared)
        yield f"| {size[0]} x {size[1]} JPEG | {decoded:.2f} | {prepared:.2f} | {hashed:.3f} | {share:.1%} |"
    yield f"{BYTES} bytes an item"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--fashion", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--sheets", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--tuning", action="store_true", help="the sets that constants were chosen on")
    parser.add_argument("--cost", action="store_true", help="what hashing costs")
    args = parser.parse_args()
    if args.cost:
        print("\n".join(cost()))
        return
    if None in (args.data, args.fashion, args.cache):
        parser.error("give --data, --fashion and --cache")
    print("| set | with | images | ratio | hidden | wrongly | s |\n|---|---|---|---|---|---|---|")
    for name, make in sets(args.data, args.fashion, args.tuning).items():
        if args.only in (None, name):
            for line in report(name, make, args.cache / ("tuning" if args.tuning else "stated"), args.sheets):
                print(line, flush=True)


if __name__ == "__main__":
    main()
