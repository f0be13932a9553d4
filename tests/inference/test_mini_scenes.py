"""The scene generator: what it says of a scene is what it draws."""

from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.inference.mini.captions import CLASSES, GROUPS, SYNONYMS, describe, describe_class, fill, vocabulary
from clipsieve.inference.mini.scenes import (
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Ask,
    Part,
    Scene,
    SceneObject,
    render,
    sample_scene,
)


def one(shape: str, colour: str, x: float, y: float) -> SceneObject:
    return SceneObject(shape, colour, "plain", "medium", x, y, 0.3, rgb=COLOURS[colour])


@given(st.integers(0, 2**32))
def test_a_seed_draws_one_scene_within_the_picture(seed: int) -> None:
    scene = sample_scene(np.random.default_rng(seed))
    assert scene == sample_scene(np.random.default_rng(seed))
    assert 1 <= len(scene.objects) <= 4
    for thing in scene.objects:
        left, top, right, bottom = thing.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1


@given(st.integers(0, 2**32), st.integers(1, 4))
def test_included_pairs_appear_and_excluded_ones_do_not(seed: int, count: int) -> None:
    red, blue = ("red", "circle"), ("blue", "square")
    rng = np.random.default_rng(seed)
    for include, exclude in [((red,), (blue,)), ((red, blue), ())]:
        scene = sample_scene(rng, include=include, exclude=exclude, count=count)
        pairs = {(o.colour, o.shape) for o in scene.objects}
        assert set(include) <= pairs
        assert not pairs & set(exclude)
        assert len(scene.objects) == max(count, len(include))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_shows_its_colour_in_its_box_and_nowhere_else(shape: str) -> None:
    thing = one(shape, "red", 0.3, 0.6)
    scene = Scene((thing,), "plain", (40, 90, 160), 0)
    pixels = np.asarray(render(scene, 100), dtype=int)
    red = np.abs(pixels - COLOURS["red"]).sum(axis=2) < 60
    rows, columns = np.nonzero(red)
    left, top, right, bottom = (round(v * 100) for v in thing.box)
    assert red.sum() > 0.12 * (right - left) * (bottom - top)
    assert left - 1 <= columns.min() <= columns.max() <= right + 1
    assert top - 1 <= rows.min() <= rows.max() <= bottom + 1


def test_shapes_do_not_look_alike() -> None:
    masks = []
    for shape in SHAPES:
        scene = Scene((one(shape, "white", 0.5, 0.5),), "plain", (0, 0, 0), 0)
        masks.append(np.asarray(render(scene, 64).convert("L")) > 127)
    for i, a in enumerate(masks):
        for b in masks[:i]:
            assert (a & b).sum() / (a | b).sum() < 0.85


@pytest.mark.parametrize("texture", TEXTURES[1:])
def test_a_texture_is_seen(texture: str) -> None:
    plain = Scene((one("square", "green", 0.5, 0.5),), "plain", (200, 200, 200), 0)
    thing = SceneObject("square", "green", texture, "medium", 0.5, 0.5, 0.3, rgb=COLOURS["green"])
    drawn = render(Scene((thing,), "plain", (200, 200, 200), 0), 64)
    differs = np.abs(np.asarray(drawn, int) - np.asarray(render(plain, 64), int)).sum(axis=2) > 40
    inside = (0.26 * 64) ** 2
    assert 0.1 * inside < differs.sum() < 0.7 * inside


def test_statements_are_true_of_the_objects_they_fit() -> None:
    scene = Scene((one("circle", "red", 0.2, 0.2), one("square", "blue", 0.8, 0.5)), "plain", (9, 9, 9), 0)
    true = [
        (Part("red", "circle"),),
        (Part(shape="square"),),
        (Part("red", row="top", column="left"),),
        (Part("red", "circle"), Part("blue", "square")),
        (Part(count=2),),
    ]
    false = [
        (Part("blue", "circle"),),
        (Part("red", row="bottom"),),
        (Part("red", "circle"), Part(shape="circle")),  # one object cannot be both
        (Part("red", count=2),),
    ]
    assert all(Ask(parts).matches(scene) for parts in true)
    assert not any(Ask(parts).matches(scene) for parts in false)


@given(st.integers(0, 2**32))
def test_every_word_of_a_caption_is_in_the_vocabulary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    words = set(vocabulary())

    def maybe(values: Iterable[str]) -> str | None:
        return str(rng.choice(list(values))) if rng.random() < 0.6 else None

    part = Part(
        maybe(COLOURS),
        maybe(SHAPES),
        maybe(TEXTURES),
        maybe(SIZES),
        maybe(["top", "middle", "bottom"]),
        maybe(["left", "center", "right"]),
        int(rng.integers(1, 5)) if rng.random() < 0.3 else None,
    )
    captions = [describe(rng, Ask((part, Part("blue", "star")))), describe(rng, Ask((part,)))]
    captions += [describe_class(rng, name) for name in (*CLASSES, *GROUPS)]
    for caption in captions:
        assert set(caption.split()) <= words, caption


def test_articles_and_plurals() -> None:
    assert fill("a photo of a {}", "airplane") == "a photo of an airplane"
    assert fill("{}s", "finch") == "finches"
    assert all(name not in SYNONYMS[name] for name in CLASSES)
