"""Requests for the embeddings of texts that come whole and plain: they are answered without a thread of their own.

A short request costs more in threads and layers than in work, and under load all threads wait for the interpreter,
which the model needs as well. So the server's loop looks at what has come on a connection: what is understood at a
glance goes to the batcher, and its answer is sent when the batch is done. Everything else, and whatever there may be to
object to, goes the way of all requests, which finds the words for it.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson

from clipsieve.back import guard
from clipsieve.back.kserve import LENGTH, VERSION, Encoders
from clipsieve.back.kserve_models import ServedModel, batching, check_inputs
from clipsieve.back.kserve_tensors import Asked, packing, read_request, write_answer
from clipsieve.back.meters import Meters
from clipsieve.back.plain import JSON, Desk, Plain, Visit, path_of, read_plain
from clipsieve.back.protect import Protection
from clipsieve.errors import ClipsieveError, lacks_memory

EXPRESS = "clipsieve.express"
"""The application's extension of this name is its Express."""

log = logging.getLogger("clipsieve.back")


@dataclass(frozen=True, slots=True)
class Going:
    """A request on its way to the model and back."""

    visit: Visit
    model: ServedModel
    asked: Asked


class Express:
    """Begins requests and writes their answers; `begin` and `answer` are called by one thread, the server's loop."""

    def __init__(self, encoders: Encoders, protection: Protection, meters: Meters) -> None:
        self._encoders, self._desk = encoders, Desk(protection, meters)
        self._routes: dict[str, tuple[ServedModel, str]] = {}

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
        return path_of(start) in self.routes

    def begin(self, data: bytes, address: str, told: Callable[[Going, Any], None]) -> bool:
        """Whether what has come on a connection is on its way.

        address  of the client
        told     called with it, and what `answer` needs, once it is there; by a thread that others wait for
        """
        plain = read_plain(data)
        model, route = self.routes.get(plain.path, (None, "")) if plain is not None else (None, "")
        if plain is None or model is None or packing(plain.headers.get("accept-encoding", "")) is not None:
            return False
        visit = self._desk.let_in(plain, route, address, reading=True)
        if visit is None:
            return False
        begun = False
        with contextlib.suppress(Exception):  # whatever it is, the usual way comes upon it too, and says what it is
            begun = self._submit(plain, visit, model, told)
        if not begun:
            self._desk.send_on(visit)
        return begun

    def _submit(self, plain: Plain, visit: Visit, model: ServedModel, told: Callable[[Going, Any], None]) -> bool:
        embedder = self._encoders.embedder
        asked = read_request(plain.body, plain.headers.get(LENGTH.lower()), model.inputs, model.output, model.max_rows)
        check_inputs(model, asked)
        how = batching(asked.parameters)
        if model.texts is None or how["timeout"] is not None or embedder.options.timeout is not None:
            return False
        rows = model.texts(asked)
        going = Going(visit, model, asked)
        embedder.submit(rows, lambda done: told(going, done), priority=how["priority"], name=model.name)
        return True

    def answer(self, going: Going, done: Any, keep: bool) -> bytes:
        """The whole answer.

        done  the batcher's Request, which is over
        keep  whether the connection is kept
        """
        status, headers = HTTPStatus.OK, JSON
        try:
            if done.error is not None:
                raise done.error
            start = time.monotonic_ns()
            body, length = write_answer(going.model.name, VERSION, going.asked, going.model.output, done.vectors)
            self._encoders.answers.wrote(going.model.name, time.monotonic_ns() - start)
            if length is not None:
                headers = {"Content-Type": "application/octet-stream", LENGTH: str(length)}
        except Exception as error:
            status, sentence = self._failed(going.visit, error)
            body = orjson.dumps({"error": sentence})
        return self._desk.answer(going.visit, status, body, keep, headers)

    def _failed(self, visit: Visit, error: Exception) -> tuple[HTTPStatus, str]:
        if isinstance(error, ClipsieveError):
            return HTTPStatus(guard.status_of(error)), str(error)
        if lacks_memory(error):
            log.error("POST %s: there is not enough memory", visit.path, extra={"fields": {"request_id": visit.id}})
            return HTTPStatus.SERVICE_UNAVAILABLE, guard.NO_MEMORY
        log.error("POST %s failed", visit.path, exc_info=error, extra={"fields": {"request_id": visit.id}})
        return HTTPStatus.INTERNAL_SERVER_ERROR, f"This is an error of the service; its log has it as {visit.id}."
