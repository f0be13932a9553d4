import dataclasses

import numpy as np
import pytest

from clipsieve.errors import CollectionChanged, CollectionDamaged, InputError, NotFound
from clipsieve.manifest import Detection, Manifest, read_manifest
from clipsieve.shards import open_array
from clipsieve.stored_regions import StoredRegions, join, read_regions, read_table, store
from clipsieve.types import Embeddings, ModelId, Regions
from clipsieve.whole import verify
from clipsieve.writer import open_writer

MODEL, DETECTOR = ModelId("test", "0", "none"), ModelId("detector", "1", "none")
DETECTION = Detection(DETECTOR, 3, 5, False)
NEW = Manifest(model=MODEL, dim=4, detection=DETECTION)


def made(items, counts, seed=0, crops=False, unseen=()):
    """So many random regions of each item, as StoredRegions."""
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(items), counts)
    m = len(item)
    vectors, of_crops = (rng.standard_normal((m, d)).astype(np.float32) for d in (3, 4))
    corner = rng.random((m, 2)).astype(np.float32) / 2
    regions = Regions(
        vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
        np.concatenate([corner, corner + 0.25], axis=1),
        item,
        rng.random(m).astype(np.float32),
        rng.random(m).astype(np.float32),
        rng.random(m).astype(np.float32),
        DETECTOR,
    )
    return store(regions, items, of_crops / np.linalg.norm(of_crops, axis=1, keepdims=True) if crops else None, unseen)


def same(one, two):
    for field in dataclasses.fields(StoredRegions):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))


def append(writer, n, regions):
    rows, start = np.eye(4, dtype=np.float32)[np.arange(n) % 4], writer.manifest.next_id
    keys = tuple(f"{start + i}.jpg" for i in range(n))
    return writer.append(Embeddings(rows, keys, MODEL), regions=regions)


def test_regions_come_back_as_they_were_stored(tmp_path):
    first, second = made(3, [2, 0, 4]), made(2, [0, 0], unseen=[1])
    with open_writer(tmp_path, NEW) as writer:
        shards = [append(writer, 3, first), append(writer, 2, second)]
    manifest = read_manifest(tmp_path)
    assert manifest.detection == DETECTION
    assert manifest.shards == tuple(shards)
    assert set(shards[0].files) == {"img_emb", "metadata", "region_emb", "regions"}
    same(read_regions(tmp_path, shards[0]), first)
    same(read_regions(tmp_path, shards[1]), second)
    assert read_table(tmp_path, shards[0])["id"].to_pylist() == [0, 0, 2, 2, 2, 2]
    assert not verify(tmp_path, manifest)


def test_some_items_and_several_batches(tmp_path):
    parts = [made(3, [2, 0, 4], 1, unseen=[1]), made(0, [], 2), made(2, [1, 3], 3, unseen=[0, 1])]
    whole = join(parts)
    assert (whole.items, whole.unseen.tolist()) == (5, [1, 3, 4])
    assert whole.item.tolist() == [0, 0, 2, 2, 2, 2, 3, 4, 4, 4]
    same(whole.take(np.array([0, 1, 2])), parts[0])
    same(whole.take(np.array([3, 4])), parts[2])
    odd = whole.take(np.array([1, 4]))
    assert (odd.items, odd.item.tolist(), odd.unseen.tolist()) == (2, [1, 1, 1], [0, 1])


def test_a_shard_gets_what_it_lacks_and_what_it_has_stays(tmp_path):
    with open_writer(tmp_path, NEW) as writer:
        number = append(writer, 2, None).number
        writer.add_regions(number, made(2, [1, 2]))
        before = writer.manifest.shards[0]
        detection = dataclasses.replace(DETECTION, crops=True)
        writer.commit(dataclasses.replace(writer.manifest, detection=detection))
        writer.add_regions(number, made(2, [1, 2], 5, crops=True))
        after = writer.manifest.shards[0]
    assert {role: after.files[role] for role in before.files} == before.files
    same(dataclasses.replace(read_regions(tmp_path, after), crops=None), made(2, [1, 2]))
    np.testing.assert_array_equal(open_array(tmp_path, after, "crop_emb"), made(2, [1, 2], 5, crops=True).crops)
    assert not verify(tmp_path, read_manifest(tmp_path))


@pytest.mark.parametrize(
    ("detection", "regions", "words"),
    [
        (None, made(2, [1, 1]), "no detector yet"),
        (DETECTION, made(3, [1, 1, 1]), "Regions of 3 items were passed for 2"),
        (Detection(DETECTOR, 7, 5, False), made(2, [1, 1]), "3 dimensions, the collection's 7"),
        (Detection(DETECTOR, 3, 5, True), made(2, [1, 1]), "keeps vectors of crops"),
    ],
)
def test_regions_that_are_not_the_collections_are_refused(tmp_path, detection, regions, words):
    with open_writer(tmp_path, dataclasses.replace(NEW, detection=detection)) as writer:
        with pytest.raises(InputError, match=words):
            append(writer, 2, regions)
        assert not writer.manifest.shards


def test_items_that_do_not_ascend_are_refused():
    some = made(3, [2, 1, 0])
    with pytest.raises(InputError, match=r"StoredRegions\.item must ascend"):
        dataclasses.replace(some, item=some.item[::-1])
    with pytest.raises(InputError, match="columns of lengths"):
        dataclasses.replace(some, boxes=some.boxes[:1])


def test_files_that_are_gone_or_damaged_are_named(tmp_path):
    with open_writer(tmp_path, NEW) as writer:
        shard, without = append(writer, 2, made(2, [1, 2])), append(writer, 2, None)
    with pytest.raises(NotFound, match="has no regions"):
        read_table(tmp_path, without)
    path = tmp_path / shard.files["regions"].path
    path.write_bytes(b"PAR1")
    with pytest.raises(CollectionDamaged, match="not readable Parquet"):
        read_table(tmp_path, shard)
    path.unlink()
    with pytest.raises(CollectionDamaged, match="is missing"):
        read_table(tmp_path, shard)
    other = dataclasses.replace(
        shard, files={**shard.files, "regions": dataclasses.replace(shard.files["regions"], size=1)}
    )
    with pytest.raises(CollectionChanged):
        read_table(tmp_path, other)
