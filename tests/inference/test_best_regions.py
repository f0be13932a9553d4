import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.inference.best_regions import best_regions, overlaps


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_overlaps_are_shares_of_the_union():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 0.5, 1], [0.75, 0.5, 1, 1], [0.5, 0, 0.5, 1]], np.float32)
    expected = [[1, 0.5, 0.125, 0], [0.5, 1, 0, 0], [0.125, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(overlaps(boxes, boxes), expected, atol=1e-6)


def test_only_what_lies_together_and_looks_alike_is_one():
    boxes = np.array([[0, 0, 1, 1], [0, 0, 1, 0.95], [0, 0, 1, 0.95], [0, 0, 1, 0.5]], np.float32)
    vectors = unit([[1, 0], [1, 0.05], [1, 0.5], [1, 0]])
    assert best_regions(boxes, vectors, 4).tolist() == [0, 2, 3]


def one_by_one(boxes, vectors, most):
    kept: list[int] = []
    for i in range(len(boxes)):
        alike = [overlaps(boxes[[i]], boxes[[j]])[0, 0] >= 0.9 and vectors[i] @ vectors[j] >= 0.98 for j in kept]
        if not any(alike) and len(kept) < most:
            kept.append(i)
    return kept


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 40), st.integers(1, 45))
def test_blocks_of_boxes_are_as_one_after_the_other(seed, n, most):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 3, (n, 2)) / 4
    boxes = np.concatenate([corner, corner + 0.25 + rng.choice([0, 0.01], (n, 2))], axis=1).astype(np.float32)
    vectors = unit(rng.choice([-1, 1], (n, 3)) + rng.normal(0, 0.05, (n, 3))).reshape(n, 3)
    assert best_regions(boxes, vectors, most).tolist() == one_by_one(boxes, vectors, most)
