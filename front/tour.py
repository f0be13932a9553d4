"""Takes the pictures of docs/tour.md from the page of a running service over the demo's collection.

make demo front && clipsieve back demo/collection       # then, beside it:
python front/tour.py [--url http://127.0.0.1:1234] [--out docs/tour]
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

QUESTION, NOT = "a red circle", "a red circle with a blue square"
SIZE = {"width": 1200, "height": 760}
QUALITY = 78


def main() -> None:
    """Walk through it, and keep what is seen at each step."""
    parser = argparse.ArgumentParser(description="Take the pictures of docs/tour.md.")
    parser.add_argument("--url", default="http://127.0.0.1:1234")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "tour")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light", reduced_motion="reduce")
        page.goto(args.url)
        walk(page, args.out)
        browser.close()


def walk(page: Page, out: Path) -> None:
    """From the first look to the reason why one picture is left out."""
    page.wait_for_selector(".wall img")
    keep(page, out / "1-first.webp")
    page.locator(".try button", has_text=QUESTION).first.click()
    settle(page)
    keep(page, out / "2-found.webp")
    page.locator(".examples.negative button.add").click()
    page.keyboard.type(NOT)
    page.keyboard.press("Enter")
    page.wait_for_selector(".toast >> text=after this example")
    settle(page)
    keep(page, out / "3-thrown-out.webp")
    page.keyboard.press("Escape")  # the toast
    page.locator("[role=tab]", has_text="Rejected").click()
    settle(page)
    page.locator("#grid [data-at='0']").hover()
    keep(page, out / "4-why.webp")
    page.locator("#grid [data-at='0']").click()
    page.wait_for_selector("dialog .known")
    page.evaluate("() => { document.querySelector('dialog .known').hidden = true; }")  # where its file lies here
    keep(page, out / "5-one.webp")


def settle(page: Page) -> None:
    """Until the answer is there."""
    page.wait_for_selector("#grid[aria-busy=false] [data-id] img")


def keep(page: Page, file: Path) -> None:
    """Save what is seen, once all pictures are there."""
    page.wait_for_load_state("networkidle")
    page.wait_for_function("() => [...document.images].every(image => image.complete && image.naturalWidth)")
    with Image.open(io.BytesIO(page.screenshot())) as image:
        image.convert("RGB").save(file, quality=QUALITY, method=6)


if __name__ == "__main__":
    main()
