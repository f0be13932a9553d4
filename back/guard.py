"""Who may ask, from where, with what: decisions as functions of strings, each a Refusal or None.

What they are to stop: a page of another site that makes the reader's browser ask this service (the checks of Origin and
of content types), the same page under a name that it made lead here (the check of Host), people without a token, and
bodies that cost more to read than to send. `back/protect.py` asks them for each request.
"""

import hmac
import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from clipsieve.back.proxies import Network
from clipsieve.errors import (
    ClipsieveError,
    Closed,
    CollectionDamaged,
    CollectionError,
    CollectionMissing,
    CollectionReadOnly,
    InputError,
    NotFound,
    Overloaded,
    TimedOut,
    TooLarge,
    quoted,
)

MAX_DEPTH = 64
"""Lists and objects of a JSON body that may lie in each other."""
MAX_CONTAINERS = 100_000
"""Lists and objects in all."""
MAX_VALUES = 2_000_000
"""Fields and entries in all: a million ids, and as many fields again."""
MAX_FIELDS = 1_000
"""Fields of a form; of one in parts, werkzeug takes as many."""

NO_MEMORY = "The service has not enough memory for this now; ask again in a moment, or for less."

REASONS = ("busy", "opening", "host", "origin", "rate", "token", "body", "incomplete")
"""What a refused request is counted under."""

API_CONTENT = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of answers; pages have `page_content`."""

CORS_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:/@,\s]+)(?::(\d{1,5}))?")
_ASKED_HEADERS = re.compile(r"[\w\-, ]*")
_JSON_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PORTS = {"http": 80, "https": 443}

_TO_MEND = (CollectionDamaged, CollectionMissing)

View = TypeVar("View", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not answered: an HTTP status, one of REASONS, and a sentence for whoever asked."""

    status: int
    reason: str
    sentence: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """What a service demands of requests.

    hosts        names that requests may be addressed to, beside IP addresses and localhost; lower case
    origins      origins whose pages may ask, beside the service's own; "*" lets all of them read
    read_token   asked for everything; None leaves reading open
    write_token  asked for what changes something, good for reading too
    max_bytes    of a request's body
    proxies      whose word on who asks is taken
    """

    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    read_token: str | None = None
    write_token: str | None = None
    max_bytes: int = 32 * 2**20
    proxies: tuple[Network, ...] = ()


def reads(view: View) -> View:
    """Marks a route that changes nothing although it is asked with POST. It takes bodies of any content type."""
    vars(view)["reads"] = True
    return view


def unpacks(view: View) -> View:
    """Marks a route that unpacks bodies and looks at their JSON itself, within the same limits."""
    vars(view)["unpacks"] = True
    return view


def for_all(view: View) -> View:
    """Marks a route that is answered whoever asks, with or without a token."""
    vars(view)["for_all"] = True
    return view


def marked(view: object, mark: str) -> bool:
    """Whether the route's function has this mark."""
    return bool(getattr(view, mark, False))


# ------------------------------------------------------------------------------------------------ where it comes from


def split_host(host: str) -> tuple[str, int | None] | None:
    """ "name:80" -> ("name", 80); names in lower case, without a last dot or brackets. None for what is no host."""
    found = _HOST.fullmatch(host)
    if found is None:
        return None
    return found[1].strip("[]").lower().removesuffix("."), None if found[2] is None else int(found[2])


def check_host(host: str | None, policy: Policy) -> Refusal | None:
    """A name that is not ours may lead here because its owner had it rebound; its pages would count as our own.

    host  the Host header; None where there is none, which no browser sends
    """
    if host is None:
        return None
    name, _ = split_host(host) or ("", None)
    if name == "localhost" or name in policy.hosts or _is_address(name):
        return None
    return Refusal(
        421,
        "host",
        f"The request is addressed to {quoted(host)}, which is not known as a name of this service (--allowed-hosts).",
    )


def check_origin(origin: str | None, host: str | None, reading: bool, policy: Policy) -> Refusal | None:
    """Pages of other sites ask only where they are listed; "*" lets all of them read, and write with a token."""
    if origin is None or is_own(origin, host) or origin.lower() in policy.origins:
        return None
    if "*" in policy.origins and (reading or policy.write_token is not None):
        return None
    return Refusal(403, "origin", f"Pages of {quoted(origin)} may not ask this service for that (--cors-origins).")


def is_own(origin: str, host: str | None) -> bool:
    """Whether an Origin header is that of the service's own pages. Behind a proxy the scheme may be another one."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return False
    found = split_host(host or "")
    return found is not None and (parts.hostname, port) == (found[0], found[1] or _PORTS[parts.scheme])


def cors_headers(origin: str | None, policy: Policy) -> dict[str, str]:
    """What lets a listed origin's page read an answer."""
    if origin is None or not ({origin.lower(), "*"} & policy.origins):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": "ETag, Retry-After, X-Request-Id"}


def preflight_headers(asked: str | None) -> dict[str, str]:
    """The answer to a browser that asks first. `asked` are the headers that the page wants to send."""
    headers = {"Access-Control-Allow-Methods": CORS_METHODS, "Access-Control-Max-Age": "600"}
    if asked is not None and _ASKED_HEADERS.fullmatch(asked):
        headers["Access-Control-Allow-Headers"] = asked
    return headers


def parse_origins(text: str) -> frozenset[str]:
    """The origins in "https://a.example,http://b.example:8000", or "*". InputError for what no browser sends."""
    origins = set()
    for word in filter(None, (word.strip().rstrip("/").lower() for word in text.split(","))):
        parts = urlsplit(word)
        if word not in ("*", "null") and (not parts.netloc or word != f"{parts.scheme}://{parts.netloc}"):
            raise InputError(
                f"--cors-origins: {quoted(word)} is no origin; write for instance https://photos.example.org."
            )
        origins.add(word)
    return frozenset(origins)


def parse_hosts(text: str) -> frozenset[str]:
    """The names in "photos.example.org,photos", ports left out. InputError for what is no name."""
    hosts = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        found = split_host(word)
        if found is None:
            raise InputError(
                f"--allowed-hosts: {quoted(word)} is no name of a host; write for instance photos.example.org."
            )
        hosts.add(found[0])
    return frozenset(hosts)


# --------------------------------------------------------------------------------------------------------- who asks


def check_token(authorization: str | None, reading: bool, policy: Policy) -> Refusal | None:
    """Reading is open without a read token; writing, without either. The write token is good for both."""
    if policy.read_token is None and (reading or policy.write_token is None):
        return None
    scheme, _, given = (authorization or "").partition(" ")
    given = given.strip() if scheme.lower() == "bearer" else ""
    may_write = _same(given, policy.write_token)
    may_read = _same(given, policy.read_token) or may_write  # both are compared whatever comes of the first
    realm = 'Bearer realm="clipsieve"'
    if not may_read:
        error = ', error="invalid_token"' if given else ""
        return Refusal(
            401,
            "token",
            "A token is needed; send it as Authorization: Bearer TOKEN.",
            {"WWW-Authenticate": realm + error},
        )
    if not (reading or may_write):
        error = ', error="insufficient_scope"'
        return Refusal(
            403,
            "token",
            "This token may read and not write; send the write token.",
            {"WWW-Authenticate": realm + error},
        )
    return None


# ----------------------------------------------------------------------------------------------------------- bodies


def check_write(method: str, mimetype: str, has_body: bool, origin: str | None, policy: Policy) -> Refusal | None:
    """A write is JSON, for which browsers ask first, or it comes from nobody's page but a known one.

    Whoever sends an Origin has been let through by `check_origin`; whoever sends none is no browser, or an old one.
    """
    if mimetype == "application/json":
        return None
    if has_body and mimetype != "multipart/form-data":
        return Refusal(415, "body", "Send this as application/json (the header Content-Type).")
    if method == "POST" and origin is None and policy.write_token is None:
        return Refusal(
            403,
            "origin",
            "A form or an empty POST is taken with an Origin header, this service's own, or with a token only.",
        )
    return None


def check_body(length: int | None, encoding: str | None, policy: Policy) -> Refusal | None:
    """What the headers say of the body. `length` is None where they do not say."""
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        return Refusal(415, "body", "Packed bodies (Content-Encoding) are not read; send it as it is.")
    return too_large(policy) if length is not None and length > policy.max_bytes else None


def too_large(policy: Policy) -> Refusal:
    """The body has more bytes than are read."""
    return Refusal(413, "body", f"The request has more than {policy.max_bytes:,} bytes (--max-request-bytes).")


def check_json(data: bytes) -> Refusal | None:
    """Whether a JSON body can be parsed at a cost that its size suggests. What is no JSON is for the parser to say."""
    containers = data.count(b"[") + data.count(b"{")
    if containers > MAX_CONTAINERS:
        return Refusal(400, "body", f"The body has more than {MAX_CONTAINERS:,} lists and objects; send it in parts.")
    if data.count(b",") > MAX_VALUES or data.count(b'"') > 4 * MAX_VALUES:
        return Refusal(400, "body", f"The body has more than {MAX_VALUES:,} fields and values; send it in parts.")
    if containers > MAX_DEPTH and _depth(data) > MAX_DEPTH:
        return Refusal(400, "body", f"The body has more than {MAX_DEPTH} lists and objects within each other.")
    return None


def check_form(data: bytes) -> Refusal | None:
    """Whether a form that is written like an address has few enough fields: each costs what it does not weigh."""
    if data.count(b"&") >= MAX_FIELDS:
        return Refusal(400, "body", f"The form has more than {MAX_FIELDS:,} fields; send JSON, or the file as a part.")
    return None


def status_of(error: ClipsieveError) -> int:
    """The HTTP status that says whose fault it is."""
    if isinstance(error, TooLarge):
        return 413
    if isinstance(error, InputError):
        return 400
    if isinstance(error, CollectionReadOnly):
        return 403
    if isinstance(error, Overloaded | TimedOut | Closed | CollectionError):
        return 503
    return 404 if isinstance(error, NotFound) else 500


def is_logged(error: ClipsieveError) -> bool:
    """Whether whoever runs the service has something to mend, so that its log says it."""
    return status_of(error) == 500 or isinstance(error, _TO_MEND)


def retry_headers(error: ClipsieveError) -> dict[str, str]:
    """When to ask again, where that may help: damaged files have to be restored first."""
    if status_of(error) != 503 or isinstance(error, _TO_MEND):
        return {}
    return {"Retry-After": str(math.ceil(getattr(error, "retry_after", 1.0)))}


def answer_headers(html: bool, policy: Policy) -> dict[str, str]:
    """What every answer says to browsers, unless its route says otherwise."""
    return {
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Content-Security-Policy": page_content(None, own=True) if html else API_CONTENT,
        # A page elsewhere shows our images by <img>, which sends no Origin to tell it by.
        "Cross-Origin-Resource-Policy": "cross-origin" if policy.origins else "same-origin",
        "Cache-Control": "no-store",
    }


def page_content(backend: str | None, own: bool) -> str:
    """Content-Security-Policy of a page.

    backend  the origin that it asks beside its own; None where it asks its own alone
    own      it is our page; another one shows images from where they lie, and has its styles within its HTML
    """
    asked = "'self'" if backend is None else f"'self' {backend}"
    images = f"{asked} data: blob:" if own else "'self' data: blob: http: https:"
    styles = "'self'" if own else "'self' 'unsafe-inline'"
    return (
        f"default-src 'none'; script-src 'self'; style-src {styles}; img-src {images}; connect-src {asked}; "
        "font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )


def _depth(data: bytes) -> int:
    depth = deepest = 0
    for bracket in _JSON_STRING.sub(b"", data).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same(given: str, token: str | None) -> bool:
    return token is not None and hmac.compare_digest(given.encode(), token.encode())
