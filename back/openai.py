"""OpenAI's way to ask for embeddings: /v1/embeddings and /v1/models. Images come as data URLs among the texts.

Errors are {"error": {"message", "type", "param", "code"}}.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
from flask import Response, request
from flask_openapi import APIBlueprint, Tag
from pydantic import BaseModel

from clipsieve.back.guard import reads
from clipsieve.back.image_text import is_data_url, read_image_text
from clipsieve.back.notes import note_header
from clipsieve.back.pictures import refuse_bombs
from clipsieve.back.shapes import Json, obj
from clipsieve.checks import check_said
from clipsieve.errors import ClipsieveError, InputError, NotFound, quoted
from clipsieve.reading import notes_of, require_read
from clipsieve.types import Float32

TAG = Tag(name="OpenAI", description="Embeddings as OpenAI's clients ask for them.")
NAME = "openai"
"""What the batcher counts these requests under."""
MOST_INPUTS = 2048
TYPES: Mapping[int, str] = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ModelPath(BaseModel):
    """Which model."""

    name: str


def blueprint(embedder: Callable[[], Any]) -> APIBlueprint:
    """The routes. `embedder` gives the batched embedder."""
    routes = APIBlueprint("openai", __name__, url_prefix="/v1", abp_tags=[TAG])

    @routes.post("/embeddings", summary="Embed texts and images", request_body=_REQUEST, responses=_EMBEDDINGS)
    @reads
    def embeddings() -> Response:
        try:
            body = orjson.loads(request.get_data(cache=False))
        except orjson.JSONDecodeError as error:
            raise InputError(f"The body is no JSON ({error}).") from error
        if not isinstance(body, dict):
            raise InputError("The body is no object.")
        inputs, packed = read_inputs(body), read_format(body)
        model = embedder()
        if body.get("dimensions") not in (None, model.dim):
            raise InputError(
                f"dimensions: {quoted(body['dimensions'])} cannot be had; the model's vectors have {model.dim}."
            )
        texts = [one for one in inputs if isinstance(one, str)]
        rows = embed(model, inputs)
        data = [
            {"object": "embedding", "index": i, "embedding": _base64(row) if packed else row}
            for i, row in enumerate(rows)
        ]
        tokens = count_tokens(model, inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        answer = _answer({"object": "list", "data": data, "model": model.model.name, "usage": usage})
        answer.headers.update(note_header(notes_of(texts, ["{}"], model)))
        return answer

    @routes.get("/models", summary="The model", responses=_MODELS)
    def models() -> Response:
        return _answer({"object": "list", "data": [_model(embedder())]})

    @routes.get("/models/<path:name>", summary="The model, by its name", responses=_MODEL)
    def one(path: ModelPath) -> Response:
        described = _model(embedder())
        if described["id"] != path.name:
            raise NotFound(f"The model {quoted(path.name)} is not known; there is {quoted(described['id'])}.")
        return _answer(described)

    return routes


def read_inputs(body: Mapping[str, Any]) -> list[str | bytes]:
    """What to embed, texts and encoded images, in order. InputError for what is neither."""
    given, modality = body.get("input"), body.get("modality")
    if modality not in (None, "text", "image"):
        raise InputError(f"modality: {quoted(modality)} is neither text nor image.")
    several = given if isinstance(given, list) else [given]
    if not several or len(several) > MOST_INPUTS:
        raise InputError(f"input: {len(several)} inputs were given; one request has 1 to {MOST_INPUTS:,}.")
    return [_read(one, modality == "image") for one in several]


def _read(one: Any, is_image: bool) -> str | bytes:
    if not isinstance(one, str):
        raise InputError("input: a text is expected, or a list of texts; token ids are not taken.")
    if not (is_image or is_data_url(one)):
        check_said("input", one)
        return one
    image = read_image_text(one, "input")
    refuse_bombs(image)
    return image


def read_format(body: Mapping[str, Any]) -> bool:
    """Whether vectors are answered in base64, of their float32, and not as numbers."""
    name = body.get("encoding_format")
    if name not in (None, "float", "base64"):
        raise InputError(f"encoding_format: {quoted(name)} is neither float nor base64.")
    return bool(name == "base64")


def embed(model: Any, inputs: Sequence[str | bytes]) -> Float32:
    """float32 (n, d) in the inputs' order; texts in one request to the batcher and images in another."""
    rows = np.empty((len(inputs), model.dim), np.float32)
    texts = [i for i, one in enumerate(inputs) if isinstance(one, str)]
    images = [i for i, one in enumerate(inputs) if not isinstance(one, str)]
    if texts:
        if not hasattr(model, "embed_texts"):
            raise InputError(f"The model {quoted(model.model.name)} takes images alone; send them as data URLs.")
        given = [str(inputs[i]) for i in texts]
        require_read(model, given)
        rows[texts] = model.embed_texts(given, name=NAME)
    if images:
        rows[images] = model.embed_images([inputs[i] for i in images], name=NAME)
    return rows


def count_tokens(model: Any, inputs: Sequence[str | bytes]) -> int:
    """Token ids of the texts that the model reads, as far as it does: what is beyond its context is cut."""
    texts = [one for one in inputs if isinstance(one, str)]
    return sum(min(count, model.context) for count in model.count_tokens(texts)) if texts else 0


def error_answer(error: ClipsieveError, status: int) -> Response:
    """An error in the protocol's shape."""
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return _answer({"error": {"message": str(error), "type": kind, "param": None, "code": None}}, status)


def _model(embedder: Any) -> dict[str, Any]:
    return {"id": embedder.model.name, "object": "model", "created": 0, "owned_by": "clipsieve"}


def _base64(row: Float32) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _answer(value: Any, status: int = 200) -> Response:
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status, mimetype="application/json")


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}
_ITEM = obj(id=_TEXT, object=_TEXT, created=_NUMBER, owned_by=_TEXT)


def _answered(schema: Json) -> Any:
    return {"200": {"description": "An answer.", "content": {"application/json": {"schema": schema}}}}


_REQUEST: Json = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["input"],
                "properties": {
                    "input": {
                        "anyOf": [_TEXT, {"type": "array", "items": _TEXT, "minItems": 1, "maxItems": MOST_INPUTS}],
                        "description": "Texts; an image is a data URL, data:image/jpeg;base64,...",
                    },
                    "model": {**_TEXT, "description": "Not looked at: there is one."},
                    "modality": {"enum": ["text", "image"], "description": "image: each input is one, also in base64."},
                    "encoding_format": {"enum": ["float", "base64"]},
                    "dimensions": {**_NUMBER, "description": "Those that the model has."},
                },
            }
        }
    },
}
_VECTOR: Json = {"anyOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]}
_EMBEDDINGS = _answered(
    obj(
        object=_TEXT,
        data={"type": "array", "items": obj(object=_TEXT, index=_NUMBER, embedding=_VECTOR)},
        model=_TEXT,
        usage=obj(prompt_tokens=_NUMBER, total_tokens=_NUMBER),
    )
)
_MODELS = _answered(obj(object=_TEXT, data={"type": "array", "items": _ITEM}))
_MODEL = _answered(_ITEM)
