"""The demo model as ONNX files, in 32 and in 8 bits: how much faster, and how far its answers drift.

    python -m benchmarks.onnx --cifar FILE [--quick]

FILE is a parquet table of CIFAR-10 with columns image and label, as for `demo_model`. Each is exported by `clipsieve
export-onnx`. Speed: batches of 32 texts and of 32 pictures that are preprocessed, the three models in turn. Drift: of
each image's 10 nearest images by the model itself, those that are among the 10 nearest by the export, and the share of
images whose class is the nearest of ten texts ("A photo of a NAME.").
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from benchmarks.measuring import alternate, keep, parser_of, set_scratch
from clipsieve.inference.embedder import TorchEmbedder, load_embedder, use_all_processors
from clipsieve.types import Float32

BATCH, NEAR = 32, 10
KINDS = {"float": [], "int8": ["--int8"]}


def main() -> None:
    """Measure, print, keep."""
    parser = parser_of("The demo model as ONNX files.")
    parser.add_argument("--cifar", type=Path, required=True, help="parquet with columns image and label")
    args = parser.parse_args()
    set_scratch(args)
    rounds, calls, most = (2, 2, 300) if args.quick else (9, 20, 5_080)
    use_all_processors()
    table = pq.read_table(args.cifar, columns=["image", "label"])[:most].to_pydict()
    with tempfile.TemporaryDirectory(prefix="clipsieve-onnx-") as scratch:
        models: dict[str, TorchEmbedder] = {"torch": load("mini")}
        sizes = {}
        for kind, more in KINDS.items():
            out = Path(scratch) / kind
            command = [sys.executable, "-m", "clipsieve", "export-onnx", "mini", "--out", str(out), *more]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            models[kind] = load(f"onnx:{out}")
            sizes[kind] = {file.name: file.stat().st_size for file in out.glob("*.onnx")}
        record: dict[str, Any] = {"images": len(table["label"]), "batch": BATCH, "sizes": sizes}
        record["seconds"] = speed(models, table["image"][:BATCH], rounds, calls)
        record["answers"] = answers(models, table["image"], table["label"])
    keep(args, "onnx", record)


def load(name: str) -> TorchEmbedder:
    """The model of that name, which has both towers."""
    embedder = load_embedder(name, device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    return embedder


def speed(models: dict[str, TorchEmbedder], images: list[bytes], rounds: int, calls: int) -> dict[str, Any]:
    """Seconds of so many batches, by what is in them."""
    pictures = [models["torch"].preprocess(data) for data in images]
    tokens = models["torch"].tokenize([f"a photo of thing number {i}" for i in range(BATCH)])
    found = {}
    for what, method, batch in (("texts", "embed_tokens", tokens), ("pictures", "embed_tensors", pictures)):

        def many(model: TorchEmbedder, method: str = method, batch: Any = batch) -> None:
            for _ in range(calls):
                getattr(model, method)(batch)

        found[what] = alternate({name: (lambda m=m: many(m)) for name, m in models.items()}, rounds)  # type: ignore[misc]
    return found


def answers(models: dict[str, TorchEmbedder], images: list[bytes], labels: list[str]) -> dict[str, dict[str, float]]:
    """Overlap of the nearest with those of torch, top-1 without examples, and the least cosine with torch's vectors."""
    names = sorted(set(labels))
    right = np.array([names.index(label) for label in labels])
    vectors = {name: model.embed_images(images) for name, model in models.items()}
    neighbours = {name: nearest(rows) for name, rows in vectors.items()}
    found = {}
    for name, model in models.items():
        texts = model.embed_texts([f"A photo of a {one}." for one in names])
        shared = [len(set(a) & set(b)) for a, b in zip(neighbours[name], neighbours["torch"], strict=True)]
        found[name] = {
            "recall": float(np.mean(shared)) / NEAR,
            "top1": float(np.mean((vectors[name] @ texts.T).argmax(axis=1) == right)),
            "least_cosine": float(np.einsum("nd,nd->n", vectors[name], vectors["torch"]).min()),
        }
    return found


def nearest(rows: Float32) -> np.ndarray[Any, Any]:
    """Of each row the NEAR others that are nearest."""
    scores = rows @ rows.T
    np.fill_diagonal(scores, -2)
    return np.argpartition(-scores, NEAR, axis=1)[:, :NEAR]


if __name__ == "__main__":
    main()
