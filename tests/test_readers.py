"""Those who ask while somebody else adds, removes, indexes and compacts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from clipsieve.errors import CollectionChanged
from clipsieve.index.collection import Collection
from tests import readers
from tests.clipsieve.test_cli import images as images  # fixtures
from tests.clipsieve.test_cli import photos as photos
from tests.clipsieve.test_cli import run as run

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_every_answer_is_that_of_some_commit(tmp_path):
    for generation in range(readers.KEPT):
        readers.add(tmp_path / "c", generation)

    def start(what):
        words = [sys.executable, "-m", "tests.readers", what, tmp_path, "40"]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    asking = [start(how) for how in readers.WAYS]
    assert [(process.stdout or sys.stdin).readline() for process in asking] == ["ready\n"] * len(asking)
    writer = start("write")
    _, said = writer.communicate(timeout=300)
    (tmp_path / "done").touch()
    told = [process.communicate(timeout=300) for process in asking]
    assert writer.returncode == 0, said
    for process, (out, error) in zip(asking, told, strict=True):
        assert process.returncode == 0, error
        assert json.loads(out)["windows"] > 1


def test_a_search_that_was_overtaken_is_asked_again(run, photos, monkeypatch):
    real, asked = Collection.search, []

    def overtaken(self, *given, **options):
        asked.append(given)
        if len(asked) < 3:
            raise CollectionChanged("It was compacted; open it again.")
        return real(self, *given, **options)

    monkeypatch.setattr(Collection, "search", overtaken)
    assert "20 hits" in run("search", photos, "red").stdout
    assert len(asked) == 3
    asked[:] = []
    assert run("filter", photos, "red", "-k", "3", "--out", photos / "no", code=1).stderr.endswith("open it again.\n")
