"""Clients that ask a service of KServe's protocol v2, and ask again as soon as they are answered.

    python -m benchmarks.closed_loop PORT PATH CLIENTS WARM SECONDS BODIES

All of them are one thread on raw sockets: it sends what was made beforehand and reads of an answer its status and
length alone, which costs 20 to 90 microseconds a request, so that the processors are left to the service. BODIES is a
file of pickled `clipsieve.load_data.Body`; what was found is printed as JSON.
"""

from __future__ import annotations

import json
import pickle
import re
import selectors
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipsieve.load_data import Body

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)


class _Client:
    """A connection and the answer that comes on it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked = 0.0
        self._head, self._left = b"", 0

    def ask(self, request: bytes) -> None:
        self.asked = time.perf_counter()
        self.socket.sendall(request)

    def answered(self) -> bool:
        """Read what is there; whether the answer is whole. RuntimeError unless it is a 200."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise RuntimeError("The service ended a connection.")
        if self._left:
            self._left -= len(data)
            return self._left == 0
        self._head += data
        head, end, body = self._head.partition(b"\r\n\r\n")
        if not end:
            return False
        found = _LENGTH.search(head)
        if not head.startswith(b"HTTP/1.1 200") or found is None:
            raise RuntimeError(f"The service answered {head[:200]!r} {body[:200]!r}")
        self._head, self._left = b"", int(found[1]) - len(body)
        return self._left == 0


def ask(port: int, path: str, clients: int, warm: float, seconds: float, bodies: Sequence[Body]) -> dict[str, Any]:
    """Requests a second, the seconds of each in order of length, and the clients' own processor time of one.

    What is answered in the first `warm` seconds, in which batches form, does not count. The rate is Little's: as many
    requests as there are clients are always on their way, and each takes so long. Answers come a batch at a time, and
    a count of them over the seconds of a window would be half a batch or more off.
    """
    requests = [_request(path, body) for body in bodies]
    selector = selectors.DefaultSelector()
    turn = 0
    for _ in range(clients):
        client = _Client(port)
        selector.register(client.socket, selectors.EVENT_READ, client)
        client.ask(requests[turn % len(requests)])
        turn += 1
    waits: list[float] = []
    begin = cpu = 0.0
    start = time.perf_counter()
    while len(waits) < clients or time.perf_counter() < begin + seconds:
        for key, _ in selector.select(60):
            client = key.data
            if client.answered():
                now = time.perf_counter()
                if now >= start + warm:
                    if not waits:
                        begin, cpu = now, time.process_time()
                    waits.append(now - client.asked)
                client.ask(requests[turn % len(requests)])
                turn += 1
    used = (time.process_time() - cpu) / len(waits)
    return {"rate": clients / statistics.mean(waits), "waits": sorted(waits), "client_ms": used * 1e3}


def _request(path: str, body: Body) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body.data)}"]
    if body.json_bytes is None:
        lines.append("Content-Type: application/json")
    else:
        lines += ["Content-Type: application/octet-stream", f"Inference-Header-Content-Length: {body.json_bytes}"]
    return "\r\n".join([*lines, "", ""]).encode() + body.data


def load(port: int, path: str, clients: int, seconds: float, bodies: Path, *, warm: float = 0.5) -> dict[str, float]:
    """The same from a process of its own: rate, client_ms, and p50 and p99 in seconds."""
    given = [port, path, clients, warm, seconds, bodies]
    words = [sys.executable, "-m", "benchmarks.closed_loop", *map(str, given)]
    found = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    waits = found.pop("waits")
    return {**found, "p50": waits[len(waits) // 2], "p99": waits[min(len(waits) - 1, int(0.99 * len(waits)))]}


if __name__ == "__main__":
    port, path, clients, warm, seconds, file = sys.argv[1:]
    made = pickle.loads(Path(file).read_bytes())
    print(json.dumps(ask(int(port), path, int(clients), float(warm), float(seconds), made)))
