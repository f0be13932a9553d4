"""One image from one URL, within limits: of time, of size, of redirects, and of where it may lie.

The transport is httpcore, because it lets us supply how a connection is made. That is what binds the check of an
address to the connection: the host is looked up once, its addresses are checked, and the socket goes to the very number
that was checked. It also lets every wait, for a connection as for each byte, end at one deadline.
See docs/decisions/url-lists.md.
"""

import email.utils
import math
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpcore2
import httpx2

import clipsieve
from clipsieve.errors import InputError, quoted
from clipsieve.inference.addresses import is_public
from clipsieve.inference.optout import AGENT, opt_out
from clipsieve.inference.paths import readable

MAX_REDIRECTS = 5
MAX_WAIT = 60.0
"""Seconds that a server may ask to be left alone for. Where it asks for more, the image is given up."""

_PASSING = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class FetchOptions:
    """How images are fetched.

    connections    how many at a time
    timeout        seconds for one attempt in all, from looking up the host to the last byte
    retries        further attempts after a failure that may pass: no connection, 429, 5xx
    backoff        seconds before the first of them, more or less at random; twice as long before each further one
    max_bytes      what a larger image has is not read
    allow_private  fetch from addresses that are not on the public internet too
    waits          a server that asks to be left alone for a while is waited for; else its images fail meanwhile
    options_given  whoever reads the errors gave these options, so that they name the one that helps; else they do not,
                   nor which address a name has here

    InputError for figures that cannot be meant.
    """

    connections: int = 32
    timeout: float = 20.0
    retries: int = 2
    backoff: float = 0.5
    max_bytes: int = 20 * 2**20
    allow_private: bool = False
    waits: bool = True
    options_given: bool = True

    @property
    def limits(self) -> str:
        """What decides over what is refused: with others another try is worth it."""
        return f"{'any' if self.allow_private else 'public'} addresses, {self.max_bytes} bytes"

    def __post_init__(self) -> None:
        if self.connections < 1 or self.max_bytes < 1 or self.retries < 0:
            raise InputError(
                f"connections {self.connections}, max_bytes {self.max_bytes}, retries {self.retries}: give at least "
                "one connection and one byte, and no fewer than 0 retries."
            )
        if not (0 < self.timeout < threading.TIMEOUT_MAX and 0 <= self.backoff < threading.TIMEOUT_MAX):
            raise InputError(f"timeout {self.timeout}, backoff {self.backoff}: give a number of seconds.")


class NotFetched(InputError):
    """There is no image behind a URL.

    passing  whether it may be there later
    """

    def __init__(self, reason: str, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing


class Fetcher:
    """Fetches images. Safe to use from many threads at once; it keeps no cookies, and no connection between images.

    resolve  host, port -> its numeric addresses; OSError where it has none
    opt_out  heed owners who ask that collections leave their images alone; not meant for one image that somebody looks
             at now
    """

    def __init__(
        self,
        options: FetchOptions,
        resolve: Callable[[str, int], Sequence[str]] | None = None,
        *,
        opt_out: bool = True,
    ) -> None:
        self._options = options
        self._opt_out = opt_out
        self._resolve = resolve or _resolve
        self._tls = httpcore2.default_ssl_context()
        self._stopped = threading.Event()
        self._back_at: dict[str, float] = {}  # host -> when, by the monotonic clock, it may be asked again

    def stop(self) -> None:
        """Begin no further attempt; those that wait for their turn give up."""
        self._stopped.set()

    def fetch(self, url: str) -> bytes:
        """The body behind `url`. Whether it is an image is for the decoder to say: types that servers give are not
        to be relied on.

        InputError says in a sentence why there is none; it is a NotFetched unless the run was stopped.
        """
        for attempt in range(self._options.retries + 1):
            if self._stopped.is_set():
                raise InputError("The run was stopped before the image was fetched; run it again.")
            try:
                return self._attempt(url)
            except _Failed as failed:
                wait = self._options.backoff * 2**attempt * random.uniform(0.5, 1.5)
                last = attempt == self._options.retries or (failed.wait or 0) > MAX_WAIT
                if last or not failed.passing:
                    tried = f" It was tried {attempt + 1} times." if attempt else ""
                    raise NotFetched(f"{failed}{tried}", failed.passing) from failed
                self._stopped.wait(max(wait, failed.wait) if failed.wait else wait)
        raise AssertionError("unreachable")

    def _attempt(self, url: str) -> bytes:
        target = _parsed(url)
        wait = max(0.0, self._back_at.get(target.host, 0.0) - time.monotonic())
        if wait and not self._options.waits:
            raise _Failed(f"The server asks to be left alone for {math.ceil(wait)} s more; ask again then.")
        self._stopped.wait(wait)
        network = _Network(self._resolve, self._options)
        try:
            with httpcore2.ConnectionPool(self._tls, max_connections=1, network_backend=network) as pool:
                for _ in range(MAX_REDIRECTS + 1):
                    found = self._ask(pool, target)
                    if isinstance(found, bytes):
                        return found
                    target = found
                raise _Failed(f"It leads through more than {MAX_REDIRECTS} redirects; give the image's own address.")
        except httpcore2.TimeoutException:
            advice = "; allow more with --timeout" if self._options.options_given else ""
            raise _Failed(
                f"It was not there in full within {self._options.timeout:g} s{advice}.", passing=True
            ) from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError) as error:
            for cause in (*error.args, error.__cause__):
                if isinstance(cause, ssl.SSLCertVerificationError):
                    raise _Failed(f"The server's certificate is not trusted ({cause.verify_message}).") from error
            if isinstance(error, httpcore2.LocalProtocolError):
                raise _Failed(f"The address cannot be asked for ({_said(error)}); mend it.") from error
            raise _Failed(f"The connection failed ({_said(error)}); check the address.", passing=True) from error

    def _ask(self, pool: httpcore2.ConnectionPool, target: httpx2.URL) -> bytes | httpx2.URL:
        """The body, or where it is to be had instead."""
        request = httpcore2.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path
        )
        headers = [
            (b"Host", target.netloc),
            (b"User-Agent", f"{AGENT}/{clipsieve.__version__}".encode()),
            (b"Accept", b"image/*,*/*;q=0.8"),
            (b"Accept-Encoding", b"identity"),
        ]
        with pool.stream("GET", request, headers=headers) as response:

            def all_of(name: bytes) -> list[str]:
                return [v.decode("utf-8", "replace") for n, v in response.headers if n.lower() == name]

            refused = opt_out(all_of(b"x-robots-tag")) if self._opt_out else None
            if refused is not None:
                raise _Failed(f"Its owner asks that it be left alone (X-Robots-Tag: {refused}).")
            location = all_of(b"location")
            if response.status in _REDIRECTS and location:
                return _parsed(location[0], target)
            if response.status not in (200, 203):
                wait = next((_seconds(v) for v in all_of(b"retry-after")), None)
                passing = response.status in _PASSING or response.status >= 500
                if passing and wait is not None and wait <= MAX_WAIT:
                    self._leave_alone(target.host, wait)  # its other images wait as well
                raise _Failed(f"The server answered {response.status}, not with the image.", passing, wait)
            packed = [v for v in all_of(b"content-encoding") if v.strip().lower() not in ("", "identity")]
            if packed:
                raise _Failed(f"The server sent it packed ({readable(packed[0])}), which was not asked for.")
            return self._body(response, all_of(b"content-length"))

    def _leave_alone(self, host: str, seconds: float) -> None:
        now = time.monotonic()
        waiting = {other: until for other, until in self._back_at.copy().items() if until > now}
        self._back_at = {**waiting, host: now + seconds}

    def _body(self, response: httpcore2.Response, lengths: Iterable[str]) -> bytes:
        most = self._options.max_bytes
        advice = "; allow more with --max-bytes" if self._options.options_given else ""
        too_large = _Failed(f"It has more than {most:,} bytes{advice}.")
        if any(length.isdecimal() and int(length) > most for length in lengths):
            raise too_large
        body = bytearray()
        for chunk in response.iter_stream():
            body += chunk
            if len(body) > most:
                raise too_large
        return bytes(body)


class _Failed(Exception):
    """An attempt brought nothing, and why, in a sentence.

    passing  whether another attempt may fare better
    wait     seconds that the server asks to be left alone for
    """

    def __init__(self, reason: str, passing: bool = False, wait: float | None = None) -> None:
        super().__init__(reason)
        self.passing = passing
        self.wait = wait


class _Network(httpcore2.NetworkBackend):
    """Connections to checked addresses, whose every wait ends at one deadline."""

    def __init__(self, resolve: Callable[[str, int], Sequence[str]], options: FetchOptions) -> None:
        self._resolve = resolve
        self._options = options
        self._deadline = time.monotonic() + options.timeout
        self._sockets = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        addresses = self._addresses(host, port)
        for number, address in enumerate(addresses, start=1):
            share = self.left(httpcore2.ConnectTimeout) / (len(addresses) - number + 1)
            try:
                stream = self._sockets.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                if number == len(addresses):
                    raise
            else:
                return _Stream(stream, self)
        raise AssertionError("unreachable")

    def left(self, too_late: type[Exception]) -> float:
        """Seconds until the deadline, more than 0."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise too_late
        return left

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = list(dict.fromkeys(self._resolve(host, port)))
        except socket.gaierror as error:
            passing = error.errno == socket.EAI_AGAIN
            raise _Failed(f"Its host {quoted(readable(host))} has no address ({error.strerror}).", passing) from error
        except (OSError, UnicodeError) as error:
            raise _Failed(f"Its host {quoted(readable(host))} cannot be looked up ({error}).") from error
        allowed = [address for address in found if self._options.allow_private or is_public(address)]
        if not allowed and not self._options.options_given:
            raise _Failed(
                f"Its host {quoted(readable(host))} is not on the public internet; images are fetched from there."
            )
        if not allowed:
            where = f"at {found[0]}, which is not on the public internet" if found else "nowhere"
            raise _Failed(
                f"Its host {quoted(readable(host))} is {where}; --allow-private-addresses fetches "
                "from there if you mean it."
            )
        return allowed


class _Stream(httpcore2.NetworkStream):
    """A connection that knows the deadline: a server that sends a byte now and then does not hold us for ever."""

    def __init__(self, inner: httpcore2.NetworkStream, network: _Network) -> None:
        self._inner = inner
        self._network = network

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._network.left(httpcore2.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._network.left(httpcore2.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        left = self._network.left(httpcore2.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._network)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _resolve(host: str, port: int) -> list[str]:
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _parsed(url: str, base: httpx2.URL | None = None) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url) if base is None else base.join(url)
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise _Failed(f"The address {quoted(readable(url))} is not a URL ({_said(error)}); mend it.") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise _Failed(f"The address {quoted(readable(url))} is none of http:// or https://; only those are fetched.")
    if not 0 < (parsed.port or 80) < 2**16:
        raise _Failed(f"The address {quoted(readable(url))} has no port that exists; mend it.")
    return parsed


def _seconds(retry_after: str) -> float | None:
    """What a Retry-After header asks for: seconds, or a date; None if it cannot be read."""
    text = retry_after.strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None


def _said(error: BaseException) -> str:
    return readable(str(error)).strip() or type(error).__name__
