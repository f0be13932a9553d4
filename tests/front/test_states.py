"""What the page shows when there is much, little, nothing or trouble."""

import pytest

from tests.front.steps import CELLS, add_example, counts, ids, search, settle, visit

pytestmark = pytest.mark.slow

SEARCH = "**/api/v1/search"
SHIFTS = """() => {
    window.shifts = [];
    new PerformanceObserver(list => {
        for (const entry of list.getEntries()) if (!entry.hadRecentInput) {
            window.shifts.push([entry.value, entry.sources.map(source => source.node?.className ?? '')]);
        }
    }).observe({type: 'layout-shift', buffered: true});
}"""


def test_many_pictures_are_scrolled_to_the_end(tab, many):
    page = tab.page
    page.add_init_script(f"({SHIFTS})()")
    visit(tab, many, "?q=a+red+circle&t=0")
    page.wait_for_selector(CELLS)
    assert counts(tab) == [10_000, 0, 0]
    tab.show("many")
    most, seen = 0, {}
    for _ in range(400):
        found = page.locator(CELLS).evaluate_all("all => all.map(one => [Number(one.dataset.at), one.dataset.id])")
        most = max(most, page.locator('#grid [role="gridcell"]').count())
        seen.update(found)
        if 9_999 in seen:
            break
        last = max(seen)
        bottom = page.evaluate("() => { scrollBy(0, innerHeight * 3); return scrollY; }")
        # Either further pictures came, or what is here is what was here before.
        page.wait_for_function(
            """([at, y]) => {
                const all = [...document.querySelectorAll('#grid [data-at]')].map(e => Number(e.dataset.at));
                return all.length && (Math.max(...all) > at || y === 0);
            }""",
            arg=[last, bottom],
        )
    assert most <= 150
    assert 9_999 in seen
    page.keyboard.press("Home")
    page.keyboard.press("End")
    page.wait_for_function("() => document.activeElement.dataset.at === '9999'")
    assert len(set(seen.values())) == len(seen)
    shifts = page.evaluate("() => window.shifts")
    assert sum(shift[0] for shift in shifts) < 0.02, shifts


def test_no_match_says_how_far_to_lower_the_line(tab, scenes):
    visit(tab, scenes, "?q=a+red+circle&t=9")
    tab.page.wait_for_selector(".none")
    tab.show("empty")
    assert "No match above 9.00. The best is" in tab.page.inner_text(".none")
    tab.page.locator(".none button").click()
    tab.page.wait_for_selector(CELLS)
    settle(tab)
    assert counts(tab)[0] >= 1


def test_all_rejected_says_by_what(tab, scenes):
    def lose(route):
        answer = route.fetch()
        found = answer.json()
        found["hist"]["bins"] = [[0, won + lost] for won, lost in found["hist"]["bins"]]
        found["hist"]["ranked"] = [0] * len(found["hist"]["bins"])
        route.fulfill(response=answer, json=found)

    def nothing(route):
        answer = route.fetch()
        route.fulfill(response=answer, json={**answer.json(), "hits": [], "next": None})

    visit(tab, scenes)
    search(tab, "a red circle")
    tab.page.route("**/api/v1/distribution", lose)
    tab.page.route(SEARCH, nothing)
    add_example(tab, "negative", "a red thing")
    tab.page.wait_for_selector(".none")
    tab.show("all-rejected")
    assert "all rejected by “a red thing”" in tab.page.inner_text(".none")
    tab.page.unroute(SEARCH)
    tab.page.locator(".none button").click()
    tab.page.wait_for_function("() => document.querySelector('[role=tab][aria-selected=true]').textContent[0] === 'R'")


def test_trouble_is_said_and_passes(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    before = ids(tab)
    error = {"error": {"code": 500, "message": "The disk is full.", "request_id": "abc123"}}
    page.route(SEARCH, lambda route: route.fulfill(status=500, json=error, headers={"X-Request-Id": "abc123"}))
    page.keyboard.press("]")
    page.wait_for_selector(".strip.error")
    assert "The disk is full." in page.inner_text(".strip")
    assert "abc123" in page.inner_text(".strip")
    tab.show("error")
    assert ids(tab) == before
    page.unroute(SEARCH)
    page.locator(".strip button", has_text="Retry").click()
    page.wait_for_selector(".strip", state="detached")
    settle(tab)
    assert len(ids(tab)) > 0


def test_offline_keeps_marks_and_tells_them_later(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    page.context.set_offline(True)
    page.locator(CELLS).first.focus()
    page.keyboard.press("y")
    page.wait_for_selector(".strip.offline")
    tab.show("offline")
    assert page.locator(f"{CELLS}.right").count() == 1
    assert scenes.ask("/api/v1/marks")[2]["marks"] == []
    with page.expect_response(lambda answer: "/marks" in answer.url and answer.request.method == "POST"):
        page.context.set_offline(False)
    page.wait_for_selector(".strip", state="detached")
    assert len(scenes.ask("/api/v1/marks")[2]["marks"]) == 1


def test_an_answer_that_does_not_come_is_given_up(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    page.clock.install()
    page.route(SEARCH, lambda route: None)
    show_asked = page.locator("[role=tab]").nth(2)
    show_asked.click()
    page.clock.run_for(1000)
    page.wait_for_selector("#grid.old")
    assert page.get_attribute("#grid", "aria-busy") == "true"
    tab.show("loading")
    page.clock.run_for(61_000)
    page.wait_for_selector(".strip.error")
    assert "within 60 seconds" in page.inner_text(".strip")
    assert len(ids(tab)) > 0


def test_escape_closes_a_menu_before_it_cancels(tab, scenes):
    page, held = tab.page, []
    visit(tab, scenes)
    search(tab, "a red circle")
    page.route(SEARCH, lambda route: held.append(route))
    page.get_by_role("button", name="Classes", exact=True).click()
    page.wait_for_selector(".menu:popover-open")
    with page.expect_request(SEARCH):
        page.evaluate("() => document.querySelector('[role=tab]:nth-child(3)').click()")
    page.keyboard.press("Escape")
    page.wait_for_selector(".menu:popover-open", state="detached")
    assert page.get_attribute("#grid", "aria-busy") == "true"
    page.keyboard.press("Escape")
    page.wait_for_selector("#grid[aria-busy=false]")
    assert page.inner_text("#status") == "Cancelled."
    assert "were found before" in page.inner_text(".strip")
    tab.show("cancelled")
    page.unroute(SEARCH)
    page.locator(".strip button", has_text="Retry").click()
    page.wait_for_selector(".strip", state="detached")
    settle(tab)


def test_a_late_answer_never_takes_the_place_of_a_newer_one(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    held = []

    def hold(route):
        first = "a yellow star" in (route.request.post_data or "")
        held.append(route) if first else route.continue_()

    page.route(SEARCH, hold)
    page.fill("#q", "a yellow star")
    page.press("#q", "Enter")
    page.wait_for_selector(".name h1 >> text='a yellow star'")
    search(tab, "a red circle")
    after = ids(tab)
    assert len(held) == 1
    found = {"index_rev": "1", "claim": "exact", "recall": None, "timings_ms": {"total": 1.0}, "next": None}
    held[0].fulfill(json={**found, "hits": []})
    settle(tab)
    assert (ids(tab), page.inner_text(".name h1")) == (after, "a red circle")


def test_a_picture_that_cannot_be_shown_keeps_its_place(tab, scenes):
    tab.page.route("**/image?*", lambda route: route.fulfill(status=404, body=""))
    visit(tab, scenes)
    tab.page.fill("#q", "a red circle")
    tab.page.press("#q", "Enter")
    tab.page.wait_for_selector(f"{CELLS} .broken")
    settle(tab)
    tab.show("broken")
    assert tab.page.locator(f"{CELLS} .broken").count() == len(ids(tab))
    assert ".jpg" in tab.page.locator(".broken").first.inner_text()


def test_pictures_out_of_sight_are_not_waited_for(tab, scenes):
    held = []
    tab.page.route("**/image?*", lambda route: held.append(route))
    visit(tab, scenes)
    tab.page.wait_for_selector(".wall img")
    with tab.page.expect_event("requestfailed", lambda request: request in {route.request for route in held}):
        tab.page.locator(".try button").first.click()
    tab.page.unroute("**/image?*")


def test_a_changed_collection_is_said(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    info = scenes.ask("/api/v1/info")[2]
    info["collections"][0]["index_rev"] = "another"
    tab.page.route("**/api/v1/info", lambda route: route.fulfill(json=info))
    tab.page.evaluate("() => document.dispatchEvent(new Event('visibilitychange'))")
    tab.page.wait_for_selector(".strip.stale")
    tab.show("stale")
    tab.page.unroute("**/api/v1/info")
    tab.page.locator(".strip button", has_text="Refresh").click()
    tab.page.wait_for_selector(".strip", state="detached")


def test_an_image_from_outside_is_asked_for(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    data = scenes.ask(f"/api/v1/items/{ids(tab)[0]}/image")[2]
    file = {"name": "mine.jpg", "mimeType": "image/jpeg", "buffer": data}
    first = ids(tab)[0]
    tab.page.set_input_files("input[aria-label='Search by an image']", file)
    tab.page.wait_for_selector(".chip.positive .thumb")
    settle(tab)
    assert ids(tab)[0] == first
    assert "img=" in tab.page.url
    tab.show("by-image")
    visit(tab, scenes, "?img=" + "0" * 64)
    tab.page.wait_for_selector(".strip")
    tab.show("expired")


def test_a_word_that_the_model_does_not_know_is_said(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red zebra")
    assert tab.page.inner_text('[role="note"]') == "The demo model does not know 'zebra', in the text 'a red zebra'."
    search(tab, "a red circle")
    assert tab.page.query_selector('[role="note"]') is None
