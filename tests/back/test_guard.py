"""Who is refused and who is not: the decisions, and a real server that keeps to them."""

import http.client
import json
import threading
from contextlib import contextmanager

import pytest
from flask import Response, request
from werkzeug.serving import make_server

from clipsieve.back import guard
from clipsieve.back.app import create_app
from clipsieve.back.gate import Gate, parse_rate
from clipsieve.back.guard import Policy, reads
from clipsieve.back.protect import Protection, State
from clipsieve.back.proxies import parse_proxies
from clipsieve.back.shelf import Shelf
from clipsieve.errors import InputError
from tests.back.service import poll

READ, WRITE = "a-token-to-read", "a-token-to-write"
FRONT = "https://front.example"
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=a"}


class Server:
    """The application on a port of this machine, with three routes more: to write, to read by POST, and to wait."""

    def __init__(self, port, written, held_one, let_go):
        self.port, self.written, self.held_one, self.let_go = port, written, held_one, let_go

    def ask(self, method="GET", path="/indices-list", body=None, **headers):
        """Status, headers, and the answer's text. `_` in a header's name is `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, names)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read().decode()
        finally:
            connection.close()


@contextmanager
def serving(policy=None, **parts):
    app = create_app(Shelf(), fetch=lambda url: b"", protection=Protection(policy or Policy(), **parts))
    written, held_one, let_go = [], threading.Event(), threading.Event()

    @app.route("/write", methods=["POST", "PUT", "DELETE"])
    def write():
        written.append(request.get_data())
        return {"written": len(written)}

    @app.post("/read")
    @reads
    def read():
        return Response(request.get_data(), mimetype="text/html")

    @app.get("/held")
    def held():
        held_one.set()
        return {"let_go": let_go.wait(60)}

    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Server(server.server_port, written, held_one, let_go)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def server():
    """One that knows a name and a front elsewhere, and asks for no token."""
    with serving(Policy(frozenset({"photos.example"}), frozenset({FRONT}), max_bytes=100_000)) as server:
        yield server


@pytest.fixture(scope="module")
def locked():
    """One that asks for tokens."""
    with serving(Policy(origins=frozenset({"*"}), read_token=READ, write_token=WRITE)) as server:
        yield server


# ---------------------------------------------------------------------------------------------------- Host and Origin


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:80",
        "192.0.2.7:1234",
        "[::1]:1234",
        "[2001:db8::1]",
        "localhost:1",
        "LOCALHOST.",
        "Photos.Example:443",
    ],
)
def test_addresses_and_known_names_are_answered(server, host):
    assert server.ask(Host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "photos.example.evil",
        "x.localhost",
        "[::1",
        "localhost:80:80",
        "user@localhost",
        "localhost/",
    ],
)
def test_a_name_that_was_made_to_lead_here_is_not(server, host):
    status, _, text = server.ask(Host=host)
    assert status == 421
    assert "--allowed-hosts" in json.loads(text)["message"]
    assert server.ask(path="/healthz", Host=host)[0] == 200  # whoever watches over it asks by any name


@pytest.mark.parametrize(
    ("origin", "host", "own"),
    [
        ("http://127.0.0.1:1234", "127.0.0.1:1234", True),
        ("http://localhost", "localhost:80", True),
        ("https://photos.example", "photos.example", True),
        ("https://photos.example", "photos.example:443", True),
        ("http://[::1]:1234", "[::1]:1234", True),
        ("http://PHOTOS.example", "photos.EXAMPLE", True),
        ("http://127.0.0.1:1235", "127.0.0.1:1234", False),
        ("http://localhost:1234", "127.0.0.1:1234", False),
        ("https://photos.example", "photos.example:80", False),
        ("http://photos.example.evil", "photos.example", False),
        ("null", "photos.example", False),
        ("file://", "photos.example", False),
        ("http://photos.example:99999", "photos.example", False),
        ("http://a", None, False),
        ("", "", False),
    ],
)
def test_whose_page_it_is(origin, host, own):
    assert guard.is_own(origin, host) is own


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://front.example.evil", "http://front.example"]
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/indices-list"), ("POST", "/knn-service"), ("POST", "/write")])
def test_pages_of_other_sites_are_refused(server, origin, method, path):
    status, headers, text = server.ask(method, path, b"{}", Origin=origin, **JSON)
    assert (status, "Access-Control-Allow-Origin" in headers) == (403, False)
    assert "--cors-origins" in text
    assert server.written == []


def test_the_services_own_page_is_not(server):
    assert server.ask(Host="Photos.Example:443", Origin="https://photos.example")[0] == 200


def test_a_listed_page_reads_what_it_is_answered(server):
    status, headers, _ = server.ask(Origin=FRONT)
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, FRONT)
    assert headers["Vary"] == "Origin"
    assert headers["Cross-Origin-Resource-Policy"] == "cross-origin"
    status, headers, _ = server.ask("POST", "/knn-service", b"", Origin=FRONT)
    assert (status, headers["Access-Control-Allow-Origin"]) == (400, FRONT)  # the sentence too
    assert "Origin" in server.ask()[1]["Vary"]  # what is cached without an Origin must not be shown to it
    for path in ("/metrics", "/metrics-summary"):
        status, headers, _ = server.ask(path=path, Origin=FRONT)
        assert (status, "Access-Control-Allow-Origin" in headers) == (200, False)


def test_a_browser_that_asks_first(server):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-own"}
    status, headers, text = server.ask("OPTIONS", "/write", Origin=FRONT, **asked)
    assert (status, text) == (200, "")
    assert headers["Access-Control-Allow-Origin"] == FRONT
    assert headers["Access-Control-Allow-Headers"] == "content-type,x-own"
    assert set(headers["Access-Control-Allow-Methods"].split(", ")) >= {"GET", "POST", "PUT", "DELETE", "PATCH"}
    status, headers, _ = server.ask("OPTIONS", "/write", Origin="https://evil.example", **asked)
    assert (status, "Access-Control-Allow-Origin" in headers) == (403, False)
    assert server.ask("OPTIONS", "/write", Origin=FRONT, Host="evil.example", **asked)[0] == 421


def test_a_star_lets_all_pages_read_and_write_with_a_token_only(locked):
    may_write = {"Authorization": f"Bearer {WRITE}", "Origin": "https://any.example", **JSON}
    assert locked.ask(**may_write)[1]["Access-Control-Allow-Origin"] == "https://any.example"
    assert locked.ask("POST", "/write", b"{}", **may_write)[0] == 200
    asked = {"Access-Control-Request-Method": "POST", "Origin": "https://any.example"}
    assert locked.ask("OPTIONS", "/write", **asked)[0] == 200  # browsers send no token with that
    with serving(Policy(origins=frozenset({"*"}))) as server:
        assert server.ask(Origin="https://any.example")[0] == 200
        assert server.ask("POST", "/write", b"{}", Origin="https://any.example", **JSON)[0] == 403


@pytest.mark.parametrize(
    ("text", "origins"),
    [
        ("", set()),
        ("*", {"*"}),
        (" https://A.example/ ,http://b:8000", {"https://a.example", "http://b:8000"}),
        ("null", {"null"}),
    ],
)
def test_origins_as_they_are_written(text, origins):
    assert guard.parse_origins(text) == origins


@pytest.mark.parametrize("text", ["front.example", "https://a/b", "https://a,b", "//a", "https://a?b"])
def test_origins_that_are_none(text):
    with pytest.raises(InputError, match="--cors-origins"):
        guard.parse_origins(text)


def test_hosts_as_they_are_written():
    assert guard.parse_hosts(" A.example:80, b ,") == {"a.example", "b"}
    with pytest.raises(InputError, match="--allowed-hosts"):
        guard.parse_hosts("https://a.example")


# ------------------------------------------------------------------------------------------------------------- tokens


@pytest.mark.parametrize(
    ("given", "read", "write"),
    [
        (None, 401, 401),
        ("Bearer nonsense", 401, 401),
        (f"Basic {READ}", 401, 401),
        (READ, 401, 401),
        (f"Bearer {READ}x", 401, 401),
        ("Bearer \xe9", 401, 401),
        (f"Bearer {READ}", 200, 403),
        (f"bearer  {WRITE} ", 200, 200),
    ],
)
def test_what_a_token_is_good_for(locked, given, read, write):
    headers = {} if given is None else {"Authorization": given}
    answers = {
        read: locked.ask("POST", "/read", b"x", **headers),
        write: locked.ask("POST", "/write", b"{}", **headers, **JSON),
    }
    for expected, (status, answer, text) in answers.items():
        assert status == expected
        assert ("WWW-Authenticate" in answer) is (status != 200)
        assert READ not in text
        assert WRITE not in text
    assert locked.ask(**headers)[0] == read
    assert locked.ask(path="/metrics", **headers)[0] == read
    assert locked.ask(path="/nowhere", **headers)[0] == (404 if read == 200 else read)  # not what there is, either


def test_whether_it_lives_is_said_to_all(locked):
    assert locked.ask(path="/healthz")[2] == '{"status":"ok"}\n'
    assert locked.ask(path="/readyz")[2] == '{"status":"ok"}\n'


@pytest.mark.parametrize(
    ("policy", "token", "read", "write"),
    [
        (Policy(), None, True, True),
        (Policy(write_token=WRITE), None, True, False),
        (Policy(write_token=WRITE), WRITE, True, True),
        (Policy(read_token=READ), READ, True, False),
        (Policy(read_token=READ), None, False, False),
    ],
)
def test_one_token_alone(policy, token, read, write):
    given = None if token is None else f"Bearer {token}"
    assert (guard.check_token(given, True, policy) is None) is read
    assert (guard.check_token(given, False, policy) is None) is write


# ------------------------------------------------------------------------------------------------------------- writes


@pytest.mark.parametrize(
    ("method", "headers", "body", "status"),
    [
        ("POST", JSON, b"{}", 200),
        ("POST", {"Content-Type": "application/json; charset=utf-8"}, b"{}", 200),
        ("DELETE", {}, None, 200),
        ("POST", {"Content-Type": "text/plain"}, b"{}", 415),
        ("POST", {"Content-Type": "application/x-www-form-urlencoded"}, b"a=b", 415),
        ("PUT", {"Content-Type": "application/octet-stream"}, b"{}", 415),
        ("POST", {}, b"{}", 415),
        ("POST", {}, None, 403),
        ("POST", FORM, b"--a--", 403),
        ("POST", {**FORM, "Origin": FRONT}, b"--a--", 200),
        ("POST", {**FORM, "Origin": "http://localhost:7", "Host": "localhost:7"}, b"--a--", 200),
    ],
)
def test_what_a_write_must_come_as(server, method, headers, body, status):
    server.written.clear()
    answer = server.ask(method, "/write", body, **headers)
    assert answer[0] == status, answer[2]
    assert len(server.written) == (status == 200)
    server.written.clear()


def test_a_form_with_a_token_needs_no_origin(locked):
    assert locked.ask("POST", "/write", b"--a--", Authorization=f"Bearer {WRITE}", **FORM)[0] == 200


def test_what_is_marked_as_reading_takes_anything(server):
    assert server.ask("POST", "/read", b"a=b", Content_Type="application/x-www-form-urlencoded")[2] == "a=b"


# ------------------------------------------------------------------------------------------------------------- limits


def test_a_body_that_is_too_large_is_not_read(server):
    assert server.ask("POST", "/read", b"x" * 100_000)[0] == 200
    status, _, text = server.ask("POST", "/read", b"x" * 100_001)
    assert (status, "more than 100,000 bytes (--max-request-bytes)" in text) == (413, True)
    status, _, text = server.ask("POST", "/knn-service", iter([b"x" * 60_000] * 2))  # in chunks, without a length
    assert (status, list(json.loads(text))) == (413, ["message"])


def test_a_packed_body_is_not_unpacked(server):
    status, _, text = server.ask("POST", "/knn-service", b"x", Content_Encoding="gzip")
    assert (status, "Content-Encoding" in text) == (415, True)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"[" * 65, "within each other"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "within each other"),
        (b"[" * 64 + b"]" * 64, None),
        (b'["' + b"[{" * 1000 + b'"]', None),
        (b'["\\\\", ' + b"[" * 65, "within each other"),
        (b'["\\"' + b"[" * 65 + b'"]', None),
        (b"[" + b"[]," * 1000 + b"[]]", None),
        (b"[" + b"[]," * guard.MAX_CONTAINERS + b"[]]", "lists and objects; send it in parts"),
        (b"[" + b"1," * (guard.MAX_VALUES + 1) + b"1]", "fields and values"),
        (b'"' * (4 * guard.MAX_VALUES + 1), "fields and values"),
        (b"", None),
        (b"\xff\x00{", None),
    ],
)
def test_json_that_costs_more_than_it_seems_to(data, words):
    refusal = guard.check_json(data)
    if words is None:
        assert refusal is None
    else:
        assert (refusal.status, words in refusal.sentence) == (400, True)


def test_deep_json_is_refused_in_the_protocols_shape(server):
    status, _, text = server.ask("POST", "/metadata", b'{"ids":' + b"[" * 90_000)
    assert (status, "within each other" in json.loads(text)["message"]) == (400, True)


def test_a_form_of_many_fields_is_not_taken_apart(server):
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    status, _, text = server.ask("POST", "/read", b"&".join([b"a=1"] * 1001), **form)
    assert (status, "1,000 fields" in text) == (400, True)
    assert server.ask("POST", "/read", b'{"a": "x&y"}', **form)[0] == 200


def test_a_picture_is_no_json(server):
    assert server.ask("POST", "/read", b"[" * 1000, Content_Type="image/jpeg")[0] == 200


def test_who_asks_too_often_is_told_when_to_ask_again():
    with serving(rate=parse_rate("2/h")) as server:
        assert [server.ask()[0] for _ in range(3)] == [200, 200, 429]
        status, headers, text = server.ask("POST", "/knn-service", b"{}")
        assert (status, 1700 < int(headers["Retry-After"]) <= 1800) == (429, True)
        assert "--rate-limit" in json.loads(text)["message"]
        assert server.ask(path="/healthz")[0] == 200


def test_who_waits_too_long_for_a_turn_is_told_to_come_back():
    with serving(gate=Gate(answering=1, waiting=2, patience=0.05)) as server:
        held = threading.Thread(target=server.ask, args=("GET", "/held"))
        held.start()
        assert server.held_one.wait(60)
        status, headers, _ = server.ask()
        assert (status, headers["Retry-After"]) == (503, "1")
        server.let_go.set()
        held.join(60)
        assert server.ask()[0] == 200


def test_a_slow_client_leaves_places_and_memory_to_others():
    gate = Gate(answering=8, waiting=0, patience=60, bodies=1_000_000)
    from_ = [{"X_Forwarded_For": f"192.0.2.{i}"} for i in range(2)]
    with serving(Policy(proxies=parse_proxies("127.0.0.1")), gate=gate) as server:
        held = [threading.Thread(target=server.ask, args=("GET", "/held"), kwargs=from_[0]) for _ in range(6)]
        for thread in held:
            thread.start()
        poll(lambda: gate.places.held == 6)
        assert [server.ask(**headers)[0] for headers in from_] == [503, 200]
        status, headers, text = server.ask("POST", "/read", b"[" + b" " * 999_999, **from_[1])
        assert (status, headers["Retry-After"], "large" in text) == (503, "1", True)
        assert server.ask("POST", "/read", b"[]" + b" " * 200_000, **from_[1])[0] == 200
        server.let_go.set()
        for thread in held:
            thread.join(60)
    assert (gate.places.held, gate.bodies.held) == (0, 0)


def test_a_service_that_ends_is_not_ready():
    with serving(state=State(draining=True)) as server:
        status, _, text = server.ask(path="/readyz")
        assert (status, json.loads(text)) == (503, {"status": "draining"})
        assert server.ask()[0] == 200


# ------------------------------------------------------------------------------------------------------------ headers


@pytest.mark.parametrize("path", ["/indices-list", "/nowhere", "/healthz", "/metrics", "/config.json"])
def test_every_answer_tells_browsers_to_be_careful(path):
    with serving() as server:
        headers = server.ask(path=path)[1]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; frame-ancestors 'none'")
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Cache-Control"] == "no-store"


def test_a_page_may_use_what_is_its_own(server):
    policy = server.ask("POST", "/read", b"<p>")[1]["Content-Security-Policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
