"""What every VectorIndex must do. A subclass gives `make`, which builds one over rows and the ids they have."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.protocols import VectorIndex
from clipsieve.types import Float32, Int64

DIM = 16
K = 10


def tied(n: int = 600, dim: int = DIM, seed: int = 0) -> Float32:
    """Rows of entries -1, 0, 1 over 4: inner products are exact in float32, and many of them are equal."""
    rows: Float32 = (np.random.default_rng(seed).integers(-1, 2, (n, dim)) / 4).astype(np.float32)
    rows[n // 2 :] = rows[: n - n // 2]  # every row twice
    return rows


class VectorIndexContract:
    def make(self, vectors: Float32, ids: Int64) -> VectorIndex:
        raise NotImplementedError

    @pytest.fixture
    def vectors(self) -> Float32:
        return tied()

    @pytest.fixture
    def ids(self, vectors: Float32) -> Int64:
        return np.arange(len(vectors), dtype=np.int64) * 3 + 5  # not the positions

    @pytest.fixture
    def index(self, vectors: Float32, ids: Int64) -> VectorIndex:
        return self.make(vectors, ids)

    @pytest.fixture
    def queries(self) -> Float32:
        return tied(6, seed=1)

    def best(self, vectors: Float32, ids: Int64, query: Float32, allowed: np.ndarray) -> list[tuple[float, int]]:
        """Scores and ids in float64, best first."""
        scores = vectors.astype(np.float64) @ query.astype(np.float64)
        return sorted(zip((-scores[allowed]).tolist(), ids[allowed].tolist(), strict=True))

    def test_is_a_vector_index(self, index: VectorIndex, vectors: Float32) -> None:
        assert isinstance(index, VectorIndex)
        assert (index.count, index.dim) == (len(vectors), DIM)

    @pytest.mark.parametrize("k", [1, K, 2000])
    def test_search_finds_the_best(self, index: VectorIndex, vectors: Float32, ids: Int64, queries: Float32, k: int):
        near = index.search(queries, k)
        assert near.ids.shape == (len(queries), k)
        self.check(index, vectors, ids, queries, near.ids, near.scores, np.ones(len(ids), bool), k)

    @pytest.mark.parametrize("share", [0.5, 0.02, 0])
    def test_only_and_without(
        self, index: VectorIndex, vectors: Float32, ids: Int64, queries: Float32, share: float
    ) -> None:
        allowed = np.random.default_rng(2).random(len(ids)) < share
        unknown = np.array([1, 10**9])
        by_only = index.search(queries, K, only=np.concatenate([ids[allowed], unknown]))
        by_without = index.search(queries, K, without=np.concatenate([ids[~allowed], unknown]))
        both = index.search(queries, K, only=ids, without=ids[~allowed])
        for near in (by_only, by_without, both):
            self.check(index, vectors, ids, queries, near.ids, near.scores, allowed, K)

    def check(self, index, vectors, ids, queries, found, scores, allowed, k) -> None:
        for query, row, score in zip(queries, found, scores, strict=True):
            real = row >= 0
            assert np.isin(row[real], ids[allowed]).all()
            assert len(set(row[real].tolist())) == real.sum()
            true = vectors[np.searchsorted(ids, row[real])].astype(np.float64) @ query
            assert np.abs(true - score[real]).max(initial=0) <= index.score_error + 1e-5
            if index.exhaustive:
                assert real.sum() == min(k, allowed.sum())
                if index.score_error == 0:
                    assert row[real].tolist() == [i for _, i in self.best(vectors, ids, query, allowed)[:k]]

    def test_range_search(self, index: VectorIndex, vectors: Float32, ids: Int64, queries: Float32) -> None:
        only, without = ids[::2], ids[:100]
        for query, near in zip(queries, index.range_search(queries, 0.25, only=only, without=without), strict=True):
            scores = vectors.astype(np.float64) @ query
            wanted = set(ids[(scores >= 0.25 - index.score_error)].tolist()) & set(only.tolist()) - set(
                without.tolist()
            )
            found = set(near.ids[0].tolist())
            assert near.ids.shape[0] == 1
            assert found <= wanted
            if index.exhaustive and index.score_error == 0:
                assert found == wanted

    def test_nothing_asked(self, index: VectorIndex) -> None:
        assert index.search(np.zeros((0, DIM), np.float32), 3).ids.shape == (0, 3)
        assert index.range_search(np.zeros((0, DIM), np.float32), 0.5) == []

    def test_wrong_arguments(self, index: VectorIndex, queries: Float32) -> None:
        for wrong in (np.zeros((1, DIM + 1), np.float32), np.zeros((1, DIM)), np.zeros(DIM, np.float32)):
            with pytest.raises(InputError):
                index.search(wrong, 3)
        with pytest.raises(InputError):
            index.search(queries, 0)

    def test_threads_do_not_disturb_each_other(self, index: VectorIndex, ids: Int64, queries: Float32) -> None:
        def ask(i: int) -> object:
            only = ids[i % 3 :: 3] if i % 2 else None
            return index.search(queries, K, only=only).ids.tolist()

        alone = [ask(i) for i in range(6)]
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ask, range(6))) == alone
