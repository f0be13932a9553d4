import numpy as np
import pytest

from clipsieve.index.kinds import (
    OLD_K,
    KindRecall,
    Sample,
    Use,
    kinds_of,
    shapes_of,
    sources_of,
    to_json,
    use_for,
)
from clipsieve.index.rule import Question
from clipsieve.manifest import Index
from clipsieve.types import ClassVectors, Example, Float32, Int64, ModelId

KINDS = (
    KindRecall("image", "one", 40, 8, 0.97),
    KindRecall("image", "one", 1000, 30, 0.96),
    KindRecall("image", "several", 40, 6, 0.99),
    KindRecall("image", "far", 40, None, None),
    KindRecall("text", "one", 40, 200, 0.95),
)


@pytest.mark.parametrize(
    ("sources", "shapes", "k", "use"),
    [
        ({"image"}, {"one"}, 40, Use(True, 8, 0.97)),
        ({"image"}, {"one"}, 41, Use(True, 30, 0.96)),
        ({"image"}, {"one"}, 1001, Use(False)),  # measured, and for no answer so large
        ({"text"}, {"one"}, 5, Use(True, 200, 0.95)),
        ({"image", "text"}, {"one"}, 5, Use(True, 200, 0.95)),
        ({"image"}, {"several", "far"}, 5, Use(False)),  # one of its kinds does not pay
        ({"image"}, {"several", "negative"}, 5, Use(True, 200, None)),  # one of its kinds was not measured
        ({"text", "image"}, {"several", "far"}, 5, Use(False)),
    ],
)
def test_a_question_uses_the_index_as_the_worst_of_its_kinds(sources, shapes, k, use):
    assert use_for(KINDS, sources, shapes, k) == use


def entry(parameters: dict[str, object], recall: float | None) -> Index:
    return Index("image", "IVF64,Flat", parameters, (0,), 10, recall, {})


def test_an_older_index_has_a_figure_for_images_alone():
    kinds = kinds_of(entry({"effort": 12}, 0.97))
    assert kinds == (KindRecall("image", "one", OLD_K, 12, 0.97),)
    assert use_for(kinds, {"image"}, {"one"}, 10_000) == Use(True, 12, 0.97)
    assert use_for(kinds, {"text"}, {"one"}, 40) == Use(True, 12, None)
    assert use_for(kinds, {"image"}, {"one", "filtered"}, 40) == Use(True, 12, None)
    assert kinds_of(entry({}, None)) == ()


def test_kinds_are_kept_as_json_and_those_of_a_later_version_are_passed_over():
    stored = to_json(KINDS)
    assert kinds_of(entry({"kinds": stored}, 0.95)) == KINDS
    assert kinds_of(entry({"kinds": [{"source": "sound", "shape": "one", "k": 4}, *stored]}, 0.95)) == KINDS


def question(only: Int64 | None, without: Int64 | None = None, positives: int = 1, negatives: int = 0) -> Question:
    units: Float32 = np.eye(4, dtype=np.float32)
    vectors = ClassVectors("q", units[:positives], units[2 : 2 + negatives], ModelId("m", "", ""))
    return Question(vectors, 5, only=only, without=without)


def test_a_filter_is_far_where_it_leaves_few_of_the_rows_nearest_the_question():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((4000, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ids = np.arange(4000) * 2
    sample, order = Sample(ids, vectors), ids[np.argsort(vectors[:, 0])]

    def shapes(only, without=None, **examples):
        return shapes_of(question(only, without, **examples), lambda: sample)

    assert shapes(None) == {"one"}
    assert shapes(None, order[:10]) == {"one"}  # a few left out are no filter
    assert shapes(None, positives=2, negatives=1) == {"several", "negative"}
    for share in (400, 2000):
        assert shapes(order[-share:]) == {"one", "filtered"}
        assert shapes(rng.choice(ids, share, replace=False)) == {"one", "filtered"}
        assert shapes(order[:share]) == {"one", "far"}
        assert shapes(None, order[-share:]) == {"one", "far"}  # what is left out is a filter, too
        assert shapes(order[:share], positives=2) != {"several"}


def test_a_sample_is_looked_at_for_filters_alone():
    def fail() -> Sample:
        raise AssertionError

    assert shapes_of(question(None), fail) == {"one"}


def test_a_part_of_an_image_is_an_image():
    assert sources_of([Example(text="a cat"), Example(image=3)]) == {"image", "text"}
    assert sources_of([Example(image=3, box=(0, 0, 1, 1))]) == {"image"}
