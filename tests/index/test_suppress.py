import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.index.suppress import Detections, compile_detection, detect, overlapping
from clipsieve.types import ClassVectors, Float32, Mode, ModelId, Regions
from tests.index.made import MODEL, make_class, make_vectors

Boxes = list[tuple[float, float, float, float]]
Found = list[tuple[int, int, float]]
MODES: list[Mode] = ["agnostic", "class-wise"]


def make_regions(
    boxes: Boxes | Float32,
    vectors: Float32,
    shift: npt.ArrayLike = 0,
    scale: npt.ArrayLike = 1,
    item: npt.ArrayLike = 0,
) -> Regions:
    n = len(vectors)
    shifts, scales = (np.broadcast_to(np.asarray(x, np.float32), n).copy() for x in (shift, scale))
    placed = np.asarray(boxes, np.float32).reshape(n, 4)
    items = np.broadcast_to(np.asarray(item, np.int64), n).copy()
    return Regions(vectors, placed, items, np.zeros(n, np.float32), shifts, scales, MODEL)


def axes(*wanted: float) -> Float32:
    """Unit rows with this cosine to the first axis, and the rest on an axis of their own."""
    rows = np.zeros((len(wanted), len(wanted) + 1), np.float32)
    rows[:, 0] = wanted
    rows[np.arange(len(wanted)), np.arange(len(wanted)) + 1] = np.sqrt(1 - rows[:, 0] ** 2)
    return rows


def towards(dim: int, *axis: int) -> Float32:
    return np.eye(dim, dtype=np.float32)[list(axis)]


def found(detections: Detections) -> Found:
    columns = (detections.region.tolist(), detections.label.tolist(), detections.score.tolist())
    return list(zip(*columns, strict=True))


def iou(a: Float32, b: Float32) -> float:
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.tolist(), b.tolist()
    shared = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    return shared / union if union else 0.0


def literal(regions: Regions, classes: list[ClassVectors], thresholds: list[float], nms: float, mode: Mode) -> Found:
    """The pseudo-code of DirectAI's detector, line by line, for one image."""
    boxes, names = range(len(regions.boxes)), range(len(classes))

    def d(b: int, text: Float32) -> float:
        cosine = np.float32(sum(float(x) * float(y) for x, y in zip(regions.vectors[b], text, strict=True)))
        return 1 / (1 + math.exp(-float((cosine + regions.shift[b]) * regions.scale[b])))

    positive = [[max(d(b, t) for t in c.positive) for c in classes] for b in boxes]
    negative = [[max((d(b, t) for t in c.negative), default=0.0) for c in classes] for b in boxes]
    linked = {(a, b) for a in boxes for b in boxes if a != b and iou(regions.boxes[a], regions.boxes[b]) >= nms}
    valid = {
        (b, j)
        for b in boxes
        for j in names
        if positive[b][j] >= thresholds[j]
        and positive[b][j] >= negative[b][j]
        and all(positive[b][j] >= negative[a][j] for a in boxes if (a, b) in linked)
    }

    def greedy(order: list[tuple[int, int]]) -> list[tuple[int, int]]:
        kept: list[tuple[int, int]] = []
        for b, j in sorted(order, key=lambda one: (-positive[one[0]][one[1]], one[0])):
            if not any((b, a) in linked for a, _ in kept):
                kept.append((b, j))
        return kept

    if mode == "class-wise":
        kept = [one for j in names for one in greedy([(b, i) for b, i in valid if i == j])]
    else:
        best = {b: max((j for i, j in valid if i == b), key=lambda j: (positive[b][j], -j)) for b, _ in valid}
        kept = sorted(greedy(list(best.items())), key=lambda one: one[1])
    return [(b, j, positive[b][j]) for b, j in kept]


LAYOUTS = ("grid", "random", "apart", "same")
"""Boxes on a coarse grid, among them some without area and many ties of overlap; anywhere; that share nothing; one."""


def make_boxes(n: int, layout: str, rng: np.random.Generator) -> Float32:
    if layout == "apart":
        at = np.arange(n) / 16
        return np.stack([at, at, at + 1 / 32, at + 1 / 32], axis=1).astype(np.float32)
    if layout == "same":
        return np.tile(np.array([0.25, 0.25, 0.5, 0.75], np.float32), (n, 1))
    corners = rng.integers(0, 5, (n, 2, 2)) / 4 if layout == "grid" else rng.random((n, 2, 2))
    return np.sort(corners, axis=1).reshape(n, 4).astype(np.float32)


THRESHOLDS = st.lists(st.sampled_from([0.0, 1.0, 0.5, 0.1, 0.7, 7.0, -3.0]), min_size=3, max_size=3)


@given(
    st.integers(0, 10**6),
    st.booleans(),
    st.integers(0, 12),
    st.sampled_from(LAYOUTS),
    THRESHOLDS,
    st.sampled_from([0.0, 0.25, 1 / 3, 0.4, 0.5, 1.0, 1.5, -1.0]),
    st.sampled_from(MODES),
)
def test_detection_is_the_rule_in_words(
    seed: int, ties: bool, n: int, layout: str, thresholds: list[float], nms: float, mode: Mode
) -> None:
    rng = np.random.default_rng(seed)
    classes = [
        make_class(str(j), int(rng.integers(1, 3)), int(rng.integers(0, 3)), 6, seed + j, ties) for j in range(3)
    ]
    vectors = towards(6, *rng.integers(0, 4, n)) if ties else make_vectors(n, 6, seed)
    shift, scale = (rng.integers(-1, 2, n) / 2, rng.integers(1, 3, n)) if ties else (rng.normal(size=n), rng.random(n))
    regions = make_regions(make_boxes(n, layout, rng), vectors, shift, 4 * scale)
    kept = found(detect(compile_detection(classes, thresholds, nms, mode), regions))
    expected = literal(regions, classes, thresholds, nms, mode)
    assert [one[:2] for one in kept] == [one[:2] for one in expected]
    assert [one[2] for one in kept] == pytest.approx([one[2] for one in expected], rel=1e-12)


@pytest.mark.slow
@given(st.integers(0, 10**6), st.sampled_from(MODES))
def test_images_asked_together_answer_as_they_do_alone(seed: int, mode: Mode) -> None:
    rng = np.random.default_rng(seed)
    item = np.sort(rng.integers(0, 9, 40)) * 7
    vectors = make_vectors(40, 32, seed)
    whole = make_regions(make_boxes(40, "random", rng), vectors, rng.normal(size=40), 3, item)
    compiled = compile_detection([make_class(str(j), 3, 2, 32, j) for j in range(4)], [0.4, None, 0.0, 0.7], 0.3, mode)
    alone: Found = []
    for image in np.unique(item):
        at = np.flatnonzero(item == image)
        part = make_regions(whole.boxes[at], whole.vectors[at], whole.shift[at], whole.scale[at])
        alone += [(int(at[b]), j, score) for b, j, score in found(detect(compiled, part))]
    assert found(detect(compiled, whole)) == alone
    assert any(a[0] // 20 != b[0] // 20 for a, b in pairwise(alone))


def test_more_images_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(30), rng.integers(1, 5, 30))
    n = len(item)
    regions = make_regions(make_boxes(n, "random", rng), make_vectors(n), 0.3, 4, item)
    compiled = compile_detection([make_class(str(j), 2, 1, seed=j) for j in range(3)], [0.5] * 3, 0.4, "class-wise")
    at_once = found(detect(compiled, regions))
    monkeypatch.setattr("clipsieve.index.suppress.BLOCK", 3 * 16)  # three regions, fewer than some images have
    assert found(detect(compiled, regions)) == at_once
    assert len({int(item[region]) for region, _, _ in at_once}) > 10


@pytest.mark.parametrize("mode", MODES)
def test_nothing_to_look_for_or_to_look_at(mode: Mode) -> None:
    # DirectAI's server answers 500 without a class.
    regions = make_regions([(0, 0, 1, 1)], axes(0.5))
    assert found(detect(compile_detection([], [], 0.4, mode), regions)) == []
    compiled = compile_detection([make_class("a", 1, 1, 2)], [0.0], 0.4, mode)
    assert found(detect(compiled, make_regions([], np.zeros((0, 2), np.float32)))) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nms", [0.4, 1.5])
def test_boxes_of_which_none_overlap(mode: Mode, nms: float) -> None:
    # With class_agnostic_nms, which is its default, DirectAI's server answers 500.
    regions = make_regions([(0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)], axes(0.6, 0.8), scale=5)
    positive = ClassVectors("a", towards(3, 0), np.zeros((0, 3), np.float32), MODEL)
    kept = found(detect(compile_detection([positive], [0.1], nms, mode), regions))
    assert [one[:2] for one in kept] == [(1, 0), (0, 0)]
    assert [one[2] for one in kept] == pytest.approx([1 / (1 + math.exp(-4)), 1 / (1 + math.exp(-3))], abs=1e-7)


@pytest.mark.parametrize(("threshold", "count"), [(0, 2), (-3, 2), (None, 2), (1, 0), (7, 0)])
def test_thresholds_outside_of_what_scores_reach(threshold: float | None, count: int) -> None:
    regions = make_regions([(0, 0, 0.2, 0.2), (0.5, 0.5, 1, 1)], axes(0.6, -0.8), scale=5)
    positive = ClassVectors("a", towards(3, 0), np.zeros((0, 3), np.float32), MODEL)
    for mode in MODES:
        assert len(found(detect(compile_detection([positive], [threshold], 0.4, mode), regions))) == count


def test_a_suppressed_box_still_vetoes() -> None:
    # Three in a row: the first suppresses the second, whose negative vetoes the third; the first is not its neighbour.
    boxes = [(0, 0, 0.5, 1), (0.2, 0, 0.7, 1), (0.4, 0, 0.9, 1)]
    vectors = np.array([[0.8, 0, 0.6], [0.6, 0.5, math.sqrt(0.39)], [0.4, 0, math.sqrt(0.84)]], np.float32)
    positive, negative = towards(3, 0), towards(3, 1)
    for mode in MODES:
        kept = []
        for against in (negative, negative[:0]):
            one = ClassVectors("a", positive, against, MODEL)
            compiled = compile_detection([one], [0.0], 0.4, mode)
            kept.append([b for b, _, _ in found(detect(compiled, make_regions(boxes, vectors)))])
        assert kept == [[0], [0, 2]]


def test_the_mode_says_whether_classes_suppress_each_other() -> None:
    vectors = np.array([[0.8, 0.6], [0.6, 0.8]], np.float32)
    regions = make_regions([(0, 0, 1, 1)] * 2, vectors)
    none = np.zeros((0, 2), np.float32)
    classes = [ClassVectors("a", towards(2, 0), none, MODEL), ClassVectors("b", towards(2, 1), none, MODEL)]
    kept = {mode: found(detect(compile_detection(classes, [0.0, 0.0], 0.5, mode), regions)) for mode in MODES}
    assert [one[:2] for one in kept["class-wise"]] == [(0, 0), (1, 1)]
    assert [one[:2] for one in kept["agnostic"]] == [(0, 0)]  # of equals the first


def test_a_text_on_both_sides_is_a_tie_for_the_positive() -> None:
    texts, vectors = make_vectors(3, 512, 1), make_vectors(50, 512, 2)
    apart = make_boxes(50, "apart", np.random.default_rng(0)) / 4
    # In another order, where a plain float32 product may differ in the last bit.
    both = ClassVectors("both", texts, texts[::-1].copy(), MODEL)
    kept = found(detect(compile_detection([both], [None], 0.5, "class-wise"), make_regions(apart, vectors)))
    assert len(kept) == 50


def test_scores_that_run_together_are_still_compared() -> None:
    # In float32, and in float64 from 37 on, the sigmoid of all of these is 1.
    regions = make_regions([(0, 0, 1, 1)] * 3, axes(0.5, 0.7, 0.6), scale=1000)
    positive = ClassVectors("a", towards(4, 0), np.zeros((0, 4), np.float32), MODEL)
    assert found(detect(compile_detection([positive], [1.0], 0.5, "agnostic"), regions)) == [(1, 0, 1.0)]
    far = make_regions([(0, 0, 1, 1)], axes(-0.5), scale=3e38, shift=-100)
    positive = ClassVectors("a", towards(2, 0), np.zeros((0, 2), np.float32), MODEL)
    assert found(detect(compile_detection([positive], [0.1], 0.5, "agnostic"), far)) == []


def test_overlaps(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = np.array([(0, 0, 1, 1), (0, 0, 1, 0.5), (0.5, 0.5, 0.5, 1), (0.5, 0.5, 0.5, 1)], np.float32)
    everything = np.ones((4, 4), np.bool_)
    diagonal = np.eye(4, dtype=np.bool_)
    half = diagonal.copy()
    half[0, 1] = half[1, 0] = True  # what is just as much as asked for counts
    for pairs in (2**15, 8, 1):
        monkeypatch.setattr("clipsieve.index.suppress.PAIRS", pairs)
        for nms, expected in [(0.5, half), (0.500001, diagonal), (1.5, diagonal), (0, everything), (-1, everything)]:
            for first in range(5):
                np.testing.assert_array_equal(overlapping(boxes, first, nms), expected[:first])


def test_what_cannot_be_meant() -> None:
    one, other = make_class("a", 1, 0, 2), make_class("a", 1, 0, 2, seed=1)
    with pytest.raises(InputError, match="Two classes are named 'a'"):
        compile_detection([one, other], [0.1, 0.1], 0.4, "agnostic")
    with pytest.raises(InputError, match="2 thresholds for 1 classes"):
        compile_detection([one], [0.1, 0.1], 0.4, "agnostic")
    for thresholds, nms in (([math.nan], 0.4), ([0.1], math.nan)):
        with pytest.raises(InputError, match="NaN"):
            compile_detection([one], thresholds, nms, "agnostic")
    compiled = compile_detection([one], [0.1], 0.4, "agnostic")
    foreign = ClassVectors("a", one.positive, one.negative, ModelId("other", "0", "none"))
    regions = make_regions([(0, 0, 1, 1)] * 2, towards(2, 0, 1))
    with pytest.raises(ModelMismatch):
        detect(compile_detection([foreign], [0.1], 0.4, "agnostic"), regions)
    backwards = make_regions(regions.boxes, regions.vectors, item=[1, 0])
    with pytest.raises(InputError, match="descends"):
        detect(compiled, backwards)
