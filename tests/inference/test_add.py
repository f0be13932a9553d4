"""What is new or changed comes in, once; what is not is not even read."""

import io
import os
import tarfile

import pytest

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.inference.add import Added, add_to_collection
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.shards import open_manifest, read_metadata, read_removed, read_skipped
from clipsieve.whole import verify
from clipsieve.writer import open_writer
from tests.inference.pictures import jpeg, write_tree


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "in", {**{f"{i}.jpg": jpeg(i) for i in range(5)}, "bad.jpg": b"not an image"})


@pytest.fixture
def out(tmp_path, root):
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "out")
    return tmp_path / "out"


def no_model(name):
    raise AssertionError("The model was loaded for nothing.")


def add(source, out, load=lambda name: FakeEmbedder(), **options):
    source = source if hasattr(source, "items") else open_source(source)
    added = add_to_collection(source, load, out, **options)
    added.seconds = 0.0
    return added


def live(out):
    """key -> id of the items that count; a key that two items have fails."""
    manifest = open_manifest(out)
    gone = set(read_removed(out, manifest).tolist())
    found = {}
    for shard in manifest.shards:
        for row in read_metadata(out, shard).to_pylist() if shard.rows else []:
            if row["id"] not in gone:
                assert row["key"] not in found
                found[row["key"]] = row["id"]
    return found


def skips(out):
    return [(s.key, s.reason) for shard in open_manifest(out).shards for s in read_skipped(out, shard)]


def test_a_second_run_does_nothing_and_loads_no_model(root, out):
    before = (out / "clipsieve.json").read_bytes()
    assert add(root, out, no_model) == Added(read=6, same=6)
    assert (out / "clipsieve.json").read_bytes() == before


def test_what_is_new_or_changed_comes_in(root, out):
    old = live(out)
    write_tree(root, {"5.jpg": jpeg(5), "deep/6.jpg": jpeg(6), "2.jpg": jpeg(22), "worse.jpg": b"\xff\xd8"})
    assert add(root, out) == Added(read=9, same=5, embedded=3, changed=1, skipped=1)
    new = live(out)
    assert new == {**old, "5.jpg": 6, "deep/6.jpg": 7, "2.jpg": 5}
    assert read_removed(out, open_manifest(out)).tolist() == [old["2.jpg"]]
    assert sorted(key for key, _ in skips(out)) == ["bad.jpg", "worse.jpg"]
    assert verify(out, open_manifest(out)) == {}
    assert add(root, out, no_model) == Added(read=9, same=9)


def test_files_that_nobody_wrote_to_are_not_opened(root, out, monkeypatch):
    from clipsieve.inference import files

    read = []
    real = files._read

    def noted(entry):
        read.append(entry.name)
        return real(entry)

    monkeypatch.setattr(files, "_read", noted)
    os.utime(root / "3.jpg", (1, 1))
    add(root, out, no_model)
    assert sorted(read) == ["3.jpg", "bad.jpg"]  # touched, and one that has no row to compare with


def test_a_changed_image_that_cannot_be_read_leaves_the_old_one(root, out):
    old = live(out)
    write_tree(root, {"2.jpg": b"half a file"})
    assert add(root, out) == Added(read=6, same=5, skipped=1)
    assert live(out) == old
    assert add(root, out, no_model) == Added(read=6, same=6)
    write_tree(root, {"2.jpg": jpeg(22)})
    assert add(root, out).changed == 1


def test_what_somebody_removed_stays_removed_until_it_changes(root, out):
    with open_writer(out) as writer:
        writer.remove([live(out)["1.jpg"]])
    assert add(root, out, no_model) == Added(read=6, same=5, removed=1)
    write_tree(root, {"1.jpg": jpeg(11)})
    assert add(root, out) == Added(read=6, same=5, embedded=1)


def test_what_had_vanished_and_is_back_comes_in_again(root, out):
    with open_writer(out) as writer:
        writer.remove([live(out)["1.jpg"]], gone=True)
    assert add(root, out) == Added(read=6, same=5, embedded=1)
    assert live(out)["1.jpg"] == 5


def test_a_folder_that_was_moved_is_the_same(root, out, tmp_path):
    assert add(root.rename(tmp_path / "moved"), out, no_model) == Added(read=6, same=1, moved=5)


def test_another_folder_must_not_replace_items_of_its_keys(out, tmp_path):
    old = live(out)
    other = write_tree(tmp_path / "other", {"0.jpg": jpeg(0), "1.jpg": jpeg(100), "new.jpg": jpeg(101)})
    assert add(other, out) == Added(read=3, same=1, embedded=1, skipped=1)
    assert live(out) == {**old, "new.jpg": 5}
    assert "that of another item, read from" in skips(out)[-1][1]
    assert add(other, out, no_model) == Added(read=3, same=3)


def write_tar(path, images):
    with tarfile.open(path, "w") as tar:
        for name, data in images.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def test_members_of_a_tar(tmp_path):
    tar, out = tmp_path / "a.tar", tmp_path / "out"
    write_tar(tar, {"x.jpg": jpeg(1), "y.jpg": jpeg(2)})
    embed_collection(open_source(tar), FakeEmbedder(), out)
    write_tar(tar, {"y.jpg": jpeg(3), "x.jpg": jpeg(1), "z.jpg": jpeg(4), "z.JPG": jpeg(5)})
    assert add(tar, out).changed == 1
    assert live(out) == {"a.tar/x": 0, "a.tar/y": 2, "a.tar/z": 3}
    assert add(tar, out, no_model).embedded == 0


def test_what_was_added_is_not_read_again_by_inference(root, out, tmp_path):
    write_tree(root, {"5.jpg": jpeg(5)})
    add(root, out)
    with pytest.raises(InputError, match="clipsieve add"):
        embed_collection(open_source(root), FakeEmbedder(), out)


def test_stopped_it_goes_on_with_what_is_left(root, out):
    class Interrupted(FakeEmbedder):
        batches = 0

        def embed_tensors(self, batch):
            self.batches += len(batch) == 2
            if self.batches == 3:
                raise KeyboardInterrupt
            return super().embed_tensors(batch)

    write_tree(root, {f"new{i}.jpg": jpeg(50 + i) for i in range(6)})
    with pytest.raises(KeyboardInterrupt):
        add(root, out, lambda name: Interrupted(), batch_size=2)
    assert add(root, out) == Added(read=12, same=10, embedded=2)
    assert len(live(out)) == 11


def test_a_shard_is_never_larger_than_asked_whatever_the_batch(root, out):
    write_tree(root, {f"new{i}.jpg": jpeg(50 + i) for i in range(7)})
    add(root, out, batch_size=256, shard_size=3)
    assert [s.rows for s in open_manifest(out).shards] == [5, 3, 3, 1]


def test_refusals(root, out, tmp_path):
    write_tree(root, {"5.jpg": jpeg(5)})
    with pytest.raises(ModelMismatch):
        add(root, out, lambda name: FakeEmbedder(name="other"))
    with pytest.raises(InputError, match="batch_size 0"):
        add(root, out, batch_size=0)


def test_progress_counts_what_is_passed_over(root, out):
    calls = []
    write_tree(root, {"5.jpg": jpeg(5)})
    add(root, out, progress=lambda *given: calls.append(given))
    assert calls[-1] == (7, 7, 0)
