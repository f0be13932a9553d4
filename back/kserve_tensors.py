"""Tensors as KServe's protocol v2 has them on the wire, and what a request asks for. Pure functions, nothing of HTTP.

A body is JSON, or JSON with the tensors' bytes after it (the binary extension), or the bytes of one tensor alone.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from clipsieve.back.guard import check_json
from clipsieve.errors import InputError, quoted
from clipsieve.types import Float32

Values = npt.NDArray[Any] | list[bytes]
"""A tensor: an array of its shape, or of BYTES the elements in row-major order."""

DATATYPES: Mapping[str, str | None] = {
    "BOOL": "?",
    **{f"{kind}{bits}": f"<{kind[0].lower()}{bits // 8}" for kind in ("UINT", "INT") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": f"<f{bits // 8}" for bits in (16, 32, 64)},
    "BF16": "<u2",
    "BYTES": None,
}
"""Name of a datatype -> numpy's for its bytes; those of BYTES differ in length."""

ONLY_BINARY = frozenset({"FP16", "BF16"})

WINDOW = {"gzip": 31, "deflate": 15}
"""Encoding of a body -> zlib's number for its frame."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model. `dims` is without the axis of the batch, which comes first."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """How the output is answered.

    binary   as bytes after the JSON
    classes  so many of the greatest values as "value:index", in place of all values; 0 for all
    """

    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for. `inputs` has one tensor of `rows` rows for each name."""

    inputs: Mapping[str, Values]
    rows: int
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=Wanted)


# ----------------------------------------------------------------------------------------------------------- a request


def read_request(body: bytes, header: str | None, known: Sequence[Tensor], output: Tensor, max_rows: int) -> Asked:
    """What a body asks for.

    header    Inference-Header-Content-Length: bytes of the JSON; "0" where all is the first known input; None where
              all is JSON
    known     inputs that the model takes; which of them have to be there is the model's to say
    max_rows  of a request

    InputError for what is not as the protocol has it.
    """
    length = _length(header, len(body))
    if length == 0 and header is not None:
        first = known[0]
        return Asked({first.name: _raw(body, first)}, 1, wanted=Wanted(binary=True))
    value = _json(body[:length])
    parameters = _object(value.get("parameters", {}), "parameters")
    given = value.get("inputs")
    if not isinstance(given, list) or not given:
        raise InputError("The request has no inputs; give a list of tensors under 'inputs'.")
    inputs: dict[str, Values] = {}
    rest, rows = memoryview(body)[length:], None
    for one in given:
        one = _object(one, "inputs")
        tensor = _declared(one, known)
        if tensor.name in inputs:
            raise InputError(f"The input {quoted(tensor.name)} is given twice.")
        shape = _shape(one.get("shape"), tensor, max_rows)
        if rows not in (None, shape[0]):
            raise InputError(f"The input {quoted(tensor.name)} has {shape[0]} rows and the one before {rows}.")
        rows = shape[0]
        size = _object(one.get("parameters", {}), "parameters").get("binary_data_size")
        if size is None:
            inputs[tensor.name] = _from_json(one.get("data"), tensor, shape)
            continue
        if "data" in one:
            raise InputError(f"The input {quoted(tensor.name)} has data in the JSON and after it; give one of them.")
        if not _is_count(size) or size > len(rest):
            raise InputError(
                f"The input {quoted(tensor.name)} is to have {quoted(size)} bytes, and {len(rest)} are there."
            )
        inputs[tensor.name] = from_bytes(bytes(rest[:size]), tensor, shape)
        rest = rest[size:]
    if len(rest):
        raise InputError(f"{len(rest)} bytes are left over after the inputs; give their binary_data_size.")
    id = value.get("id")
    if id is not None and not isinstance(id, str):
        raise InputError(f"The id {quoted(id)} is no text.")
    return Asked(inputs, rows or 0, id, parameters, _wanted(value.get("outputs"), parameters, output))


def _length(header: str | None, body: int) -> int:
    if header is None:
        return body
    if not (header.isascii() and header.isdecimal()) or int(header) > body:
        raise InputError(f"Inference-Header-Content-Length is {quoted(header)}, and the body has {body} bytes.")
    return int(header)


def _json(data: bytes) -> Mapping[str, Any]:
    refusal = check_json(data)
    if refusal is not None:
        raise InputError(f"{refusal.sentence} Tensors may follow the JSON as bytes (binary_data_size).")
    try:
        return _object(orjson.loads(data), "body")
    except orjson.JSONDecodeError as error:
        raise InputError(f"The body is no JSON ({error}).") from error


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{name}: an object is expected.")
    return value


def _declared(one: Mapping[str, Any], known: Sequence[Tensor]) -> Tensor:
    name, datatype = one.get("name"), one.get("datatype")
    tensor = next((tensor for tensor in known if tensor.name == name), None)
    if tensor is None:
        raise InputError(f"The input {quoted(name)} is not known; there is {' and '.join(t.name for t in known)}.")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise InputError(
            f"The datatype {quoted(datatype)} of the input {quoted(name)} is none of {', '.join(DATATYPES)}."
        )
    if datatype != tensor.datatype:
        raise InputError(f"The input {quoted(name)} is {datatype}, and the model takes {tensor.datatype}.")
    return tensor


def _shape(given: Any, tensor: Tensor, max_rows: int) -> tuple[int, ...]:
    """The shape as given, the batch's axis first."""
    if not isinstance(given, list) or not all(map(_is_count, given)):
        raise InputError(f"The shape {quoted(given)} of the input {quoted(tensor.name)} is no list of whole numbers.")
    if len(given) != len(tensor.dims) + 1 or tuple(given[1:]) != tensor.dims:
        raise InputError(
            f"The input {tensor.name!r} has the shape {quoted(given)}; "
            f"the model takes {[-1, *tensor.dims]}, the rows first."
        )
    if not 1 <= given[0] <= max_rows:
        raise InputError(f"The input {quoted(tensor.name)} has {given[0]} rows; one request has 1 to {max_rows}.")
    return tuple(given)


def _from_json(data: Any, tensor: Tensor, shape: tuple[int, ...]) -> Values:
    """The values of `data`, flat or nested."""
    name, datatype, count = tensor.name, tensor.datatype, math.prod(shape)
    if not isinstance(data, list):
        raise InputError(f"The input {quoted(name)} has no list of values under 'data'.")
    if datatype in ONLY_BINARY:
        raise InputError(f"{datatype} has no form in JSON; send the input {quoted(name)} as bytes.")
    if datatype == "BYTES":
        texts = _flat(data)
        if not all(isinstance(text, str) for text in texts):
            raise InputError(f"The input {quoted(name)} is BYTES, of which each element is a text in JSON.")
        if len(texts) != count:
            raise InputError(f"The input {quoted(name)} has {len(texts)} elements, and its shape {count}.")
        return [text.encode() for text in texts]
    try:
        array = np.array(data)
    except (ValueError, OverflowError) as error:
        raise InputError(f"The lists of the input {quoted(name)} are of different lengths.") from error
    if array.size != count:
        raise InputError(f"The input {quoted(name)} has {array.size} values, and its shape {count}.")
    dtype = np.dtype(str(DATATYPES[datatype]))
    kinds = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if array.dtype.kind not in kinds:
        raise InputError(f"The input {quoted(name)} is {datatype}, and its values are something else.")
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    changed = made != array if dtype.kind in "iu" else ~np.isfinite(made) if dtype.kind == "f" else np.False_
    if np.any(changed):
        raise InputError(f"The input {quoted(name)} has values beyond {datatype}.")
    return made.reshape(shape)


def _flat(data: list[Any]) -> list[Any]:
    """What is in lists within each other, in order."""
    flat, nested = [], [iter(data)]
    while nested:
        for one in nested[-1]:
            if isinstance(one, list):
                nested.append(iter(one))
                break
            flat.append(one)
        else:
            nested.pop()
    return flat


def from_bytes(data: bytes, tensor: Tensor, shape: tuple[int, ...]) -> Values:
    """The values in a tensor's bytes, little-endian and row-major; each element of BYTES after four bytes of length."""
    count, dtype = math.prod(shape), DATATYPES[tensor.datatype]
    if dtype is not None:
        size = count * np.dtype(dtype).itemsize
        if len(data) != size:
            raise InputError(f"The input {quoted(tensor.name)} has {len(data)} bytes, and its shape {size}.")
        return np.frombuffer(data, dtype).reshape(shape)
    elements: list[bytes] = []
    at = 0
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "little")
        if at + 4 > len(data) or end > len(data):
            raise InputError(f"The input {quoted(tensor.name)} ends within its element {len(elements)}.")
        elements.append(data[at + 4 : end])
        at = end
    if len(elements) != count:
        raise InputError(f"The input {quoted(tensor.name)} has {len(elements)} elements, and its shape {count}.")
    return elements


def _raw(body: bytes, tensor: Tensor) -> Values:
    """One row, which is the whole body."""
    if tensor.datatype == "BYTES":
        return [body]
    return from_bytes(body, tensor, (1, *tensor.dims))


def _wanted(given: Any, parameters: Mapping[str, Any], output: Tensor) -> Wanted:
    everything = read_flag(parameters, "binary_data_output", False)
    if given is None or given == []:
        return Wanted(everything)
    if not isinstance(given, list):
        raise InputError("outputs: a list is expected.")
    names = [_object(one, "outputs").get("name") for one in given]
    if names != [output.name]:
        raise InputError(f"The outputs {names} are asked for; the model has {quoted(output.name)} alone.")
    own = _object(given[0].get("parameters", {}), "parameters")
    classes = own.get("classification", 0)
    if not _is_count(classes):
        raise InputError(f"classification: {quoted(classes)} is no number of classes.")
    return Wanted(read_flag(own, "binary_data", everything), min(classes, output.dims[0]))


def read_flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    """A parameter that is true or false, or one of these as a text, which some clients send."""
    value = parameters.get(name, default)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InputError(f"The parameter {name} is {quoted(value)}; it is true or false.")
    return value


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# ----------------------------------------------------------------------------------------------------------- an answer


def write_answer(model: str, version: str, asked: Asked, output: Tensor, rows: Float32) -> tuple[bytes, int | None]:
    """The body, and how much of it is JSON; None where all of it is.

    rows  float32 (asked.rows, d)
    """
    wanted = asked.wanted
    texts = _classes(rows, wanted.classes) if wanted.classes else None
    made: dict[str, Any] = {
        "name": output.name,
        "datatype": output.datatype if texts is None else "BYTES",
        "shape": [len(rows), wanted.classes or rows.shape[1]],
    }
    data = b""
    if not wanted.binary:
        made["data"] = np.ascontiguousarray(rows).reshape(-1) if texts is None else texts
    else:
        data = rows.astype("<f4").tobytes() if texts is None else to_bytes([text.encode() for text in texts])
        made["parameters"] = {"binary_data_size": len(data)}
    head = {} if asked.id is None else {"id": asked.id}
    value = {**head, "model_name": model, "model_version": version, "outputs": [made]}
    text = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return (text + data, len(text)) if wanted.binary else (text, None)


def to_bytes(elements: Sequence[bytes]) -> bytes:
    """Elements of BYTES, each with four bytes of length before."""
    return b"".join(len(one).to_bytes(4, "little") + one for one in elements)


def _classes(rows: Float32, count: int) -> list[str]:
    order = np.argsort(-rows, axis=1, kind="stable")[:, :count]
    return [f"{row[i]:f}:{i}" for row, best in zip(rows, order, strict=True) for i in best]


# ------------------------------------------------------------------------------------------------------ packed bodies


def unpack(data: bytes, encoding: str | None, most: int) -> bytes:
    """A body as it was before its Content-Encoding. InputError for other encodings and beyond `most` bytes."""
    name = (encoding or "").strip().lower()
    if name in ("", "identity"):
        return data
    if name not in WINDOW:
        raise InputError(f"The Content-Encoding {quoted(name)} is not read; send gzip, deflate or none.")
    unpacker = zlib.decompressobj(WINDOW[name])
    try:
        made = unpacker.decompress(data, most + 1)
    except zlib.error as error:
        raise InputError(f"The body is not {name} ({error}).") from error
    if len(made) > most:
        raise InputError(f"The request has more than {most:,} bytes unpacked (--max-request-bytes).")
    if not unpacker.eof or unpacker.unused_data:
        raise InputError(f"The body is not {name} as a whole.")
    return made


def packing(accepted: str) -> Literal["gzip", "deflate"] | None:
    """How to pack an answer for this Accept-Encoding: as asked where it names one way alone.

    Libraries name all that they can read, which asks for nothing, and packing costs more than the bytes saved.
    """
    words = [word.split(";")[0].strip().lower() for word in accepted.split(",")]
    if words == ["gzip"]:
        return "gzip"
    return "deflate" if words == ["deflate"] else None


def pack(data: bytes, encoding: Literal["gzip", "deflate"]) -> bytes:
    """The same, packed."""
    packer = zlib.compressobj(1, zlib.DEFLATED, WINDOW[encoding])
    return packer.compress(data) + packer.flush()
