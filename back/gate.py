"""How much at once: places for requests, a rate for each client, and a time by which a request must have come.

Requests are counted here and not by the server, whose pool takes whatever connects and keeps it waiting in silence. The
pool has a thread for each place that `Gate` gives and some more, which say so to those that get none.
"""

import contextlib
import functools
import ipaddress
import math
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from clipsieve.errors import InputError, Overloaded, quoted

T = TypeVar("T")

OWN = ""
"""The client that this machine itself is."""


class Shares:
    """So much of something for all clients, the last quarter of it for those that hold less than a quarter.

    A client that is slow, or asks for much, thus leaves something to the others; one that is alone has three quarters.
    This machine's own programs, of which there may be many, may have all. Clients are told apart by `client_of`. Safe
    to use from several threads at once.
    """

    def __init__(self, most: int) -> None:
        self.most, self._kept = most, most // 4
        self._of: dict[str, int] = {}
        self._held = 0
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """What all clients hold together."""
        with self._lock:
            return self._held

    def take(self, client: str, amount: int = 1) -> bool:
        """Take so much, or learn that it cannot be had. Who took it gives it back with `give`."""
        with self._lock:
            holds = self._of.get(client, 0) + amount
            kept = 0 if client == OWN or holds <= self._kept else self._kept
            if self._held + amount > self.most - kept:
                return False
            self._held += amount
            self._of[client] = holds
            return True

    def give(self, client: str, amount: int = 1) -> None:
        """Give back what was taken."""
        with self._lock:
            self._held -= amount
            self._of[client] -= amount
            if not self._of[client]:
                del self._of[client]


class Gate:
    """Places for requests that are answered and for those that wait. Safe to use from several threads at once.

    answering  how many are answered at once
    waiting    how many may wait for that, or be on their way
    patience   seconds that one waits at most
    bodies     bytes of large bodies that may be held for all of them at once
    """

    SMALL = 2**16
    """Bytes of a body that are not counted."""

    def __init__(self, answering: int, waiting: int, patience: float, bodies: int = 2**28) -> None:
        self.places = Shares(answering + waiting)
        self.bodies = Shares(bodies)
        self.most_waiting = waiting
        self._patience = patience
        self._turns = threading.BoundedSemaphore(answering)
        self._lock = threading.Lock()
        self._answered = 0

    @property
    def waiting(self) -> int:
        """How many have a place and are not being answered."""
        with self._lock:
            return self.places.held - self._answered

    def begin(self) -> bool:
        """Wait for one's turn to be answered; False where it did not come. Who had it calls `end`."""
        if not self._turns.acquire(timeout=self._patience):
            return False
        with self._lock:
            self._answered += 1
        return True

    def end(self) -> None:
        """Let the next one have its turn."""
        with self._lock:
            self._answered -= 1
        self._turns.release()


class RateLimit:
    """So many requests in so many seconds for each client, all of them at once if it likes. Safe to use from threads.

    clock  seconds, rising
    """

    REMEMBERED = 10_000

    def __init__(self, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._per_second = count / seconds
        self._clock = clock
        self._left: dict[str, tuple[float, float]] = {}  # client -> requests it had left, and when
        self._lock = threading.Lock()

    def take(self, address: str) -> int:
        """0 if the client may ask now, else the seconds after which it may. An IPv6 client is its network of 2^64."""
        client = client_of(address)
        now = self._clock()
        with self._lock:
            had, at = self._left.pop(client, (float(self._count), now))
            left = min(self._count, had + (now - at) * self._per_second)
            allowed = left >= 1
            self._left[client] = (left - allowed, now)
            while len(self._left) > self.REMEMBERED:  # those that asked longest ago, who most likely have all again
                del self._left[next(iter(self._left))]
        return 0 if allowed else math.ceil((1 - left) / self._per_second)


class Deadlines:
    """Ends connections on which nothing comes, or goes, in time. Safe to use from several threads at once.

    arriving  seconds for a request's body to come
    clock     seconds, rising
    """

    HEAD = 10.0
    """Seconds for a request's head, which has no place yet that could be counted, where `arriving` is not less."""
    LEAVING = 1.0
    """Seconds for what a client still sends although nobody wants it."""
    SENDING = 30.0
    SLOWEST = 2**17
    """Seconds for an answer to be taken, and besides one for each so many bytes: a megabit a second."""

    def __init__(self, arriving: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.arriving = arriving
        self._clock = clock
        self._due: dict[socket.socket, tuple[float, int]] = {}
        self._lock = threading.Lock()

    def head(self, connection: socket.socket) -> None:
        """A request's head is being read from it."""
        self._set(connection, min(self.HEAD, self.arriving), socket.SHUT_RD)

    def body(self, connection: socket.socket) -> None:
        """Its body is being read."""
        self._set(connection, self.arriving, socket.SHUT_RD)

    def leaves(self, connection: socket.socket) -> None:
        """It is answered without its body. What comes of that is read for a moment, so that the answer is read too."""
        self._set(connection, self.LEAVING, socket.SHUT_RD)

    def answers(self, connection: socket.socket, size: int) -> None:
        """An answer of so many bytes is being sent."""
        self._set(connection, self.SENDING + size / self.SLOWEST, socket.SHUT_RDWR)

    def clear(self, connection: socket.socket) -> None:
        """Nothing is due: it is being answered, or left to itself."""
        with self._lock:
            self._due.pop(connection, None)

    def sweep(self) -> None:
        """End those that are late. Who reads from one of them finds its end."""
        now = self._clock()
        with self._lock:
            late = [(connection, how) for connection, (due, how) in self._due.items() if due <= now]
            for connection, how in late:
                del self._due[connection]
                with contextlib.suppress(OSError):  # closed already
                    connection.shutdown(how)

    def _set(self, connection: socket.socket, seconds: float, how: int) -> None:
        with self._lock:
            self._due[connection] = (self._clock() + seconds, how)


def at_most(count: int, fetch: Callable[[str], T]) -> Callable[[str], T]:
    """The fetching of what a URL names, so many at once; Overloaded for one more."""
    places = threading.BoundedSemaphore(count)

    def fetched(url: str) -> T:
        if not places.acquire(blocking=False):
            raise Overloaded(f"The service fetches {count} images already; ask again in a moment.")
        try:
            return fetch(url)
        finally:
            places.release()

    return fetched


def parse_rate(text: str) -> RateLimit:
    """A limit from "10/s", "600/m" or "1000/h". InputError for anything else."""
    found = re.fullmatch(r"([1-9]\d{0,8})\s*/\s*([smh])", text.strip())
    if found is None:
        raise InputError(f"--rate-limit {quoted(text)} is not understood; write for instance 10/s, 600/m or 1000/h.")
    return RateLimit(int(found[1]), {"s": 1, "m": 60, "h": 3600}[found[2]])


@functools.lru_cache(4096)
def client_of(address: str) -> str:
    """What tells clients apart: an address, of IPv6 its network of 2^64, and OWN for all of this machine's."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    if mapped.is_loopback:
        return OWN
    return str(mapped if mapped.version == 4 else ipaddress.ip_network((mapped, 64), strict=False))
