"""Examples that are images, or parts of them: to a detector, and to the collection's own model."""

import json

import numpy as np
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import cut
from clipsieve.opening import open_collection
from clipsieve.types import ClassSet, Example, MetaClass
from tests.clipsieve.seer import Seer, quarters, run, write_json
from tests.inference.pictures import jpeg, write_tree

QUARTERS = [[0, 0, 0.5, 0.5], [0.5, 0, 1, 0.5], [0, 0.5, 0.5, 1], [0.5, 0.5, 1, 1]]
PHOTOS = {
    "0.png": quarters("red", "green", "orange", "black"),
    "1.png": quarters("green", "green", "black", "red"),
    "2.png": quarters("blue", "orange", "green", "green"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("examples")
    write_tree(base / "photos", PHOTOS)
    run("inference", base / "photos", base / "c", "--model", "fake", "--regions", "seer", "--crops")
    return base / "c"


@pytest.fixture
def photos(folder):
    def load(name, **_):
        return Seer(name)

    with open_collection(folder, embedder=FakeEmbedder(name="fake"), load_detector=load) as photos:
        yield photos


@pytest.fixture
def crop(tmp_path):
    """A picture of something red alone; a FakeDetector sees what is in its first quarter."""
    return write_tree(tmp_path / "crops", {"red.png": quarters(*["red"] * 4)}) / "red.png"


def found(text):
    """Image and box of each hit."""
    return {(hit["key"], tuple(hit[name] for name in ("x0", "y0", "x1", "y1"))) for hit in json.loads(text)["hits"]}


RED = {("0.png", tuple(QUARTERS[0])), ("1.png", tuple(QUARTERS[3]))}


def test_boxes_by_an_image(folder, crop, tmp_path):
    asked = ("search", folder, "--regions", "--threshold", "0.9", "--every-box", "--json")
    assert found(run(*asked, "--image", crop).stdout) == RED
    assert found(run(*asked, "red", "--image", crop).stdout) == RED
    assert found(run(*asked, "warm", "--threshold", 0.4).stdout) > RED
    assert found(run(*asked, "warm", "--threshold", 0.4, "--not-image", crop).stdout).isdisjoint(RED)
    for example in ({"image": "0", "box": QUARTERS[0]}, {"image": "crops/red.png"}):
        one = write_json(tmp_path / "set.json", {"classes": [{"name": "r", "positive": [example]}]})
        assert found(run(*asked, "--set", one).stdout) == RED


def test_detectors_of_images(folder, crop, tmp_path):
    classes = [
        {"name": "r", "positive": ["a text", {"image": "0", "box": QUARTERS[0]}], "threshold": 0.9},
        {"name": "warm", "positive": ["warm"], "negative": [{"image": "crops/red.png"}], "threshold": 0.4},
    ]
    detectors = write_json(tmp_path / "set.json", {"classes": classes, "nms": 0.4, "mode": "class-wise"})
    run("detect", folder, "--set", detectors, "--out", tmp_path / "boxes.json")
    told = json.loads((tmp_path / "boxes.json").read_text())
    keys = {image["id"]: image["file_name"] for image in told["images"]}
    boxes = {(a["category_id"], keys[a["image_id"]], *a["bbox"][:2]) for a in told["annotations"]}
    assert boxes == {(1, "0.png", 0, 0), (1, "1.png", 32, 24), (2, "0.png", 0, 24), (2, "2.png", 32, 0)}


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"image": "0", "box": [0, 0, 0, 1]}, "x0 < x1"),
        ({"image": "0", "box": [0, 0, 1]}, "give x0, y0, x1 and y1"),
        ({"image": "0", "box": [0, 0, 1, "1"]}, "give x0, y0, x1 and y1"),
        ({"image": "0", "boxes": [0, 0, 1, 1]}, "perhaps with a"),
        ({"image": "crops/none.png"}, "is not there"),
        ({"image": "7"}, "no item 7"),
        ({"image": "set.json"}, "cannot be an example"),
    ],
)
def test_wrong_examples_get_a_sentence(folder, tmp_path, example, words):
    detectors = write_json(tmp_path / "set.json", {"classes": [{"name": "r", "positive": [example]}]})
    code = 1 if words == "no item 7" else 2
    for argv in (["search", folder, "--regions"], ["detect", folder, "--out", tmp_path / "boxes.json"]):
        assert words in run(*argv, "--set", detectors, code=code).stderr


def test_a_crop_is_an_example_among_images(photos):
    """On the collection's own model: the stored vector of the crop, and the one that is made of it anew."""
    model = FakeEmbedder(name="fake")
    stored, anew = photos.embed_examples([Example(image=0, box=(0, 0, 0.5, 0.5)), Example(image=0, box=(0, 0, 1, 0.5))])
    np.testing.assert_allclose(stored, model.embed_images([cut(PHOTOS["0.png"], (0, 0, 0.5, 0.5))])[0], atol=1e-3)
    np.testing.assert_array_equal(anew, model.embed_images([cut(PHOTOS["0.png"], (0, 0, 1, 0.5))])[0])
    crops = photos.regions.search(stored[None], 12, space="crop")
    same = crops.numbers[0][crops.scores[0] > 0.99]  # FakeEmbedder knows like pictures alone
    boxes = photos.regions.take(same)
    assert {(f"{i}.png", tuple(b.tolist())) for i, b in zip(boxes.item, boxes.boxes, strict=True)} == RED
    uploaded = Example(image=photos.keep_example_image(PHOTOS["1.png"]), box=(0.5, 0.5, 1, 1))
    red = ClassSet([MetaClass("red", [uploaded], [Example(image=2)])])
    assert photos.search(red, k=1).hits[0].positive == uploaded
    np.testing.assert_allclose(photos.embed_examples([uploaded])[0], stored, atol=1e-3)


def test_crops_are_examples_of_a_class_when_labelling(folder, tmp_path):
    """End to end from the command line: a part of an item, and a file."""
    classes = [
        {"name": "red", "positive": [{"image": "0", "box": QUARTERS[0]}, {"image": "0"}]},
        {"name": "crop", "positive": [{"image": "whole.png"}]},
    ]
    write_tree(tmp_path, {"whole.png": PHOTOS["2.png"]})
    labels = write_json(tmp_path / "set.json", {"classes": classes})
    run("label", folder, "--set", labels, "--out", tmp_path / "labels.csv")
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert [line.split(",")[2] for line in lines[1:]][::2] == ["red", "crop"]


def test_what_cannot_be_an_example(photos, folder):
    with pytest.raises(NotFound, match="upload it again"):
        photos.search_regions(MetaClass("q", [Example(image="0" * 64)]))
    with pytest.raises(InputError, match="part of an image"):
        Example(text="red", box=(0, 0, 1, 1))
    blank = Example(image=photos.keep_example_image(jpeg(1)), box=(0.2, 0.2, 0.4, 0.4))

    class Blind(FakeDetector):
        def embed_example(self, image, box=None):
            raise InputError(f"The detector sees nothing in {box}; draw a larger box.")

    with pytest.raises(InputError, match="draw a larger box"):
        photos.search_regions(MetaClass("q", [blank]), Blind(256, name="seer"))
