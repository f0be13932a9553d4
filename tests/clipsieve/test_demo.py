"""The demo with an embedder that needs no weights."""

import io

import pytest
from rich.console import Console

from clipsieve.demo import SHOWN, run_demo
from clipsieve.demo_scenes import PHOTO_QUESTIONS, SCENE_QUESTIONS, caption, make_scenes, name, number_of, scene
from clipsieve.errors import InputError
from clipsieve.inference.fake import FakeEmbedder


def demo(out, images=None, load=lambda: FakeEmbedder(name="mini"), count=48):
    text = io.StringIO()
    return run_demo(out, images, load, count=count, console=Console(file=text, width=200)), text.getvalue()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    return out, *demo(out)


def test_it_answers_three_questions_with_reasons(done):
    _, result, said = done
    assert [a["question"] for a in result["answers"]] == [g.question.name for g in SCENE_QUESTIONS]
    for answer in result["answers"]:
        assert 0 < len(answer["hits"]) <= SHOWN
        assert answer["claim"] == "exact"
        assert 0 <= answer["right"] <= len(answer["hits"])
    for words in ("looks like: a red circle", "nearest not: a red heart", "+0.", "exact: no better image"):
        assert words in said


def test_it_says_what_it_used_where_the_sheet_is_and_what_to_try_next(done):
    out, result, said = done
    assert "48 images, embedded by the demo model." in said
    assert f"The contact sheet is {out / 'contact-sheet.html'}" in said
    assert f"clipsieve search {out / 'collection'}" in said
    page = (out / "contact-sheet.html").read_text()
    assert page.count("<img ") == sum(len(a["hits"]) for a in result["answers"])
    assert "no picture" not in page
    assert "embedded by the demo model" in page


def test_a_second_run_gives_the_same_and_draws_and_embeds_nothing(done):
    out, result, _ = done
    before = {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()}
    again, _ = demo(out)
    assert {path: path.stat().st_mtime_ns for path in (out / "images").iterdir()} == before
    for first, second in zip(result["answers"], again["answers"], strict=True):
        assert second["hits"] == first["hits"]


def test_ones_own_images(done, tmp_path):
    scenes, _, _ = done
    photos = tmp_path / "my [odd] photos"
    photos.mkdir()
    for i in range(5):
        (photos / f"{i}.jpg").write_bytes((scenes / "images" / name(i)).read_bytes())
    (photos / "broken.jpg").write_bytes(b"?")
    result, said = demo(tmp_path / "out", photos)
    assert [a["question"] for a in result["answers"]] == [q.name for q in PHOTO_QUESTIONS]
    assert "The demo model is tiny" in said
    assert "as drawn" not in said
    assert result["images"] == 5
    (photos / "another.jpg").write_bytes((scenes / "images" / name(7)).read_bytes())
    again, _ = demo(tmp_path / "out", photos)
    assert again["images"] == 6


def test_what_cannot_be_is_said(tmp_path, done):
    with pytest.raises(InputError, match="is not a folder"):
        demo(tmp_path / "out", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no images"):
        demo(tmp_path / "out", tmp_path / "empty")
    with pytest.raises(InputError, match="was made with another model; remove that folder"):
        demo(done[0], load=lambda: FakeEmbedder(dim=16, name="mini"))


def test_scenes_are_the_same_each_time_and_have_captions(tmp_path):
    make_scenes(tmp_path, 8)
    (tmp_path / name(3)).unlink()
    before = (tmp_path / name(5)).read_bytes()
    make_scenes(tmp_path, 8)
    assert (tmp_path / name(5)).read_bytes() == before
    assert sorted(number_of(p.name) for p in tmp_path.glob("*.jpg")) == list(range(8))
    assert "a red circle" in (tmp_path / name(0)).with_suffix(".txt").read_text().replace("striped ", "").replace(
        "dotted ", ""
    ).replace("checkered ", "")
    assert caption(scene(4)) == caption(scene(4))


@pytest.mark.slow
def test_every_scene_question_has_enough_right_answers_and_wrong_ones_close_by():
    scenes = [scene(i) for i in range(600)]
    for graded in SCENE_QUESTIONS:
        right = sum(map(graded.right, scenes))
        assert SHOWN * 2 <= right <= 300, graded.question.name
    assert sum("red circle" in caption(s) and "blue square" in caption(s) for s in scenes) >= SHOWN
