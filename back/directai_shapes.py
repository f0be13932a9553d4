"""What DirectAI's routes take and answer, as OpenAPI describes it; what is read of it, `deployed` decides."""

from collections.abc import Mapping
from typing import Any

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_NUMBER = {"type": "number"}
_SWITCH: Mapping[str, Any] = {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
_NUMBERS = {"type": "object", "additionalProperties": _NUMBER}
_CLASS: Mapping[str, Any] = {
    "type": "object",
    "required": ["name", "examples_to_include"],
    "properties": {"name": _TEXT, "examples_to_include": _TEXTS, "examples_to_exclude": _TEXTS},
}
DEPLOY: Mapping[str, Any] = {
    "type": "object",
    "required": ["classifier_configs"],
    "properties": {
        "classifier_configs": {"type": "array", "items": _CLASS},
        "deployed_id": {**_TEXT, "description": "The id of a classifier to change."},
        "augment_examples": {
            **_SWITCH,
            "description": "Wrap each text in 80 templates; true by default.",
        },
    },
}
DEPLOY_DETECTOR: Mapping[str, Any] = {
    "type": "object",
    "required": ["detector_configs"],
    "properties": {
        "detector_configs": {
            "type": "array",
            "items": {
                **_CLASS,
                "properties": {
                    **_CLASS["properties"],
                    "detection_threshold": {**_NUMBER, "description": "Least score of a box; 0.1 by default."},
                },
            },
        },
        "nms_threshold": {**_NUMBER, "description": "Overlap from which two boxes are one; 0.4 by default."},
        "class_agnostic_nms": {**_SWITCH, "description": "Over all classes; true by default."},
        "deployed_id": {**_TEXT, "description": "The id of a detector to change."},
        "augment_examples": {
            **_SWITCH,
            "description": "Wrap each text in 7 templates; true by default.",
        },
    },
}
DEPLOYED: Mapping[str, Any] = {
    "type": "object",
    "required": ["deployed_id", "message"],
    "properties": {"deployed_id": _TEXT, "message": _TEXT},
}
IMAGE: Mapping[str, Any] = {
    "type": "object",
    "required": ["data"],
    "properties": {"data": {"type": "string", "format": "binary", "description": "An encoded image."}},
}
SCORED: Mapping[str, Any] = {
    "type": "object",
    "required": ["scores", "pred", "raw_scores"],
    "properties": {"scores": _NUMBERS, "pred": _TEXT, "raw_scores": _NUMBERS},
}
_BOX = {"type": "array", "items": _NUMBER, "minItems": 4, "maxItems": 4}
FOUND: Mapping[str, Any] = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1,
    "items": {
        "type": "array",
        "items": {
            "type": "object",
            "required": ["tlbr", "score", "class"],
            "properties": {
                "tlbr": {**_BOX, "description": "Left, top, right and bottom in pixels of the upright image."},
                "score": _NUMBER,
                "class": _TEXT,
            },
        },
    },
}
CONFIG: Mapping[str, Any] = {
    "type": "object",
    "required": ["deployed_id", "augment_examples"],
    "properties": {
        "deployed_id": _TEXT,
        "augment_examples": _SWITCH,
        "classifier_configs": {"type": "array", "items": {"type": "object"}},
        "detector_configs": {"type": "array", "items": {"type": "object"}},
        "nms_threshold": _NUMBER,
        "class_agnostic_nms": _SWITCH,
    },
}


def body(kind: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A request's body of that content type, as OpenAPI describes it."""
    return {"required": True, "content": {kind: {"schema": dict(schema)}}}


def result(description: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """An answer, as OpenAPI describes it."""
    return {"description": description, "content": {"application/json": {"schema": dict(schema)}}}
