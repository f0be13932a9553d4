import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.errors import InputError
from clipsieve.index import duplicates
from clipsieve.index.duplicates import Groups, first_of_near, group_items, hash_codes, measure_threshold
from clipsieve.index.flat import FlatIndex
from clipsieve.index.rows import Rows
from clipsieve.types import Float32, Int64


def unit(vectors: np.ndarray) -> Float32:
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def grouped(vectors: Float32, threshold: float, ids: Int64 | None = None, **options: object) -> Int64:
    ids = np.arange(len(vectors), dtype=np.int64) if ids is None else ids
    rows = Rows(vectors.shape[1], [(ids, vectors)])
    return group_items(ids, rows.take, FlatIndex(rows), threshold, **options)


def leaders(vectors: Float32, threshold: float) -> list[int]:
    """The definition, item by item."""
    groups: list[int] = []
    for i, vector in enumerate(vectors):
        heads = [g for g in range(i) if groups[g] == g]
        cosines = [float(vector @ vectors[g]) for g in heads]
        groups.append(heads[int(np.argmax(cosines))] if cosines and max(cosines) >= threshold else i)
    return groups


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([4, 64]))
def test_it_is_leader_clustering(seed: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 4), 8))
    vectors = unit(centres[rng.integers(0, len(centres), n)] + 0.15 * rng.normal(size=(n, 8)))
    pairs = vectors @ vectors.T
    threshold = 0.97
    if (np.abs(pairs - threshold) < 1e-5).any():
        return  # a near-tie is decided by rounding
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        patch.setattr(duplicates, "NEIGHBOURS", n)
        assert grouped(vectors, threshold).tolist() == leaders(vectors, threshold)


def test_groups_do_not_chain() -> None:
    angles = np.deg2rad([0, 10, 20, 30])
    vectors = unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    assert grouped(vectors, float(np.cos(np.deg2rad(12)))).tolist() == [0, 0, 2, 2]


def test_a_hash_groups_what_the_vectors_do_not() -> None:
    vectors = unit(np.eye(5))
    codes = hash_codes(["x", None, "x", None, "y"])
    ids = np.array([3, 10, 11, 12, 40])
    assert grouped(vectors, 0.99, ids, codes=codes).tolist() == [3, 10, 3, 12, 40]


def test_many_copies_are_one_group_though_few_neighbours_are_looked_at() -> None:
    vectors = unit(np.concatenate([np.eye(4), np.tile(np.eye(4)[:1], (100, 1))]))
    assert set(grouped(vectors, 0.99).tolist()) == {0, 1, 2, 3}
    assert set(grouped(vectors, 0.99, codes=hash_codes([None, *"abc", *["z"] * 100])).tolist()) == {0, 1, 2, 3}


def test_known_groups_stay_and_new_items_join_them() -> None:
    rng = np.random.default_rng(0)
    base = unit(rng.normal(size=(30, 16)))
    vectors = unit(np.concatenate([base, base[:10] + 0.001 * rng.normal(size=(10, 16))]))
    whole = grouped(vectors, 0.99)
    assert whole.tolist() == [*range(30), *range(10)]
    assert grouped(vectors, 0.99, known=whole[:30]).tolist() == whole.tolist()


def test_the_threshold_lies_between_copies_and_likeness() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(40, 32))
    distinct = unit(centres[rng.integers(0, 40, 3000)] + 0.5 * rng.normal(size=(3000, 32)))
    copies = unit(distinct[:900] + 0.003 * rng.normal(size=(900, 32)))
    mixed = rng.permutation(np.concatenate([distinct, copies]))
    threshold = measure_threshold(mixed[:800], mixed[800:])
    likeness = np.sort((distinct[:500] @ distinct.T) - 2 * np.eye(500, 3000))[:, -1]
    assert (distinct[:900] * copies).sum(axis=1).min() > threshold
    assert (likeness > threshold).mean() < 0.01
    assert measure_threshold(mixed[:3], mixed[3:]) == duplicates.HIGHEST


def test_lookup_by_id() -> None:
    groups = Groups(np.array([2, 4, 6]), np.array([2, 2, 6]))
    assert groups(np.array([6, 4, 5, 9, 0])).tolist() == [6, 2, 5, 9, 0]
    assert Groups(np.zeros(0, np.int64), np.zeros(0, np.int64))(np.array([7])).tolist() == [7]
    with pytest.raises(InputError, match="one each"):
        Groups(np.array([1]), np.zeros(0, np.int64))


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 60), st.sampled_from([4, 64]))
def test_the_first_of_near_ones(seed: int, n: int, block: int) -> None:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(max(1, n // 4), 8))
    vectors = unit(centres[rng.integers(0, len(centres), n)] + 0.15 * rng.normal(size=(n, 8)))
    if (np.abs(vectors @ vectors.T - 0.97) < 1e-5).any():
        return  # a near-tie is decided by rounding
    kept: list[int] = []
    for i in range(n):
        if all(float(vectors[i] @ vectors[j]) < 0.97 for j in kept):
            kept.append(i)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BLOCK", block)
        assert first_of_near(vectors, 0.97).tolist() == kept
