"""Detection over stored regions is detection over the regions themselves, whatever the blocks."""

import numpy as np
import pytest

from clipsieve.index import detecting
from clipsieve.index.collection import open_collection
from clipsieve.index.suppress import detect
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.types import ClassSet, MetaClass
from tests.inference.pictures import jpeg, write_tree

SEER = FakeDetector(32)


@pytest.fixture
def photos(tmp_path):
    write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i) for i in range(9)})
    source = open_source(tmp_path / "in")
    embed_collection(source, FakeEmbedder(), tmp_path / "c", finder=Finder(SEER, None), shard_size=5, batch_size=5)
    with open_collection(tmp_path / "c") as collection:
        yield collection


def test_blocks_change_nothing(photos, monkeypatch):
    classes = ClassSet([MetaClass("one", ["a", "b"], ["c"], 0.3), MetaClass("two", ["d"], ["e"])])
    compiled = detecting.compile_set(classes, SEER, nms=0.0, mode="class-wise", threshold=0.25)
    photos.remove([3])
    everything = photos.regions.of([i for i in range(9) if i != 3])
    kept = detect(compiled, everything)
    for block in (1, 2, 128):
        monkeypatch.setattr(detecting, "BLOCK_IMAGES", block)
        found = list(detecting.walk(photos.regions, compiled))
        assert [one.id for one in found] == [0, 1, 2, 4, 5, 6, 7, 8]
        assert len(kept.region) > 4
        np.testing.assert_array_equal(np.concatenate([one.boxes for one in found]), everything.boxes[kept.region])
        np.testing.assert_array_equal(np.concatenate([one.label for one in found]), kept.label)
        np.testing.assert_array_equal(np.concatenate([one.score for one in found]), kept.score)
        owners = np.repeat([one.id for one in found], [len(one.label) for one in found])
        np.testing.assert_array_equal(owners, everything.item[kept.region])
    some = list(detecting.walk(photos.regions, compiled, np.array([7, 0])))
    assert [one.id for one in some] == [0, 7]
    np.testing.assert_array_equal(some[1].boxes, found[6].boxes)
