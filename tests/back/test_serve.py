"""`clipsieve back` as a process: what its options ask for, how it begins, how busy it may be, and how it ends."""

import http.client
import json
import os
import re
import signal
import socket
import threading
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest
from typer.testing import CliRunner

from clipsieve import cli
from clipsieve.back.config import entries_of
from clipsieve.back.shelf import Shelf
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.parts import Parts
from clipsieve.served_collections import open_entries
from tests.back.made import FAKE, add_items
from tests.back.service import poll, running, started
from tests.inference.pictures import jpeg, write_tree
from tests.inference.webserver import answer, serving

pytestmark = pytest.mark.slow  # each waits for processes

FRONT = "https://front.example"
QUESTION = {"text": "bus", "modality": "image", "num_images": 3, "indice_name": None}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    write_tree(root / "in", {f"{i}.jpg": jpeg(i) for i in range(4)})
    embed_collection(open_source(root / "in"), FakeEmbedder(), root / "photos.clip")
    return root / "photos.clip"


def served(*arguments, **options):
    return running(*arguments, module="tests.child", **options)


@contextmanager
def connected(service, timeout=60):
    """A socket to the service."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout) as connection:
        yield connection


def read_answer(connection):
    """Status, headers and text of the answer that comes."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    with response:
        return response.status, response.headers, response.read().decode()


def figure(service, name):
    """A figure of /metrics."""
    (found,) = re.findall(rf"^{name} (\S+)$", service.ask("/metrics")[2], re.MULTILINE)
    return float(found)


@contextmanager
def held_image():
    """A URL behind which an image comes when it is let go, and what lets it go."""
    let_go = threading.Event()

    def page(handler):
        let_go.wait(60)
        answer(200, jpeg(0))(handler)

    with serving({"/held.jpg": page}) as site, ExitStack() as last:
        last.callback(let_go.set)
        yield site, let_go.set


@contextmanager
def asking(service, url, times):
    """So many questions under way at once; the list of their answers, which fills when they come."""
    answers = []
    body = {**QUESTION, "text": None, "image_url": url}
    threads = [threading.Thread(target=lambda: answers.append(service.ask("/knn-service", body))) for _ in range(times)]
    for thread in threads:
        thread.start()
    yield answers
    for thread in threads:
        thread.join(60)


# ------------------------------------------------------------------------------------------------------------ options


@pytest.fixture(scope="module")
def guarded(folder, tmp_path_factory):
    token = tmp_path_factory.mktemp("token") / "write"
    token.write_text("a-token-to-write\n")
    options = ["--allowed-hosts", "photos.example", "--cors-origins", FRONT, "--write-token-file", token]
    env = {**os.environ, "CLIPSIEVE_READ_TOKEN": "a-token-to-read", "CLIPSIEVE_LOG_LEVEL": "debug"}
    with served(
        folder, *options, "--max-request-bytes", "64k", "--rate-limit", "1000/h", "--preload", env=env
    ) as service:
        yield service


@pytest.mark.parametrize(
    ("token", "headers", "size", "status"),
    [
        (None, {}, 0, 401),
        ("a-token-to-read", {}, 0, 200),
        ("a-token-to-write", {}, 0, 200),
        ("a-token-to-write", {"Host": "photos.example"}, 0, 200),
        ("a-token-to-write", {"Host": socket.gethostname()}, 0, 200),
        ("a-token-to-write", {"Host": "evil.example"}, 0, 421),
        ("a-token-to-write", {"Origin": FRONT}, 0, 200),
        ("a-token-to-write", {"Origin": "https://evil.example"}, 0, 403),
        ("a-token-to-write", {}, 2**16, 413),
    ],
)
def test_its_options_ask_for_what_they_say(guarded, token, headers, size, status):
    headers = headers if token is None else {"Authorization": f"Bearer {token}", **headers}
    answered, _, said = guarded.ask("/knn-service", {**QUESTION, "more": "x" * size}, headers)
    assert answered == status, said
    assert isinstance(said, list) if status == 200 else list(said) == ["message"]


def test_the_front_asks_from_elsewhere(guarded):
    """As clip-retrieval's does, but for the token that this service wants."""
    allowed = {"Origin": FRONT, "Authorization": "Bearer a-token-to-read"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    status, headers, _ = guarded.ask("//knn-service", headers={"Origin": FRONT, **asked}, method="OPTIONS")
    assert (status, headers["Access-Control-Allow-Headers"]) == (200, "authorization")
    for path, body in (("//indices-list", None), ("//knn-service", QUESTION)):
        status, headers, said = guarded.ask(path, body, {"Content-Type": "text/plain;charset=UTF-8", **allowed})
        assert (status, headers["Access-Control-Allow-Origin"], bool(said)) == (200, FRONT, True)


def test_a_body_in_chunks_is_read_and_bounded(guarded):
    headers = {"Authorization": "Bearer a-token-to-read"}
    for more, status in ((b"", 200), (b" " * 2**16, 413)):
        connection = http.client.HTTPConnection(urlsplit(guarded.url).netloc, timeout=60)
        connection.request("POST", "/knn-service", iter([json.dumps(QUESTION).encode(), more or b" "]), headers)
        assert connection.getresponse().status == status
        connection.close()
    with connected(guarded) as connection:
        head = b"POST /knn-service HTTP/1.1\r\nHost: a.b\r\nAuthorization: Bearer a-token-to-read\r\n"
        head = head.replace(b"a.b", b"localhost") + b"Transfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b'5\r\n{"a":\r\nnonsense\r\n')
        assert read_answer(connection)[0] == 408


@pytest.mark.parametrize(
    "path",
    [
        "/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "//etc/passwd",
        "/api/v1/items/../../../../etc/passwd/image", "/api/v1/items/..%2f..%2fetc%2fpasswd/image",
        "/api/v1/items/4/image", "/api/v1/items/-1/image", "/api/v1/items/9999999999999999999999/image",
        "/api/v1/items/0/image?collection=..%2f..%2fetc", "/openapi/static/..%2f..%2f__init__.py",
    ],
)  # fmt: skip
def test_no_file_is_served_but_an_items(guarded, path):
    headers = {"Authorization": "Bearer a-token-to-read"}
    assert guarded.ask("/api/v1/items/3/image", headers=headers)[1].get_content_type() == "image/jpeg"
    connection = http.client.HTTPConnection(urlsplit(guarded.url).netloc, timeout=60)
    connection.request("GET", path, headers=headers)  # as it is: urllib would mend it
    answered = connection.getresponse()
    assert (answered.status, answered.headers.get_content_type()) == (404, "application/json")
    connection.close()


def test_what_it_logs_is_json_and_no_secret(guarded):
    guarded.ask("/indices-list", headers={"X-Request-Id": "thatone", "Authorization": "Bearer a-token-to-read"})
    guarded.wait_for("thatone")
    guarded.ask("/healthz")
    guarded.wait_for('"path": "/healthz"')
    lines = [json.loads(line) for line in guarded.said]
    (line,) = [line for line in lines if line.get("request_id") == "thatone"]
    assert (line["path"], line["status"], line["client"]) == ("/indices-list", 200, "127.0.0.1")
    assert any("Booting worker" in line["message"] for line in lines)  # gunicorn's own, at this level
    assert "a-token" not in "".join(guarded.said)


@pytest.mark.parametrize(
    ("arguments", "token", "words"),
    [
        (["--cors-origins", "front.example"], None, "'front.example' is no origin"),
        (["--allowed-hosts", "http://a"], None, "'http://a' is no name"),
        (["--rate-limit", "fast"], None, "write for instance 10/s"),
        (["--queue", "-1"], None, "0 places or more"),
        (["--timeout", "0"], None, "a number of seconds"),
        (["--log-level", "loud"], None, "debug, info"),
        (["--max-request-bytes", "much"], None, "512M"),
        (["--read-token-file", "nowhere"], None, "nowhere"),
        ([], "short", "CLIPSIEVE_READ_TOKEN holds no token"),
        (["--max-results", "0"], None, "--max-results 0: give 1 or more"),
        (["--trusted-proxies", "proxy"], None, "--trusted-proxies: 'proxy' is no address"),
    ],
)
def test_options_that_cannot_be_meant(folder, arguments, token, words, monkeypatch):
    if token is not None:
        monkeypatch.setenv("CLIPSIEVE_READ_TOKEN", token)
    done = CliRunner().invoke(cli.app, ["back", str(folder), *arguments], obj=Parts(FakeEmbedder))
    assert done.exit_code in (1, 2)
    assert words in done.stderr
    assert (token or "Traceback") not in done.stderr


# ------------------------------------------------------------------------------------------------- beginning and end


def test_it_says_that_it_is_opening(folder, tmp_path):
    os.mkfifo(tmp_path / "flags.json")  # what it reads when it opens is there when the test writes it
    with started(folder, "--flags", tmp_path / "flags.json", module="tests.child") as service:
        service.url = service.wait_for(r'Listening at (http://[^\s",]+)')[1]
        assert service.ask("/healthz")[0] == 200
        assert service.ask("/readyz")[::2] == (503, {"status": "opening"})
        status, headers, said = service.ask("/knn-service", QUESTION)
        assert (status, headers["Retry-After"], "opening" in said["message"]) == (503, "1", True)
        assert service.ask("/metrics")[0] == 200
        (tmp_path / "flags.json").write_text(
            '{"classes": [{"name": "safety", "positive": ["bus"], "negative": ["cat"]}]}'
        )
        service.wait_for("Serving photos at")
        assert service.ask("/readyz")[::2] == (200, {"status": "ok"})
        assert service.ask("/knn-service", QUESTION)[0] == 200


def test_it_ends_while_it_opens(folder, tmp_path):
    os.mkfifo(tmp_path / "flags.json")
    with started(folder, "--flags", tmp_path / "flags.json", module="tests.child") as service:
        service.wait_for("Listening at")
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(60) == 0


def test_what_cannot_be_opened_ends_it(folder, tmp_path):
    (tmp_path / "flags.json").write_text('{"classes": [{"name": "noise", "positive": ["bus"]}]}')
    with started(folder, "--flags", tmp_path / "flags.json", module="tests.child") as service:
        assert service.process.wait(60) == 1
    assert "'noise' is asked for by nobody" in "".join(service.said)
    assert "Traceback" not in "".join(service.said)


def test_models_are_loaded_before_it_is_ready_if_asked_for(tmp_path):
    loaded = []

    def load(name):
        loaded.append(name)
        return FAKE

    entries = entries_of([add_items(tmp_path / "c", 3)])
    shelf = Shelf(open_entries(load, entries, None, None, None, None, {}))
    assert loaded == []
    shelf.load_models()
    assert loaded == ["fake"]
    shelf.close()
    with started(tmp_path / "c", "--preload", module="tests.child") as service:  # whose model has other dimensions
        assert service.process.wait(60) == 1
    assert "embed both with one model" in "".join(service.said)


def test_what_is_being_answered_is_finished(folder):
    with served(folder, "--threads", "1", "--allow-private-addresses") as service, held_image() as (site, let_go):
        with connected(service) as begun, asking(service, f"{site.url}/held.jpg", 2) as answers:
            body = json.dumps(QUESTION).encode()
            begun.sendall(b"POST /knn-service HTTP/1.1\r\nHost: a.localhost\r\n".replace(b"a.localhost", b"localhost"))
            begun.sendall(b"Content-Length: %d\r\n\r\n" % len(body) + body[:9])
            poll(lambda: site.asked == ["/held.jpg"] and figure(service, "clipsieve_requests_waiting") == 2)
            service.process.send_signal(signal.SIGTERM)
            poll(lambda: refuses(service))
            assert answers == []
            begun.sendall(body[9:])
            let_go()
            assert read_answer(begun)[0] == 200
        assert [status for status, _, _ in answers] == [200, 200]
        assert service.process.wait(60) == 0


def refuses(service):
    """Whether it takes no new connection."""
    try:
        with connected(service):
            return False
    except ConnectionRefusedError:
        return True


# ----------------------------------------------------------------------------------------------------------- overload


def test_what_has_no_place_is_refused_at_once(folder):
    options = ["--threads", "2", "--queue", "2", "--allow-private-addresses"]
    with served(folder, *options) as service, held_image() as (site, let_go):
        with asking(service, f"{site.url}/held.jpg", 4) as answers:
            poll(lambda: len(site.asked) == 2 and figure(service, "clipsieve_requests_waiting") == 2)
            with connected(service) as fifth:
                fifth.sendall(b"POST /knn-service HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n")
                status, headers, said = read_answer(fifth)  # without its body
            assert (status, headers["Retry-After"]) == (503, "1")
            assert "busy" in json.loads(said)["message"]
            assert service.ask("/indices-list")[0] == 503
            assert service.ask("/healthz")[0] == service.ask("/readyz")[0] == service.ask("/metrics")[0] == 200
            assert (len(site.asked), answers) == (2, [])
            let_go()
        assert [status for status, _, _ in answers] == [200] * 4
        poll(lambda: figure(service, "clipsieve_requests_waiting") == 0)  # a place is left once its answer is sent
        assert service.ask("/knn-service", QUESTION)[0] == 200


@pytest.fixture(scope="module")
def impatient(folder):
    """It gives half a second, and has a few threads only."""
    with served(folder, "--threads", "1", "--queue", "4", "--timeout", "0.5", "--allow-private-addresses") as service:
        yield service


@pytest.mark.parametrize("sent", [b"GET /indices-list HTTP/1.1\r\nHost: local", b"", b"G"])
def test_a_request_that_never_comes_in_full_is_left(impatient, sent):
    with ExitStack() as open:
        slow = [open.enter_context(connected(impatient)) for _ in range(40)]  # twice the threads there are
        for connection in slow:
            connection.sendall(sent)
        assert impatient.ask("/healthz")[0] == 200
        if sent:
            assert slow[0].recv(100) == b""


@pytest.mark.parametrize(("path", "status"), [("/metrics", 200), ("/healthz", 200), ("/nowhere", 408)])
def test_a_body_that_nobody_wants_holds_nothing(impatient, path, status):
    with connected(impatient) as slow:
        slow.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{" % path.encode())
        assert read_answer(slow)[0] == status
        assert slow.recv(1) == b""


def test_a_body_that_never_comes_in_full_is_told_so(impatient):
    with connected(impatient) as slow:
        slow.sendall(b"POST /knn-service HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        status, _, said = read_answer(slow)
        assert (status, "did not come in full" in json.loads(said)["message"]) == (408, True)
    assert impatient.ask("/knn-service", QUESTION)[0] == 200


@pytest.mark.parametrize(
    ("sent", "status", "words"),
    [
        (b"what is this\r\n\r\n", 400, "what"),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400, "HOST"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n", 414, "too large"),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200 + b"\r\n", 431, "limit"),
    ],
)
def test_what_is_no_http_is_told_so_in_our_shape(impatient, sent, status, words):
    with connected(impatient) as odd:
        odd.sendall(sent)
        answered, headers, said = read_answer(odd)
    error = json.loads(said)["error"]
    assert (answered, error["code"], words in error["message"]) == (status, status, True)
    assert (headers["X-Content-Type-Options"], headers["Connection"]) == ("nosniff", "close")
    impatient.wait_for(headers["X-Request-Id"])


def test_a_bad_question_does_not_spoil_those_it_is_asked_with(guarded):
    """Questions that meet are answered in one pass over the rows."""
    token = {"Authorization": "Bearer a-token-to-read"}
    bad = {"embedding_input": [float("nan")] * 32, "text": None}
    asked = [
        QUESTION,
        {**QUESTION, **bad},
        {**QUESTION, "text": "cat"},
        {**QUESTION, "image": "AAAA", "text": None},
    ] * 8
    alone = [guarded.ask("/knn-service", body, token)[::2] for body in asked[:4]]
    assert [status for status, _ in alone] == [200, 400, 200, 400]
    together = [None] * len(asked)

    def ask(i):
        together[i] = guarded.ask("/knn-service", asked[i], token)[::2]

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert together == alone * 8
