"""Who asks, and over what, behind proxies: X-Forwarded-For and X-Forwarded-Proto of those that are known.

Anybody may write these headers, so that they are believed of the addresses alone that the service is told of.
"""

import functools
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clipsieve.errors import InputError, quoted

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SCHEMES = frozenset({"http", "https"})


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request comes from: the address of whoever sent it, and the scheme that was asked by."""

    address: str
    scheme: str


def parse_proxies(text: str) -> tuple[Network, ...]:
    """The networks in "127.0.0.1,10.0.0.0/8". InputError for what is no address."""
    networks = []
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            networks.append(ipaddress.ip_network(word))
        except ValueError:
            raise InputError(
                f"--trusted-proxies: {quoted(word)} is no address or network; write for example 10.1.2.3 or 10.0.0.0/8."
            ) from None
    return tuple(networks)


def caller(peer: str, scheme: str, proxies: Sequence[Network], sent_for: str = "", sent_by: str = "") -> Caller:
    """Who asks.

    peer      the address that the connection comes from, and the scheme that it is spoken over
    sent_for  X-Forwarded-For: each proxy adds whom it was asked by, on the right
    sent_by   X-Forwarded-Proto
    """
    if not _is_known(_parsed(peer), proxies):
        return Caller(peer, scheme)
    address = peer
    for word in reversed(sent_for.split(",")):
        found = _parsed(word.strip())
        if found is None:  # "unknown", or what a client wrote
            break
        address = str(found)
        if not _is_known(found, proxies):
            break
    last = sent_by.rpartition(",")[2].strip().lower()
    return Caller(address, last if last in SCHEMES else scheme)


def known_callers(app: Any, proxies: Sequence[Network]) -> Any:
    """The WSGI application, told of callers instead of proxies."""

    def answer(environ: dict[str, Any], start_response: Any) -> Any:
        found = caller(
            environ.get("REMOTE_ADDR", ""),
            environ["wsgi.url_scheme"],
            proxies,
            environ.get("HTTP_X_FORWARDED_FOR", ""),
            environ.get("HTTP_X_FORWARDED_PROTO", ""),
        )
        environ["REMOTE_ADDR"], environ["wsgi.url_scheme"] = found.address, found.scheme
        return app(environ, start_response)

    return answer


@functools.lru_cache(4096)
def _parsed(text: str) -> Address | None:
    """IPv4 as itself where a socket that listens for both tells of it in IPv6."""
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(ip, "ipv4_mapped", None) or ip


def _is_known(address: Address | None, networks: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in networks)
