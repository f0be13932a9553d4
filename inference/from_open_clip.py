"""Checkpoints of open_clip: from its published list, or a folder with `open_clip_config.json`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipsieve.errors import ModelUnavailable
from clipsieve.inference.checkpoint import Batch, Checkpoint, Tensors
from clipsieve.inference.hf_tokenizer import count_with, require_tokenizer, unknown_with


def load_open_clip(
    architecture: str, tag: str | None = None, folder: str | None = None, model: Any = None
) -> Checkpoint:
    """The published weights `tag` of `architecture`, or the checkpoint in `folder`, or `model` with what else is there.

    Raises whatever open_clip does where files are missing; the caller makes a sentence of it.
    """
    import open_clip
    import torch

    if folder is not None:
        _require_scaling(Path(folder))
    from open_clip.transform import PreprocessCfg, image_transform_v2

    source = architecture if folder is None else f"local-dir:{folder}"
    published = {} if tag is None else open_clip.get_pretrained_cfg(architecture, tag)
    # open_clip only warns when weights need QuickGELU and the architecture's default is another activation.
    if model is None:
        model = open_clip.create_model(
            source,
            pretrained=tag,
            precision="fp32",
            device="cpu",
            force_quick_gelu=bool(published.get("quick_gelu")),
            require_pretrained=True,  # a folder without weights is an error, not a random model
        )
    model.eval()
    tokenizer = open_clip.get_tokenizer(source)
    cfg = model.visual.preprocess_cfg
    geometry, to_float = _split(image_transform_v2(PreprocessCfg(**cfg), is_train=False))
    size = cfg["size"]
    height, width = (size, size) if isinstance(size, int) else size

    def prepare(image: Image.Image) -> Tensors:
        for step in geometry:
            image = step(image)
        return {"pixels": np.array(image)}  # uint8 (h, w, 3): a quarter of the floats' bytes on the way to the device

    def encode_images(module: Any, batch: Batch) -> torch.Tensor:
        if batch["pixels"].is_floating_point():
            return module.encode_image(batch["pixels"])  # type: ignore[no-any-return]
        # Elementwise, so that the whole batch gives the same floats as open_clip's transform of each image.
        pixels = batch["pixels"].permute(0, 3, 1, 2).contiguous().to(torch.float32).div(255)
        return module.encode_image(to_float(pixels))  # type: ignore[no-any-return]

    def tokenize(texts: Sequence[str]) -> Batch:
        return {"text": tokenizer(list(texts))}

    inner = getattr(tokenizer, "tokenizer", None)  # transformers', unless it is open_clip's own

    def count_tokens(texts: Sequence[str]) -> list[int]:
        if inner is None:  # its two ends come beside
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        return count_with(inner)([tokenizer.clean_fn(text) for text in texts])

    def encode_texts(module: Any, batch: Batch) -> torch.Tensor:
        return module.encode_text(batch["text"])  # type: ignore[no-any-return]

    scaling = f"mean {list(cfg['mean'])}, std {list(cfg['std'])}"
    described = f"resize_mode {cfg['resize_mode']}, interpolation {cfg['interpolation']}, {scaling}"
    preprocessing = f"open_clip: {height} x {width}, {described}"
    tables = getattr(model, "text", model).modules()
    vocabulary = max((m.num_embeddings for m in tables if isinstance(m, torch.nn.Embedding)), default=0)
    if inner is not None:
        require_tokenizer(inner, folder or architecture, vocabulary)
    elif 0 < vocabulary < tokenizer.vocab_size:
        raise ModelUnavailable(
            f"The model {folder or architecture!r} has {vocabulary} tokens and no tokenizer for them: without an "
            f"hf_tokenizer_name open_clip's own is used, which has {tokenizer.vocab_size}; add it to "
            "open_clip_config.json, or use a whole checkpoint."
        )
    return Checkpoint(
        model,
        preprocessing,
        max(height, width),
        prepare,
        encode_images,
        tokenize,
        encode_texts,
        pixels=(3, height, width),
        vocabulary=vocabulary,
        count_tokens=count_tokens,
        context=tokenizer.context_length,
        unknown=None if inner is None else unknown_with(inner),
        converts=True,  # its transform scales first
    )


def _require_scaling(folder: Path) -> None:
    """ModelUnavailable where a folder does not say how images are scaled: open_clip takes OpenAI's numbers then."""
    try:
        config = json.loads((folder / "open_clip_config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise ModelUnavailable(
            f"{folder / 'open_clip_config.json'} cannot be read ({error}); fetch it again."
        ) from error
    scaling = config.get("preprocess_cfg") if isinstance(config, dict) else None
    if not isinstance(scaling, dict) or not {"mean", "std"} <= scaling.keys():
        raise ModelUnavailable(
            f"{folder / 'open_clip_config.json'} does not say how images are scaled: it lacks preprocess_cfg with mean "
            "and std; add them, or use a whole checkpoint."
        )


def _split(transform: Any) -> tuple[list[Any], Any]:
    """The steps that Pillow does, and the normalisation, which is done by the batch where the model is."""
    from torchvision.transforms import Normalize

    *geometry, to_tensor, normalize = transform.transforms
    if type(to_tensor).__name__ != "MaybeToTensor" or not isinstance(normalize, Normalize):
        raise RuntimeError(f"open_clip's image transform ends in {to_tensor}, {normalize}: an unknown version")
    return geometry, normalize
