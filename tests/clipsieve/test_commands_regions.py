"""Regions from the command line, found by a detector that needs no weights."""

import json
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.manifest import read_manifest
from clipsieve.opening import open_collection
from clipsieve.parts import Parts
from clipsieve.stored_regions import read_regions
from clipsieve.whole import verify
from tests.inference.pictures import jpeg, write_tree


@pytest.fixture
def photos(tmp_path):
    return write_tree(tmp_path / "photos", {f"{i:02}.jpg": jpeg(i) for i in range(6)})


class Ran(NamedTuple):
    stdout: str
    stderr: str
    loaded: list[tuple[str, int | None]]
    """The detectors that it made, by name and count."""


@pytest.fixture
def run():
    """Runs a command line and checks its exit code."""

    def run(*argv, code=0):
        loaded = []

        def load_detector(name, *, regions, **_):
            loaded.append((name, regions))
            return FakeDetector(name=name, regions=regions or 4)

        parts = Parts(lambda name, **_: FakeEmbedder(name=name), load_detector=load_detector)
        result = CliRunner().invoke(cli.app, [str(a) for a in argv], obj=parts)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        return Ran(result.stdout, result.stderr, loaded)

    return run


def counts(folder):
    """Regions and crops of each shard."""
    found: list[tuple[int, int] | None] = []
    for shard in read_manifest(folder).shards:
        if "regions" not in shard.files:
            found.append(None)
            continue
        regions = read_regions(folder, shard)
        found.append((len(regions.item), 0 if regions.crops is None else len(regions.crops)))
    return found


@pytest.mark.parametrize("command", ["inference", "end2end", "inference.worker"])
def test_images_are_embedded_with_their_regions(run, photos, tmp_path, command):
    more = {"end2end": ["--no-run-back"], "inference.worker": ["--tasks", "0", "--partitions", "1"]}.get(command, [])
    out = tmp_path / "out"
    result = run(command, photos, out, "--model", "fake", "--regions", "seer", "--region-count", 3, "--crops", *more)
    assert result.loaded == [("seer", 3)]
    assert counts(out) == [(18, 18)]
    detection = read_manifest(out).detection
    assert (detection.model.name, detection.most, detection.crops) == ("seer", 3, True)


@pytest.mark.slow
def test_what_comes_later_is_looked_through_as_before(run, photos, tmp_path):
    out = tmp_path / "out"
    run("inference", photos, out, "--model", "fake", "--regions", "seer", "--region-count", 2, "--crops")
    write_tree(photos, {"06.jpg": jpeg(6)})
    assert run("add", out, photos).loaded == [("seer", 2)]
    write_tree(photos, {"07.jpg": jpeg(7)})
    assert run("watch", out, photos, "--once").loaded == [("seer", 2)]
    assert counts(out) == [(12, 12), (2, 2), (2, 2)]
    assert run("add", out, photos).loaded == []


def test_going_on_needs_no_regions_option(run, photos, tmp_path):
    out = tmp_path / "out"
    run("inference", photos, out, "--model", "fake", "--regions", "seer")
    write_tree(photos, {"06.jpg": jpeg(6)})
    assert run("inference", photos, out, "--model", "fake").loaded == [("seer", 4)]
    assert counts(out) == [(24, 0), (4, 0)]


@pytest.mark.slow
def test_an_old_collection_is_looked_through_later(run, photos, tmp_path):
    out = tmp_path / "out"
    run("inference", photos, out, "--model", "fake", "--shard-size", 2, "--batch-size", 2)
    run("remove", out, "--ids", "3")
    (photos / "00.jpg").unlink()
    result = run("regions", out, "--detector", "seer", "--crops", "--json")
    said = json.loads(result.stdout)
    assert (said["images"], said["regions"], said["detector"]) == (4, 16, "seer")
    assert [(one["id"], one["key"]) for one in said["unseen"]] == [("0", "00.jpg")]
    assert "00.jpg" in said["unseen"][0]["reason"]
    assert counts(out) == [(4, 4), (4, 4), (8, 8)]
    assert read_regions(out, read_manifest(out).shards[0]).unseen.tolist() == [0]
    assert not verify(out, read_manifest(out))
    assert "Nothing to do" in run("regions", out).stdout


def test_stored_later_they_are_as_stored_at_once(run, photos, tmp_path):
    run("inference", photos, tmp_path / "one", "--model", "fake", "--regions", "seer", "--crops")
    run("inference", photos, tmp_path / "two", "--model", "fake")
    run("regions", tmp_path / "two", "--detector", "seer", "--crops")
    one, two = (read_regions(f, read_manifest(f).shards[0]) for f in (tmp_path / "one", tmp_path / "two"))
    for name in ("item", "vectors", "boxes", "numbers", "crops"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_another_detector_begins_anew(run, photos, tmp_path):
    out = tmp_path / "out"
    run("inference", photos, out, "--model", "fake", "--regions", "seer")
    result = run("regions", out, "--detector", "other", code=2)
    assert "What is to find regions in" in result.stderr
    assert counts(out) == [(24, 0)]
    result = run("regions", out, "--detector", "other", "--region-count", 1, "--anew")
    assert "6 regions found in 6 images" in result.stdout
    assert read_manifest(out).detection.model.name == "other"
    assert counts(out) == [(6, 0)]
    assert not verify(out, read_manifest(out))
    run("regions", out, "--anew", "--crops")
    assert read_manifest(out).detection.model.name == "other"
    assert counts(out) == [(24, 24)]


def test_options_that_need_a_detector(run, photos, tmp_path):
    out = tmp_path / "out"
    for option in (["--crops"], ["--region-count", "3"]):
        result = run("inference", photos, out, "--model", "fake", *option, code=2)
        assert "say with --regions what is to find them" in result.stderr
    run("inference", photos, out, "--model", "fake")
    assert "say with --detector" in run("regions", out, code=2).stderr


def test_info_says_what_there_is_and_index_indexes_it(run, photos, tmp_path):
    out = tmp_path / "out"
    run("inference", photos, out, "--model", "fake")
    assert "regions" not in run("info", out).stdout
    run("regions", out, "--detector", "seer", "--crops")
    write_tree(photos, {"06.jpg": jpeg(6)})
    said = run("index", out).stdout
    assert "region: built, flat, exact. Every question reads all 24 vectors" in said
    assert "crop: built, flat, exact. Every question reads all 24 vectors" in said
    line = next(line for line in run("info", out).stdout.splitlines() if line.startswith("regions"))
    assert line.split(None, 1)[1] == "24, at most 4 an image, found by seer; region index flat, crop index flat"
    known = json.loads(run("info", out, "--json").stdout)
    assert known["regions"]["count"] == 24
    assert known["bytes"]["regions"] > 24 * 2 * 32 * 2


@pytest.fixture
def looked(run, tmp_path):
    """Pictures in whose quarters the detector finds a region each; the detector, to say what a text scores there."""
    pictures = {f"{i:02}.jpg": jpeg(i, (80, 60)) for i in range(6)}
    run("inference", write_tree(tmp_path / "in", pictures), tmp_path / "out", "--model", "fake", "--regions", "seer")
    with open_collection(tmp_path / "out") as photos:
        regions = photos.regions.of(range(6))
    return tmp_path / "out", regions, FakeDetector(name="seer")


def scores(regions, detector, text):
    logit = (regions.vectors.astype(np.float64) @ detector.embed_texts([text])[0] + regions.shift) * regions.scale
    return 1 / (1 + np.exp(-logit))


def test_boxes_are_found_and_shown(run, looked, tmp_path):
    folder, regions, detector = looked
    ran = run("search", folder, "--regions", "cat", "--not", "dog", "-k", 50, "--every-box", "--json")
    assert ran.loaded == [("seer", None)]
    found = json.loads(ran.stdout)
    cat, dog = (scores(regions, detector, text) for text in ("cat", "dog"))
    wanted = [i for i in np.argsort(-cat, kind="stable") if cat[i] > dog[i]]
    assert [int(hit["id"]) for hit in found["hits"]] == regions.item[wanted].tolist()
    boxes = [[hit[name] for name in ("x0", "y0", "x1", "y1")] for hit in found["hits"]]
    assert boxes == regions.boxes[wanted].tolist()
    assert [hit["score"] for hit in found["hits"]] == pytest.approx(cat[wanted], abs=1e-5)
    once = json.loads(run("search", folder, "--regions", "cat", "--not", "dog", "--json").stdout)["hits"]
    assert [hit["id"] for hit in once] == list(dict.fromkeys(hit["id"] for hit in found["hits"]))
    x0, y0, *_ = boxes[0]
    sheet = tmp_path / "sheet.html"
    run("search", folder, "--regions", "cat", "--not", "dog", "-k", 1, "--out", sheet)
    # The picture is 80 x 60 in a square of 80.
    assert f"left:{x0:.2%};top:{(10 + y0 * 60) / 80:.2%};width:50.00%;height:37.50%" in sheet.read_text()
    assert "how sure the detector is" in sheet.read_text()
    assert f"{x0:.2f} {y0:.2f}" in run("search", folder, "--regions", "cat", "-k", 1, "--not", "dog").stdout
    for kind in ("csv", "parquet"):
        run("search", folder, "--regions", "cat", "--not", "dog", "--out", tmp_path / f"t.{kind}")
    assert (tmp_path / "t.csv").read_text().splitlines()[0].endswith("negative,x0,y0,x1,y1")
    assert pq.read_table(tmp_path / "t.parquet")["x0"].to_pylist() == [hit["x0"] for hit in once]


@pytest.mark.slow
def test_images_are_narrowed_to_those_that_show_enough(run, looked, tmp_path):
    folder, regions, detector = looked
    score = scores(regions, detector, "cat")
    threshold = float(np.median(score))
    counts = np.bincount(regions.item[score >= threshold], minlength=6)  # quarters do not overlap
    for n in range(1, 5):
        where = f"count('cat', {threshold!r}) >= {n}"
        wanted = set(np.flatnonzero(counts >= n).tolist())
        found = json.loads(run("search", folder, "bus", "--where", where, "--json").stdout)["hits"]
        assert {int(hit["id"]) for hit in found} == wanted
        narrowed = ("--where", f"id > 1 and {where}")
        boxes = json.loads(run("search", folder, "--regions", "cat", *narrowed, "--json").stdout)
        assert {int(hit["id"]) for hit in boxes["hits"]} == {id for id in wanted if id > 1}
    out = tmp_path / "list.txt"
    run("filter", folder, "bus", "--where", f"count('cat', {threshold!r}) > 1", "--out", out, "--as", "list")
    assert len(out.read_text().splitlines()) == np.count_nonzero(counts >= 2)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--regions", "cat", "--dedup"], "own scale"),
        (["cat", "--every-box"], "give --regions"),
        (["cat", "--where", "count(3) > 1"], "give it a text"),
    ],
)
def test_mistakes_about_boxes_get_a_sentence(run, looked, argv, words):
    assert words in run("search", looked[0], *argv, code=2).stderr


def test_without_regions_boxes_are_asked_in_vain(run, photos, tmp_path):
    run("inference", photos, tmp_path / "out", "--model", "fake")
    assert "holds no regions" in run("search", tmp_path / "out", "--regions", "cat", code=1).stderr
