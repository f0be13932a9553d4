"""Average precision against COCO annotations."""

import json
import sys

import pytest

from clipsieve.errors import InputError, MissingExtra
from clipsieve.evaluation_coco import evaluate_coco, read_annotations
from tests.clipsieve.seer import QUARTERS, quarters, run, write_json
from tests.inference.pictures import write_tree

BOX = [10.0, 10.0, 20.0, 20.0]


def annotations(tmp_path, boxes, names=("cat", "dog"), files=("a.jpg", "b.jpg")):
    """boxes: image, category and box."""
    value = {
        "images": [{"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(files)],
        "annotations": [{"id": i, "image_id": n, "category_id": c, "bbox": b} for i, (n, c, b) in enumerate(boxes)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    return write_json(tmp_path / "coco.json", value)


def box(image, name, score, at=BOX):
    return {"image_id": image, "class": name, "score": score, "bbox": at}


def test_average_precision_by_hand(tmp_path):
    known = read_annotations(annotations(tmp_path, [(0, 0, BOX), (1, 0, BOX), (1, 1, BOX)]))
    # A wrong box between two right ones: precision 1 up to recall 1/2, then 2/3, at 101 recalls.
    boxes = [box(0, "cat", 0.9), box(0, "cat", 0.8, [40, 40, 5, 5]), box(1, "cat", 0.7)]
    scores = evaluate_coco(known, {0, 1}, ["cat", "dog"], boxes)
    cat = (51 + 50 * 2 / 3) / 101
    assert scores.classes == {"cat": (pytest.approx(cat), pytest.approx(cat)), "dog": (0, 0)}
    assert [scores.ap, scores.ap50, scores.recall100] == pytest.approx([cat / 2, cat / 2, 0.5])
    # Half of its width: an overlap of 0.5 counts at 0.5 alone, one of the ten.
    half = evaluate_coco(known, {1}, ["dog"], [box(1, "dog", 0.9, [10, 10, 10, 20])])
    assert [half.ap, half.ap50, half.ap75] == pytest.approx([0.1, 1, 0])


def test_only_the_images_that_were_looked_through_count(tmp_path):
    known = read_annotations(annotations(tmp_path, [(0, 0, BOX), (1, 0, BOX)]))
    assert evaluate_coco(known, {0}, ["cat"], [box(0, "cat", 0.5)]).ap == pytest.approx(1)
    assert evaluate_coco(known, {0}, ["dog"], []).ap is None
    assert evaluate_coco(known, {0}, ["cat"], []).ap == 0


def test_an_image_by_its_key(tmp_path):
    known = read_annotations(annotations(tmp_path, [], files=("a.jpg", "sub/a.jpg", "b.jpg")))
    keys = ["a.jpg", "sub/a.jpg", "val/sub/a.jpg", "x/b.jpg", "xb.jpg", "c.jpg"]
    assert [known.image_of(key) for key in keys] == [0, 1, 1, 2, None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "is no COCO file"),
        ('{"images": [], "annotations": [{"image_id": 1}], "categories": []}', "bbox"),
        ('{"images": [{"id": 1, "file_name": "a"}, {"id": 2, "file_name": "a"}], "annotations": [], "categories": []}',
         "twice"),
    ],
)  # fmt: skip
def test_a_file_that_is_none(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=said):
        read_annotations(tmp_path / "x.json")


def test_without_pycocotools(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.coco", None)
    with pytest.raises(MissingExtra, match=r"clipsieve\[coco\]"):
        evaluate_coco(read_annotations(annotations(tmp_path, [])), {0}, ["cat"], [])


@pytest.fixture
def folder(tmp_path):
    photos = {"a.png": quarters("orange", "red", "green", "orange"), "b.png": quarters("red", "black", "orange", "red")}
    run("inference", write_tree(tmp_path / "in", photos), tmp_path / "c", "--model", "fake", "--regions", "seer")
    return tmp_path / "c"


def test_negatives_make_a_class_more_precise(folder, tmp_path):
    reds = [(0, 0, QUARTERS[1]), (1, 0, QUARTERS[0]), (1, 0, QUARTERS[3])]
    coco = annotations(tmp_path, reds, ("red", "zebra"), ("a.png", "b.png", "c.png"))
    value = {
        "classes": [{"name": "red", "positive": ["warm"], "negative": ["orange"]}, {"name": "x", "positive": ["x"]}]
    }
    own = write_json(tmp_path / "set.json", {**value, "nms": 0.4, "mode": "class-wise"})
    said = json.loads(run("evaluate", folder, "--coco", coco, "--set", own, "--json").stdout)
    assert said["with_negatives"]["classes"] == {"red": {"ap": pytest.approx(1), "ap50": pytest.approx(1)}}
    assert said["with_negatives"]["recall100"] == pytest.approx(1)
    assert said["without_negatives"]["ap"] < 0.8
    assert (said["images"], said["images_left_out"]) == (2, 1)
    assert (said["other_classes"], said["other_categories"]) == (["x"], ["zebra"])
    text = run("evaluate", folder, "--coco", coco, "--set", own)
    assert "with negatives            1.0000  1.0000  1.0000  1.0000" in text.stdout
    assert "1 annotated images are not in the collection" in text.stderr
    assert "no category x" in text.stderr


def test_annotations_of_something_else(folder, tmp_path):
    own = write_json(tmp_path / "set.json", {"classes": [{"name": "cat", "positive": ["red"]}]})

    def said(*names, files):
        coco = annotations(tmp_path, [], names, files)
        return run("evaluate", folder, "--coco", coco, "--set", own, code=2).stderr

    assert "which have dog" in said("dog", files=["a.png"])
    assert "None of the annotated images" in said("cat", files=["z.png"])
