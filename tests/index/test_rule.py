import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.index.calibrate import Scale
from clipsieve.index.rule import (
    Question,
    accepted,
    compile_classes,
    deciding,
    judge,
    maxima,
    products,
    rank_score,
    settle,
    winners,
)
from clipsieve.types import ClassVectors, Float32, ModelId
from tests.index.made import MODEL, make_class, unit


def by_hand(c: ClassVectors, item: Float32) -> tuple[float, float]:
    dot = [
        [sum(float(a) * float(b) for a, b in zip(t, item, strict=True)) for t in s] for s in (c.positive, c.negative)
    ]
    return max(dot[0]), max(dot[1], default=-math.inf)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.booleans())
def test_the_rule_is_the_loop_in_words(seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    shapes = [(int(rng.integers(1, 4)), int(rng.integers(0, 3))) for _ in range(int(rng.integers(1, 5)))]
    classes = [make_class(str(j), p, q, 8, seed + j, ties) for j, (p, q) in enumerate(shapes)]
    items = rng.integers(-2, 3, (12, 8)).astype(np.float32) / 4 if ties else unit(rng.standard_normal((12, 8)))
    compiled = compile_classes(classes)
    for levels in (settle(compiled, items), products(compiled, items)):
        best, worst = maxima(compiled, levels)
        rank = rank_score(best, worst)
        label, runner_up = winners(best, worst)
        np.testing.assert_array_equal(label, rank.argmax(axis=0))
        example = deciding(compiled, levels, label)
        for i, item in enumerate(items):
            for j, c in enumerate(classes):
                p, n = by_hand(c, item)
                assert best[j, i] == pytest.approx(p, abs=1e-6)
                assert worst[j, i] == pytest.approx(n, abs=1e-6)
                if ties:
                    assert accepted(best, worst)[j, i] == (p > n)
            mine = classes[label[i]].positive @ item
            assert mine[example[i]] == pytest.approx(mine.max(), abs=1e-6)
            others = rank[:, i].copy()
            others[label[i]] = -np.inf
            assert runner_up[i] == (others.argmax() if len(classes) > 1 else -1)


def test_one_positive_and_no_negatives_is_the_zero_shot_classifier() -> None:
    classes = [make_class(str(j), 1, 0, seed=j) for j in range(7)]
    items = unit(np.random.default_rng(9).standard_normal((200, 16)))
    compiled = compile_classes(classes)
    label, _ = winners(*maxima(compiled, products(compiled, items)))
    zero_shot = (items @ np.concatenate([c.positive for c in classes]).T).argmax(axis=1)
    np.testing.assert_array_equal(label, zero_shot)


def test_a_tie_goes_to_the_negative() -> None:
    row = unit(np.random.default_rng(0).standard_normal((1, 16)))
    c = ClassVectors("both", row, row.copy(), MODEL)
    items = unit(np.random.default_rng(1).standard_normal((50, 16)))
    compiled = compile_classes([c])
    for levels in (settle(compiled, items), products(compiled, items)):
        assert not accepted(*maxima(compiled, levels)).any()


def test_an_accepted_class_outranks_a_rejected_one_with_negative_cosines() -> None:
    # DirectAI's 1 - (1 + N) / 2 would rank the rejected class (0.7) over the accepted one (0.45).
    best, worst = np.array([[-0.5], [-0.1]], np.float32), np.array([[-0.4], [-0.2]], np.float32)
    rank = rank_score(best, worst)
    np.testing.assert_allclose(rank[:, 0], [-0.3, 0.45], atol=1e-7)
    assert winners(best, worst)[0].tolist() == [1]


def test_the_least_irrelevant_wins_where_all_are_rejected() -> None:
    best = np.array([[0.1], [0.2], [0.0]], np.float32)
    worst = np.array([[0.5], [0.6], [0.4]], np.float32)
    assert [w.tolist() for w in winners(best, worst)] == [[2], [0]]


def test_cosines_that_only_float32_mapping_would_tie_are_told_apart() -> None:
    low = np.float32(0.1)
    best = np.array([[low], [np.nextafter(low, np.float32(1))]], np.float32)
    assert ((1 + best[0]) == (1 + best[1])).all()
    worst = np.full((2, 1), -np.inf, np.float32)
    assert winners(best, worst)[0].tolist() == [1]
    assert rank_score(best, worst).argmax() == 1


def test_only_classes_that_may_win_win() -> None:
    best, worst = np.array([[0.9, 0.9], [0.5, 0.5]], np.float32), np.full((2, 2), -np.inf, np.float32)
    ok = accepted(best, worst, np.array([[0.95], [0.3]], np.float32))
    ok[:, 1] = False
    label, runner_up = winners(best, worst, ok)
    assert label.tolist() == [1, -1]
    assert runner_up.tolist() == [-1, -1]


def test_settled_levels_do_not_depend_on_the_batch() -> None:
    c = make_class("c", 3, 2, 512)
    items = unit(np.random.default_rng(3).standard_normal((40, 512)))
    items[20:] = items[:20]
    compiled = compile_classes([c])
    whole = settle(compiled, items)
    np.testing.assert_array_equal(whole[:, :20], whole[:, 20:])
    np.testing.assert_array_equal(np.concatenate([settle(compiled, items[i : i + 1]) for i in range(40)], 1), whole)


def test_products_are_within_the_slack() -> None:
    c = make_class("c", 5, 5, 2048)
    items = unit(np.random.default_rng(3).standard_normal((100, 2048)))
    for scale in (None, Scale(np.full(10, 0.1), np.linspace(0.01, 0.1, 10))):
        compiled = compile_classes([c], [scale])
        assert np.abs(products(compiled, items) - settle(compiled, items)).max() < compiled.slack / 2


def test_judge_names_the_deciding_examples() -> None:
    axes = np.eye(4, dtype=np.float32)
    question = Question(ClassVectors("c", axes[:2], axes[2:], MODEL), k=1)
    items = np.array([[0.1, 0.9, 0, 0.3], [0.5, 0.1, 0.6, 0], [0.7, 0, 0.2, 0.1]], np.float32)
    found = judge(question, question.compile(), np.array([7, 8, 9]), items)
    assert found.ids.tolist() == [7, 9]
    assert found.positive.tolist() == [1, 0]
    assert found.negative.tolist() == [1, 0]
    np.testing.assert_array_equal(found.best, np.float32([0.9, 0.7]))


def test_errors() -> None:
    a, b = make_class("a", 1, 0), make_class("b", 1, 0)
    with pytest.raises(InputError, match="no class"):
        compile_classes([])
    with pytest.raises(InputError, match="named 'a'"):
        compile_classes([a, a])
    other = ClassVectors("c", b.positive, b.negative, ModelId("other", "0", "none"))
    with pytest.raises(ModelMismatch):
        compile_classes([a, other])
    with pytest.raises(InputError, match="calibration"):
        compile_classes([a], [Scale(np.zeros(3), np.ones(3))])
    with pytest.raises(InputError, match="k = 0"):
        Question(a, 0)
    with pytest.raises(InputError, match="nan"):
        Question(a, 1, threshold=math.nan)
