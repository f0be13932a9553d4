"""Marks over HTTP: what somebody says of items, what is said, and what to look at next because of it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flask_openapi import APIBlueprint

from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.api import TAG, Stored, add_sizes
from clipsieve.back.guard import reads
from clipsieve.back.offers import embedded, one_class, review
from clipsieve.back.shelf import Served, Shelf
from clipsieve.errors import InputError
from clipsieve.index.collection import Collection
from clipsieve.index.review import Review
from clipsieve.types import Hit


def blueprint(shelf: Shelf, stored: Callable[[Served], Stored]) -> APIBlueprint:
    """The routes. `stored` gives a collection's class sets by name."""
    routes = APIBlueprint("marks", __name__, url_prefix="/api/v1", abp_tags=[TAG])

    @routes.get("/marks", summary="What is said of items: ?class=bus for one class", responses=shapes.MARKS)
    def get(query: schema.MarksQuery) -> Any:
        standing = shelf[query.collection].marks.standing(query.class_)
        return {"marks": [schema.mark_to_json(mark) for mark in standing]}

    @routes.post("/marks", summary="Say of items that they are of a class, or are not", responses=shapes.CHANGED)
    def add(query: schema.ItemQuery, body: schema.MarksBody) -> Any:
        served = shelf[query.collection]
        marks = [said.to_mark() for said in body.root]
        served.collection.items(list({mark.item for mark in marks}))  # there are no others to say anything of
        with served.keeping():
            return {"changed": served.marks.add(marks)}

    @routes.delete("/marks", summary="Take back what was said", responses=shapes.CHANGED)
    def take_back(query: schema.ItemQuery, body: schema.TakenBackBody) -> Any:
        served = shelf[query.collection]
        with served.keeping():
            return {"changed": served.marks.take_back([said.to_mark() for said in body.root])}

    @routes.post(
        "/suggest",
        summary="Which items to mark next, and which marked ones to make examples of",
        responses=shapes.SUGGESTED,
    )
    @reads
    def suggest(body: schema.Suggest) -> Any:
        served = shelf[body.collection]
        classes, name = schema.read_question(body, stored(served))
        right, wrong = _said(served, name)

        def ask(at: Collection) -> Review[tuple[Hit, ...]]:
            return at.review(
                classes,
                right,
                wrong,
                body.limit,
                name=name,
                threshold=body.threshold,
                where=body.where,
                modality=body.modality,
                asking=body.asking,
            )

        vectors = embedded(served, one_class(classes, name), body)
        found = review(served.flags.sieve(body.without), vectors, body.modality, ask)
        shown = found.map(lambda hits: _to_json(served, hits))
        return {
            "index_rev": served.collection.revision,
            "class": name,
            "marks": {"right": len(right), "wrong": len(wrong)},
            "review": shown.doubtful,
            "left": shown.left,
            "positive": [_as_example(hit) for hit in shown.missed],
            "negative": [_as_example(hit) for hit in shown.mistaken],
        }

    @routes.post(
        "/learn",
        summary="The collection as a class's marks teach to rank it, and what to mark next",
        responses=shapes.LEARNED,
    )
    @reads
    def learn(body: schema.Learn) -> Any:
        if body.threshold is not None or body.where is not None:
            raise InputError("What is learned ranks the whole collection; leave out threshold and where.")
        served = shelf[body.collection]
        classes, name = schema.read_question(body, stored(served))
        right, wrong = _said(served, name)
        vectors = embedded(served, one_class(classes, name), body)
        sieve, modality = served.flags.sieve(body.without), body.modality
        photos = sieve.collection.fixed(vectors)
        learned, examples = photos.learn(classes, right, wrong, name=name, modality=modality)
        direction = learned.direction.astype(np.float32)
        ids, products = sieve.nearest(direction, body.limit, modality=modality)
        parts = learned.parts(photos.vectors(ids, modality))  # (e, r)
        hits = [
            schema.learned_to_json(int(i), key, float(product) + learned.offset, examples, own.tolist())
            for i, key, product, own in zip(ids, photos.keys(ids), products, parts.T, strict=True)
        ]
        add_sizes(served, ids.tolist(), hits)

        def ask(at: Collection) -> Review[tuple[Hit, ...]]:
            return at.review(
                classes, right, wrong, body.limit, name=name, modality=modality, asking="spread", learned=learned
            )

        found = review(sieve, vectors, modality, ask)
        return {
            "index_rev": photos.revision,
            "class": name,
            "marks": {"right": len(right), "wrong": len(wrong)},
            "wins": learned.wins,
            "loss": learned.loss,
            "loss_alone": learned.loss_alone,
            "hits": hits,
            "review": _to_json(served, found.doubtful),
        }

    return routes


def _said(served: Served, name: str | None) -> tuple[list[int], list[int]]:
    """Ids of items marked right, and of those marked wrong."""
    standing = served.marks.standing(name)
    right = [mark.item for mark in standing if mark.verdict == "right"]
    return right, [mark.item for mark in standing if mark.verdict == "wrong"]


def _to_json(served: Served, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    shown = [schema.hit_to_json(hit) for hit in hits]
    add_sizes(served, [hit.id for hit in hits], shown)
    return shown


def _as_example(hit: dict[str, Any]) -> dict[str, Any]:
    return {"example": {"image": hit["id"]}, **hit}
