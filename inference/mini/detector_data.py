"""Pictures with boxes, and texts about what is in the boxes: what the demo detector is trained on.

A picture is a scene, whose generator knows where everything lies, or a mosaic of CIFAR-10's photographs: in a grid, or
scattered among drawn objects. A text speaks of one thing ("a striped red circle", "a photo of a dog"), and of every
box it is known whether the text is true of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from clipsieve.inference.mini.captions import CLASSES, GROUPS, PHOTO_TEMPLATES, describe, describe_class, fill
from clipsieve.inference.mini.scenes import (
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Ask,
    Part,
    Scene,
    render,
    sample_scene,
    tight_boxes,
)

MOST = 9
"""Objects in one picture, at most."""

FIELDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("colour", tuple(COLOURS)),
    ("shape", SHAPES),
    ("texture", TEXTURES),
    ("size", tuple(SIZES)),
)
PHOTO = len(FIELDS)
"""The column of an object's codes that holds its CIFAR-10 class."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Pictures:
    """`pixels`: uint8 (n, side, side, 3). `boxes`: float32 (n, MOST, 4), center x, center y, width, height in 0..1.
    `codes`: int8 (n, MOST, 5), colour, shape, texture and size of a drawn object, the class of a photograph; -1 for
    what an object has not. Places without an object have boxes of no size."""

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.float32]
    codes: NDArray[np.int8]

    @classmethod
    def join(cls, parts: Sequence[Pictures]) -> Pictures:
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture, and (left, top, right, bottom) in 0..1 and the codes of each of its objects."""

    image: Image.Image
    boxes: list[Box]
    codes: list[tuple[int, ...]]


def draw_scene(rng: np.random.Generator, side: int, count: int | None = None) -> Picture:
    """A scene of `count` objects, of one to four without it."""
    scene = sample_scene(rng, count=count)
    return Picture(render(scene, side), tight_boxes(scene, side), _codes(scene))


def _codes(scene: Scene) -> list[tuple[int, ...]]:
    return [(*(words.index(getattr(o, name)) for name, words in FIELDS), -1) for o in scene.objects]


def draw_mosaic(
    rng: np.random.Generator, photos: Sequence[Image.Image], labels: Sequence[int], side: int, across: int | None = None
) -> Picture:
    """A picture of some of the `photos` (at least nine): `across` x `across` of them, or up to four scattered (0)."""
    if across is None:
        across = int(rng.choice([0, 1, 2, 3], p=(0.35, 0.1, 0.35, 0.2)))
    scene = sample_scene(rng, count=int(rng.choice([1, 2, 3, 4], p=(0.15, 0.3, 0.3, 0.25))))
    if across:
        edges = np.linspace(0, 1, across + 1)
        gap = 0.0 if rng.random() < 0.5 else float(rng.uniform(0.01, 0.08)) / across
        places = [
            (x + gap, y + gap, x + 1 / across - gap, y + 1 / across - gap) for y in edges[:-1] for x in edges[:-1]
        ]
        drawn = replace(scene, objects=())
    else:
        is_photo = rng.random(len(scene.objects)) < 0.8
        places = [o.box for o, photo in zip(scene.objects, is_photo, strict=True) if photo]
        drawn = replace(scene, objects=tuple(o for o, p in zip(scene.objects, is_photo, strict=True) if not p))
    canvas, boxes, codes = render(drawn, side), tight_boxes(drawn, side), _codes(drawn)
    for place, photo, label in zip(places, photos, labels, strict=False):
        left, top, right, bottom = (round(float(v) * side) for v in place)
        canvas.paste(photo.resize((right - left, bottom - top), Image.Resampling.BICUBIC), (left, top))
        boxes.append((left / side, top / side, right / side, bottom / side))
        codes.append((*[-1] * PHOTO, label))
    return Picture(canvas, boxes, codes)


def vary(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> Image.Image:
    """A photograph (32, 32, 3), mirrored half the time, moved by up to 4 pixels, in changed light."""
    x, y = rng.integers(0, 9, 2)
    moved = np.pad(pixels, ((4, 4), (4, 4), (0, 0)), "reflect")[y : y + 32, x : x + 32]
    image = Image.fromarray(moved[:, :: 1 if rng.random() < 0.5 else -1])
    for change in (ImageEnhance.Color, ImageEnhance.Contrast, ImageEnhance.Brightness):
        image = change(image).enhance(float(rng.uniform(0.7, 1.3)))
    return image


def _draw(job: tuple[int, int, int, int, NDArray[np.uint8] | None, Sequence[int]]) -> Pictures:
    seed, start, stop, side, photos, labels = job
    n = stop - start
    drawn = Pictures(
        np.empty((n, side, side, 3), np.uint8), np.zeros((n, MOST, 4), np.float32), np.full((n, MOST, 5), -1, np.int8)
    )
    for i in range(n):
        rng = np.random.default_rng((seed, start + i))
        # drawn at several sizes and brought to `side` as the preprocessing would, so that no one filter is learnt
        size = int(rng.choice([side, 128, 192], p=[0.3, 0.4, 0.3]))
        if photos is None:
            # half of them crowded: one to four objects leave most of the patches nothing to learn
            picture = draw_scene(rng, size, int(rng.integers(5, 9)) if rng.random() < 0.5 else None)
        else:
            which = range(i * MOST, (i + 1) * MOST)
            picture = draw_mosaic(rng, [vary(rng, photos[j]) for j in which], [labels[j] for j in which], size)
        corners = np.array(picture.boxes, np.float32)
        there = len(corners)
        drawn.boxes[i, :there] = np.hstack([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]])
        drawn.codes[i, :there] = picture.codes
        drawn.pixels[i] = np.asarray(picture.image.resize((side, side), Image.Resampling.BICUBIC))
    return drawn


def draw_pictures(
    count: int, seed: int, side: int, photos: NDArray[np.uint8] | None = None, labels: NDArray[np.int64] | None = None
) -> Pictures:
    """`count` scenes, or mosaics of `photos` (n, 32, 32, 3) with `labels` (n,), drawn on all cores."""
    rng = np.random.default_rng((seed, count))
    order = np.arange(0) if photos is None else np.tile(rng.permutation(len(photos)), 1 + count * MOST // len(photos))

    def jobs() -> Iterable[tuple[int, int, int, int, NDArray[np.uint8] | None, Sequence[int]]]:
        for i in range(0, count, 500):
            stop = min(i + 500, count)
            which = order[i * MOST : stop * MOST]
            some = None if photos is None else photos[which]
            yield seed, i, stop, side, some, [] if labels is None else labels[which].tolist()

    with ProcessPoolExecutor(os.cpu_count()) as pool:
        return Pictures.join(list(pool.map(_draw, jobs())))


# ---------------------------------------------------------------------------------------------------- the texts


@dataclass(frozen=True, slots=True)
class Texts:
    """One step's texts. `true`: of object codes (o, 5), a bool (o, t): is the text true of the object? `details`: pairs
    (i, j) of texts where j says all of i and more. The first 144 texts name all pairs of colour and shape, then
    come the colours, the shapes and the ten classes, all in order."""

    texts: list[str]
    wants: list[Part | frozenset[str]]
    details: list[tuple[int, int]]

    def true(self, codes: NDArray[np.int8]) -> NDArray[np.bool_]:
        return np.stack([_fits(want, codes) for want in self.wants], axis=1)


def _fits(want: Part | frozenset[str], codes: NDArray[np.int8]) -> NDArray[np.bool_]:
    if isinstance(want, frozenset):
        return np.isin(codes[:, PHOTO], [CLASSES.index(name) for name in want])
    fit = codes[:, 0] >= 0
    for i, (name, words) in enumerate(FIELDS):
        value = getattr(want, name)
        if value is not None:
            fit = fit & (codes[:, i] == words.index(value))
    return fit


def draw_texts(rng: np.random.Generator, codes: NDArray[np.int8], detailed: int = 32) -> Texts:
    """Texts about objects with these codes (o, 5): the fixed ones of `Texts`, `detailed` pairs of a plain and a fuller
    one (or its look-alike), classes in other words, and unknown words, true of nothing."""
    wants: list[Part | frozenset[str]] = [Part(colour, shape) for colour in COLOURS for shape in SHAPES]
    wants += [Part(colour=colour) for colour in COLOURS]
    wants += [Part(shape=shape) for shape in SHAPES]
    wants += [frozenset({name}) for name in CLASSES]
    texts = [describe(rng, Ask((w,))) if isinstance(w, Part) else describe_class(rng, *w) for w in wants]
    for _ in range(10):
        group = str(rng.choice(list(GROUPS)))
        said, true_of = (group, GROUPS[group]) if rng.random() < 0.4 else (name := str(rng.choice(CLASSES)), {name})
        wants.append(frozenset(true_of))
        texts.append(describe_class(rng, said))
    details = []
    drawn = codes[codes[:, 0] >= 0]
    for thing in drawn[rng.integers(len(drawn), size=detailed)] if len(drawn) else ():
        seen = Part(*(words[code] for code, (_, words) in zip(thing, FIELDS, strict=False)))
        base = Part(seen.colour if rng.random() < 0.7 else None, seen.shape if rng.random() < 0.7 else None)
        more = _with_detail(rng, base, seen)
        details.append((len(wants), len(wants) + 1))
        wants += [base, more]
        texts += [describe(rng, Ask((base,))), describe(rng, Ask((more,)))]
    for _ in range(10):
        wants.append(frozenset())
        texts.append(_unknown(rng))
    return Texts(texts, wants, details)


def _with_detail(rng: np.random.Generator, base: Part, seen: Part) -> Part:
    """`base` with a texture, a size or both: those of `seen`, or at times another."""

    def pick(right: str | None, words: Iterable[str]) -> str | None:
        return right if rng.random() < 0.6 else str(rng.choice(list(words)))

    roll = rng.random()
    if roll < 0.6:
        base = replace(base, texture=pick(seen.texture, TEXTURES))
    if roll > 0.4:
        base = replace(base, size=pick(seen.size, SIZES))
    return base


def _unknown(rng: np.random.Generator) -> str:
    """A text whose noun is no word the detector knows."""
    parts = rng.choice(list("bcdfghklmnprstvwz"), 4), rng.choice(list("aeiou"), 4)
    noun = "".join(c + v for c, v in zip(*parts, strict=True))[: int(rng.integers(4, 9))]
    roll = rng.random()
    if roll < 0.3:
        return f"a {rng.choice(list(COLOURS))} {noun}"
    return fill(PHOTO_TEMPLATES[int(rng.integers(len(PHOTO_TEMPLATES)))], noun)
