"""What clip-retrieval's routes take and answer, as OpenAPI describes it; what is read of it, `knn` decides."""

from collections.abc import Mapping
from typing import Any

from clipsieve.back.shapes import result, some


def _field(kind: str | list[str], description: str, **more: Any) -> dict[str, Any]:
    if isinstance(kind, str):
        return {"type": kind, "description": description, **more}
    either = [{"type": one, **(more if one == "array" else {})} for one in kind]
    return {"anyOf": either, "description": description}


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": dict(schema)}}}


_TEXT = ["string", "null"]
QUESTION = _body(
    {
        "type": "object",
        "required": ["modality", "num_images", "indice_name"],
        "properties": {
            "modality": _field("string", "What to compare with.", enum=["image", "text"]),
            "num_images": _field(["integer", "string"], "Items with metadata."),
            "indice_name": _field(_TEXT, "Which collection; null for the first."),
            "num_result_ids": _field(
                ["integer", "string", "null"], "Items in all; those beyond num_images have no metadata."
            ),
            "text": _field(_TEXT, "Goes before the other kinds of question."),
            "image": _field(_TEXT, "An encoded image in base64, or as a data URL; goes before image_url."),
            "image_url": _field(_TEXT, "A data URL, or a public address to fetch; goes before embedding_input."),
            "embedding_input": _field(["array", "null"], "A vector.", items={"type": "number"}),
            "use_mclip": _field("boolean", "Embed the text with the multilingual model."),
            "deduplicate": _field("boolean", "Leave near-duplicates out, and fill up."),
            "use_safety_model": _field("boolean", "Leave out what is flagged as unsafe, and fill up."),
            "use_violence_detector": _field("boolean", "Leave out what is flagged as violent, and fill up."),
            "aesthetic_score": _field(["integer", "string", "null"], "0 to 9: moves the question towards that rating."),
            "aesthetic_weight": _field(["number", "string", "null"], "How far."),
        },
    }
)
IDS = _body(
    {
        "type": "object",
        "required": ["ids", "indice_name"],
        "properties": {
            "ids": _field("array", "Item ids.", items={"anyOf": [{"type": "integer"}, {"type": "string"}]}),
            "indice_name": _field(_TEXT, "Which collection; null for the first."),
        },
    }
)
HITS = result(some({"type": "object", "required": ["id", "similarity"]}))
ROWS = result(some({"type": "object", "required": ["id", "metadata"]}))
NAMES = result(some({"type": "string"}))
