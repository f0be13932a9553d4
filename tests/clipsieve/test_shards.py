"""Reading back what the writer wrote, and refusing what somebody damaged."""

import dataclasses

import numpy as np
import pytest

from clipsieve import shards
from clipsieve.errors import CollectionDamaged, CollectionMissing, NotFound
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, ModelId, Skipped
from clipsieve.writer import open_writer

MODEL = ModelId("mini", "abc", "224")


def embeddings(n, d=8, seed=0):
    x = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Embeddings(x, tuple(f"{seed}-{i}.jpg" for i in range(n)), MODEL)


@pytest.fixture
def folder(tmp_path):
    """Shards of 3 rows with captions, of none with a skip, and of 2 rows without captions."""
    with open_writer(tmp_path, Manifest(MODEL, 8)) as writer:
        writer.append(
            embeddings(3),
            texts=embeddings(3),
            captions=["a bus", None, "  "],
            image_paths=["a.jpg", None, "c.jpg"],
            columns={"width": [1, 2, 3]},
        )
        writer.append(embeddings(0), skipped=[Skipped("bad.jpg", "It is empty.")])
        writer.append(embeddings(2, seed=1), columns={"url": ["u", None]})
    return tmp_path


def test_vectors_come_back_as_float16_memory_maps(folder):
    captioned, _, plain = shards.open_manifest(folder).shards
    for shard, seed in ((captioned, 0), (plain, 1)):
        array = shards.open_array(folder, shard)
        assert isinstance(array, np.memmap)
        assert not array.flags.writeable
        np.testing.assert_array_equal(array, embeddings(shard.rows, seed=seed).vectors.astype(np.float16))
    assert shards.open_array(folder, captioned, "text_emb").shape == (3, 8)
    with pytest.raises(NotFound, match=r"Shard 2 of .* has no text_emb"):
        shards.open_array(folder, plain, "text_emb")


def test_metadata_rows_are_the_items(folder):
    captioned, empty, plain = shards.open_manifest(folder).shards
    assert shards.read_metadata(folder, captioned).to_pylist()[1] == {
        "id": 1,
        "key": "0-1.jpg",
        "image_path": None,
        "caption": None,
        "has_caption": False,
        "width": 2,
    }
    assert shards.read_metadata(folder, plain, ["url", "width", "id"]).to_pydict() == {"url": ["u", None], "id": [3, 4]}
    assert shards.read_metadata(folder, empty, ["id", "key"]).to_pydict() == {"id": [], "key": []}
    assert shards.read_caption_mask(folder, captioned).tolist() == [True, False, False]


def test_ids(folder):
    manifest = shards.open_manifest(folder)
    assert [shards.read_ids(folder, s).tolist() for s in manifest.shards] == [[0, 1, 2], [], [3, 4]]
    # as after compaction: two rows left of ids 0..2
    gaps = dataclasses.replace(manifest.shards[0], last_id=9)
    assert shards.read_ids(folder, gaps).tolist() == [0, 1, 2]


def test_skipped(folder):
    found = [shards.read_skipped(folder, s) for s in shards.open_manifest(folder).shards]
    assert found == [[], [Skipped("bad.jpg", "It is empty.")], []]


def test_removed_is_empty_at_first(folder):
    removed = shards.read_removed(folder, shards.open_manifest(folder))
    assert removed.dtype == np.int64
    assert removed.shape == (0,)


def test_no_collection(tmp_path):
    for nothing in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CollectionMissing, match="clipsieve inference"):
            shards.open_manifest(nothing)


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_delete(path):
    path.unlink()


@pytest.mark.parametrize("damage", [damage_cut, damage_delete])
def test_a_damaged_file_does_not_open(folder, damage):
    shard = shards.open_manifest(folder).shards[0]
    for role, read in (("img_emb", shards.open_array), ("metadata", shards.read_metadata)):
        damage(folder / shard.files[role].path)
        with pytest.raises(CollectionDamaged, match=f"{role}_000000.*clipsieve check"):
            read(folder, shard)


def test_rows_that_the_manifest_does_not_count(folder):
    shard = dataclasses.replace(shards.open_manifest(folder).shards[0], rows=4)
    for read in (shards.open_array, shards.read_metadata):
        with pytest.raises(CollectionDamaged, match="manifest counts 4"):
            read(folder, shard)
