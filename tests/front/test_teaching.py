"""What marks and examples teach, as the page shows it."""

import numpy as np
import pytest

from clipsieve.demo_scenes import number_of, scene
from tests.front.steps import CELLS, ids, search, settle, show, toast, visit

pytestmark = pytest.mark.slow

COOL = {"blue", "cyan", "green"}


def say_what_is_cool(service, name, count=40):
    """Mark so many items, as somebody would who means cool colours by that name."""
    question = {"set": {"classes": [{"name": name, "positive": [name]}], "calibration": "background"}, "threshold": -99}
    hits = service.ask("/api/v1/search", {**question, "limit": 500})[2]["hits"]
    marks = [
        {"item": hit["id"], "class": name, "verdict": "right" if is_cool(hit["key"]) else "wrong"}
        for hit in np.random.default_rng(3).permutation(np.array(hits, dtype=object))[:count]
    ]
    assert service.ask("/api/v1/marks", marks)[2] == {"changed": count}
    return {mark["item"] for mark in marks}


def is_cool(key):
    return any(thing.colour in COOL for thing in scene(number_of(key)).objects)


def test_review_asks_what_teaches_most_and_shows_what_was_taught(tab, scenes):
    page, name = tab.page, "something cool"
    said = say_what_is_cool(scenes, name)
    visit(tab, scenes)
    search(tab, name)
    with page.expect_response("**/api/v1/learn") as answer:
        page.keyboard.press("r")
    page.wait_for_selector(".reviewing")
    settle(tab)
    learned = answer.value.json()
    assert learned["wins"]
    asked = ids(tab)
    assert asked == [hit["id"] for hit in learned["review"]]
    assert (len(asked), set(asked) & said) == (10, set())
    page.get_by_role("button", name="Show what your marks teach").click()
    page.wait_for_selector(".reviewing >> text=As your marks teach")
    settle(tab)
    tab.show("taught")
    shown = ids(tab)
    assert shown == [hit["id"] for hit in learned["hits"]] + shown[10:]
    chances = [int(text.removesuffix(" %")) for text in page.locator(f"{CELLS} .score").all_inner_texts()]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 50
    page.locator(".reviewing").get_by_role("button", name="Done").click()
    page.wait_for_selector(".reviewing", state="detached")


def test_several_become_examples_by_one_change(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    show(tab, "below")
    before = ids(tab)
    page.locator(CELLS).first.focus()
    page.keyboard.press("Space")
    page.keyboard.press("Shift+ArrowRight")
    assert page.inner_text("aside.chosen b") == "2"
    page.keyboard.press("e")
    toast(tab, "after these 2 examples")
    settle(tab)
    assert page.locator(".chip.positive .thumb").count() == 2
    assert not set(before[:2]) & set(ids(tab))
    page.keyboard.press("Control+z")
    page.wait_for_selector(".chip.positive .thumb", state="detached")
    settle(tab)
    assert ids(tab) == before
