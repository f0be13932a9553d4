"""What the routes of KServe's protocol take and answer, for /openapi."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from clipsieve.back.shapes import Json, obj

_Name = Annotated[str, Field(description="siglip_text, siglip_vision, embed_text or embed_image.")]


class ModelPath(BaseModel):
    """Which model."""

    name: _Name


class VersionPath(ModelPath):
    """Which version of it."""

    version: Annotated[str, Field(description="1, the only one.")]


class ControlPath(ModelPath):
    """What to do with a model."""

    change: Annotated[str, Field(description="load or unload.")]


_TEXT: Json = {"type": "string"}
_NUMBER: Json = {"type": "integer"}
_ANY: Json = {"type": "object"}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _answered(schema: Json, *binary: str) -> Any:
    kinds = {"application/json": {"schema": schema}}
    kinds |= {kind: {"schema": {"type": "string", "format": "binary"}} for kind in binary}
    return {"200": {"description": "An answer.", "content": kinds}}


_SHAPED = obj(name=_TEXT, datatype=_TEXT, shape=_list(_NUMBER))
_FIGURE = obj(count=_NUMBER, ns=_NUMBER)
_STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
_BATCH = obj(batch_size=_NUMBER, compute_input=_FIGURE, compute_infer=_FIGURE, compute_output=_FIGURE)
_MODEL_STATS = obj(
    name=_TEXT,
    version=_TEXT,
    last_inference=_NUMBER,
    inference_count=_NUMBER,
    execution_count=_NUMBER,
    inference_stats=obj(**dict.fromkeys(_STAGES, _FIGURE)),
    response_stats=_ANY,
    batch_stats=_list(_BATCH),
    memory_usage=_list(_ANY),
)
_INPUT: Json = {
    **_SHAPED,
    "properties": {
        "name": _TEXT,
        "datatype": {"enum": ["INT64", "FP32", "BYTES"]},
        "shape": _list(_NUMBER),
        "data": {"type": "array", "description": "Values, flat in row-major order or in lists within each other."},
        "parameters": {"type": "object", "description": "binary_data_size: bytes of it that follow the JSON."},
    },
}
_INFER: Json = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {**_TEXT, "description": "Comes back with the answer."},
        "parameters": {
            "type": "object",
            "description": "binary_data_output, timeout in microseconds, priority 1 to 3, truncation, embed_model, "
            "base64_encoded.",
        },
        "inputs": _list(_INPUT),
        "outputs": _list({"type": "object", "required": ["name"], "properties": {"name": _TEXT, "parameters": _ANY}}),
    },
}
REQUEST: Json = {
    "required": True,
    "content": {
        "application/json": {"schema": _INFER},
        "application/octet-stream": {
            "schema": {
                "type": "string",
                "format": "binary",
                "description": "JSON with tensors after it, or one tensor alone; Inference-Header-Content-Length says "
                "how much of it is JSON.",
            }
        },
    },
}

EMPTY: Any = {"200": {"description": "Yes; the body is empty.", "content": {"text/plain": {"schema": _TEXT}}}}
SERVER = _answered(obj(name=_TEXT, version=_TEXT, extensions=_list(_TEXT)))
METADATA = _answered(
    obj(name=_TEXT, versions=_list(_TEXT), platform=_TEXT, inputs=_list(_SHAPED), outputs=_list(_SHAPED))
)
CONFIG = _answered(obj(name=_TEXT, max_batch_size=_NUMBER, input=_list(_ANY), output=_list(_ANY)))
STATISTICS = _answered(obj(model_stats=_list(_MODEL_STATS)))
INDEX = _answered(_list(obj(name=_TEXT, version=_TEXT, state=_TEXT)))
REFUSED = _answered(_ANY)
ANSWER = _answered(obj(model_name=_TEXT, model_version=_TEXT, outputs=_list(_SHAPED)), "application/octet-stream")
