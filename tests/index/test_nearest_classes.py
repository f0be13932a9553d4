import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score
from sklearn.neighbors import KNeighborsClassifier

from clipsieve.errors import InputError
from clipsieve.index import nearest_classes
from clipsieve.index.nearest_classes import class_shares, top_k_share


def theirs(images, references, classes, k):
    model = KNeighborsClassifier(n_neighbors=k, weights="distance", metric="cosine").fit(references, classes)
    return model.predict_proba(images)


@pytest.mark.filterwarnings("ignore:The number of unique classes:UserWarning")
@pytest.mark.parametrize(("count", "each", "k"), [(10, 1, 10), (30, 1, 10), (6, 12, 10), (6, 12, 1), (3, 50, 7)])
@pytest.mark.parametrize("block", [nearest_classes.BLOCK, 1])
def test_shares_and_figures_are_scikit_learns(count, each, k, block, monkeypatch):
    monkeypatch.setattr(nearest_classes, "BLOCK", block)
    random = np.random.default_rng(count + each + k)
    centres = random.normal(size=(count, 8))
    classes = np.repeat(np.arange(count), each)
    references = (centres[classes] + random.normal(size=(len(classes), 8))).astype(np.float32)
    truth = random.integers(0, count, 300)
    images = (centres[truth] + 2 * random.normal(size=(300, 8))).astype(np.float32)
    images[:5] = references[:5]  # at distance 0, or as near as rounding lets it
    shares = class_shares(images, references, classes, count, k)
    expected = theirs(images, references, classes, k)
    np.testing.assert_allclose(shares[5:], expected[5:], atol=1e-5)
    for most in (1, 5):
        if most < count:
            assert top_k_share(shares[5:], truth[5:], most) == top_k_accuracy_score(
                truth[5:], expected[5:], labels=np.arange(count), k=most
            )


def test_a_reference_at_no_distance_has_all():
    references = np.eye(3, dtype=np.float32)[[0, 0, 1]]
    shares = class_shares(np.eye(3, dtype=np.float32)[:1], references, np.array([0, 1, 2]), 3, 3)
    np.testing.assert_array_equal(shares, [[0.5, 0.5, 0.0]])


def test_of_equal_shares_the_later_class_goes_first():
    shares = np.array([[0.5, 0.5, 0.0]] * 2)
    truth = np.array([0, 1])
    assert top_k_share(shares, truth, 1) == top_k_accuracy_score(truth, shares, labels=[0, 1, 2], k=1) == 0.5


def test_what_there_is_nothing_to_count_of():
    with pytest.raises(InputError, match="no image"):
        top_k_share(np.zeros((0, 3)), np.zeros(0, np.int64), 1)
    with pytest.raises(InputError, match="0 references"):
        class_shares(np.zeros((1, 3), np.float32), np.zeros((0, 3), np.float32), np.zeros(0, np.int64), 1)
