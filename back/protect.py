"""What stands between a request and its route: the decisions of `back/guard.py` and the places of `back/gate.py`.

In this order, the cheap ones first and the body last: a place, Host, Origin, rate, token, whether the service is ready,
what the headers say of the body, the body itself, a turn. What is refused is answered in the shape of its protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flask import Flask, Response, current_app, g, request
from werkzeug.wsgi import ClosingIterator

from clipsieve.back import guard
from clipsieve.back.gate import Deadlines, Gate, RateLimit, client_of
from clipsieve.back.guard import Policy, Refusal
from clipsieve.back.proxies import known_callers

Answer = Callable[[str, int], Response]
"""A sentence and a status -> the error in the shape of the request's protocol."""

READING = frozenset({"GET", "HEAD", "OPTIONS"})
WITHOUT_CORS = frozenset({"/metrics", "/metrics-summary"})
UNCOUNTED = frozenset(
    {"/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/metrics", "/metrics-summary"},
)
"""Answered without a place: whoever runs the service asks for them most when it is busy."""

SOON = {"Retry-After": "1"}
BUSY = Refusal(503, "busy", "The service is busy; ask again in a moment.", SOON)
OPENING = Refusal(503, "opening", "The service is opening its collections; ask again in a moment.", SOON)

CROWDED = Refusal(503, "busy", "The service reads as many large requests as it holds; ask again in a moment.", SOON)

_ADMITTED, _CLIENT = "clipsieve.admitted", "clipsieve.client"


@dataclass(slots=True)
class State:
    """Where the service is in its life. It changes from one thread and is read from others.

    ready     its collections are open, and its models loaded if they are to be
    draining  it ends: what is being answered is finished, and nothing new is begun
    """

    ready: bool = True
    draining: bool = False

    @property
    def status(self) -> str:
        """What /readyz says."""
        return "draining" if self.draining else "ok" if self.ready else "opening"


@dataclass(frozen=True, slots=True)
class Protection:
    """What an application is protected by; each part may be left out.

    gate       places for requests; None where something else bounds them
    rate       of each client
    deadlines  of connections, where the server lets them be ended
    """

    policy: Policy = field(default_factory=Policy)
    gate: Gate | None = None
    rate: RateLimit | None = None
    deadlines: Deadlines | None = None
    state: State = field(default_factory=State)


def protect(app: Flask, protection: Protection, answer: Answer, count: Callable[[str], None]) -> None:
    """Install the protection. What the application does before each request comes first, if it was installed first.

    count  told the reason of each refusal
    """
    policy, gate, deadlines = protection.policy, protection.gate, protection.deadlines
    app.config["MAX_CONTENT_LENGTH"] = policy.max_bytes + 1  # a body in chunks is cut there without a word
    if gate is not None:
        app.wsgi_app = _with_places(app.wsgi_app, gate)  # type: ignore[method-assign]
    app.wsgi_app = known_callers(app.wsgi_app, policy.proxies)  # type: ignore[method-assign]

    def judged() -> Refusal | None:
        refusal = _refusal(protection)
        if refusal is not None or request.path in UNCOUNTED:
            return refusal
        g.has_turn = gate is None or gate.begin()
        return None if g.has_turn else BUSY

    def refuse(refusal: Refusal) -> Response:
        count(refusal.reason)
        response = answer(refusal.sentence, refusal.status)
        response.headers.update(refusal.headers)
        return response

    @app.before_request
    def judge() -> Response | None:
        if _is_preflight():
            refusal, headers = _preflight(policy)
            return Response("", 200, headers) if refusal is None else refuse(refusal)
        refusal = judged()
        return None if refusal is None else refuse(refusal)

    @app.after_request
    def say(response: Response) -> Response:
        for name, value in guard.answer_headers(response.mimetype == "text/html", policy).items():
            response.headers.setdefault(name, value)
        if policy.origins:
            response.vary.add("Origin")
            if request.path not in WITHOUT_CORS:
                response.headers.update(guard.cors_headers(request.headers.get("Origin"), policy))
        if deadlines is not None and g.get("has_turn", False):
            deadlines.answers(request.environ["gunicorn.socket"], response.content_length or 0)
        elif deadlines is not None:
            deadlines.leaves(request.environ["gunicorn.socket"])
        return response

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        if gate is not None and g.pop("has_turn", False):
            gate.end()
        if gate is not None and "body" in g:
            gate.bodies.give(request.environ[_CLIENT], g.pop("body"))


def _refusal(protection: Protection) -> Refusal | None:
    """Why this request is not answered. What it sends is read and remembered if there is nothing against it."""
    policy = protection.policy
    view = current_app.view_functions.get(request.endpoint or "")
    if guard.marked(view, "for_all"):
        return None
    if not request.environ.get(_ADMITTED, True):
        return BUSY
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    reading = request.method in READING or guard.marked(view, "reads")
    refusal = guard.check_host(host, policy) or guard.check_origin(origin, host, reading, policy)
    if refusal is not None:
        return refusal
    wait = 0 if protection.rate is None else protection.rate.take(request.remote_addr or "")
    if wait:
        after = {"Retry-After": str(wait)}
        return Refusal(429, "rate", f"You ask more often than is allowed (--rate-limit); ask again in {wait} s.", after)
    refusal = guard.check_token(request.headers.get("Authorization"), reading, policy)
    if refusal is not None:
        return refusal
    if request.path in UNCOUNTED:  # its body, if it has one, is not read
        return None
    if not protection.state.ready:
        return OPENING
    length = request.content_length
    has_body = bool(length) or "Transfer-Encoding" in request.headers
    unpacks = guard.marked(view, "unpacks")
    encoding = None if unpacks else request.headers.get("Content-Encoding")
    refusal = guard.check_body(length, encoding, policy)
    if refusal is None and not reading and request.routing_exception is None:  # where nothing is, nothing is written
        refusal = guard.check_write(request.method, request.mimetype, has_body, origin, policy)
    no_json = unpacks or request.mimetype.startswith(("image/", "multipart/"))
    return refusal or _read(protection, length, has_body, no_json)


def _read(protection: Protection, length: int | None, has_body: bool, no_json: bool) -> Refusal | None:
    deadlines, gate = protection.deadlines, protection.gate
    most = (length or protection.policy.max_bytes) if has_body else 0  # chunks do not say how many come
    if gate is not None and most > gate.SMALL:
        if not gate.bodies.take(request.environ[_CLIENT], most):
            return CROWDED
        g.body = most
    late = "" if deadlines is None else f" It has {deadlines.arriving:g} s for that (--timeout)."
    incomplete = Refusal(408, "incomplete", f"The request did not come in full.{late}")
    if deadlines is not None:
        deadlines.body(request.environ["gunicorn.socket"])
    try:
        data = request.get_data()
    except MemoryError:
        raise
    except Exception:  # chunks that are none, or a connection that ended; each server has errors of its own
        return incomplete
    if length is not None and len(data) < length:
        return incomplete
    if len(data) > protection.policy.max_bytes:
        return guard.too_large(protection.policy)
    if deadlines is not None:
        deadlines.clear(request.environ["gunicorn.socket"])
    if no_json:
        return None
    if request.mimetype == "application/x-www-form-urlencoded":  # curl says that of any body, JSON as well
        return guard.check_form(data) or guard.check_json(data)
    return guard.check_json(data)


def _with_places(app: Any, gate: Gate) -> Any:
    """A place for each request, from its first line to the last byte of its answer."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        if environ.get("PATH_INFO") in UNCOUNTED:
            return app(environ, start_response)
        client = environ[_CLIENT] = client_of(environ.get("REMOTE_ADDR", ""))
        environ[_ADMITTED] = gate.places.take(client)
        if not environ[_ADMITTED]:
            return app(environ, start_response)
        leave = partial(gate.places.give, client)
        try:
            return ClosingIterator(app(environ, start_response), leave)
        except BaseException:
            leave()
            raise

    return answer


def _is_preflight() -> bool:
    wanted = "Access-Control-Request-Method" in request.headers and "Origin" in request.headers
    return request.method == "OPTIONS" and wanted


def _preflight(policy: Policy) -> tuple[Refusal | None, dict[str, str]]:
    """What a browser is told that asks whether a page may ask. It sends no token with that."""
    host, origin = request.headers.get("Host"), request.headers.get("Origin")
    refusal = guard.check_host(host, policy) or guard.check_origin(origin, host, True, policy)
    return refusal, guard.preflight_headers(request.headers.get("Access-Control-Request-Headers"))
