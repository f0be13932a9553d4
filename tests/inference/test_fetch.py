"""Fetching from a real server on this machine: what is let through, what is refused and why, what is tried again."""

import socket
import ssl
import subprocess
import time

import pytest

import clipsieve
from clipsieve.errors import InputError
from clipsieve.inference.fetch import MAX_REDIRECTS, Fetcher, FetchOptions
from tests.inference.pictures import jpeg
from tests.inference.webserver import answer, dripping, hang_up, in_turn, redirect, serving

JPEG = jpeg(0)


def fetcher(resolve=None, **options):
    return Fetcher(FetchOptions(**{"timeout": 10, "backoff": 0.001, "allow_private": True} | options), resolve)


def reason(url, **options):
    with pytest.raises(InputError) as raised:
        fetcher(**options).fetch(url)
    return str(raised.value)


def test_an_image_comes_whole_and_the_server_hears_who_asks():
    with serving({"/é t.jpg": JPEG, "/%C3%A9%20t.jpg": JPEG}) as site:
        assert fetcher().fetch(f"{site.url}/é t.jpg?a=b c#part") == JPEG
        assert site.asked == ["/%C3%A9%20t.jpg?a=b%20c"]
        assert site.headers["User-Agent"] == f"clipsieve/{clipsieve.__version__}"
        assert site.headers["Host"] == f"127.0.0.1:{site.port}"


def test_the_type_that_the_server_gives_is_not_believed():
    with serving({"/a": answer(200, JPEG, Content_Type="text/html")}) as site:
        assert fetcher().fetch(f"{site.url}/a") == JPEG


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "data:image/png;base64,AA", "//x/a", "a", ""]
)
def test_only_http_is_fetched(url):
    assert "only those are fetched" in reason(url)


@pytest.mark.parametrize(
    "url", ["http://", "http:///a", "http://[::1", "http://127.0.0.1:99999/", "http://a..b/", f"http://{'a' * 70}.com/"]
)
def test_what_is_no_address_is_a_sentence(url):
    assert reason(url, timeout=1).endswith(".")


# ------------------------------------------------------------------------------------------------ private addresses


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_this_machine_is_refused_however_it_is_called(host):
    with serving({"/a": JPEG}) as site:
        said = reason(f"http://{host}:{site.port}/a", allow_private=False)
        assert "not on the public internet; --allow-private-addresses" in said
        assert site.asked == []


def test_a_redirect_to_a_private_address_is_refused(monkeypatch):
    judged = []

    def is_public(address):  # this machine stands in for the internet, which tests do not reach
        judged.append(address)
        return address == "127.0.0.1"

    def resolve(host, port):
        return {"outside.example": ["127.0.0.1"], "inside.example": ["10.0.0.1"]}[host]

    monkeypatch.setattr("clipsieve.inference.fetch.is_public", is_public)
    with serving({"/a": redirect("http://inside.example/b"), "/b": JPEG}) as site:
        said = reason(f"http://outside.example:{site.port}/a", resolve=resolve, allow_private=False)
        assert "'inside.example' is at 10.0.0.1" in said
        assert judged == ["127.0.0.1", "10.0.0.1"]
        assert site.asked == ["/a"]


def test_the_address_that_was_checked_is_the_one_connected_to():
    asked = []

    def rebinding(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with serving({"/a": JPEG}) as site:
        assert fetcher(rebinding).fetch(f"http://images.example:{site.port}/a") == JPEG
        assert site.headers["Host"] == f"images.example:{site.port}"
    assert asked == ["images.example"]  # looked up once; the socket got the number


def test_of_several_addresses_only_public_ones_are_tried_and_one_that_fails_is_passed_over():
    with serving({"/a": JPEG}) as site:
        assert fetcher(lambda host, port: ["127.0.0.9", "127.0.0.1"]).fetch(f"http://x.example:{site.port}/a") == JPEG
        said = reason(
            f"http://x.example:{site.port}/a",
            resolve=lambda host, port: ["10.1.1.1", "127.0.0.1"],
            allow_private=False,
        )
        assert "10.1.1.1" in said


def test_a_host_without_an_address():
    def resolve(host, port):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    assert reason("http://nowhere.example/", resolve=resolve) == (
        "Its host 'nowhere.example' has no address (Name or service not known)."
    )


# ------------------------------------------------------------------------------------------------------------ limits


def test_a_body_that_is_too_large_is_not_read():
    def endless(handler):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while not handler.closing.is_set():
            handler.wfile.write(b"1000\r\n" + bytes(4096) + b"\r\n")

    with serving({"/told": bytes(1001), "/endless": endless, "/fits": bytes(1000)}) as site:
        for page in ("told", "endless"):
            assert "more than 1,000 bytes; allow more with --max-bytes" in reason(f"{site.url}/{page}", max_bytes=1000)
        assert fetcher(max_bytes=1000).fetch(f"{site.url}/fits") == bytes(1000)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_a_server_that_drips_is_left_at_the_deadline(head):
    with serving({"/a": dripping(head)}) as site:
        began = time.monotonic()
        assert "not there in full within 0.3 s" in reason(f"{site.url}/a", timeout=0.3, retries=0)
        assert 0.25 < time.monotonic() - began < 5


def test_redirects_are_followed_to_a_limit():
    pages = {f"/{i}": redirect(f"/{i + 1}") for i in range(20)} | {f"/{MAX_REDIRECTS}": JPEG, "/loop": redirect("loop")}
    with serving(pages) as site:
        assert fetcher().fetch(f"{site.url}/0") == JPEG
        assert f"more than {MAX_REDIRECTS} redirects" in reason(f"{site.url}/loop")
        site.pages["/0"] = redirect("file:///etc/passwd")
        assert "only those are fetched" in reason(f"{site.url}/0")


def test_what_comes_packed_although_not_asked_for_is_refused():
    with serving({"/a": answer(200, b"\x1f\x8b", Content_Encoding="gzip")}) as site:
        assert "packed (gzip)" in reason(f"{site.url}/a")
        assert site.headers["Accept-Encoding"] == "identity"


# ----------------------------------------------------------------------------------------------------------- opt-out


@pytest.mark.parametrize(
    "page", [answer(200, JPEG, X_Robots_Tag="noai"), answer(302, X_Robots_Tag="noai", Location="/b")]
)
def test_owners_who_opt_out_are_left_alone(page):
    with serving({"/a": page, "/b": JPEG}) as site:
        assert reason(f"{site.url}/a") == "Its owner asks that it be left alone (X-Robots-Tag: noai)."
        assert site.asked == ["/a"]


def test_an_opt_out_for_somebody_else_is_not_ours():
    with serving({"/a": answer(200, JPEG, X_Robots_Tag="otherbot: noai")}) as site:
        assert fetcher().fetch(f"{site.url}/a") == JPEG


# ----------------------------------------------------------------------------------------------------------- retries


@pytest.mark.parametrize("first", [answer(500), answer(503, Retry_After="0"), answer(429), hang_up])
def test_what_can_pass_is_tried_again(first):
    with serving({"/a": in_turn(first, first, answer(200, JPEG))}) as site:
        assert fetcher().fetch(f"{site.url}/a") == JPEG
        assert len(site.asked) == 3


def test_a_body_cut_short_is_no_image():
    def cut(handler):
        handler.close_connection = True
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nhalf")

    with serving({"/a": in_turn(cut, answer(200, JPEG)), "/b": cut}) as site:
        assert fetcher().fetch(f"{site.url}/a") == JPEG
        assert "The connection failed" in reason(f"{site.url}/b")


def test_the_last_failure_says_how_often_it_was_tried():
    with serving({"/a": answer(503)}) as site:
        assert reason(f"{site.url}/a", retries=1) == (
            "The server answered 503, not with the image. It was tried 2 times."
        )
        assert len(site.asked) == 2


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 404, 410])
def test_what_will_not_pass_is_asked_once(status):
    with serving({"/a": answer(status)}) as site:
        assert f"answered {status}" in reason(f"{site.url}/a")
        assert len(site.asked) == 1


def test_a_server_that_names_a_time_is_left_alone_for_it():
    with serving({"/a": in_turn(answer(503, Retry_After="1"), answer(200, JPEG))}) as site:
        began = time.monotonic()
        assert fetcher().fetch(f"{site.url}/a") == JPEG
        assert time.monotonic() - began >= 1


def test_and_so_are_its_other_images():
    with serving({"/a": answer(503, Retry_After="1"), "/b": JPEG}) as site:
        one = fetcher(retries=0)
        with pytest.raises(InputError, match="503"):
            one.fetch(f"{site.url}/a")
        began = time.monotonic()
        assert one.fetch(f"{site.url}/b") == JPEG
        assert time.monotonic() - began > 0.5


def test_or_they_fail_meanwhile_where_somebody_waits_for_them():
    with serving({"/a": answer(429, Retry_After="50")}) as site:
        one = fetcher(retries=0, waits=False)
        for words in ("answered 429", "left alone for 50 s more"):
            with pytest.raises(InputError, match=words):
                one.fetch(f"{site.url}/a")
        assert site.asked == ["/a"]


@pytest.mark.parametrize("wait", ["3600", "Sat, 01 Jan 2125 00:00:00 GMT"])
def test_one_that_names_a_long_time_is_not_asked_again(wait):
    with serving({"/a": answer(429, Retry_After=wait)}) as site:
        assert "answered 429" in reason(f"{site.url}/a")
        assert len(site.asked) == 1


def test_one_that_names_no_time_that_can_be_read():
    with serving({"/a": in_turn(answer(429, Retry_After="soon"), answer(200, JPEG))}) as site:
        assert fetcher().fetch(f"{site.url}/a") == JPEG


def test_nobody_there_is_a_failed_connection():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "The connection failed" in reason(f"http://127.0.0.1:{unused.getsockname()[1]}/a", retries=0)


def test_once_stopped_nothing_more_is_asked():
    with serving({"/a": JPEG}) as site:
        one = fetcher()
        one.stop()
        with pytest.raises(InputError, match="run it again"):
            one.fetch(f"{site.url}/a")
        assert site.asked == []


# --------------------------------------------------------------------------------------------------------------- TLS


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    try:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject, *files],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("there is no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with serving({"/a": JPEG}, context) as site:
        url = f"https://localhost:{site.port}/a"
        assert "certificate is not trusted (self-signed certificate)" in reason(url)
        assert site.asked == []


@pytest.mark.parametrize(
    "options", [{"connections": 0}, {"max_bytes": 0}, {"retries": -1}, {"timeout": 0}, {"timeout": float("nan")}]
)
def test_figures_that_cannot_be_meant(options):
    with pytest.raises(InputError, match=next(iter(options))):
        FetchOptions(**options)
