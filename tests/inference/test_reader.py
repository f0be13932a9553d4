"""Every source: in order, from any point on, with odd names and broken parts among its items."""

import gzip
import io
import json
import os
import tarfile

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.inference.paths import expand_braces, readable
from clipsieve.inference.reader import open_source
from clipsieve.types import Skipped
from tests.inference.pictures import encoded, jpeg, picture, write_tree

JPEG = jpeg(0)


def keys(source, start=0):
    return [item.key for item in source.items(start)]


def only(source):
    (item,) = source.items()
    return item


def make_tar(path, members, mode="w", **options):
    with tarfile.open(path, mode, **options) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def plain(item):
    if isinstance(item, Skipped):
        return item
    return item.key, item.data, item.caption, dict(item.meta)


# --------------------------------------------------------------------------------------------------------- folders


def test_a_folder_in_order_with_captions_and_metadata(tmp_path):
    nested = {"a": {"b": 1, "c": {"d": [1, 2]}}, "key": "mine", "caption": "theirs", "width": 3, "é": None}
    write_tree(
        tmp_path,
        {
            "b.jpg": JPEG,
            "a/z.PNG": encoded(picture(1)),
            "a/z.txt": b"\xef\xbb\xbf a caption \n",
            "b.json": json.dumps(nested).encode(),
            "c.jpg": JPEG,
            "c.json": b"{no json",
            "c.txt": b"  \n",
            "d.jpg": JPEG,
            "d.json": b"[1]",
            "notes.md": b"#",
            "lonely.txt": b"?",
        },
    )
    source = open_source(tmp_path)
    items = {item.key: item for item in source.items()}
    assert list(items) == ["a/z.PNG", "b.jpg", "c.jpg", "d.jpg"]
    assert source.total == 4
    assert source.ignored == {".md": 1, ".txt": 1}
    assert items["a/z.PNG"].caption == "a caption"
    assert items["a/z.PNG"].data == encoded(picture(1))
    assert items["b.jpg"].caption is None
    meta = dict(items["b.jpg"].meta)
    assert meta.pop("mtime") == (tmp_path / "b.jpg").stat().st_mtime
    assert meta == {
        "image_path": str(tmp_path / "b.jpg"),
        "a.b": 1,
        "a.c.d": [1, 2],
        "meta.key": "mine",
        "meta.caption": "theirs",
        "meta.width": 3,
        "é": None,
    }
    assert "cannot be read" in str(items["c.jpg"].meta["metadata_error"])
    assert items["c.jpg"].caption is None
    assert items["d.jpg"].meta["json"] == [1]


def test_what_is_an_image_goes_by_the_extension_that_splitext_finds(tmp_path):
    names = ["a..jpg", "b.c.JPG", "d.jpg/e.jpg", ".f.jpg", "d.jpg/g", ".jpg", "..jpg", "h", "i.jpgx"]
    write_tree(tmp_path, dict.fromkeys(names, b"no image by its content"))
    source = open_source(tmp_path, format="files")
    assert [item.key for item in source.items()] == [".f.jpg", "a..jpg", "b.c.JPG", "d.jpg/e.jpg"]
    assert source.ignored == {"": 4, ".jpgx": 1}


def test_relative_paths_links_and_single_files(tmp_path, monkeypatch):
    write_tree(tmp_path, {"real/a.jpg": JPEG, "real/a.txt": b"one", "real/sub/b.jpg": JPEG})
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    item = next(open_source("link").items())
    assert item.key == "a.jpg"
    assert item.meta["image_path"] == str(tmp_path / "link" / "a.jpg")
    assert only(open_source("real/a.jpg")).caption == "one"
    assert keys(open_source(["real/sub/b.jpg", "real/a.jpg"])) == ["a.jpg", "sub/b.jpg"]
    assert keys(open_source(["real", "real/sub"])) == ["real/a.jpg", "real/sub/b.jpg", "real/sub/b.jpg"]
    assert keys(open_source("real/*.jpg")) == ["a.jpg"]


def test_loops_end_and_every_file_keeps_its_plain_name(tmp_path):
    write_tree(tmp_path, {"z/deep/a.jpg": JPEG, "outside/b.jpg": JPEG, "in/c.jpg": JPEG})
    root = tmp_path / "in"
    (root / "loop").symlink_to(root)
    (root / "self.jpg").symlink_to("self.jpg")
    (root / "again").symlink_to(tmp_path / "outside")
    (root / "once more").symlink_to(tmp_path / "outside")
    (root / "real").mkdir()
    (root / "real" / "d.jpg").write_bytes(JPEG)
    (root / "a link to real").symlink_to("real")
    items = list(open_source(root).items())
    assert [item.key for item in items] == ["again/b.jpg", "c.jpg", "real/d.jpg", "self.jpg"]
    assert isinstance(items[-1], Skipped)


@pytest.mark.parametrize(
    "name",
    ["with space.jpg", "été 東京.jpg", "new\nline.jpg", "-rf.jpg", "{a,b}.jpg", "x*[1].jpg", "a.b.jpg", ".jpg.jpg"],
)
def test_odd_names_survive(tmp_path, name):
    (tmp_path / name).write_bytes(JPEG)
    item = only(open_source(tmp_path))
    assert item.key == name
    assert item.data == JPEG
    assert only(open_source(tmp_path / name)).key == name


def test_names_that_are_not_utf8_become_readable(tmp_path):
    write_tree(tmp_path, {os.fsdecode(b"caf\xe9/\xff.jpg"): JPEG})
    item = only(open_source(tmp_path))
    assert item.key == "caf\\xe9/\\xff.jpg"
    assert item.data == JPEG
    item.meta["image_path"].encode()


@given(st.text(max_size=20))
def test_readable_text_is_always_valid(text):
    readable(text).encode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert readable(text) == text


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.jpg")
    assert "not a regular file" in only(open_source(tmp_path)).reason


def test_a_vanished_file_is_skipped(tmp_path):
    write_tree(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG})
    source = open_source(tmp_path)
    (tmp_path / "a.jpg").unlink()
    first, second = source.items()
    assert isinstance(first, Skipped)
    assert "vanished" in first.reason
    assert second.key == "b.jpg"


def test_a_folder_behind_an_address():
    fs = fsspec.filesystem("memory")
    fs.pipe({"/box/b.jpg": JPEG, "/box/b.txt": b"hi", "/box/sub/a.JPG": JPEG, "/box/x.csv": b""})
    source = open_source("memory://box")
    items = list(source.items())
    assert [item.key for item in items] == ["b.jpg", "sub/a.JPG"]
    assert items[0].caption == "hi"
    assert items[0].meta["image_path"] == "memory://box/b.jpg" or items[0].meta["image_path"] == "memory:///box/b.jpg"
    assert source.ignored == {".csv": 1}
    fs.rm("/box", recursive=True)


# ------------------------------------------------------------------------------------------------------------ tars


def test_a_tar_of_samples(tmp_path):
    members = [
        ("000.jpg", JPEG),
        ("000.txt", b"first"),
        ("000.json", b'{"url": "u", "key": "000", "a": {"b": 2}}'),
        ("dir.with.dots/001.png", encoded(picture(1))),
        ("dir.with.dots/001.json", b'{"caption": "from json"}'),
        ("002.txt", b"no image"),
        ("003.seg.png", encoded(picture(2))),
        ("003.jpg", JPEG),
        ("photo.v2.JPG", JPEG),
        ("two.v1.jpg", JPEG),
        ("two.v2.jpg", JPEG),
    ]
    source = open_source(make_tar(tmp_path / "x.tar", members))
    items = list(source.items())
    assert [item.key for item in items] == [
        *("x.tar/000", "x.tar/dir.with.dots/001", "x.tar/002", "x.tar/003.seg", "x.tar/003", "x.tar/photo"),
        *("x.tar/two.v1", "x.tar/two.v2"),
    ]
    assert (items[0].caption, items[0].data) == ("first", JPEG)
    assert items[0].meta == {"url": "u", "meta.key": "000", "a.b": 2}
    assert items[1].caption == "from json"
    assert "no image but txt; check wds_image_key" in items[2].reason
    assert [item.data for item in items[3:]] == [encoded(picture(2)), JPEG, JPEG, JPEG, JPEG]


def test_the_keys_of_a_sample_can_be_chosen(tmp_path):
    members = [("0.jpg", b"not this"), ("0.big.png", JPEG), ("0.cap", b"this"), ("0.txt", b"not this")]
    path = make_tar(tmp_path / "x.tar", members)
    item = only(open_source(path, wds_image_key="big.png;webp", wds_caption_key="cap"))
    assert (item.data, item.caption) == (JPEG, "this")
    assert "no image" in only(open_source(path, wds_image_key="gif")).reason


def test_many_tars_by_braces_globs_lists_and_folders(tmp_path):
    for i in (0, 1, 9, 10):
        make_tar(tmp_path / f"{i:03}.tar", [(f"{i}.jpg", JPEG)])
    everything = ["000.tar/0", "001.tar/1", "009.tar/9", "010.tar/10"]
    assert keys(open_source(f"{tmp_path}/*.tar")) == everything
    assert keys(open_source(tmp_path)) == everything
    assert keys(open_source(f"{tmp_path}/{{009..010}}.tar")) == everything[2:]
    assert keys(open_source([f"{tmp_path}/010.tar", f"{tmp_path}/{{000,001}}.tar"])) == [everything[3], *everything[:2]]
    parts = [keys(open_source(tmp_path, partition=p, partitions=3)) for p in range(3)]
    assert parts == [[everything[0], everything[3]], [everything[1]], [everything[2]]]
    with pytest.raises(InputError, match=r"002\.tar' does not exist"):
        open_source(f"{tmp_path}/{{000..003}}.tar")


def test_tars_of_one_name_have_keys_of_their_own(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        make_tar(tmp_path / folder / "0.tar", [("x.jpg", JPEG)])
    assert keys(open_source(f"{tmp_path}/*/0.tar")) == ["a/0.tar/x", "b/0.tar/x"]


@pytest.mark.parametrize(("name", "mode"), [("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.bz2", "w:bz2")])
def test_compressed_tars(tmp_path, name, mode):
    path = make_tar(tmp_path / name, [(f"{i}.jpg", jpeg(i)) for i in range(3)], mode)
    assert [item.data for item in open_source(path).items(1)] == [jpeg(1), jpeg(2)]


def test_a_tar_behind_an_address(tmp_path):
    data = make_tar(tmp_path / "x.tar", [("a.jpg", JPEG), ("b.jpg", JPEG)]).read_bytes()
    fs = fsspec.filesystem("memory")
    fs.pipe("/tars/x.tar", data)
    assert keys(open_source("memory://tars/{x,x}.tar")) == ["x.tar/a", "x.tar/b"] * 2
    assert keys(open_source("memory://tars/*.tar"), 1) == ["x.tar/b"]
    fs.rm("/tars", recursive=True)


TAR = [(f"{i}.jpg", jpeg(i)) for i in range(4)]


@pytest.mark.parametrize(
    ("cut", "whole"),
    [(512 + 100, 0), (512 + 2048 + 700, 1), (512 + 2048 + 200, 1), (512 + 2048, 1)],
    ids=["in the first image", "in the second image", "in the second header", "between two members"],
)
def test_a_tar_cut_short_keeps_what_came_before(tmp_path, cut, whole):
    padded = [(name, data.ljust(2048, b"\0")[:2048]) for name, data in TAR]
    path = make_tar(tmp_path / "x.tar", padded)
    path.write_bytes(path.read_bytes()[:cut])
    (tmp_path / "y.tar").write_bytes(make_tar(tmp_path / "z.tar", TAR[:1]).read_bytes())
    items = list(open_source([path, tmp_path / "y.tar"]).items())
    assert [item.key for item in items] == [f"x.tar/{i}" for i in range(whole)] + ["x.tar", "y.tar/0"]
    assert f"past its sample {whole}" in items[whole].reason
    for start in range(len(items) + 1):
        assert [plain(i) for i in open_source([path, tmp_path / "y.tar"]).items(start)] == [
            plain(i) for i in items[start:]
        ]


def test_other_broken_tars(tmp_path):
    whole = make_tar(tmp_path / "x.tar", TAR).read_bytes()
    (tmp_path / "empty.tar").write_bytes(b"")
    (tmp_path / "junk.tar").write_bytes(b"junk" * 1000)
    (tmp_path / "half.tar.gz").write_bytes(gzip.compress(whole)[: len(gzip.compress(whole)) // 2])
    size = 512 + -(-len(TAR[0][1]) // 512) * 512
    (tmp_path / "middle.tar").write_bytes(whole[:size] + b"x" * 512 + whole[size + 512 :])
    (tmp_path / "dir.tar").mkdir()
    (tmp_path / "dir.tar" / "ignored").write_bytes(b"")
    found: dict[str, object] = {}
    for name in ("empty.tar", "junk.tar", "half.tar.gz", "middle.tar", "dir.tar"):
        try:
            found[name] = [
                (i.key, isinstance(i, Skipped)) for i in open_source(tmp_path / name, format="webdataset").items()
            ]
        except InputError as error:
            found[name] = str(error)
    assert found["empty.tar"] == [("empty.tar", True)]
    assert found["junk.tar"] == [("junk.tar", True)]
    assert str(found["half.tar.gz"]).endswith("('half.tar.gz', True)]")
    assert found["middle.tar"] == [("middle.tar/0", False), ("middle.tar", True)]
    assert "holds no file ending in .tar" in str(found["dir.tar"])


def test_a_tar_with_nothing_in_it(tmp_path):
    assert keys(open_source(make_tar(tmp_path / "x.tar", []))) == []


# ---------------------------------------------------------------------------------------------------------- tables


def write_table(path, n=5, **columns):
    pq.write_table(pa.table({"image": [jpeg(i) for i in range(n)], **columns}), path, row_group_size=2)
    return path


def test_a_table_of_bytes(tmp_path):
    path = write_table(
        tmp_path / "t.parquet",
        3,
        caption=["one", " ", None],
        label=[1, 2, 3],
        box=[{"x": 1, "y": {"z": 2}}] * 3,
        id=["a", "b", "c"],
        mask=[b"1", b"2", b"3"],
    )
    source = open_source(path)
    items = list(source.items())
    assert [item.key for item in items] == ["t.parquet#0", "t.parquet#1", "t.parquet#2"]
    assert [item.caption for item in items] == ["one", None, None]
    assert items[1].data == jpeg(1)
    assert items[1].meta == {"label": 2, "box.x": 1, "box.y.z": 2, "meta.id": "b"}
    assert source.total == 3


def test_a_table_of_hugging_face(tmp_path):
    rows = [{"bytes": JPEG, "path": "a.jpg"}, {"bytes": None, "path": "/tmp/b.jpg"}, None]
    pq.write_table(
        pa.table({"img": rows, "text": ["x", "y", "z"], "key": ["k", None, 7 and "seven"]}), tmp_path / "t.parquet"
    )
    items = list(open_source(tmp_path).items())
    assert [item.key for item in items] == ["k", "t.parquet#1", "seven"]
    assert (items[0].data, items[0].caption) == (JPEG, "x")
    assert "holds a path (b.jpg) and no bytes" in items[1].reason
    assert "holds no bytes" in items[2].reason


def test_the_columns_of_a_table_can_be_chosen(tmp_path):
    path = write_table(tmp_path / "t.parquet", 1, other=[encoded(picture(9))], caption=["no"], title=["yes"])
    item = only(open_source(path, image_column="other", caption_column="title"))
    assert (item.data, item.caption, item.meta) == (encoded(picture(9)), "yes", {"caption": "no"}) or (
        item.meta == {"meta.caption": "no"}
    )
    assert "no column 'nope'" in only(open_source(path, image_column="nope")).reason


def test_broken_tables(tmp_path):
    write_table(tmp_path / "b.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"url": ["http://x"]}), tmp_path / "c.parquet")
    items = list(open_source(tmp_path).items())
    assert [item.key for item in items] == ["a.parquet", *(f"b.parquet#{i}" for i in range(5)), "c.parquet"]
    assert "no column of url holds bytes" in items[-1].reason
    assert open_source(tmp_path).total is None


def test_a_damaged_row_group_costs_its_own_rows(tmp_path):
    path = tmp_path / "t.parquet"
    noise = [np.random.default_rng(i).bytes(3000) for i in range(6)]
    pq.write_table(
        pa.table({"image": noise}),
        path,
        row_group_size=2,
        compression="gzip",
        use_dictionary=False,
        write_statistics=False,
    )
    data = bytearray(path.read_bytes())
    place = bytes(data).index(noise[2][:50]) if noise[2][:50] in bytes(data) else None
    with pq.ParquetFile(path) as file:
        start = file.metadata.row_group(1).column(0).data_page_offset
    place = start + 60 if place is None else place
    data[place : place + 200] = b"\0" * 200
    path.write_bytes(bytes(data))
    items = list(open_source(path).items())
    assert [item.key for item in items] == [f"t.parquet#{i}" for i in range(6)]
    assert [isinstance(item, Skipped) for item in items] == [False, False, True, True, False, False]


# ------------------------------------------------------------------------------------------------------ all of them


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    folder = write_tree(root / "folder", {f"{i % 3}/{i}.jpg": bytes([i]) for i in range(9)})
    (folder / "1" / "gone.jpg").symlink_to("nowhere")
    (root / "tars").mkdir()
    for t in range(3):
        members = [(f"{i}.{suffix}", bytes([t, i])) for i in range(3) for suffix in ("jpg", "txt")]
        make_tar(root / "tars" / f"{t}.tar", members)
    cut = root / "tars" / "1.tar"
    cut.write_bytes(cut.read_bytes()[: 512 * 9 + 1])
    (root / "tables").mkdir()
    for t in range(3):
        write_table(root / "tables" / f"{t}.parquet", t + 2)
    (root / "tables" / "1.parquet").write_bytes(b"broken")
    return root


@pytest.mark.parametrize("kind", ["folder", "tars", "tables"])
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(start=st.integers(0, 14), partitions=st.integers(1, 4), data=st.data())
def test_a_source_goes_on_from_any_point(inputs, kind, start, partitions, data):
    partition = data.draw(st.integers(0, partitions - 1))
    source = open_source(inputs / kind, partition=partition, partitions=partitions)
    whole = [plain(item) for item in source.items()]
    assert [plain(item) for item in source.items(start)] == whole[start:]


@pytest.mark.parametrize("kind", ["folder", "tars", "tables"])
def test_parts_make_up_the_whole(inputs, kind):
    whole = keys(open_source(inputs / kind))
    parts = [key for p in range(3) for key in keys(open_source(inputs / kind, partition=p, partitions=3))]
    assert sorted(parts) == sorted(whole)


def test_names_tell_inputs_and_options_apart(inputs, monkeypatch):
    monkeypatch.chdir(inputs)
    assert open_source("folder").name == open_source(inputs / "folder").name
    names = {
        open_source("folder").name,
        open_source("tars").name,
        open_source("tars", wds_image_key="png").name,
        open_source("tables").name,
        open_source(["tars/0.tar", "tars/1.tar"]).name,
        open_source(["tars/0.tar", "tars/2.tar"]).name,
    }
    assert len(names) == 6
    assert all("\n" not in name for name in names)


@pytest.mark.parametrize(
    ("input", "options", "words"),
    [
        ("nowhere", {}, "does not exist"),
        ("folder/*.nope", {}, "matches nothing"),
        ([], {}, "empty list"),
        ("folder", {"format": "zip"}, "'zip' is not known"),
        ("folder", {"partition": 2, "partitions": 2}, "no partition 2 of 2"),
        ("folder", {"format": "parquet"}, "no file ending in .parquet"),
        ("nosuchprotocol://x", {}, "cannot be reached"),
        ("readme", {}, "give a format"),
    ],
)
def test_inputs_that_cannot_be_meant(inputs, monkeypatch, input, options, words):
    monkeypatch.chdir(inputs)
    (inputs / "readme").write_text("")
    with pytest.raises(InputError, match=words):
        open_source(input, **options)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("x", ["x"]),
        ("{8..11}", ["8", "9", "10", "11"]),
        ("{08..10}", ["08", "09", "10"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{0..1}", ["a0", "a1", "b0", "b1"]),
        ("{a}{b,c}", ["{a}b", "{a}c"]),
        ("{,x}", ["", "x"]),
        ("{000..002}.tar", ["000.tar", "001.tar", "002.tar"]),
    ],
)
def test_braces(pattern, expected):
    assert list(expand_braces(pattern)) == expected


def test_images_are_not_decoded_by_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    write_tree(tmp_path, {"a.jpg": b"whatever"})
    assert only(open_source(tmp_path)).data == b"whatever"
