"""The demo's pictures and questions: drawn scenes whose content is known, so that every answer can be graded."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clipsieve.inference.mini.scenes import Ask, Part, Scene, SceneObject, render, sample_scene
from clipsieve.types import MetaClass

SIDE = 192
_SEED = 20

Pair = tuple[str, str]
"""Colour and shape of one object."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A question, and which scenes are right answers to it."""

    question: MetaClass
    right: Callable[[Scene], bool]


def _shows(*parts: Part) -> Callable[[Scene], bool]:
    return Ask(parts).matches


_CIRCLE = _shows(Part("red", "circle"))
_CIRCLE_AND_SQUARE = _shows(Part("red", "circle"), Part("blue", "square"))
_HEART, _STAR = _shows(Part("pink", "heart")), _shows(Part("yellow", "star"))
_LARGE_STAR = _shows(Part(shape="star", size="large"))

SCENE_QUESTIONS = (
    Graded(
        MetaClass("a red circle, but not with a blue square", ["a red circle"], ["a red circle with a blue square"]),
        lambda scene: _CIRCLE(scene) and not _CIRCLE_AND_SQUARE(scene),
    ),
    Graded(
        MetaClass("pink hearts or yellow stars", ["a pink heart", "a yellow star"], ["a red heart"]),
        lambda scene: _HEART(scene) or _STAR(scene),
    ),
    Graded(MetaClass("large stars, rather than small ones", ["a large star"], ["a small star"]), _LARGE_STAR),
)

PHOTO_QUESTIONS = (
    MetaClass("dogs, but not cats", ["a photo of a dog"], ["a photo of a cat"]),
    MetaClass(
        "road vehicles", ["a photo of a car", "a photo of a truck"], ["a photo of a ship", "a photo of an airplane"]
    ),
    MetaClass("something blue", ["something blue"], ["something green", "something gray"]),
)
"""For the user's own images: what the demo model has any idea of."""

# Of each 24 scenes, these show (first) and do not show (second) certain pairs; the others are left to chance.
_PLANNED: dict[int, tuple[tuple[Pair, ...], tuple[Pair, ...]]] = {
    0: ((("red", "circle"),), (("blue", "square"),)),
    1: ((("red", "circle"), ("blue", "square")), ()),
    2: ((("pink", "heart"),), ()),
    3: ((("yellow", "star"),), ()),
    4: ((("red", "heart"),), (("pink", "heart"),)),
    5: ((("blue", "square"),), (("red", "circle"),)),
}
_PERIOD = 24


def scene(number: int) -> Scene:
    """The demo's scene of that number, always the same."""
    include, exclude = _PLANNED.get(number % _PERIOD, ((), ()))
    return sample_scene(np.random.default_rng((_SEED, number)), include=include, exclude=exclude)


def name(number: int) -> str:
    """The file name of a scene."""
    return f"scene_{number:04d}.jpg"


def number_of(key: str) -> int:
    """The number of the scene whose file is called so."""
    return int(Path(key).stem.removeprefix("scene_"))


def caption(scene: Scene) -> str:
    """What the scene shows, in words."""
    return ", ".join(_words(thing) for thing in scene.objects)


def make_scenes(folder: Path, count: int, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Draw the first `count` scenes into the folder, each with its caption beside it. What is there is left alone.

    progress  called with (made, to be made)
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / name(number)
        if not path.exists():
            drawn = scene(number)
            path.with_suffix(".txt").write_text(caption(drawn) + "\n")
            # Renamed into place last: a picture that is there has its caption and is whole.
            half = path.with_suffix(".part")
            render(drawn, SIDE).save(half, "JPEG", quality=90)
            half.replace(path)
        progress(number + 1, count)


def _words(thing: SceneObject) -> str:
    texture = "" if thing.texture == "plain" else f"{thing.texture} "
    return f"a {texture}{thing.colour} {thing.shape}".replace("a orange", "an orange")
