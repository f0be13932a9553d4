"""Damage is found and named, and what can be mended is."""

import dataclasses
import os
import shutil

import numpy as np
import pytest

from clipsieve.errors import CollectionDamaged
from clipsieve.index.build import build_indices
from clipsieve.index.check import check, repair
from clipsieve.inference.add import add_to_collection
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import read_manifest
from clipsieve.marks import Mark, Marks
from clipsieve.opening import open_collection
from clipsieve.shards import read_removed, read_thumbs
from clipsieve.stored_regions import read_regions
from clipsieve.types import MetaClass
from clipsieve.writer import open_writer
from tests.inference.pictures import jpeg, write_tree


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    images = {f"{i:02}.jpg": jpeg(i) for i in range(20)}
    captions = {f"{i:02}.txt": f"number {i}".encode() for i in range(20)}
    return write_tree(tmp_path_factory.mktemp("in"), {**images, **captions, "bad.jpg": b"?"})


@pytest.fixture(scope="module")
def made(tmp_path_factory, root):
    folder = tmp_path_factory.mktemp("made") / "c"
    embed_collection(open_source(root), FakeEmbedder(), folder, batch_size=5, shard_size=7, thumbs=True)
    build_indices(folder, factory="IVF2,Flat")
    with open_collection(folder) as photos:
        photos.remove([4])
    return folder


@pytest.fixture
def out(tmp_path, made):
    return shutil.copytree(made, tmp_path / "c")


def named(out):
    manifest = read_manifest(out)
    files = [*(s.files for s in manifest.shards), *(i.files for i in manifest.indices), {"removed": manifest.removed}]
    return sorted((role, file.path) for named in files for role, file in named.items())


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def test_a_whole_collection(out):
    calls = []
    found = check(out, lambda *given: calls.append(given))
    assert found.problems == ()
    assert (found.files, found.rows) == (len(named(out)), 20)
    assert calls[-1] == (found.bytes, found.bytes)
    assert repair(out) == []


@pytest.mark.parametrize("how", ["cut", *(pytest.param(how, marks=pytest.mark.slow) for how in ("flipped", "gone"))])
@pytest.mark.parametrize("role", ["img_emb", "text_emb", "metadata", "thumbs", "skipped", "index", "groups"])
def test_each_kind_of_file_is_named_and_mended(out, root, role, how):
    path = out / next(path for r, path in named(out) if r == role)
    before = read_manifest(out)
    if how == "flipped":
        flip(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    (problem,) = check(out).problems
    assert path.relative_to(out).as_posix() in problem
    assert repair(out)
    assert check(out).problems == ()
    lost = len(before.shards) - len(read_manifest(out).shards)
    assert lost == (role in ("img_emb", "text_emb", "metadata"))
    if lost and how != "gone":
        assert (out / "aside" / path.relative_to(out)).exists()
    add_to_collection(open_source(root), lambda name: FakeEmbedder(), out)
    build_indices(out)
    with open_collection(out) as photos:
        keys = photos.keys(photos.select("id >= 0"))
    # A shard that was set aside takes with it that one of its items had been removed.
    assert set(keys) | {"04.jpg"} == {f"{i:02}.jpg" for i in range(20)}
    assert len(keys) == len(set(keys))


def test_damaged_marks_are_named_and_left_as_they_are(out):
    marks = Marks(out)
    marks.add([Mark(1, "bus", "right"), Mark(2, "bus", "wrong")])
    assert check(out).problems == ()
    flip(marks.path)
    damaged = marks.path.read_bytes()
    (problem,) = check(out).problems
    assert "marks.jsonl line" in problem
    repair(out)
    assert marks.path.read_bytes() == damaged


def test_rows_that_are_no_unit_vectors(out):
    manifest = read_manifest(out)
    shard = manifest.shards[0]
    path = out / shard.files["img_emb"].path
    array = np.load(path)
    array[2] = np.nan
    np.save(path, array)
    assert "has changed" in check(out).problems[0]
    with open_writer(out, damaged=True) as writer:  # as if it had been written so
        changed = dataclasses.replace(shard, files={**shard.files, "img_emb": writer.file(path)})
        writer.commit(dataclasses.replace(manifest, shards=(changed, *manifest.shards[1:])))
    assert check(out).problems == ("Shard 0 has 1 rows of img_emb whose length is not 1.",)


def test_a_damaged_manifest_or_list_of_removed_items_is_never_answered_from(out):
    text = (out / "removed.jsonl").read_text()
    (out / "removed.jsonl").write_text(text.replace("{", "[", 1))
    assert "removed.jsonl has changed" in check(out).problems[0]
    with pytest.raises(CollectionDamaged, match="removed"):
        open_collection(out)
    (out / "removed.jsonl").write_text(text)
    flip(out / "clipsieve.json")
    with pytest.raises(CollectionDamaged, match="clipsieve"):
        check(out)


def answers(out):
    """All that can be seen of a collection, in one value."""
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        hits = photos.search(MetaClass("q", ["a text"], ["another"]), k=30).hits
        ids = photos.select("height > 0 and key != ''")
        return hits, photos.items(ids), photos.info()["count"], [read_thumbs(out, s) for s in full_shards(out)]


def full_shards(out):
    return [shard for shard in read_manifest(out).shards if shard.rows]


def every_file(out):
    """One file of each kind, relative to the folder."""
    files = dict(named(out)) | {"manifest": "clipsieve.json", "cache": "cache.sqlite", "lock": "clipsieve.lock"}
    return sorted(files.items())


@pytest.mark.parametrize("kind", ["flipped", "cut"])
@pytest.mark.slow
def test_whatever_is_damaged_is_found_at_opening_or_made_again(out, kind):
    expected = answers(out)
    assert answers(out) == expected  # with a cache that was there
    rng = np.random.default_rng(0)
    for role, name in every_file(out):
        path = out / name
        status, data = path.stat(), path.read_bytes()
        for at in rng.integers(0, len(data), 5) if data else ():
            damaged = bytearray(data[:at]) if kind == "cut" else bytearray(data)
            if kind == "flipped":
                damaged[at] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            if role in ("cache", "lock"):
                assert answers(out) == expected
            else:
                with pytest.raises(CollectionDamaged, match=path.name):
                    answers(out)
        if role != "cache":
            path.write_bytes(data)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert answers(out) == expected
    assert check(out).problems == ()


@pytest.mark.parametrize("how", ["flipped", "cut"])
def test_what_can_be_read_of_a_damaged_list_of_removed_items_is_kept(out, how):
    with open_collection(out) as photos:
        photos.remove([7, 8])
        photos.remove([9], gone=True)
    path = out / "removed.jsonl"
    data = path.read_bytes()
    path.write_bytes(data.replace(b"[4]", b"[5]") if how == "flipped" else data[:-1])
    with pytest.raises(CollectionDamaged, match="--repair"):
        open_collection(out)
    (done,) = repair(out)
    assert "2 lines were kept" in done
    assert check(out).problems == ()
    assert read_removed(out, read_manifest(out)).tolist() == ([7, 8, 9] if how == "flipped" else [4, 7, 8])
    assert (out / "aside" / "removed.jsonl").exists()
    with open_writer(out) as writer:
        writer.remove([4])
    assert check(out).problems == ()


def test_a_lost_cache_loses_nothing(out):
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        hits = photos.search(MetaClass("q", ["a text"]), k=5).hits
    (out / "cache.sqlite").unlink()
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        assert photos.search(MetaClass("q", ["a text"]), k=5).hits == hits


@pytest.fixture
def with_regions(tmp_path, root):
    embedder = FakeEmbedder()
    finder = Finder(FakeDetector(), embedder)
    embed_collection(open_source(root), embedder, tmp_path / "r", batch_size=5, shard_size=10, finder=finder)
    return tmp_path / "r"


@pytest.mark.parametrize("role", ["region_emb", "regions", "crop_emb"])
def test_damaged_regions_go_and_their_images_stay(with_regions, role):
    shard = read_manifest(with_regions).shards[1]
    flip(with_regions / shard.files[role].path)
    assert check(with_regions).problems == (
        f"{shard.files[role].path} has changed: its checksum is not the manifest's.",
    )
    assert repair(with_regions) == [
        "Shard 1 goes without its regions; `clipsieve regions` finds regions again.",
    ]
    assert check(with_regions).problems == ()
    after = read_manifest(with_regions)
    assert [("regions" in s.files, s.rows) for s in after.shards] == [(True, 10), (False, 10), (False, 0)]
    assert not (with_regions / shard.files["region_emb"].path).exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r, ids: (dataclasses.replace(r, vectors=r.vectors * 2), ids),
            "rows of region_emb whose length is not 1",
        ),
        (lambda r, ids: (dataclasses.replace(r, crops=r.crops * 2), ids), "crop_emb whose length is not 1"),
        (lambda r, ids: (dataclasses.replace(r, boxes=r.boxes + 9), ids), "whose boxes or numbers cannot be"),
        (lambda r, ids: (dataclasses.replace(r, numbers=r.numbers * np.nan), ids), "whose boxes or numbers cannot be"),
        (lambda r, ids: (r, ids + 100), "has regions that cannot be read"),
    ],
)
def test_regions_that_contradict_their_items(with_regions, monkeypatch, change, words):
    """Written like this, every checksum is right."""
    with open_writer(with_regions) as writer:
        manifest, (shard, *rest) = writer.manifest, writer.manifest.shards
        regions, ids = change(read_regions(with_regions, shard), np.arange(shard.rows))
        bare = dataclasses.replace(shard, files={r: f for r, f in shard.files.items() if r in ("img_emb", "metadata")})
        writer.commit(dataclasses.replace(manifest, shards=(bare, *rest)))
        monkeypatch.setattr("clipsieve.writer.read_ids", lambda *_: ids)
        writer.add_regions(0, regions)
    (problem,) = check(with_regions).problems
    assert words in problem
    assert repair(with_regions) == ["Shard 0 goes without its regions; `clipsieve regions` finds regions again."]
    assert check(with_regions).problems == ()
