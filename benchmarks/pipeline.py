"""The whole pipeline over the model's forward pass alone: is the model ever starved?

    python -m benchmarks.pipeline [--quick]

A ViT-B-32 with random weights, saved as an open_clip folder and loaded like any other, embeds 640 x 480 JPEG files
from disk: read, decode in full, resize, forward, commit. The floor is the same model on the same batches, preprocessed
beforehand. Both alternate; the ratio is the median of each round's own, which drift of a busy machine hardly moves.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measuring import RAW, keep, say
from clipsieve.inference.embedder import TorchImageEmbedder, load_embedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection

TARGET = 0.85


def make_photos(folder: Path, count: int) -> None:
    """Files with about the detail of photographs: smooth shapes with grain, 80 to 120 kB each."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(count):
        smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
            (640, 480), Image.Resampling.BICUBIC
        )
        grain = np.asarray(smooth, np.int16) + rng.normal(0, 9, (480, 640, 3)).astype(np.int16)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(folder / f"{i:05}.jpg", quality=88)


def make_model(folder: Path, name: str) -> None:
    """An open_clip folder of that architecture with random weights."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    config = open_clip.get_model_config(name)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    preprocess = {"mean": list(mean), "std": list(std), "interpolation": "bicubic", "resize_mode": "shortest"}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}))
    state = open_clip.create_model(name).state_dict()
    save_file({key: value.half().contiguous() for key, value in state.items()}, folder / "open_clip_model.safetensors")


def forward(embedder: TorchImageEmbedder, files: list[bytes], batch: int) -> float:
    """Images a second of the forward pass over preprocessed batches."""
    tensors = [embedder.preprocess(data) for data in files]
    start = time.perf_counter()
    for i in range(0, len(tensors), batch):
        embedder.embed_tensors(tensors[i : i + batch])
    return len(files) / (time.perf_counter() - start)


def pipeline(embedder: TorchImageEmbedder, photos: Path, out: Path, batch: int) -> float:
    """Images a second from files on disk to a committed collection."""
    start = time.perf_counter()
    summary = embed_collection(open_source(photos), embedder, out, batch_size=batch)
    return summary.embedded / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description="Pipeline over forward pass.")
    parser.add_argument("--quick", action="store_true", help="few images and rounds, to see that it runs")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--raw", type=Path, default=RAW)
    args = parser.parse_args()
    images, rounds, batch = (24, 1, 8) if args.quick else (192, 5, 32)
    measured: dict[str, list[float]] = {"forward_images_per_s": [], "pipeline_images_per_s": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_photos(folder / "photos", images)
        make_model(folder / "model", args.model)
        embedder = load_embedder(f"local-dir:{folder / 'model'}")
        files = [path.read_bytes() for path in sorted((folder / "photos").iterdir())]
        embedder.embed_images(files[:batch])  # warm up
        for i in range(rounds):
            # Before and after, so that a machine that gets slower or faster meanwhile favours neither.
            before = forward(embedder, files, batch)
            measured["pipeline_images_per_s"].append(pipeline(embedder, folder / "photos", folder / f"out{i}", batch))
            after = forward(embedder, files, batch)
            measured["forward_images_per_s"].append(2 / (1 / before + 1 / after))
    rates = zip(measured["pipeline_images_per_s"], measured["forward_images_per_s"], strict=True)
    print(", ".join(f"{name} {statistics.median(values):.1f}" for name, values in measured.items()))
    say("pipeline over forward pass alone", statistics.median(p / f for p, f in rates), least=TARGET)
    keep(args, "pipeline", {"model": args.model, "images": images, "batch": batch, **measured})


if __name__ == "__main__":
    main()
