"""Requests that come whole and have nothing unusual about them, and their answers, without the application's layers.

A short request costs more in gunicorn's parser, WSGI and flask than in work. What is understood at a glance can be
answered beside them: `back/express.py` and `back/direct.py` say what. Nothing is refused here. What there may be to
object to goes the way of all requests, which finds the words for it.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from clipsieve.back import guard, logs
from clipsieve.back.gate import client_of
from clipsieve.back.kserve import LENGTH
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection

MOST_BYTES = 2**16
"""Bytes of a request."""

MOST_LINE, MOST_HEADER = 4094, 8190
"""Bytes of its first line and of each header, line ends included: what the usual way is given as its limits."""

HEADERS = frozenset({"host", "user-agent", "accept", "accept-encoding", "authorization", "connection"}) | {
    "content-type",
    "content-length",
    LENGTH.lower(),
}
"""Headers that a request may have."""

JSON: Mapping[str, str] = {"Content-Type": "application/json"}
"""Headers of an answer in JSON."""


@dataclass(frozen=True, slots=True)
class Plain:
    """A request that came whole. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Visit:
    """A request that is being answered. `began` is of `time.perf_counter`, `client` of `client_of`."""

    id: str
    began: float
    path: str
    route: str
    address: str
    client: str


def read_plain(data: bytes) -> Plain | None:
    """The POST that the bytes are; None for all that is not whole, or has anything unusual about it."""
    head, end, body = data.partition(b"\r\n\r\n")
    request, *lines = head.decode("latin-1").split("\r\n")
    if len(request) + 2 > MOST_LINE or any(len(line) + 2 > MOST_HEADER for line in lines):
        return None
    words = request.split(" ")
    if not end or len(words) != 3 or words[0] != "POST" or words[2] != "HTTP/1.1":
        return None
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.lower(), value.strip(" \t")
        if name not in HEADERS or name in headers or not value.isprintable():
            return None
        headers[name] = value
    length = headers.get("content-length", "")
    if not (length.isascii() and length.isdecimal() and len(length) < 8 and int(length) == len(body)):
        return None
    if "host" not in headers or headers.get("connection", "keep-alive").lower() != "keep-alive":
        return None
    return Plain(words[1], headers, body)


def path_of(start: bytes) -> str:
    """The path of a POST that starts like this; empty where it is none."""
    method, _, rest = start.partition(b" ")
    return rest.partition(b" ")[0].decode("latin-1") if method == b"POST" else ""


class Desk:
    """Lets plain requests in and writes their answers, as `protect` and the application do for all others.

    Whatever is let in is either answered or sent on. Safe to use from several threads at once.
    """

    def __init__(self, protection: Protection, meters: Meters) -> None:
        self._protection, self._meters = protection, meters
        policy = protection.policy
        headers = {**guard.answer_headers(False, policy), **({"Vary": "Origin"} if policy.origins else {})}
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def let_in(self, plain: Plain, route: str, address: str, *, reading: bool) -> Visit | None:
        """The request with a place of its own; None where it goes the usual way.

        route    what it is counted by
        reading  a token for reading is enough
        """
        protection, headers = self._protection, plain.headers
        if (
            protection.state.status != "ok"
            or protection.rate is not None
            or len(plain.body) > protection.policy.max_bytes
            or guard.check_host(headers["host"], protection.policy) is not None
            or guard.check_token(headers.get("authorization"), reading, protection.policy) is not None
        ):
            return None
        client = client_of(address)
        if protection.gate is not None and not protection.gate.places.take(client):
            return None
        self._meters.in_flight.inc()
        return Visit(uuid.uuid4().hex, time.perf_counter(), plain.path, route, address, client)

    def send_on(self, visit: Visit) -> None:
        """It goes the usual way after all."""
        self._meters.in_flight.dec()
        if self._protection.gate is not None:
            self._protection.gate.places.give(visit.client)

    def answer(
        self, visit: Visit, status: HTTPStatus, body: bytes, keep: bool, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The whole answer; the request is counted, and over.

        keep     whether the connection is kept
        headers  those beside what every answer has; by default the type of JSON
        """
        seconds = time.perf_counter() - visit.began
        self._meters.requests.labels(visit.route, "POST", str(status.value)).inc()
        self._meters.seconds.labels(visit.route).observe(seconds)
        self.send_on(visit)
        logs.answered("POST", visit.path, status.value, seconds, visit.address, False, visit.id)
        own = "".join(f"{name}: {value}\r\n" for name, value in (headers or JSON).items())
        head = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nDate: {formatdate(usegmt=True)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n{own}Content-Length: {len(body)}\r\n"
            f"{self._headers}X-Request-Id: {visit.id}\r\n\r\n"
        )
        return head.encode() + body
