"""Whatever a file is called, what was embedded of it can be read, exported, linked to, and asked with."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from clipsieve.index.collection import open_collection
from clipsieve.index.export import export
from clipsieve.index.records import Record, safe_name
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.named_items import named_ids
from clipsieve.path_text import to_text
from clipsieve.question import ask
from tests.inference.pictures import jpeg

NAMES = [
    *(b"caf\xe9.jpg", b"\xff\xfe.jpg", b"d\xe9/x.jpg", b"lit\\xe9.jpg", b"a\\b.jpg", b"a\\\\b.jpg", b"new\nline.jpg"),
    *(b"tab\t.jpg", b"q\"u'o.jpg", b"#1.jpg", b"{a,b}*[1].jpg", b"--help.jpg", b"s3:/b.jpg", b"%41.jpg"),
    *("東京.jpg".encode(), b"x" * 240 + b".jpg"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("names") / "in"
    for number, name in enumerate(NAMES):
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(number))
    return root


@pytest.fixture(scope="module")
def opened(root, tmp_path_factory):
    out = tmp_path_factory.mktemp("names") / "out"
    embed_collection(open_source(root), FakeEmbedder(), out)
    with open_collection(out) as opened:
        yield opened


def records(opened):
    ids = list(range(opened.count))
    return [Record(id, key, {}) for id, key in zip(ids, opened.keys(ids), strict=True)]


@pytest.mark.parametrize(
    "kind", ["copy", "link", "webdataset", "datasets", "folders", "coco", "tar", "zip", "yolo-images"]
)
def test_every_export_finds_every_file(opened, tmp_path, kind):
    done = export(records(opened), tmp_path / "out", kind, opened)
    assert (done.written, done.skipped) == (len(NAMES), ())


def test_a_copy_has_the_name_of_its_file(opened, tmp_path):
    export(records(opened), tmp_path, "copy", opened)
    for name in (b"caf\xe9.jpg", b"\xff\xfe.jpg", b"d\xe9/x.jpg", b"--help.jpg", "東京.jpg".encode()):
        assert (tmp_path / os.fsdecode(name)).exists()
    assert safe_name("caf\\xe9.jpg") == "caf_.jpg"  # for a zip, and for systems without such names


def test_a_list_names_each_file_on_one_line_that_can_be_read_back(opened, root, tmp_path):
    export(records(opened), tmp_path / "l.txt", "list", opened)
    lines = (tmp_path / "l.txt").read_text().split("\n")
    from clipsieve.path_text import to_path

    assert {to_path(line) for line in lines if line} == {f"{root}/{os.fsdecode(name)}" for name in NAMES}


def test_nothing_is_missing_and_each_is_an_example_by_name_and_by_text(opened, root):
    assert opened.missing().gone.tolist() == []
    for name in NAMES:
        path = root / os.fsdecode(name)
        (digest,) = ask(images=[path]).uploads
        assert ask(images=[path]).question.name == to_text(path.name)
        if not path.with_name(to_text(path.name)).exists():
            assert list(ask(images=[Path(to_text(path))]).uploads) == [digest]


def test_ids_in_files(opened, tmp_path):
    keys = opened.keys(list(range(opened.count)))
    plain = [key for key in keys if "\n" not in key]
    wanted = opened.ids_of_keys(plain).tolist()
    (tmp_path / "keys.txt").write_text("".join(f"{key}\n" for key in plain))
    assert named_ids(str(tmp_path / "keys.txt"), opened.ids_of_keys) == wanted
    (tmp_path / "raw.txt").write_bytes(b"caf\xe9.jpg\r\n3\n")
    assert named_ids(str(tmp_path / "raw.txt"), opened.ids_of_keys) == [keys.index("caf\\xe9.jpg"), 3]
    export(records(opened), tmp_path / "l.csv", "list", opened)
    export(records(opened), tmp_path / "l.jsonl", "list", opened)
    for file in ("l.csv", "l.jsonl"):
        assert named_ids(str(tmp_path / file), opened.ids_of_keys) == list(range(opened.count))


def test_members_and_tars_whose_names_are_not_utf8(tmp_path):
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in" / os.fsdecode(b"t\xe9.tar"), "w") as tar:
        for number, name in enumerate(["caf\udce9.jpg", "a\\b.jpg"]):
            member = tarfile.TarInfo(name)
            member.size = len(jpeg(number))
            tar.addfile(member, io.BytesIO(jpeg(number)))
    embed_collection(open_source(tmp_path / "in"), FakeEmbedder(), tmp_path / "out")
    with open_collection(tmp_path / "out") as opened:
        assert opened.keys([0, 1]) == ["t\\xe9.tar/caf\\xe9", "t\\xe9.tar/a\\\\b"]
        assert [opened.image_bytes(i, thumbnails=False) for i in (0, 1)] == [jpeg(0), jpeg(1)]
