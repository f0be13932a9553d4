"""What one does with the page, and what one reads there."""

import re

from tests.back.service import poll

PAINTED = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() =>
    done(document.querySelector('#grid')?.getAttribute('aria-busy') === 'true'))))"""
CELLS = '#grid [role="gridcell"]:not(.blank)'
STATES = ("matched", "rejected", "below")
NOT = "a red circle with a blue square"


def visit(tab, service, query=""):
    """Open the page, and wait until it shows what its address says."""
    tab.page.goto(f"{service.url}/{query}")
    tab.page.wait_for_selector(".which b")
    if query:
        settle(tab)


def settle(tab):
    """Wait until nothing is asked any more, twice in a row: an answer may lead to a question."""
    quiet = 0

    def done():
        nonlocal quiet
        busy = tab.page.evaluate(PAINTED)
        quiet = 0 if busy or tab.asking else quiet + 1
        return quiet == 2

    poll(done, 30, lambda: f"still asking {[request.url for request in tab.asking]}")


def search(tab, text):
    """Type and press Enter."""
    tab.page.fill("#q", text)
    tab.page.press("#q", "Enter")
    tab.page.wait_for_function("t => document.querySelector('.name h1')?.textContent === t", arg=text)
    tab.page.wait_for_selector(CELLS)
    settle(tab)


def add_example(tab, side, text):
    """Type one more example; side is positive or negative."""
    tab.page.locator(f".examples.{side} button.add").click()
    tab.page.keyboard.type(text)
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_selector(f".chip.{side} >> text='{text}'")
    settle(tab)


def show(tab, view):
    """Choose a tab."""
    tab.page.locator(f"[role=tab]:nth-child({STATES.index(view) + 1})").click()
    settle(tab)


def counts(tab):
    """How many are matched, rejected and below."""
    numbers = tab.page.locator(".tabs [role=tab] .n").all_inner_texts()
    return [int(re.sub(r"\D", "", number)) for number in numbers]


def ids(tab):
    """The items in the grid, as far as they are in the page, in order."""
    cells = tab.page.locator(CELLS)
    found = cells.evaluate_all("all => all.map(one => [Number(one.dataset.at), one.dataset.id])")
    return [id for _, id in sorted(found)]


def toast(tab, containing):
    """Wait for a toast with these words."""
    place = tab.page.locator(".toast", has_text=containing)
    place.wait_for()
    return place


def usable(tab, axe, state, width):
    """What axe finds wrong for people who cannot see, point or read well; that nothing is wider than the window."""
    tab.show(state)
    tab.page.evaluate(axe)
    found = tab.page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
    assert [(one["id"], [node["html"] for node in one["nodes"][:3]]) for one in bad] == [], state
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") <= width, state
