"""What marks teach: a direction, what each example gives to it, and whether it foretells marks that it did not see."""

import numpy as np
import pytest

from clipsieve.errors import InputError
from clipsieve.index import learn as module
from clipsieve.index.calibrate import Background
from clipsieve.index.collection import open_collection
from clipsieve.index.evaluate import average_precision
from clipsieve.index.learn import LEAST_MARKS, learn
from clipsieve.types import ClassSet, ClassVectors, Example, MetaClass
from tests.back.made import FAKE, add_items
from tests.index.made import MODEL, make_class, make_vectors, unit

DIM = 16
VECTORS = make_vectors(600, DIM, seed=3)
BACKGROUND = Background(VECTORS)


def along(axis: int, texts: int = 1) -> ClassVectors:
    """A class whose text looks along an axis."""
    rows = np.eye(DIM, dtype=np.float32)[[axis] * texts]
    return ClassVectors("c", rows, rows[:0], MODEL)


def marked(axis: int, count: int, seed: int = 0):
    """Random items; right are those far along the axis."""
    ids = np.random.default_rng(seed).choice(len(VECTORS), count, replace=False)
    return ids, VECTORS[ids, axis] > 0.1


def test_what_examples_give_adds_up_to_the_odds() -> None:
    ids, right = marked(2, 30)
    learned = learn(make_class("c", 2, 3, DIM), BACKGROUND, VECTORS[ids], right)
    odds = VECTORS @ learned.direction + learned.offset
    parts = learned.parts(VECTORS)
    assert parts.shape == (2 + 3 + 30, len(VECTORS))
    constant = odds - parts.sum(axis=0)
    np.testing.assert_allclose(constant, constant[0], atol=1e-6)
    # A mark speaks for what is like it if it was right, against it if it was wrong.
    itself = parts[5:][np.arange(30), ids]
    assert (np.sign(itself) == np.where(right, 1, -1)).all()


def test_it_finds_what_the_text_does_not_say() -> None:
    ids, right = marked(2, 60)
    learned = learn(along(9), BACKGROUND, VECTORS[ids], right)
    assert learned.wins
    rest = np.setdiff1d(np.arange(len(VECTORS)), ids)
    relevant = VECTORS[rest, 2] > 0.1
    assert average_precision(VECTORS[rest] @ learned.direction, relevant) > 0.85
    assert average_precision(VECTORS[rest, 9], relevant) < 0.6
    alone = learn(None, BACKGROUND, VECTORS[ids], right)
    assert average_precision(VECTORS[rest] @ alone.direction, relevant) > 0.85


def test_a_text_that_says_it_all_is_kept() -> None:
    ids, right = marked(2, 20)
    learned = learn(along(2), BACKGROUND, VECTORS[ids], right)
    unit_direction = learned.direction / np.linalg.norm(learned.direction)
    assert unit_direction[2] > 0.9


def test_leaving_one_out_is_nearly_what_learning_without_it_gives() -> None:
    rng = np.random.default_rng(1)
    points = rng.standard_normal((25, 4))
    kernel, expected = points @ points.T + 1.0, rng.standard_normal(25)
    truth = (points[:, 0] > 0).astype(float)
    quick = module._fit(kernel, truth, expected).losses
    for i in range(25):
        kept = np.arange(25) != i
        weights = module._fit(kernel[np.ix_(kept, kept)], truth[kept], expected[kept]).weights
        odds = expected[i] + kernel[i, kept] @ weights
        assert quick[i] == pytest.approx(np.logaddexp(0, -odds if truth[i] else odds), abs=0.12)


def test_few_marks_win_nothing() -> None:
    ids, right = marked(2, 200)
    few = np.concatenate([np.flatnonzero(right)[:4], np.flatnonzero(~right)[:5]])
    assert len(few) == LEAST_MARKS - 1
    assert not learn(along(9), BACKGROUND, VECTORS[ids[few]], right[few]).wins


@pytest.mark.parametrize("right", [[True, True], [False, False], []])
def test_marks_of_one_kind_teach_nothing(right: list[bool]) -> None:
    with pytest.raises(InputError, match="at least one of each"):
        learn(along(9), BACKGROUND, VECTORS[: len(right)], np.array(right, dtype=bool))


def test_copies_are_borne() -> None:
    same = unit(np.ones((30, DIM)))
    learned = learn(along(9), Background(same), same[:12], np.arange(12) % 2 == 0)
    assert np.isfinite(learned.direction).all()
    assert np.isfinite(learned.parts(same)).all()


def test_a_collection_learns_from_marks_and_image_examples(tmp_path) -> None:
    folder = add_items(tmp_path / "c", 90)  # buses, trucks and cats in turn
    right, wrong = list(range(0, 30, 3)), [*range(1, 15, 3), *range(2, 15, 3)]
    with open_collection(folder, embedder=FAKE) as photos:
        examples = ["cat", Example(image=right[0])], ["truck", Example(image=wrong[0])]
        bus = ClassSet([MetaClass("bus", *examples)], "background")
        learned, of = photos.learn(bus, [*right, 10**6], wrong)
        assert [e.text for e in of[:2]] == ["cat", "truck"]
        assert [e.image for e in of[2:]] == [*right, wrong[0], *(i for i in sorted(wrong) if i != wrong[0])]
        assert learned.parts(photos.vectors([0])).shape == (len(of), 1)
        ids, odds = photos.nearest(learned.direction, 90)
        assert set(ids[:30].tolist()) == set(range(0, 90, 3))
        assert odds[0] == pytest.approx(photos.vectors(ids[:1])[0] @ learned.direction, abs=1e-4)
        first = photos.review(bus, right, wrong, 5, learned=learned, asking="spread").doubtful[0]
        assert first.id in set(range(30, 90, 3))
