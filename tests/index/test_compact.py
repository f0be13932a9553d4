"""What compacting keeps, drops and joins."""

import numpy as np
import pytest

from clipsieve import shards
from clipsieve.errors import CollectionChanged, NotFound
from clipsieve.index.build import build_indices
from clipsieve.index.check import check
from clipsieve.index.compact import Compacted, compact, group_shards
from clipsieve.inference.add import add_to_collection
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import File, Shard
from clipsieve.opening import open_collection
from clipsieve.skips import current_skips
from clipsieve.stored_regions import read_regions, read_table
from clipsieve.types import MetaClass
from clipsieve.whole import verify
from tests.inference.pictures import jpeg, write_tree


@pytest.fixture
def root(tmp_path):
    return write_tree(tmp_path / "in", {**{f"{i:02}.jpg": jpeg(i) for i in range(20)}, "bad.jpg": b"?"})


@pytest.fixture
def out(tmp_path, root):
    for i in (3, 4, 12):
        (root / f"{i:02}.txt").write_text(f"number {i}")
    embed_collection(open_source(root), FakeEmbedder(), tmp_path / "c", batch_size=3, shard_size=3, thumbs=True)
    return tmp_path / "c"


def add(root, out):
    return add_to_collection(open_source(root), lambda name: FakeEmbedder(), out)


def contents(out):
    """Every live row by id, with its vectors and thumbnail."""
    manifest = shards.open_manifest(out)
    gone = shards.read_removed(out, manifest)
    found = {}
    for shard in (s for s in manifest.shards if s.rows):
        rows = shards.read_metadata(out, shard).to_pylist()
        thumbs = shards.read_thumbs(out, shard)["thumb"].to_pylist()
        texts = shards.open_array(out, shard, "text_emb") if "text_emb" in shard.files else [None] * shard.rows
        for row, vector, text, thumb in zip(rows, shards.open_array(out, shard), texts, thumbs, strict=True):
            if row["id"] not in gone:
                text = None if not row["has_caption"] else text.tobytes()
                found[row["id"]] = ({k: v for k, v in row.items() if v is not None}, vector.tobytes(), text, thumb)
    return found


def answer(out):
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        result = photos.search(MetaClass("q", ["a text"], ["another"]), k=30)
        return [(hit.id, hit.key, hit.score, hit.margin) for hit in result.hits], photos.count, photos.info()["skipped"]


def test_items_answers_and_counts_stay_and_nothing_is_left_over(root, out):
    with open_collection(out) as photos:
        photos.remove([2, 5, 6, 7, 8])
    before, asked = contents(out), answer(out)
    sources = sorted(s.read for s in shards.open_manifest(out).sources)
    made = compact(out, shard_size=10)
    assert made.dropped == 5
    assert made.after < made.before
    assert contents(out) == before
    assert answer(out) == asked
    manifest = shards.open_manifest(out)
    assert manifest.rows == 15
    assert sorted(s.read for s in manifest.sources) == sources
    assert verify(out, manifest) == {}
    named = {file.path for shard in manifest.shards for file in shard.files.values()}
    assert {f"{p.parent.name}/{p.name}" for p in out.glob("*_emb/*")} == {n for n in named if "_emb/" in n}
    assert compact(out, shard_size=10) == Compacted(0, made.after, made.after)


def test_what_was_removed_stays_away_and_ids_are_not_given_again(root, out):
    with open_collection(out) as photos:
        photos.remove([2])
        photos.remove([5], gone=True)
    write_tree(root, {"10.jpg": jpeg(100)})
    added = add(root, out)
    assert (added.embedded, added.changed, added.removed) == (2, 1, 1)  # what had gone missing is back
    compact(out)
    added = add(root, out)
    assert (added.embedded, added.same) == (0, 21)
    write_tree(root, {"10.jpg": jpeg(10), "02.jpg": jpeg(99)})
    assert add(root, out).embedded == 2  # as it was before it was changed, and changed after it was removed
    assert max(contents(out)) == 23


def test_indices_cover_what_is_left(out):
    build_indices(out, factory="IVF2,Flat")
    with open_collection(out) as photos:
        photos.remove(range(0, 20, 2))
    asked = answer(out)
    compact(out)
    manifest = shards.open_manifest(out)
    assert {index.rows for index in manifest.indices if index.name == "image"} == {10}
    assert {n for index in manifest.indices for n in index.shards} <= {s.number for s in manifest.shards}
    assert answer(out) == asked
    with open_collection(out) as photos:
        assert photos.info()["indices"][0]["not_covered"] == 0


def test_a_shard_that_is_larger_than_asked_is_cut(root, out):
    before, answers = contents(out), answer(out)
    assert compact(out, shard_size=2).dropped == 0
    assert max(s.rows for s in shards.open_manifest(out).shards) == 2
    assert contents(out) == before
    assert answer(out) == answers
    assert compact(out, shard_size=2).before == compact(out, shard_size=2).after


def test_a_collection_of_nothing(out):
    build_indices(out)
    with open_collection(out) as photos:
        photos.remove(range(20))
    assert compact(out).dropped == 20
    with open_collection(out) as photos:
        assert photos.count == 0
    assert shards.open_manifest(out).indices == ()


def shard(number, rows, *roles):
    return Shard(number, rows, number * 100, number * 100 + rows - 1, {role: File(role, 1, "") for role in roles})


def test_neighbours_of_one_kind_are_joined():
    parts = [shard(0, 90, "img_emb"), *(shard(i, 20, "img_emb") for i in range(1, 6)), shard(6, 20, "text_emb")]
    parts += [shard(7, 0, "skipped")]
    grouped = group_shards(parts, {p.number: p.rows for p in parts}, 100)
    assert [[s.number for s in group] for group in grouped] == [[0], [1, 2, 3], [4, 5], [6], [7]]


def test_a_reader_keeps_what_it_opened(out):
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        photos.remove([2])
        asked = photos.search(MetaClass("q", ["a text"]), k=30).hits
        compact(out)
        assert photos.search(MetaClass("q", ["a text"]), k=30).hits == asked
        assert photos.refresh()
        assert photos.search(MetaClass("q", ["a text"]), k=30).hits == asked
        np.testing.assert_array_equal(photos.vectors([3]), photos.vectors([3]))


def test_what_a_reader_can_no_longer_be_told_is_said(root, out):
    """The reader opened it before something was removed, and has read neither captions, index nor thumbnails."""
    build_indices(out, factory="IVF2,Flat")
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        asked = {
            "hits": lambda: photos.search(MetaClass("q", ["a text"]), k=30).hits,
            "captions": lambda: photos.search(MetaClass("q", ["a text"]), modality="text").hits,
            "index": lambda: photos.search(MetaClass("q", ["a text"]), k=1).hits,
            "duplicates": lambda: photos.search(MetaClass("q", ["a text"]), dedup=True).hits,
            "filter": lambda: photos.select("width > 0").tolist(),
            "keys": lambda: photos.ids_of_keys(["03.jpg"]).tolist(),
            "rows": lambda: photos.items([2]),
            "thumbnails": lambda: photos.thumbnail(3),
        }
        with open_collection(out) as other:
            other.remove([2, 5])
        compact(out)
        with open_collection(out):  # brings the cache up to it
            pass
        for question in asked.values():
            with pytest.raises(CollectionChanged, match=f"{out} was compacted or indexed anew.*open it again"):
                question()
        assert photos.refresh()
        del asked["rows"]
        assert all(question() for question in asked.values())


def test_a_reader_is_not_told_what_was_added_since(root, out):
    with open_collection(out, embedder=FakeEmbedder()) as photos:
        before = photos.select("width > 0").tolist()
        write_tree(root, {"99.jpg": jpeg(99), "10.jpg": jpeg(100)})
        add(root, out)
        with open_collection(out) as other:  # brings the cache up to it
            assert other.ids_of_keys(["99.jpg", "10.jpg"]).tolist() == [21, 20]
            assert len(other.select("width > 0")) == len(before) + 1
        assert photos.select("width > 0").tolist() == before
        assert photos.ids_of_keys(["10.jpg"]).tolist() == [10]
        with pytest.raises(NotFound):
            photos.ids_of_keys(["99.jpg"])


def test_regions_stay_with_their_items(root, tmp_path):
    out, embedder = tmp_path / "r", FakeEmbedder()
    finder = Finder(FakeDetector(regions=3), embedder)
    embed_collection(open_source(root), embedder, out, batch_size=3, shard_size=3, finder=finder)

    def regions():
        manifest, found = shards.open_manifest(out), dict[int, list[object]]()
        for shard in (s for s in manifest.shards if s.rows):
            table, stored = read_table(out, shard), read_regions(out, shard)
            assert stored.crops is not None
            for i, row in enumerate(table.to_pylist()):
                found.setdefault(row["id"], []).append((row, stored.vectors[i].tobytes(), stored.crops[i].tobytes()))
        return found

    before = regions()
    with open_collection(out) as photos:
        photos.remove([2, 5, 6, 7, 8])
    compact(out, shard_size=10)
    assert regions() == {id: rows for id, rows in before.items() if id not in (2, 5, 6, 7, 8)}
    assert verify(out, shards.open_manifest(out)) == {}
    assert check(out).problems == ()


def test_shards_are_not_joined_beyond_what_their_regions_take():
    def shard(number, size):
        files = {"img_emb": File("", 1, "0"), "region_emb": File("", size, "0"), "regions": File("", 1, "0")}
        return Shard(number, 10, number * 10, number * 10 + 9, files)

    parts = [shard(i, size * 2**20) for i, size in enumerate([200, 200, 200, 600, 1])]
    groups = group_shards(parts, {s.number: 10 for s in parts}, 1000)
    assert [[s.number for s in group] for group in groups] == [[0, 1], [2], [3], [4]]


def test_an_image_that_changed_and_cannot_be_read_stays_listed(root, out):
    (root / "05.jpg").write_bytes(b"no image any more")
    add(root, out)
    with open_collection(out) as photos:
        photos.remove([4])  # so that the shard with its row, and not that with its skip, is written anew
    listed = {skip.key for some in current_skips(out, shards.open_manifest(out)).values() for skip in some}
    assert listed == {"bad.jpg", "05.jpg"}
    compact(out, shard_size=3)
    (*skips,) = [s for some in current_skips(out, shards.open_manifest(out)).values() for s in some]
    assert sorted(skip.key for skip in skips if skip.reason != shards.DISMISSED) == ["05.jpg", "bad.jpg"]
    assert verify(out, shards.open_manifest(out)) == {}
