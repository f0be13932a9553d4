"""A folder that somebody may read and not write."""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.index.build import build_indices
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.parts import Parts
from tests.inference.pictures import jpeg, write_tree

pytestmark = pytest.mark.slow  # two processes that import everything
ROOT = Path(__file__).parents[1]
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2


def answer(lines):
    """Run command lines, and print how each ended; in a process of its own."""
    for words in lines:
        result = CliRunner().invoke(cli.app, words, obj=Parts(lambda name, **_: FakeEmbedder(name=name)))
        odd = None if isinstance(result.exception, SystemExit) else result.exception
        print(json.dumps([result.exit_code, result.stderr, repr(odd)]))


def obey():
    """Let permissions bind this process, which may be root's, and whatever it starts."""
    if os.geteuid() == 0:
        for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            if ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
                raise OSError("The rights of root cannot be given up.")


def ends(lines):
    """(exit code, stderr) of each command line, called by somebody whom permissions bind."""
    code = f"from tests.test_denied import answer\nanswer({[[str(word) for word in words] for words in lines]!r})"
    words = [sys.executable, "-c", code]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True, preexec_fn=obey)
    found = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [odd for *_, odd in found] == ["None"] * len(lines)
    return [(code, said) for code, said, _ in found]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """A collection `c` and images `in` that have changed since; nothing in there may be written."""
    top = tmp_path_factory.mktemp("theirs")
    images = write_tree(top / "in", {f"{i}.jpg": jpeg(i) for i in range(6)})
    embed_collection(open_source(images), FakeEmbedder(), top / "c", shard_size=2, batch_size=2)
    build_indices(top / "c")
    write_tree(images, {"new.jpg": jpeg(9)})
    (images / "1.jpg").unlink()
    (top / "set.json").write_text(json.dumps({"classes": [{"name": n, "positive": [n]} for n in ("a", "b")]}))
    paths = [top, *top.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield top
    for path in paths:
        path.chmod(0o755)


def state(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_what_would_write_says_so_in_a_sentence_and_changes_nothing(theirs):
    c, images, model = theirs / "c", theirs / "in", ["--model", "fake"]
    inside = [
        ["inference", images, c, *model],
        ["inference.worker", images, c, *model, "--partitions", "1", "--tasks", "0"],
        ["end2end", images, c, *model],
        ["add", c, images],
        ["watch", c, images, "--once"],
        ["index", c, "--rebuild"],
        ["remove", c, "--ids", "3"],
        ["remove", c, "--missing"],
        ["compact", c],
        ["check", c, "--repair"],
    ]
    beside = [
        ["inference", images, theirs / "new", *model],
        ["index", c, "--into", theirs / "new"],
        ["import", c / "img_emb" / "img_emb_000000.npy", theirs / "new"],
        ["export", c, "--arrow", theirs / "new"],
        ["export", c, "--clip-retrieval", theirs / "new"],
        ["filter", c, "x", "-k", "3", "--out", theirs / "new"],
        ["filter", c, "x", "-k", "3", "--as", "list", "--out", theirs / "new.csv"],
        ["search", c, "x", "--out", theirs / "new.csv"],
        ["search", c, "x", "--state", theirs / "new"],
        ["label", c, "--set", theirs / "set.json", "--out", theirs / "new.csv"],
        ["demo", "--out", theirs / "new"],
    ]
    before = state(theirs)
    found = ends(inside + beside)
    for number, (code, said) in enumerate(found):
        *notes, error = said.splitlines()
        assert code == 1
        assert all(note.startswith(("Loading fake.", "Note: ", "reading metadata:")) for note in notes)
        start = f"{c} may be read, not written" if number < len(inside) else f"{theirs}/"
        assert error.startswith(f"Error: {start}")
        assert "Permission denied" in error
    assert state(theirs) == before


def test_what_only_reads_works(theirs, tmp_path):
    c = theirs / "c"
    before = state(theirs)
    found = ends(
        [
            ["search", c, "x"],
            ["search", c, "x", "--state", tmp_path],
            ["info", c],
            ["check", c],
            ["remove", c, "--missing", "--dry-run"],
            ["filter", c, "x", "-k", "3", "--out", tmp_path / "images"],
            ["label", c, "--set", theirs / "set.json", "--out", tmp_path / "labels.csv"],
            ["export", c, "--arrow", tmp_path / "arrow"],
            ["index", c, "--into", tmp_path / "into"],
        ]
    )
    assert [code for code, _ in found] == [0] * len(found), found
    assert state(theirs) == before
