"""DirectAI's protocol for detectors: /deploy_detector and /detect; /model_config tells of both kinds.

Errors, statuses and the order of checks are those of `classify`. Without a detector everything is answered but /detect.
"""

from flask import Response
from flask_openapi import APIBlueprint

from clipsieve.back import directai_shapes as shapes
from clipsieve.back.deployed import read_detector
from clipsieve.back.directai import (
    NO_IMAGE,
    TAG,
    add_errors,
    answer,
    deploy_body,
    error_answer,
    find,
    read_question,
    require_image,
)
from clipsieve.back.finder import Finder
from clipsieve.back.guard import reads
from clipsieve.back.stores import Store
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.image_memory import ImageMemory

NO_DETECTOR = "This service has no detector; start it with one: back --detector MODEL."


def blueprint(finder: Finder | None, store: Store, image_memory: ImageMemory) -> APIBlueprint:
    """The routes. Configurations are kept in `store`.

    finder  None for a service that keeps detectors and finds nothing with them
    """
    routes = APIBlueprint("directai_detect", __name__, abp_tags=[TAG])

    @routes.post(
        "/deploy_detector",
        summary="Keep a detector, or change one",
        request_body=shapes.body("application/json", shapes.DEPLOY_DETECTOR),
        responses={"200": shapes.result("The id to ask with.", shapes.DEPLOYED)},
    )
    def deploy_detector() -> Response:
        return deploy_body(store, read_detector, None if finder is None else finder.notes)

    @routes.post(
        "/detect",
        summary="What is where in an image: detect?deployed_id=ID",
        request_body=shapes.body("multipart/form-data", shapes.IMAGE),
        responses={"200": shapes.result("One list, of the image's boxes.", shapes.FOUND)},
    )
    @reads
    def detect() -> Response:
        id, data = read_question()
        size = require_image(data, image_memory)
        deployed = find(store, id)
        suppression = deployed.detector
        if suppression is None:
            raise InputError(f"{id} is a classifier; detect with the id of a detector.")
        if finder is None:
            return error_answer(ModelUnavailable(NO_DETECTOR), 503)
        if not deployed.classes:
            return answer([[]])
        try:
            regions = finder.regions(data)
        except InputError as error:
            raise InputError(NO_IMAGE) from error
        found = finder.keep(deployed, suppression, regions, size)
        boxes = [{"tlbr": one.tlbr, "score": one.score, "class": one.name} for one in found]
        return answer([boxes], notes=finder.notes(deployed))

    add_errors(routes)
    return routes
