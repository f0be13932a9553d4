"""The description of the service: what the routes say of themselves, and what all of them share."""

import copy
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]


def object_of(**properties: Json) -> Json:
    """The schema of an object with these fields, all of them there."""
    return {"type": "object", "required": list(properties), "properties": properties}


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}

OWN: Json = object_of(error=object_of(code=_NUMBER, message=_TEXT, request_id=_TEXT))
ERRORS: Mapping[str, Json] = {
    "clip-retrieval": object_of(message=_TEXT),
    "KServe v2": object_of(error=_TEXT),
    "OpenAI": object_of(error=object_of(message=_TEXT, type=_TEXT, param={"type": "null"}, code={"type": "null"})),
    "DirectAI": {
        "anyOf": [object_of(status_code=_NUMBER, message=_TEXT, data={"type": "null"}), object_of(detail=_TEXT)]
    },
}
"""Tag of a protocol -> the shape of its errors; OWN for all others."""


def describe(document: Json) -> Json:
    """An OpenAPI document with the errors of every route in their protocol's shape."""
    whole = copy.deepcopy(document)
    for operations in whole["paths"].values():
        for operation in operations.values():
            answers = operation["responses"]
            answers.pop("422", None)  # what the library has instead
            answers.setdefault("200", {"description": "It is done."})
            shape = next((ERRORS[tag] for tag in operation.get("tags", ()) if tag in ERRORS), OWN)
            answers["default"] = {
                "description": "What is wrong, in a sentence.",
                "content": {"application/json": {"schema": shape}},
            }
    schemas = whole.get("components", {}).get("schemas", {})
    schemas.pop("ValidationErrorModel", None)
    return whole
