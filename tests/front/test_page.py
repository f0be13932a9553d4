"""The page's acceptance checks on drawn scenes, in a real browser."""

import csv
import io
import json

import pyarrow.parquet as pq
import pytest

from tests.back.service import poll
from tests.browser import tab_of
from tests.front.conftest import asked
from tests.front.steps import CELLS, NOT, add_example, counts, ids, search, settle, show, toast, visit

pytestmark = pytest.mark.slow

MINUS = "\N{MINUS SIGN}"


def test_a_first_visit(tab, scenes):
    seen = []
    tab.page.on("request", lambda request: seen.append(request.url))
    said = []
    tab.page.on("console", lambda message: said.append(message.text))
    visit(tab, scenes)
    tab.page.wait_for_selector(".wall img")
    settle(tab)
    tab.show("first")
    assert tab.page.evaluate("document.activeElement.id") == "q"
    assert tab.page.locator(".try button").count() == 3
    assert "240 pictures" in tab.page.inner_text(".lead")
    assert all(url.startswith((scenes.url, "data:", "blob:")) for url in seen)
    assert (said, tab.failed) == ([], [])
    tab.page.locator(".try button", has_text="a red circle").click()
    tab.page.wait_for_selector(CELLS)
    assert tab.page.input_value("#q") == "a red circle"


def test_a_text_finds_pictures_and_says_why(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    tab.show("found")
    matched, rejected, below = counts(tab)
    assert tab.page.inner_text("#status") == f"{matched} results"
    assert matched > 10
    assert (rejected, matched + below) == (0, 240)
    first = tab.page.locator(CELLS).first
    assert first.locator("img").get_attribute("alt").endswith(".jpg")
    assert first.locator(".why q").inner_text() == "a red circle"
    assert float(first.locator(".score").inner_text()) > 2
    assert "q=a+red+circle" in tab.page.url


def test_a_negative_example_moves_pictures_to_rejected(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    before = counts(tab)
    add_example(tab, "negative", NOT)
    after = counts(tab)
    moved = after[1] - before[1]
    assert moved > 0
    assert after == [before[0] - moved, before[1] + moved, before[2]]
    toast(tab, f"+0 {MINUS}{moved}")
    show(tab, "rejected")
    tab.show("rejected")
    why = tab.page.locator(f"{CELLS} .why").first
    assert [q.inner_text() for q in why.locator("q").all()] == [NOT, "a red circle"]
    numbers = [float(word) for word in why.inner_text().replace("\n", " ").split() if word.replace(".", "").isdigit()]
    assert numbers[0] >= numbers[1] > 0
    tab.page.locator(CELLS).first.hover()
    why.locator(".drop").click()
    tab.page.wait_for_selector(".chip.negative", state="detached")
    settle(tab)
    assert counts(tab) == before


def test_dragging_the_line_asks_once(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    seen = []
    api = f"{scenes.url}/api/v1/"
    pictures = f"{api}items/"
    tab.page.on("request", lambda request: seen.append(request) if request.url.startswith(api) else None)
    plot = tab.page.locator(".plot").bounding_box()
    begin = tab.page.locator(".line").bounding_box()
    y = plot["y"] + plot["height"] / 2
    tab.page.mouse.move(begin["x"] + begin["width"] / 2, y)
    tab.page.mouse.down()
    shown = set()
    for share in (0.6, 0.5, 0.4, 0.3):
        tab.page.mouse.move(plot["x"] + share * plot["width"], y)
        shown.add(tuple(counts(tab)))
    assert len(shown) == 4
    assert seen == []
    last = counts(tab)
    tab.page.mouse.up()
    settle(tab)
    seen = [request for request in seen if not request.url.startswith(pictures)]
    assert [request.url.removeprefix(api) for request in seen] == ["search"]
    body = {name: value for name, value in asked(seen[0]).items() if name in ("set", "threshold")}
    found = scenes.ask("/api/v1/distribution", body)[2]["counts"]
    assert counts(tab) == last == [found["matched"], found["rejected"], found["below"]]
    assert f"t={body['threshold']}" in tab.page.url


def test_a_link_shows_the_same_to_somebody_else_and_back_goes_back(tab, scenes, browser):
    visit(tab, scenes)
    search(tab, "a yellow star")
    star = tab.page.url, ids(tab)
    search(tab, "a red circle")
    add_example(tab, "negative", NOT)
    show(tab, "rejected")
    tab.page.keyboard.press("]")
    tab.page.wait_for_url(lambda url: "t=1.65" in url)
    settle(tab)
    here = tab.page.url, counts(tab), ids(tab)[:20]
    assert here[2]
    with tab_of(browser, viewport={"width": 1440, "height": 900}) as other:
        other.page.goto(here[0])
        other.page.wait_for_selector(CELLS)
        settle(other)
        assert (counts(other), ids(other)[:20]) == here[1:]
        assert other.page.locator("[role=tab][aria-selected=true]").inner_text().startswith("Rejected")
    tab.page.go_back()
    tab.page.go_back()
    tab.page.wait_for_function("() => document.querySelector('.name h1').textContent === 'a yellow star'")
    settle(tab)
    assert (tab.page.url, ids(tab)) == star
    tab.page.go_forward()
    tab.page.go_forward()
    tab.page.wait_for_function("() => document.querySelectorAll('.chip.negative').length === 1")
    settle(tab)
    assert (tab.page.url, counts(tab), ids(tab)[:20]) == here


def test_everything_by_keyboard(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("/")
    page.keyboard.type("a red circley")
    assert page.input_value("#q") == "a red circley"  # y marks nothing here
    page.keyboard.press("Backspace")
    page.keyboard.press("Enter")
    page.wait_for_selector(CELLS)
    settle(tab)

    def focused():
        return page.evaluate("document.activeElement.dataset.at")

    for key, at in (("ArrowRight", "0"), ("ArrowRight", "1"), ("ArrowDown", None), ("ArrowUp", "1"), ("Home", "0")):
        page.keyboard.press(key)
        if at is not None:
            page.wait_for_function("at => document.activeElement.dataset.at === at", arg=at)
        assert page.evaluate("document.activeElement.matches(':focus-visible')")
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", key
    assert focused() == "0"
    page.keyboard.press("y")
    page.wait_for_selector(f"{CELLS}.right")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("n")
    page.wait_for_selector(f"{CELLS}.wrong")
    tab.show("marked")
    poll(lambda: len(scenes.ask("/api/v1/marks")[2]["marks"]) == 2)
    page.keyboard.press("Control+z")
    page.wait_for_selector(f"{CELLS}.wrong", state="detached")
    poll(lambda: [mark["verdict"] for mark in scenes.ask("/api/v1/marks")[2]["marks"]] == ["right"])
    page.keyboard.press("Control+a")
    matched = int(page.inner_text("aside.chosen b"))
    assert matched == page.locator(CELLS).count()
    page.locator("aside.chosen .export").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == matched
    page.keyboard.press("Escape")


def test_a_wrong_one_becomes_a_negative_example(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    before = ids(tab)
    page = tab.page
    page.locator(CELLS).nth(2).focus()
    page.keyboard.press("n")
    toast(tab, "Marked wrong").locator("button", has_text="not like").click()
    page.wait_for_selector(".chip.negative .thumb")
    said = toast(tab, "after this example").inner_text()
    settle(tab)
    assert said.startswith(f"+0 {MINUS}")
    assert not said.startswith(f"+0 {MINUS}0")
    tab.show("learnt")
    assert before[2] not in ids(tab)
    page.locator(".toast button", has_text="Undo").click()
    page.wait_for_selector(".chip.negative", state="detached")
    settle(tab)
    assert ids(tab) == before


def test_a_missed_one_becomes_a_positive_example_and_review_asks_about_doubtful_ones(tab, scenes):
    visit(tab, scenes)
    search(tab, "a red circle")
    page = tab.page
    show(tab, "below")
    missed = ids(tab)[0]
    page.locator(CELLS).first.focus()
    page.keyboard.press("y")
    toast(tab, "Marked right").locator("button", has_text="looks like").click()
    page.wait_for_selector(".chip.positive .thumb")
    toast(tab, "after this example")
    settle(tab)
    assert missed not in ids(tab)
    page.keyboard.press("r")
    page.wait_for_selector(".reviewing")
    settle(tab)
    first = ids(tab)[0]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("y")
    page.wait_for_function("() => document.activeElement.dataset.at === '1'")
    assert page.inner_text(".reviewing b").startswith("1 of")
    page.get_by_role("button", name="The next ones").click()
    page.wait_for_selector(".reviewing b >> text='0 of 10'")
    assert first not in ids(tab)
    tab.show("review")
    poll(lambda: first in [mark["item"] for mark in scenes.ask("/api/v1/marks")[2]["marks"]])
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")


def test_classes_are_saved_and_opened(tab, scenes, tmp_path):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    add_example(tab, "negative", NOT)
    page.locator(".name .add").click()
    page.keyboard.type("a yellow star")
    page.keyboard.press("Enter")
    page.wait_for_selector(".classes")
    settle(tab)
    tab.show("classes")
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    saved = json.loads(download.value.path().read_text())
    assert [one["name"] for one in saved["classes"]] == ["a red circle", "a yellow star"]
    saved["note"], saved["classes"][0]["colour"] = "mine", "red"

    def open_file(value):
        file = tmp_path / "set.json"
        file.write_text(value if isinstance(value, str) else json.dumps(value))
        page.get_by_role("button", name="Classes", exact=True).click()
        page.locator("input[aria-label='Open a file of classes']").set_input_files(file)
        page.keyboard.press("Escape")
        settle(tab)

    visit(tab, scenes)
    page.wait_for_selector(".start")
    open_file(saved)
    page.wait_for_selector(".classes")
    settle(tab)
    with page.expect_download() as download:
        page.keyboard.press("Control+s")
    assert json.loads(download.value.path().read_text()) == saved
    open_file("{broken")
    assert "set.json" in page.inner_text(".strip")
    tab.show("broken-file")
    assert page.locator(".classes li").count() == 2
    dot = {"name": "dot", "examples_to_include": ["a red circle"], "examples_to_exclude": ["a blue square"]}
    open_file({"classifier_configs": [dot]})
    page.wait_for_function("() => document.querySelector('.name h1')?.textContent === 'dot'")
    settle(tab)
    assert page.locator(CELLS).count() > 0
    assert [chip.inner_text().strip() for chip in page.locator(".chip").all()] == ["a red circle", "a blue square"]


def test_what_is_chosen_is_exported(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    three = ids(tab)[:3]
    for at in range(3):
        page.locator(CELLS).nth(at).focus()
        page.keyboard.press("Space")
    assert page.inner_text("aside.chosen b") == "3"
    tab.show("chosen")
    found = {}
    for label in ("CSV", "Parquet", "COCO", "YOLO"):
        page.locator("aside.chosen .export").click()
        with page.expect_download() as download:
            page.locator("aside.chosen .menu").get_by_role("button", name=label, exact=True).click()
        found[label] = download.value.path().read_bytes()
    assert [row["id"] for row in csv.DictReader(io.StringIO(found["CSV"].decode()))] == three
    table = pq.read_table(io.BytesIO(found["Parquet"]))
    assert {"id", "key", "label", "score", "margin"} <= set(table.column_names)
    assert [str(id) for id in table["id"].to_pylist()] == three
    assert len(json.loads(found["COCO"])["images"]) == 3
    assert found["YOLO"][:2] == b"PK"


def test_every_picture_gets_its_label(tab, scenes):
    page = tab.page
    visit(tab, scenes)
    search(tab, "a red circle")
    page.locator(".name .add").click()
    page.keyboard.type("a yellow star")
    page.keyboard.press("Enter")
    page.wait_for_selector(".classes")
    page.locator(".label-all").click()
    page.locator(".classes .menu").get_by_role("button", name="CSV").click()
    page.wait_for_selector(".job.done:first-child >> text=Label all")
    assert page.locator(".job progress").first.get_attribute("aria-label") == "100 %"
    tab.show("jobs")
    with page.expect_download() as download:
        page.locator(".job a", has_text="Download").first.click()
    rows = list(csv.DictReader(io.StringIO(download.value.path().read_text())))
    assert len(rows) == 240
    assert {row["label"] for row in rows} == {"a red circle", "a yellow star"}
    running = {"kind": "label", "collection": "scenes", "format": "csv", "state": "running", "stage": "labelling"}
    nothing = dict.fromkeys(("message", "items", "bytes", "result_url", "skipped_url"))
    answer = {"id": "1", **running, **nothing, "done": 5, "total": 10, "eta_s": 3, "made": 0, "skipped": 0}
    page.route("**/api/v1/jobs", lambda route: route.fulfill(json={"jobs": [answer]}))
    cancelled = []

    def cancel(route):
        cancelled.append(route.request.method)
        answer["state"] = "cancelled"
        route.fulfill(json={"id": "1", "state": "cancelled"})

    page.route("**/api/v1/jobs/1", cancel)
    page.reload()
    page.get_by_role("button", name="Jobs").click()
    assert "5 of 10" in page.inner_text(".job")
    page.locator(".job button", has_text="Cancel").click()
    page.wait_for_selector(".job.cancelled")
    assert cancelled == ["DELETE"]
