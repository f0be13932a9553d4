"""The service as a WSGI application: one blueprint per protocol, and what all of them share."""

import gzip
import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from flask import Response, g, request
from flask_openapi import APIBlueprint, OpenAPI, Tag
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

import clipsieve
from clipsieve.back import api, classify, detect, directai, job_routes, knn, kserve, logs, marks, openai, sets, start
from clipsieve.back.boxes import Boxes
from clipsieve.back.classifier import Classifier
from clipsieve.back.describe import describe
from clipsieve.back.direct import DIRECT, Direct
from clipsieve.back.express import EXPRESS, Express
from clipsieve.back.figures import Figures, ModelFigures, no_models
from clipsieve.back.finder import Finder
from clipsieve.back.guard import NO_MEMORY, for_all, is_logged, retry_headers, status_of
from clipsieve.back.jobs import Jobs
from clipsieve.back.limits import Limits
from clipsieve.back.meters import Meters
from clipsieve.back.page import Page, add_page
from clipsieve.back.protect import Protection, State, protect
from clipsieve.back.schema import validation_sentence
from clipsieve.back.shelf import Fetch, Shelf
from clipsieve.back.stores import MemoryStore, Store
from clipsieve.errors import ClipsieveError, CollectionChanged, InputError, Overloaded, lacks_memory, quoted
from clipsieve.image_memory import ImageMemory
from clipsieve.protocols import Detector

log = logging.getLogger("clipsieve.back")

METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
"""Methods that requests are counted by."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What is taken as a request's id from whoever sends one: proxies send hex digits or a uuid."""

ErrorAnswer = Callable[[ClipsieveError, int], Response]


def create_app(
    shelf: Shelf,
    *,
    fetch: Fetch,
    meters: Meters | None = None,
    limits: Limits | None = None,
    embedder: Callable[[], Any] | None = None,
    detector: Callable[[], Detector] | None = None,
    detector_name: str | None = None,
    encoder: Callable[[], Any] | None = None,
    store: Store | None = None,
    protection: Protection | None = None,
    models: ModelFigures = no_models,
    page: Page | None = None,
    jobs: Jobs | None = None,
    image_memory: ImageMemory | None = None,
) -> OpenAPI:
    """The service over these collections.

    fetch       gets an image by URL for those who ask with one
    embedder    gives the model that images are classified with, when it is first needed; None for a service that
                keeps classifiers but has none
    detector    gives the one that finds boxes, and found the collections' regions, likewise; None for one that keeps
                detectors but has none. DirectAI's routes are not there without either
    detector_name  what that is called, by which /info says where boxes can be had; None: nowhere
    encoder     gives the batched embedder of the embedding service, likewise
    store       where deployed classifiers and detectors are kept; by default they are forgotten with the service
    protection  who may ask and how much; by default what protects a service on one's own machine
    models      what the models did, for /metrics
    page        what / shows; by default that there is no page
    jobs        where long work is done; None for no such routes
    image_memory  from which decoding reserves what the models and collections do not; by default one of its own
    """
    meters = meters or Meters()
    boxes = Boxes(detector, detector_name)
    asked = knn.Knn(shelf, meters, fetch, limits)
    blueprints = [
        knn.blueprint(asked),
        api.blueprint(shelf, fetch, sets.stored, boxes),
        sets.blueprint(shelf),
        marks.blueprint(shelf, sets.stored),
        start.blueprint(shelf),
    ]
    if jobs is not None:
        blueprints.append(job_routes.blueprint(shelf, jobs, sets.stored, boxes))
    if embedder is not None or detector is not None:
        store, memory = store or MemoryStore(), image_memory or ImageMemory()
        blueprints.append(classify.blueprint(None if embedder is None else Classifier(embedder), store, meters, memory))
        blueprints.append(detect.blueprint(None if detector is None else Finder(detector), store, memory))
    protection = protection or Protection()
    encoders = None if encoder is None else kserve.Encoders(encoder)
    if encoders is not None:
        blueprints += embedding(encoders, protection)
    meters.registry.register(Figures(shelf, protection, models))
    app = assemble(blueprints, page or Page(), meters, protection, encoders)
    app.extensions[DIRECT] = Direct(asked.answers, knn.write_error, protection, meters)
    return app


def create_embedding_app(
    encoder: Callable[[], Any], meters: Meters, protection: Protection, models: ModelFigures = no_models
) -> OpenAPI:
    """The embedding service alone. `encoder` gives its batched embedder, `models` what it did."""
    meters.registry.register(Figures(Shelf(), protection, models))
    encoders = kserve.Encoders(encoder)
    return assemble(embedding(encoders, protection), None, meters, protection, encoders)


def embedding(encoders: kserve.Encoders, protection: Protection) -> list[APIBlueprint]:
    """The routes of the embedding service."""
    routes = kserve.blueprint(encoders, protection.state, protection.policy.max_bytes)
    return [routes, openai.blueprint(lambda: encoders.embedder)]


def assemble(
    blueprints: Sequence[APIBlueprint],
    page: Page | None,
    meters: Meters,
    protection: Protection,
    encoders: kserve.Encoders | None = None,
) -> OpenAPI:
    """The application of these routes; without any, a page that asks a service elsewhere. No page where it is None."""
    app = OpenAPI(
        "clipsieve",
        info={"title": "clipsieve", "version": clipsieve.__version__},
        static_folder=None,
        doc_ui=False,
        validation_error_callback=_not_as_described,
    )
    app.openapi_version = "3.1.0"
    app.json.ensure_ascii = False  # type: ignore[attr-defined]
    for blueprint in blueprints:
        app.register_api(blueprint)
    _add_operations(app, meters, protection.state)
    if page is not None:
        add_page(app, page)
    shapes: Mapping[str, ErrorAnswer] = {
        "knn": knn.error_answer,
        "directai": directai.error_answer,
        "directai_detect": directai.error_answer,
        "kserve": kserve.error_answer,
        "openai": openai.error_answer,
    }
    prefixes = {"v1": "openai", "v2": "kserve"} if "kserve" in app.blueprints else {}
    protocols = {rule.rule: rule.endpoint.split(".")[0] for rule in app.url_map.iter_rules()}

    def shape() -> ErrorAnswer:
        # A method that a route does not take has no blueprint, nor has what is not there.
        name = request.blueprint or protocols.get(request.path) or prefixes.get(request.path.split("/")[1], "")
        return shapes.get(name, error_answer)

    @app.errorhandler(ClipsieveError)
    def expected(error: ClipsieveError) -> Response:
        status = status_of(error)
        if is_logged(error):
            log.error("%s %s: %s", request.method, request.path, error)
        answer = shape()(error, status)
        answer.headers.update(retry_headers(error))
        return answer

    @app.errorhandler(CollectionChanged)
    def overtaken(error: CollectionChanged) -> Any:
        if "again" in g:
            return expected(error)
        g.again = True
        try:
            return app.make_response(app.dispatch_request())  # once more, of the commit that is there now
        except ClipsieveError as other:
            return expected(other)

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        status = error.code or 500
        answer = shape()(ClipsieveError(_own_fault() if status == 500 else _sentence(error)), status)
        for name, value in error.get_headers():
            if name in ("Allow", "Location", "Retry-After"):
                answer.headers[name] = value
        return answer

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        if lacks_memory(error):
            log.error("%s %s: there is not enough memory (%s)", request.method, request.path, quoted(str(error), ""))
            return expected(Overloaded(NO_MEMORY))
        log.exception("%s %s failed", request.method, request.path, exc_info=error)
        return shape()(ClipsieveError(_own_fault()), 500)

    @app.before_request
    def begin() -> None:
        g.began = time.perf_counter()
        given = request.headers.get("X-Request-Id", "")
        g.request_id = given if _ID.fullmatch(given) else uuid.uuid4().hex
        meters.in_flight.inc()

    @app.after_request
    def finish(answer: Response) -> Response:
        answer.headers["X-Request-Id"] = g.request_id
        route = request.url_rule.rule if request.url_rule is not None else "none"
        method = request.method if request.method in METHODS else "other"  # anybody may make up more of them
        meters.requests.labels(route, method, str(answer.status_code)).inc()
        seconds = time.perf_counter() - g.began
        meters.seconds.labels(route).observe(seconds)
        quiet = route in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics")
        logs.answered(request.method, request.path, answer.status_code, seconds, request.remote_addr, quiet)
        return answer

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        if "began" in g:
            meters.in_flight.dec()

    protect(app, protection, lambda sentence, status: shape()(ClipsieveError(sentence), status), meters.refused)
    app.wsgi_app = _one_slash(app.wsgi_app)  # type: ignore[method-assign]
    if encoders is not None:
        app.extensions[EXPRESS] = Express(encoders, protection, meters)
    return app


def error_answer(error: ClipsieveError, status: int) -> Response:
    """An error in the shape of /api/v1, which routes of no other protocol have as well."""
    value = {"error": {"code": status, "message": str(error), "request_id": g.get("request_id", "")}}
    return Response(json.dumps(value, ensure_ascii=False), status, mimetype="application/json")


def _not_as_described(error: ValidationError) -> Response:
    return error_answer(InputError(validation_sentence(error, request.mimetype, request.get_data())), 400)


def _add_operations(app: OpenAPI, meters: Meters, state: State) -> None:
    tag: list[Tag | dict[str, Any]] = [Tag(name="operation", description="For those who run the service.")]

    @app.get("/healthz", summary="Whether the process answers", tags=tag)
    @for_all
    def healthz() -> Any:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether questions can be answered", tags=tag)
    @for_all
    def readyz() -> Any:
        return {"status": state.status}, 200 if state.status == "ok" else 503

    @app.get("/openapi", summary="All routes, as OpenAPI", tags=tag)
    def openapi() -> Any:
        return describe(app.api_doc)

    @app.get("/metrics", summary="Figures for Prometheus", tags=tag)
    def metrics() -> Response:
        answer = Response(meters.exposition(), content_type=CONTENT_TYPE_LATEST)
        answer.vary.add("Accept-Encoding")
        if request.accept_encodings["gzip"]:
            answer.set_data(gzip.compress(answer.get_data()))
            answer.content_encoding = "gzip"
        return answer

    @app.get("/metrics-summary", summary="Figures for people", tags=tag)
    def metrics_summary() -> Response:
        return Response(meters.summary(), mimetype="text/plain")


def _own_fault() -> str:
    return f"This is an error of the service; its log has it as {g.request_id}."


def _sentence(error: HTTPException) -> str:
    if error.code == 404:
        return f"There is nothing at {quoted(request.path, '')}; /openapi lists what there is."
    if error.code == 405:
        return f"{quoted(request.path, '')} does not take {quoted(request.method, '')}."
    if error.code == 413:
        return "The form has too many parts, or a long one that is no file; send the image as a file, `data`."
    return str(error.description or error.name)


def _one_slash(app: Any) -> Any:
    """clip-retrieval's front asks for //knn-service, with what its configuration ends in before the path."""

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path.startswith("//"):
            environ["PATH_INFO"] = "/" + path.lstrip("/")
        answered: Iterable[bytes] = app(environ, start_response)
        return answered

    return answer
