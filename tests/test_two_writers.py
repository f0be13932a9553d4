"""A process that would write while another one does."""

import json
import shutil
import subprocess
import sys

import pytest

from clipsieve.lock import NAME
from tests.clipsieve.test_cli import images as images  # fixtures
from tests.clipsieve.test_cli import photos as photos
from tests.clipsieve.test_cli import run as run

HOLD = """
import sys
from pathlib import Path
from clipsieve.lock import writer_lock
with writer_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def held(tmp_path_factory, photos):
    """A collection that another process writes, one that it copies from, and the number of that process."""
    folder = tmp_path_factory.mktemp("held")
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        lock = (folder / NAME).read_bytes()
        for path in photos.rglob("*"):
            if path.is_file():
                (folder / path.relative_to(photos).parent).mkdir(exist_ok=True)
                shutil.copy2(path, folder / path.relative_to(photos))
        (folder / NAME).write_bytes(lock)
        yield folder, process.pid
        process.stdin.close()


def written(folder):
    """All but what is derived."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != "cache.sqlite")
    return {path: path.read_bytes() for path in files}


def no_model(name, **_):
    raise AssertionError("A model was loaded before it was said that nothing can be written.")


@pytest.mark.parametrize("command", ["inference", "end2end", "add", "index", "remove", "compact", "repair", "import"])
def test_the_second_writer_is_told_at_once_who_the_first_is(run, images, photos, held, command):
    folder, pid = held
    words = {
        "inference": ["inference", images, folder, "--model", "fake"],
        "end2end": ["end2end", images, folder, "--model", "fake"],
        "add": ["add", folder, images],
        "index": ["index", folder],
        "remove": ["remove", folder, "--ids", "3"],
        "compact": ["compact", folder],
        "repair": ["check", folder, "--repair"],
        "import": ["import", photos / "img_emb" / "img_emb_000000.npy", folder],
    }[command]
    before = written(folder)
    said = run(*words, code=1, load=no_model)
    since = json.loads((folder / NAME).read_text())["since"]
    assert said.stdout == ""
    assert said.stderr.startswith(f"Error: {folder} is being written by process {pid} on ")
    assert f" since {since}; wait for it" in said.stderr
    assert said.stderr.count("\n") == 1
    assert written(folder) == before


def test_labels_have_one_writer_too(run, photos, tmp_path):
    (tmp_path / "set.json").write_text(
        '{"classes": [{"name": "a", "positive": ["a"]}, {"name": "b", "positive": ["b"]}]}'
    )
    parts = tmp_path / "labels.csv.parts"
    parts.mkdir()
    words = ["label", photos, "--set", tmp_path / "set.json", "--out", tmp_path / "labels.csv"]
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, parts], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert f"{parts} is being written by process {process.pid}" in run(*words, code=1).stderr
        process.stdin.close()
    assert "Labels written" in run(*words).stdout
