import dataclasses
import os

import numpy as np
import pytest

from clipsieve.errors import CollectionReadOnly, InputError
from clipsieve.manifest import Manifest
from clipsieve.restoring import restore
from clipsieve.shards import open_array, open_manifest, read_removed
from clipsieve.twin import make_twin
from clipsieve.types import Embeddings, ModelId
from clipsieve.whole import verify
from clipsieve.writer import open_writer
from tests.clipsieve.test_stored_regions import DETECTION, made

MODEL = ModelId("test", "0", "none")


def add(folder, first, n=3):
    with open_writer(folder, Manifest(model=MODEL, dim=4)) as writer:
        rows = np.eye(4, dtype=np.float32)[np.arange(n) % 4]
        writer.append(Embeddings(rows, tuple(f"{first + i}.jpg" for i in range(n)), MODEL))


def test_a_twin_holds_the_same_and_gets_what_is_added(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    add(one, 0)
    make_twin(one, two)
    assert open_manifest(two).shards == open_manifest(one).shards
    shard = open_manifest(two).shards[0]
    assert (open_array(two, shard) == open_array(one, shard)).all()
    add(one, 3)
    with open_writer(one) as writer:
        writer.remove([1])
    make_twin(one, two)
    assert open_manifest(two).rows == 6
    assert read_removed(two, open_manifest(two)).tolist() == [1]


def test_what_is_restored_comes_back_in_the_twin_and_what_it_removed_itself_does_not(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    add(one, 0, n=4)
    with open_writer(one) as writer:
        writer.remove([1, 2])
    make_twin(one, two)
    with open_writer(two) as writer:
        writer.remove([3])
    restore(one, [2])
    make_twin(one, two)
    assert read_removed(two, open_manifest(two)).tolist() == [1, 3]
    assert verify(two, open_manifest(two)) == {}


def test_a_twin_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    add(tmp_path / "one", 0)
    make_twin(tmp_path / "one", tmp_path / "two")
    assert open_array(tmp_path / "two", open_manifest(tmp_path / "two").shards[0]).shape == (3, 4)


def test_what_cannot_be_a_twin_is_refused(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    add(one, 0)
    add(two, 7, n=2)
    with pytest.raises(InputError, match="holds other vectors"):
        make_twin(one, two)
    with pytest.raises(InputError, match="is the collection itself"):
        make_twin(one, one)
    foreign = tmp_path / "foreign" / "img_emb"
    foreign.mkdir(parents=True)
    np.save(foreign / "img_emb_0.npy", np.eye(4, dtype=np.float16))
    with pytest.raises(CollectionReadOnly, match="not made by clipsieve"):
        make_twin(foreign.parent, tmp_path / "x")


def test_a_twin_gets_regions_that_were_found_later_and_anew(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    add(one, 0)
    make_twin(one, two)
    for seed in (1, 2):
        with open_writer(one) as writer:
            manifest = dataclasses.replace(writer.manifest, detection=DETECTION)
            files = {role: file for role, file in manifest.shards[0].files.items() if "region" not in role}
            writer.commit(dataclasses.replace(manifest, shards=(dataclasses.replace(manifest.shards[0], files=files),)))
            writer.add_regions(0, made(3, [1, 2, 0], seed))
        make_twin(one, two)
        assert open_manifest(two).shards == open_manifest(one).shards
        assert not verify(two, open_manifest(two))
