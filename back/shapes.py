"""Words in which routes describe for OpenAPI what they answer."""

from typing import Any

Json = dict[str, Any]
Responses = dict[Any, Any]
"""Status -> the answer, as routes take them."""


def obj(**properties: Json) -> Json:
    """An object that has all of these."""
    return {"type": "object", "required": list(properties), "properties": properties}


def some(items: Json) -> Json:
    """A list."""
    return {"type": "array", "items": items}


def maybe(schema: Json) -> Json:
    """It, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def said(schema: Json, description: str) -> Json:
    """It, explained."""
    return {**schema, "description": description}


def result(schema: Json, *statuses: str) -> Responses:
    """An answer in JSON, with one of these statuses; with 200 where none is given."""
    told = {"description": "It is done.", "content": {"application/json": {"schema": schema}}}
    return dict.fromkeys(statuses or ("200",), told)


def file(*types: str) -> Responses:
    """An answer that is a file, of one of these content types."""
    binary = {"type": "string", "format": "binary"}
    schemas = {type: {"type": "object"} if type == "application/json" else binary for type in types}
    return {"200": {"description": "The file.", "content": {type: {"schema": it} for type, it in schemas.items()}}}
