"""Marks over HTTP: what somebody says of items, what is said, and what to look at next because of it."""

from collections.abc import Callable, Sequence
from typing import Any

from flask_openapi import APIBlueprint

from clipsieve.back import api_shapes as shapes
from clipsieve.back import schema
from clipsieve.back.api import TAG, Stored, add_sizes
from clipsieve.back.guard import reads
from clipsieve.back.shelf import Served, Shelf
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
        standing = served.marks.standing(name)
        right = [mark.item for mark in standing if mark.verdict == "right"]
        wrong = [mark.item for mark in standing if mark.verdict == "wrong"]
        found = served.collection.review(
            classes,
            right,
            wrong,
            body.limit,
            name=name,
            threshold=body.threshold,
            where=body.where,
            modality=body.modality,
        )
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

    return routes


def _to_json(served: Served, hits: Sequence[Hit]) -> list[dict[str, Any]]:
    shown = [schema.hit_to_json(hit) for hit in hits]
    add_sizes(served, [hit.id for hit in hits], shown)
    return shown


def _as_example(hit: dict[str, Any]) -> dict[str, Any]:
    return {"example": {"image": hit["id"]}, **hit}
