"""`end2end` and `inference.worker` over small real inputs."""

import json
import threading
from typing import Any

import numpy as np
import pytest

from clipsieve.commands_batch import parse_tasks
from clipsieve.errors import InputError
from clipsieve.lock import writer_lock
from clipsieve.manifest import read_manifest
from clipsieve.shards import read_metadata
from tests.clipsieve.test_cli import images as images  # fixtures
from tests.clipsieve.test_cli import keys
from tests.clipsieve.test_cli import run as run
from tests.inference.pictures import jpeg
from tests.inference.webserver import serving

MODEL = ("--model", "fake")


def stored(folder):
    """Key -> vector of every item."""
    found: dict[str, Any] = {}
    for shard in read_manifest(folder).shards:
        if shard.rows:
            vectors = np.load(folder / shard.files["img_emb"].path)
            found |= dict(zip(read_metadata(folder, shard, ["key"])["key"].to_pylist(), vectors, strict=True))
    return found


def test_end2end_embeds_indexes_and_can_be_asked(run, images, tmp_path):
    out = tmp_path / "c"
    said = run("end2end", images, out, *MODEL, "--no-run-back").stdout
    assert "30 images embedded into" in said
    assert "image: built, flat, exact" in said
    assert f"clipsieve search {out}" in said
    assert {i.name for i in read_manifest(out).indices} >= {"image", "text"}
    assert keys(run("search", out, "red", "-k", 1, "--json"))[0].startswith("red/")
    again = json.loads(run("end2end", images, out, *MODEL, "--no-run-back", "--json").stdout)
    assert (again["inference"]["embedded"], again["inference"]["before"]) == (0, 31)
    assert {i["action"] for i in again["index"]["indices"]} == {"kept"}


def test_end2end_takes_the_peers_call_with_a_list_of_urls(run, tmp_path):
    with serving({"/1.jpg": jpeg(1)}) as site:
        (tmp_path / "l.csv").write_text(f"URL,TEXT\n{site.url}/1.jpg,one\n")
        words = ["--url_list", tmp_path / "l.csv", "--output_folder", tmp_path / "c", "--run_back", "False"]
        run("end2end", *words, *MODEL, "--allow-private-addresses")
        assert keys(run("search", tmp_path / "c", "one", "--json")) == [f"{site.url}/1.jpg"]


def test_end2end_serves_nothing_where_nothing_came_of_it(run, tmp_path):
    (tmp_path / "l.txt").write_text("http://127.0.0.1:9/a.jpg")
    said = run("end2end", tmp_path / "l.txt", tmp_path / "c", *MODEL, code=1).stderr
    assert "could be embedded" in said
    assert "skipped" in said


def test_workers_make_what_one_run_makes(run, images, tmp_path):
    run("inference", images, tmp_path / "whole", *MODEL)
    shared = ["inference.worker", images, tmp_path / "parts", *MODEL, "--partitions", 3]
    done = json.loads(run(*shared, "--tasks", "[2,0]", "--json").stdout)
    assert [task["task"] for task in done["tasks"]] == [0, 2]
    assert "Part 1 of 3: 9 images embedded" in run(*shared, "--tasks", "1").stdout
    whole, parts = stored(tmp_path / "whole"), stored(tmp_path / "parts")
    assert set(whole) == set(parts)
    assert all(np.array_equal(whole[key], parts[key]) for key in whole)
    again = json.loads(run(*shared, "--tasks", "0-2", "--json").stdout)
    assert sum(task["embedded"] for task in again["tasks"]) == 0


def test_a_worker_takes_the_peers_call(run, images, tmp_path):
    words = ["--input_dataset", images, "--output_folder", tmp_path / "c", "--output_partition_count", 2]
    run("inference.worker", "--tasks", "[0, 1]", *words, "--clip_model", "fake", "--enable_text=False")
    assert len(stored(tmp_path / "c")) == 30


def test_a_worker_waits_for_another_one(run, images, tmp_path):
    out = tmp_path / "c"
    out.mkdir()
    held, said = threading.Event(), threading.Event()

    def write():
        with writer_lock(out):
            held.set()
            assert said.wait(30)

    writer = threading.Thread(target=write)
    writer.start()
    assert held.wait(30)

    class Telling:
        """Lets the writer go once the worker had its chance to fail."""

        def __call__(self, name, **_):
            from tests.clipsieve.test_cli import ColourEmbedder

            threading.Timer(0.3, said.set).start()
            return ColourEmbedder(name)

    result = run("inference.worker", images, out, *MODEL, "--partitions", 2, "--tasks", "0", load=Telling())
    writer.join()
    assert "Waiting: " in result.stderr
    assert "is being written by process" in result.stderr
    assert "Part 0 of 2: " in result.stdout


def test_the_number_of_parts_stays(run, images, tmp_path):
    shared = ["inference.worker", images, tmp_path / "c", *MODEL, "--tasks", "0"]
    run(*shared, "--partitions", 3)
    assert "cut into 3, not 4" in run(*shared, "--partitions", 4, code=2).stderr


@pytest.mark.parametrize(
    ("text", "numbers"), [("[0,1,2]", [0, 1, 2]), ("2, 0", [0, 2]), ("1-3,3", [1, 2, 3]), ("[4]", [4]), ("0-0", [0])]
)
def test_tasks_are_read(text, numbers):
    assert parse_tasks(text, 5) == numbers


@pytest.mark.parametrize("text", ["", "[]", "a", "1-", "-1", "1.5", "5", "3-1", "0,,1", "0-99999999"])
def test_tasks_that_cannot_be_meant(text):
    with pytest.raises(InputError, match="--tasks"):
        parse_tasks(text, 5)
