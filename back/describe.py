"""The description of the service: what the routes say of themselves, and what all of them share."""

import copy
from collections.abc import Mapping

from clipsieve.back.shapes import Json, obj

_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}

OWN: Json = obj(error=obj(code=_NUMBER, message=_TEXT, request_id=_TEXT))
ERRORS: Mapping[str, Json] = {
    "clip-retrieval": obj(message=_TEXT),
    "KServe v2": obj(error=_TEXT),
    "OpenAI": obj(error=obj(message=_TEXT, type=_TEXT, param={"type": "null"}, code={"type": "null"})),
    "DirectAI": {"anyOf": [obj(status_code=_NUMBER, message=_TEXT, data={"type": "null"}), obj(detail=_TEXT)]},
}
"""Tag of a protocol -> the shape of its errors; OWN for all others."""


ASKED = (
    ("/classify", "post", "deployed_id"),
    ("/detect", "post", "deployed_id"),
    ("/model_config", "get", "deployed_id"),
)
"""Parameters of addresses that routes read by themselves, to refuse in their protocol's words."""


def describe(document: Json) -> Json:
    """An OpenAPI document with the errors of every route in their protocol's shape."""
    whole = copy.deepcopy(document)
    for operations in whole["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            answers.pop("422", None)  # what the library has instead
            if not any(status.startswith("2") for status in answers):
                answers["200"] = {"description": "It is done."}
            shape = next((ERRORS[tag] for tag in operation.get("tags", ()) if tag in ERRORS), OWN)
            answers["default"] = {
                "description": "What is wrong, in a sentence.",
                "content": {"application/json": {"schema": shape}},
            }
    for path, method, name in ASKED:
        parameter = {"name": name, "in": "query", "required": True, "schema": _TEXT}
        whole["paths"].get(path, {}).get(method, {})["parameters"] = [parameter]
    parts = whole.setdefault("components", {})
    parts.setdefault("schemas", {}).pop("ValidationErrorModel", None)
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    whole["security"] = [{}, {"token": []}]  # a service may ask for none
    return whole
