"""The models of the embedding service: by the names, datatypes and shapes of the deployment that it stands in for.

All are one embedder. `siglip_text` and `siglip_vision` take what was tokenized and scaled already, `embed_text` and
`embed_image` texts and files; `siglip_text` takes texts as well, as its successor of the same name did.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipsieve.back.image_text import read_image_text
from clipsieve.back.kserve_tensors import Asked, Tensor, read_flag
from clipsieve.back.pictures import refuse_bombs
from clipsieve.checks import check_said
from clipsieve.errors import InputError, quoted
from clipsieve.reading import require_read
from clipsieve.types import Float32

TOWER_ROWS, EMBED_ROWS = 32, 60
"""Most rows of a request, as deployed, or as many as the batcher works on at once where that is more."""

ENDS = 4
"""Token ids of a text beside one for each of its bytes, at most."""

LEVELS, DEFAULT_LEVEL = 3, 2
"""Priorities of requests: 1 before 2 before 3."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model.

    inputs    that it takes, one of them in each request; the first one if a request is nothing but its bytes
    embed     a request and how it is to be batched -> float32 (rows, d), of the model's own lengths
    texts     a request -> what `embed` gives to the batcher; None for images, which are decoded first
    """

    name: str
    inputs: tuple[Tensor, ...]
    output: Tensor
    max_rows: int
    embed: Callable[[Asked, Mapping[str, Any]], Float32]
    texts: Callable[[Asked], Sequence[Any]] | None = None


def served_models(embedder: Any) -> dict[str, ServedModel]:
    """The models by name that a batched embedder makes: two for texts if it has them, and one or two for images."""
    made = []
    vector = Tensor("EMBEDDING", "FP32", (embedder.dim,))
    text, image = Tensor("INPUT_TEXT", "BYTES", (1,)), Tensor("INPUT_IMAGE", "BYTES", (1,))

    tower_rows, embed_rows = (max(rows, embedder.options.max_batch) for rows in (TOWER_ROWS, EMBED_ROWS))

    def ids_or_texts(asked: Asked) -> Sequence[Any]:
        if "INPUT_TEXT" in asked.inputs:
            return read_texts(asked, embedder)
        tokens: Sequence[Any] = embedder.from_ids(asked.inputs["INPUT_IDS"])
        return tokens

    def named_texts(asked: Asked) -> Sequence[Any]:
        _check_model(asked, "siglip_text", embedder.model.name)
        return read_texts(asked, embedder)

    def embed(texts: Callable[[Asked], Sequence[Any]]) -> Callable[[Asked, Mapping[str, Any]], Float32]:
        def embedded(asked: Asked, how: Mapping[str, Any]) -> Float32:
            given = texts(asked)
            method = embedder.embed_texts if isinstance(given[0], str) else embedder.embed_tokens
            rows: Float32 = method(given, **how)
            return rows

        return embedded

    def pixels(asked: Asked, how: Mapping[str, Any]) -> Float32:
        given = np.asarray(asked.inputs["PIXEL_VALUES"], np.float32)
        rows: Float32 = embedder.embed_tensors(embedder.from_pixels(given), **how)
        return rows

    def images(asked: Asked, how: Mapping[str, Any]) -> Float32:
        _check_model(asked, "siglip_vision", embedder.model.name)
        files = list(asked.inputs["INPUT_IMAGE"])
        if read_flag(asked.parameters, "base64_encoded", False):
            files = [_decoded(data) for data in files]
        for data in files:
            refuse_bombs(data)
        rows: Float32 = embedder.embed_images(files, **how)
        return rows

    if hasattr(embedder, "embed_texts"):
        ids = Tensor("INPUT_IDS", "INT64", (embedder.context,))
        made.append(ServedModel("siglip_text", (ids, text), vector, tower_rows, embed(ids_or_texts), ids_or_texts))
        made.append(ServedModel("embed_text", (text,), vector, embed_rows, embed(named_texts), named_texts))
    if embedder.pixels is not None:
        picture = Tensor("PIXEL_VALUES", "FP32", embedder.pixels)
        made.append(ServedModel("siglip_vision", (picture,), vector, tower_rows, pixels))
    made.append(ServedModel("embed_image", (image,), vector, embed_rows, images))
    return {model.name: model for model in made}


def run(model: ServedModel, asked: Asked) -> Float32:
    """float32 (rows, d) of a request. Overloaded, TimedOut and Closed as its batcher has them, else InputError."""
    check_inputs(model, asked)
    return model.embed(asked, {**batching(asked.parameters), "name": model.name, "raw": True})


def check_inputs(model: ServedModel, asked: Asked) -> None:
    """InputError where a request has several inputs."""
    if len(asked.inputs) > 1:
        raise InputError(
            f"{model.name} takes one input, {' or '.join(t.name for t in model.inputs)}; give one of them."
        )


def batching(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Timeout and priority for the batcher. `timeout` is in microseconds, 0 for none; `priority` 0 for the default."""
    timeout, level = parameters.get("timeout", 0), parameters.get("priority", 0)
    if isinstance(timeout, bool) or not isinstance(timeout, int) or not 0 <= timeout < 2**53:
        raise InputError(f"The parameter timeout is {quoted(timeout)}; it is a number of microseconds.")
    if isinstance(level, bool) or not isinstance(level, int) or not 0 <= level <= LEVELS:
        raise InputError(f"The parameter priority is {quoted(level)}; it is 1 to {LEVELS}, the first served first.")
    return {"timeout": timeout / 1e6 or None, "priority": (level or DEFAULT_LEVEL) - DEFAULT_LEVEL}


def _check_model(asked: Asked, name: str, own: str) -> None:
    wanted = asked.parameters.get("embed_model", name)
    if wanted not in (name, own):
        raise InputError(
            f"The parameter embed_model is {quoted(wanted)}; this service has {quoted(name)}, which is {quoted(own)}."
        )


def read_texts(asked: Asked, embedder: Any) -> list[str]:
    """The texts of INPUT_TEXT. InputError for one beyond the model's context unless the parameter truncation is set."""
    try:
        texts = [element.decode() for element in asked.inputs["INPUT_TEXT"]]
    except UnicodeDecodeError as error:
        raise InputError(f"A text is not UTF-8 ({error}).") from error
    for text in texts:
        check_said("A text of INPUT_TEXT", text)
    require_read(embedder, texts)
    if read_flag(asked.parameters, "truncation", False):
        return texts
    most = embedder.context
    long = [text for text in texts if len(text.encode()) > most - ENDS]  # others need not be counted
    for text, count in zip(long, embedder.count_tokens(long) if long else (), strict=True):
        if count > most:
            raise InputError(
                f"The text {quoted(text[:80])} has {count} tokens, and the model reads {most}; shorten it, or set the "
                "parameter truncation to true to have it cut."
            )
    return texts


def _decoded(data: bytes) -> bytes:
    try:
        return read_image_text(data.decode("latin-1"), "INPUT_IMAGE")
    except InputError as error:
        raise InputError(f"{error} Without base64_encoded, images are taken as they are.") from error
