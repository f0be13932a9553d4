"""What the page offers where the service or the collection has it, and what it does until they are there."""

import pytest

from tests.browser import tab_of
from tests.front.conftest import asked
from tests.front.steps import CELLS, ids, search, settle, toast, visit
from tests.front.test_states import SEARCH

pytestmark = pytest.mark.slow

PASTE = """async url => {
    const data = new DataTransfer();
    data.items.add(new File([await (await fetch(url)).blob()], 'pasted.jpg', { type: 'image/jpeg' }));
    document.dispatchEvent(new ClipboardEvent('paste', { clipboardData: data, bubbles: true }));
}"""


def having(tab, service, **more):
    """Let the service's only collection be said to have these."""
    info = service.ask("/api/v1/info")[2]
    info["collections"][0].update(more)
    tab.page.route("**/api/v1/info", lambda route: route.fulfill(json=info))


def test_while_collections_open_it_waits(tab, scenes):
    page = tab.page
    opening = {"error": {"code": 503, "message": "The collections are being opened.", "request_id": "a"}}
    page.route("**/api/v1/info", lambda route: route.fulfill(status=503, json=opening))
    page.goto(scenes.url)
    page.wait_for_selector(".strip.busy")
    tab.show("opening")
    assert "being opened" in page.inner_text(".strip")
    page.unroute("**/api/v1/info")
    page.wait_for_selector(".wall img")
    page.wait_for_selector(".strip", state="detached")


def test_places_are_kept_for_the_first_pictures(tab, scenes):
    page, held = tab.page, []
    visit(tab, scenes)
    page.route(SEARCH, lambda route: held.append(route))
    page.fill("#q", "a red circle")
    page.press("#q", "Enter")
    page.wait_for_selector("#grid .blank")
    tab.show("skeleton")
    assert page.get_attribute("#grid", "aria-busy") == "true"
    held[0].continue_()
    page.wait_for_selector(CELLS)


def test_a_stored_set_is_a_link(tab, scenes, browser):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    page.get_by_role("button", name="Classes", exact=True).click()
    page.fill("input[name=name]", "dots")
    tab.show("classes-menu")
    page.get_by_role("button", name="Store here").click()
    toast(tab, "Stored as")
    page.wait_for_url("**/?*set=dots*")
    with tab_of(browser) as other:
        other.page.goto(page.url)
        other.page.wait_for_selector(CELLS)
        settle(other)
        assert other.page.inner_text(".name h1") == "a red circle"
        assert ids(other)[:10] == ids(tab)[:10]


def test_an_image_is_pasted(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    first = ids(tab)[0]
    tab.page.evaluate(PASTE, f"{scenes.url}/api/v1/items/{first}/image")
    tab.page.wait_for_selector(".chip.positive .thumb")
    settle(tab)
    assert ids(tab)[0] == first


def test_pictures_and_captions(tab, scenes):
    page = tab.page
    having(tab, scenes, modalities=["image", "text"])
    visit(tab, scenes)
    search(tab, "a red circle")
    nothing = {"index_rev": "1", "claim": "exact", "recall": None, "timings_ms": {"total": 1.0}, "next": None}
    page.route(SEARCH, lambda route: route.fulfill(json={**nothing, "hits": []}))
    page.get_by_role("button", name="by score").click()
    tab.show("how-menu")
    with page.expect_request(SEARCH) as request:
        page.get_by_role("button", name="captions").click()
    assert asked(request.value)["modality"] == "text"
    page.wait_for_url("**in=text*")


def test_boxes_are_asked_for_and_done_without(tab, scenes):
    page, seen = tab.page, []
    having(tab, scenes, boxes=True)
    page.on("request", lambda request: seen.append(asked(request)) if request.url.endswith("/search") else None)
    visit(tab, scenes)
    search(tab, "a red circle")
    assert [body["boxes"] for body in seen] == [True, False]  # this service has no detector
    assert page.locator(".strip").count() == 0
    search(tab, "a blue square")
    assert [body["boxes"] for body in seen] == [True, False, False]
