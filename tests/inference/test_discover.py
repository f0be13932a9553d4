"""What is read of an input and what is not, whatever lies beside what."""

import io
import json
import os
import tarfile

import pillow_heif
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import CollectionError, InputError
from clipsieve.inference.add import Added, add_to_collection
from clipsieve.inference.discover import NOT_READ
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.types import Skipped
from tests.inference.pictures import encoded, jpeg, picture, write_tree

JPEG = jpeg(0)
URL = "http://x.invalid/1.jpg"


def tar_of(**members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def parquet_of(**columns):
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file)
    return file.getvalue()


def heic(image):
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file)
    return file.getvalue()


def read(source, start=0):
    """key -> the item, or why it is skipped."""
    return {item.key: item.reason if isinstance(item, Skipped) else item for item in source.items(start)}


MIXED = {
    "a.jpg": JPEG,
    "deep/er/0.tar": tar_of(x_jpg=jpeg(1), x_txt=b"from a tar"),
    "deep/b.png": encoded(picture(2)),
    "data/train-00000-of-00001.parquet": parquet_of(image=[{"bytes": jpeg(3), "path": "x.jpg"}], label=[7]),
    "README.md": b"#",
}


def test_images_tars_and_tables_are_read_however_deep_and_side_by_side(tmp_path):
    source = open_source(write_tree(tmp_path, MIXED))
    items = read(source)
    keys = ["a.jpg", "deep/b.png", "deep/er/0.tar/x", "data/train-00000-of-00001.parquet#0"]
    assert list(items) == keys
    assert items["deep/er/0.tar/x"].caption == "from a tar"
    assert items["data/train-00000-of-00001.parquet#0"].meta == {"label": 7}
    assert source.ignored == {".md": 1}
    for start in range(len(keys) + 2):
        assert list(read(source, start)) == keys[start:]
    parts = [key for p in range(3) for key in read(open_source(tmp_path, partition=p, partitions=3))]
    assert sorted(parts) == sorted(keys)
    only = source.only({str(tmp_path / "deep/er/0.tar"), str(tmp_path / "a.jpg")})
    assert set(read(only)) >= {"a.jpg", "deep/er/0.tar/x"}
    assert "deep/b.png" not in read(only)
    assert {os.path.relpath(path, tmp_path) for path in source.states()} == MIXED.keys() - {"README.md"}


@pytest.mark.parametrize("kind", ["deep/er/0.tar", "data/train-00000-of-00001.parquet"])
def test_what_lies_in_subfolders_alone_is_read_too(tmp_path, kind):
    assert len(read(open_source(write_tree(tmp_path, {kind: MIXED[kind]})))) == 1


def test_inputs_of_one_kind_keep_their_names_and_order_when_others_come(tmp_path):
    write_tree(tmp_path, {"tars/0.tar": MIXED["deep/er/0.tar"], "photos/a.jpg": JPEG})
    for kind, folder in (("webdataset", "tars"), ("files", "photos")):
        before = open_source(tmp_path / folder)
        assert before.name.startswith(f"{kind}:{tmp_path / folder}")
        write_tree(tmp_path / folder, {"later/b.jpg": jpeg(1), "later/1.tar": tar_of(y_jpg=jpeg(2))})
        after = open_source(tmp_path / folder)
        assert after.name == before.name
        assert list(read(after))[: len(read(before))] == list(read(before))
        assert len(read(after)) == len(read(before)) + 2


def test_an_imagefolders_table_gives_its_columns_to_the_images_and_fetches_nothing(tmp_path):
    table = f"file_name,text,label,url\n1.jpg,a red bus,7,{URL}\nsub/2.jpg,,8,{URL}\ngone.jpg,x,9,{URL}\n".encode()
    write_tree(tmp_path, {"train/1.jpg": JPEG, "train/sub/2.jpg": jpeg(1), "train/metadata.csv": table})
    write_tree(
        tmp_path, {"3.jpg": jpeg(2), "3.txt": b"mine", "metadata.jsonl": b'{"file_name": "3.jpg", "text": "no"}'}
    )
    items = read(open_source(tmp_path))
    assert list(items) == ["3.jpg", "train/1.jpg", "train/sub/2.jpg"]
    assert [item.caption for item in items.values()] == ["mine", "a red bus", None]
    assert [item.meta.get("label") for item in items.values()] == [None, 7, 8]
    assert open_source(tmp_path).ignored == {}


def test_img2datasets_tables_beside_their_tars_are_counted_and_not_read(tmp_path):
    for i in range(2):
        name, sample = f"{i:05}", tar_of(a_jpg=jpeg(i), a_json=json.dumps({"caption": "c"}).encode())
        table = parquet_of(url=[URL], caption=["c"], key=["a"], status=["success"])
        write_tree(tmp_path, {f"{name}.tar": sample, f"{name}.parquet": table, f"{name}_stats.json": b"{}"})
    source = open_source(tmp_path)
    assert list(read(source)) == ["00000.tar/a", "00001.tar/a"]
    assert source.ignored == {NOT_READ: 2, ".json": 2}


def test_a_table_of_urls_beside_images_is_not_fetched_and_says_how_it_is(tmp_path):
    items = read(open_source(write_tree(tmp_path, {"a.jpg": JPEG, "b.csv": f"url\n{URL}\n".encode()})))
    assert "--format urls" in items["b.csv"]
    assert open_source(tmp_path / "b.csv", format="urls").name.startswith("urls:")


def test_tables_of_urls_alone_are_lists_in_subfolders_too(tmp_path):
    source = open_source(write_tree(tmp_path, {"l/1.csv": f"url\n{URL}\n".encode(), "notes.txt": b"hello"}))
    assert source.name.startswith("urls:")
    assert (source.total, source.ignored) == (1, {".txt": 1})


def test_bytes_that_are_no_images_make_no_table_of_images(tmp_path):
    table = parquet_of(file=["a.jpg"], md5=[b"0123456789abcdef"], size=[4])
    (item,) = read(open_source(write_tree(tmp_path, {"a.jpg": JPEG, "t.parquet": table}))).values()
    assert item.meta["meta.size"] == 4


def test_content_decides_where_the_suffix_does_not(tmp_path):
    good = {"a": JPEG, "b.jpg_large": JPEG, "c.JPG~1": heic(picture(1)), "d.bin": encoded(picture(2), "WEBP")}
    source = open_source(write_tree(tmp_path, {**good, "e": b"text", "f.bin": b"", "x.html": JPEG}))
    os.mkfifo(tmp_path / "pipe")
    assert list(read(source)) == list(good)
    assert source.ignored == {"": 1, ".bin": 1, ".html": 1}
    assert read(open_source(tmp_path / "a"))["a"].data == JPEG


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.CR2", "a raw photo"),
        ("a.svg", "a drawing"),
        ("a.pdf", "a document"),
        ("a.mp4", "a video"),
        ("a.zip", "unpack"),
    ],
)
def test_what_might_be_meant_and_is_not_read_is_listed(tmp_path, name, words):
    items = read(open_source(write_tree(tmp_path, {name: JPEG, "b.jpg": JPEG})))
    assert words in items[name]
    assert items["b.jpg"].data == JPEG


# ---------------------------------------------------------------------------------------------- into a collection


def embed(root, out, **options):
    return embed_collection(open_source(root), FakeEmbedder(), out, **options)


def test_a_mixed_input_goes_through_inference_and_add(tmp_path):
    root, out = write_tree(tmp_path / "in", MIXED), tmp_path / "out"
    done = embed(root, out, shard_size=2)
    assert (done.embedded, done.skipped, done.ignored) == (4, 0, {".md": 1})
    assert (embed(root, out).before, embed(root, out).embedded) == (4, 0)
    write_tree(root, {"deep/er/1.tar": tar_of(z_jpg=jpeg(9)), "z.jpg": jpeg(10)})
    added = add_to_collection(open_source(root), lambda name: FakeEmbedder(), out)
    assert (added.same, added.embedded) == (4, 2)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "holds no images: it is empty"),
        ({"a.md": b"", "b.py": b""}, "but 1 .md, 1 .py"),
        ({"c/clipsieve.json": b"{}"}, "but 1 collection"),
    ],
)
def test_an_input_without_images_is_an_error_that_says_what_there_is(tmp_path, files, words):
    (tmp_path / "in").mkdir()
    write_tree(tmp_path / "in", files)
    with pytest.raises(InputError, match=words):
        embed(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=words):
        add_to_collection(open_source(tmp_path / "in"), lambda name: FakeEmbedder(), tmp_path / "out")


def test_where_all_is_skipped_the_error_has_the_commonest_reason(tmp_path):
    write_tree(tmp_path / "in", {"a.svg": b"", "b.mp4": b"", "c.mp4": b""})
    for _ in range(2):
        with pytest.raises(CollectionError, match=r"None of the 3 inputs .* most often \(2\) because: It is a video"):
            embed(tmp_path / "in", tmp_path / "out")


def test_the_error_names_the_input_and_not_how_it_is_read(tmp_path):
    write_tree(tmp_path / "in", {"t.tar": b"no tar"})
    with pytest.raises(CollectionError, match=rf"'{tmp_path / 'in'}'"):
        embed(tmp_path / "in", tmp_path / "out")


def test_a_collection_is_no_input_and_none_of_it_is_read_below_one(tmp_path):
    write_tree(tmp_path / "in", {"a.jpg": JPEG})
    embed(tmp_path / "in", tmp_path / "in" / "c.clip", thumbs=True)
    assert list(read(open_source(tmp_path / "in"))) == ["a.jpg"]
    with pytest.raises(InputError, match=r"c\.clip' is a collection"):
        open_source(tmp_path / "in" / "c.clip")


def test_what_another_decoder_reads_is_tried_again_and_no_longer_listed(tmp_path, monkeypatch):
    from clipsieve import heif
    from clipsieve.inference import decode
    from clipsieve.manifest import read_manifest
    from clipsieve.skips import current_skips

    def listed():
        manifest = read_manifest(tmp_path / "out")
        found = [s.key for some in current_skips(tmp_path / "out", manifest).values() for s in some]
        assert manifest.skipped == len(found)
        return found

    write_tree(tmp_path / "in", {"a.heic": heic(picture(1)), "b.jpg": JPEG, "c.jpg": b"no image", "d.svg": b""})
    with monkeypatch.context() as patch:
        for module in (heif, decode):
            patch.setattr(module, "has_heif", lambda: False)
        first = embed(tmp_path / "in", tmp_path / "out")
        assert (first.skipped, first.not_read) == (3, {".heic": 1, ".jpg": 1, ".svg": 1})
        assert embed(tmp_path / "in", tmp_path / "out").skipped == 0
    assert listed() == ["a.heic", "c.jpg", "d.svg"]
    done = embed(tmp_path / "in", tmp_path / "out")
    assert (done.embedded, done.recovered, done.before) == (1, 1, 4)
    assert sorted(listed()) == ["c.jpg", "d.svg"]
    again = embed(tmp_path / "in", tmp_path / "out")
    assert (again.embedded, again.skipped) == (0, 0)


@pytest.mark.parametrize("compacted", [False, True])
def test_add_tries_again_what_a_larger_limit_lets_in(tmp_path, compacted):
    from clipsieve.manifest import read_manifest

    write_tree(tmp_path / "in", {"a.jpg": JPEG, "b.jpg": jpeg(1, (8, 8))})
    embed(tmp_path / "in", tmp_path / "out", max_pixels=100)
    if compacted:
        from clipsieve.index.compact import compact

        write_tree(tmp_path / "in", {"c.jpg": jpeg(2, (8, 8))})
        add_to_collection(open_source(tmp_path / "in"), lambda name: FakeEmbedder(), tmp_path / "out", max_pixels=100)
        compact(tmp_path / "out")
    source = open_source(tmp_path / "in")
    same = 1 + compacted
    assert add_to_collection(source, lambda name: FakeEmbedder(), tmp_path / "out", max_pixels=100).same == same + 1
    added = add_to_collection(source, lambda name: FakeEmbedder(), tmp_path / "out")
    added.seconds = 0.0
    assert added == Added(read=same + 1, same=same, embedded=1)
    assert read_manifest(tmp_path / "out").skipped == 0


def test_a_file_of_no_known_suffix_that_may_not_be_read_is_listed(tmp_path, monkeypatch):
    import builtins

    opened = builtins.open

    def refused(path, *args, **kwargs):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    write_tree(tmp_path, {"a.jpg": JPEG, "secret": JPEG})
    monkeypatch.setattr(builtins, "open", refused)
    assert "secret" in read(open_source(tmp_path))


@pytest.mark.parametrize("name", ["b.jpg", "t.tar", "t.parquet", "noext", "l.csv", "a.txt", "a.json"])
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path, name):
    write_tree(tmp_path / "in", {"a.jpg": JPEG})
    os.mkfifo(tmp_path / "in" / name)
    source = open_source(tmp_path / "in")
    found = list(source.items())
    told = [one for one in found if isinstance(one, Skipped)]
    assert told or source.ignored
    assert len(found) - len(told) == (0 if name in ("a.txt", "a.json") else 1)


def test_images_that_are_links_in_a_tar_are_listed(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        kinds = {"a.jpg": tarfile.REGTYPE, "b.jpg": tarfile.LNKTYPE, "c.jpg": tarfile.SYMTYPE, "d.txt": tarfile.LNKTYPE}
        for name, kind in kinds.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "" if kind == tarfile.REGTYPE else "a.jpg"
            member.size = len(JPEG) if kind == tarfile.REGTYPE else 0
            tar.addfile(member, io.BytesIO(JPEG))
    source = open_source(tmp_path / "t.tar")
    image, *links = list(source.items())
    assert image.key == "t.tar/a"
    assert [link.key for link in links] == ["t.tar/b.jpg", "t.tar/c.jpg"]
    assert all("--hard-dereference" in link.reason for link in links)
    assert [one.key for one in source.items(2)] == ["t.tar/c.jpg"]
