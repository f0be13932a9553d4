"""Train the demo detector: a small OWL-ViT that finds drawn objects and the things of CIFAR-10.

    python -m clipsieve.inference.mini.train_detector --cifar cifar10-train.parquet --out run/

The result is a folder in transformers' own format, `OUT/owlvit`. Each step shows the image tower scenes and mosaics of
photographs (`detector_data`), and the text tower about 260 fresh texts. Every patch whose center lies in the middle of
an object's box answers for that object:

- a focal logistic loss over all pairs of patch and text, as the truth of every pair is known; patches at the edge of a
  box only learn which texts are not true of it, as their boxes could veto;
- a softmax over the 144 pairs of colour and shape, or over the ten classes, for the patches that answer;
- distance and generalised IoU of the boxes;
- a ranking by detail: of two texts that are true of an object, the one that says more scores higher, so that a negative
  example with more detail decides;
- a logistic loss on the text-free shift, so that regions can be chosen before any text is known;
- plain heads for colour, shape, texture and class on the inner layers; only training needs them.

A vision transformer learns slowly to look at its neighbours. Here it begins there: positions are waves in dimensions
that patches leave free, and each head's queries are those waves turned by one patch or two, so that at first a head
looks at one neighbour, as a convolution does. All of it is trained on.

Runs on the CPU in bfloat16, twice as fast or more where the C library keeps its memory (glibc: MALLOC_MMAP_MAX_=0,
MALLOC_TRIM_THRESHOLD_=20000000000, GLIBC_TUNABLES=glibc.malloc.hugetlb=1). It writes `log.jsonl` and a checkpoint it
resumes from; the learning rate falls in the last `--cooldown` part, so that `--steps` may be changed on the way.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import CLIPTokenizer, OwlViTConfig, OwlViTForObjectDetection, OwlViTImageProcessor, OwlViTProcessor

from clipsieve.inference.mini.captions import CLASSES, vocabulary
from clipsieve.inference.mini.detector_data import PHOTO, Pictures, Texts, draw_pictures, draw_texts
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, TEXTURES
from clipsieve.inference.mini.train import rate_at, read_cifar

TOKENS = 16
"""Of a text, start and end included."""
PAIRS = len(COLOURS) * len(SHAPES)
HEADS = (("colour", 0, len(COLOURS)), ("shape", 1, len(SHAPES)), ("texture", 2, len(TEXTURES)), ("class", PHOTO, 10))

# ---------------------------------------------------------------------------------------------------- the folder


def build_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with a small vocabulary: every word of the grammar is one token, others fall into pieces.

    The end of a text has the largest id: OWL-ViT reads the text's embedding where the largest id stands. The first,
    "!", pads: a text that begins with id 0 is no text to OWL-ViT.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=20_000, min_frequency=1, end_of_word_suffix="</w>", show_progress=False, special_tokens=[]
    )
    learner.train_from_iterator(vocabulary(), trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair) for pair in merges)]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    make: Any = CLIPTokenizer
    tokenizer: CLIPTokenizer = make(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, pad_token="!", model_max_length=TOKENS
    )
    return tokenizer


def resumed_tokenizer(folder: Path) -> CLIPTokenizer:
    """That of a run's folder: made anew, tokens that are equally frequent may change places."""
    load: Any = CLIPTokenizer.from_pretrained
    tokenizer: CLIPTokenizer = load(folder)
    return tokenizer


def build_model(args: argparse.Namespace, tokenizer: CLIPTokenizer) -> Any:
    """A fresh detector, begun as the module's docstring says."""
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
    config = OwlViTConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": args.text_width,
            "intermediate_size": 4 * args.text_width,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": TOKENS,
            **ends,
        },
        vision_config={
            "hidden_size": args.width,
            "intermediate_size": 4 * args.width,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.heads,
            "image_size": args.side,
            "patch_size": args.patch,
            "hidden_act": "gelu",
        },
        projection_dim=args.text_width,
    )
    model = OwlViTForObjectDetection(config)
    with torch.no_grad():
        _begin(model)
    return model


def _waves(places: torch.Tensor, dims: int) -> torch.Tensor:
    """Positions (n, 2) in patches -> (n, dims): cosines of x, of y, then sines of x, of y, at dims / 4 wavelengths."""
    rates = torch.logspace(math.log10(0.25), math.log10(2.0), dims // 4)
    angles = (places[:, :, None] * rates).flatten(1)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _begin(model: Any) -> None:
    vision = model.owlvit.vision_model
    config = model.config.vision_config
    grid, width, dims = (
        config.image_size // config.patch_size,
        config.hidden_size,
        config.hidden_size // config.num_attention_heads,
    )
    steps = torch.arange(grid, dtype=torch.float32)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    embeddings = vision.embeddings
    table = torch.zeros(1 + grid * grid, width)
    table[1:, :dims] = _waves(places, dims)
    embeddings.position_embedding.weight.copy_(table)
    patches = embeddings.patch_embedding.weight
    torch.nn.init.normal_(patches, std=patches[0].numel() ** -0.5)
    patches[:dims] = 0
    embeddings.class_embedding.copy_(torch.randint(0, 2, (width,)) * 2.0 - 1.0)
    ring = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    for i, layer in enumerate(vision.encoder.layers):
        attention = layer.self_attn
        for linear in (attention.q_proj, attention.k_proj):
            torch.nn.init.normal_(linear.weight, std=0.3 * width**-0.5)
        for head in range(config.num_attention_heads):
            x, y = ring[(head + i * config.num_attention_heads) % len(ring)]
            far = 1.0 if i < len(vision.encoder.layers) / 2 else 2.0
            rows = slice(head * dims, (head + 1) * dims)
            strength = dims**0.25 * 0.8
            attention.k_proj.weight[rows, :dims] = torch.eye(dims) * strength
            attention.q_proj.weight[rows, :dims] = _turn(far * x, far * y, dims) * strength
    head = model.class_head
    for linear, bias in ((head.logit_shift, -0.5), (head.logit_scale, 9.0)):
        torch.nn.init.zeros_(linear.weight)
        torch.nn.init.constant_(linear.bias, bias)
    torch.nn.init.zeros_(model.box_head.dense2.weight)
    model.box_head.dense2.bias.copy_(torch.tensor([0.0, 0.0, 1.3, 1.3]))  # boxes of a few patches, not of one


def _turn(x: float, y: float, dims: int) -> torch.Tensor:
    """The matrix that takes `_waves` of a place to those of the place moved by (x, y) patches."""
    here = torch.cat([torch.logspace(math.log10(0.25), math.log10(2.0), dims // 4) * by for by in (x, y)])
    cos, sin = torch.diag(here.cos()), torch.diag(here.sin())
    return torch.cat([torch.cat([cos, -sin], dim=1), torch.cat([sin, cos], dim=1)])


def save_folder(model: Any, tokenizer: CLIPTokenizer, folder: Path) -> None:
    """The detector as transformers reads it, its weights in float16."""
    side = model.config.vision_config.image_size
    size = {"height": side, "width": side}
    processor = OwlViTImageProcessor(size=size, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder)
    OwlViTProcessor(processor, tokenizer).save_pretrained(folder)  # type: ignore[no-untyped-call]
    halves = {name: t.detach().half() for name, t in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=halves)


# ---------------------------------------------------------------------------------------------------- the loss


@dataclass(frozen=True, slots=True)
class Answers:
    """Which patch answers for which object. `owner`: long (b, n), index of the object, -1 for none. `middle`: bool
    (b, n), the patch lies in the middle of its box and says what is there; others with an owner only give its box."""

    owner: torch.Tensor
    middle: torch.Tensor


def assign(boxes: torch.Tensor, grid: int) -> Answers:
    """Boxes (b, o, 4) -> the answers of grid x grid patches. Every object has at least one patch in its middle."""
    steps = (torch.arange(grid, dtype=torch.float32) + 0.5) / grid
    centers = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(1, -1, 1, 2)
    there = boxes[:, None, :, 2] > 0
    away = ((centers - boxes[:, None, :, :2]).abs() / (boxes[:, None, :, 2:] / 2).clamp_min(1e-6)).amax(dim=-1)
    away = away.masked_fill(~there, math.inf)  # (b, n, o), 1 at the edge of the box
    nearest, owner = away.min(dim=2)
    middle = nearest < 0.7
    picture, thing = torch.nonzero(boxes[:, :, 2] > 0, as_tuple=True)
    patch = away[picture, :, thing].argmin(dim=1)
    owner[picture, patch] = thing
    middle[picture, patch] = True
    return Answers(owner.masked_fill((nearest >= 1) & ~middle, -1), middle)


def _giou(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """IoU and generalised IoU of boxes (n, 4), center and size, pair by pair."""
    low_a, high_a, low_b, high_b = (
        a[:, :2] - a[:, 2:] / 2,
        a[:, :2] + a[:, 2:] / 2,
        b[:, :2] - b[:, 2:] / 2,
        b[:, :2] + b[:, 2:] / 2,
    )
    shared = (torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)).clamp_min(0).prod(dim=1)
    union = a[:, 2:].prod(dim=1) + b[:, 2:].prod(dim=1) - shared
    hull = (torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)).prod(dim=1)
    return shared / union, shared / union - (hull - union) / hull


class Inner(torch.nn.Module):
    """Plain heads on the middle and the last layer of the image tower; only training needs them."""

    def __init__(self, vision: Any) -> None:
        super().__init__()
        layers = vision.encoder.layers
        self.seen = threading.local()  # pictures are worked on in several threads
        width = vision.config.hidden_size
        self.heads = torch.nn.ModuleList()
        for i in (len(layers) // 2 - 1, len(layers) - 1):
            out = len(self.heads)
            layers[i].register_forward_hook(lambda _m, _i, output, out=out: setattr(self.seen, f"at{out}", output))
            heads = {name: torch.nn.Linear(width, size) for name, _, size in HEADS}
            self.heads.append(torch.nn.ModuleDict({"norm": torch.nn.LayerNorm(width), **heads}))

    def loss(self, rows: torch.Tensor, codes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Of patches `rows` (indices into b * n) with codes (r, 5)."""
        total = torch.zeros(())
        for i, heads in enumerate(self.heads):
            assert isinstance(heads, torch.nn.ModuleDict)
            output = getattr(self.seen, f"at{i}")
            output = output[0] if isinstance(output, tuple) else output
            inner = heads["norm"](output[:, 1:].flatten(0, 1)[rows].float())
            for name, column, _ in HEADS:
                known = codes[:, column] >= 0
                said = F.cross_entropy(heads[name](inner[known]), codes[known, column], reduction="none")
                total = total + (said * weight[known]).sum()
        return total


def losses(
    model: Any,
    inner: Inner,
    features: torch.Tensor,
    text: torch.Tensor,
    texts: Texts,
    batch: Pictures,
    boxes: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """Of image features (b, n, width), texts' embeddings (t, d) and predicted boxes (b, n, 4)."""
    truth_boxes = torch.from_numpy(batch.boxes)
    answers = assign(truth_boxes, math.isqrt(features.shape[1]))
    head = model.class_head
    image = F.normalize(head.dense0(features).float(), dim=-1, eps=1e-6)
    shift, scale = head.logit_shift(features).float(), F.elu(head.logit_scale(features).float()) + 1
    logits = ((image @ text.T + shift) * scale).flatten(0, 1)

    owner, middle = answers.owner.flatten(), answers.middle.flatten()
    picture = torch.arange(len(features)).repeat_interleave(features.shape[1])
    rows = torch.nonzero(middle)[:, 0]
    ground = torch.nonzero(owner < 0)[:, 0]
    ground = ground[torch.randperm(len(ground))[: max(1, len(ground) // 4)]]  # enough of what is nothing
    object_id = picture[rows] * batch.boxes.shape[1] + owner[rows]
    counts = torch.bincount(object_id, minlength=batch.boxes.shape[0] * batch.boxes.shape[1])
    weight = counts[object_id].float().rsqrt()  # an object of many patches counts more, but not as many times more
    weight = weight / weight.sum()
    codes_array = batch.codes.reshape(-1, batch.codes.shape[2])[object_id.numpy()]
    codes = torch.from_numpy(codes_array.astype(np.int64))
    true = torch.from_numpy(texts.true(codes_array))

    said = logits[rows]
    focal = _focal(said, true.float()).sum(dim=1) @ weight
    focal = focal + 4 * _focal(logits[ground], torch.zeros(())).sum() / len(rows)
    edge = torch.nonzero((owner >= 0) & ~middle)[:, 0]  # gives boxes too: what it says wrongly would veto the middle's
    edge = edge[torch.randperm(len(edge))[: len(rows) // 2]]
    edge_codes = batch.codes[picture[edge].numpy(), owner[edge].numpy()]
    wrong = ~torch.from_numpy(texts.true(edge_codes))
    focal = focal + (_focal(logits[edge], torch.zeros(())) * wrong).sum() / max(1, len(edge))

    drawn, photo = codes[:, 0] >= 0, codes[:, PHOTO] >= 0
    names = PAIRS + len(COLOURS) + len(SHAPES)
    pair = codes[drawn, 0] * len(SHAPES) + codes[drawn, 1]
    choice = F.cross_entropy(said[drawn, :PAIRS], pair, reduction="none") @ weight[drawn]
    choice = (
        choice
        + F.cross_entropy(said[photo, names : names + 10], codes[photo, PHOTO], reduction="none", label_smoothing=0.05)
        @ weight[photo]
    )

    plain = torch.stack(
        [said[drawn, PAIRS + codes[drawn, 0]], said[drawn, PAIRS + len(COLOURS) + codes[drawn, 1]]], dim=1
    )
    detail = F.softplus(1.0 + plain - said[drawn].gather(1, pair[:, None])).mean(dim=1) @ weight[drawn]
    if texts.details:
        less, more = (torch.tensor(side) for side in zip(*texts.details, strict=True))
        both = true[:, more].float() * weight[:, None]
        gaps = F.softplus(1.0 + said[:, less] - said[:, more])
        detail = detail + (gaps * both).sum() / both.sum().clamp_min(1e-6)

    free = ((shift + 0.7) * scale.detach()).flatten()
    there = F.softplus(-free[rows]) @ weight + F.softplus(free[ground]).mean()

    mine = torch.nonzero(owner >= 0)[:, 0]
    goal = truth_boxes[picture[mine], owner[mine]]
    _, generalised = _giou(boxes.flatten(0, 1)[mine], goal)
    away = (boxes.flatten(0, 1)[mine] - goal).abs().sum(dim=1) / goal[:, 2:].mean(dim=1)
    box = (1 - generalised + 0.5 * away).mean()
    return {
        "focal": focal,
        "choice": choice,
        "detail": detail,
        "there": there,
        "box": box,
        "inner": inner.loss(rows, codes, weight),
    }


def _focal(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The logistic loss, less of it where the answer is nearly right."""
    missed = torch.sigmoid(torch.where(truth > 0, -logits, logits))
    return F.softplus(torch.where(truth > 0, -logits, logits)) * missed.detach()


# ---------------------------------------------------------------------------------------------------- the loop


def _forward(model: Any, pixels: NDArray[np.uint8]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels (b, side, side, 3) -> features (b, n, width) and boxes (b, n, 4)."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)
    side = model.config.vision_config.image_size
    if images.shape[-1] != side:
        images = F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp_(-1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.image_embedder(images)[0]
        flat = features.flatten(1, 2)
        offsets = model.box_head(flat)
    return flat, torch.sigmoid(offsets.float() + model.box_bias)


def _embed(model: Any, tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")["input_ids"]
    lengths = tokens.argmax(dim=1) + 1
    order = lengths.argsort()
    pooled = []
    with torch.autocast("cpu", torch.bfloat16):
        for some in order.tensor_split(3):  # short texts apart from long ones
            # the mask is causal, and what follows the end is not read: no padding mask is needed
            short = tokens[some, : int(lengths[some].max())]
            pooled.append(model.owlvit.text_model(input_ids=short).pooler_output)
        text = model.owlvit.text_projection(torch.cat(pooled)).float()
    return F.normalize(text, dim=-1)[order.argsort()]


@torch.no_grad()
def check(model: Any, tokenizer: CLIPTokenizer, pictures: Pictures) -> dict[str, float]:
    """On pictures not trained on: share of objects whose middle patch names their pair or class; mean IoU there."""
    flat, boxes = _forward(model, pictures.pixels)
    texts = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES] + [
        f"a photo of a {name}" for name in CLASSES
    ]
    said = F.normalize(model.class_head.dense0(flat).float(), dim=-1) @ _embed(model, tokenizer, texts).T
    picture, thing = np.nonzero(pictures.boxes[:, :, 2] > 0)
    goal = torch.from_numpy(pictures.boxes[picture, thing])
    grid = math.isqrt(flat.shape[1])
    x, y = (goal[:, :2].T * grid).long().clamp(0, grid - 1)
    patch = y * grid + x
    codes = pictures.codes[picture, thing].astype(np.int64)
    photo = codes[:, PHOTO] >= 0
    said = said[picture, patch]
    pair = said[:, :PAIRS].argmax(dim=1).numpy()[~photo] == (codes[:, 0] * len(SHAPES) + codes[:, 1])[~photo]
    name = said[:, PAIRS:].argmax(dim=1).numpy()[photo] == codes[photo, PHOTO]
    overlap = _giou(boxes[picture, patch], goal)[0].numpy()
    return {
        "pairs": pair.mean(),
        "classes": name.mean(),
        "iou": overlap[~photo].mean(),
        "iou_photo": overlap[photo].mean(),
    }


def read_pictures(args: argparse.Namespace) -> tuple[Pictures, Pictures]:
    """Scenes and mosaics to train on, drawn once and kept in `--out`."""
    kept = []
    for i, (name, count) in enumerate((("scenes", args.scenes), ("mosaics", args.mosaics))):
        path = args.out / f"{name}-{count}-{args.drawn}.npz"
        if not path.exists():
            photos = read_cifar(args.cifar) if i else ()
            drawn = draw_pictures(count, args.seed * 2 + i, args.drawn, *photos)
            with path.open("wb") as file:
                np.savez(file, pixels=drawn.pixels, boxes=drawn.boxes, codes=drawn.codes)
        with np.load(path) as arrays:
            kept.append(Pictures(arrays["pixels"], arrays["boxes"], arrays["codes"]))
    return kept[0], kept[1]


def _pick(scenes: Pictures, mosaics: Pictures, size: int, share: float, rng: np.random.Generator) -> Pictures:
    """A batch: a `share` of scenes and the rest mosaics, `size` in all; mosaics mirrored half the time."""
    some = rng.integers(len(scenes.codes), size=round(size * share))
    others = rng.integers(len(mosaics.codes), size=size - len(some))
    first, second = (Pictures(p.pixels[i], p.boxes[i], p.codes[i]) for p, i in ((scenes, some), (mosaics, others)))
    mirrored = rng.random(len(others)) < 0.5
    second.pixels[mirrored] = second.pixels[mirrored, :, ::-1]
    second.boxes[mirrored, :, 0] = np.where(second.boxes[mirrored, :, 2] > 0, 1 - second.boxes[mirrored, :, 0], 0)
    return Pictures.join([first, second])


WEIGHTS = {"focal": 1.0, "choice": 1.0, "detail": 0.5, "there": 0.5, "box": 2.0, "inner": 0.5}


def _share(batch: Pictures, which: int, of: int) -> Pictures:
    """Every `of`-th picture."""
    return Pictures(batch.pixels[which::of], batch.boxes[which::of], batch.codes[which::of])


def _gradients(
    model: Any, inner: Inner, text: torch.Tensor, texts: Texts, wanted: list[torch.Tensor], batch: Pictures
) -> tuple[tuple[torch.Tensor, ...], dict[str, float]]:
    """The gradients by the `wanted` tensors and by `text`, and the parts of the loss."""
    leaf = text.detach().requires_grad_()
    flat, boxes = _forward(model, batch.pixels)
    parts = losses(model, inner, flat, leaf, texts, batch, boxes)
    loss = torch.stack([WEIGHTS[name] * value for name, value in parts.items()]).sum()
    return torch.autograd.grad(loss, [*wanted, leaf]), {name: value.item() for name, value in parts.items()}


def train(args: argparse.Namespace) -> None:
    torch.manual_seed(args.seed)
    checkpoint, start = args.out / "checkpoint.pt", 0
    tokenizer = resumed_tokenizer(args.out / "owlvit") if checkpoint.exists() else build_tokenizer()
    model = build_model(args, tokenizer)
    inner = Inner(model.owlvit.vision_model)
    scenes, mosaics = read_pictures(args)
    held = min(200, len(scenes.codes) // 10)
    held_out = Pictures.join([Pictures(p.pixels[:held], p.boxes[:held], p.codes[:held]) for p in (scenes, mosaics)])
    scenes, mosaics = (Pictures(p.pixels[held:], p.boxes[held:], p.codes[held:]) for p in (scenes, mosaics))
    matrices = [p for name, p in model.named_parameters() if "encoder.layers" in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    unused = {id(model.owlvit.visual_projection.weight), id(model.owlvit.logit_scale)}
    others = [p for p in [*model.parameters(), *inner.parameters()] if id(p) not in chosen | unused]
    optimisers = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    rates = [args.lr, args.lr / 2]
    texts_own = {id(p) for p in [*model.owlvit.text_model.parameters(), *model.owlvit.text_projection.parameters()]}
    reading = [p for p in [*matrices, *others] if id(p) in texts_own]
    seeing = [p for p in [*matrices, *others] if id(p) not in texts_own]
    # A thread for a share of the pictures: threads that share each operation wait for each other thousands of times.
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(args.threads)
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        inner.load_state_dict(state["inner"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        start = state["step"]
    rng = np.random.default_rng((args.seed, start))
    log = (args.out / "log.jsonl").open("a")
    began = time.monotonic()
    sums: dict[str, float] = {}
    for step in range(start, args.steps):
        for optimiser, rate in zip(optimisers, rates, strict=True):
            for group in optimiser.param_groups:
                group["lr"] = rate * rate_at(step, args.steps, 60, args.cooldown)
        batch = _pick(scenes, mosaics, args.batch, args.scene_share, rng)
        texts = draw_texts(rng, batch.codes[batch.boxes[:, :, 2] > 0])
        text = _embed(model, tokenizer, texts.texts)
        shares = [_share(batch, i, args.threads) for i in range(args.threads)]
        results = list(pool.map(partial(_gradients, model, inner, text, texts, seeing), shares))
        *seen, said = (torch.stack(grads).mean(dim=0) for grads in zip(*(grads for grads, _ in results), strict=True))
        told = torch.autograd.grad(text, reading, said)
        for param, grad in zip([*seeing, *reading], [*seen, *told], strict=True):
            param.grad = grad
        parts = {name: sum(values[name] for _, values in results) / args.threads for name in results[0][1]}
        torch.nn.utils.clip_grad_norm_(others, 5.0)
        for optimiser in optimisers:
            optimiser.step()
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            n = (step % args.log_every) + 1
            pace = args.batch * (step + 1 - start) / (time.monotonic() - began)
            line = {"step": step + 1, "images_per_s": round(pace, 1), "cpu_s": round(time.process_time())}
            line |= {name: round(total / n, 3) for name, total in sums.items()}
            line |= {name: round(float(v), 3) for name, v in check(model, tokenizer, held_out).items()}
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(line, flush=True)
            sums = {}
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            state = {"model": model.state_dict(), "inner": inner.state_dict(), "step": step + 1}
            state["optimisers"] = [optimiser.state_dict() for optimiser in optimisers]
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            save_folder(model, tokenizer, args.out / "owlvit")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo detector (see the module's docstring).")
    parser.add_argument("--cifar", type=Path, required=True, help="parquet with columns image (JPEG bytes) and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: log, checkpoint, owlvit/")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=48, help="pictures a step, scenes and mosaics")
    parser.add_argument("--scene-share", type=float, default=0.5, help="of a batch, the rest are mosaics")
    parser.add_argument("--scenes", type=int, default=70_000, help="how many scenes to draw before training")
    parser.add_argument("--mosaics", type=int, default=60_000, help="how many mosaics to draw before training")
    parser.add_argument("--side", type=int, default=80, help="input pixels")
    parser.add_argument("--drawn", type=int, default=96, help="pixels of the pictures as they are kept")
    parser.add_argument("--patch", type=int, default=8)
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--text-width", type=int, default=128)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--cooldown", type=float, default=0.4, help="last part of the steps, learning rate falling")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
