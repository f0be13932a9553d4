"""What the page offers where the service or the collection has it, and what it does until they are there."""

import pytest

from tests.browser import tab_of
from tests.front.conftest import asked
from tests.front.steps import CELLS, counts, ids, search, settle, toast, usable, visit
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


def how(tab, label):
    """What one clicks on in the menu of how pictures are shown, which is opened for it."""
    found = tab.page.get_by_label(label, exact=False)
    if not found.is_visible():
        tab.page.get_by_role("button", name="by score").click()
    found.wait_for()
    return found


def boxless(route):
    """Has no detector, and does not say so."""
    route.fulfill(response=route.fetch(post_data=asked(route.request) | {"boxes": False}))


def bodies(tab):
    """What will be asked by POST from now on: (the path's end, the body)."""
    seen = []

    def note(request):
        if request.method == "POST":
            seen.append((request.url.rpartition("/")[2], asked(request)))

    tab.page.on("request", note)
    return seen


def test_what_is_flagged_is_left_out_and_the_link_says_so(tab, offering, browser):
    page = tab.page
    visit(tab, offering)
    search(tab, "a red circle")
    every = sum(counts(tab))
    seen = bodies(tab)
    how(tab, "unsafe (trained head)").check()
    settle(tab)
    assert {path: body["without"] for path, body in seen} == {"search": ["safety"], "distribution": ["safety"]}
    safe = sum(counts(tab))
    assert 0 < safe < every
    how(tab, "violent (prompt filter)").check()
    settle(tab)
    page.keyboard.press("Escape")
    here = page.url, counts(tab), ids(tab)
    assert "without=safety%2Cviolence" in here[0]
    assert sum(here[1]) < safe
    body = {"class": {"positive": ["a red circle"]}, "without": ["safety", "violence"], "limit": 1000}
    left = offering.ask("/api/v1/search", body)[2]["hits"]
    assert len(left) == sum(here[1])
    assert {str(id) for id in here[2]} <= {hit["id"] for hit in left}
    page.locator(CELLS).first.click()
    page.wait_for_selector(".bars")
    settle(tab)
    assert seen[-1][1].get("without", ["safety", "violence"]) == ["safety", "violence"]
    page.keyboard.press("Escape")
    with tab_of(browser, viewport={"width": 1440, "height": 900}) as other:
        other.page.goto(here[0])
        other.page.wait_for_selector(CELLS)
        settle(other)
        assert (counts(other), ids(other)) == here[1:]
    search(tab, "a yellow star")
    page.get_by_role("button", name="No longer without unsafe").click()
    page.get_by_role("button", name="No longer without violent").click()
    settle(tab)
    assert sum(counts(tab)) == every
    assert page.locator(".in-use").count() == 0
    page.go_back()
    page.wait_for_function("() => document.querySelector('.name h1').textContent === 'a red circle'")
    settle(tab)
    assert (page.url, counts(tab), ids(tab)) == here


def test_ratings_and_other_languages_are_asked_for(tab, offering):
    page = tab.page
    having(tab, offering, boxes=True)
    page.route(SEARCH, boxless)
    visit(tab, offering)
    search(tab, "a red circle")
    seen = bodies(tab)
    how(tab, "for the look of a rating").select_option("9")
    settle(tab)
    assert [(body["rating"], body["rating_weight"]) for _, body in seen] == [(9, 0.5)] * 2
    how(tab, "with the weight").fill("1")
    page.wait_for_url("**rating=9&weight=1**")
    settle(tab)
    assert seen[-1][1]["rating_weight"] == 1
    assert seen[-2][1]["boxes"] is True
    how(tab, "in any language").check()
    page.wait_for_url("**lang=any**")
    settle(tab)
    assert [body["multilingual"] for _, body in seen[-2:]] == [True, True]
    assert seen[-2][1]["boxes"] is False  # a detector reads no other languages
    assert page.get_by_label("boxes").is_disabled()
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.wait_for_selector(".reviewing")
    settle(tab)
    assert tab.failed == []
    page.get_by_role("button", name="No longer rated 9, weight 1").click()
    page.wait_for_url(lambda url: "rating" not in url)
    settle(tab)


def test_what_is_not_offered_is_not_shown_and_not_passed_over(tab, scenes):
    page = tab.page
    visit(tab, scenes, "?q=a+red+circle&without=safety&rating=9&lang=any")
    page.wait_for_selector(CELLS)
    said = page.inner_text(".strip.error")
    assert "is served without: the flag “safety”, the rating 9, other languages." in said
    assert tab.failed == []
    page.get_by_role("button", name="by score").click()
    page.get_by_text("one of near-duplicates").wait_for()
    assert page.locator(".menu:popover-open label").count() == 1
    assert page.locator(".in-use").count() == 0


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_what_is_offered(browser, offering, axe, width, scheme):
    with tab_of(browser, viewport={"width": width, "height": 844}, color_scheme=scheme, reduced_motion="reduce") as tab:
        visit(tab, offering, "?q=a+red+circle&without=safety,violence&rating=9&weight=0.8&lang=any")
        tab.page.wait_for_selector(CELLS)
        usable(tab, axe, f"in-use-{width}-{scheme}")
        tab.page.get_by_role("button", name="by score").click()
        tab.page.get_by_text("Leave out").wait_for()
        usable(tab, axe, f"offers-{width}-{scheme}")
        assert tab.errors == []
