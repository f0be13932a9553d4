import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.index.calibrate import Background
from clipsieve.index.first_line import MOST_ABOVE, first_line, propose
from clipsieve.index.rule import Question
from clipsieve.index.scan import scan_threshold
from tests.index.made import everything, make_class, make_rows, make_vectors


@pytest.mark.parametrize("members", [40, 400])
def test_a_class_that_stands_apart_is_cut_off_in_the_gap(members: int) -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0, 1, 4000), rng.normal(8, 0.7, members)])
    assert 3 < first_line(scores) < 6.5


@given(st.integers(0, 1000), st.integers(1, 3000))
@settings(max_examples=50, deadline=None)
def test_without_a_gap_a_share_is_above(seed: int, n: int) -> None:
    scores = np.random.default_rng(seed).normal(0, 1, n)
    above = float((scores >= first_line(scores)).mean())
    assert above > 0
    assert n < 400 or above <= MOST_ABOVE + 0.01


@given(st.integers(0, 1000), st.floats(0.01, 100), st.floats(-10, 10))
@settings(max_examples=50, deadline=None)
def test_the_scale_does_not_matter(seed: int, factor: float, shift: float) -> None:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0, 1, 500), rng.normal(5, 1, 50)])
    assert first_line(factor * scores + shift) == pytest.approx(factor * first_line(scores) + shift, abs=0.3 * factor)


def test_equal_scores_have_a_line_too() -> None:
    assert first_line(np.full(100, 0.25, np.float32)) == 0.25


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_proposal_says_what_the_rule_accepts(calibrated: bool) -> None:
    rows = make_rows(make_vectors(1500))
    asked = make_class("c", 2, 1)
    scale = Background(everything(rows)[1]).scale(asked) if calibrated else None
    found = propose(rows, [asked], [scale], [None])

    def accepted(threshold: float | None) -> int:
        question = Question(asked, 1, threshold=threshold, scale=scale)
        return sum(len(block.ids) for block in scan_threshold(rows, question))

    assert found.exact
    assert (found.count, found.without, found.within) == (rows.count, accepted(None), accepted(found.thresholds[0]))
    assert propose(rows, [asked], [scale], [0.5]).thresholds == (0.5,)


def test_a_large_collection_is_judged_by_a_sample() -> None:
    rows = make_rows(make_vectors(12_000, 4))
    found = propose(rows, [make_class("c", 1, 1, 4)], [None], [None])
    assert not found.exact
    assert found.without == pytest.approx(rows.count / 2, rel=0.2)
