"""Pictures of items: small ones for contact sheets, and ones with boxes drawn into them."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from clipsieve.contact_sheet import Answer, Picture
from clipsieve.errors import ClipsieveError
from clipsieve.question import Asked
from clipsieve.types import QueryResult

if TYPE_CHECKING:
    from clipsieve.index.collection import Collection

SIDE = 384
"""Longest side in pixels: sharp at the sheet's size on a dense screen, and a few kB each."""


COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#e377c2", "#8c564b")
"""Of the boxes of each class; from the first again where there are more."""

Drawn = tuple[tuple[float, float, float, float], int, str]
"""x, y, width and height of a box in pixels; which class; what to write into it."""


def make_picture(data: bytes) -> Picture:
    """An encoded image of any kind as a small WebP. InputError if it cannot be decoded."""
    from clipsieve.image_files import open_raster
    from clipsieve.image_memory import ImageMemory

    with open_raster(data, ImageMemory(), factor=None) as raster:
        image = raster.for_model()
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return Picture(file.getvalue(), "image/webp", *image.size)


def draw_boxes(data: bytes, boxes: Sequence[Drawn]) -> bytes:
    """An encoded image of any kind with boxes drawn into it, upright, as a JPEG. InputError if it cannot be decoded."""
    from PIL import ImageDraw, ImageFont

    from clipsieve.inference.decode import decode

    image = decode(data)
    line = max(2, round(max(image.size) / 300))
    font = ImageFont.load_default(size=max(10, 5 * line))
    draw = ImageDraw.Draw(image)
    for (x, y, width, height), label, words in boxes:
        colour = COLOURS[label % len(COLOURS)]
        draw.rectangle((x, y, x + width, y + height), outline=colour, width=line)
        place = draw.textbbox((x + line, y + line), words, font=font)
        draw.rectangle(place, fill=colour)
        draw.text((x + line, y + line), words, fill="white", font=font)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def pictures(collection: "Collection", ids: Sequence[int]) -> dict[int, Picture]:
    """Those of the items whose image or thumbnail can still be read."""
    found = {}
    for id in ids:
        try:
            found[id] = make_picture(collection.image_bytes(id))
        except ClipsieveError:
            continue  # the sheet says "no picture"; the answer is right all the same
    return found


def sheet_answer(collection: "Collection", asked: Asked, result: QueryResult) -> Answer:
    """What the contact sheet shows of one answer."""
    ids = [hit.id for hit in result.hits]
    captions = {hit.id: row.get("caption") for hit, row in zip(result.hits, collection.items(ids), strict=True)}
    return Answer(
        asked.question,
        result,
        pictures(collection, ids),
        asked.names,
        {id: str(caption) for id, caption in captions.items() if caption},
    )
