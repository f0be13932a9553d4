"""The embedding service over the model that it serves, under 60 clients.

    python -m benchmarks.embedding [--quick] [--only NAME]

Two models: the demo model, and a SigLIP of base size made here with random weights. 60 clients (`closed_loop`) ask for
one row each: token ids as bytes, or a JPEG of 640 x 480. The floor is the same embedder called with 32 rows at a time
in a process of its own, on all processors, right after. Where a row takes 20 ms or more the service has to reach 0.90
of the floor's rate; where it takes less, HTTP costs the processors as much as the model, and what a request costs them
is shown: the service less the floor, and the client.
"""

from __future__ import annotations

import json
import os
import pickle
import string
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batcher import make_photo
from benchmarks.closed_loop import load
from benchmarks.measuring import keep, parser_of, set_scratch
from benchmarks.serving import listening
from benchmarks.triton import CLIENTS, MAX_BATCH, processor_seconds
from clipsieve.inference.embedder import TorchEmbedder, load_embedder, use_all_processors
from clipsieve.load_data import Body, Input, Row, bodies
from clipsieve.load_test import Target, served

TEXTS = [f"a photo of {n} {colour} {thing}" for n in ("one", "two") for colour in ("red", "blue", "green", "white")
         for thing in ("bus", "dog", "star", "house")]  # fmt: skip
LEAST_BATCHES = 4
"""Batches that a window is long enough for, at least."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is asked of which model.

    name    of the case
    folder  what --model takes
    served  the service's model
    """

    name: str
    folder: str
    served: str


def main() -> None:
    """Measure, print, keep."""
    parser = parser_of("The embedding service over its model.")
    parser.add_argument("--only", help="a case whose name holds this")
    args = parser.parse_args()
    set_scratch(args)
    rounds, seconds = (1, 0.5) if args.quick else (5, 4.0)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the service's command has it
    use_all_processors()
    with tempfile.TemporaryDirectory(prefix="clipsieve-embedding-") as scratch:
        siglip = Path(scratch) / "siglip"
        make_siglip(siglip, small=args.quick)
        cases = [
            Case("mini, ids", "mini", "siglip_text"),
            Case("mini, images", "mini", "embed_image"),
            Case("SigLIP base, ids", f"local-dir:{siglip}", "siglip_text"),
            Case("SigLIP base, images", f"local-dir:{siglip}", "embed_image"),
        ]
        wanted = [case for case in cases if (args.only or "") in case.name]
        measured = {case.name: measure(case, Path(scratch), rounds, seconds) for case in wanted}
    earlier = args.raw / "embedding.json"
    if args.only and earlier.exists():  # the others as they were measured then
        measured = json.loads(earlier.read_text())["cases"] | measured
    keep(args, "embedding", {"clients": CLIENTS, "max_batch": MAX_BATCH, "cases": measured})


def letters() -> list[str]:
    """Tokens of a tokenizer without merges: each letter, within a word and at its end."""
    return [letter + end for letter in string.ascii_lowercase for end in ("", "</w>")]


def make_siglip(folder: Path, small: bool) -> None:
    """A SigLIP of base size (patches of 16, 224 pixels) with random weights; its tokenizer knows letters."""
    import torch
    from transformers import CLIPTokenizer, SiglipConfig, SiglipImageProcessor, SiglipModel

    size: dict[str, Any] = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1} if small else {}
    ends = {"bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=size | ends, vision_config=size)).save_pretrained(folder)
    SiglipImageProcessor(size={"height": 224, "width": 224}).save_pretrained(folder)
    vocab = {token: i for i, token in enumerate(["<|startoftext|>", "<|endoftext|>", *letters()])}
    CLIPTokenizer(vocab=vocab, merges=[], model_max_length=64).save_pretrained(folder)


def measure(case: Case, scratch: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Every window of the service and of the floor, in turn."""
    embedder = load_embedder(case.folder, device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    declared, row, embed = asked(case, embedder)
    file = scratch / "bodies.pickle"
    file.write_bytes(pickle.dumps(requests(declared, row)))
    words = ["embed-server", "--model", case.folder, "--port", "0", "--max-batch", str(MAX_BATCH), "--device", "cpu"]
    words = [sys.executable, "-m", "clipsieve", *words, "--json", "--log-level", "warning"]
    windows = []
    with listening(words) as (port, pid):
        target = Target(f"http://127.0.0.1:{port}", case.served)
        target.inputs()
        batch = floor(embed, 0)["batch_s"]
        seconds = max(seconds, LEAST_BATCHES * batch)
        for _ in range(rounds):
            used, before = processor_seconds(pid), target.statistics()
            found: dict[str, Any] = load(port, target.path("/infer"), CLIENTS, seconds, file, warm=max(0.5, 2 * batch))
            counts = served(before, target.statistics())
            found["server_ms"] = (processor_seconds(pid) - used) / counts["inference_count"] * 1e3
            windows.append({"service": found | counts, "floor": floor(embed, seconds)})
            print(case.name, json.dumps(windows[-1]), flush=True)
    return {"windows": windows}


def asked(case: Case, embedder: TorchEmbedder) -> tuple[Input, Sequence[Row], Callable[[], object]]:
    """The service's input, rows for it, and the embedder's own pass over 32 of them."""
    if case.served == "embed_image":
        photo = make_photo()
        files = [photo] * MAX_BATCH
        return Input("INPUT_IMAGE", "BYTES", (1,)), [{"INPUT_IMAGE": photo}], lambda: embedder.embed_images(files)
    if case.folder == "mini":
        ids = np.stack([next(iter(one.values())) for one in embedder.tokenize(TEXTS)]).astype(np.int64)
    else:
        ids = np.random.default_rng(0).integers(2, 30_000, (MAX_BATCH, embedder.context))
    tokens = embedder.from_ids(ids[np.arange(MAX_BATCH) % len(ids)])
    rows: list[Mapping[str, Any]] = [{"INPUT_IDS": one.tolist()} for one in ids]
    return Input("INPUT_IDS", "INT64", (embedder.context,)), rows, lambda: embedder.embed_tokens(tokens)


def requests(declared: Input, rows: Sequence[Row]) -> list[Body]:
    """A request for each row, in bytes."""
    if declared.datatype != "BYTES":
        return bodies(rows, [declared])
    made = []
    for row in rows:
        data: bytes = row[declared.name]
        one = {"name": declared.name, "shape": [1, 1], "datatype": "BYTES"}
        one["parameters"] = {"binary_data_size": len(data) + 4}  # type: ignore[assignment]
        head = json.dumps({"inputs": [one], "parameters": {"binary_data_output": True}}).encode()
        made.append(Body(head + len(data).to_bytes(4, "little") + data, len(head), 1))
    return made


def floor(embed: Callable[[], object], seconds: float) -> dict[str, float]:
    """Rows a second of the embedder itself, seconds of a batch, and its processor time of a row; twice at least."""
    embed()
    start, used, calls = time.perf_counter(), time.process_time(), 0
    while calls < 2 or time.perf_counter() < start + seconds:
        embed()
        calls += 1
    took, used = time.perf_counter() - start, time.process_time() - used
    rows = calls * MAX_BATCH
    return {"rate": rows / took, "batch_s": took / calls, "cpu_ms": used / rows * 1e3}


if __name__ == "__main__":
    main()
