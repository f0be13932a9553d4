import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

from clipsieve.errors import CollectionDamaged, InputError, MissingExtra
from clipsieve.index import faiss_index
from clipsieve.index.faiss_index import FaissIndex, measure_error, read_index, train_and_build, tune, write_index
from clipsieve.index.flat import FlatIndex
from clipsieve.index.rows import Rows
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64
from tests.contracts.vector_index import VectorIndexContract, tied
from tests.index.made import make_rows, make_vectors, unit


def build(factory: str, vectors: Float32, ids: Int64, effort: int | None = None) -> FaissIndex:
    return dataclasses.replace(train_and_build(factory, Rows(vectors.shape[1], [(ids, vectors)])), effort=effort)


class TestFaissFlat(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return build("Flat", vectors, ids)


class TestFaissIvfAllProbes(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return build("IVF4,Flat", vectors, ids, effort=4)


class TestFaissHnsw(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return build("HNSW16", vectors, ids, effort=200)


class TestFaissQuantised(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return dataclasses.replace(build("PCA12,IVF4,SQ8", vectors, ids, effort=4), score_error=3.0)  # generously


class TestFaissReadBack(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        built = build("IVF4,Flat", vectors, ids, effort=4)
        path = self.folder / "image.index"
        write_index(built, path)
        return read_index(path, built.ids, effort=4, mapped=True)

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path


@pytest.mark.parametrize(
    ("factory", "effort", "exhaustive"),
    [
        ("Flat", None, True),
        ("SQ8", None, True),
        ("IVF4,Flat", None, False),
        ("IVF4,Flat", 3, False),
        ("IVF4,Flat", 4, True),
        ("IVF4_HNSW8,Flat", 4, False),
        ("HNSW16", 1000, False),
    ],
)
def test_what_is_exhaustive(factory: str, effort: int | None, exhaustive: bool) -> None:
    assert build(factory, make_vectors(300), np.arange(300), effort).exhaustive is exhaustive


@pytest.mark.slow
def test_the_error_of_quantised_rows_is_measured() -> None:
    rows = make_rows(make_vectors(600))
    for factory, least, most in (("SQ8", 1e-4, 0.02), ("IVF1,PQ4x4", 0.05, 1.0)):
        index = train_and_build(factory, rows)
        assert least < index.score_error < most
        # A bound for other queries of that kind, too.
        other = measure_error(index, rows, make_vectors(20, seed=77))
        assert other < 1.5 * index.score_error


@pytest.mark.parametrize(("half", "lossless"), [(True, True), (False, False)])
def test_half_precision_codes_of_half_precision_rows_lose_nothing(half: bool, lossless: bool) -> None:
    assert (train_and_build("SQfp16", make_rows(make_vectors(300), half=half)).score_error == 0) is lossless


def test_ids_of_positions() -> None:
    rows = make_rows(make_vectors(300), removed=0.2)
    index = train_and_build("Flat", rows)
    query = make_vectors(3, seed=1)
    near, true = index.search(query, 20), FlatIndex(rows).search(query, 20)
    np.testing.assert_array_equal(near.ids, true.ids)
    assert train_and_build("Flat", Rows(16, [(range(9), make_vectors(9))])).ids is None


def clusters(n: int, seed: int) -> Float32:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((40, 16))
    return unit(centres[rng.integers(0, 40, n)] + 0.6 * rng.standard_normal((n, 16)))


@pytest.mark.parametrize("factory", ["IVF32,Flat", "HNSW8"])
def test_tuning_reaches_the_recall_it_carries(factory: str) -> None:
    rows = Rows(16, [(range(3000), clusters(3000, 1))])
    queries, others = clusters(50, 2), clusters(200, 3)
    truth = FlatIndex(rows).search(queries, 10)
    index = train_and_build(factory, rows)
    low, high = tune(index, queries, truth, 0.5), tune(index, queries, truth, 0.97)
    assert (low.recall or 0) >= 0.5
    assert (high.recall or 0) >= 0.97
    assert (low.effort or 0) <= (high.effort or 0) < high.most_effort
    held_out = faiss_index.measure_recall(high.search(others, 10), FlatIndex(rows).search(others, 10))
    assert held_out == pytest.approx(high.recall, abs=0.05)


def test_a_search_leaves_no_setting_behind() -> None:
    index = build("IVF8,Flat", make_vectors(400), np.arange(400), effort=5)
    index.search(make_vectors(1), 3, only=np.arange(10))
    assert index.index.nprobe == 1


def test_read_write(tmp_path: Path) -> None:
    built = build("HNSW8,Flat", tied(), np.arange(600))
    write_index(built, tmp_path / "image.index")
    again = read_index(tmp_path / "image.index")
    queries = tied(4, seed=3)
    np.testing.assert_array_equal(built.search(queries, 5).ids, again.search(queries, 5).ids)
    (tmp_path / "image.index").write_bytes(b"IxFI and no more")
    with pytest.raises(CollectionDamaged, match=r"image\.index"):
        read_index(tmp_path / "image.index")


def test_kinds_that_cannot_be_searched() -> None:
    rows = make_rows(make_vectors(300))
    for factory in ("PQ4x4", "HNSW8_PQ4x4", "no such thing"):
        with pytest.raises(InputError):
            train_and_build(factory, rows)
    with pytest.raises(InputError, match="train"):
        train_and_build("IVF64,Flat", make_rows(make_vectors(20)))
    with pytest.raises(InputError, match="no row"):
        train_and_build("Flat", Rows(4, []))
    faiss = faiss_index.load_faiss()
    with pytest.raises(InputError, match="inner product"):
        FaissIndex(faiss.IndexFlatL2(4))
    with pytest.raises(InputError, match="score_error"):
        FaissIndex(train_and_build("SQ8", rows).index)
    with pytest.raises(InputError, match="ids"):
        FaissIndex(faiss.IndexFlatIP(4), np.arange(3))


def test_without_faiss_the_error_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"cpu.*gpu.*gpu-cu13"):
        train_and_build("Flat", make_rows(make_vectors(5)))


def test_more_lists_than_a_file_can_hold_are_refused_before_they_are_made(tmp_path):
    faiss = faiss_index.load_faiss()
    index = faiss.index_factory(4, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    data = bytearray(faiss.serialize_index(index))
    at = data.find(b"ilar") + 4
    data[at : at + 8] = (2**31).to_bytes(8, "little")
    (tmp_path / "image.index").write_bytes(data)
    with pytest.raises(CollectionDamaged, match=r"claims 2,147,483,648 lists"):
        read_index(tmp_path / "image.index")
