"""Deploy bodies, and what FastAPI 0.88 with pydantic 1.10 made of them: recorded from a server with the same models."""

import pytest

from clipsieve.back.deployed import read_classifier, read_detector
from clipsieve.back.pydantic_v1 import parse
from clipsieve.errors import InputError

ONE = "1 validation error for Request body"
MISSING = "field required (type=value_error.missing)"
NULL = "none is not an allowed value (type=type_error.none.not_allowed)"
NO_LIST = "value is not a valid list (type=type_error.list)"
NO_DICT = "value is not a valid dict (type=type_error.dict)"
NO_TEXT = "str type expected (type=type_error.str)"
NO_NUMBER = "value is not a valid float (type=type_error.float)"
NO_SWITCH = "value could not be parsed to a boolean (type=type_error.bool)"


def body(**fields):
    return {"classifier_configs": [{"name": "a", "examples_to_include": ["a"], **fields}]}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, f"{ONE} -> classifier_configs {MISSING}"),
        (None, f"{ONE} {MISSING}"),
        ([1], f"{ONE} {NO_DICT}"),
        ("x", f"{ONE} {NO_DICT}"),
        (b"{}", f"{ONE} {NO_DICT}"),
        ({"classifier_configs": None}, f"{ONE} -> classifier_configs {NULL}"),
        ({"classifier_configs": {}}, f"{ONE} -> classifier_configs {NO_LIST}"),
        ({"classifier_configs": "ab"}, f"{ONE} -> classifier_configs {NO_LIST}"),
        ({"classifier_configs": [None]}, f"{ONE} -> classifier_configs -> 0 {NULL}"),
        ({"classifier_configs": [5]}, f"{ONE} -> classifier_configs -> 0 {NO_DICT}"),
        (body(name=None), f"{ONE} -> classifier_configs -> 0 -> name {NULL}"),
        (body(name=[]), f"{ONE} -> classifier_configs -> 0 -> name {NO_TEXT}"),
        (body(examples_to_include=None), f"{ONE} -> classifier_configs -> 0 -> examples_to_include {NULL}"),
        (body(examples_to_include="ab"), f"{ONE} -> classifier_configs -> 0 -> examples_to_include {NO_LIST}"),
        (body(examples_to_include={"a": 1}), f"{ONE} -> classifier_configs -> 0 -> examples_to_include {NO_LIST}"),
        (body(examples_to_include=[None]), f"{ONE} -> classifier_configs -> 0 -> examples_to_include -> 0 {NULL}"),
        (body(examples_to_exclude=None), f"{ONE} -> classifier_configs -> 0 -> examples_to_exclude {NULL}"),
        (body(examples_to_exclude=[[]]), f"{ONE} -> classifier_configs -> 0 -> examples_to_exclude -> 0 {NO_TEXT}"),
        ({**body(), "deployed_id": []}, f"{ONE} -> deployed_id {NO_TEXT}"),
        ({**body(), "augment_examples": 2}, f"{ONE} -> augment_examples {NO_SWITCH}"),
        ({**body(), "augment_examples": 1.5}, f"{ONE} -> augment_examples {NO_SWITCH}"),
        ({**body(), "augment_examples": " true"}, f"{ONE} -> augment_examples {NO_SWITCH}"),
        ({**body(), "augment_examples": []}, f"{ONE} -> augment_examples {NO_SWITCH}"),
        (
            {
                "classifier_configs": [{"name": "a"}, {"examples_to_include": ["x"]}, {}],
                "augment_examples": "perhaps",
            },
            "5 validation errors for Request "
            f"body -> classifier_configs -> 0 -> examples_to_include {MISSING} "
            f"body -> classifier_configs -> 1 -> name {MISSING} "
            f"body -> classifier_configs -> 2 -> name {MISSING} "
            f"body -> classifier_configs -> 2 -> examples_to_include {MISSING} "
            f"body -> augment_examples {NO_SWITCH}",
        ),
        (
            body(examples_to_include=["a", None, {}]),
            f"2 validation errors for Request body -> classifier_configs -> 0 -> examples_to_include -> 1 {NULL} "
            f"body -> classifier_configs -> 0 -> examples_to_include -> 2 {NO_TEXT}",
        ),
        # pydantic takes this one; its tokenizer does not, and the answer there is a 500.
        (body(name="\ud83d"), f"{ONE} -> classifier_configs -> 0 -> name {NO_TEXT}"),
    ],
)
def test_what_is_wrong_is_said_in_pydantics_words(value, message):
    with pytest.raises(InputError) as error:
        read_classifier(value)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given", "read"),
    [
        *((True, True), (False, False), (None, None), (0, False), (1, True), (1.0, True), ("true", True)),
        *(("TRUE", True), ("yes", True), ("no", False), ("on", True), ("off", False), ("y", True), ("n", False)),
        *(("t", True), ("f", False), ("1", True), ("0", False)),
    ],
)
def test_every_spelling_of_a_switch(given, read):
    assert read_classifier({**body(), "augment_examples": given})[0].augment is read


def test_what_is_no_text_becomes_one_and_unknown_fields_are_passed_over():
    value = {**body(name=True, examples_to_include=[1, 2.5, "x"], colour="red"), "deployed_id": 5, "version": 2}
    deployed, id = read_classifier(value)
    assert (deployed.classes[0].name, id, deployed.augment) == ("True", "5", True)
    assert [example.text for example in deployed.classes[0].positive] == ["1", "2.5", "x"]
    assert deployed.classes[0].negative == ()


@pytest.mark.parametrize(
    ("given", "read"), [(1, 1.0), (True, 1.0), ("0.5", 0.5), (" 1e-1 ", 0.1), (-3, -3.0), (7.0, 7.0)]
)
def test_every_spelling_of_a_number(given, read):
    one = {"name": "a", "examples_to_include": ["a"], "detection_threshold": given}
    deployed, _ = read_detector({"detector_configs": [one], "nms_threshold": given})
    assert (deployed.classes[0].threshold, deployed.detector.nms) == (read, read)


@pytest.mark.parametrize(
    ("given", "words"),
    [(None, NULL), ("x", NO_NUMBER), ("", NO_NUMBER), ([], NO_NUMBER), ({}, NO_NUMBER), (10**400, NO_NUMBER)],
)
def test_what_is_no_number(given, words):
    one = {"name": "a", "examples_to_include": ["a"], "detection_threshold": given}
    with pytest.raises(InputError) as error:
        read_detector({"detector_configs": [one], "nms_threshold": given, "class_agnostic_nms": 2})
    assert str(error.value) == (
        f"3 validation errors for Request body -> detector_configs -> 0 -> detection_threshold {words} "
        f"body -> nms_threshold {words} body -> class_agnostic_nms {NO_SWITCH}"
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            b"nonsense",
            f"{ONE} -> 0 Expecting value: line 1 column 1 (char 0) "
            "(type=value_error.jsondecode; msg=Expecting value; doc=nonsense; pos=0; lineno=1; colno=1)",
        ),
        (
            '{"é": }'.encode(),
            f"{ONE} -> 6 Expecting value: line 1 column 7 (char 6) "
            '(type=value_error.jsondecode; msg=Expecting value; doc={"é": }; pos=6; lineno=1; colno=7)',
        ),
    ],
)
def test_a_body_that_is_no_json(data, message):
    with pytest.raises(InputError) as error:
        parse(data, "application/json")
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("content_type", "is_json"),
    [
        ("application/json", True),
        ("application/vnd.x+json", True),
        ("", True),
        ("text/plain", False),
        ("a/json", False),
    ],
)
def test_json_is_what_says_so_or_says_nothing(content_type, is_json):
    assert parse(b"{}", content_type) == ({} if is_json else b"{}")
    assert parse(b"", content_type) is None
