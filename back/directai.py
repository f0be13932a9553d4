"""What DirectAI's protocols for classifiers and for detectors share: questions, deployed bodies, answers, errors.

Errors are {"status_code": N, "message": ..., "data": null}, but {"detail": ...} for a method that a route does not
take. What is answered with a bare 500 there is a sentence here.
"""

import json
import logging
import uuid
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from flask import Response, request
from flask_openapi import APIBlueprint, Tag

from clipsieve.back.deployed import Deployed, from_stored, to_stored
from clipsieve.back.notes import note_header
from clipsieve.back.pictures import upright_size
from clipsieve.back.pydantic_v1 import Fault, invalid, missing, one_line, parse
from clipsieve.back.stores import Store
from clipsieve.errors import ClipsieveError, InputError, NotFound, StoreUnavailable, quoted
from clipsieve.image_memory import ImageMemory

log = logging.getLogger("clipsieve.back")

TAG = Tag(name="DirectAI", description="The protocol of DirectAI's data-free model server.")
NO_STORE = "Exception in Model Config Storage Server. Please try again."
NO_IMAGE = "Invalid image received, unable to open."


def add_errors(routes: APIBlueprint) -> None:
    """Errors in the protocol's shape and with its statuses."""

    @routes.errorhandler(InputError)
    def refused(error: InputError) -> Response:
        return error_answer(error, 422)

    @routes.errorhandler(NotFound)
    def not_found(error: NotFound) -> Response:
        return error_answer(error, 400)

    @routes.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> Response:
        log.error("%s %s: %s", request.method, request.path, error)
        return error_answer(StoreUnavailable(NO_STORE), 502)


def deploy_body(
    store: Store,
    read: Callable[[Any], tuple[Deployed, str | None]],
    notes: Callable[[Deployed], Sequence[str]] | None = None,
) -> Response:
    """Keep what the request's body holds.

    read   a parsed body -> the configuration, and the id that it asks for
    notes  what is to be told of a configuration's texts; where no model can say it now, /classify and /detect do
    """
    try:
        value = parse(request.get_data(cache=False), request.mimetype)
    except InputError:
        raise
    except (ValueError, RecursionError):
        return answer({"detail": "There was an error parsing the body"}, 400)
    deployed, asked = read(value)
    kept = deploy(store, deployed, asked)
    told: Sequence[str] = ()
    if notes is not None:
        try:
            told = notes(deployed)
        except Exception as error:  # keeping needs no model; /classify and /detect come upon whatever is wrong with it
            log.warning("What the model reads of the texts of %s is not known: %s", kept["deployed_id"], error)
    return answer(kept, notes=told)


def deploy(store: Store, deployed: Deployed, asked: str | None) -> dict[str, str]:
    """Keep a configuration under the id asked for, or, where nothing is kept under that, under a new one."""
    if asked is not None and store.get(asked) is not None:
        id, message = asked, "Model updated."
    else:
        id = str(uuid.uuid4())
        message = (
            "New model deployed." if asked is None else f"{quoted(asked, '')} model not found. Generated new model."
        )
    store.put(id, to_stored(deployed, id))
    return {"deployed_id": id, "message": message}


def find(store: Store, id: str) -> Deployed:
    """The configuration kept under this id. NotFound in DirectAI's words."""
    stored = store.get(id)
    if stored is None:
        raise NotFound("Key not found")
    return from_stored(stored, id)


def require_image(data: bytes, memory: ImageMemory) -> tuple[int, int]:
    """Width and height of an encoded image, upright. InputError in DirectAI's words if it cannot be opened."""
    try:
        return upright_size(data, memory)
    except InputError as error:
        raise InputError(NO_IMAGE) from error


def read_question() -> tuple[str, bytes]:
    """The id and the image of /classify or /detect; of several the last, as there. InputError for what is not given."""
    id, files, texts = deployed_id(), request.files.getlist("data"), request.form.getlist("data")
    faults = [] if id is not None else [missing("query", "deployed_id")]
    if not files and any(texts):
        kind = "Expected UploadFile, received: <class 'str'>"
        faults.append(Fault(("body", "data"), kind, "value_error"))
    elif not files:
        faults.append(missing("body", "data"))
    if id is None or faults:
        raise invalid(faults)
    return id, files[-1].read()


def deployed_id() -> str | None:
    """The id that the request's address names; of several the last, as there."""
    given = request.args.getlist("deployed_id")
    return given[-1] if given else None


def error_answer(error: ClipsieveError, status: int) -> Response:
    """An error in the protocol's shape."""
    if status in (404, 405):
        return answer({"detail": HTTPStatus(status).phrase}, status)
    return answer({"status_code": status, "message": one_line(str(error)), "data": None}, status)


def answer(value: Any, status: int = 200, notes: Sequence[str] = ()) -> Response:
    """A value as JSON, with notes in a header."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Response(text, status, headers=note_header(notes), mimetype="application/json")
