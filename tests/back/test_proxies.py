"""Whom a proxy asks for."""

import logging

import pytest

from clipsieve.back.app import create_app
from clipsieve.back.gate import parse_rate
from clipsieve.back.guard import Policy
from clipsieve.back.protect import Protection
from clipsieve.back.proxies import Caller, caller, parse_proxies
from clipsieve.back.shelf import Shelf
from clipsieve.errors import InputError

KNOWN = parse_proxies("127.0.0.1, ::1,10.0.0.0/8")


@pytest.mark.parametrize(
    ("peer", "sent_for", "sent_by", "address", "scheme"),
    [
        ("192.0.2.1", "203.0.113.9", "https", "192.0.2.1", "http"),  # whom nobody knows may say what it likes
        ("127.0.0.1", "", "", "127.0.0.1", "http"),
        ("127.0.0.1", "203.0.113.9", "https", "203.0.113.9", "https"),
        ("::ffff:127.0.0.1", "203.0.113.9", "HTTPS", "203.0.113.9", "https"),
        ("10.9.9.9", "1.1.1.1, 203.0.113.9, 10.1.1.1", "http, https", "203.0.113.9", "https"),
        ("10.9.9.9", "10.1.1.1, 10.1.1.2", "", "10.1.1.1", "http"),
        ("127.0.0.1", "203.0.113.9, unknown", "gopher", "127.0.0.1", "http"),
        ("127.0.0.1", "2001:db8::7", "", "2001:db8::7", "http"),
        ("", "203.0.113.9", "https", "", "http"),
    ],
)
def test_who_asks_through_a_proxy(peer, sent_for, sent_by, address, scheme):
    assert caller(peer, "http", KNOWN, sent_for, sent_by) == Caller(address, scheme)


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "10.0.0.0/99", "*"])
def test_what_is_no_proxy(text):
    with pytest.raises(InputError, match="--trusted-proxies"):
        parse_proxies(text)


@pytest.mark.parametrize(("known", "statuses", "root"), [(KNOWN, [200, 200], "https"), ((), [200, 429], "http")])
def test_a_known_proxys_clients_are_told_apart(known, statuses, root, caplog):
    protection = Protection(Policy(proxies=known), rate=parse_rate("1/h"))
    client = create_app(Shelf(), fetch=lambda url: b"", protection=protection).test_client()
    asking = [{"X-Forwarded-For": f"203.0.113.{i}", "X-Forwarded-Proto": "https"} for i in (1, 2)]
    with caplog.at_level(logging.INFO):
        assert [client.get("/indices-list", headers=headers).status_code for headers in asking] == statuses
    clients = [record.fields["client"] for record in caplog.records if record.message == "request"]
    assert clients == (["203.0.113.1", "203.0.113.2"] if known else ["127.0.0.1"] * 2)
    assert client.get("/config.json", headers=asking[0]).get_json()["defaultBackend"] == f"{root}://localhost/"
