"""`inference --regions` over the forward passes alone: is a detector ever starved?

    python -m benchmarks.regions [--quick] [--detector NAME]

A ViT-B-32 and an OWLv2 of 6 layers, 192 wide, at 240 pixels, both with random weights and loaded like any others, look
at 640 x 480 JPEG files from disk: read, decoded once, brought into the shape of either, both passes, near-duplicates
merged, commit. The floor is both models' passes over the same batches, preprocessed beforehand. They alternate as in
`pipeline`.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.embedding import letters
from benchmarks.measuring import RAW, keep, say
from benchmarks.pipeline import make_model, make_photos
from clipsieve.inference.decode import decode
from clipsieve.inference.detector import OwlDetector, open_detector
from clipsieve.inference.embedder import TorchImageEmbedder, load_embedder
from clipsieve.inference.finding import BATCH, Finder
from clipsieve.inference.models import parse_detector
from clipsieve.inference.owl import Owl, load_owl
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection

TARGET = 0.85


def make_detector(folder: Path) -> None:
    """An OWLv2 of transformers with random weights, whose tokenizer knows letters: no text is asked here."""
    import torch
    from transformers import CLIPTokenizer, Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor

    vision = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6}
    text = {"hidden_size": 512, "num_hidden_layers": 1, "vocab_size": 600, "max_position_embeddings": 16}
    config = Owlv2Config(text_config=text, vision_config=vision | {"image_size": 240, "patch_size": 16})
    torch.manual_seed(0)
    Owlv2ForObjectDetection(config).save_pretrained(folder)
    Owlv2ImageProcessor(size={"height": 240, "width": 240}).save_pretrained(folder)
    vocab = {token: i for i, token in enumerate(letters())} | {"<|startoftext|>": 598, "<|endoftext|>": 599}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=16).save_pretrained(folder)


def forward(embedder: TorchImageEmbedder, detector: OwlDetector, owl: Owl, files: list[bytes]) -> tuple[float, float]:
    """Images a second of both passes over preprocessed batches, and of the detector's with its regions chosen."""
    import torch

    images = [decode(data) for data in files]
    tensors = [embedder.preprocess_image(image) for image in images]
    looked = [detector.preprocess_image(image) for image in images]
    start = time.perf_counter()
    for i in range(0, len(files), BATCH):
        embedder.embed_tensors(tensors[i : i + BATCH])
        some = looked[i : i + BATCH]
        batch = {name: torch.from_numpy(np.stack([one[name] for one in some])) for name in some[0]}
        with torch.inference_mode():
            owl.encode_images(owl.module, batch, detector.regions)
    took = time.perf_counter() - start
    start = time.perf_counter()
    for i in range(0, len(files), BATCH):
        detector.detect_tensors(looked[i : i + BATCH])
    return len(files) / took, len(files) / (time.perf_counter() - start)


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description="inference --regions over both forward passes.")
    parser.add_argument("--quick", action="store_true", help="few images and rounds, to see that it runs")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--detector", help="another than the random one, for instance mini")
    parser.add_argument("--raw", type=Path, default=RAW)
    args = parser.parse_args()
    images, rounds = (40, 1) if args.quick else (192, 2)
    names = ("forward_images_per_s", "detector_images_per_s", "pipeline_images_per_s")
    measured: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_photos(folder / "photos", images)
        make_model(folder / "model", args.model)
        make_detector(folder / "detector")
        embedder = load_embedder(f"local-dir:{folder / 'model'}", device="cpu")
        name = args.detector or f"local-dir:{folder / 'detector'}"
        detector = open_detector(name, device="cpu")
        owl = load_owl(parse_detector(name).where, flash=False)
        files = [path.read_bytes() for path in sorted((folder / "photos").iterdir())]
        embedder.embed_images(files[:BATCH])  # warm up
        detector.detect(files[:BATCH])
        for i in range(rounds):
            before = forward(embedder, detector, owl, files)
            start = time.perf_counter()
            finder = Finder(detector)
            summary = embed_collection(open_source(folder / "photos"), embedder, folder / f"out{i}", finder=finder)
            measured["pipeline_images_per_s"].append(summary.embedded / (time.perf_counter() - start))
            after = forward(embedder, detector, owl, files)
            measured["forward_images_per_s"].append(2 / (1 / before[0] + 1 / after[0]))
            measured["detector_images_per_s"].append(2 / (1 / before[1] + 1 / after[1]))
    rates = zip(measured["pipeline_images_per_s"], measured["forward_images_per_s"], strict=True)
    print(", ".join(f"{name} {statistics.median(values):.1f}" for name, values in measured.items()))
    say("inference --regions over forward passes alone", statistics.median(p / f for p, f in rates), least=TARGET)
    keep(
        args,
        "regions",
        {
            "detector": args.detector or "OWLv2, random",
            "model": args.model,
            "images": images,
            "batch": BATCH,
            **measured,
        },
    )


if __name__ == "__main__":
    main()
