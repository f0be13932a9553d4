"""A disk that is full, at every point of what writes."""

import contextlib
import os
import resource
import shutil
import subprocess

import numpy as np
import pytest
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.index import build
from clipsieve.index.check import check
from clipsieve.index.plan import Plan
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import NAME, Manifest
from clipsieve.parts import Parts
from clipsieve.types import Embeddings, ModelId
from clipsieve.writer import open_writer
from tests.inference.pictures import jpeg, write_tree
from tests.inference.test_add import live

PAGE = 4096
SIZE = 128 * PAGE
NEW = ("--model", "fake", "--shard-size", "7", "--batch-size", "7", "--thumbs")


class Disk:
    """A file system of its own; where none may be mounted, an end to how long files may become takes its place."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", folder]
        self.mounted = shutil.which("mount") is not None and not subprocess.run(words, capture_output=True).returncode

    @contextlib.contextmanager
    def full(self, pages):
        """Only so many pages are left."""
        if self.mounted:
            status = os.statvfs(self.folder)
            (self.folder / "filler").write_bytes(bytes((status.f_bavail - pages) * status.f_frsize))
            yield
            (self.folder / "filler").unlink()
            return
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (pages * PAGE // 4, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    def require_said(self, result):
        """AssertionError unless a command failed for want of room, in a sentence that names a file on the disk."""
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 1
        *notes, said = result.stderr.splitlines()
        progress = ("embedding:", "adding:", "reading metadata:", "labelling:", "writing:")  # shown by a busy machine
        assert all(note.startswith(("Loading fake.", "Note: ", *progress)) for note in notes)
        assert said.startswith(f"Error: {self.folder}")
        refusals = (
            ("No space left on device; make room there",) if self.mounted else ("File too large", "disk I/O error")
        )
        assert any(refusal in said for refusal in refusals)


@pytest.fixture
def disk(tmp_path):
    made = Disk(tmp_path / "disk")
    yield made
    if made.mounted:
        subprocess.run(["umount", "--lazy", made.folder], check=True)


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("full") / "in", {f"{i:02}.jpg": jpeg(i) for i in range(20)})


def call(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words], obj=Parts(lambda name, **_: FakeEmbedder()))


def until_done(disk, out, words):
    """Call it with more room each time until it is done; how often that was. Whatever is there must be whole."""
    for pages in range(100):
        before = live(out) if (out / NAME).exists() else {}
        with disk.full(pages):
            result = call(*words)
            if result.exit_code == 0:
                return pages
            disk.require_said(result)
            if (out / NAME).exists():
                assert check(out).problems == ()
                assert live(out).items() >= before.items()
    raise AssertionError(result.stderr)


@pytest.mark.slow
def test_making_a_collection_and_adding_to_it(disk, images, tmp_path):
    out = disk.folder / "c"
    half = write_tree(tmp_path / "in", {f"{i:02}.jpg": jpeg(i) for i in range(9)})
    assert until_done(disk, out, ["inference", half, out, *NEW]) > 2
    assert until_done(disk, out, ["add", out, images, "--batch-size", "3", "--shard-size", "3"]) > 2
    assert sorted(live(out)) == [f"{i:02}.jpg" for i in range(20)]
    assert check(out).problems == ()


@pytest.mark.slow
def test_indexing_removing_compacting_and_asking(disk, images):
    out = disk.folder / "c"
    call("inference", images, out, *NEW)
    assert until_done(disk, out, ["index", out]) > 1
    assert until_done(disk, out, ["search", out, "red"]) > 1  # makes cache.sqlite
    with disk.full(0):
        assert call("search", out, "red").exit_code == 0
        disk.require_said(call("remove", out, "--ids", "3"))
    assert call("remove", out, "--ids", "3,4,5").exit_code == 0
    assert until_done(disk, out, ["compact", out]) > 1
    assert len(live(out)) == 17
    assert check(out).problems == ()
    assert call("search", out, "red").exit_code == 0


@pytest.mark.slow
def test_lists_on_disk_which_faiss_maps(disk, monkeypatch):
    out, rng = disk.folder / "c", np.random.default_rng(0)
    vectors = rng.standard_normal((2000, 16), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    model = ModelId("test", "00", "none")
    with open_writer(out, Manifest(model, 16)) as writer:
        writer.append(Embeddings(vectors, tuple(map(str, range(2000))), model))
    monkeypatch.setattr(build, "choose_index", lambda *_: Plan("IVF16,SQ8", True, 1, "for the test"))
    for pages in (0, 2, 4, 8, 12, 16, 20, 24):  # one of which is enough for the parts, and not for the whole
        with disk.full(pages), pytest.raises(OSError, match=r"No space left|too large"):
            build.build_indices(out, memory_bytes=30_000)
        assert check(out).problems == ()
    (built,) = build.build_indices(out, memory_bytes=30_000)
    assert built.action == "built"


@pytest.mark.slow
def test_what_goes_elsewhere(disk, images, tmp_path):
    call("inference", images, tmp_path / "c", *NEW)
    call("search", tmp_path / "c", "red")  # makes the cache
    set_file = tmp_path / "set.json"
    set_file.write_text('{"classes": [{"name": "a", "positive": ["a"]}, {"name": "b", "positive": ["b"]}]}')
    out = disk.folder / "o"
    out.mkdir()
    for words in (
        ["search", "c", "red", "--out", out / "hits.csv"],
        ["search", "c", "red", "--out", out / "hits.parquet"],
        ["search", "c", "red", "--out", out / "hits.html"],
        ["search", "c", "red", "--state", out / "state"],
        ["filter", "c", "red", "-k", "9", "--as", "list", "--out", out / "list.parquet"],
        ["filter", "c", "red", "-k", "9", "--as", "webdataset", "--out", out / "tars"],
        ["label", "c", "--set", set_file, "--out", out / "labels.csv"],
        ["export", "c", "--clip-retrieval", out / "peer"],
        ["export", "c", "--arrow", out / "arrow"],
        ["index", "c", "--into", out / "index"],
    ):
        words[1] = tmp_path / "c"
        with disk.full(0):
            disk.require_said(call(*words))
        result = call(*words)
        if words[0] != "search" or "--state" in words:  # what was begun of a file is written anew
            assert result.exit_code == 0, result.stderr
