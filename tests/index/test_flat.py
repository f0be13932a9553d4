import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.index.flat import CombinedIndex, FlatIndex
from clipsieve.index.rows import Rows
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64
from tests.contracts.vector_index import VectorIndexContract
from tests.index.made import make_vectors


class TestFlatIndex(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return FlatIndex(Rows(vectors.shape[1], [(ids[:70], vectors[:70]), (ids[70:], vectors[70:])]))


class TestCombinedIndex(VectorIndexContract):
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        dim = vectors.shape[1]
        return CombinedIndex(
            FlatIndex(Rows(dim, [(ids[:200], vectors[:200])])), FlatIndex(Rows(dim, [(ids[200:], vectors[200:])]))
        )


def test_equal_rows_tie_exactly_and_come_by_id() -> None:
    vectors = np.repeat(make_vectors(50, 100), 20, axis=0)
    query = make_vectors(1, 100, seed=5)
    near = FlatIndex(Rows(100, [(range(1000), vectors)])).search(query, 30)
    assert len(np.unique(near.scores)) == 2
    first = near.ids[0, 0]
    assert near.ids[0].tolist()[:20] == list(range(first, first + 20))


def test_rows_of_any_length() -> None:
    vectors = make_vectors(500, 32) * np.random.default_rng(0).uniform(0.1, 50, (500, 1)).astype(np.float32)
    query = make_vectors(1, 32, seed=5) * 7
    near = FlatIndex(Rows(32, [(range(500), vectors)])).search(query, 20)
    true = vectors.astype(np.float64) @ query[0].astype(np.float64)
    np.testing.assert_array_equal(near.ids[0], np.lexsort((np.arange(500), -true.astype(np.float32)))[:20])


def test_removed_rows_are_not_found() -> None:
    index = FlatIndex(Rows(16, [(range(100), make_vectors(100))], without=np.arange(50)))
    assert index.count == 50
    assert np.sort(index.search(make_vectors(1, seed=3), 100).ids[0])[50:].tolist() == list(range(50, 100))


def test_two_dimensions_do_not_combine() -> None:
    with pytest.raises(InputError, match="3 and 4"):
        CombinedIndex(FlatIndex(Rows(3, [])), FlatIndex(Rows(4, [])))
