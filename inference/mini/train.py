"""Train the demo model: a small CLIP that knows drawn scenes and the ten classes of CIFAR-10.

    python -m clipsieve.inference.mini.train --cifar cifar10-train.parquet --out run/

Each step shows the image tower scenes and photographs, half and half, and the text tower a fresh draw of captions
about both. The truth of every image-text pair is known, so the loss is SigLIP's: a logistic loss over all pairs, with
as many positives an image as there are true captions (Zhai et al. 2023, "Sigmoid Loss for Language Image
Pre-Training"). Three terms join it:

- a softmax over the ten class captions for each photograph, which is what zero-shot classification asks;
- a logistic loss on the tower's inner cells: what colour, shape and texture have the objects centred here? The
  generator knows the places, and told them the tower finds the shapes in a fraction of the steps. The heads are thrown
  away;
- a ranking of captions by detail: where "a red circle with a blue square" is true it has to score above "a red
  circle", where only the latter is true, below it. This is what makes a negative example with more detail decide.

Runs on a GPU where there is one, else on the CPU in bfloat16. It writes `log.jsonl` and a checkpoint it resumes from;
the learning rate is constant after a warm-up and falls in the last `--cooldown` part, so that a run may be stopped
early with `--steps` lowered. The result is an open_clip folder, `OUT/clip`.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from clipsieve.inference.mini.captions import CLASSES, GROUPS, describe, describe_class, vocabulary
from clipsieve.inference.mini.scenes import COLOURS, SHAPES, SIZES, TEXTURES, Ask, Part, Scene, render, sample_scene

SIDE = 64
"""Input pixels of the image tower."""

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 256,
    "init_logit_bias": -8,
    "init_logit_scale": math.log(20),
    "vision_cfg": {
        "timm_model_name": "resnet10t",
        "timm_model_pretrained": False,
        "timm_pool": "avgmax",
        "timm_proj": "mlp",
        "image_size": SIDE,
    },
    "text_cfg": {
        "context_length": 20,
        "vocab_size": 0,  # set from the vocabulary
        "hf_tokenizer_name": ".",  # the tokenizer lies in the same folder
        "tokenizer_kwargs": {"clean": "whitespace"},
        "width": 128,
        "heads": 4,
        "layers": 3,
    },
}
PREPROCESS_CFG = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

# ---------------------------------------------------------------------------------------------------- the folder


def write_config(folder: Path) -> dict[str, Any]:
    """Write open_clip's configuration and the tokenizer into `folder`; return the model's arguments."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    # The end of a text has the largest id: open_clip reads the text's embedding where the largest id stands.
    tokens = ["[PAD]", "[UNK]", "[BOS]", *vocabulary(), "[EOS]"]
    ids = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z0-9]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", ids["[BOS]"]), ("[EOS]", ids["[EOS]"])]
    )
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=MODEL_CFG["text_cfg"]["context_length"],
    ).save_pretrained(folder)
    text_cfg = {**MODEL_CFG["text_cfg"], "vocab_size": len(tokens)}
    model_cfg = {**MODEL_CFG, "text_cfg": text_cfg}
    config = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS_CFG}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return model_cfg


# ---------------------------------------------------------------------------------------------------- the data


@dataclass(frozen=True, slots=True)
class SceneTable:
    """Scenes as arrays, to grade many statements at once.

    `codes`: int8 (n, 4, 6), per object its colour, shape, texture, size, row and column as indices; -1 where a scene
    has fewer objects. `centres`: float32 (n, 4, 2), x and y in 0..1. `pixels`: uint8 (n, SIDE, SIDE, 3).
    """

    codes: NDArray[np.int8]
    centres: NDArray[np.float32]
    pixels: NDArray[np.uint8]


_ATTRIBUTES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("texture", TEXTURES),
    ("size", tuple(SIZES)),
    ("row", ("top", "middle", "bottom")),
    ("column", ("left", "center", "right")),
)


def encode(scene: Scene) -> NDArray[np.int8]:
    """int8 (4, 6), see SceneTable."""
    codes = np.full((4, len(_ATTRIBUTES)), -1, np.int8)
    for i, thing in enumerate(scene.objects):
        row, column = thing.place
        values = (thing.colour, thing.shape, thing.texture, thing.size, row, column)
        codes[i] = [words.index(value) for (_, words), value in zip(_ATTRIBUTES, values, strict=True)]
    return codes


def matches(ask: Ask, codes: NDArray[np.int8]) -> NDArray[np.bool_]:
    """`Ask.matches` for many scenes at once: codes int8 (n, 4, 6) -> bool (n,)."""
    fits = []
    for part in ask.parts:
        fit = codes[:, :, 0] >= 0
        for i, (field, words) in enumerate(_ATTRIBUTES):
            value = getattr(part, field)
            if value is not None:
                fit = fit & (codes[:, :, i] == words.index(value))
        if part.count is not None:
            fit = fit & (fit.sum(axis=1, keepdims=True) == part.count)
        fits.append(fit)
    found = np.all([fit.any(axis=1) for fit in fits], axis=0)
    if len(fits) == 2:
        found &= (fits[0] | fits[1]).sum(axis=1) >= 2  # two different objects
    return np.asarray(found)


def _draw(job: tuple[int, int, int]) -> SceneTable:
    seed, start, stop = job
    table = SceneTable(
        np.empty((stop - start, 4, len(_ATTRIBUTES)), np.int8),
        np.zeros((stop - start, 4, 2), np.float32),
        np.empty((stop - start, SIDE, SIDE, 3), np.uint8),
    )
    for i in range(stop - start):
        rng = np.random.default_rng((seed, start + i))
        scene = sample_scene(rng)
        # drawn at several sizes and brought to SIDE as the model's preprocessing would, so that no one filter is learnt
        image = render(scene, int(rng.choice([SIDE, 96, 128, 192], p=[0.4, 0.2, 0.2, 0.2])))
        table.codes[i] = encode(scene)
        table.centres[i, : len(scene.objects)] = [(thing.x, thing.y) for thing in scene.objects]
        table.pixels[i] = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    return table


def draw_scenes(count: int, seed: int) -> SceneTable:
    """`count` scenes, drawn on all cores (a minute for 90,000 on two)."""
    jobs = [(seed, i, min(i + 500, count)) for i in range(0, count, 500)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(_draw, jobs))
    fields = ("codes", "centres", "pixels")
    return SceneTable(*(np.concatenate([getattr(part, field) for part in parts]) for field in fields))


def read_cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A parquet of `image` (JPEG bytes) and `label` -> pixels uint8 (n, 32, 32, 3), labels int64 (n,)."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["image", "label"])
    images = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in table["image"].to_pylist()]
    return np.stack(images), np.array([CLASSES.index(label) for label in table["label"].to_pylist()])


def _shift(pixels: NDArray[np.uint8], by: int, flip: bool, rng: np.random.Generator) -> torch.Tensor:
    """Pictures (n, side, side, 3) moved by up to `by` pixels each way, mirrored half the time if `flip`.

    Returns float32 (n, 3, side, side) in -1..1.
    """
    n, side = pixels.shape[:2]
    steps = np.arange(side)
    rows = np.abs(steps + rng.integers(-by, by + 1, (n, 1)))  # reflected at the edges
    columns = np.abs(steps + rng.integers(-by, by + 1, (n, 1)))
    rows, columns = (np.where(a >= side, 2 * side - 2 - a, a) for a in (rows, columns))
    if flip:
        columns = np.where(rng.random((n, 1)) < 0.5, columns[:, ::-1], columns)
    moved = pixels[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return torch.from_numpy(moved).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def _vary(images: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Photographs (n, 3, side, side) in -1..1, in changed light and half of them with a square cut out of them."""
    n, side = len(images), images.shape[-1]

    def draw(low: float, high: float) -> torch.Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1, 1)).astype(np.float32))

    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * draw(0.6, 1.4)  # saturation
    images = (images * draw(0.75, 1.25) + draw(-0.2, 0.2)).clamp_(-1, 1)  # contrast, brightness
    hole = side * 3 // 8
    left, top = (torch.from_numpy(rng.integers(-hole // 2, side - hole // 2, (n, 1))) for _ in range(2))
    across = torch.arange(side)
    column, row = ((across >= edge) & (across < edge + hole) for edge in (left, top))
    column &= torch.from_numpy(rng.random((n, 1)) < 0.5)
    return images.masked_fill_(row[:, None, :, None] & column[:, None, None, :], 0.0)


def _resize(images: torch.Tensor, side: int) -> torch.Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp_(-1, 1)


# ---------------------------------------------------------------------------------------------------- the captions


@dataclass(frozen=True, slots=True)
class Captions:
    """One step's texts. `asks`: what each says of scenes (None: of photographs). `classes`: bool (t, 10), the photo
    classes it is true of. `details`: pairs (i, j) of texts where j says all of i and more."""

    texts: list[str]
    asks: list[Ask | None]
    classes: NDArray[np.bool_]
    details: list[tuple[int, int]]


def _random_pair(rng: np.random.Generator) -> Part:
    return Part(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)))


def _seen(codes: NDArray[np.int8], which: int) -> Part:
    """The fully described part of object `which` of one scene (codes (4, 6))."""
    return Part(*(words[codes[which, i]] for i, (_, words) in enumerate(_ATTRIBUTES)))


def draw_captions(rng: np.random.Generator, codes: NDArray[np.int8]) -> Captions:
    """The texts of one step, about the scenes of its batch (codes int8 (n, 4, 6)) and about the photo classes.

    The first ten texts name the ten classes in order.
    """
    asks: list[Ask | None] = []
    texts: list[str] = []
    details: list[tuple[int, int]] = []
    classes: list[frozenset[str]] = []

    def say(ask: Ask) -> int:
        asks.append(ask)
        texts.append(describe(rng, ask))
        classes.append(frozenset())
        return len(texts) - 1

    for name in CLASSES:
        asks.append(None)
        texts.append(describe_class(rng, name))
        classes.append(frozenset({name}))
    for _ in range(12):
        name = str(rng.choice(CLASSES))
        group = str(rng.choice(list(GROUPS)))
        said, true_of = (group, GROUPS[group]) if rng.random() < 0.3 else (name, frozenset({name}))
        asks.append(None)
        texts.append(describe_class(rng, said))
        classes.append(true_of)

    for colour in COLOURS:  # every pair in every step: telling who wears what colour is what the tower learns last
        for shape in SHAPES:
            say(Ask((Part(colour, shape),)))
    for colour in COLOURS:
        say(Ask((Part(colour=colour),)))
    for shape in SHAPES:
        say(Ask((Part(shape=shape),)))
    crowded = np.flatnonzero((codes[:, :, 0] >= 0).sum(axis=1) >= 2)
    for scene in rng.choice(crowded, 32):
        there = int((codes[scene, :, 0] >= 0).sum())
        i, j = rng.choice(there, 2, replace=False)
        one, two = _seen(codes[scene], i), _seen(codes[scene], j)
        first, second = Part(one.colour, one.shape), Part(two.colour, two.shape)
        if rng.random() < 0.15:
            second = Part(two.colour) if rng.random() < 0.5 else Part(shape=two.shape)
        alone, other = say(Ask((first,))), say(Ask((second,)))
        both = say(Ask((first, second) if rng.random() < 0.5 else (second, first)))
        details += [(alone, both), (other, both)]
        if rng.random() < 0.5:  # the same first object beside one that is nearly the second
            changed = _random_pair(rng)
            near = Part(two.colour, changed.shape) if rng.random() < 0.5 else Part(changed.colour, two.shape)
            details.append((alone, say(Ask((first, near)))))
    for scene in rng.integers(len(codes), size=24):
        seen = _seen(codes[scene], int(rng.integers((codes[scene, :, 0] >= 0).sum())))
        base = Part(seen.colour if rng.random() < 0.7 else None, seen.shape)
        detailed = _with_detail(rng, base, seen)
        alone, more = say(Ask((base,))), say(Ask((detailed,)))
        if detailed.count is None:
            details.append((alone, more))
    table = np.array([[name in true_of for name in CLASSES] for true_of in classes])
    return Captions([_blur(rng, text) for text in texts], asks, table, details)


def _with_detail(rng: np.random.Generator, base: Part, seen: Part) -> Part:
    """`base` with one more detail of the object `seen`: texture or size (at times a wrong one), place or count."""
    match str(rng.choice(["texture", "size", "place", "count"])):
        case "texture":
            return replace(base, texture=seen.texture if rng.random() < 0.6 else str(rng.choice(TEXTURES)))
        case "size":
            return replace(base, size=seen.size if rng.random() < 0.6 else str(rng.choice(list(SIZES))))
        case "count":
            return replace(base, count=int(rng.choice([1, 2, 2, 3])))
    # "in the middle" and "in the center" alone are no places people name: there both row and column are said
    say_row, say_column = [(True, False), (False, True), (True, True), (True, True)][int(rng.integers(4))]
    row = seen.row if say_row or seen.column == "center" else None
    column = seen.column if say_column or seen.row == "middle" else None
    return replace(base, row=row, column=column)


def _blur(rng: np.random.Generator, text: str) -> str:
    """Now and then an unknown word in front, so that the text tower learns to pass over words it does not know."""
    return f"[UNK] {text}" if rng.random() < 0.04 else text


# ---------------------------------------------------------------------------------------------------- the losses


def losses(
    logits: torch.Tensor, captions: Captions, codes: NDArray[np.int8], labels: NDArray[np.int64]
) -> dict[str, torch.Tensor]:
    """logits float32 (s + p, t): s scenes, then p photographs, against t texts (scale and bias applied)."""
    scenes, photos = len(codes), len(labels)
    truth = np.zeros((scenes + photos, len(captions.texts)), bool)
    known = np.ones_like(truth)
    for i, ask in enumerate(captions.asks):
        if ask is None:
            truth[scenes:, i] = captions.classes[i][labels]
        else:
            truth[:scenes, i] = matches(ask, codes)
            known[scenes:, i] = all(part.shape for part in ask.parts)  # a photograph may well show "something red"
    sign = torch.from_numpy(np.where(truth, 1.0, -1.0).astype(np.float32)).to(logits.device)
    mask = torch.from_numpy(known).to(logits.device)
    pairs = (F.softplus(-sign * logits) * mask).sum() / len(logits)

    less, more = (torch.tensor(side, device=logits.device) for side in zip(*captions.details, strict=True))
    gap = logits[:scenes, more] - logits[:scenes, less]
    both = sign[:scenes, more] > 0
    only_less = (sign[:scenes, less] > 0) & ~both
    margin = 2.0
    detail = F.softplus(margin - gap[both]).sum() + F.softplus(margin + gap[only_less]).sum()
    detail = detail / (both.sum() + only_less.sum()).clamp_min(1)

    target = torch.from_numpy(labels).to(logits.device)
    photo = F.cross_entropy(logits[scenes:, :10], target, label_smoothing=0.05)
    return {"pairs": pairs, "detail": detail, "photo": photo}


class Cells(torch.nn.Module):
    """Says of each cell of the last three feature maps what objects are centred there; only training needs it."""

    WORDS = len(COLOURS) + len(SHAPES) + len(TEXTURES) + len(COLOURS) * len(SHAPES)

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.heads = torch.nn.ModuleList(torch.nn.LazyConv2d(self.WORDS, 1) for _ in range(3))
        self.maps: dict[int, torch.Tensor] = {}
        for i, layer in enumerate((trunk.layer2, trunk.layer3, trunk.layer4)):
            layer.register_forward_hook(lambda _module, _inputs, output, i=i: self.maps.__setitem__(i, output))

    def loss(self, codes: NDArray[np.int8], centres: NDArray[np.float32]) -> torch.Tensor:
        """Of the scenes that lead the batch last seen: codes int8 (s, 4, 6), centres float32 (s, 4, 2)."""
        total = torch.zeros((), device=next(iter(self.maps.values())).device)
        scene, thing = np.nonzero(codes[:, :, 0] >= 0)
        colour, shape, texture = codes[scene, thing, :3].astype(np.int64).T
        before = np.cumsum([0, len(COLOURS), len(SHAPES), len(TEXTURES)])
        words = (colour, before[1] + shape, before[2] + texture, before[3] + colour * len(SHAPES) + shape)
        for i, head in enumerate(self.heads):
            said = head(self.maps[i][: len(codes)])  # (s, WORDS, side, side)
            side = said.shape[-1]
            x, y = (centres[scene, thing].T * side).astype(np.int64).clip(0, side - 1)
            truth = torch.zeros(said.shape)
            for word in words:
                truth[scene, word, y, x] = 1
            total = total + F.binary_cross_entropy_with_logits(
                said.float(), truth.to(said.device), reduction="sum"
            ) / max(1, len(scene))
        return total


# ---------------------------------------------------------------------------------------------------- the loop


def rate_at(step: int, steps: int, warmup: int, cooldown: float) -> float:
    """Of the learning rate, the share at a step: rising over the first ones, falling over the last part."""
    start = steps * (1 - cooldown)
    return min(1.0, (step + 1) / warmup) * min(1.0, max(0.0, (steps - step) / (steps - start)))


def _batches(n: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    while True:
        order = rng.permutation(n)
        yield from (order[i : i + size] for i in range(0, n - size + 1, size))


def save_folder(model: torch.nn.Module, folder: Path) -> None:
    """The weights as open_clip reads them, in float16."""
    from safetensors.torch import save_file

    state = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    state = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})


def train(args: argparse.Namespace) -> None:
    out: Path = args.out
    model_cfg = write_config(out / "clip")
    tokenize = open_clip.get_tokenizer(f"local-dir:{out / 'clip'}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    model: Any = open_clip.CLIP(**_typed(model_cfg)).to(device, memory_format=torch.channels_last)
    visual = {id(p) for p in model.visual.parameters()}
    cells = Cells(model.visual.trunk).to(device)
    model.eval()
    with torch.no_grad():  # gives the heads their shapes
        model.encode_image(torch.zeros(2, 3, SIDE, SIDE, device=device))
        cells.loss(np.zeros((1, 4, 6), np.int8), np.zeros((1, 4, 2), np.float32))
        for head in cells.heads:  # nearly all words are false of nearly all cells; do not spend 200 steps on that
            torch.nn.init.constant_(head.get_parameter("bias"), -5.0)
    groups = [
        {
            "params": [p for p in model.parameters() if id(p) in visual and p.ndim > 1],
            "lr": args.lr,
            "weight_decay": 0.05,
        },
        {
            "params": [p for p in model.parameters() if id(p) in visual and p.ndim <= 1],
            "lr": args.lr,
            "weight_decay": 0.0,
        },
        {"params": [p for p in model.parameters() if id(p) not in visual], "lr": args.lr / 2, "weight_decay": 0.0},
        {"params": list(cells.parameters()), "lr": args.lr, "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    rates = [group["lr"] for group in groups]
    scenes = draw_scenes(args.scenes, args.seed)
    photos, labels = read_cifar(args.cifar)

    checkpoint, start = out / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        cells.load_state_dict(state["cells"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    rng = np.random.default_rng((args.seed, start))
    scene_batches = _batches(len(scenes.codes), args.batch // 2, rng)
    photo_batches = _batches(len(labels), args.batch // 2, rng)
    log = (out / "log.jsonl").open("a")
    began, seen, sums = time.monotonic(), 0, dict.fromkeys(("pairs", "detail", "photo", "cells"), 0.0)
    model.train()
    for step in range(start, args.steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = rate * rate_at(step, args.steps, 200, args.cooldown)
        drawn, shot = next(scene_batches), next(photo_batches)
        codes = scenes.codes[drawn]
        side = args.small_side if step < args.steps * args.small_part else SIDE
        images = torch.cat(
            [
                _resize(_shift(scenes.pixels[drawn], 2, False, rng), side),
                _resize(_vary(_shift(photos[shot], 4, True, rng), rng), side),
            ]
        ).to(device, memory_format=torch.channels_last)
        captions = draw_captions(rng, codes)
        tokens = tokenize(captions.texts).to(device)
        with torch.autocast(device, torch.bfloat16):
            image = model.encode_image(images)
            text = model.encode_text(tokens)
            cell = cells.loss(codes, scenes.centres[drawn])
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        logits = image @ text.T * model.logit_scale.exp() + model.logit_bias
        parts = losses(logits, captions, codes, labels[shot]) | {"cells": cell}
        loss = parts["pairs"] + parts["detail"] + 1.5 * parts["photo"] + 0.5 * parts["cells"]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        seen += len(images)
        for name, value in parts.items():
            sums[name] += value.item()
        if (step + 1) % args.log_every == 0 or step + 1 == args.steps:
            n = (step % args.log_every) + 1
            line = {"step": step + 1, "images_per_s": round(seen / (time.monotonic() - began), 1), "side": side}
            line |= {name: round(total / n, 4) for name, total in sums.items()}
            line["scale"] = round(model.logit_scale.exp().item(), 2)
            log.write(json.dumps(line) + "\n")
            log.flush()
            print(line, flush=True)
            sums = dict.fromkeys(sums, 0.0)
        if (step + 1) % args.save_every == 0 or step + 1 == args.steps:
            state = {"model": model.state_dict(), "cells": cells.state_dict(), "optimiser": optimiser.state_dict()}
            state["step"] = step + 1
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            save_folder(model, out / "clip")


def _typed(model_cfg: dict[str, Any]) -> dict[str, Any]:
    vision = open_clip.CLIPVisionCfg(**model_cfg["vision_cfg"])
    text = open_clip.CLIPTextCfg(**model_cfg["text_cfg"])
    return {**model_cfg, "vision_cfg": vision, "text_cfg": text}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model (see the module's docstring).")
    parser.add_argument("--cifar", type=Path, required=True, help="parquet with columns image (JPEG bytes) and label")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run: log, checkpoint, clip/")
    parser.add_argument("--steps", type=int, default=9000)
    parser.add_argument("--batch", type=int, default=256, help="images a step, half scenes and half photographs")
    parser.add_argument("--scenes", type=int, default=90_000, help="how many scenes to draw before training")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--cooldown", type=float, default=0.35, help="last part of the steps, learning rate falling")
    parser.add_argument("--small-side", type=int, default=48, help="input pixels in the first part of the run")
    parser.add_argument("--small-part", type=float, default=0.6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--log-every", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=250)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    train(args)


if __name__ == "__main__":
    main()
