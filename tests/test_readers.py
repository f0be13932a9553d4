"""Those who ask while somebody else adds, removes, indexes and compacts."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import readers

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["anew", "searching", "keeping", "refreshing"])
def test_every_answer_is_that_of_some_commit(tmp_path, how):
    for generation in range(readers.KEPT):
        readers.add(tmp_path / "c", generation)

    def start(what):
        words = [sys.executable, "-m", "tests.readers", what, tmp_path, "60"]
        return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    asking = [start(how), start(how)]
    writer = start("write")
    _, said = writer.communicate(timeout=300)
    (tmp_path / "done").touch()
    told = [process.communicate(timeout=300) for process in asking]
    assert writer.returncode == 0, said
    for process, (out, error) in zip(asking, told, strict=True):
        assert process.returncode == 0, error
        assert json.loads(out)["windows"] > 1
        print(out)
