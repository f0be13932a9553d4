"""`detect` from the command line: what it writes, read back as others read it."""

import csv
import io
import json
import tarfile

import pyarrow.parquet as pq
import pytest
from PIL import Image
from pycocotools.coco import COCO

from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.types import Embeddings
from clipsieve.writer import open_writer
from tests.clipsieve.seer import QUARTERS, SIZE, quarters, run, write_json
from tests.inference.pictures import write_tree

PHOTOS = {
    "a.png": quarters("red", "green", "orange", "red"),
    "b.png": quarters("green", "green", "black", "white"),
    "sub/c.png": quarters("blue", "orange", "green", "green"),
}
CLASSES = [
    {"name": "réd", "positive": ["red"], "threshold": 0.9},
    {"name": "cold", "positive": ["blue", "a cold colour"], "threshold": 0.9},
]
# Image -> class and box, as they are.
RIGHT = {"a.png": [("réd", QUARTERS[0]), ("réd", QUARTERS[3])], "b.png": [], "sub/c.png": [("cold", QUARTERS[0])]}


@pytest.fixture
def photos(tmp_path):
    return write_tree(tmp_path / "photos", PHOTOS)


@pytest.fixture
def folder(photos, tmp_path):
    run("inference", photos, tmp_path / "c", "--model", "fake", "--regions", "seer")
    return tmp_path / "c"


@pytest.fixture
def classes(tmp_path):
    return write_json(tmp_path / "set.json", {"classes": CLASSES})


def by_name(found):
    return {key: sorted(boxes) for key, boxes in found.items()}


def read_coco(path):
    coco = COCO(str(path))
    images = {image["file_name"]: image for image in coco.dataset["images"]}
    assert all((image["width"], image["height"]) == SIZE for image in images.values())
    names = {one["id"]: one["name"] for one in coco.dataset["categories"]}
    found = {}
    for key, image in images.items():
        own = coco.loadAnns(coco.getAnnIds(imgIds=[image["id"]]))
        assert all(one["area"] == 32 * 24 and 0.9 < one["score"] < 1 and one["iscrowd"] == 0 for one in own)
        found[key] = sorted((names[one["category_id"]], one["bbox"]) for one in own)
    return found


def test_coco(folder, classes, tmp_path):
    said = run("detect", folder, "--set", classes, "--out", tmp_path / "boxes.json").stdout
    assert read_coco(tmp_path / "boxes.json") == by_name(RIGHT)
    assert "Boxes in 2 of 3 images" in said
    assert "2  réd" in said


def test_a_detector_of_directai(folder, tmp_path):
    configs = [{"name": c["name"], "examples_to_include": c["positive"], "detection_threshold": 0.9} for c in CLASSES]
    body = {"detector_configs": configs, "nms_threshold": 0.4, "augment_examples": False}
    run("detect", folder, "--set", write_json(tmp_path / "d.json", body), "--out", tmp_path / "boxes.json")
    assert read_coco(tmp_path / "boxes.json") == by_name(RIGHT)


def test_no_box_at_all_is_a_file_too(folder, tmp_path):
    nothing = write_json(tmp_path / "n.json", {"classes": [{"name": "x", "positive": ["red"], "threshold": 1.5}]})
    run("detect", folder, "--set", nothing, "--out", tmp_path / "boxes.json")
    assert read_coco(tmp_path / "boxes.json") == {key: [] for key in PHOTOS}
    run("detect", folder, "--set", nothing, "--out", tmp_path / "boxes.parquet")
    assert pq.read_table(tmp_path / "boxes.parquet").num_rows == 0


def test_parquet(folder, classes, tmp_path):
    run("detect", folder, "--set", classes, "--out", tmp_path / "boxes.parquet")
    table = pq.read_table(tmp_path / "boxes.parquet")
    assert table.column_names == ["id", "key", "class", "score", "box"]
    found: dict[str, list[tuple[str, list[float]]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["key"], []).append((row["class"], row["box"]))
        assert row["id"] == list(PHOTOS).index(row["key"])
        assert 0.9 < row["score"] < 1
    assert by_name(found) == by_name({key: boxes for key, boxes in RIGHT.items() if boxes})
    assert [c["name"] for c in json.loads(table.schema.metadata[b"note"])["classes"]] == ["réd", "cold"]


def test_yolo(photos, classes, tmp_path):
    (photos / "a.PNG").write_bytes(PHOTOS["sub/c.png"])  # shares its label's name with a.png
    run("inference", photos, tmp_path / "c", "--model", "fake", "--regions", "seer")
    out = tmp_path / "yolo"
    run("detect", tmp_path / "c", "--set", classes, "--format", "yolo", "--out", out)
    assert (out / "classes.txt").read_text() == "réd\ncold\n"
    labels = {path.relative_to(out / "labels").as_posix(): path.read_text() for path in out.rglob("labels/**/*.txt")}
    assert labels == {
        "a.txt": "1 0.250000 0.250000 0.500000 0.500000\n",  # of a.PNG, which comes first
        "a~1.txt": "0 0.750000 0.750000 0.500000 0.500000\n0 0.250000 0.250000 0.500000 0.500000\n",
        "b.txt": "",
        "sub/c.txt": "1 0.250000 0.250000 0.500000 0.500000\n",
    }


def test_webdataset(folder, classes, tmp_path):
    run("detect", folder, "--set", classes, "--format", "webdataset", "--out", tmp_path / "tars")
    with tarfile.open(tmp_path / "tars" / "000000.tar") as tar:
        members = {m.name: tar.extractfile(m).read() for m in tar}
    assert sorted(members) == ["000000000.json", "000000000.png", "000000002.json", "000000002.png"]
    assert members["000000000.png"] == PHOTOS["a.png"]
    about = json.loads(members["000000000.json"])
    assert (about["key"], about["width"], about["height"]) == ("a.png", *SIZE)
    assert sorted((one["class"], one["box"]) for one in about["boxes"]) == sorted(RIGHT["a.png"])


def test_drawn(folder, classes, tmp_path):
    run("detect", folder, "--set", classes, "--format", "drawn", "--out", tmp_path / "drawn")
    files = {path.relative_to(tmp_path / "drawn").as_posix() for path in (tmp_path / "drawn").rglob("*.*")}
    assert files == {"a.jpg", "sub/c.jpg"}
    image = Image.open(tmp_path / "drawn" / "sub" / "c.jpg")
    plain = Image.open(io.BytesIO(PHOTOS["sub/c.png"])).convert("RGB")
    assert (image.format, image.size) == ("JPEG", SIZE)

    def far(x, y):
        one, other = image.getpixel((x, y)), plain.getpixel((x, y))
        return max(abs(a - b) for a, b in zip(one, other, strict=True))

    assert far(31, 22) > 60  # the box's right edge
    assert far(56, 40) < 20  # another quarter


def test_suppression_across_classes_or_in_each(folder, tmp_path):
    twice = [{"name": name, "positive": ["red"], "threshold": 0.9} for name in ("first", "second")]
    own = write_json(tmp_path / "own.json", {"classes": twice, "nms": 0.5, "mode": "class-wise"})

    def found(*options):
        return json.loads(run("detect", folder, "--set", own, "--json", *options).stdout)["boxes"]

    assert found("--out", tmp_path / "1.json") == {"first": 2, "second": 2}
    assert found("--out", tmp_path / "2.json", "--agnostic") == {"first": 2, "second": 0}
    # All boxes of an image are linked at 0.
    assert found("--out", tmp_path / "3.json", "--nms", "0") == {"first": 1, "second": 1}
    silent = write_json(tmp_path / "silent.json", {"classes": twice})
    assert json.loads(run("detect", folder, "--set", silent, "--json", "--out", tmp_path / "4.json").stdout)[
        "boxes"
    ] == {
        "first": 2,
        "second": 0,
    }


def test_threshold_is_for_classes_without_one(folder, tmp_path):
    both = [{"name": "red", "positive": ["red"]}, {"name": "blue", "positive": ["blue"], "threshold": 1.5}]
    own = write_json(tmp_path / "own.json", {"classes": both})
    said = run("detect", folder, "--set", own, "--threshold", "0.9", "--json", "--out", tmp_path / "1.json").stdout
    assert json.loads(said)["boxes"] == {"red": 2, "blue": 0}


def test_what_could_not_be_answered_for_is_counted(photos, classes, tmp_path):
    run("inference", photos, tmp_path / "c", "--model", "fake", "--shard-size", 2, "--batch-size", 2)
    (photos / "b.png").unlink()
    run("regions", tmp_path / "c", "--detector", "seer")
    run("remove", tmp_path / "c", "--ids", "2")
    (photos / "a.png").unlink()
    drawn = ("detect", tmp_path / "c", "--set", classes, "--format", "drawn", "--out")
    result = run(*drawn, tmp_path / "out", "--json", code=1)
    said = json.loads(result.stdout)
    assert (said["images"], said["with_boxes"], said["written"]) == (1, 1, 0)
    assert (said["unseen"], said["without_regions"]) == (1, 0)
    assert [one["key"] for one in said["skipped"]] == ["a.png"]
    with (tmp_path / "out" / "skipped.csv").open(newline="") as file:
        assert [row[0] for row in csv.reader(file)] == ["key", "a.png"]
    text = run(*drawn, tmp_path / "again", code=1)
    assert "Error: 1 images could not be written" in text.stderr
    assert "1 images could not be looked at" in text.stderr


def test_images_that_nobody_looked_in_are_counted(folder, classes, tmp_path):
    fake = FakeEmbedder(name="fake")
    with open_writer(folder) as writer:
        writer.append(Embeddings(fake.embed_images([PHOTOS["a.png"]]), ("later.png",), fake.model))
    result = run("detect", folder, "--set", classes, "--out", tmp_path / "boxes.json")
    assert "In 1 images nobody looked" in result.stderr
    assert read_coco(tmp_path / "boxes.json") == by_name(RIGHT)


def test_some_images_only(folder, classes, tmp_path):
    run("detect", folder, "--set", classes, "--out", tmp_path / "boxes.json", "--where", "key = 'a.png'")
    assert read_coco(tmp_path / "boxes.json") == by_name({"a.png": RIGHT["a.png"]})


class Other(FakeDetector):
    def __init__(self, name, regions):
        super().__init__(64, name=name)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"classes": [{"name": "x", "positive": ["x"]}], "calibration": "background"}, "calibration 'background'"),
        ({"classes": [{"name": "x"}]}, "positive"),
    ],
)
def test_a_set_that_finds_no_boxes(folder, tmp_path, value, said):
    own = write_json(tmp_path / "own.json", value)
    assert said in run("detect", folder, "--set", own, "--out", tmp_path / "boxes.json", code=2).stderr
    assert not (tmp_path / "boxes.json").exists()


def test_what_cannot_be_meant(folder, photos, classes, tmp_path):
    def said(*options, **how):
        return run("detect", folder, "--set", classes, *options, code=2, **how).stderr

    assert "end it in .json or .parquet" in said("--out", tmp_path / "boxes.txt")
    assert "'png' is not known; choose one of coco, yolo" in said("--out", tmp_path / "x", "--format", "png")
    assert "exists already" in said("--out", classes)
    assert "exists already" in said("--out", photos, "--format", "yolo")
    assert "NaN" in said("--out", tmp_path / "x.json", "--nms", "nan")
    assert "seer" in said("--out", tmp_path / "x.json", detector=Other)
    run("inference", photos, tmp_path / "bare", "--model", "fake")
    bare = run("detect", tmp_path / "bare", "--set", classes, "--out", tmp_path / "x.json", code=1)
    assert "holds no regions" in bare.stderr
