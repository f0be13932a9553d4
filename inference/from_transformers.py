"""Checkpoints of transformers: CLIP, SigLIP, SigLIP 2 and their kin, and image towers without text such as DINOv2."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.inference.checkpoint import Batch, Checkpoint, Tensors, require_weights
from clipsieve.inference.hf_tokenizer import count_with, load_tokenizer, unknown_with

if TYPE_CHECKING:
    import torch

PROCESSORS = ("preprocessor_config.json", "processor_config.json")
"""Files of which one says how images are scaled."""


def load_transformers(source: str, model: Any = None) -> Checkpoint:
    """The checkpoint in the folder or hub repository `source`, or `model` with what else is there.

    InputError if it has no image tower, or its file lacks weights. Raises whatever transformers does where files are
    missing; the caller makes a sentence of it.
    """
    import torch

    model, untrained_pooler = _load_model(source) if model is None else (model, False)
    processor = load_processor(source)
    text_config = getattr(model.config, "text_config", model.config)
    tokenizer: Any = load_tokenizer(source, text_config.vocab_size) if hasattr(model, "get_text_features") else None
    scale = _batch_scaling(processor)
    side = max((v for v in _numbers(processor.size) + _numbers(getattr(processor, "crop_size", None))), default=224)

    def prepare(image: Image.Image) -> Tensors:
        given = {} if scale is None else {"do_rescale": False, "do_normalize": False}
        return {name: value[0] for name, value in processor(images=image, return_tensors="np", **given).items()}

    def encode_images(module: Any, batch: Batch) -> torch.Tensor:
        inputs = dict(batch)
        if scale is not None and not inputs["pixel_values"].is_floating_point():
            factor, mean, std = scale
            pixels = inputs["pixel_values"].to(torch.float32) * factor
            mean, std = (torch.tensor(v, dtype=torch.float32, device=pixels.device)[:, None, None] for v in (mean, std))
            inputs["pixel_values"] = (pixels - mean) / std
        if hasattr(module, "get_image_features"):
            return read_vectors(module.get_image_features(**inputs))
        output = module(**inputs)
        pooled = None if untrained_pooler else getattr(output, "pooler_output", None)
        pooled = output.last_hidden_state[:, 0] if pooled is None else pooled
        return pooled.flatten(1)  # type: ignore[no-any-return]  # a ResNet's is (n, d, 1, 1)

    def tokenize(texts: Sequence[str]) -> Batch:
        # Padded to the full length: SigLIP reads its vector off the last position and was trained on padding.
        return dict(
            tokenizer(
                list(texts), padding="max_length", truncation=True, max_length=context, return_tensors="pt"
            ).items()
        )

    def encode_texts(module: Any, batch: Batch) -> torch.Tensor:
        return read_vectors(module.get_text_features(**batch))

    preprocessing = describe_processor(processor)
    blank = prepare(Image.new("RGB", (side, side)))
    shape = blank["pixel_values"].shape
    pixels = (shape[0], shape[1], shape[2]) if set(blank) == {"pixel_values"} and len(shape) == 3 else None
    if tokenizer is None:
        return Checkpoint(model, preprocessing, side, prepare, encode_images, pixels=pixels)
    context = min(tokenizer.model_max_length, text_config.max_position_embeddings)
    return Checkpoint(
        model,
        preprocessing,
        side,
        prepare,
        encode_images,
        tokenize,
        encode_texts,
        pixels=pixels,
        vocabulary=text_config.vocab_size,
        count_tokens=count_with(tokenizer),
        context=context,
        unknown=unknown_with(tokenizer),
    )


def load_processor(source: str) -> Any:
    """What scales images for the checkpoint in the folder or hub repository `source`. ModelUnavailable without one."""
    from transformers import AutoImageProcessor

    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in PROCESSORS):
        raise ModelUnavailable(
            f"The model {source!r} has no {PROCESSORS[0]}, which says how images are scaled; add it, or use a whole "
            "checkpoint."
        )
    # Pillow's resize, as the models were trained with; torchvision's differs by a grey level or two.
    load: Any = AutoImageProcessor.from_pretrained
    return load(source, backend="pil")


def _load_model(source: str) -> tuple[Any, bool]:
    """The model, and whether its pooler is untrained: many image towers were saved without one."""
    import torch
    from transformers import AutoModel

    options: dict[str, Any] = {"dtype": torch.float32, "output_loading_info": True}
    try:
        model, info = AutoModel.from_pretrained(source, attn_implementation="sdpa", **options)
    except ValueError as error:
        if "attention" not in str(error):
            raise
        model, info = AutoModel.from_pretrained(source, **options)  # no attention to implement: a ConvNeXt, say
    missing = [str(name) for name in info["missing_keys"]]
    untrained_pooler = bool(missing) and all(name.startswith("pooler.") for name in missing)
    require_weights(source, info, model, ("pooler",) if untrained_pooler else ())
    if not hasattr(model, "get_image_features") and model.main_input_name != "pixel_values":
        raise InputError(f"The checkpoint {source!r} is a {type(model).__name__}, which takes no images; use another.")
    return model.eval(), untrained_pooler


def read_vectors(output: Any) -> "torch.Tensor":
    """The vectors in what a tower returned: transformers 4 gives the vectors themselves, 5 an object around them."""
    return output if hasattr(output, "norm") else output.pooler_output  # type: ignore[no-any-return]


def _batch_scaling(processor: Any) -> tuple[float, Any, Any] | None:
    """(factor, mean, std) if normalising can be left to the batch, where the model is; None if it cannot.

    Tried on a picture rather than judged by the class: some processors pad, or cut into patches, afterwards.
    """
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    if not (getattr(processor, "do_rescale", False) and getattr(processor, "do_normalize", False)):
        return None
    whole = processor(images=picture, return_tensors="np")
    part = processor(images=picture, return_tensors="np", do_rescale=False, do_normalize=False)
    if set(whole) != {"pixel_values"} or part["pixel_values"].dtype != np.uint8:
        return None
    factor, mean, std = processor.rescale_factor, processor.image_mean, processor.image_std
    shape = (-1, 1, 1)
    scaled = (part["pixel_values"] * factor - np.reshape(mean, shape)) / np.reshape(std, shape)
    return (factor, mean, std) if np.allclose(scaled, whole["pixel_values"], atol=1e-5) else None


def describe_processor(processor: Any) -> str:
    """What an image processor does, for ModelId."""
    names = ["do_resize", "size", "resample", "do_center_crop", "crop_size", "do_pad", "rescale_factor", "image_mean"]
    names += ["image_std", "max_num_patches", "patch_size"]
    values = processor.to_dict()
    chosen = {name: values[name] for name in names if values.get(name) is not None}
    return f"transformers: {json.dumps(chosen, default=_plain)}"


def _plain(value: Any) -> Any:
    return {k: v for k, v in dict(value).items() if v is not None} if hasattr(value, "keys") else str(value)


def _numbers(size: Any) -> list[int]:
    values = dict(size).values() if hasattr(size, "keys") else []
    return [int(v) for v in values if v]
