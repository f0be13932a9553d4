"""Who may ask a service, from what the command that starts it was told."""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from clipsieve.errors import InputError

if TYPE_CHECKING:
    from clipsieve.back.guard import Policy

PROXIES = "127.0.0.1,::1"
"""Proxies that are believed where none are named: those on this machine."""


def make_policy(
    host: str,
    allowed_hosts: str,
    cors_origins: str,
    tokens: tuple[str | None, str | None],
    max_bytes: int,
    trusted_proxies: str = PROXIES,
) -> "Policy":
    """What requests are held to: this machine's names, and what is allowed besides."""
    from clipsieve.back.guard import Policy, parse_hosts, parse_origins
    from clipsieve.back.proxies import parse_proxies

    proxies = parse_proxies(trusted_proxies)
    own = {name.lower() for name in (host, socket.gethostname()) if name}
    return Policy(parse_hosts(allowed_hosts) | own, parse_origins(cors_origins), *tokens, max_bytes, proxies)


def read_token(kind: str, file: Path | None) -> str | None:
    """The token in the file or in CLIPSIEVE_READ_TOKEN or CLIPSIEVE_WRITE_TOKEN; None without either.

    Arguments of a process are there for all users of the machine to read, so that a token is none.
    """
    name = f"CLIPSIEVE_{kind}_TOKEN"
    if file is None:
        source, token = name, os.environ.get(name)
    else:
        source, token = str(file), file.read_text().strip()
    if token is not None and not re.fullmatch(r"[\x21-\x7e]{8,}", token):
        raise InputError(f"{source} holds no token; a token has 8 characters or more, without spaces.")
    return token


def is_loopback(host: str) -> bool:
    """Whether what listens there is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
