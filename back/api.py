"""The front's own API, /api/v1: search, distribution, explanations, items and their images, images as examples."""

import base64
import dataclasses
import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import quote

import numpy as np
from flask import Response, request
from flask_openapi import APIBlueprint, Tag
from PIL import Image

import clipsieve
from clipsieve import classset
from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.boxes import Boxes, all_boxes, boxes_of
from clipsieve.back.guard import reads
from clipsieve.back.image_text import holds_base64, read_image_text
from clipsieve.back.knn import to_json_value
from clipsieve.back.limits import MOST_EXAMPLES, MOST_LETTERS
from clipsieve.back.notes import note_header
from clipsieve.back.offers import embedded, notes_on, offers, one_class, rank
from clipsieve.back.pictures import encoded, refuse_bombs, shrink, small_webp
from clipsieve.back.shelf import Fetch, Served, Shelf
from clipsieve.errors import InputError, NotFound, TooLarge, quoted
from clipsieve.heif import open_image
from clipsieve.index.asked import RankedAnswer
from clipsieve.index.collection import Collection
from clipsieve.types import ClassSet, Distribution, Float32

TAG = Tag(name="api", description="The page's own API.")
FINE = 4096
"""Bins that a histogram is counted in before those that hold anything are made into as many as were asked for."""

EXACT_ROWS = 2_000_000
SAMPLE = 200_000
"""Rows up to which a distribution counts all of them, and how many it looks at beyond."""

THUMB = 128
"""Pixels of an example image's picture, on its longer side."""

KEPT = 32
FIRST_RANKED = 1_000
"""Answers that are kept for the next page, and how many items are ranked for the first one."""

MOST_SEARCHED = 1_000_000
"""Items that paging may reach."""

Stored = Callable[[str], ClassSet]
"""A stored class set by its name. NotFound where there is none."""


def blueprint(shelf: Shelf, fetch: Fetch, stored: Callable[[Served], Stored], boxes: Boxes) -> APIBlueprint:
    """The routes. `fetch` gets what a URL names, `stored` a collection's class sets by name."""
    routes = APIBlueprint("api", __name__, url_prefix="/api/v1", abp_tags=[TAG])
    answers = Answers()

    @routes.get("/info", summary="What is served", responses=shapes.INFO)
    def info() -> Any:
        collections = [_info(shelf[name], boxes) for name in shelf.names]
        limits = {
            "results": schema.MOST_RESULTS,
            "reach": MOST_SEARCHED,
            "marks": schema.MOST_MARKS,
            "examples": MOST_EXAMPLES,
            "letters": MOST_LETTERS,
        }
        return {
            "version": clipsieve.__version__,
            "collections": collections,
            "limits": limits,
            "formats": schema.FORMATS,
        }

    @routes.post("/search", summary="The items of a class, a page at a time", responses=shapes.PAGE)
    @reads
    def search(body: schema.Search) -> Any:
        served = shelf[body.collection]
        classes, name = schema.read_question(body, stored(served))
        start = _start(body.cursor, served)
        answer = answers.get(served, body, classes, name, start + body.limit)
        page = answer.ranked.pick(slice(start, start + body.limit))
        hits = [schema.hit_to_json(hit) for hit in answer.hits(page)]
        add_sizes(served, page.ids.tolist(), hits)
        notes = notes_on(served, one_class(classes, name), body)
        if body.boxes:
            collection = served.collection
            meta = next(c for c in classes.classes if name is None or c.name == name)
            (vectors,) = boxes.embed(collection, [meta], classes.templates)
            notes = list(dict.fromkeys([*notes, *boxes.notes(collection, [meta], classes.templates)]))
            with served.just_found():
                found = boxes_of(collection.regions, page.ids.tolist(), vectors, body.box_threshold, classes.nms)
            for hit in hits:
                hit["boxes"] = found[int(hit["id"])]
        more = len(answer.ranked.ids) > start + body.limit
        return {
            "index_rev": served.collection.revision,
            "claim": answer.claim,
            "recall": answer.recall,
            "timings_ms": dict(answer.timings_ms),
            "notes": notes,
            "hits": hits,
            "next": f"{served.collection.revision}.{start + body.limit}" if more else None,
        }

    @routes.post("/distribution", summary="How all items fall under a class", responses=shapes.DISTRIBUTION)
    @reads
    def distribution(body: schema.Histogram) -> Any:
        served = shelf[body.collection]
        classes, name = schema.read_question(body, stored(served))
        found = _distribution(served, body, classes, name)
        return schema.distribution_to_json(found), note_header(notes_on(served, one_class(classes, name), body))

    @routes.post("/explain", summary="Why an item stands where it does", responses=shapes.EXPLAINED)
    @reads
    def explain(body: schema.Explain) -> Any:
        served = shelf[body.collection]
        classes, name = schema.read_question(body, stored(served))
        at = served.collection.fixed(embedded(served, one_class(classes, name), body))
        explained = at.explain(classes, int(body.id), name=name, modality=body.modality)
        return schema.explained_to_json(*explained), note_header(notes_on(served, one_class(classes, name), body))

    @routes.get("/items/<id>", summary="What is known of an item", responses=shapes.ITEM)
    def item(path: schema.ItemPath, query: schema.ItemQuery) -> Any:
        collection = shelf[query.collection].collection
        row = collection.items([_id(path.id)])[0]
        metadata = {name: to_json_value(value) for name, value in row.items() if name != "id"}
        regions = all_boxes(collection, int(cast(int, row["id"])))
        return {"id": str(row["id"]), "key": row["key"], "metadata": metadata, "regions": regions}

    @routes.get("/items/<id>/image", summary="An item's image: ?size=256 for a small one", responses=shapes.IMAGE)
    def image(path: schema.ItemPath, query: schema.ImageQuery) -> Response:
        served, number = shelf[query.collection], _id(path.id)
        tag = _tag(served, number, query.size)
        if request.if_none_match.contains_weak(tag):
            return _cached(Response(status=304), tag)
        if query.size is None:
            data = served.collection.image_bytes(number)
        else:
            data = _small(served.collection.thumbnail(number), query.size, served)
        return _cached(_image(data, served), tag)

    @routes.post("/uploads", summary="An image to be an example", request_body=shapes.FORM, responses=shapes.UPLOADED)
    @reads
    def uploads() -> Any:
        file = request.files.get("data")
        if file is None:
            raise InputError("The form has no file; send the image as `data`.")
        return _example(shelf[request.form.get("collection")], file.read())

    @routes.post("/fetch", summary="An image by URL to be an example", responses=shapes.UPLOADED)
    @reads
    def fetched(body: schema.Url) -> Any:
        data = read_image_text(body.url, "url") if holds_base64(body.url) else fetch(body.url)
        return _example(shelf[body.collection], data)

    return routes


class Answers:
    """Ranked answers of the last questions, of which pages are shown. Safe to use from several threads at once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[int, RankedAnswer]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, served: Served, body: schema.Search, classes: ClassSet, name: str | None, count: int) -> RankedAnswer:
        """The answer to a question with `count` items and one more, if there are so many."""
        if count > MOST_SEARCHED:
            raise InputError(f"The cursor goes beyond {MOST_SEARCHED:,} items; narrow the question.")
        asked = body.model_dump(exclude={"cursor", "limit", "boxes", "box_threshold"})
        whole = [served.name, served.collection.revision, classset.to_json(classes), asked]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
        with self._lock:
            depth, answer = self._kept.get(key, (0, None))
        if answer is None or (depth <= count and len(answer.ranked.ids) == depth):
            depth = max(FIRST_RANKED, 4 ** math.ceil(math.log(count + 1, 4)))

            def ask(at: Collection, wanted: int) -> RankedAnswer:
                return at.rank(
                    classes,
                    wanted,
                    name=name,
                    threshold=body.threshold,
                    where=body.where,
                    dedup=body.dedup,
                    modality=body.modality,
                    view=body.view,
                    order=body.sort,
                    veto=body.veto,
                )

            vectors = embedded(served, one_class(classes, name), body)
            answer = rank(served.flags.sieve(body.without), vectors, depth, ask)
        with self._lock:
            self._kept[key] = depth, answer
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return answer


def _info(served: Served, boxes: Boxes) -> dict[str, Any]:
    collection = served.collection
    known = collection.info()
    fields = ("count", "dim", "model", "removed", "licence", "indices", "columns", "read_only")
    return {
        "id": served.name,
        **{name: known[name] for name in fields},
        "modalities": [index["name"] for index in known["indices"]],
        "detector": known["regions"] and known["regions"]["detector"],
        "boxes": boxes.fits(collection),
        **offers(served),
        "duplicates": collection.has_groups,
        "index_rev": collection.revision,
    }


def _start(cursor: str | None, served: Served) -> int:
    if cursor is None:
        return 0
    revision, _, start = cursor.rpartition(".")
    if not start.isdecimal() or len(start) > 9:
        raise InputError(f"cursor is {quoted(cursor)}; take `next` of an answer.")
    if revision != served.collection.revision:
        raise InputError("The collection has changed since the first page; ask without a cursor.")
    return int(start)


def _distribution(served: Served, body: schema.Histogram, classes: ClassSet, name: str | None) -> Distribution:
    vectors = embedded(served, one_class(classes, name), body)
    sieve = served.flags.sieve(body.without)
    sample = sieve.look(SAMPLE if sieve.collection.count > EXACT_ROWS else None, body.modality)
    at = sieve.collection.fixed(vectors, sieve.without)
    asked = {"name": name, "threshold": body.threshold, "where": body.where, "modality": body.modality}
    asked["veto"] = body.veto
    if (body.lo is None) != (body.hi is None) or (body.lo is not None and not body.lo < (body.hi or 0.0)):
        raise InputError(f"lo is {body.lo} and hi is {body.hi}; give both, the less one first, or neither.")
    if body.lo is not None and body.hi is not None:
        edges = np.linspace(body.lo, body.hi, body.bins + 1, dtype=np.float32)
        return at.distribution(classes, sample=sample, edges=edges, **asked)  # type: ignore[arg-type]
    ends = (-1.0, 1.0) if classes.calibration == "none" else (0.0, 40.0)
    edges = np.linspace(*ends, FINE + 1, dtype=np.float32)
    found = at.distribution(classes, sample=sample, edges=edges, **asked)  # type: ignore[arg-type]
    return _coarser(found, body.bins)


def _coarser(found: Distribution, bins: int) -> Distribution:
    """With at most so many bins, over those that hold anything."""
    held = np.flatnonzero(found.counts)
    first, last = (int(held[0]), int(held[-1]) + 1) if len(held) else (0, 1)
    width = -(-(last - first) // bins)
    starts = np.arange(first, last, width)
    edges: Float32 = np.append(found.edges[starts], found.edges[min(int(starts[-1]) + width, len(found.counts))])

    def summed(counts: Any) -> Any:
        return np.add.reduceat(counts[: int(starts[-1]) + width], starts)

    histograms = {name: summed(getattr(found, name)) for name in ("counts", "rivalled", "ranked")}
    histograms["ranked"][0] += found.ranked[:first].sum()  # what negatives lowered to under every positive's score
    return dataclasses.replace(found, **histograms, edges=edges)


def add_sizes(served: Served, ids: list[int], hits: list[dict[str, Any]]) -> None:
    """Width and height, where they are known, and where the small image is."""
    sized = {"width", "height"} <= set(served.collection.columns)
    with served.just_found():
        rows = served.collection.items(ids, ["width", "height"]) if sized else [{}] * len(ids)
    for hit, row in zip(hits, rows, strict=True):
        hit["w"], hit["h"] = row.get("width"), row.get("height")
        hit["thumb"] = f"/api/v1/items/{hit['id']}/image?size=256&collection={quote(served.name, safe='')}"


def _id(text: str) -> int:
    if not text.isdecimal() or len(text) > 19 or int(text) >= 2**63:
        raise NotFound(f"There is no item {quoted(text)}; ids are whole numbers.")
    return int(text)


def _tag(served: Served, id: int, size: int | None) -> str:
    """Items never change under their id: what is shown of one is the same for ever."""
    row = served.collection.items([id])[0]
    image = row.get("content_hash") or row["key"]  # a folder of clip-retrieval's has no hashes
    return hashlib.sha256(f"{served.name}|{id}|{size}|{image}".encode()).hexdigest()[:32]


def _cached(answer: Response, tag: str) -> Response:
    answer.set_etag(tag)
    answer.headers["Cache-Control"] = "private, max-age=86400"
    return answer


def _image(data: bytes, served: Served) -> Response:
    try:
        with open_image(data) as opened:
            mimes = {**Image.MIME, "HEIF": "image/heif"}
            kind = mimes.get(opened.format or "", "application/octet-stream")
    except (InputError, OSError, ValueError, SyntaxError):
        raise NotFound(f"The image of {served.name} cannot be decoded.") from None
    # What is no picture to a browser is not shown by it: an SVG may hold scripts.
    return Response(data, mimetype=kind if kind.startswith("image/") and kind != "image/svg+xml" else None)


def _small(data: bytes, side: int, served: Served) -> bytes:
    try:
        return small_webp(data, side, served.image_memory)
    except (InputError, TooLarge) as error:  # whoever asks did not send it
        raise NotFound(str(error)) from error


def _example(served: Served, data: bytes) -> dict[str, str]:
    if not data:
        raise InputError("The image is empty.")
    refuse_bombs(data)
    id = served.collection.add_example_image(data)
    # Within the answer: the image is not kept, and a page may show nothing from elsewhere.
    shown = base64.b64encode(encoded(shrink(data, THUMB, served.image_memory), "WEBP")).decode()
    return {"id": id, "thumb": f"data:image/webp;base64,{shown}"}
