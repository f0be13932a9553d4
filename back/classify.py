"""DirectAI's protocol for classifiers: /deploy_classifier, /classify and /model_config.

An image is looked at before the id, as there. What else there is to the protocol is in `directai`.
"""

from flask import Response
from flask_openapi import APIBlueprint

from clipsieve.back import directai_shapes as shapes
from clipsieve.back.classifier import Classifier
from clipsieve.back.deployed import Deployed, read_classifier
from clipsieve.back.directai import (
    NO_IMAGE,
    TAG,
    add_errors,
    answer,
    deploy_body,
    deployed_id,
    error_answer,
    find,
    read_question,
    require_image,
)
from clipsieve.back.guard import reads
from clipsieve.back.meters import Meters
from clipsieve.back.pydantic_v1 import invalid, missing
from clipsieve.back.stores import Store
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.image_memory import ImageMemory

NO_MODEL = "This service has no model that classifies; start it with one: back --model NAME."


def blueprint(classifier: Classifier | None, store: Store, meters: Meters, image_memory: ImageMemory) -> APIBlueprint:
    """The routes. Configurations are kept in `store`.

    classifier  None for a service that keeps classifiers and has no model to classify with
    """
    routes = APIBlueprint("directai", __name__, abp_tags=[TAG])

    @routes.post(
        "/deploy_classifier",
        summary="Keep a classifier, or change one",
        request_body=shapes.body("application/json", shapes.DEPLOY),
        responses={"200": shapes.result("The id to ask with.", shapes.DEPLOYED)},
    )
    def deploy_classifier() -> Response:
        return deploy_body(store, read_classifier, None if classifier is None else classifier.notes)

    @routes.post(
        "/classify",
        summary="Scores of an image: classify?deployed_id=ID",
        request_body=shapes.body("multipart/form-data", shapes.IMAGE),
        responses={"200": shapes.result("The classes' scores.", shapes.SCORED)},
    )
    @reads
    def classify() -> Response:
        id, data = read_question()
        if classifier is None:
            require_image(data, image_memory)
            require_classifier(find(store, id), id)
            return error_answer(ModelUnavailable(NO_MODEL), 503)
        with meters.time("image_clip_inference_time"):
            try:
                image = classifier.embed_image(data)
            except InputError as error:
                raise InputError(NO_IMAGE) from error
        deployed = find(store, id)
        require_classifier(deployed, id)
        scored = classifier.score(deployed, image)
        found = {"scores": scored.scores, "pred": scored.pred, "raw_scores": scored.raw}
        return answer(found, notes=classifier.notes(deployed))

    @routes.get(
        "/model_config",
        summary="What was deployed: model_config?deployed_id=ID",
        responses={"200": shapes.result("The deployed body, with its id.", shapes.CONFIG)},
    )
    def model_config() -> Response:
        id = deployed_id()
        if id is None:
            raise invalid([missing("query", "deployed_id")])
        return answer(find(store, id).to_json(id))

    add_errors(routes)
    return routes


def require_classifier(deployed: Deployed, id: str) -> None:
    """InputError for a detector."""
    if deployed.detector is not None:
        raise InputError(f"{id} is a detector; classify with the id of a classifier.")
