"""Requests: their heads, their bodies, and KServe's tensors."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.folders import FAKE, make_collection
from benchmarks.fuzz.words import PNG, deploy_bodies
from clipsieve.back import kserve_tensors
from clipsieve.back.app import create_app
from clipsieve.back.direct import DIRECT
from clipsieve.back.express import EXPRESS
from clipsieve.back.plain import path_of, read_plain
from clipsieve.back.shelf import Served, Shelf
from clipsieve.errors import InputError
from clipsieve.index.collection import open_collection
from clipsieve.inference.batcher import batched

Read = Callable[[bytes], object]

HEAD_WORDS = (
    *(b"\r\n", b"\n", b"\r\n\r\n", b": ", b"HTTP/1.0", b"GET ", b"\0", b"\xe9", b" ", b"\t", b"%2e%2e/", b"0\r\n\r\n"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n", b"Expect: 100-continue\r\n"),
)
_VECTOR = kserve_tensors.Tensor("EMBEDDING", "FP32", (8,))
_KNOWN = (
    kserve_tensors.Tensor("INPUT_TEXT", "BYTES", (1,)),
    kserve_tensors.Tensor("INPUT_IDS", "INT64", (4,)),
    kserve_tensors.Tensor("PIXEL_VALUES", "FP32", (3, 2, 2)),
)


def tensors(_: Path) -> Read:
    """KServe's bodies, behind the line that says how long their JSON is."""

    def read(data: bytes) -> object:
        line, _, body = data.partition(b"\n")
        header = None if line == b"-" else line.decode("latin-1")
        asked = kserve_tensors.read_request(body, header, _KNOWN, _VECTOR, 64)
        rows = np.zeros((max(len(values) for values in asked.inputs.values()), 8), np.float32)
        written = kserve_tensors.write_answer("m", "1", asked, _VECTOR, rows)
        return {name: np.asarray(values).tolist() for name, values in asked.inputs.items()}, written

    return read


def tensor_seeds() -> list[bytes]:
    """Tensors as JSON, as bytes behind it, and raw."""
    text = {"name": "INPUT_TEXT", "shape": [2, 1], "datatype": "BYTES", "data": ["a", "b"]}
    ids = {"name": "INPUT_IDS", "shape": [1, 4], "datatype": "INT64"}
    pixels = {"name": "PIXEL_VALUES", "shape": [1, 3, 2, 2], "datatype": "FP32", "data": [0.5] * 12}
    head = json.dumps({"inputs": [{**ids, "parameters": {"binary_data_size": 32}}], "id": "7",
                       "outputs": [{"name": "EMBEDDING", "parameters": {"binary_data": True}}]}).encode()  # fmt: skip
    top = {"inputs": [text], "outputs": [{"name": "EMBEDDING", "parameters": {"classification": 2}}]}
    return [
        b"-\n" + json.dumps(top).encode(),
        b"-\n" + json.dumps({"inputs": [{**ids, "data": [[1, 2, 3, 4]]}, pixels]}).encode(),
        str(len(head)).encode() + b"\n" + head + np.arange(4, dtype="<i8").tobytes(),
        b"0\n" + kserve_tensors.to_bytes([b"a red bus"]),
    ]


def head(folder: Path) -> Read:
    """Whole requests as they come on a connection, through the two ways that pass by the usual one."""
    app, _ = _service(folder)
    app.test_client().post("/v2/models/embed_text/infer", data=b"{}")  # which makes the models
    direct, express = app.extensions[DIRECT], app.extensions[EXPRESS]

    def read(data: bytes) -> object:
        plain = read_plain(data)
        told: list[Any] = []
        missing = direct.missing(data)
        answer = direct.answer(data, "127.0.0.1", True)
        begun = express.knows(data) and express.begin(data, "127.0.0.1", lambda going, done: told.append((going, done)))
        return path_of(data), plain, missing, answer and answer.split(b"\r\n")[0], begun

    return read


def head_seeds() -> list[bytes]:
    """A question of each of those ways."""
    made = []
    text = {"name": "INPUT_TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    questions: dict[str, Any] = {
        "/knn-service": {"text": "bus", "modality": "image", "num_images": 2, "indice_name": "photos"},
        "/metadata": {"ids": [0], "indice_name": "photos"},
        "/v2/models/embed_text/infer": {"inputs": [text]},
    }
    for path, value in questions.items():
        body = json.dumps(value).encode()
        lines = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        made.append(lines.encode() + b"\r\nUser-Agent: x\r\nAccept: */*\r\n\r\n" + body)
    return made


def body(folder: Path) -> Read:
    """Requests to every route: method, path and content type on the first line, then the body."""
    _, client = _service(folder)
    failures: list[BaseException] = []

    class Note(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                failures.append(record.exc_info[1])

    log = logging.getLogger("clipsieve.back")
    log.addHandler(Note())
    log.propagate = False

    def read(data: bytes) -> object:
        line, _, rest = data.partition(b"\n")
        words = (*line.decode("latin-1").split(" "), "", "", "")
        method = words[0] if words[0] in ("GET", "POST", "PUT", "DELETE") else "POST"
        path = words[1] if words[1].startswith("/") and words[1].isprintable() else "/knn-service"
        type_ = words[2] if words[2].isprintable() else "application/json"
        failures.clear()
        answer = client.open(path, method=method, data=rest, headers={"Content-Type": type_})
        got = answer.get_data()
        if failures:
            raise failures[0]
        if answer.status_code >= 500 and answer.status_code not in (501, 503, 507):
            raise AssertionError(f"{answer.status_code} {got[:500]!r}")
        if answer.mimetype == "application/json" and got:
            json.loads(got)
        writes = words[0] in ("PUT", "DELETE") or "/marks" in path  # what comes after is another answer
        return None if writes else (answer.status_code, len(got))

    return read


def body_seeds() -> list[bytes]:
    """One good request for each route that takes a body, and for some that do not."""
    image = base64.b64encode(PNG).decode()
    vector = FAKE.embed_texts(["x"])[0].tolist()
    one = {"positive": ["a", {"image": "0"}], "negative": ["b"], "threshold": 0.1}
    knn = {"modality": "image", "num_images": 2, "num_result_ids": 3, "indice_name": "photos", "deduplicate": True}
    tensor = {"name": "INPUT_TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]}
    asked: list[tuple[str, Any]] = [
        ("POST /knn-service", {**knn, "text": "bus"}),
        ("POST /knn-service", {**knn, "image": image}),
        ("POST /knn-service", {**knn, "embedding_input": vector}),
        ("POST /knn-service", {**knn, "image_url": "http://x.org/a.jpg"}),
        ("POST /metadata", {"ids": [0, 1], "indice_name": "photos"}),
        (
            "POST /api/v1/search",
            {"collection": "photos", "class": one, "limit": 2, "view": "matched", "where": "n > 1"},
        ),
        ("POST /api/v1/distribution", {"collection": "photos", "class": one}),
        ("POST /api/v1/explain", {"collection": "photos", "class": one, "id": "0"}),
        ("POST /api/v1/fetch", {"url": "http://x.org/a.jpg"}),
        ("PUT /api/v1/sets/a", {"classes": [{"name": "a", **one}]}),
        ("POST /api/v1/marks", {"marks": [{"class": "a", "id": "0", "verdict": True}]}),
        ("POST /api/v1/suggest", {"class": one, "limit": 2}),
        ("POST /api/v1/learn", {"class": one}),
        ("POST /v1/embeddings", {"input": ["a", f"data:image/png;base64,{image}"], "encoding_format": "base64"}),
        ("POST /v2/models/embed_text/infer", {"inputs": [tensor]}),
        ("POST /v2/repository/index", {"ready": True}),
        *(("POST /deploy_classifier", value) for value in deploy_bodies()[:1]),
    ]
    form = b'--e\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n' + PNG + b"\r\n--e--\r\n"
    return [
        *(f"{where} application/json\n{json.dumps(value)}".encode() for where, value in asked),
        b"POST /api/v1/uploads multipart/form-data;boundary=e\n" + form,
        b"POST /classify?deployed_id=a multipart/form-data;boundary=e\n" + form,
        b"GET /api/v1/items/0?collection=photos \n",
        b"GET /api/v1/items/0/image?size=64&collection=photos \n",
        b"GET /api/v1/marks?class=a \n",
        b"GET /v2/models/embed_text/config \n",
    ]


def _service(folder: Path) -> tuple[Any, Any]:
    """The application over one small collection, with all that it may serve."""
    model = batched(FAKE)
    photos = open_collection(make_collection(folder / "photos"), embedder=FAKE)

    def fetch(url: str) -> bytes:
        raise InputError(f"{url[:100]} may not be asked for.")

    app = create_app(Shelf([Served("photos", photos)]), fetch=fetch, embedder=lambda: model, encoder=lambda: model)
    return app, app.test_client()
