"""Boxes over pictures, as a real service answers them with a real detector."""

import base64
import hashlib
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.demo_scenes import make_scenes, name
from clipsieve.opening import load_model
from clipsieve.parts import Parts
from tests.back.service import running
from tests.browser import tab_of
from tests.front.conftest import asked
from tests.front.steps import CELLS, ids, search, settle, usable, visit

pytestmark = pytest.mark.slow

SCENES = 24
ORIENTATION = 0x0112
TEXT = "a red circle"
KEEP_CUT = """(() => {
    const was = HTMLCanvasElement.prototype.toBlob;
    HTMLCanvasElement.prototype.toBlob = function (then, ...how) {
        if (how[0] === 'image/png') window.cut = this.toDataURL('image/png');
        return was.call(this, then, ...how);
    };
})()"""
"""What is cut out of a picture is sent as a Blob, which Playwright does not show."""


@pytest.fixture(scope="module")
def looked(built, tmp_path_factory):
    """A service with its detector over square, wide and tall scenes; and their folder."""
    base = tmp_path_factory.mktemp("looked")
    images = base / "images"
    make_scenes(images, 3 * SCENES)
    for number in range(SCENES, 3 * SCENES):
        widen(images / name(number), (256, 192) if number < 2 * SCENES else (192, 256), turned=number % 2 == 1)
    made = base / "scenes.clip"
    words = ["inference", images, made, "--model", "mini", "--regions", "mini", "--crops"]
    for command in (words, ["index", made]):
        result = CliRunner().invoke(cli.app, [*map(str, command)], obj=Parts(load_model))
        assert result.exit_code == 0, result.output
    with running(made, "--detector", "mini", "--state", base / "state") as service:
        yield service, images


def widen(file, size, turned):
    """Let the picture have such a size, with the scene at its right end; `turned`: as cameras held upright store it."""
    whole = Image.new("RGB", size, "slategrey")
    with Image.open(file) as drawn:
        whole.paste(drawn, (size[0] - drawn.width, size[1] - drawn.height))
    exif = Image.Exif()
    if turned:
        whole, exif[ORIENTATION] = whole.transpose(Image.Transpose.ROTATE_90), 6
    whole.save(file, "JPEG", quality=90, exif=exif)


def boxes_asked(tab, service, url=""):
    """Open the page and ask; the same of the service, by item."""
    with tab.page.expect_request("**/api/v1/search") as request:
        visit(tab, service, url)
    body = asked(request.value)
    assert body["boxes"] is True
    hits = service.ask("/api/v1/search", body)[2]["hits"]
    return body, {hit["id"]: hit for hit in hits}


def lie_right(where, hit):
    """Whether the boxes in this place lie where the picture shows what they are about."""
    picture, width, height = where.locator("img").first.bounding_box(), hit["w"], hit["h"]
    scale = min(picture["width"] / width, picture["height"] / height)
    left = picture["x"] + (picture["width"] - scale * width) / 2
    top = picture["y"] + (picture["height"] - scale * height) / 2
    wanted = [
        (left + x * scale * width, top + y * scale * height, w * scale * width, h * scale * height)
        for x, y, w, h, *_ in hit["boxes"]
    ]
    shown = [tuple(box.bounding_box().values()) for box in where.locator(".box").all()]
    assert np.array(shown) == pytest.approx(np.array(wanted), abs=1)
    return len(shown)


@pytest.mark.parametrize("size", [(1440, 900), (390, 844)])
def test_boxes_lie_where_they_belong(browser, looked, size):
    service, _ = looked
    with tab_of(browser, viewport={"width": size[0], "height": size[1]}) as tab:
        _, hits = boxes_asked(tab, service, "?q=a+red+circle&t=0.5")
        tab.page.wait_for_selector(".box")
        tab.show(f"boxes-{size[0]}")
        shapes, boxes = set(), 0
        for cell in tab.page.locator(CELLS).all():
            hit = hits[cell.get_attribute("data-id")]
            boxes += lie_right(cell, hit)
            if hit["boxes"]:
                shapes.add((hit["w"], hit["h"]))
        assert shapes == {(192, 192), (256, 192), (192, 256)}
        assert boxes > 5
        for shape in sorted(shapes):
            hit = next(hit for hit in hits.values() if hit["boxes"] and (hit["w"], hit["h"]) == shape)
            tab.page.locator(f"{CELLS}[data-id='{hit['id']}']").click()
            tab.page.wait_for_selector("dialog .box")
            settle(tab)
            tab.page.wait_for_function("() => document.querySelector('dialog figure img').naturalWidth > 1")
            tab.show(f"boxes-item-{size[0]}-{hit['w']}x{hit['h']}")
            assert lie_right(tab.page.locator("dialog figure"), hit) > 0
            tab.page.keyboard.press("Escape")
            tab.page.wait_for_selector("dialog[open]", state="detached")
        assert tab.errors == []


def test_a_box_is_searched(tab, looked):
    service, images = looked
    page = tab.page
    page.add_init_script(KEEP_CUT)
    _, hits = boxes_asked(tab, service, "?q=a+red+circle")
    hit = next(hit for hit in hits.values() if hit["boxes"] and hit["w"] != hit["h"])
    page.locator(f"{CELLS}[data-id='{hit['id']}']").click()
    box = page.locator("dialog button.box").first
    box.wait_for()
    settle(tab)
    page.wait_for_function("() => document.querySelector('dialog figure img').naturalWidth > 1")
    assert box.inner_text() == f"{hit['boxes'][0][4]:.2f}"
    with page.expect_request("**/api/v1/search") as request:
        box.click()
    cut = base64.b64decode(page.evaluate("() => window.cut").split(",")[1])
    part = np.asarray(Image.open(io.BytesIO(cut)).convert("RGB"), np.float32)
    x, y, w, h = (share * side for share, side in zip(hit["boxes"][0], [hit["w"], hit["h"]] * 2, strict=False))
    whole = ImageOps.exif_transpose(Image.open(images / hit["key"]))
    wanted = whole.resize(part.shape[1::-1], Image.Resampling.BILINEAR, (x, y, x + w, y + h))
    assert part.shape[:2] == pytest.approx((h, w), abs=1)
    assert np.abs(part - np.asarray(wanted, np.float32)).mean() < 12
    page.wait_for_selector("dialog.item[open]", state="detached")
    page.wait_for_selector(".chip.positive .thumb")
    settle(tab)
    tab.show("box-searched")
    (one,) = asked(request.value)["set"]["classes"]
    assert one["positive"] == [{"image": hashlib.sha256(cut).hexdigest()}]
    assert "img=" in page.url
    assert len(ids(tab)) > 0


def test_exports_hold_the_boxes_of_the_service(tab, looked):
    service, _ = looked
    page = tab.page
    body, _ = boxes_asked(tab, service, "?q=a+red+circle&t=1")
    hits = service.ask("/api/v1/search", {**body, "limit": 500})[2]["hits"]
    wanted = {
        hit["id"]: [[x * hit["w"], y * hit["h"], w * hit["w"], h * hit["h"]] for x, y, w, h, *_ in hit["boxes"]]
        for hit in hits
    }
    names = {hit["key"]: hit for hit in hits}
    assert sum(map(len, wanted.values())) > 5

    def exported(label):
        page.locator(".tabs .export").click()
        with page.expect_download() as download:
            page.locator(".tabs .menu").get_by_role("button", name=label, exact=True).click()
        return download.value.path().read_bytes()

    coco = json.loads(exported("COCO"))
    assert {str(image["id"]) for image in coco["images"]} == set(wanted)
    assert {image["file_name"]: (image["width"], image["height"]) for image in coco["images"]} == {
        key: (hit["w"], hit["h"]) for key, hit in names.items()
    }
    told = {id: [one["bbox"] for one in coco["annotations"] if str(one["image_id"]) == id] for id in wanted}
    assert told == {id: [pytest.approx(box, abs=0.01) for box in boxes] for id, boxes in wanted.items()}
    assert [one["name"] for one in coco["categories"]] == [TEXT]
    with zipfile.ZipFile(io.BytesIO(exported("YOLO"))) as found:
        lines = {file.stem: file.read_text().splitlines() for file in zipfile.Path(found, "labels/").iterdir()}
        assert f'0: "{TEXT}"' in found.read("data.yaml").decode()
    assert set(lines) == {key.removesuffix(".jpg") for key in names}
    for key, hit in names.items():
        shares = [[float(word) for word in line.split()] for line in lines[key.removesuffix(".jpg")]]
        middles = [[0, x + w / 2, y + h / 2, w, h] for x, y, w, h, *_ in hit["boxes"]]
        assert shares == [pytest.approx(one, abs=1e-5) for one in middles]


def test_boxes_can_be_left_out(tab, looked):
    service, _ = looked
    boxes_asked(tab, service, "?q=a+red+circle")
    tab.page.wait_for_selector(".box")
    tab.page.keyboard.press("b")
    tab.page.wait_for_selector(".box", state="detached")
    assert "box=0" in tab.page.url
    search(tab, "a blue square")
    assert tab.page.locator(".box").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1440])
def test_everybody_can_use_them(browser, looked, axe, width, scheme):
    service, _ = looked
    size = {"width": width, "height": 844}
    with tab_of(browser, viewport=size, color_scheme=scheme, reduced_motion="reduce") as tab:
        _, hits = boxes_asked(tab, service, "?q=a+red+circle")
        usable(tab, axe, f"axe-boxes-{width}-{scheme}")
        boxed = next(id for id, hit in hits.items() if hit["boxes"])
        tab.page.locator(f"{CELLS}[data-id='{boxed}']").click()
        tab.page.wait_for_selector("dialog button.box")
        settle(tab)
        usable(tab, axe, f"axe-item-boxes-{width}-{scheme}")
        assert tab.errors == []
