"""Requests for the embeddings of texts that come whole and plain: they are answered without a thread of their own.

A short request costs more in threads and layers than in work, and under load all threads wait for the interpreter,
which the model needs as well. So the server's loop looks at what has come on a connection: what is understood at a
glance goes to the batcher, and its answer is sent when the batch is done. Everything else, and whatever there may be to
object to, goes the way of all requests, which finds the words for it.
"""

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

import orjson

from clipsieve.back import guard, logs
from clipsieve.back.gate import client_of
from clipsieve.back.kserve import LENGTH, VERSION, Encoders
from clipsieve.back.kserve_models import ServedModel, batching, check_inputs
from clipsieve.back.kserve_tensors import Asked, packing, read_request, write_answer
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection
from clipsieve.errors import ClipsieveError

EXPRESS = "clipsieve.express"
"""The application's extension of this name is its Express."""

MOST_BYTES = 2**16
"""Bytes of a request."""

PLAIN = frozenset({"host", "user-agent", "accept", "accept-encoding", "authorization", "connection"}) | {
    "content-type",
    "content-length",
    LENGTH.lower(),
}
"""Headers that a request may have."""

log = logging.getLogger("clipsieve.back")


@dataclass(frozen=True, slots=True)
class Plain:
    """A request that came whole. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


def read_plain(data: bytes) -> Plain | None:
    """The POST that the bytes are; None for all that is not whole, or has anything unusual about it."""
    head, end, body = data.partition(b"\r\n\r\n")
    request, *lines = head.decode("latin-1").split("\r\n")
    words = request.split(" ")
    if not end or len(words) != 3 or words[0] != "POST" or words[2] != "HTTP/1.1":
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name not in PLAIN or name in headers or not value.isprintable():
            return None
        headers[name] = value
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal() and len(length) < 8 and int(length) == len(body)):
        return None
    if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Plain(words[1], headers, body)


@dataclass(frozen=True, slots=True)
class Going:
    """A request on its way to the model and back."""

    id: str
    began: float
    path: str
    route: str
    address: str
    client: str
    model: ServedModel
    asked: Asked


class Express:
    """Begins requests and writes their answers; `begin` and `answer` are called by one thread, the server's loop."""

    def __init__(self, encoders: Encoders, protection: Protection, meters: Meters) -> None:
        self._encoders, self._protection, self._meters = encoders, protection, meters
        self._routes: dict[str, tuple[ServedModel, str]] = {}
        policy = protection.policy
        headers = {**guard.answer_headers(False, policy), **({"Vary": "Origin"} if policy.origins else {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    @property
    def routes(self) -> Mapping[str, tuple[ServedModel, str]]:
        """Path -> model and route, once the models are made: making them would keep everybody waiting."""
        if not self._routes:
            for name, model in self._encoders.made.items():
                for part in ("", f"/versions/{VERSION}") if model.texts is not None else ():
                    rule = "/v2/models/<name>" + ("/versions/<version>" if part else "")
                    self._routes[f"/v2/models/{name}{part}/infer"] = model, f"{rule}/infer"
        return self._routes

    def knows(self, start: bytes) -> bool:
        """Whether a request that starts like this asks for what `begin` may take."""
        method, _, rest = start.partition(b" ")
        return method == b"POST" and rest.partition(b" ")[0].decode("latin-1") in self.routes

    def begin(self, data: bytes, address: str, told: Callable[[Going, Any], None]) -> bool:
        """Whether what has come on a connection is on its way.

        address  of the client
        told     called with it, and what `answer` needs, once it is there; by a thread that others wait for
        """
        plain, protection = read_plain(data), self._protection
        model, route = self.routes.get(plain.path, (None, "")) if plain is not None else (None, "")
        if plain is None or model is None or not self._passes(plain):
            return False
        client, gate = client_of(address), protection.gate
        if gate is not None and not gate.places.take(client):
            return False
        begun = False
        with contextlib.suppress(Exception):  # whatever it is, the usual way comes upon it too, and says what it is
            begun = self._submit(plain, address, client, model, route, told)
        if not begun and gate is not None:
            gate.places.give(client)
        return begun

    def _passes(self, plain: Plain) -> bool:
        protection, headers = self._protection, plain.headers
        return (
            protection.state.status == "ok"
            and protection.rate is None
            and guard.check_host(headers["host"], protection.policy) is None
            and guard.check_token(headers.get("authorization"), True, protection.policy) is None
            and len(plain.body) <= protection.policy.max_bytes
            and packing(headers.get("accept-encoding", "")) is None
        )

    def _submit(
        self,
        plain: Plain,
        address: str,
        client: str,
        model: ServedModel,
        route: str,
        told: Callable[[Going, Any], None],
    ) -> bool:
        began, embedder = time.perf_counter(), self._encoders.embedder
        asked = read_request(plain.body, plain.headers.get(LENGTH.lower()), model.inputs, model.output, model.max_rows)
        check_inputs(model, asked)
        how = batching(asked.parameters)
        if model.texts is None or how["timeout"] is not None or embedder.options.timeout is not None:
            return False
        rows = model.texts(asked)
        going = Going(uuid.uuid4().hex, began, plain.path, route, address, client, model, asked)
        embedder.submit(rows, lambda done: told(going, done), priority=how["priority"], name=model.name)
        self._meters.in_flight.inc()
        return True

    def answer(self, going: Going, done: Any, keep: bool) -> bytes:
        """The whole answer.

        done  the batcher's Request, which is over
        keep  whether the connection is kept
        """
        status, length = HTTPStatus.OK, None
        try:
            if done.error is not None:
                raise done.error
            start = time.monotonic_ns()
            body, length = write_answer(going.model.name, VERSION, going.asked, going.model.output, done.vectors)
            self._encoders.answers.wrote(going.model.name, time.monotonic_ns() - start)
        except Exception as error:
            status, sentence = self._failed(going, error)
            body = orjson.dumps({"error": sentence})
        kind = "application/json" if length is None else "application/octet-stream"
        more = "" if length is None else f"{LENGTH}: {length}\r\n"
        self._count(going, status)
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n"
            f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}"
            f"{self._headers}X-Request-Id: {going.id}\r\n\r\n"
        )
        return head.encode() + body

    def _failed(self, going: Going, error: Exception) -> tuple[HTTPStatus, str]:
        if isinstance(error, ClipsieveError):
            return HTTPStatus(guard.status_of(error)), str(error)
        fields = {"request_id": going.id}
        log.error("POST %s failed", going.path, exc_info=error, extra={"fields": fields})
        return HTTPStatus.INTERNAL_SERVER_ERROR, f"This is an error of the service; its log has it as {going.id}."

    def _count(self, going: Going, status: HTTPStatus) -> None:
        seconds = time.perf_counter() - going.began
        self._meters.requests.labels(going.route, "POST", str(status.value)).inc()
        self._meters.seconds.labels(going.route).observe(seconds)
        self._meters.in_flight.dec()
        if self._protection.gate is not None:
            self._protection.gate.places.give(going.client)
        logs.answered("POST", going.path, status.value, seconds, going.address, False)
