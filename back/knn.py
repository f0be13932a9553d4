"""clip-retrieval's protocol: /knn-service, /metadata and /indices-list.

Its clients send bodies of any content type, numbers as strings, and fields that are not known here. What is answered
with 500 there is a 4xx with a sentence here.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import orjson
from flask import Response, request
from flask_openapi import APIBlueprint, Tag

from clipsieve.back import knn_shapes as shapes
from clipsieve.back.gate import Shares, client_of
from clipsieve.back.guard import reads
from clipsieve.back.image_text import holds_base64, read_image_text
from clipsieve.back.limits import PICTURE, Limits, check_text, holding
from clipsieve.back.meters import Meters
from clipsieve.back.notes import Reply, note_header
from clipsieve.back.shelf import Fetch, Served, Shelf
from clipsieve.checks import check_said
from clipsieve.errors import ClipsieveError, InputError, NotFound, quoted
from clipsieve.index.kinds import Source
from clipsieve.types import Float32

TAG = Tag(name="clip-retrieval", description="The protocol of clip-retrieval's back.")
FLAGS = {"use_safety_model": "safety", "use_violence_detector": "violence"}


@dataclass(frozen=True, slots=True)
class Query:
    """What /knn-service was asked."""

    text: str | None
    image: bytes | None
    image_url: str | None
    embedding: Float32 | None
    modality: str
    shown: int
    found: int
    index: str | None
    multilingual: bool
    dedup: bool
    flags: tuple[str, ...]
    rating: int | None
    rating_weight: float


class Knn:
    """What the protocol's questions are answered from. Safe to use from several threads at once.

    fetch  gets what `image_url` names
    """

    def __init__(self, shelf: Shelf, meters: Meters, fetch: Fetch, limits: Limits | None = None) -> None:
        self.shelf, self._meters, self._fetch, self._limits = shelf, meters, fetch, limits or Limits()
        self._rows = Shares(self._limits.rows)

    @property
    def answers(self) -> Mapping[str, Callable[[bytes, str], Reply]]:
        """Path -> a request's body and its client -> the answer."""
        return {"/knn-service": self.hits, "/metadata": self.rows}

    def hits(self, body: bytes, client: str) -> Reply:
        """The answer of /knn-service, as JSON. `client` of `client_of`."""
        meters, limits = self._meters, self._limits
        with meters.time("full_knn_request_time"):
            query = read_query(_read_json(body), limits)
            served = self.shelf[query.index]
            vector = _question(served, query, meters, self._fetch)
            notes = () if query.text is None else served.notes(query.text, query.multilingual)
            with holding(self._rows, client, weight(served, query.found, query.shown, limits)):
                return Reply(orjson.dumps(_found(served, query, vector, meters, limits)), note_header(notes))

    def rows(self, body: bytes, client: str) -> Reply:
        """The answer of /metadata, as JSON."""
        asked = _read_json(body)
        ids = read_ids(_required(asked, "ids"), self._limits)
        if not ids:
            return Reply(orjson.dumps([]))
        served = self.shelf[_index(asked)]
        with holding(self._rows, client, weight(served, len(ids), len(ids), self._limits)):
            with self._meters.time("metadata_get_time"):
                shown = show(served, ids, self._limits)
            return Reply(orjson.dumps([{"id": i, "metadata": row} for i, row in zip(ids, shown, strict=True)]))


def blueprint(knn: Knn) -> APIBlueprint:
    """The routes."""
    routes = APIBlueprint("knn", __name__, abp_tags=[TAG])

    @routes.post("/knn-service", summary="Nearest items", request_body=shapes.QUESTION, responses=shapes.HITS)
    @reads
    def knn_service() -> Response:
        return _reply(knn.hits(request.get_data(), _client()))

    @routes.post("/metadata", summary="Metadata of items", request_body=shapes.IDS, responses=shapes.ROWS)
    @reads
    def metadata() -> Response:
        return _reply(knn.rows(request.get_data(), _client()))

    @routes.get("/indices-list", summary="Names of the collections", responses=shapes.NAMES)
    def indices_list() -> Response:
        return _answer(orjson.dumps(knn.shelf.names))

    return routes


def read_query(body: Mapping[str, Any], limits: Limits) -> Query:
    """The request of /knn-service. InputError says which field is wrong."""
    modality = _required(body, "modality")
    if modality not in ("image", "text"):
        raise InputError(f"modality is {quoted(modality)}; it is 'image' or 'text'.")
    shown = _count(_required(body, "num_images"), "num_images")
    asked = body.get("num_result_ids")
    found = shown if asked in (None, "") else _count(asked, "num_result_ids")
    if max(shown, found) > limits.results:
        raise InputError(f"{max(shown, found):,} results were asked for; ask for {limits.results:,} at most.")
    text, image_url = _text(body, "text"), _text(body, "image_url")
    check_text(text or "", "text")
    image, embedding = _text(body, "image"), body.get("embedding_input")
    if image_url is not None and holds_base64(image_url) and not (text or image):
        image, image_url = image_url, None
    if text is not None:
        check_said("text", text)
    if not (text or image or image_url) and embedding in (None, "", []):
        raise InputError("There is no question; give a text, an image, an image_url or an embedding_input.")
    rating, weight = _rating(body)
    return Query(
        text=text,
        image=read_image_text(image, "image") if image and not text else None,
        image_url=image_url,
        embedding=_embedding(embedding) if not (text or image or image_url) else None,
        modality=modality,
        shown=shown,
        found=max(shown, found),
        index=_index(body),
        multilingual=_switch(body, "use_mclip"),
        dedup=_switch(body, "deduplicate"),
        flags=tuple(flag for field, flag in FLAGS.items() if _switch(body, field)),
        rating=rating,
        rating_weight=weight,
    )


def read_ids(value: Any, limits: Limits) -> list[int]:
    """Ids as numbers or, where JavaScript could not hold them, as strings."""
    if not isinstance(value, list):
        raise InputError("ids is not a list; give a list of item ids.")
    if len(value) > limits.results:
        raise InputError(f"{len(value):,} ids were asked for; ask for {limits.results:,} at most.")
    ids = []
    for one in value:
        if isinstance(one, str) and one.strip().removeprefix("-").isdecimal() and len(one) < 25:
            one = int(one)
        if isinstance(one, bool) or not isinstance(one, int):
            raise InputError(f"{quoted(one)} among the ids is no whole number.")
        if not -(2**63) <= one < 2**63:
            raise NotFound(f"There is no item {one}.")
        ids.append(one)
    return ids


def show(served: Served, ids: Sequence[int], limits: Limits) -> list[dict[str, Any]]:
    """The columns to be answered with for these items, as JSON values; a small JPEG of those that have no URL.

    InputError where these are too many to be made for one answer.
    """
    columns = [c for c in served.options.columns if c in served.collection.columns]
    items = served.collection.items(ids, [*columns, "url", "image_path"])
    rows = [{column: to_json_value(row.get(column)) for column in columns} for row in items]
    local = [at for at, row in enumerate(items) if not row.get("url") and row.get("image_path")]
    if len(local) > limits.pictures:
        raise InputError(
            f"{len(local):,} of these items come with their pictures, as they have no URL; ask for {limits.pictures:,} "
            "such at most, and for the others by /metadata."
        )
    for at in local:
        picture = served.pictures.get(ids[at])
        if picture is not None:
            rows[at]["image"] = picture
    return rows


def weight(served: Served, found: int, shown: int, limits: Limits) -> int:
    """About how many rows an answer of so many items is in memory, so many of them with metadata."""
    found = min(found, served.collection.manifest.rows)
    local = "image_path" in served.collection.columns and "url" not in served.collection.columns
    return found + PICTURE * min(found, shown, limits.pictures) * local


def _client() -> str:
    return client_of(request.remote_addr or "")


def to_json_value(value: Any) -> Any:
    """A value of metadata as JSON knows it: what is no number is null, times are ISO 8601, bytes are text."""
    if value is None or type(value) in (str, int, bool):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [to_json_value(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): to_json_value(v) for k, v in value.items()}
    return value


def _question(served: Served, query: Query, meters: Meters, fetch: Fetch) -> Float32:
    if query.text is not None:
        with meters.time("text_clip_inference_time"):
            vector = served.embed_text(query.text, query.multilingual)
    elif query.embedding is not None:
        vector = query.embedding
    else:
        data = query.image
        if data is None:
            assert query.image_url is not None
            with meters.time("download_time"):
                data = fetch(query.image_url)
        with meters.time("image_clip_inference_time"):
            vector = served.embed_image(data)
    rating = None if query.rating is None else served.options.ratings.get(query.rating)
    if rating is None:
        return vector
    vector = vector + rating * np.float32(query.rating_weight)
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector


def _source(query: Query) -> Source | None:
    """What the vector is made of, on which it depends how an index is searched; None where the client made it."""
    if query.embedding is not None or query.rating is not None:
        return None
    return "image" if query.text is None else "text"


def _found(served: Served, query: Query, vector: Float32, meters: Meters, limits: Limits) -> list[dict[str, Any]]:
    if not query.found:
        return []
    timings: dict[str, float] = {}
    ids, products = served.flags.nearest(
        vector,
        query.found,
        query.flags,
        modality=query.modality,  # type: ignore[arg-type]  # one of the two
        dedup=query.dedup,
        source=_source(query),
        timings=timings,
    )
    for stage, seconds in timings.items():
        meters.took(f"{stage}_time", seconds)
    named = [{"id": i, "similarity": s} for i, s in zip(ids.tolist(), products.tolist(), strict=True)]
    with meters.time("metadata_get_time"), served.just_found():
        rows = show(served, ids[: query.shown].tolist(), limits)
    return [{**row, **hit} for row, hit in zip(rows, named, strict=False)] + named[len(rows) :]


def _read_json(data: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The request's body is not JSON ({error}).") from None
    if not isinstance(body, dict):
        raise InputError("The request's body is not a JSON object.")
    return body


def _reply(reply: Reply) -> Response:
    answer = _answer(reply.body)
    answer.headers.update(reply.headers)
    return answer


def _answer(data: bytes) -> Response:
    return Response(data, mimetype="application/json")


def _required(body: Mapping[str, Any], name: str) -> Any:
    if name not in body:
        raise InputError(f"The field {name} is missing.")
    return body[name]


def _index(body: Mapping[str, Any]) -> str | None:
    name = _required(body, "indice_name")
    if name is not None and not isinstance(name, str):
        raise InputError(f"indice_name is {quoted(name)}; give a name as /indices-list has it, or null for the first.")
    return name


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} is no text.")
    return value or None


def _number(value: Any) -> float:
    """NaN for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        return float(value)
    except (ValueError, OverflowError):
        return math.nan


def _count(value: Any, name: str) -> int:
    number = _number(value)
    if not math.isfinite(number) or number < 0 or number != int(number):
        raise InputError(f"{name} is {quoted(value)}; give a whole number from 0 on.")
    return int(number)


def _switch(body: Mapping[str, Any], name: str) -> bool:
    value = body.get(name)
    return value.strip().casefold() in ("true", "1") if isinstance(value, str) else bool(value)


def _rating(body: Mapping[str, Any]) -> tuple[int | None, float]:
    score, weight = body.get("aesthetic_score"), body.get("aesthetic_weight")
    if score in (None, ""):
        return None, 0.0
    rating, factor = _number(score), _number(weight)
    if rating not in range(10):
        raise InputError(f"aesthetic_score is {quoted(score)}; give a whole number from 0 to 9, or nothing.")
    if not math.isfinite(factor):
        raise InputError(f"aesthetic_weight is {quoted(weight)}; with an aesthetic_score it is a number.")
    return int(rating), factor


def _embedding(value: Any) -> Float32:
    try:
        return np.asarray(value, dtype=np.float32)
    except (ValueError, TypeError, OverflowError):
        raise InputError("embedding_input is no list of numbers.") from None


def write_error(error: ClipsieveError) -> bytes:
    """An error in the protocol's shape, as JSON."""
    return orjson.dumps({"message": str(error)})


def error_answer(error: ClipsieveError, status: int) -> Response:
    """An error in the protocol's shape."""
    answer = _answer(write_error(error))
    answer.status_code = status
    return answer
