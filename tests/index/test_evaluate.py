import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from clipsieve.errors import InputError
from clipsieve.index import evaluate


def test_recall_counts_what_should_have_been_found() -> None:
    found = np.array([[1, 2, 3], [4, 5, -1]])
    truth = np.array([[3, 1, 9], [5, -1, -1]])
    assert evaluate.recall_at_k(found, truth, 3) == pytest.approx((2 / 3 + 1) / 2)
    assert evaluate.recall_at_k(found, truth, 1) == 0
    with pytest.raises(InputError, match="right answer"):
        evaluate.recall_at_k(found, np.full((2, 1), -1), 3)


def test_precision_and_mmp() -> None:
    relevant = np.array([[True, False, True, False, False, True], [True, True, False, False, False, False]])
    assert evaluate.precision_at_k(relevant, 5) == pytest.approx(2 / 5)
    # two relevant items in all for the second query: both came first, so it is perfect
    assert evaluate.mmp_at_k(relevant, np.array([9, 2])) == pytest.approx((2 / 5 + 1) / 2)
    assert evaluate.mmp_at_k(relevant, np.array([0, 2])) == 1


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30).filter(
        lambda r: any(x for _, x in r)
    )
)
def test_average_precision_is_the_sum_over_thresholds(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([float(score) for score, _ in rows])
    relevant = np.array([is_relevant for _, is_relevant in rows])
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = scores >= threshold
        gained = relevant[above].sum() / relevant.sum()
        expected += (gained - recall) * relevant[above].mean()
        recall = gained
    assert evaluate.average_precision(scores, relevant) == pytest.approx(expected)
    assert evaluate.average_precision(scores[::-1], relevant[::-1]) == pytest.approx(expected)


def test_average_precision_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, relevant = rng.integers(0, 50, 500).astype(float), rng.random(500) < 0.2
    expected = metrics.average_precision_score(relevant, scores)
    assert evaluate.average_precision(scores, relevant) == pytest.approx(expected)


def test_average_precision_needs_something_relevant() -> None:
    with pytest.raises(InputError, match="undefined"):
        evaluate.average_precision(np.zeros(3), np.zeros(3, dtype=bool))


def test_top_k() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.3, 0.3, 0.3]])
    assert evaluate.top_k_accuracy(scores, np.array([2, 0])) == 0.5
    assert evaluate.top_k_accuracy(scores, np.array([2, 2]), k=2) == 0.5
    assert evaluate.top_k_accuracy(scores, np.array([2, 2]), k=3) == 1


def test_confusion_and_what_follows_from_it() -> None:
    truth = np.array([0, 0, 0, 1, 1, -1])
    predicted = np.array([0, 0, 1, 1, -1, 0])
    confusion = evaluate.confusion_matrix(truth, predicted, 3)
    assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]
    measured = evaluate.per_class(confusion)
    np.testing.assert_allclose(measured.precision, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(measured.recall, [2 / 3, 1 / 2, np.nan])
    np.testing.assert_allclose(measured.f1, [2 / 3, 1 / 2, np.nan])
    assert measured.support.tolist() == [3, 2, 0]
    with pytest.raises(InputError, match="beyond"):
        evaluate.confusion_matrix(truth, predicted, 1)


def test_confusion_as_text() -> None:
    confusion = evaluate.confusion_matrix(np.array([0, 1, 1]), np.array([0, 1, 0]), 2)
    assert evaluate.confusion_text(confusion, ["cat", "dog"]) == "     cat  dog\ncat    1    0\ndog    1    1\n"
    with_none = evaluate.confusion_matrix(np.array([0]), np.array([-1]), 1)
    assert "(none)" in evaluate.confusion_text(with_none, ["cat"])


@pytest.mark.parametrize("n", [2, 70])
def test_confusion_as_a_picture(n: int) -> None:
    rng = np.random.default_rng(0)
    confusion = evaluate.confusion_matrix(np.arange(n), rng.integers(0, n, n), n)
    image = Image.open(io.BytesIO(evaluate.confusion_png(confusion, [f"class {i}" for i in range(n)])))
    assert image.format == "PNG"
    assert min(image.size) > n * 4


def test_latencies() -> None:
    got = evaluate.latency_percentiles(np.arange(1, 101, dtype=np.float64))
    assert got["n"] == 100
    assert got["p50"] == pytest.approx(50.5)
    assert got["max"] == 100
    with pytest.raises(InputError, match="measured"):
        evaluate.latency_percentiles([])
