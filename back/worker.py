"""gunicorn's threaded worker, with what it lacks: it opens the collections while it answers already that it does, ends
connections that dawdle, and refuses new ones as soon as it is told to end.
"""

import contextlib
import json
import logging
import math
import select
import socket
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from http import HTTPStatus
from typing import Any

from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException, UnsupportedTransferCoding
from gunicorn.workers.gthread import ThreadWorker

from clipsieve.back import guard
from clipsieve.back.direct import DIRECT, Direct
from clipsieve.back.express import EXPRESS, Express
from clipsieve.back.gate import Deadlines
from clipsieve.back.plain import MOST_BYTES
from clipsieve.back.protect import Protection
from clipsieve.errors import ClipsieveError

log = logging.getLogger("clipsieve.back")


SWITCH_SECONDS = 0.0005
"""How long a thread that computes in Python may keep the others waiting: SQLite lets go and asks again for each row."""


NOTE_SECONDS = 0.5
"""How often the worker says that it is alive and looks for connections whose time is over."""

IN_A_ROW, SOON_MS = 32, 2
"""Requests of a client that one thread answers as long as they follow each other so soon: to hand a connection back to
be watched, and on to a thread again, costs as much as a short answer. Then it is the others' turn."""


START = 128
"""Bytes of a request that show whether it may be an express one."""


class Messages(Logger):  # type: ignore[misc]  # gunicorn has no types
    """gunicorn's own messages, among the service's."""

    def setup(self, cfg: Any) -> None:
        """Leave the records to the root's handler."""
        super().setup(cfg)
        for own in (self.error_log, self.access_log):
            own.handlers.clear()
            own.propagate = True


def worker_class(open_all: Callable[[], None], ready: Callable[[str], None], protection: Protection) -> Any:
    """The class of the one worker.

    open_all    opens what is served; a ClipsieveError or OSError ends the service with its sentence
    ready       told the address once everything is open
    protection  the application's
    """
    state = protection.state
    deadlines = protection.deadlines or Deadlines(math.inf)

    class Worker(ThreadWorker):  # type: ignore[misc]
        failed = False
        noted = -math.inf
        woken = False

        def init_process(self) -> None:
            self.answered: deque[tuple[Any, Any, Any]] = deque()
            super().init_process()

        def run(self) -> None:
            sys.setswitchinterval(SWITCH_SECONDS)
            # Settings are asked for many times a request, and change no more: they become plain attributes.
            self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
            for listener in self.sockets:  # a connection is accepted once something comes of it, or after some seconds
                if hasattr(socket, "TCP_DEFER_ACCEPT"):
                    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
            address = _address(self.sockets[0].getsockname())
            log.info("Listening at %s, opening", address)
            threading.Thread(target=self._open, args=(address,), daemon=True).start()
            super().run()
            if self.failed:
                sys.exit(Arbiter.APP_LOAD_ERROR)

        def _open(self, address: str) -> None:
            try:
                open_all()
            except (ClipsieveError, OSError) as error:
                log.critical("%s", error)
            except Exception:
                log.critical("The collections could not be opened", exc_info=True)
            else:
                state.ready = True
                ready(address)
                return
            self.failed = True
            self.handle_exit(None, None)

        def handle(self, conn: Any) -> Any:
            for _ in range(IN_A_ROW):
                deadlines.head(conn.sock)
                try:
                    kept = self.answer_here(conn)
                    if kept is None:
                        kept = super().handle(conn)
                finally:
                    deadlines.clear(conn.sock)
                if kept is not True or not self.alive or not follows(conn) or self.is_express(conn):
                    break
            return kept

        def answer_here(self, conn: Any) -> bool | None:
            """Answer a plain request here: whether the connection is kept. None where it goes the usual way."""
            direct: Direct | None = self.wsgi.extensions.get(DIRECT)
            if direct is None or not (conn.initialized or comes(conn.sock, 0)):
                return None
            try:
                conn.sock.setblocking(True)
                conn.init()
                if conn.is_http2:
                    return None
                unreader = conn.parser.unreader
                data = unreader.take_buffered() or conn.sock.recv(MOST_BYTES)
                while direct.missing(data) and comes(conn.sock, SOON_MS):  # many send a body after its head
                    more = conn.sock.recv(MOST_BYTES)
                    if not more:
                        break
                    data += more
                deadlines.clear(conn.sock)
                keep = bool(self.alive) and len(self.keepalived_conns) < self.max_keepalived
                answer = direct.answer(data, conn.client[0] if conn.client else "", keep)
                if answer is None:
                    deadlines.head(conn.sock)
                    unreader.unread(data)
                    return None
                deadlines.answers(conn.sock, len(answer))
                conn.sock.sendall(answer)
            except OSError:
                return False
            return keep

        @property
        def express(self) -> Express | None:
            """What answers without a thread, if the application has such."""
            found: Express | None = self.wsgi.extensions.get(EXPRESS)
            return found

        def is_express(self, conn: Any) -> bool:
            """Whether the loop is to look at what comes next."""
            express = self.express
            if express is None or conn.parser.unreader.buf.getvalue():
                return False
            return express.knows(conn.sock.recv(START, socket.MSG_PEEK))

        def on_client_socket_readable(self, conn: Any, client: Any) -> None:
            if not self.begin(conn):
                super().on_client_socket_readable(conn, client)
                return
            self.poller.unregister(client)
            self.keepalived_conns.remove(conn)

        def begin(self, conn: Any) -> bool:
            """Whether what has come on a connection is on its way to the model."""
            express = self.express
            if express is None or not express.routes or conn.parser.unreader.buf.getvalue():
                return False
            try:
                data = conn.sock.recv(MOST_BYTES)
            except OSError:
                return False
            begun = express.begin(data, conn.client[0] if conn.client else "", partial(self.told, conn))
            if not begun:
                conn.parser.unreader.unread(data)
            return begun

        def told(self, conn: Any, going: Any, done: Any) -> None:  # by a thread of the batcher
            self.answered.append((conn, going, done))
            if not self.woken:
                self.woken = True
                self.method_queue.defer(self.answer)

        def answer(self) -> None:
            """Send what is there: all answers of a batch, most often."""
            self.woken = False
            express = self.express
            while express is not None and self.answered:
                conn, going, done = self.answered.popleft()
                data = express.answer(going, done, self.alive)
                try:
                    sent = conn.sock.send(data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    data, sent = b"", 0
                if sent < len(data):
                    rest = self.tpool.submit(self.send, conn, data[sent:])
                    rest.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
                    continue
                kept: Future[bool] = Future()
                kept.set_result(bool(data) and self.alive)
                self.finish_request(conn, kept)

        def send(self, conn: Any, data: bytes) -> bool:
            """The rest of an answer that was not taken at once."""
            conn.sock.setblocking(True)
            deadlines.answers(conn.sock, len(data))
            try:
                conn.sock.sendall(data)
            finally:
                deadlines.clear(conn.sock)
            return bool(self.alive)

        def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
            status = status_of(exc)
            sentence = f"This is no HTTP request that is read here: {exc}."
            id = uuid.uuid4().hex
            if status == 500:
                sentence = f"This is an error of the service; its log has it as {id}."
            fields = {"request_id": id, "status": int(status), "client": addr[0] if addr else ""}
            level = logging.ERROR if status == 500 else logging.WARNING
            log.log(level, "not understood: %s", exc, exc_info=exc if status == 500 else None, extra={"fields": fields})
            with contextlib.suppress(OSError):
                client.sendall(refusal(status, sentence, id, protection.policy))

        def notify(self) -> None:  # asked for at each event, several times a request
            now = time.monotonic()
            if now - self.noted >= NOTE_SECONDS:
                self.noted = now
                super().notify()
                deadlines.sweep()

        def handle_exit(self, sig: Any, frame: Any) -> None:
            state.draining = True
            super().handle_exit(sig, frame)

        def set_accept_enabled(self, enabled: bool) -> None:
            super().set_accept_enabled(enabled)
            if not (enabled or self.alive):
                if not self.failed:
                    log.info("Told to end: no new connections, and what is being answered is finished")
                for listener in self.sockets:  # else the system takes connections that nobody will answer
                    listener.close()

    return Worker


def status_of(error: BaseException) -> HTTPStatus:
    """What is answered to what came before, or instead of, a request."""
    if isinstance(error, LimitRequestLine):
        return HTTPStatus.REQUEST_URI_TOO_LONG
    if isinstance(error, LimitRequestHeaders):
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    if isinstance(error, UnsupportedTransferCoding):
        return HTTPStatus.NOT_IMPLEMENTED
    return HTTPStatus.BAD_REQUEST if isinstance(error, ParseException) else HTTPStatus.INTERNAL_SERVER_ERROR


def refusal(status: HTTPStatus, sentence: str, id: str, policy: guard.Policy) -> bytes:
    """A whole answer in the shape of /api/v1, for what no route was found for."""
    body = json.dumps({"error": {"code": status, "message": sentence, "request_id": id}}).encode()
    headers = {
        "Connection": "close",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "X-Request-Id": id,
        **guard.answer_headers(False, policy),
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def follows(conn: Any) -> bool:
    """Whether the client of a connection that is kept asks again at once."""
    return bool(conn.parser.unreader.buf.getvalue()) or comes(conn.sock, SOON_MS)


def comes(connection: socket.socket, wait_ms: int) -> bool:
    """Whether there is something to read, or is in so many milliseconds."""
    poll = select.poll()
    poll.register(connection, select.POLLIN)
    return bool(poll.poll(wait_ms))


def _address(name: tuple[Any, ...]) -> str:
    host, port = name[0], name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
