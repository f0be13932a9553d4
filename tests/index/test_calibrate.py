import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.errors import InputError
from clipsieve.index.calibrate import Background, Scale, tail_level, tail_score
from clipsieve.types import ClassVectors, ModelId


def test_tail_score_against_erfc() -> None:
    for z in np.linspace(-8, 37, 200):
        assert tail_score(z) == pytest.approx(-math.log10(math.erfc(z / math.sqrt(2)) / 2), abs=2e-7)


def test_tail_score_against_mpmath_far_out() -> None:
    mpmath = pytest.importorskip("mpmath")
    for z in (40.0, 100.0, 1e3, 1e4):
        assert tail_score(z) == pytest.approx(float(-mpmath.log10(mpmath.erfc(z / mpmath.sqrt(2)) / 2)), rel=1e-9)


def test_tail_score_reads_as_promised() -> None:
    assert tail_score(3.0902323) == pytest.approx(3, abs=1e-6)  # one in a thousand
    assert tail_score(0) == pytest.approx(math.log10(2), abs=1e-7)
    assert tail_score(-math.inf) == 0
    assert tail_score(-60) == 0


@given(st.floats(1e-3, 300))
def test_tail_level_inverts(score: float) -> None:
    level = tail_level(score)
    assert tail_score(level) == pytest.approx(score, rel=1e-5)


def test_tail_level_of_nothing() -> None:
    assert tail_level(0) == -math.inf


@given(st.floats(-30, 300), st.floats(1e-3, 10))
def test_scores_rise_with_levels(z: float, step: float) -> None:
    assert tail_score(z + step) >= tail_score(z)


def test_a_background_is_robust_and_leaves_the_example_out() -> None:
    rng = np.random.default_rng(0)
    sample = rng.standard_normal((2000, 32)).astype(np.float32)
    sample /= np.linalg.norm(sample, axis=1, keepdims=True)
    example = sample[:1].copy()
    sample[1:40] = example  # copies of the example
    lean = example + sample[100:300] * 1.2  # a tenth of the collection is of the class
    sample[100:300] = lean / np.linalg.norm(lean, axis=1, keepdims=True)
    model = ModelId("m", "0", "")
    scale = Background(sample).scale(ClassVectors("c", example, np.zeros((0, 32), np.float32), model))
    expected = 1 / math.sqrt(32)  # of the cosine between random directions
    assert abs(scale.center[0]) < 0.3 * expected
    assert scale.spread[0] == pytest.approx(expected, rel=0.2)


def test_a_background_without_any_spread() -> None:
    sample = np.zeros((30, 4), np.float32)
    sample[:, 0] = 1
    c = ClassVectors("c", sample[:1].copy(), np.eye(4, dtype=np.float32)[1:2], ModelId("m", "0", ""))
    scale = Background(sample).scale(c)
    assert np.isfinite(scale.score((np.ones(2) - scale.center) / scale.spread)).all()


def test_errors() -> None:
    with pytest.raises(InputError, match="20"):
        Background(np.zeros((3, 4), np.float32))
    with pytest.raises(InputError, match="spread"):
        Scale(np.zeros(2), np.zeros(2))
    c = ClassVectors("c", np.eye(4, dtype=np.float32)[:1], np.zeros((0, 4), np.float32), ModelId("m", "0", ""))
    with pytest.raises(InputError, match="dimensions"):
        Background(np.ones((30, 5), np.float32)).scale(c)
