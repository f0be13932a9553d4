import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.types import (
    ClassSet,
    ClassVectors,
    Distribution,
    Embeddings,
    Example,
    Hit,
    ImageItem,
    MetaClass,
    ModelId,
    Neighbors,
    QueryResult,
    Regions,
    content_hash,
)

MODEL = ModelId("mini", "abc", "224 centre crop")


def unit(*shape, seed=0):
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class TestModelId:
    def test_requires_each_part(self):
        MODEL.require(dataclasses.replace(MODEL), "The query")
        for part in ("name", "weights", "preprocessing"):
            with pytest.raises(ModelMismatch, match=f"The query .*{part} differ"):
                MODEL.require(dataclasses.replace(MODEL, **{part: "other"}), "The query")


class TestEmbeddings:
    def test_accepts_none_and_float16_rounding(self):
        Embeddings(np.empty((0, 8), np.float32), (), MODEL)
        Embeddings(unit(50, 8).astype(np.float16).astype(np.float32), ("k",) * 50, MODEL)

    @pytest.mark.parametrize(
        ("vectors", "says"),
        [
            (unit(2, 4).astype(np.float64), "float64"),
            (unit(2), r"shape \(n, d\)"),
            (np.asfortranarray(unit(2, 4)), "C-contiguous"),
            (np.array([[1, 0], [0, 0]], np.float32), "row 1 has length 0"),
            (np.array([[np.nan, 0], [1, 0]], np.float32), "row 0"),
            (np.empty((0, 0), np.float32), "dimension"),
            ([[1.0]], "list"),
        ],
    )
    def test_refuses(self, vectors, says):
        with pytest.raises(InputError, match=f"Embeddings.vectors.*{says}"):
            Embeddings(vectors, ("a", "b"), MODEL)

    def test_needs_a_key_each(self):
        with pytest.raises(InputError, match=r"Embeddings\.keys has 1 entries for 2"):
            Embeddings(unit(2, 4), ("a",), MODEL)

    def test_is_frozen(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            Embeddings(unit(1, 4), ("a",), MODEL).keys = ()  # type: ignore[misc]


class TestRegions:
    def make(self, **changed):
        ones = np.ones(2, np.float32)
        boxes = np.array([[0, 0, 0.5, 1], [-0.1, 0, 1.2, 1]], np.float32)
        fields = {"boxes": boxes, "item": np.array([0, 1]), "objectness": ones, "shift": ones, "scale": ones}
        return Regions(unit(2, 4), **(fields | changed), model=MODEL)

    def test_a_box_may_stick_out(self):
        assert self.make().boxes.shape == (2, 4)

    @pytest.mark.parametrize(
        "changed",
        [
            {"boxes": np.array([[0, 0, 1, 1], [0, 0, 640, 480]], np.float32)},
            {"boxes": np.array([[0, 0, 1, 1], [0.5, 0, 0.4, 1]], np.float32)},
            {"boxes": np.array([[0, 0, 1, 1], [np.nan, 0, 1, 1]], np.float32)},
            {"item": np.array([0, -1])},
            {"item": np.array([0, 1], np.int32)},
            {"scale": np.array([1, np.inf], np.float32)},
            {"objectness": np.ones(3, np.float32)},
        ],
    )
    def test_refuses(self, changed):
        with pytest.raises(InputError, match=f"Regions.{next(iter(changed))}"):
            self.make(**changed)


class TestExample:
    def test_is_a_text_or_an_image(self):
        assert Example(image=0).image == 0
        assert Example(image=content_hash(b"x")).text is None

    @pytest.mark.parametrize(
        "fields",
        [
            {},
            {"text": "a", "image": 1},
            {"text": "a\ud83d"},
            {"image": -1},
            {"image": 2**63},
            {"image": "17"},
            {"image": True},
        ],
    )
    def test_refuses(self, fields):
        with pytest.raises(InputError, match="Example"):
            Example(**fields)


class TestMetaClass:
    def test_strings_become_text_examples(self):
        bus = MetaClass("bus", ["red bus", Example(image=3)], ["red truck"])
        assert bus.positive == (Example(text="red bus"), Example(image=3))
        assert bus.negative == (Example(text="red truck"),)
        assert dataclasses.replace(bus, threshold=1).threshold == 1.0

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            (("bus", []), "at least one positive"),
            (("bus", "red bus"), r"give a list of examples: \['red bus'\]"),
            (("bus", [3]), "Example"),
            ((7, ["x"]), "MetaClass.name"),
            (("\ud83d", ["x"]), "MetaClass.name .* not whole"),
            (("bus", ["x"], [], math.nan), "threshold"),
        ],
    )
    def test_refuses(self, args, says):
        with pytest.raises(InputError, match=says):
            MetaClass(*args)


class TestClassSet:
    bus = MetaClass("bus", ["bus"])

    def test_takes_lists(self):
        made = ClassSet([self.bus], templates=["a {}"], nms=1, mode="agnostic")
        assert (made.classes, made.templates, made.nms) == ((self.bus,), ("a {}",), 1.0)

    def test_only_a_detectors_set_may_be_empty(self):
        assert ClassSet([], nms=0.4, mode="agnostic").classes == ()
        with pytest.raises(InputError, match="at least one class"):
            ClassSet([])

    def test_texts_and_images_mix_only_when_calibrated(self):
        mixed = [self.bus, MetaClass("car", ["car"], [Example(image=3)])]
        assert ClassSet(mixed, calibration="background").classes == tuple(mixed)
        with pytest.raises(InputError, match="calibration='background'"):
            ClassSet(mixed)

    @pytest.mark.parametrize(
        ("fields", "says"),
        [
            ({"classes": [bus, MetaClass("bus", ["x"])]}, "'bus' more than once"),
            ({"classes": ["bus"]}, "MetaClass"),
            ({"calibration": "foreground"}, "calibration"),
            ({"templates": ["no place"]}, "templates"),
            ({"templates": []}, "templates"),
            ({"templates": "mine"}, "templates"),
            ({"nms": 0.4}, "mode"),
            ({"nms": 0.4, "mode": "both"}, "mode"),
        ],
    )
    def test_refuses(self, fields, says):
        with pytest.raises(InputError, match=says):
            ClassSet(**({"classes": [self.bus]} | fields))


def test_class_vectors_agree_in_dimension():
    ClassVectors("bus", unit(2, 4), np.empty((0, 4), np.float32), MODEL)
    with pytest.raises(InputError, match="negative of 'bus' has 3 dimensions"):
        ClassVectors("bus", unit(2, 4), unit(1, 3), MODEL)
    with pytest.raises(InputError, match="no rows"):
        ClassVectors("bus", np.empty((0, 4), np.float32), unit(1, 4), MODEL)


class TestNeighbors:
    @given(st.lists(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3), max_size=4))
    def test_accepts_exactly_what_descends(self, rows):
        scores = np.array(rows, np.float32).reshape(-1, 3)
        ids = np.zeros(scores.shape, np.int64)
        if all(r == sorted(r, reverse=True) for r in rows):
            Neighbors(ids, scores)
        else:
            with pytest.raises(InputError, match="descend"):
                Neighbors(ids, scores)

    @pytest.mark.parametrize(
        ("ids", "scores"),
        [
            ([[1, -1]], [[0.5, 0.4]]),
            ([[1, 2]], [[0.5, -np.inf]]),
            ([[1, -2]], [[0.5, -np.inf]]),
            ([[1, 2]], [[0.5, np.nan]]),
            ([[1, 2]], [[0.5]]),
        ],
    )
    def test_refuses(self, ids, scores):
        with pytest.raises(InputError, match="Neighbors"):
            Neighbors(np.array(ids), np.array(scores, np.float32))

    def test_none_comes_last(self):
        Neighbors(np.array([[4, -1]]), np.array([[0.5, -np.inf]], np.float32))


class TestHit:
    def test_margin_is_infinite_without_negatives(self):
        bus, truck = Example(text="bus"), Example(text="truck")
        Hit(3, "a.jpg", 0.3, math.inf, bus)
        Hit(3, "a.jpg", 0.3, 0.1, bus, truck, (0, 0, 1, 1))
        with pytest.raises(InputError, match="margin"):
            Hit(3, "a.jpg", 0.3, 0.1, bus)
        with pytest.raises(InputError, match="margin"):
            Hit(3, "a.jpg", 0.3, math.inf, bus, truck)

    def test_id_is_an_int(self):
        with pytest.raises(InputError, match=r"Hit\.id"):
            Hit(np.int64(3), "a.jpg", 0.3, math.inf, Example(text="bus"))


def test_a_complete_result_says_its_recall():
    QueryResult((), "complete", recall=0.97)
    with pytest.raises(InputError, match="recall"):
        QueryResult((), "complete")
    with pytest.raises(InputError, match="claim"):
        QueryResult((), "certain")


def test_distribution_has_an_edge_more_than_bins():
    counts = np.array([1, 2])
    Distribution(1, 0, 2, counts, counts, counts, np.array([0, 1, 2], np.float32), exact=True)
    for edges in ([0, 1], [0, 1, 1]):
        with pytest.raises(InputError, match="edges"):
            Distribution(1, 0, 2, counts, counts, counts, np.array(edges, np.float32), exact=True)


def test_image_item_holds_bytes_and_a_key():
    ImageItem("a.jpg", b"")
    with pytest.raises(InputError, match=r"data of 'a.jpg' is str"):
        ImageItem("a.jpg", "x")
    with pytest.raises(InputError, match="key is empty"):
        ImageItem("", b"")
