"""Checkpoints of OWL-ViT and OWLv2, in transformers' format."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.inference.checkpoint import Batch, Tensors, require_weights
from clipsieve.inference.from_transformers import describe_processor, load_processor, read_vectors
from clipsieve.inference.hf_tokenizer import count_with, load_tokenizer, unknown_with
from clipsieve.inference.square import fit_square
from clipsieve.inference.text_reader import TextReader

if TYPE_CHECKING:
    import torch

NOWHERE = -1e30
"""Objectness of a box that lies in the padding alone; half precision never sees it."""


@dataclass(frozen=True, slots=True)
class Owl:
    """A loaded detector on the CPU, in float32, in evaluation mode.

    patches         boxes that it gives of an image
    prepare         upright RGB image -> Tensors, for many threads at once
    encode_images   (module, batch of what `prepare` gives, c) -> of each image's c likeliest boxes, likeliest first:
                    boxes (n, c, 4) as fractions of the image and within it, unit vectors (n, c, d), objectness, shift
                    and scale (n, c)
    tokenize        texts -> batch
    encode_texts    (module, batch of what `tokenize` gives) -> (n, d), not normalised
    reader          says what is read of texts; for one thread at a time
    """

    module: "torch.nn.Module"
    preprocessing: str
    dim: int
    patches: int
    prepare: Callable[[Image.Image], Tensors]
    encode_images: Callable[[Any, Batch, int], tuple["torch.Tensor", ...]]
    tokenize: Callable[[Sequence[str]], Batch]
    encode_texts: Callable[[Any, Batch], "torch.Tensor"]
    reader: TextReader


def load_owl(source: str, *, flash: bool, whole_words: bool = False) -> Owl:
    """The detector in the folder or hub repository `source`.

    flash        use FlashAttention 2 where it is installed; it computes in half precision only
    whole_words  it knows no word but those that its tokenizer has a token for, as the demo detector

    InputError if it is another kind of model, lacks weights, or is to be fed in a way that is not known here. Raises
    whatever transformers does where files are missing; the caller makes a sentence of it.
    """
    module, padded = _load_model(source, flash)
    processor = load_processor(source)
    side = _require_known(source, processor, module.config, padded)
    tokenizer = load_tokenizer(source, module.config.text_config.vocab_size)
    context = min(tokenizer.model_max_length, module.config.text_config.max_position_embeddings)

    def prepare(image: Image.Image) -> Tensors:
        if padded:
            longer = max(image.size)
            stretch = np.array([longer / image.width, longer / image.height], dtype=np.float32)
            return {"pixel_values": fit_square(np.asarray(image), side), "stretch": stretch}
        small = image.resize((side, side), Image.Resampling(int(processor.resample)))
        return {"pixel_values": np.asarray(small).transpose(2, 0, 1), "stretch": np.ones(2, np.float32)}

    def encode_images(module: Any, batch: Batch, count: int) -> "tuple[torch.Tensor, ...]":
        import torch

        pixels = batch["pixel_values"].float() * processor.rescale_factor
        mean, std = (pixels.new_tensor(v)[:, None, None] for v in (processor.image_mean, processor.image_std))
        features = module.image_embedder((pixels - mean) / std)[0].flatten(1, 2).float()
        with torch.autocast(features.device.type, enabled=False):  # the heads are small, and boxes want the digits
            return _best(module, features, batch["stretch"], count)

    def tokenize(texts: Sequence[str]) -> Batch:
        given: dict[str, Any] = {"padding": "max_length", "truncation": True, "max_length": context}
        tokens = tokenizer(list(texts), return_tensors="pt", **given)
        return {name: tokens[name] for name in ("input_ids", "attention_mask")}

    def encode_texts(module: Any, batch: Batch) -> "torch.Tensor":
        return read_vectors(getattr(module, module.base_model_prefix).get_text_features(**batch))

    patches = (side // module.config.vision_config.patch_size) ** 2
    dim = module.config.text_config.hidden_size
    return Owl(
        module,
        describe_processor(processor),
        dim,
        patches,
        prepare,
        encode_images,
        tokenize,
        encode_texts,
        TextReader(count_with(tokenizer), context, unknown_with(tokenizer, whole_words=whole_words)),
    )


def _load_model(source: str, flash: bool) -> tuple[Any, bool]:
    """The model, and whether its images are padded to a square (OWLv2) instead of squeezed into one."""
    import torch
    from transformers import AutoConfig, Owlv2ForObjectDetection, OwlViTForObjectDetection
    from transformers.utils.import_utils import is_flash_attn_2_available

    kinds: dict[str, Any] = {"owlvit": OwlViTForObjectDetection, "owlv2": Owlv2ForObjectDetection}
    kind = AutoConfig.from_pretrained(source).model_type
    if kind not in kinds:
        raise InputError(f"The checkpoint {source!r} is a {kind}; what finds regions is an OWL-ViT or an OWLv2.")
    attention = "flash_attention_2" if flash and is_flash_attn_2_available() else "sdpa"
    module, info = kinds[kind].from_pretrained(
        source, dtype=torch.float32, attn_implementation=attention, output_loading_info=True
    )
    require_weights(source, info, module)
    return module.eval(), kind == "owlv2"


def _require_known(source: str, processor: Any, config: Any, padded: bool) -> int:
    """The side of the model's input in pixels. InputError where its preprocessing is none that `prepare` does."""
    size, side = dict(processor.size), int(config.vision_config.image_size)
    steps = {"do_resize": True, "do_rescale": True, "do_normalize": True, "do_center_crop": False, "do_pad": padded}
    odd = [name for name, wanted in steps.items() if bool(getattr(processor, name, None)) != wanted]
    if odd or (size.get("height"), size.get("width")) != (side, side):
        what = f"{odd[0]} {getattr(processor, odd[0], None)}" if odd else f"size {size} where the model takes {side}"
        raise InputError(
            f"The preprocessing of {source!r} is not one that is known of such detectors ({what}); correct its "
            "preprocessor_config.json."
        )
    return side


def _best(module: Any, features: "torch.Tensor", stretch: "torch.Tensor", count: int) -> "tuple[torch.Tensor, ...]":
    """What `Owl.encode_images` returns, from the vision tower's (n, patches, width)."""
    import torch

    head = module.class_head
    shift = head.logit_shift(features)[..., 0]
    scale = head.elu(head.logit_scale(features))[..., 0] + 1
    # OWL-ViT has no head that says how likely an object is. Its shift is what it adds to every text's cosine.
    objectness = module.objectness_head(features)[..., 0] if hasattr(module, "objectness_head") else shift
    found = torch.sigmoid(module.box_head(features) + module.box_bias)
    centre, half = found[..., :2], found[..., 2:] / 2
    boxes = torch.cat([centre - half, centre + half], dim=-1) * stretch.repeat(1, 2)[:, None]
    boxes = boxes.clamp(0, 1)
    inside = (boxes[..., 2:] > boxes[..., :2]).all(dim=-1)
    objectness = torch.where(inside, objectness, NOWHERE)
    objectness, best = objectness.topk(min(count, objectness.shape[1]), dim=1)
    vectors = head.dense0(features.gather(1, best[..., None].expand(-1, -1, features.shape[-1])))
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    boxes = boxes.gather(1, best[..., None].expand(-1, -1, 4))
    return boxes, vectors, objectness, shift.gather(1, best), scale.gather(1, best)
