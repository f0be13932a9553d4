"""`watch` over real folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.lock import writer_lock
from clipsieve.shards import open_manifest, read_skipped
from tests.clipsieve.test_cli import run as run  # a fixture
from tests.inference.pictures import jpeg, write_tree
from tests.inference.test_add import live, write_tar

pytestmark = pytest.mark.slow  # runs of the whole program, a second or more each

ROOT = Path(__file__).parents[2]


def write(root, files):
    """Files that nobody wrote to lately."""
    write_tree(root, files)
    for name in files:
        os.utime(root / name, (1e9, 1e9 + len(files[name])))


@pytest.fixture
def root(tmp_path):
    write(tmp_path / "in", {**{f"{i}.jpg": jpeg(i) for i in range(5)}, "bad.jpg": b"not an image"})
    return tmp_path / "in"


@pytest.fixture
def out(run, root, tmp_path):
    run("inference", root, tmp_path / "c", "--model", "fake")
    return tmp_path / "c"


def no_model(name, **_):
    raise AssertionError("The model was loaded for nothing.")


def once(run, out, root, *options, **how):
    """The objects that `watch --once` printed, without what differs each time."""
    said = run("watch", out, root, "--once", "--json", *options, **how).stdout
    wanted = ("embedded", "changed", "skipped", "gone")
    return [{name: told[name] for name in wanted if told[name]} for told in map(json.loads, said.splitlines())]


def test_it_keeps_in_step(run, root, out):
    write(root, {"5.jpg": jpeg(5), "2.jpg": jpeg(22), "worse.jpg": b"\xff\xd8"})
    (root / "3.jpg").unlink()
    assert once(run, out, root) == [{"embedded": 2, "changed": 1, "skipped": 1, "gone": 1}]
    assert set(live(out)) == {"0.jpg", "1.jpg", "2.jpg", "4.jpg", "5.jpg"}
    write(root, {"3.jpg": jpeg(3)})
    said = run("watch", out, root, "--once").stdout
    assert said[20:] == " 1 images embedded.\n"
    assert live(out)["3.jpg"] == 7
    assert "Nothing to do" in run("watch", out, root, "--once", load=no_model).stdout


def test_a_caption_that_is_cut_is_told(run, root, out):
    write(root, {"5.jpg": jpeg(5), "5.txt": b"word " * 90})
    said = run("watch", out, root, "--once")
    assert "1 captions are longer than the model reads" in said.stdout


def test_what_is_gone_may_stay(run, root, out):
    (root / "3.jpg").unlink()
    assert once(run, out, root, "--keep-missing") == []
    assert "3.jpg" in live(out)


def test_files_of_other_inputs_and_members_of_tars_are_not_missed(run, root, out, tmp_path):
    write(tmp_path / "other", {"other.jpg": jpeg(8), "another.jpg": jpeg(9)})
    write_tar(tmp_path / "a.tar", {"x.jpg": jpeg(10)})
    os.utime(tmp_path / "a.tar", (1e9, 1e9))
    run("add", out, tmp_path / "other")
    assert once(run, out, tmp_path / "a.tar") == [{"embedded": 1}]
    (tmp_path / "other" / "other.jpg").unlink()
    (tmp_path / "a.tar").unlink()
    assert once(run, out, root) == []
    assert "does not exist" in run("watch", out, tmp_path / "a.tar", "--once", code=2).stderr
    assert len(live(out)) == 8


@pytest.mark.parametrize("stranger", [False, True])
def test_a_disk_that_is_not_mounted_removes_nothing(run, root, out, tmp_path, stranger):
    root.rename(tmp_path / "disk")
    root.mkdir()
    if stranger:
        write(root, {"stranger.jpg": jpeg(50)})
    said = run("watch", out, root, "--once", code=1).stderr
    assert "None of the 5 files" in said
    assert "is a disk not mounted?" in said
    assert "If they were moved" in said
    assert len(live(out)) == 5
    shutil.rmtree(root)
    assert "does not exist" in run("watch", out, root, "--once", code=2).stderr
    (tmp_path / "disk").rename(root)
    assert once(run, out, root, load=no_model) == []


def test_a_file_that_is_being_written_is_left_for_the_next_round(run, root, out, monkeypatch):
    waited = []

    def write_on(seconds):
        waited.append(seconds)
        with (root / "new.jpg").open("ab") as file:
            file.write(jpeg(7)[100:])

    monkeypatch.setattr("clipsieve.commands_watch.sleep", write_on)
    (root / "new.jpg").write_bytes(jpeg(7)[:100])
    said = run("watch", out, root, "--once", load=no_model)
    assert "1 files are still being written to" in said.stderr
    assert len(waited) == 1
    assert [s.key for shard in open_manifest(out).shards for s in read_skipped(out, shard)] == ["bad.jpg"]
    os.utime(root / "new.jpg", (1e9, 1e9))
    assert once(run, out, root) == [{"embedded": 1}]


def test_a_name_that_is_not_utf8_is_not_missed(run, root, out):
    name = os.fsencode(root / "caf") + b"\xe9.jpg"
    with open(name, "wb") as file:  # noqa: PTH123
        file.write(jpeg(6))
    os.utime(name, (1e9, 1e9))
    assert once(run, out, root) == [{"embedded": 1}]
    assert once(run, out, root, load=no_model) == []
    assert json.loads(run("remove", out, "--missing", "--json").stdout)["removed"] == 0


def test_a_folder_that_may_not_be_looked_into_is_not_gone(root, out, monkeypatch):
    from clipsieve.index.missing import missing_files

    real = os.lstat

    def lstat(path, **options):
        if str(path).endswith("3.jpg"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, **options)

    (root / "1.jpg").unlink()
    monkeypatch.setattr(os, "lstat", lstat)
    assert missing_files(out, open_manifest(out), []).gone.tolist() == [live(out)["1.jpg"]]


class Rounds:
    """Takes the place of the waiting between rounds: does one thing after another, and then Ctrl-C."""

    def __init__(self, *steps):
        self.steps = list(steps)

    def __call__(self, seconds):
        if not self.steps:
            raise KeyboardInterrupt
        self.steps.pop(0)()


def test_rounds_without_news_open_no_file_and_change_nothing(run, root, out, monkeypatch):
    from clipsieve.inference import files

    read, opened = [], []
    real = files._read

    def noted(entry):
        read.append(entry.name)
        return real(entry)

    monkeypatch.setattr(files, "_read", noted)

    def note():
        opened.append(list(read))
        read.clear()

    before = [(p.name, p.stat().st_mtime_ns) for p in sorted(out.rglob("*")) if p.name != "clipsieve.lock"]
    monkeypatch.setattr("clipsieve.commands_watch.sleep", Rounds(note, note, note))
    said = run("watch", out, root, "--every", "3600", code=130, load=no_model)
    assert opened == [["bad.jpg"], [], []]  # of what was skipped nothing tells whether it is the same
    assert said.stdout == ""
    assert "Stopped. What was embedded is kept" in said.stderr
    assert [(p.name, p.stat().st_mtime_ns) for p in sorted(out.rglob("*")) if p.name != "clipsieve.lock"] == before


def test_a_folder_that_is_emptied_under_its_eyes_is_emptied_and_the_model_loaded_once(run, root, out, monkeypatch):
    from tests.clipsieve.test_cli import ColourEmbedder

    loaded = []

    def load(name, **_):
        loaded.append(name)
        return ColourEmbedder(name)

    def empty():
        for path in root.iterdir():
            path.unlink()

    steps = Rounds(
        lambda: write(root, {"5.jpg": jpeg(5)}),
        lambda: None,
        lambda: write(root, {"6.jpg": jpeg(6)}),
        empty,
        lambda: write(root, {"7.jpg": jpeg(7)}),
    )
    monkeypatch.setattr("clipsieve.commands_watch.sleep", steps)
    said = run("watch", out, root, code=130, load=load)
    assert [line[21:] for line in said.stdout.splitlines()] == [
        "1 images embedded.",
        "1 images embedded.",
        "7 removed whose files are gone.",
        "1 images embedded.",
    ]
    assert set(live(out)) == {"7.jpg"}
    assert loaded == ["fake"]


def test_another_writer_is_waited_for(run, root, out, monkeypatch):
    lock = writer_lock(out)
    lock.__enter__()
    write(root, {"5.jpg": jpeg(5)})
    monkeypatch.setattr(
        "clipsieve.commands_watch.sleep",
        Rounds(lambda: None, lambda: lock.__exit__(None, None, None), lambda: None),
    )
    said = run("watch", out, root, code=130)
    assert said.stderr.count("is being written by process") == 1
    assert "5.jpg" in live(out)
    with writer_lock(out):
        assert "is being written by process" in run("watch", out, root, "--once", code=1).stderr


def test_of_several_tars_only_what_is_new_is_read(run, tmp_path, monkeypatch):
    from clipsieve.inference import tars

    read = []
    real = tars.TarSource._read

    def noted(self, name, *rest):
        read.append(name)
        return real(self, name, *rest)

    monkeypatch.setattr(tars.TarSource, "_read", noted)
    folder, out = tmp_path / "in", tmp_path / "c"
    folder.mkdir()
    write_tar(folder / "a.tar", {"x.jpg": jpeg(1)})
    write_tar(folder / "b.tar", {"y.jpg": jpeg(2)})
    os.utime(folder / "a.tar", (1e9, 1e9))
    run("inference", folder, out, "--model", "fake")

    def one_more():
        read.clear()
        os.utime(folder / "b.tar", (1e9, 1e9))
        write_tar(folder / "c.tar", {"z.jpg": jpeg(3)})
        os.utime(folder / "c.tar", (1e9, 1e9))

    monkeypatch.setattr("clipsieve.commands_watch.sleep", Rounds(lambda: None, one_more))
    run("watch", out, folder, code=130)
    assert read == ["b.tar", "c.tar"]
    assert set(live(out)) == {"a.tar/x", "b.tar/y", "c.tar/z"}


def test_files_behind_an_address_come_once(run, tmp_path, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe({f"/watched/{i}.jpg": jpeg(i) for i in range(3)})
    run("inference", "memory://watched", tmp_path / "c", "--model", "fake")
    monkeypatch.setattr(
        "clipsieve.commands_watch.sleep",
        Rounds(lambda: memory.pipe("/watched/3.jpg", jpeg(3)), lambda: memory.rm("/watched/1.jpg"), lambda: None),
    )
    said = run("watch", tmp_path / "c", "memory://watched", code=130).stdout
    assert [line[21:] for line in said.splitlines()] == ["1 images embedded."]
    memory.rm("/watched", recursive=True)


def test_sigterm_ends_it_as_ctrl_c_does(root, tmp_path):
    out = tmp_path / "c"
    embed_collection(open_source(root), FakeEmbedder(), out)
    write(root, {"5.jpg": jpeg(5)})
    words = [sys.executable, "-m", "tests.child", "watch", out, root, "--every", "0.1"]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=30)[1]
    assert "1 images embedded" in told, said
    assert process.returncode == 130
    assert said.splitlines()[-1] == "Stopped. What was embedded is kept; the same command goes on from there."
    assert "5.jpg" in live(out)
    with writer_lock(out):
        pass
