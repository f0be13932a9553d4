import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.index.directai import raw_scores, softmax

# Above -1: with a cosine of exactly -1 DirectAI takes a class without negatives for rejected, and gives it the most.
COSINES = st.floats(-1, 1, width=32, exclude_min=True)
SIDES = st.tuples(st.lists(COSINES, min_size=1, max_size=3), st.lists(COSINES, max_size=3))


def in_words(classes):
    """DirectAI's definition read word by word, in exact arithmetic: 0 where a class has no negatives."""
    d = [[[(1 + Fraction(cosine)) / 2 for cosine in side] for side in one] for one in classes]
    p, n = [max(include) for include, _ in d], [max(exclude, default=Fraction(0)) for _, exclude in d]
    if not any(exclude for _, exclude in d):
        return p
    return [a if a > b else 1 - b for a, b in zip(p, n, strict=True)]


def arrays(classes):
    best = np.array([[max(include)] for include, _ in classes], np.float32)
    worst = np.array([[max(exclude, default=-math.inf)] for _, exclude in classes], np.float32)
    return best, worst


@given(st.lists(SIDES, min_size=1, max_size=6))
def test_scores_are_directais_definition(classes):
    raw = raw_scores(*arrays(classes))
    expected = in_words(classes)
    assert raw[:, 0].tolist() == pytest.approx([float(x) for x in expected], abs=1e-12)
    scores = softmax(raw)[:, 0]
    powers = [math.exp(float(x) / 0.07) for x in expected]
    assert scores.tolist() == pytest.approx([x / sum(powers) for x in powers], rel=1e-9)
    assert scores.sum() == pytest.approx(1, abs=1e-12)


@given(COSINES, st.booleans())
def test_neighbouring_cosines_are_told_apart_and_a_tie_is_the_negatives(cosine, up):
    near = np.nextafter(np.float32(cosine), np.float32(1 if up else -1))
    raw = raw_scores(np.array([[cosine], [cosine]], np.float32), np.array([[near], [cosine]], np.float32))
    accepted = bool(near < np.float32(cosine))
    assert raw[0, 0] == ((1 + cosine) / 2 if accepted else 1 - (1 + float(near)) / 2)
    assert raw[1, 0] == 1 - (1 + cosine) / 2


def test_a_rejected_class_outranks_an_accepted_one_where_cosines_are_negative():
    # Unlike `rule.rank_score`: the protocol's own formula, and its clients compare scores with it.
    raw = raw_scores(np.array([[-0.5], [-0.1]], np.float32), np.array([[-0.4], [-0.2]], np.float32))
    np.testing.assert_allclose(raw[:, 0], [0.7, 0.45], atol=1e-7)


def test_a_class_without_negatives_is_never_rejected():
    raw = raw_scores(np.array([[-1.0], [0.0]], np.float32), np.array([[-np.inf], [0.5]], np.float32))
    assert raw[:, 0].tolist() == [0.0, 0.25]
