"""`end2end` and `inference.worker` over small real inputs."""

import json
import os
import signal
import threading
from typing import Any

import numpy as np
import pytest

from clipsieve import lock
from clipsieve.commands_batch import parse_tasks
from clipsieve.errors import InputError
from clipsieve.manifest import read_manifest
from clipsieve.shards import read_metadata
from tests.clipsieve.test_cli import ColourEmbedder, keys
from tests.clipsieve.test_cli import images as images  # fixtures
from tests.clipsieve.test_cli import run as run
from tests.clipsieve.test_lock import held_by_another
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_worker_waits_for_who_holds_the_collection(run, images, tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "MOMENT", 0.0)
    out = tmp_path / "c"
    out.mkdir()
    with held_by_another(out) as end:
        threading.Timer(0.3, end.set).start()
        result = run("inference.worker", images, out, *MODEL, "--partitions", 2, "--tasks", "0")
    assert "Waiting: " in result.stderr
    assert "is being written by process" in result.stderr
    assert "Part 0 of 2: " in result.stdout


class Terminated(ColourEmbedder):
    """Is told to end, as schedulers do it, while it embeds the fourth batch."""

    batches = 0

    def embed_tensors(self, batch):
        self.batches += len(batch) == 2
        if self.batches == 4:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(0.2)  # until the main thread has heard of it
        return super().embed_tensors(batch)


# An interrupt may come between the opening of a file and the `with` that closes it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_worker_that_is_told_to_end_commits_what_it_has(run, images, tmp_path):
    words = ["inference.worker", images, tmp_path / "c", *MODEL, "--partitions", 2, "--tasks", "0", "--batch-size", 2]
    said = run(*words, "--no-text", code=130, load=lambda name, **_: Terminated(name))
    assert "Stopped. What was embedded is kept" in said.stderr
    kept = len(stored(tmp_path / "c"))
    assert kept in (2, 4, 6)  # whole batches: the fourth begins once the first was taken, the others may be made only
    again = json.loads(run(*words, "--no-text", "--json").stdout)["tasks"][0]
    assert again["embedded"] == 15 - kept
    assert len(stored(tmp_path / "c")) == 15
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


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
