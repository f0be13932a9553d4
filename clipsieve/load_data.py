"""What a load test sends: perf_analyzer's input files, and requests of KServe's protocol v2 made of them."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clipsieve.errors import InputError

DTYPES: Mapping[str, str] = {
    "BOOL": "?",
    **{f"{kind}{bits}": f"<{kind[0].lower()}{bits // 8}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
}
MADE = 64
"""Different rows that are made where no file is given."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a model as its metadata has it. `dims` is without the axis of the batch."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A request: its bytes, how many of them are JSON (None for all), and how many rows it asks for."""

    data: bytes
    json_bytes: int | None
    rows: int


Row = Mapping[str, Any]
"""Name of an input -> its values for one row, as the file has them."""


def read_rows(path: Path) -> list[Row]:
    """The rows in one of perf_analyzer's files, {"data": [{"INPUT": [...]}, ...]}; streams (lists of rows) in a row.

    InputError if it is no such file.
    """
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as input data ({error}).") from error
    data = value.get("data") if isinstance(value, dict) else None
    rows = [row for one in data or () for row in (one if isinstance(one, list) else [one])]
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        raise InputError(f'{path} holds no input data; it is {{"data": [{{"INPUT_IDS": [...]}}, ...]}}.')
    return rows


def make_rows(declared: Input, seed: int = 0) -> list[Row]:
    """Rows for an input, where none are given: small whole numbers, normal ones, or texts. InputError for images."""
    random = np.random.default_rng(seed)
    if declared.name == "INPUT_IMAGE":
        raise InputError("The model takes images; give some with --input-data.")
    if declared.datatype == "BYTES":
        return [{declared.name: [f"a photo of thing number {i}"] * math.prod(declared.dims)} for i in range(MADE)]
    if np.dtype(DTYPES[declared.datatype]).kind == "f":
        return [{declared.name: random.standard_normal(declared.dims).tolist()} for _ in range(MADE)]
    return [{declared.name: random.integers(0, 50, declared.dims).tolist()} for _ in range(MADE)]


def bodies(
    rows: Sequence[Row],
    inputs: Sequence[Input],
    batch: int = 1,
    *,
    binary: bool = True,
    parameters: Mapping[str, Any] | None = None,
) -> list[Body]:
    """A request beginning at each row, of `batch` rows one after another.

    inputs  of the model; a row has one or more of them
    binary  tensors go after the JSON as bytes, and come back so

    InputError names the row that is not as the model takes it.
    """
    known = {one.name: one for one in inputs}
    tensors: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        for name in row:
            if name not in known:
                raise InputError(f"Row {number} has the input {name!r}; the model takes {', '.join(known)}.")
        if set(row) != set(rows[0]):
            raise InputError(f"Row {number} has other inputs than the first one.")
        try:
            tensors.append({name: (_bytes if binary else _values)(known[name], value) for name, value in row.items()})
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError(f"Row {number} is not as the model takes it: {error}") from error
    chosen = [[tensors[(i + j) % len(tensors)] for j in range(batch)] for i in range(len(tensors))]
    return [_body([known[n] for n in rows[0]], some, binary, parameters or {}) for some in chosen]


def _body(inputs: Sequence[Input], rows: Sequence[Any], binary: bool, parameters: Mapping[str, Any]) -> Body:
    described, parts = [], []
    for one in inputs:
        tensor: dict[str, Any] = {"name": one.name, "shape": [len(rows), *one.dims], "datatype": one.datatype}
        if binary:
            data = b"".join(row[one.name] for row in rows)
            tensor["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            tensor["data"] = [value for row in rows for value in row[one.name]]
        described.append(tensor)
    value: dict[str, Any] = {"inputs": described}
    if binary or parameters:
        value["parameters"] = {**parameters, **({"binary_data_output": True} if binary else {})}
    head = json.dumps(value, separators=(",", ":")).encode()
    return Body(b"".join([head, *parts]), len(head) if binary else None, len(rows))


def _content(one: Input, given: Any) -> Any:
    """What stands for a tensor: its values, flat or nested, or the bytes of {"b64": ...}."""
    if isinstance(given, dict) and "b64" in given:
        try:
            return base64.b64decode(given["b64"], validate=True)
        except (binascii.Error, TypeError) as error:
            raise ValueError(f"{one.name} is not base64 ({error})") from error
    if isinstance(given, dict):
        shape = given.get("shape")
        if shape is not None and tuple(shape) != one.dims:
            raise ValueError(f"{one.name} has the shape {shape} and not {list(one.dims)}")
        return given.get("content")
    return given


def _values(one: Input, given: Any) -> list[Any]:
    """The values for JSON, flat."""
    content = _content(one, given)
    if isinstance(content, bytes):
        if one.datatype == "BYTES":
            return [element.decode() for element in _elements(content, math.prod(one.dims))]
        return list(_counted(one, np.frombuffer(content, DTYPES[one.datatype]).tolist()))
    if one.datatype == "BYTES":
        return list(_counted(one, [_text(one, value) for value in _flat(content)]))
    return list(_counted(one, _array(one, content).reshape(-1).tolist()))


def _bytes(one: Input, given: Any) -> bytes:
    """The tensor's bytes."""
    content = _content(one, given)
    if one.datatype == "BYTES":
        if isinstance(content, bytes):
            elements = _elements(content, math.prod(one.dims))
        else:
            elements = [_text(one, value).encode() for value in _counted(one, _flat(content))]
        return b"".join(len(element).to_bytes(4, "little") + element for element in elements)
    if isinstance(content, bytes):
        _counted(one, np.frombuffer(content, DTYPES[one.datatype]))
        return content
    array = _array(one, content)
    _counted(one, array.reshape(-1))
    return bytes(array.tobytes())


def _array(one: Input, content: Any) -> Any:
    array = np.asarray(content)
    dtype = np.dtype(DTYPES[one.datatype])
    if array.dtype.kind not in {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]:
        raise ValueError(f"{one.name} is {one.datatype}")
    return array.astype(dtype)


def _elements(content: bytes, count: int) -> list[bytes]:
    """Elements each after four bytes of length, as the tensor has them; else the content is the one element."""
    found, at = [], 0
    while at + 4 <= len(content):
        end = at + 4 + int.from_bytes(content[at : at + 4], "little")
        found.append(content[at + 4 : end])
        at = end
    if at == len(content) and len(found) == count:
        return found
    if count != 1:
        raise ValueError(f"{count} elements are expected")
    return [content]


def _flat(content: Any) -> list[Any]:
    if not isinstance(content, list):
        return [content]
    return [value for one in content for value in _flat(one)]


def _text(one: Input, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{one.name} is BYTES, of which each element is a text")
    return value


def _counted(one: Input, values: Any) -> Any:
    if len(values) != math.prod(one.dims):
        raise ValueError(f"{one.name} has {len(values)} values and not {math.prod(one.dims)}")
    return values
