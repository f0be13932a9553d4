"""Short plain requests that are answered by the thread that reads them, straight from bytes to bytes."""

import logging
import re
from collections.abc import Callable, Mapping
from http import HTTPStatus

from clipsieve.back.guard import check_json, is_logged, retry_headers, status_of
from clipsieve.back.meters import Meters
from clipsieve.back.notes import Reply
from clipsieve.back.plain import JSON, MOST_BYTES, Desk, Visit, path_of, read_plain
from clipsieve.back.protect import BUSY, Protection
from clipsieve.errors import ClipsieveError, CollectionChanged, Overloaded

DIRECT = "clipsieve.direct"
"""The application's extension of this name is its Direct."""

Answer = Callable[[bytes, str], Reply]
"""A request's body, which is for reading, and its client (see `client_of`) -> the JSON to answer with."""

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,7})[ \t]*\r\n", re.IGNORECASE)

_JSON = JSON["Content-Type"]

log = logging.getLogger("clipsieve.back")


class Direct:
    """Answers what some paths are asked. Safe to use from several threads at once.

    answers      path -> what answers it
    write_error  an error in the shape of their protocol
    """

    def __init__(
        self,
        answers: Mapping[str, Answer],
        write_error: Callable[[ClipsieveError], bytes],
        protection: Protection,
        meters: Meters,
    ) -> None:
        self._answers, self._write_error = answers, write_error
        self._gate, self._meters = protection.gate, meters
        self._desk = Desk(protection, meters)

    def missing(self, data: bytes) -> int:
        """How many bytes, at least, are still to come of a request that starts like this; 0 if it is whole, or is not
        for `answer`."""
        if path_of(data) not in self._answers:
            return 0
        head, end, body = data.partition(b"\r\n\r\n")
        if not end:
            return int(len(data) < MOST_BYTES)
        length = _LENGTH.search(head + b"\r\n")
        whole = 0 if length is None else int(length[1])
        return max(whole - len(body), 0) if whole <= MOST_BYTES else 0

    def answer(self, data: bytes, address: str, keep: bool) -> bytes | None:
        """The whole answer to a whole request; None where it goes the usual way.

        address  of the client
        keep     whether the connection is kept
        """
        plain = read_plain(data)
        answer = None if plain is None else self._answers.get(plain.path)
        if plain is None or answer is None or plain.headers.get("content-type", _JSON) != _JSON:
            return None
        if check_json(plain.body) is not None:
            return None
        visit = self._desk.let_in(plain, plain.path, address, reading=True)
        if visit is None:
            return None
        try:
            reply = self._in_turn(answer, plain.body, visit)
        except CollectionChanged:  # the usual way asks once more
            self._desk.send_on(visit)
            return None
        except ClipsieveError as error:
            return self._refuse(visit, error, keep)
        except Exception:  # the usual way comes upon it too, and logs it
            self._desk.send_on(visit)
            return None
        return self._desk.answer(visit, HTTPStatus.OK, reply.body, keep, {**JSON, **reply.headers})

    def _in_turn(self, answer: Answer, body: bytes, visit: Visit) -> Reply:
        if self._gate is None:
            return answer(body, visit.client)
        if not self._gate.begin():
            self._meters.refused(BUSY.reason)
            raise Overloaded(BUSY.sentence)
        try:
            return answer(body, visit.client)
        finally:
            self._gate.end()

    def _refuse(self, visit: Visit, error: ClipsieveError, keep: bool) -> bytes:
        status = HTTPStatus(status_of(error))
        if is_logged(error):
            log.error("POST %s: %s", visit.path, error, extra={"fields": {"request_id": visit.id}})
        return self._desk.answer(visit, status, self._write_error(error), keep, {**JSON, **retry_headers(error)})
