"""clip-retrieval's own front, as its wheel has it built, in a real browser."""

import csv
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.demo_scenes import caption, make_scenes, name, scene
from clipsieve.opening import load_model
from clipsieve.parts import Parts
from tests.back.service import running
from tests.browser import browsing
from tests.inference.webserver import serving

COUNT = 120
PICTURES = "img.pic"
MISSING = "/vendor/webcomponents-loader.js"
"""Its index.html asks for it and its wheel has it elsewhere: its own server has no answer either. Today's browsers do
without."""


def make(*words):
    result = CliRunner().invoke(cli.app, [*map(str, words), "--model", "mini"], obj=Parts(load_model))
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    make_scenes(folder, COUNT)
    return folder


@pytest.fixture(scope="module")
def local(scenes, tmp_path_factory):
    """A collection of files with captions."""
    folder = tmp_path_factory.mktemp("local") / "scenes.clip"
    make("inference", scenes, folder)
    return folder


@pytest.fixture(scope="module")
def linked(scenes, tmp_path_factory):
    """A collection of images behind URLs, while they can be had there."""
    root = tmp_path_factory.mktemp("linked")
    with serving({f"/{i}.png": (scenes / name(i)).read_bytes() for i in range(COUNT)}) as site:
        with (root / "list.csv").open("w", newline="") as file:
            rows = [(f"{site.url}/{i}.png", caption(scene(i))) for i in range(COUNT)]
            csv.writer(file).writerows([("url", "caption"), *rows])
        make("inference", root / "list.csv", root / "scenes.clip", "--allow-private-addresses")
        yield root / "scenes.clip"


def use(tab, name):
    """Ask a text, scroll, search for the image of a result: what its users do. Pictures are whole at every step."""
    page = tab.page
    page.locator("#searchBar").fill("a red circle")
    page.locator("#searchBar").press("Enter")
    shown(page, 40)
    tab.show(f"{name}-text")
    assert "red circle" in page.locator("figcaption").first.inner_text()
    with page.expect_response("**/metadata") as more:
        page.mouse.wheel(0, 20_000)
    assert len(more.value.json()) > 0
    shown(page, 80)
    tab.show(f"{name}-scrolled")
    third = page.locator("figure").nth(2)
    clicked = third.locator(PICTURES).get_attribute("src")
    third.scroll_into_view_if_needed()
    third.hover()
    with page.expect_response("**/knn-service"):
        third.locator(".subImageSearch").click()
    page.wait_for_function(
        "src => document.querySelector('clip-front').shadowRoot.querySelector('img.pic').getAttribute('src') === src",
        arg=clicked,
    )
    assert page.locator("#searchBar").input_value() == ""
    shown(page, 40)
    tab.show(f"{name}-image")
    assert tab.errors == []
    assert {urlsplit(url).path for url in tab.failed} == {MISSING}


def shown(page, count):
    """Wait for at least so many results whose pictures are all decoded."""
    page.wait_for_function(
        """count => {
            const all = [...document.querySelector('clip-front').shadowRoot.querySelectorAll('img.pic')];
            return all.length >= count && all.every(image => image.complete && image.naturalWidth > 0);
        }""",
        arg=count,
    )


@pytest.mark.slow
def test_served_by_back_itself(local, their_front):
    with running(local, "--page", their_front) as service, browsing() as tab:
        tab.page.goto(service.url)
        use(tab, "their-front")


@pytest.mark.slow
def test_served_elsewhere_with_images_that_are_elsewhere(linked, their_front):
    origin = "http://front.example"
    with running(linked, "--cors-origins", origin, "--allow-private-addresses") as service:
        words = ("--page", their_front, "--default-backend", service.url, "--allowed-hosts", "front.example")
        with running(*words, command=("front",)) as front:
            host = front.url.removeprefix("http://")
            with browsing(f"--host-resolver-rules=MAP front.example {host}") as tab:
                tab.page.goto(origin)
                use(tab, "their-front-elsewhere")
