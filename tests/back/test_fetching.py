"""`image_url`: what a client can make the service ask for. Real servers on this machine, which is a private address."""

import base64
import struct
import threading
import zlib

import pytest
from PIL import Image

from clipsieve.back.classifier import Classifier
from clipsieve.back.pictures import small_jpeg
from clipsieve.commands_back import make_fetch
from clipsieve.errors import InputError
from clipsieve.image_memory import ImageMemory
from clipsieve.inference import fetch
from clipsieve.inference.addresses import is_public
from tests.back.made import FAKE, add_items, serve
from tests.back.service import poll
from tests.inference.pictures import encoded, jpeg
from tests.inference.webserver import answer, dripping, redirect, serving

METADATA = "http://169.254.169.254/latest/meta-data/"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return add_items(tmp_path_factory.mktemp("served") / "photos.clip", 6)


@pytest.fixture
def ask(folder):
    """A function (allow_private, timeout) that gives a function of a URL, or of other fields: status and answer."""
    shelves = []

    def asked_with(allow_private=False, timeout=10.0):
        client, shelf = serve({"photos": folder}, make_fetch(allow_private, timeout, threads=4))
        shelves.append(shelf)

        def ask(url=None, **fields):
            body = {"image_url": url, "modality": "image", "num_images": 2, "indice_name": None, **fields}
            answered = client.post("/knn-service", json=body)
            return answered.status_code, answered.get_json()

        return ask

    yield asked_with
    for shelf in shelves:
        shelf.close()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0.0.0.0", "[::1]", "[::]",
        "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "LOCALHOST", "user:word@127.0.0.1",
    ],
)  # fmt: skip
def test_this_machine_is_not_asked_by_any_name(ask, host):
    with serving({"/a": jpeg(0)}) as site:
        status, said = ask()(f"http://{host}:{site.port}/a")
        assert status == 400
        assert "public internet" in said["message"] or "is not a URL" in said["message"]
        assert "127.0.0.1," not in said["message"]  # which address a name has here is not told
        assert site.asked == []


@pytest.mark.parametrize(
    "host",
    [
        "10.0.0.1", "192.168.1.1", "172.16.0.1", "169.254.169.254", "2852039166", "0xa9fea9fe", "100.64.0.1",
        "[fd00:ec2::254]", "[fe80::1]", "[::ffff:a9fe:a9fe]", "[2002:a9fe:a9fe::]", "224.0.0.1", "255.255.255.255",
    ],
)  # fmt: skip
def test_private_networks_and_clouds_metadata_are_not_asked(ask, host):
    status, said = ask()(f"http://{host}/latest/meta-data/")
    assert (status, "not on the public internet; images" in said["message"]) == (400, True)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/a", "gopher://127.0.0.1/", "data:image/png,", "//a"]
)
def test_nothing_but_http_is_asked(ask, url):
    status, said = ask(allow_private=True)(url)
    assert (status, "only those are fetched" in said["message"]) == (400, True)


@pytest.mark.parametrize(
    ("to", "words"),
    [
        (METADATA, "not on the public internet"),
        ("http://2852039166/", "not on the public internet"),
        ("//10.0.0.1/", "not on the public internet"),
        ("http://[::1]:1/", "not on the public internet"),
        ("file:///etc/passwd", "only those are fetched"),
        ("ftp://example.org/", "only those are fetched"),
        ("/a", "more than 5 redirects"),
    ],
)
def test_every_redirect_is_judged_anew(ask, monkeypatch, to, words):
    # This machine stands in for the internet, which tests do not reach.
    monkeypatch.setattr(fetch, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    with serving({"/a": redirect("/b"), "/b": redirect(to)}) as site:
        status, said = ask()(f"http://127.0.0.1:{site.port}/a")
        assert (status, words in said["message"]) == (400, True)


def test_more_than_20_mb_are_not_read(ask):
    most = 20 * 2**20
    with serving(
        {"/a": answer(200, b"x" * (most + 1)), "/b": dripping(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * most)}
    ) as site:
        for page in ("/a", "/b"):
            status, said = ask(allow_private=True)(site.url + page)
            assert (status, said["message"]) == (400, "It has more than 20,971,520 bytes.")


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_a_slow_server_is_left(ask, head):
    with serving({"/a": dripping(head)}) as site:
        status, said = ask(allow_private=True, timeout=0.2)(f"{site.url}/a")
        assert (status, said["message"]) == (400, "It was not there in full within 0.2 s.")


def test_slow_servers_leave_threads_to_other_questions(ask):
    let_go = threading.Event()

    def slow(handler):
        let_go.wait(60)
        answer(200, jpeg(0))(handler)

    asked, statuses = ask(allow_private=True), []
    with serving({"/a": slow}) as site:
        threads = [threading.Thread(target=lambda: statuses.append(asked(f"{site.url}/a")[0])) for _ in range(2)]
        for thread in threads:
            thread.start()
        poll(lambda: len(site.asked) == 2)
        status, said = asked(f"{site.url}/a")
        assert (status, "fetches 2 images already" in said["message"]) == (503, True)
        let_go.set()
        for thread in threads:
            thread.join(60)
        assert statuses == [200, 200]
        assert asked(f"{site.url}/a")[0] == 200


def test_what_is_fetched_is_a_question_like_any_other(ask):
    with serving({"/a.jpg": jpeg(0)}) as site:
        by_url = ask(allow_private=True)(f"{site.url}/a.jpg")
    assert by_url == ask()(image=base64.b64encode(jpeg(0)).decode())
    assert (by_url[0], len(by_url[1])) == (200, 2)


# ------------------------------------------------------------------------------------------------------- image bombs


def bomb(width, height):
    """A PNG of some hundred bytes that says it has so many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("size", "words"), [((10_001, 10_000), "10001 x 10000"), ((65_000, 65_000), "far too many")])
def test_an_image_of_too_many_pixels_is_not_decoded(ask, monkeypatch, size, words):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with serving({"/a": bomb(*size)}) as site:
        answers = ask(allow_private=True)(f"{site.url}/a"), ask()(image=base64.b64encode(bomb(*size)).decode())
    for status, said in answers:
        assert (status, said["message"]) == (
            400,
            f"The image has {words} pixels, and at most 89,478,485 are decoded; send a smaller one.",
        )


def test_a_large_image_is_decoded(ask):
    assert "damaged or cut short" in ask()(image=base64.b64encode(bomb(8000, 11_000)).decode())[1]["message"]


@pytest.mark.parametrize("data", [bomb(65_000, 65_000), encoded(Image.new("RGB", (9, 9)), "EPS")])
def test_nor_for_directais_clients_nor_to_be_shown(monkeypatch, data):
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(InputError, match=r"far too many|EPS are not read"):
        Classifier(lambda: FAKE).embed_image(data)
    assert small_jpeg(data, ImageMemory()) is None


@pytest.mark.parametrize("data", [b"no image", b"", jpeg(0)[:200], encoded(Image.new("RGB", (9, 9)), "EPS")])
def test_what_is_no_image_is_said(ask, data):
    status, said = ask()(image=base64.b64encode(data).decode() or "AA==")
    assert (status, "mage" in said["message"]) == (400, True)
    assert FAKE.model.name not in said["message"]
