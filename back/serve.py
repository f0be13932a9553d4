"""Runs the application: one process, many threads, connections kept open.

One process, because each further one would hold its own model and its own index; threads, because the work itself
(products, SQLite, JPEG) lets go of the interpreter.
"""

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipsieve.back.gate import Deadlines, Gate, RateLimit
from clipsieve.back.guard import Policy
from clipsieve.back.protect import Protection, State
from clipsieve.errors import ClipsieveError, InputError

log = logging.getLogger("clipsieve.back")

SPARE = 16
"""Threads beside those that have a place: they refuse what has none, and answer those who watch over the service."""

IDLE = 512
"""Connections kept open without a request."""


BODIES = 8
"""Largest bodies that are held at once."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Where and how to listen.

    threads     requests answered at once; each waits most of its time for the model or the index
    queue       requests that may wait beyond those
    timeout     seconds for a request to come in full, and again for its turn
    backlog     connections that the system keeps until they are taken
    keep_alive  seconds that a connection without a request is kept
    drain       seconds that requests being answered get once the service is told to end
    """

    host: str = "127.0.0.1"
    port: int = 1234
    threads: int = 32
    queue: int = 64
    timeout: float = 30
    backlog: int = 256
    keep_alive: int = 75
    drain: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536 or self.threads < 1 or self.queue < 0:
            raise InputError(
                f"port {self.port}, threads {self.threads}, queue {self.queue}: a port is below 65536, threads are 1 "
                "or more, and a queue has 0 places or more."
            )
        if not 0 < self.timeout < 86_400:
            raise InputError(f"timeout {self.timeout}: give a number of seconds.")


def protection_of(binding: Binding, policy: Policy, rate: RateLimit | None = None) -> Protection:
    """What protects an application that is served like this. It is not ready yet."""
    gate = Gate(binding.threads, binding.queue, binding.timeout, BODIES * policy.max_bytes)
    return Protection(policy, gate, rate, Deadlines(binding.timeout), State(ready=False))


def serve(
    make_app: Callable[[], Any],
    open_all: Callable[[], None],
    close: Callable[[], None],
    binding: Binding,
    protection: Protection,
    ready: Callable[[str], None],
) -> int:
    """Answer requests until SIGTERM or SIGINT, then finish those being answered; the exit status.

    make_app    makes the application, in the process that answers. A ClipsieveError or OSError ends the service with
                its sentence
    open_all    opens its collections, while /healthz is answered already; likewise
    close       called in that process after its last answer
    protection  the application's
    ready       told the address once everything is open; port 0 takes a free one

    InputError where it cannot listen there.
    """
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter

    from clipsieve.back.plain import MOST_HEADER, MOST_LINE
    from clipsieve.back.worker import Messages, worker_class

    _require_free(binding)
    pool = binding.threads + binding.queue + SPARE

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            host = f"[{binding.host}]" if ":" in binding.host else binding.host
            settings = {
                "bind": f"{host}:{binding.port}",
                "workers": 1,
                "worker_class": worker_class(open_all, ready, protection),
                "threads": pool,
                "worker_connections": pool + IDLE,
                "backlog": binding.backlog,
                "limit_request_line": MOST_LINE,
                "limit_request_field_size": MOST_HEADER,
                "keepalive": binding.keep_alive,
                "graceful_timeout": binding.drain,
                "timeout": 0,  # gthread's own heartbeat; a long scan must not look like a dead worker
                "preload_app": False,
                "forwarded_allow_ips": "",  # `back/proxies.py` believes proxies, and more than their scheme
                "worker_exit": lambda server, worker: close(),
                "logger_class": Messages,
                "loglevel": "info" if logging.getLogger("clipsieve").isEnabledFor(logging.DEBUG) else "warning",
                "control_socket_disable": True,  # newer ones would listen for orders in the user's folder
            }
            for name, value in settings.items():
                if name in self.cfg.settings:
                    self.cfg.set(name, value)

        def load(self) -> Any:
            try:
                return make_app()
            except (ClipsieveError, OSError) as error:
                log.critical("%s", error)
                sys.exit(Arbiter.APP_LOAD_ERROR)

    parent = os.getpid()
    try:
        Application().run()
    except SystemExit as end:
        if os.getpid() != parent:  # the process that answers was forked in there, and ends through here as well
            raise
        return 1 if end.code else 0
    return 0


def _require_free(binding: Binding) -> None:
    """gunicorn would try five times, and say each time that it does not succeed."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(binding.host, binding.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"Nothing can listen at {binding.host}, port {binding.port} ({error.strerror}); give another --port or "
            "--host."
        ) from error
