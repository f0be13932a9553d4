"""Nothing that is sent comes back at length, whatever the field, the header or the protocol."""

import json
import logging
import re

import pytest

from clipsieve.back.app import create_app
from clipsieve.back.logs import Lines
from clipsieve.back.protect import Protection
from clipsieve.back.shelf import Options, Served, Shelf
from clipsieve.errors import InputError, quoted
from clipsieve.index.collection import open_collection
from clipsieve.inference.batcher import batched
from tests.back.made import FAKE, add_items

LONG = "x" * 300_000
MOST = 2_000


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    base = tmp_path_factory.mktemp("repeated")
    folder = add_items(base / "photos", 12, width=list(range(12)))
    shelf = Shelf([Served("photos", open_collection(folder, embedder=FAKE), Options())])
    embedder = batched(FAKE, None)

    def fetch(url):
        raise InputError(f"{quoted(url)} is not fetched.")

    made = create_app(
        shelf, fetch=fetch, embedder=lambda: FAKE, encoder=lambda: embedder, jobs=None, protection=Protection()
    )
    yield made
    embedder.close()


def strings(schema, whole, depth=0):
    """Values that a body of this schema may be, each with one long text in it, at a place of its own."""
    schema = resolved(schema, whole)
    for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())):
        yield from strings(one, whole, depth)
    kinds = schema.get("type", "string" if "enum" in schema else None)
    kinds = {kinds} if isinstance(kinds, str) else set(kinds or ())
    yield LONG
    yield [LONG]
    yield {LONG: LONG}
    if depth > 3:
        return
    if "array" in kinds:
        yield from ([one] for one in strings(schema.get("items", {}), whole, depth + 1))
    fields = schema.get("properties", {})
    whole_body = {name: example(field, whole) for name, field in fields.items() if name in schema.get("required", ())}
    for name, field in fields.items():
        for one in strings(field, whole, depth + 1):
            yield {**whole_body, name: one}
    yield {**whole_body, LONG: 1}


def resolved(schema, whole):
    while "$ref" in schema:
        schema = whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def example(schema, whole):
    """Something that fits, more or less."""
    schema = resolved(schema, whole)
    if "enum" in schema:
        return schema["enum"][0]
    for one in schema.get("anyOf", ()):
        return example(one, whole)
    kind = schema.get("type", "object")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        return {
            n: example(f, whole) for n, f in schema.get("properties", {}).items() if n in schema.get("required", ())
        }
    return {"array": [], "string": "a", "integer": 1, "number": 1, "boolean": True}.get(kind)


def looked_at(answer):
    return answer.status_code >= 400


@pytest.mark.slow
def test_every_field_of_every_route(app, caplog):
    client = app.test_client()
    whole = client.get("/openapi").get_json()
    asked = refused = 0
    for path, methods in whole["paths"].items():
        for method, described in methods.items():
            bodies = [None]
            content = described.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                bodies = list(strings(content["application/json"]["schema"], whole))
            for body in bodies:
                for part in ("photos", "y" * 3_000):
                    if body is not None and part != "photos" and "{" not in path:
                        continue
                    asked += 1
                    address = re.sub(r"\{[^}]*\}", part, path)
                    query = "" if body is not None else "?collection=" + "z" * 3_000 + "&deployed_id=" + "z" * 3_000
                    data = None if body is None else json.dumps(body)
                    answer = client.open(
                        address + query, method=method.upper(), data=data, content_type="application/json"
                    )
                    if answer.status_code >= 400:
                        refused += 1
                        assert not re.search(rb"x{201}|y{201}|z{201}", answer.data), (method, path, answer.data[:400])
                        assert len(answer.data) < MOST, (method, path, str(body)[:300], answer.data[:400])
                        assert answer.status_code < 500 or answer.status_code == 503, (path, str(body)[:300])
                    answer.close()
    assert refused > 100
    assert max((len(record.getMessage()) for record in caplog.records), default=0) < MOST


@pytest.mark.parametrize(
    "path", ["/knn-service", "/v1/embeddings", "/v2/models/embed_text/infer", "/api/v1/search", "/classify", "/nowhere"]
)
@pytest.mark.parametrize(
    "name",
    ["Host", "Origin", "Authorization", "Content-Type", "Content-Encoding", "If-Match", "X-Request-Id",
     "Accept-Encoding", "Inference-Header-Content-Length", "Access-Control-Request-Headers"],
)  # fmt: skip
def test_every_header(app, path, name):
    answer = app.test_client().post(path, data=b"{}", headers={"Content-Type": "application/json", name: "h" * 8_000})
    assert len(answer.data) < MOST
    assert sum(len(value) for value in answer.headers.values()) < MOST


def test_bodies_that_are_none(app):
    client = app.test_client()
    for path in (
        "/knn-service",
        "/metadata",
        "/v1/embeddings",
        "/v2/models/embed_text/infer",
        "/api/v1/search",
        "/deploy_classifier",
    ):
        for body in (
            LONG.encode(),
            b'"' + LONG.encode(),
            b"\xff" * 300_000,
            b"[" + LONG.encode(),
            b"{" + b'"a":1,' * 9_000,
        ):
            answer = client.post(path, data=body, content_type="application/json")
            assert (400 <= answer.status_code < 500, len(answer.data) < MOST) == (True, True), (path, body[:9])


def test_what_is_logged_is_short():
    record = logging.LogRecord("clipsieve.back", logging.INFO, "", 0, "request", (), None)
    record.fields = {"path": "/" + "p" * 300_000}
    for form in ("json", "text"):
        assert len(Lines(form).format(record)) < MOST
    record = logging.LogRecord("clipsieve.back", logging.ERROR, "", 0, "%s", (LONG,), None)
    assert len(Lines("json").format(record)) < 2 * MOST
