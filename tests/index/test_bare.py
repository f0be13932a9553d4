"""Index folders of clip-retrieval in every shape that its programs leave them in."""

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faiss.contrib.ondisk import merge_ondisk

from clipsieve.errors import CollectionDamaged
from clipsieve.importing import import_vectors
from clipsieve.index import bare
from clipsieve.index.collection import open_collection
from clipsieve.index.flat import FlatIndex
from clipsieve.index.peer_source import PeerSource
from clipsieve.index.renumbered import Renumbered
from clipsieve.index.rows import Rows
from clipsieve.types import Example, MetaClass
from tests.index.made import make_vectors

N, DIM = 400, 16
VECTORS = make_vectors(N, DIM)
NAMES = [f"{i}.jpg" for i in range(N)]


def trained(factory="IVF4,Flat"):
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    return index


def write_index(path, factory="IVF4,Flat"):
    index = trained(factory)
    index.add(VECTORS)
    path.parent.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(path))
    return index


def write_parquet(folder, names=NAMES):
    (folder / "metadata").mkdir(parents=True)
    for part, cut in (("0", slice(0, 150)), ("1", slice(150, None))):
        table = pa.table({"image_path": names[cut], "caption": names[cut]})
        pq.write_table(table, folder / "metadata" / f"anything_{part}.parquet")


def write_hdf5(path, names):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        group = file.create_group("dataset")
        texts = np.array(names, object)
        group.create_dataset("image_path", data=texts, maxshape=(None,), compression="gzip")
        blank = np.array([n if i else "" for i, n in enumerate(names)], object)
        group.create_dataset("caption", data=blank, maxshape=(None,), compression="gzip")
        group.create_dataset("width", data=np.arange(len(names)), maxshape=(None,), compression="gzip")


def check(folder, name_of=lambda i: NAMES[i], most=2e-3):
    """Each item finds itself and its true neighbours, under its own name; nothing is written."""
    before = sorted(folder.rglob("*"))
    with open_collection(folder) as peer:
        assert peer.count == N
        for i in (0, 7, 149, 150, 399):
            name = name_of(i)
            vector = peer.vectors([i])[0]
            np.testing.assert_allclose(vector, VECTORS[NAMES.index(name)], atol=most)
            hits = peer.search(MetaClass("x", [Example(image=i)]), k=3).hits
            assert hits[0].id == i
            assert hits[0].key == name
        by_name = MetaClass("x", [Example(image=300)])
        found = peer.search(by_name, k=5, where="image_path like '%5.jpg'").hits
        assert len(found) == 5
        assert all(hit.key.endswith("5.jpg") for hit in found)
    assert sorted(folder.rglob("*")) == before


def test_parquet_of_any_name(tmp_path):
    write_index(tmp_path / "image.index")
    write_parquet(tmp_path)
    check(tmp_path)


def test_arrow(tmp_path):
    write_index(tmp_path / "image.index", "Flat")
    (tmp_path / "metadata").mkdir()
    for part, cut in ((0, slice(0, 399)), (1, slice(399, None))):
        table = pa.table({"image_path": NAMES[cut]})
        with pa.ipc.new_file(str(tmp_path / "metadata" / f"{part}.arrow"), table.schema) as file:
            file.write_table(table)
    check(tmp_path)
    (tmp_path / "metadata" / "1.arrow").write_bytes(b"no table")
    with pytest.raises(CollectionDamaged, match=r"1\.arrow is not readable Arrow"):
        open_collection(tmp_path)


@pytest.mark.slow
def test_hdf5(tmp_path):
    write_index(tmp_path / "image.index", "HNSW16")
    write_hdf5(tmp_path / "metadata.hdf5", NAMES)
    check(tmp_path)
    with open_collection(tmp_path) as peer:
        assert [peer.items([i])[0]["caption"] for i in (0, 1)] == [None, "1.jpg"]
        assert peer.select("width > 397").tolist() == [398, 399]
    (tmp_path / "metadata.hdf5").write_bytes(b"no table")
    with pytest.raises(CollectionDamaged, match="not readable HDF5"):
        open_collection(tmp_path)


@pytest.mark.slow
def test_reordered(tmp_path):
    index = write_index(tmp_path / "image.index")
    lists = index.invlists
    old = np.concatenate([faiss.rev_swig_ptr(lists.get_ids(i), lists.list_size(i)) for i in range(lists.nlist)])
    new = np.empty(N, np.int64)
    new[old] = np.arange(N)
    assert (new != np.arange(N)).any()
    write_hdf5(tmp_path / "metadata_reordered.hdf5", [NAMES[i] for i in old])
    with pytest.raises(CollectionDamaged, match=r"no ivf_old_to_new_mapping\.npy"):
        open_collection(tmp_path)
    new.tofile(tmp_path / "ivf_old_to_new_mapping.npy")
    check(tmp_path, name_of=lambda i: NAMES[old[i]])
    np.zeros(N, np.int64).tofile(tmp_path / "ivf_old_to_new_mapping.npy")
    with pytest.raises(CollectionDamaged, match="a place of its own"):
        open_collection(tmp_path)


def write_parts(folder, absolute, names=("index_0", "index_1", "index_2")):
    folder.mkdir(parents=True, exist_ok=True)
    cuts = [(0, 100), (100, 250), (250, N)]
    for name, (start, stop) in zip(names, cuts, strict=True):
        part = trained()
        ids = np.arange(start, stop) - (0 if absolute else start)
        part.add_with_ids(VECTORS[start:stop], ids)
        faiss.write_index(part, str(folder / name))


@pytest.mark.parametrize("absolute", [True, False])
def test_parts_are_searched_as_one(tmp_path, absolute):
    write_parts(tmp_path / "image.index", absolute)
    write_parquet(tmp_path)
    check(tmp_path)


def test_parts_beside_each_other(tmp_path):
    write_parts(tmp_path, True, ("image.index1", "image.index2", "image.index3"))
    check_names = [f"image.index{i}" for i in (1, 2, 3)]
    assert [p.name for p in bare.index_files(tmp_path, "image")] == check_names
    write_parquet(tmp_path)
    check(tmp_path)


def test_parts_out_of_order(tmp_path):
    write_parts(tmp_path / "image.index", True, ("index_2", "index_1", "index_0"))
    write_parquet(tmp_path)
    with pytest.raises(CollectionDamaged, match="names that sort"):
        open_collection(tmp_path)


def test_combined_on_disk(tmp_path):
    """What clip-retrieval's index_combiner leaves: a folder of the index's name, whose lists stay on disk."""
    write_parts(tmp_path / "parts", absolute=True)
    out = tmp_path / "peer" / "image.index"
    out.mkdir(parents=True)
    empty = trained()
    parts = sorted(str(p) for p in (tmp_path / "parts").iterdir())
    merge_ondisk(empty, parts, str(out / "merged_index.ivfdata"))
    faiss.write_index(empty, str(out / "populated.index"))
    write_parquet(tmp_path / "peer")
    check(tmp_path / "peer")
    (out / "merged_index.ivfdata").unlink()
    with pytest.raises(CollectionDamaged, match=r"populated\.index is not readable"):
        open_collection(tmp_path / "peer")


def test_parts_that_were_combined_under_the_same_ids(tmp_path):
    write_parts(tmp_path / "parts", absolute=False)
    out = tmp_path / "peer" / "image.index"
    out.mkdir(parents=True)
    whole = trained()
    merge_ondisk(whole, sorted(str(p) for p in (tmp_path / "parts").iterdir()), str(out / "merged_index.ivfdata"))
    faiss.write_index(whole, str(out / "populated.index"))
    with open_collection(tmp_path / "peer") as peer, pytest.raises(CollectionDamaged, match="combine its parts again"):
        peer.vectors([N - 1])


def test_a_large_file_stays_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(bare, "MAPPED_BYTES", 0)
    write_index(tmp_path / "image.index", "OPQ8,IVF4,SQ8")
    write_parquet(tmp_path)
    check(tmp_path, most=0.02)
    (part,) = bare.open_parts(tmp_path, "image")
    assert part.mapped


def test_rows_that_do_not_agree(tmp_path):
    write_index(tmp_path / "image.index", "Flat")
    write_parquet(tmp_path, NAMES[:-1])
    with pytest.raises(CollectionDamaged, match=r"image\.index 400, metadata 399"):
        open_collection(tmp_path)


def test_renumbered_rows_tie_by_their_new_ids():
    vectors = make_vectors(200, DIM, ties=True)
    new = np.random.default_rng(0).permutation(200)
    truth = FlatIndex(Rows(DIM, [(range(200), vectors)]))
    index = Renumbered(FlatIndex(Rows(DIM, [(range(200), vectors[new])])), new)
    queries = make_vectors(9, DIM, seed=5, ties=True)
    some = np.arange(3, 190, 2)
    for limits in ({}, {"only": some}, {"without": some}):
        found, true = index.search(queries, 7, **limits), truth.search(queries, 7, **limits)
        np.testing.assert_array_equal(found.ids, true.ids)
        for one, other in zip(
            index.range_search(queries, 0.1, **limits), truth.range_search(queries, 0.1, **limits), strict=True
        ):
            np.testing.assert_array_equal(one.ids, other.ids)


def test_an_index_in_parts_is_imported(tmp_path):
    write_parts(tmp_path / "peer" / "image.index", absolute=True)
    write_parquet(tmp_path / "peer")
    done = import_vectors(PeerSource(tmp_path / "peer"), tmp_path / "own", shard_size=120)
    assert (done.written, done.skipped) == (N, 0)
    with open_collection(tmp_path / "own") as own:
        assert own.keys([0, 399]) == ["0.jpg", "399.jpg"]
        np.testing.assert_allclose(own.vectors(np.arange(N)), VECTORS, atol=2e-3)
