"""Runs the application: one process, many threads, connections kept open.

One process, because each further one would hold its own model and its own index; threads, because the work itself
(products, SQLite, JPEG) lets go of the interpreter.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from clipsieve.errors import ClipsieveError, InputError


@dataclass(frozen=True, slots=True)
class Binding:
    """Where and how to listen.

    threads     requests answered at once; each waits most of its time for the model or the index
    backlog     connections that the system keeps waiting beyond those
    keep_alive  seconds that a connection without a request is kept
    drain       seconds that requests being answered get once the service is told to end
    """

    host: str = "127.0.0.1"
    port: int = 1234
    threads: int = 32
    backlog: int = 256
    keep_alive: int = 75
    drain: int = 30

    def __post_init__(self) -> None:
        if not 0 <= self.port < 65536 or self.threads < 1:
            raise InputError(f"port {self.port}, threads {self.threads}: a port is below 65536, threads are 1 or more.")


def serve(
    make_app: Callable[[], tuple[Any, Callable[[], None]]], binding: Binding, ready: Callable[[str], None]
) -> int:
    """Answer requests until SIGTERM or SIGINT, then finish those being answered; the exit status.

    make_app  makes the application, and what is to be called after its last answer, in the process that answers. A
              ClipsieveError ends the service with its sentence
    ready     told the address once it listens; port 0 takes a free one
    """
    from gunicorn.app.base import BaseApplication
    from gunicorn.arbiter import Arbiter

    class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
        def load_config(self) -> None:
            host = f"[{binding.host}]" if ":" in binding.host else binding.host
            settings = {
                "bind": f"{host}:{binding.port}",
                "workers": 1,
                "worker_class": "gthread",
                "threads": binding.threads,
                "worker_connections": binding.threads + binding.backlog,
                "backlog": binding.backlog,
                "keepalive": binding.keep_alive,
                "graceful_timeout": binding.drain,
                "timeout": 0,  # gthread's own heartbeat; a long scan must not look like a dead worker
                "preload_app": False,
                "loglevel": "warning",
                "post_worker_init": lambda worker: ready(_address(worker.sockets[0].getsockname())),
            }
            for name, value in settings.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            try:
                app, close = make_app()
                self.cfg.set("worker_exit", lambda server, worker: close())
                return app
            except ClipsieveError as error:
                print(f"Error: {error}", file=sys.stderr, flush=True)
                sys.exit(Arbiter.APP_LOAD_ERROR)

    parent = os.getpid()
    try:
        Application().run()
    except SystemExit as end:
        if os.getpid() != parent:  # the process that answers was forked in there, and ends through here as well
            raise
        return 1 if end.code else 0
    return 0


def _address(name: tuple[Any, ...]) -> str:
    host, port = name[0], name[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
