"""Whether everybody can use the page: in each of its states, light and dark, wide and narrow."""

import pytest

from tests.browser import tab_of
from tests.front.steps import CELLS, NOT, add_example, search, settle, show, toast, usable, visit
from tests.front.test_states import SEARCH

pytestmark = pytest.mark.slow

INFO = "**/api/v1/info"
JOBS = "**/api/v1/jobs"


@pytest.fixture(params=["light", "dark"])
def scheme(request):
    return request.param


@pytest.fixture(params=[390, 1024, 1440])
def width(request):
    return request.param


@pytest.fixture
def tab(browser, width, scheme):
    """A tab of this width and scheme, in which nothing moves and nothing may go wrong."""
    size = {"width": width, "height": 844}
    with tab_of(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as tab:
        yield tab
        assert tab.errors == []


@pytest.fixture
def check(tab, axe, width, scheme):
    return lambda state: usable(tab, axe, f"axe-{state}-{width}-{scheme}")


def test_what_is_found(tab, scenes, check):
    page = tab.page
    visit(tab, scenes)
    page.wait_for_selector(".wall img")
    check("first")
    search(tab, "a red circle")
    add_example(tab, "negative", NOT)
    toast(tab, "after this example")
    check("found")
    show(tab, "rejected")
    check("rejected")
    page.locator(CELLS).first.click()
    page.wait_for_selector(".bars")
    settle(tab)
    check("item")
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog[open]", state="detached")
    page.keyboard.press("?")
    page.wait_for_selector("dialog.help[open]")
    check("help")
    page.keyboard.press("Escape")
    page.locator(CELLS).first.focus()
    page.keyboard.press("Space")
    page.wait_for_selector("aside.chosen")
    check("chosen")
    page.keyboard.press("Escape")
    page.keyboard.press("r")
    page.wait_for_selector(".reviewing")
    settle(tab)
    check("review")


def test_trouble(tab, scenes, check):
    page = tab.page
    visit(tab, scenes, "?q=a+red+circle&t=9")
    page.wait_for_selector(".none")
    check("empty")
    page.route(SEARCH, lambda route: route.fulfill(status=500, json={"error": {"message": "No."}}))
    page.locator("[role=tab]").nth(2).click()
    page.wait_for_selector(".strip.error")
    check("error")
    page.unroute(SEARCH)
    search(tab, "a yellow star")
    page.context.set_offline(True)
    page.locator(CELLS).first.focus()
    page.keyboard.press("n")
    page.wait_for_selector(".strip.offline")
    page.wait_for_selector(f"{CELLS}.wrong")
    check("offline")
    page.context.set_offline(False)
    page.wait_for_selector(".strip", state="detached")


def test_what_takes_long(tab, scenes, check):
    page, held = tab.page, []
    opening = {"error": {"code": 503, "message": "The collections are being opened.", "request_id": "a"}}
    page.route(INFO, lambda route: route.fulfill(status=503, json=opening))
    page.goto(scenes.url)
    page.wait_for_selector(".strip.busy")
    check("opening")
    page.unroute(INFO)
    page.wait_for_selector(".wall img")
    page.route(SEARCH, lambda route: held.append(route))
    page.fill("#q", "a red circle")
    page.press("#q", "Enter")
    page.wait_for_selector("#grid .blank")
    check("skeleton")
    held.pop().continue_()
    page.wait_for_selector(CELLS)
    settle(tab)
    show_below = page.locator("[role=tab]").nth(2)
    show_below.click()
    page.wait_for_selector("#grid.old")
    check("loading")
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid[aria-busy=false]")
    check("cancelled")


def test_jobs(tab, scenes, check):
    states: dict[str, dict[str, object]] = {
        "running": {"state": "running", "stage": "writing", "done": 5, "total": 10, "eta_s": 3},
        "waiting": {"state": "waiting"},
        "cancelled": {"state": "cancelled"},
        "failed": {"state": "failed", "message": "The disk is full."},
        "done": {"state": "done", "items": 10, "bytes": 2_000, "result_url": "/a", "skipped": 2, "skipped_url": "/b"},
    }
    nothing = dict.fromkeys(("total", "eta_s", "message", "items", "bytes", "result_url", "skipped_url"))
    base = {"kind": "export", "collection": "scenes", "format": "coco", "stage": "", "done": 0, "made": 0, "skipped": 0}
    jobs = [dict(base | nothing | job, id=id) for id, job in states.items()]
    tab.page.route(JOBS, lambda route: route.fulfill(json={"jobs": jobs}))
    visit(tab, scenes, "?q=a+red+circle")
    tab.page.get_by_role("button", name="Jobs").click()
    tab.page.wait_for_selector(".job.cancelled")
    check("jobs")


def test_several_classes_and_menus(tab, scenes, check):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    page.locator(".name .add").click()
    page.keyboard.type("a yellow star")
    page.keyboard.press("Enter")
    page.wait_for_selector(".classes")
    settle(tab)
    check("classes")
    for name, button in (("sets", "Classes"), ("how", "by score"), ("export", "Export")):
        page.get_by_role("button", name=button, exact=True).click()
        page.wait_for_selector(".menu:popover-open")
        check(f"menu-{name}")
        page.keyboard.press("Escape")


def test_pictures_that_cannot_be_shown_and_a_changed_collection(tab, scenes, check):
    page = tab.page
    page.route("**/image?*", lambda route: route.fulfill(status=404, body=""))
    visit(tab, scenes)
    search(tab, "a red circle")
    info = scenes.ask("/api/v1/info")[2]
    info["collections"][0]["index_rev"] = "another"
    page.route(INFO, lambda route: route.fulfill(json=info))
    page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    page.wait_for_selector(".strip.stale")
    check("stale")
