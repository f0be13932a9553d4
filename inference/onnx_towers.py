"""Models as ONNX files, which onnxruntime runs on the CPU, with weights of 32 bits or 8.

A folder has a file for each tower, `image.onnx` and `text.onnx`; the small files of the checkpoint that it was made
of, which say how images are scaled and texts are tokenized; and `clipsieve_onnx.json`. It is a model of its own: its
vectors are near those of the checkpoint, not the same, and go into collections of their own.
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipsieve.errors import InputError, MissingExtra, ModelUnavailable
from clipsieve.inference.checkpoint import Batch, Checkpoint
from clipsieve.ordered import processors
from clipsieve.output_path import require_path

if TYPE_CHECKING:
    import torch

MADE = "clipsieve_onnx.json"
OUTPUT, PIXELS = "vectors", "pixels"
SMALL = frozenset({".json", ".txt", ".model"})
"""Suffixes of a checkpoint's files that are no weights."""

QUANTIZED = ("MatMul", "Gemm")
"""What gets weights of 8 bits. Convolutions of 8 bits would need images to be calibrated with."""


def export_onnx(checkpoint: Checkpoint, files: Path, out: Path, *, int8: bool = False) -> dict[str, int]:
    """Write both towers of a checkpoint; the names of their files and their bytes.

    files  the folder of the checkpoint
    out    the folder to make; InputError if something is in it
    int8   matrices get weights of 8 bits, and what meets them is rounded to 8 bits while the model runs

    InputError for a model that takes no pictures of one shape, MissingExtra without clipsieve[onnx].
    """
    import torch

    require_path(out)
    _require("onnx")
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} is not empty; give a folder to make.")
    if checkpoint.pixels is None:
        raise InputError("The model takes no pictures of one shape; it cannot be exported.")
    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(files.iterdir()):
        if file.suffix in SMALL and not file.name.endswith(".index.json"):
            shutil.copyfile(file, out / file.name)
    name = min(checkpoint.prepare(Image.new("RGB", (checkpoint.side, checkpoint.side))))
    image = {name: torch.zeros((2, *checkpoint.pixels))}
    _write(checkpoint.module, checkpoint.encode_images, image, [PIXELS], out / "image.onnx", int8)
    if checkpoint.tokenize is not None and checkpoint.encode_texts is not None:
        texts = dict(checkpoint.tokenize(["a picture", "two"]))
        _write(checkpoint.module, checkpoint.encode_texts, texts, list(texts), out / "text.onnx", int8)
    made = {
        "int8": int8,
        "vocabulary": checkpoint.vocabulary,
        "preprocess": getattr(getattr(checkpoint.module, "visual", None), "preprocess_cfg", None),
    }
    (out / MADE).write_text(json.dumps(made, indent=1) + "\n")
    return {file.name: file.stat().st_size for file in sorted(out.glob("*.onnx"))}


def _write(
    module: "torch.nn.Module",
    encode: Callable[["torch.nn.Module", Batch], "torch.Tensor"],
    batch: Mapping[str, "torch.Tensor"],
    names: Sequence[str],
    path: Path,
    int8: bool,
) -> None:
    """One tower: `encode` with the tensors of `batch`, which the file calls `names`, for any number of rows."""
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            return encode(self.module, dict(zip(batch, tensors, strict=True)))

    whole = path.with_suffix(".float.onnx") if int8 else path
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own future, and of shapes that are fixed as they should be
        torch.onnx.export(
            Tower().eval(),
            tuple(batch.values()),
            str(whole),
            input_names=list(names),
            output_names=[OUTPUT],
            dynamic_axes={name: {0: "n"} for name in [*names, OUTPUT]},
            dynamo=False,  # the other one needs one more package
        )
        if int8:
            from onnxruntime.quantization import QuantType, quantize_dynamic

            quantize_dynamic(whole, path, op_types_to_quantize=list(QUANTIZED), weight_type=QuantType.QInt8)
            whole.unlink()


def load_onnx(folder: Path) -> Checkpoint:
    """The model in a folder that `export_onnx` made. ModelUnavailable where none is, MissingExtra without the extra."""
    from clipsieve.inference.from_open_clip import load_open_clip
    from clipsieve.inference.from_transformers import load_transformers

    _require("onnxruntime")
    try:
        made = json.loads((folder / MADE).read_bytes())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{folder} holds no ONNX model; make one with clipsieve export-onnx.") from error
    if not isinstance(made, dict) or not {"int8", "vocabulary", "preprocess"} <= made.keys():
        raise ModelUnavailable(f"{folder / MADE} is not whole; export the model again.")
    if made["vocabulary"] and not (folder / "text.onnx").is_file():
        raise ModelUnavailable(f"{folder} holds no text.onnx, though the model takes texts; export the model again.")
    towers = _towers(folder, made["preprocess"])
    if (folder / "open_clip_config.json").exists():
        loaded = load_open_clip("", folder=str(folder), model=towers)
    else:
        loaded = load_transformers(str(folder), model=towers)
    kind = "8-bit" if made["int8"] else "float32"
    return replace(loaded, vocabulary=made["vocabulary"], preprocessing=f"{loaded.preprocessing}; onnx {kind}")


def _towers(folder: Path, preprocess: Any) -> Any:
    """A module without weights that the loaders take for the checkpoint's, and which asks the files."""
    import torch
    from onnxruntime import InferenceSession, SessionOptions
    from transformers import AutoConfig

    options = SessionOptions()
    options.intra_op_num_threads = processors()
    sessions = {
        path.stem: InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for path in sorted(folder.glob("*.onnx"))
    }
    if "image" not in sessions:
        raise ModelUnavailable(f"{folder} holds no image.onnx; export the model again.")

    class Towers(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(folder.glob("*.onnx")))).digest()
            self.register_buffer("files", torch.from_numpy(np.frombuffer(digest, np.uint8).copy()))

        def ask(self, tower: str, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
            given = {name: tensor.numpy() for name, tensor in tensors.items()}
            return torch.from_numpy(sessions[tower].run([OUTPUT], given)[0])

        def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.ask("image", {PIXELS: pixels})

        def get_image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
            return self.ask("image", {PIXELS: pixel_values})

        def encode_text(self, ids: torch.Tensor) -> torch.Tensor:
            (only,) = sessions["text"].get_inputs()
            return self.ask("text", {only.name: ids})

    towers: Any = Towers()
    if "text" in sessions:
        takes = [one.name for one in sessions["text"].get_inputs()]
        towers.get_text_features = lambda **given: towers.ask("text", {name: given[name] for name in takes})
    if preprocess is None:
        towers.config = AutoConfig.from_pretrained(folder)
    else:
        towers.visual = SimpleNamespace(preprocess_cfg=preprocess)
    return towers


def _require(package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None or importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtra("ONNX models need onnx and onnxruntime; install clipsieve[onnx].")
