"""How good the demo model is: zero-shot on CIFAR-10, search over scenes, negatives, speed.

    python -m benchmarks.demo_model --cifar cifar10-test.parquet [--model local-dir:run/clip]

Prints each figure beside what it is asked to reach, and keeps them in benchmarks/raw/demo_model.json.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.figure import print_figures
from clipsieve.index.calibrate import Float64
from clipsieve.index.evaluate import average_precision, top_k_accuracy
from clipsieve.index.rule import compile_classes, maxima, products, rank_score
from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from clipsieve.inference.mini.captions import CLASSES, SYNONYMS, fill
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, Ask, Part, Scene, render, sample_scene
from clipsieve.types import ClassVectors, Float32

PAIRS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
SEED = 20_261_121
"""Of the fresh scenes; training draws from other streams."""


def jpegs(scenes: Sequence[Scene]) -> list[bytes]:
    """Each scene drawn at 192 x 192 pixels, as a JPEG file."""
    files = []
    for scene in scenes:
        data = io.BytesIO()
        render(scene, 192).save(data, "JPEG", quality=92)
        files.append(data.getvalue())
    return files


def embed(embedder: TorchEmbedder, files: Sequence[bytes]) -> Float32:
    """Files -> float32 (n, d), in batches of 256."""
    return np.concatenate([embedder.embed_images(files[i : i + 256]) for i in range(0, len(files), 256)])


def a(pair: tuple[str, str]) -> str:
    """The pair in words, "a red circle"."""
    return fill("a {}", " ".join(pair))


def cifar(embedder: TorchEmbedder, path: Path) -> dict[str, float]:
    """Zero-shot top-1: each class one text, "a photo of a NAME"; then each name replaced by its i-th synonym."""
    table = pq.read_table(path, columns=["image", "label"])
    vectors = embed(embedder, table["image"].to_pylist())
    truth = np.array([CLASSES.index(label) for label in table["label"].to_pylist()])

    def accuracy(names: Sequence[str]) -> float:
        texts = embedder.embed_texts([fill("a photo of a {}", name) for name in names])
        return top_k_accuracy(vectors @ texts.T, truth)

    rounds = [accuracy([SYNONYMS[c][i] for c in CLASSES]) for i in range(min(map(len, SYNONYMS.values())))]
    return {
        "cifar10_top1": accuracy(CLASSES),
        "cifar10_synonyms_top1": statistics.mean(rounds),
        "cifar10_synonyms_top1_worst_round": min(rounds),
    }


def pairs(embedder: TorchEmbedder, count: int) -> dict[str, float]:
    """Mean average precision of "a COLOUR SHAPE" over all pairs, in `count` fresh scenes."""
    rng = np.random.default_rng((SEED, 1))
    scenes = [sample_scene(rng) for _ in range(count)]
    vectors = embed(embedder, jpegs(scenes))
    texts = embedder.embed_texts([a(pair) for pair in PAIRS])
    found = []
    for pair, text in zip(PAIRS, texts, strict=True):
        relevant = np.array([Ask((Part(*pair),)).matches(scene) for scene in scenes])
        if relevant.any():
            found.append(average_precision(vectors @ text, relevant))
    return {"scenes_map": statistics.mean(found), "scenes_map_worst_pair": min(found)}


def negatives(embedder: TorchEmbedder, count: int) -> dict[str, float]:
    """ "a COLOUR SHAPE, but not with a COLOUR2 SHAPE2": relevant are scenes with the first and without the second.

    In scenes drawn blindly two given pairs hardly ever meet, and a negative would have nothing to do. So each of
    `count` / 50 questions brings 25 scenes with the first pair alone and 25 with both; the rest of the collection are
    the scenes of the other questions.
    """
    rng = np.random.default_rng((SEED, 2))
    asked = [tuple(PAIRS[i] for i in rng.choice(len(PAIRS), 2, replace=False)) for _ in range(count // 50)]
    scenes = []
    for first, second in asked:
        scenes += [sample_scene(rng, include=(first,), exclude=(second,)) for _ in range(25)]
        scenes += [sample_scene(rng, include=(first, second)) for _ in range(25)]
    vectors = embed(embedder, jpegs(scenes))
    precision: dict[str, list[float]] = {}
    for first, second in asked:
        texts = embedder.embed_texts([a(first), f"{a(first)} with {a(second)}", a(second)])
        one, two = Ask((Part(*first),)), Ask((Part(*second),))
        relevant = np.array([one.matches(scene) and not two.matches(scene) for scene in scenes])
        scores = {
            "without": vectors @ texts[0],
            "rule_not_both": rule(embedder, vectors, texts[:1], texts[1:2]),
            "rule_not_second": rule(embedder, vectors, texts[:1], texts[2:]),
            "subtract_both": vectors @ (texts[0] - texts[1]),
            "subtract_second": vectors @ (texts[0] - texts[2]),
        }
        for name, values in scores.items():
            precision.setdefault(name, []).append(average_precision(values, relevant))
    return {f"negatives_map_{name}": statistics.mean(values) for name, values in precision.items()}


def rule(embedder: TorchEmbedder, vectors: Float32, positive: Float32, negative: Float32) -> Float64:
    """rank_score of each vector (n, d) for one class with these examples."""
    compiled = compile_classes([ClassVectors("question", positive, negative, embedder.model)])
    best, worst = maxima(compiled, products(compiled, vectors))
    return rank_score(best[0], worst[0])


def speed(embedder: TorchEmbedder) -> dict[str, float]:
    """Images a second of the forward pass alone, preprocessed batches of 256, median of 7."""
    rng = np.random.default_rng((SEED, 3))
    files = jpegs([sample_scene(rng) for _ in range(256)])
    batch = [embedder.preprocess(data) for data in files]
    rates = []
    for _ in range(8):
        start = time.perf_counter()
        embedder.embed_tensors(batch)
        rates.append(len(files) / (time.perf_counter() - start))
    return {"forward_images_per_s": statistics.median(rates[1:])}


GOALS = {
    "cifar10_top1": (0.87, 0.92),
    "cifar10_synonyms_top1": (0.80, None),
    "scenes_map": (0.95, 0.99),
    "negatives_gain": (0.10, None),
    "forward_images_per_s": (250, None),
}


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description="Measure the demo model.")
    parser.add_argument("--cifar", type=Path, required=True, help="parquet with columns image and label")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "raw" / "demo_model.json")
    args = parser.parse_args()
    embedder = load_embedder(args.model, device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    figures = cifar(embedder, args.cifar) | pairs(embedder, args.scenes) | negatives(embedder, args.scenes)
    figures["negatives_gain"] = figures["negatives_map_rule_not_both"] - figures["negatives_map_without"]
    figures |= speed(embedder)
    print_figures(figures, GOALS)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"model": args.model, "scenes": args.scenes, **figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
