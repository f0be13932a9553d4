"""Files of a collection that somebody writes to while it is open: they are not answered from."""

import os
import shutil

import numpy as np
import pytest

from clipsieve import whole
from clipsieve.errors import CollectionChanged, CollectionDamaged
from clipsieve.index.collection import open_collection
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, Example, MetaClass, ModelId
from clipsieve.writer import open_writer

MODEL = ModelId("test", "00", "none")
VECTORS = np.random.default_rng(0).normal(size=(300, 8)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "c"
    with open_writer(path, Manifest(MODEL, 8)) as writer:
        writer.append(Embeddings(VECTORS, tuple(f"k{i}" for i in range(300)), MODEL))
    return path


@pytest.fixture
def bare_vectors(tmp_path):
    """clip-retrieval's embeddings, which have no manifest."""
    (tmp_path / "peer" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "peer" / "img_emb" / "img_emb_0.npy", VECTORS)
    return tmp_path / "peer"


def vectors_of(folder):
    return next((folder / "img_emb").glob("*.npy"))


def ask(collection, item=7):
    return collection.search(MetaClass("x", [Example(image=item)]), k=3).hits[0].key


def overwrite(path, flip=True):
    """In place, and with a time of last change of its own."""
    data = bytearray(path.read_bytes())
    if flip:
        data[-200:] = bytes(200)
    with path.open("r+b") as file:
        file.write(data)
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


def counted(monkeypatch):
    """The files whose checksums are compared from now on, in a list that grows."""
    compared, compare = [], whole.problem_of

    def counting(folder, file):
        compared.append(file)
        return compare(folder, file)

    monkeypatch.setattr(whole, "problem_of", counting)
    return compared


@pytest.mark.parametrize("question", ["search", "vectors", "filter", "nearest", "keys"])
def test_vectors_overwritten_in_place(folder, question):
    asked = {
        "search": ask,
        "vectors": lambda c: c.vectors([7]),
        "filter": lambda c: list(c.filter(MetaClass("x", [Example(image=7)], threshold=0.5))),
        "nearest": lambda c: c.nearest(VECTORS[3]),
        "keys": lambda c: c.keys([3]),
    }[question]
    path = vectors_of(folder)
    data, times = path.read_bytes(), path.stat()
    with open_collection(folder) as collection:
        asked(collection)
        overwrite(path)
        for _ in range(2):
            with pytest.raises(CollectionDamaged, match=r"img_emb_000000\.npy has changed"):
                asked(collection)
        path.write_bytes(data)  # restored in place
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        asked(collection)


def test_a_file_cut_short_is_no_bus_error(folder):
    with open_collection(folder) as collection:
        ask(collection)
        os.truncate(vectors_of(folder), 200)
        with pytest.raises(CollectionDamaged, match="has changed"):
            collection.vectors([299])


def test_a_touched_file_is_compared_once_and_goes_on(folder, monkeypatch):
    with open_collection(folder) as collection:
        assert ask(collection) == "k7"
        overwrite(vectors_of(folder), flip=False)
        compared = counted(monkeypatch)
        assert [ask(collection), ask(collection, 8)] == ["k7", "k8"]
        assert len(compared) == 1


def test_a_damaged_file_is_compared_once(folder, monkeypatch):
    with open_collection(folder) as collection:
        ask(collection)
        overwrite(vectors_of(folder))
        compared = counted(monkeypatch)
        for _ in range(3):
            with pytest.raises(CollectionDamaged):
                ask(collection)
        assert len(compared) == 1


def test_a_whole_copy_put_in_the_place_of_a_damaged_file_is_opened_again(folder, tmp_path):
    """The map that was open is still of the damaged one."""
    path = vectors_of(folder)
    shutil.copy2(path, tmp_path / "copy.npy")
    with open_collection(folder) as collection:
        ask(collection)
        overwrite(path)
        (tmp_path / "copy.npy").replace(path)
        np.testing.assert_allclose(collection.vectors([299])[0], VECTORS[299], atol=1e-3)


def test_a_deleted_file_is_still_open(folder):
    with open_collection(folder) as collection:
        ask(collection)
        vectors_of(folder).unlink()
        assert ask(collection) == "k7"


def test_what_clip_retrieval_writes_anew_is_read_anew(bare_vectors):
    path = vectors_of(bare_vectors)
    with open_collection(bare_vectors) as collection:
        np.testing.assert_allclose(collection.vectors([7])[0], VECTORS[7], atol=1e-6)
        np.save(path, VECTORS[::-1])
        later = path.stat().st_mtime_ns + 1_000_000_000
        os.utime(path, ns=(later, later))
        with pytest.raises(CollectionChanged, match=r"img_emb_0\.npy was changed by another program .* open it again"):
            collection.vectors([7])
        assert collection.refresh()  # which the service does before each request
        np.testing.assert_allclose(collection.vectors([7])[0], VECTORS[292], atol=1e-6)
        assert not collection.refresh()
