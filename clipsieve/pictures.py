"""Small pictures of items, for contact sheets."""

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


def make_picture(data: bytes) -> Picture:
    """An encoded image of any kind as a small WebP. InputError if it cannot be decoded."""
    from clipsieve.inference.decode import decode

    image = decode(data)
    image.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=80)
    return Picture(file.getvalue(), "image/webp", *image.size)


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
