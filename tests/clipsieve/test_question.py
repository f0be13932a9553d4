import json

import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.question import ask, ask_set, read_set
from clipsieve.types import Example, content_hash


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "bus.jpg"
    path.write_bytes(b"stands for a picture")
    return path


def test_texts_alone_are_compared_by_cosine():
    asked = ask(["red bus", "coach"], ["red truck"], threshold=0.2)
    assert asked.question.name == "red bus or coach"
    assert asked.question.negative == (Example(text="red truck"),)
    assert asked.question.threshold == 0.2
    assert asked.classes.calibration == "none"
    assert asked.notes == ()


def test_an_image_is_carried_along_and_called_by_its_name(image):
    asked = ask(images=[image])
    digest = content_hash(image.read_bytes())
    assert asked.question.positive == (Example(image=digest),)
    assert asked.uploads == {digest: image.read_bytes()}
    assert asked.names == {digest: str(image)}
    assert asked.classes.calibration == "none"


@pytest.mark.parametrize("kind", ["not_images", "images"])
def test_where_texts_and_images_meet_the_background_calibrates_and_a_note_says_so(image, kind):
    asked = ask(["red bus"], **{kind: [image]})
    assert asked.classes.calibration == "background"
    assert "--calibration background" in asked.notes[0]


def test_an_explicit_calibration_is_kept(image):
    assert ask(["red bus"], calibration="background").classes.calibration == "background"
    with pytest.raises(InputError, match="calibration='background'"):
        ask(["red bus"], images=[image], calibration="none")


def test_nothing_positive_or_no_such_image_is_an_error(tmp_path):
    with pytest.raises(InputError, match="Nothing was asked for"):
        ask(not_texts=["red truck"])
    with pytest.raises(InputError, match=r"nowhere\.jpg is not there"):
        ask(images=[tmp_path / "nowhere.jpg"])


def write_set(path, *names):
    classes = [{"name": n, "positive": [f"a {n}"], "threshold": 0.1} for n in names]
    path.write_text(json.dumps({"classes": classes, "templates": "simple"}))
    return path


def test_a_class_of_a_set(tmp_path):
    path = write_set(tmp_path / "set.json", "bus", "truck")
    asked = ask_set(path, "truck", threshold=0.3)
    assert (asked.question.name, asked.question.threshold) == ("truck", 0.3)
    assert asked.classes.templates == "simple"
    assert ask_set(path, "bus").question.threshold == 0.1
    with pytest.raises(InputError, match="choose one with --class: bus, truck"):
        ask_set(path, None)
    with pytest.raises(NotFound, match="has no class 'car'; it has bus, truck"):
        ask_set(path, "car")
    assert ask_set(write_set(tmp_path / "one.json", "bus"), None).question.name == "bus"


def test_a_broken_set_is_named(tmp_path):
    path = tmp_path / "set.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"set\.json: The class set is not JSON"):
        read_set(path)


def test_a_line_of_the_other_scale_is_noted() -> None:
    (note,) = ask(["red"], threshold=3).notes
    assert "--calibration background" in note
    assert ask(["red"], threshold=3, calibration="background").notes == ()
    assert ask(["red"], threshold=0.3).notes == ()
