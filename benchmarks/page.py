"""The page in a browser over 200,000 items: how soon it is there, how soon it shows what was typed, what it holds.

    python -m benchmarks.page [--quick]

Beside each time is what a plain client waits for the same. Questions are typed once the page's first pictures are all
there, and again in a tab that has only just shown the first of them. Vectors are made up around those of a few texts,
and all items share one tiny picture: what is measured is the page and the service, not the decoding of pictures. Needs
the built page (`make front`), Playwright and Debian's chromium.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.measuring import arguments, keep, unit
from benchmarks.serving import ours
from clipsieve.inference.embedder import load_embedder
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings
from clipsieve.writer import open_writer

COLOURS = ("red", "blue", "green", "yellow", "orange", "purple", "pink", "cyan", "white", "black")
SHAPES = ("circle", "square", "star")
TEXTS = [f"a {colour} {shape}" for shape in SHAPES for colour in COLOURS]
SCROLLED = 10_000
SHARD = 50_000

TYPED = """text => new Promise(done => {
    const box = document.querySelector('#q');
    box.value = text;
    const begin = performance.now();
    const found = {};
    const look = () => {
        const now = performance.now() - begin;
        const named = document.querySelector('.name h1')?.textContent === text;
        const images = [...document.querySelectorAll('#grid [data-id] img')];
        if (named && images.length) found.cells ??= now;
        if (found.cells && images.every(image => image.complete)) found.pictures ??= now;
        if (found.cells && document.querySelector('#status').textContent) found.counts ??= now;
        if (found.pictures && found.counts) done(found);
        else requestAnimationFrame(() => setTimeout(look));
    };
    box.form.requestSubmit();
    look();
})"""
"""Milliseconds from Enter until the frame is drawn that has the cells, their pictures, and the counts."""

COMPLETE = """() => document.querySelectorAll('.wall img').length > 0
    && [...document.querySelectorAll('.wall img')].every(image => image.complete)"""
WAITED = """() => Object.fromEntries(performance.getEntriesByType('resource').toReversed()
    .map(entry => [entry.name.split('/').at(-1), entry.responseEnd - entry.startTime]))"""
"""Milliseconds from when a request was made until its answer was there, of the first of each address."""

PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
CELLS = """() => [document.querySelectorAll('#grid [role="gridcell"]').length,
    Math.max(-1, ...[...document.querySelectorAll('#grid [data-at]')].map(cell => Number(cell.dataset.at)))]"""


def main() -> None:
    """Measure, print, keep."""
    args = arguments("The page over a large collection.")
    n, rounds = (12_000, 2) if args.quick else (200_000, 9)
    with tempfile.TemporaryDirectory(prefix="clipsieve-page-") as scratch:
        folder = Path(scratch) / "many"
        write_collection(folder, n)
        with ours(folder) as (port, _), browser() as started:
            url = f"http://127.0.0.1:{port}"
            opened = [opening(started, url) for _ in range(rounds + 1)][1:]
            typed = [typing(started, url, text, COMPLETE) for text in TEXTS[: rounds + 1]][1:]
            at_once = [
                typing(started, url, text, "() => document.querySelector('.wall img')") for text in TEXTS[-rounds:]
            ]
            scrolled = scrolling(started, url)
    keep(args, "page", {"rows": n, "opened": opened, "typed": typed, "at_once": at_once, "scrolled": scrolled})


def write_collection(folder: Path, n: int) -> None:
    """Rows around the vectors of the texts, and one tiny picture for all."""
    model = load_embedder("mini")
    texts = model.embed_texts(TEXTS)  # type: ignore[attr-defined]  # mini has texts
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "slategrey").save(file, "PNG")
    with open_writer(folder, Manifest(model.model, texts.shape[1])) as writer:
        for start in range(0, n, SHARD):
            at = np.arange(start, min(start + SHARD, n))
            noise = rng.standard_normal((len(at), texts.shape[1]), np.float32) / np.float32(texts.shape[1] ** 0.5)
            rows = unit((0.4 * texts[at % len(texts)] + noise).astype(np.float32))
            keys = tuple(f"{i:06}.png" for i in at)
            columns = {"width": [8] * len(at), "height": [8] * len(at)}
            writer.append(Embeddings(rows, keys, model.model), thumbs=[file.getvalue()] * len(at), columns=columns)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Debian's chromium."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    if program is None:
        raise SystemExit("There is no chromium; install it: apt-get install chromium fonts-dejavu-core.")
    with sync_playwright() as playwright:
        words = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking"]
        # Its socket lies in TMPDIR, and may have no long path.
        env: dict[str, str | float | bool] = {n: value for n, value in os.environ.items() if n != "TMPDIR"}
        started = playwright.chromium.launch(executable_path=program, args=words, env=env)
        try:
            yield started
        finally:
            started.close()


@contextlib.contextmanager
def page_of(started: Any, url: str) -> Iterator[Any]:
    """The page at an address, with nothing kept from before."""
    context = started.new_context(viewport={"width": 1440, "height": 900})
    try:
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.goto(url)
        yield page
    finally:
        context.close()


def opening(started: Any, url: str) -> dict[str, float]:
    """Milliseconds until something is drawn, and of the same files asked for by a plain client, one after the other."""
    with page_of(started, url) as page:
        page.wait_for_function(PAINTED)
        painted = float(page.evaluate(PAINTED))
        files = page.evaluate("() => performance.getEntriesByType('resource').map(entry => entry.name)")
    files = [url, *(file for file in files if file.endswith((".js", ".css")))]
    begin = time.perf_counter()
    for file in files:
        with urllib.request.urlopen(file, timeout=60) as answer:
            answer.read()
    return {"painted": painted, "server": 1000 * (time.perf_counter() - begin)}


def typing(started: Any, url: str, text: str, ready: str) -> dict[str, float]:
    """Milliseconds from Enter to cells, pictures and counts, and what the browser waited for the answers to it.

    ready   what must be so before somebody types
    server  what a plain client waits for the same question about another text, asked after all that
    """
    with page_of(started, url) as page:
        page.wait_for_function(ready)
        page.evaluate("() => performance.clearResourceTimings()")
        with page.expect_request("**/api/v1/search") as request:
            shown = page.evaluate(TYPED, text)
        body = request.value.post_data.replace(text, f"{text} again")
        waited = page.evaluate(WAITED)
    asked = urllib.request.Request(f"{url}/api/v1/search", body.encode(), {"Content-Type": "application/json"})
    begin = time.perf_counter()
    with urllib.request.urlopen(asked, timeout=60) as answer:
        json.load(answer)
    server = 1000 * (time.perf_counter() - begin)
    return {**shown, **{name: float(waited[name]) for name in ("search", "distribution")}, "server": server}


def scrolling(started: Any, url: str) -> dict[str, float]:
    """Most cells in the page while it scrolls over so many hits, and how long that took."""
    with page_of(started, f"{url}/?q=a+red+circle&t=0") as page:
        page.wait_for_selector("#grid [data-id]")
        most, reached, begin = 0, -1, time.perf_counter()
        while reached < SCROLLED - 1 and time.perf_counter() - begin < 90:
            page.evaluate("() => scrollBy(0, 3 * innerHeight)")
            page.evaluate("() => new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
            cells, last = page.evaluate(CELLS)
            most, reached = max(most, cells), max(reached, last)
        return {"most": most, "reached": reached + 1, "seconds": time.perf_counter() - begin}


if __name__ == "__main__":
    main()
