import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.classset import dumps, from_json, loads
from clipsieve.errors import InputError
from clipsieve.types import ClassSet, Example, MetaClass

texts = st.text(max_size=8)
examples = texts.map(lambda t: Example(text=f"x{t}")) | st.integers(0, 2**63 - 1).map(lambda i: Example(image=i))
examples |= st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda h: Example(image=h))
classes = st.builds(
    MetaClass,
    texts,
    st.lists(examples, min_size=1, max_size=3),
    st.lists(examples, max_size=3),
    st.none() | st.floats(-1, 10),
)
sets = st.builds(
    ClassSet,
    st.lists(classes, min_size=1, max_size=3, unique_by=lambda c: c.name),
    calibration=st.just("background"),
    templates=st.none() | st.just("openai") | st.just(["a {}.", "{}"]),
)


@pytest.mark.slow
@given(sets)
def test_json_gives_the_set_back(made):
    assert loads(dumps(made)) == made


def test_ids_are_strings_in_json():
    made = ClassSet([MetaClass("a", [Example(image=2**60)])])
    assert json.loads(dumps(made))["classes"][0]["positive"] == [{"image": str(2**60)}]


def test_only_names_and_positives_are_needed():
    assert from_json({"classes": [{"name": "a", "positive": ["b"]}]}) == ClassSet([MetaClass("a", ["b"])])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "the class set"),
        ({}, "'classes'"),
        ({"classes": {}}, "classes"),
        ({"classes": [{"name": "a"}]}, r"classes\[0\] has no 'positive'"),
        ({"classes": [{"name": "a", "positive": ["b"], "treshold": 1}]}, "'treshold'"),
        ({"classes": [{"name": "a", "positive": [{"text": "b"}]}]}, "positive holds"),
        ({"classes": [{"name": "a", "positive": [{"image": "zz"}]}]}, "Example.image"),
        ({"classes": [{"name": "a", "positive": ["b"], "threshold": "x"}]}, "threshold"),
        ({"classes": [{"name": "a", "positive": ["b"]}], "templates": 3}, "templates"),
        ({"classifier_configs": []}, "at least one class"),
        ({"classifier_configs": [{"name": "a", "examples_to_include": []}]}, "at least one positive"),
    ],
)
def test_refuses(value, says):
    with pytest.raises(InputError, match=says):
        from_json(value)


def test_text_that_is_no_json():
    with pytest.raises(InputError, match="not JSON"):
        loads("{")


def test_reads_directais_classifier():
    body = {
        "classifier_configs": [
            {"name": "bus", "examples_to_include": ["red bus"], "examples_to_exclude": ["truck"], "colour": "ignored"}
        ]
    }
    assert from_json(body) == ClassSet([MetaClass("bus", ["red bus"], ["truck"])], templates="openai")
    assert from_json(body | {"augment_examples": False}).templates is None


def test_reads_directais_detector():
    made = from_json({"detector_configs": [{"name": "bus", "examples_to_include": ["bus"]}], "nms_threshold": 0.5})
    assert made == ClassSet([MetaClass("bus", ["bus"], threshold=0.1)], templates="simple", nms=0.5, mode="agnostic")
    assert from_json({"detector_configs": [], "class_agnostic_nms": False}).mode == "class-wise"
