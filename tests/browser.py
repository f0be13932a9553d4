"""A real browser: Debian's chromium, driven by Playwright."""

import contextlib
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium")
WORDS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
)


@dataclass
class Tab:
    """A page in the browser, and what went wrong in it so far.

    errors  uncaught exceptions, and what the browser refused a page to do (Content-Security-Policy)
    failed  addresses that were asked for and not answered, or answered with 4xx or 5xx; not those the page let go of
    asking  requests on their way
    """

    page: Any
    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    asking: set[Any] = field(default_factory=set)

    def note(self, said):
        """A message on the console."""
        if "Content Security Policy" in said.text:
            self.errors.append(said.text)

    def look(self, answer):
        """An answer that came."""
        if answer.status >= 400:
            self.failed.append(answer.url)

    def lose(self, request):
        """A request that no answer will come to."""
        self.asking.discard(request)
        if request.failure != "net::ERR_ABORTED":
            self.failed.append(request.url)

    def show(self, name):
        """Save what it looks like into the folder SCREENSHOTS, if the environment has one."""
        if folder := os.environ.get("SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png")


@contextlib.contextmanager
def launched(*words):
    """A browser started with these options. Skips where there is no chromium, unless REQUIRE_BROWSER is 1."""
    if CHROMIUM is None:
        require("There is no chromium; install it: apt-get install chromium fonts-dejavu-core.")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*WORDS, *words])
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def tab_of(browser, **context):
    """A tab with cookies and stores of its own."""
    made = browser.new_context(**{"viewport": {"width": 1280, "height": 720}, **context})
    page = made.new_page()
    page.set_default_timeout(30_000)
    tab = Tab(page)
    page.on("pageerror", lambda error: tab.errors.append(str(error)))
    page.on("console", tab.note)
    page.on("response", tab.look)
    page.on("request", lambda request: tab.asking.add(request))
    page.on("requestfinished", lambda request: tab.asking.discard(request))
    page.on("requestfailed", tab.lose)
    try:
        yield tab
    finally:
        made.close()


@contextlib.contextmanager
def browsing(*words, **context):
    """A tab of a browser started with these options."""
    with launched(*words) as browser, tab_of(browser, **context) as tab:
        yield tab


def require(sentence):
    """Leave the test out, or fail it where REQUIRE_BROWSER is 1."""
    if os.environ.get("REQUIRE_BROWSER") == "1":
        pytest.fail(sentence)
    pytest.skip(f"{sentence} REQUIRE_BROWSER=1 makes this a failure.")
