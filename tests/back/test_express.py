"""Requests that are answered without a thread of their own: the same answers, and the usual way for all else."""

import json
import queue
import socket
from typing import Any

import numpy as np
import pytest

from clipsieve.back.app import create_embedding_app
from clipsieve.back.express import EXPRESS
from clipsieve.back.gate import Gate, parse_rate
from clipsieve.back.guard import Policy
from clipsieve.back.meters import Meters
from clipsieve.back.plain import MOST_BYTES, MOST_HEADER, MOST_LINE, read_plain
from clipsieve.back.protect import Protection, State
from clipsieve.errors import InputError
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from tests.back.service import running
from tests.back.test_kserve import CONTEXT, IDS, TEXT_INFER, binary, ids, texts

PATIENCE = 30
PATH = "/v2/models/siglip_text/infer"
OWN = {"Date", "Connection", "X-Request-Id"}
"""Headers that each answer has of its own, or that only a server knows."""


class Failing(FakeEmbedder):
    """One that has no vector for a text."""

    def tokenize(self, some):
        if "bad" in some:
            raise InputError("it is bad.")
        if "broken" in some:
            raise ZeroDivisionError("of the test")
        if "large" in some:
            raise MemoryError
        return super().tokenize(some)


class Asking:
    """An application and its Express."""

    def __init__(self, protection=None, options=None, made=True):
        self.embedder, self.meters = batched(Failing(16), options), Meters()
        self.protection = protection or Protection(Policy(read_token="secret"), Gate(2, 2, 1))
        self.app = create_embedding_app(lambda: self.embedder, self.meters, self.protection)
        self.express = self.app.extensions[EXPRESS]
        self.client = self.app.test_client()
        self.done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        if made:
            self.client.get("/v2/models/siglip_text", headers=TOKEN).close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.embedder.close()

    def begin(self, data):
        return self.express.begin(data, "127.0.0.1", lambda *answer: self.done.put(answer))

    def answer(self):
        """Status, headers and body."""
        head, _, body = self.express.answer(*self.done.get(timeout=PATIENCE), True).partition(b"\r\n\r\n")
        status, *lines = head.decode().split("\r\n")
        return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body

    def count(self, name, **labels):
        return self.meters.registry.get_sample_value(name, labels) or 0


TOKEN = {"Authorization": "Bearer secret"}


def posted(body, path=PATH, start="POST {} HTTP/1.1", host="localhost", **headers):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Host": host, "Content-Length": str(len(data)), **TOKEN, **headers}
    lines = [start.format(path), *(f"{k}: {v}" for k, v in given.items() if v is not None), "", ""]
    return "\r\n".join(lines).encode() + data


def test_what_comes_whole_is_a_request():
    plain = read_plain(posted(b"{}", Accept="*/*"))
    assert (plain.path, plain.body) == (PATH, b"{}")
    assert plain.headers["accept"] == "*/*"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"POST",
        b"\xff\x00\r\n\r\n",
        posted(b"{}")[:-1],
        posted(b"{}") + b"POST",
        posted(b"{}", start="GET {} HTTP/1.1"),
        posted(b"{}", start="POST {} HTTP/1.0"),
        posted(b"{}", start="POST  {} HTTP/1.1"),
        posted(b"{}", **{"Content-Length": None}),
        posted(b"{}", **{"Content-Length": "+2"}),
        posted(b"{}", **{"Content-Length": "2, 2"}),
        posted(b"{}", **{"content-length": "2"}),
        posted(b"{}", **{"Transfer-Encoding": "chunked"}),
        posted(b"{}", **{"Transfer-Encoding ": "chunked"}),
        posted(b"{}", Accept="a\nTransfer-Encoding: chunked"),
        posted(b"{}", Accept="a\r\n b"),
        posted(b"{}", Connection="close"),
        posted(b"{}", Origin="http://a.example"),
        posted(b"{}", **{"X-Forwarded-For": "1.2.3.4"}),
        posted(b"{}", **{"Content-Encoding": "gzip"}),
        posted(b"{}", Host=None),
        posted(b"{}", Accept="a" * MOST_HEADER),
        posted(b"{}", "/" + "a" * MOST_LINE),
    ],
)
def test_what_is_not_whole_or_not_plain_goes_the_usual_way(data):
    assert read_plain(data) is None


@pytest.mark.parametrize("form", ["json", "binary", "text", "classes"])
def test_answers_are_those_of_the_usual_way(form):
    with Asking() as asking:
        path = PATH
        given: dict[str, Any] = {"data": json.dumps(ids(id="7")).encode(), "headers": {}}
        if form == "text":
            path, given["data"] = TEXT_INFER, json.dumps(texts(["a dog", "größer"])).encode()
        if form == "classes":
            wanted = [{"name": "EMBEDDING", "parameters": {"classification": 2}}]
            given["data"] = json.dumps(ids(outputs=wanted)).encode()
        if form == "binary":
            one: dict[str, Any] = {"name": "INPUT_IDS", "shape": [1, CONTEXT], "datatype": "INT64"}
            one["parameters"] = {"binary_data_size": 8 * CONTEXT}
            value = {"inputs": [one], "parameters": {"binary_data_output": True}}
            given = binary(value, np.array(IDS, "<i8").tobytes())
        assert asking.begin(posted(given["data"], path, **given["headers"]))
        status, headers, body = asking.answer()
        usual = asking.client.post(path, data=given["data"], headers={**given["headers"], **TOKEN})
        assert (status, body) == (usual.status_code, usual.data)
        assert {k: v for k, v in headers.items() if k not in OWN} == {
            k: v for k, v in usual.headers.items() if k not in OWN
        }


def test_what_was_answered_is_counted_and_gives_its_place_back():
    with Asking() as asking:
        assert asking.begin(posted(ids()))
        assert asking.protection.gate.places.held == 1
        assert asking.count("clipsieve_requests_in_flight") == 1
        asking.answer()
        assert asking.protection.gate.places.held == 0
        assert asking.count("clipsieve_requests_in_flight") == 0
        route = "/v2/models/<name>/infer"
        assert asking.count("clipsieve_requests_total", route=route, method="POST", status="200") == 1
        stats = asking.client.get("/v2/models/siglip_text/stats", headers=TOKEN).json["model_stats"][0]
        assert (stats["inference_count"], stats["inference_stats"]["compute_output"]["count"]) == (1, 1)


@pytest.mark.parametrize(
    "data",
    [
        posted(b"[]"),
        posted(b"{"),
        posted(ids(parameters={"timeout": 5})),
        posted(ids(parameters={"priority": 9})),
        posted({"inputs": ids()["inputs"] + texts(["a"])["inputs"]}),
        posted(ids([2**40] * CONTEXT)),
        posted(ids(), "/v2/models/embed_image/infer"),
        posted(ids(), "/v2/models/siglip_text/versions/2/infer"),
        posted(ids(), host="attacker.example"),
        posted(ids(), Authorization="Bearer guess"),
        posted(ids(), **{"Accept-Encoding": "gzip"}),
    ],
)
def test_what_there_may_be_to_object_to_goes_the_usual_way(data):
    with Asking() as asking:
        assert not asking.begin(data)
        assert asking.protection.gate.places.held == 0


@pytest.mark.parametrize(
    "options",
    [
        {"protection": Protection(state=State(ready=False))},
        {"protection": Protection(state=State(draining=True))},
        {"protection": Protection(rate=parse_rate("10/s"))},
        {"options": BatchOptions(timeout=5)},
        {"made": False},
    ],
)
def test_a_service_that_has_more_to_look_at_answers_the_usual_way(options):
    with Asking(**options) as asking:
        assert not asking.begin(posted(ids()))


def test_without_a_place_it_goes_the_usual_way():
    with Asking(Protection(gate=Gate(1, 0, 1))) as asking:
        assert asking.begin(posted(ids()))
        assert not asking.begin(posted(ids()))
        assert asking.answer()[0] == 200
        assert asking.begin(posted(ids(), f"{PATH[:-6]}/versions/1/infer"))


@pytest.mark.parametrize(
    ("text", "status", "words"),
    [("bad", 400, "it is bad"), ("broken", 500, "its log has it"), ("large", 503, "not enough memory")],
)
def test_what_the_model_cannot_do_is_an_error_of_the_protocol(text, status, words):
    with Asking() as asking:
        assert asking.begin(posted(texts([text]), TEXT_INFER))
        found, headers, body = asking.answer()
        assert (found, headers["Content-Type"]) == (status, "application/json")
        assert words in json.loads(body)["error"]


# ------------------------------------------------------------------------------------------------- in the real server


@pytest.fixture(scope="module")
def address():
    with running("--model", "mini", command=("embed-server",)) as service:
        host, _, port = service.url.removeprefix("http://").partition(":")
        yield host, int(port)


def read(file):
    """Status, headers and body of one answer."""
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().strip():
        name, _, value = line.decode().partition(": ")
        headers[name] = value
    return status, headers, file.read(int(headers["Content-Length"]))


def is_express(headers):
    return "Server" not in headers  # gunicorn's own mark


ASK = posted(texts(["a dog"]), TEXT_INFER, Authorization=None)


@pytest.mark.slow
def test_a_connection_goes_from_one_way_to_the_other_and_back(address):
    image = posted({"inputs": []}, "/v2/models/embed_image/infer", Authorization=None)
    with socket.create_connection(address, PATIENCE) as connection, connection.makefile("rb") as file:
        seen = []
        for data in (ASK, ASK, image, ASK, ASK[:-1], ASK):
            connection.sendall(data)
            if data == ASK[:-1]:
                connection.sendall(ASK[-1:])
            status, headers, body = read(file)
            seen.append((status, len(body) > 1000, data is ASK and is_express(headers)))
        assert [one[:2] for one in seen] == [(200, True), (200, True), (400, False)] + [(200, True)] * 3
        assert any(one[2] for one in seen)
        connection.sendall(ASK + ASK + ASK)  # without waiting
        assert [read(file)[0] for _ in range(3)] == [200, 200, 200]


@pytest.mark.slow
def test_an_answer_that_is_not_taken_at_once_is_sent_all_the_same(address):
    many = posted(texts(["a dog"] * 60), TEXT_INFER, Authorization=None)
    assert len(many) < MOST_BYTES
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(PATIENCE)
        connection.connect(address)
        with connection.makefile("rb") as file:
            for _ in range(6):
                connection.sendall(many)
                status, _, body = read(file)
                assert status == 200
                assert json.loads(body)["outputs"][0]["shape"][0] == 60


@pytest.mark.slow
def test_what_was_begun_is_answered_although_the_service_ends():
    with running("--model", "mini", command=("embed-server",)) as service:
        host, _, port = service.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), PATIENCE) as connection, connection.makefile("rb") as file:
            for _ in range(2):
                connection.sendall(ASK)
                read(file)
            connection.sendall(posted(texts(["another dog"] * 60), TEXT_INFER, Authorization=None))
            service.process.terminate()
            status, _, body = read(file)
            assert status == 200
            assert json.loads(body)["outputs"][0]["shape"][0] == 60
