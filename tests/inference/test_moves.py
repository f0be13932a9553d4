"""Items follow their files: nothing is embedded, nothing changes but where the file lies."""

import itertools
import os
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.index.collection import open_collection
from clipsieve.inference.add import Added
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import read_manifest
from clipsieve.restoring import restore
from clipsieve.shards import read_metadata, read_removed
from clipsieve.whole import verify
from clipsieve.writer import Place, open_writer
from tests.inference.pictures import jpeg, write_tree
from tests.inference.test_add import add, live, no_model, write_tar


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "in", {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "sub/c.jpg": jpeg(3)})


@pytest.fixture
def out(tmp_path, root):
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out", shard_size=2, batch_size=1, thumbs=True)
    return tmp_path / "out"


def places(out):
    """id -> (key, whether its image can be read back)."""
    with open_collection(out) as opened:
        ids = sorted(live(out).values())
        return {i: (opened.keys([i])[0], bool(opened.image_bytes(i, thumbnails=False))) for i in ids}


def test_a_renamed_folder(root, out, tmp_path):
    moved = root.rename(tmp_path / "new")
    assert add(moved, out, no_model) == Added(read=3, moved=3)
    assert places(out) == {0: ("a.jpg", True), 1: ("b.jpg", True), 2: ("sub/c.jpg", True)}
    assert list(verify(out, read_manifest(out))) == []
    assert add(moved, out, no_model) == Added(read=3, same=3)
    assert add(moved.rename(root), out, no_model) == Added(read=3, moved=3)  # its metadata is written a third time


def test_files_move_while_others_come_and_change(root, out):
    (root / "a.jpg").rename(root / "z.jpg")
    (root / "sub/c.jpg").unlink()
    write_tree(root, {"sub/d.jpg": jpeg(3) + b"\0", "new.jpg": jpeg(9)})
    assert add(root, out) == Added(read=4, same=1, moved=1, embedded=2)
    assert live(out)["z.jpg"] == 0


def test_two_files_that_change_places(root, out):
    (root / "a.jpg").rename(root / "x")
    (root / "b.jpg").rename(root / "a.jpg")
    (root / "x").rename(root / "b.jpg")
    assert add(root, out, no_model) == Added(read=3, same=1, moved=2)
    assert places(out) == {0: ("b.jpg", True), 1: ("a.jpg", True), 2: ("sub/c.jpg", True)}


def test_a_file_that_overwrites_another_and_one_that_takes_its_place(root, out):
    (root / "a.jpg").replace(root / "b.jpg")
    write_tree(root, {"a.jpg": jpeg(9)})
    assert add(root, out) == Added(read=3, same=1, moved=1, embedded=1)
    assert live(out) == {"b.jpg": 0, "sub/c.jpg": 2, "a.jpg": 3}


def test_a_copy_is_new_and_of_two_copies_the_one_of_the_name_moved(root, out):
    write_tree(root, {"copy.jpg": jpeg(1)})
    assert add(root, out) == Added(read=4, same=3, embedded=1)
    (root / "a.jpg").unlink()
    (root / "copy.jpg").unlink()
    write_tree(root, {"q/copy.jpg": jpeg(1), "q/a.jpg": jpeg(1)})
    assert add(root, out, no_model) == Added(read=4, same=2, moved=2)
    assert (live(out)["q/a.jpg"], live(out)["q/copy.jpg"]) == (0, 3)


def test_a_file_that_was_only_touched_stays(root, out):
    os.utime(root / "a.jpg")
    write_tree(root, {"copy.jpg": jpeg(1)})
    assert add(root, out) == Added(read=4, same=3, embedded=1)


def test_what_was_removed_stays_removed_where_it_moved_and_comes_back_there(root, out):
    with open_writer(out) as writer:
        writer.remove([0])
    (root / "a.jpg").rename(root / "z.jpg")
    assert add(root, out, no_model) == Added(read=3, same=2, removed=1)
    assert restore(out).ids == (0,)
    assert places(out)[0] == ("z.jpg", True)


def test_a_key_of_another_input_is_not_taken(root, out, tmp_path):
    other = write_tree(tmp_path / "other", {"o.jpg": jpeg(7)})
    add(other, out)
    (other / "o.jpg").rename(other / "a.jpg")
    assert add(other, out) == Added(read=1, skipped=1)
    assert live(out)["o.jpg"] == 3


def test_only_files_of_a_fitting_size_are_read(root, out, monkeypatch):
    from clipsieve.inference import moves

    read = []
    monkeypatch.setattr(moves, "_digest", lambda path: read.append(path))
    write_tree(root, {"new.jpg": jpeg(9)})
    assert add(root, out).embedded == 1
    assert read == []  # nothing is gone, so that nothing can have moved


def test_any_renaming_keeps_ids(tmp_path):
    names = [f"{folder}{name}.jpg" for folder, name in itertools.product(["", "s/", "t/u/"], "abc")]
    root = write_tree(tmp_path / "in", {name: jpeg(i) for i, name in enumerate(names[:6])})
    out = tmp_path / "out"
    embed_collection(open_source(root), FakeEmbedder(), out, shard_size=4, batch_size=2)
    contents = {id: (root / key).read_bytes() for key, id in live(out).items()}
    draw = random.Random(0)
    for step in range(8):
        now = draw.sample(names, 6)
        here = dict(zip(now, contents.values(), strict=True))
        for path in root.rglob("*.jpg"):
            path.unlink()
        write_tree(root, here)
        for path in root.rglob("*.jpg"):
            os.utime(path, (step, step))
        assert add(root, out, no_model).read == 6
        assert {id: (root / key).read_bytes() for key, id in live(out).items()} == contents


def test_a_move_that_was_not_committed_leaves_the_collection_as_it_was(root, out, tmp_path, monkeypatch):
    from clipsieve import writer

    before = read_manifest(out)
    moved = root.rename(tmp_path / "new")

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(writer, "commit", dies)
        with pytest.raises(KeyboardInterrupt):
            add(moved, out, no_model)
    assert read_manifest(out) == before
    assert list(verify(out, before)) == []
    assert add(moved, out, no_model).moved == 3


def test_restore_undoes_one_removal_after_the_other_until_compact(root, out):
    from clipsieve.index.compact import compact

    with open_collection(out) as opened:
        opened.remove([0])
        opened.remove([1, 2], gone=True)
        assert opened.restore().ids == (1, 2)
        assert opened.restore().ids == (0,)
        assert opened.count == 3
        with pytest.raises(InputError, match="Nothing is removed"):
            opened.restore()
        with pytest.raises(InputError, match=r"Item 1 of .* is not removed"):
            opened.restore([1])
        with pytest.raises(NotFound, match="no item 9"):
            opened.restore([9])
        opened.remove([0, 1])
        assert opened.restore([1]).ids == (1,)
    assert read_removed(out, read_manifest(out)).tolist() == [0]
    compact(out)
    for ids in (None, [0]):
        with pytest.raises(InputError, match="dropped by `clipsieve compact`, which is final"):
            restore(out, ids)


def test_restore_leaves_out_what_has_a_successor(root, out):
    with open_writer(out) as writer:
        writer.remove([0, 1])
    write_tree(root, {"a.jpg": jpeg(50)})
    assert add(root, out).embedded == 1
    done = restore(out)
    assert (done.ids, done.taken) == ((1,), ((0, "a.jpg", 3),))


def test_a_folder_without_restored_items_can_be_read_by_older_versions(out):
    assert read_manifest(out).format_version == 1
    with open_writer(out) as writer:
        writer.remove([0])
        assert writer.manifest.format_version == 1
        writer.restore([0])
        assert writer.manifest.format_version == 2


def test_keys_of_older_versions_with_backslashes_are_known(tmp_path):
    root = write_tree(tmp_path / "in", {"a\\b.jpg": jpeg(1)})
    out = tmp_path / "out"
    embed_collection(open_source(root), FakeEmbedder(), out)
    with open_writer(out) as writer:
        writer.move({0: Place("a\\b.jpg", f"{root}/a\\b.jpg", (root / "a\\b.jpg").stat().st_mtime)})
    assert read_metadata(out, read_manifest(out).shards[0])["key"].to_pylist() == ["a\\b.jpg"]
    assert add(root, out, no_model) == Added(read=1, same=1)
    assert places(out) == {0: ("a\\b.jpg", True)}


@pytest.fixture(params=["tar", "table", "table with keys"])
def pack(tmp_path, request):
    """A folder with one tar or table of three images."""
    folder = tmp_path / "packs"
    folder.mkdir()
    if request.param == "tar":
        write_tar(folder / "p.tar", {f"{i}.jpg": jpeg(i) for i in range(3)})
    else:
        keys = {"key": ["x", "y", "z"]} if request.param == "table with keys" else {}
        pq.write_table(pa.table({"image": [jpeg(i) for i in range(3)], **keys}), folder / "p.parquet")
    out = tmp_path / "out"
    embed_collection(open_source(folder), FakeEmbedder(), out, batch_size=1, shard_size=2)
    return folder, out


def test_images_of_a_tar_or_table_whose_folder_was_renamed_are_read_again(pack, tmp_path):
    folder, out = pack
    before = {id: key for id, (key, _) in places(out).items()}
    moved = folder.rename(tmp_path / "elsewhere")
    assert add(moved, out, no_model).embedded == 0
    assert places(out) == {id: (key, True) for id, key in before.items()}
    assert list(verify(out, read_manifest(out))) == []
    assert add(moved, out, no_model) == Added(read=3, same=3)


def test_images_follow_their_renamed_tar_or_table(pack):
    folder, out = pack
    (before,) = folder.iterdir()
    before.rename(before.with_stem("q"))
    done = add(folder, out, no_model)
    assert (done.embedded, done.moved + done.same) == (0, 3)
    assert [readable for _, readable in places(out).values()] == [True] * 3


def test_images_of_an_unpacked_tar_follow_it_unless_the_tar_is_still_there(tmp_path):
    tar, out = tmp_path / "p.tar", tmp_path / "out"
    write_tar(tar, {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    embed_collection(open_source(tar), FakeEmbedder(), out)
    with open_writer(out) as writer:
        writer.remove([1])
    one = write_tree(tmp_path / "one", {"a.jpg": jpeg(1)})
    assert add(one, out).embedded == 1  # a copy, for the tar is there
    tar.unlink()
    unpacked = write_tree(tmp_path / "unpacked", {"x/a.jpg": jpeg(1), "x/b.jpg": jpeg(2)})
    assert add(unpacked, out, no_model) == Added(read=2, moved=1, removed=1)
    assert places(out)[0] == ("x/a.jpg", True)
    assert read_removed(out, read_manifest(out)).tolist() == [1]
    with open_collection(out) as opened:
        assert (opened.missing().gone.tolist(), opened.missing().within) == ([], 0)
