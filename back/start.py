"""Where to begin with a collection that nobody knows yet: some of its items, and what its captions speak of."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from flask_openapi import APIBlueprint

from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.api import TAG, add_sizes
from clipsieve.back.shelf import Shelf

ITEMS, CAPTIONS, TEXTS = 24, 400, 3
"""Items that are shown, captions that are read, and texts that are offered."""

MOST_WORDS, MOST_LETTERS = 6, 40
"""Of a text that would do as a question."""


def blueprint(shelf: Shelf) -> APIBlueprint:
    """The route."""
    routes = APIBlueprint("start", __name__, url_prefix="/api/v1", abp_tags=[TAG])

    @routes.get("/start", summary="Some items of a collection, and texts to ask for", responses=shapes.START)
    def start(query: schema.ItemQuery) -> Any:
        served = shelf[query.collection]
        ids = served.collection.sample(CAPTIONS).tolist()
        columns = ["caption"] if "caption" in served.collection.columns else []
        rows = served.collection.items(ids, columns) if columns else []
        shown = ids[:: max(1, len(ids) // ITEMS)][:ITEMS]
        keys = served.collection.keys(shown)
        items: list[dict[str, Any]] = [{"id": str(id), "key": key} for id, key in zip(shown, keys, strict=True)]
        add_sizes(served, shown, items)
        return {"texts": texts_of(str(row["caption"]) for row in rows if row["caption"]), "items": items}

    return routes


def texts_of(captions: Iterable[str]) -> list[str]:
    """What captions speak of most often, in their own words: at most TEXTS short phrases, no two of the same last word.

    >>> texts_of(["a red bus, a tree", "two men. a red bus", "a blue bus"])
    ['a red bus', 'a tree', 'two men']
    """
    phrases = (part.strip() for caption in captions for part in re.split(r"[,.;:!?\n]+", caption))
    short = (one for one in phrases if 3 <= len(one) <= MOST_LETTERS and len(one.split()) <= MOST_WORDS)
    found: dict[str, str] = {}
    for text, _ in Counter(short).most_common(200):
        found.setdefault(text.split()[-1].lower(), text)
        if len(found) == TEXTS:
            break
    return list(found.values())
