"""What browsers get: a built page, or that there is none."""

import re

import pytest

from clipsieve.back import page as pages
from clipsieve.back.app import assemble, create_app
from clipsieve.back.guard import Policy
from clipsieve.back.meters import Meters
from clipsieve.back.page import Page, find_file, open_page
from clipsieve.back.protect import Protection, State
from clipsieve.back.shelf import Shelf
from clipsieve.errors import InputError
from tests.back.service import running

INDEX = "<!doctype html><script src='main.16f67040.js'></script>"
ALWAYS_ASKED = ("main.js", "assets/image-search.png", "vendor/custom-elements-es5-adapter.js", "logo-1024x768.png")
KEPT = ("main.16f67040.js", "main.16f67040.js.map", "assets/index-BvVx7dU2.js", "assets/index-B_Vx-dU2.css")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("built")
    for name in (*ALWAYS_ASKED, *KEPT, ".env", ".git/config", "healthz"):
        path = root / "page" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (root / "page" / "index.html").write_text(INDEX)
    (root / "page" / "config.json").write_text("the build's own")
    (root / "secret.txt").write_text("secret")
    (root / "page" / "out.txt").symlink_to(root / "secret.txt")
    (root / "page" / "in.txt").symlink_to("main.js")
    return root / "page"


def client(page, **protection):
    return create_app(Shelf(), fetch=lambda url: b"", protection=Protection(**protection), page=page).test_client()


def csp(answer):
    """The Content-Security-Policy by directive."""
    words = [part.split() for part in answer.headers["Content-Security-Policy"].split(";")]
    return {name: values for name, *values in words}


def test_a_page_and_its_files(folder):
    ask = client(Page(folder)).get
    for path in ("/", "/index.html"):
        answer = ask(path)
        assert (answer.mimetype, answer.text, answer.headers["Cache-Control"]) == ("text/html", INDEX, "no-cache")
        assert csp(answer)["script-src"] == ["'self'"]
    for name in (*ALWAYS_ASKED, *KEPT):
        answer = ask(f"/{name}")
        assert answer.text == name
        assert ("immutable" in answer.headers["Cache-Control"]) == (name in KEPT), name
        assert answer.mimetype.endswith("/javascript") == name.endswith(".js")
        again = ask(f"/{name}", headers={"If-None-Match": answer.headers["ETag"]})
        assert (again.status_code, again.text) == (304, "")
    assert ask("/in.txt").text == "main.js"
    assert ask("/config.json").get_json()["urlColumn"] == "url"
    assert ask("/healthz").get_json() == {"status": "ok"}


@pytest.mark.parametrize(
    "name",
    ["../secret.txt", "assets/../../secret.txt", "/etc/passwd", "..%2fsecret.txt", "%2e%2e/secret.txt", "out.txt", "..",
     ".env", ".git/config", "assets", "assets/", "nothing.js", "..\\secret.txt", "a\0b", "x" * 5000, "index.html/"],
)  # fmt: skip
def test_nothing_else_is_sent(folder, name):
    assert find_file(folder, name) is None
    answer = client(Page(folder)).get("/" + name.lstrip("/").replace("\0", "%00"))
    assert answer.status_code == 404
    assert answer.get_json()["error"]["message"]


def test_a_page_changes_nothing_about_other_routes(folder):
    app = client(Page(folder))
    assert app.get("/knn-service").status_code == 405
    assert app.options("/knn-service").allow.as_set() == {"options", "post"}
    assert app.post("/main.js", headers={"Origin": "http://localhost"}).status_code == 405


@pytest.mark.parametrize(("own", "images"), [(True, ["'self'", "data:", "blob:"]), (False, ["https:", "http:"])])
def test_what_a_page_may_do(folder, own, images):
    said = csp(client(Page(folder, own=own)).get("/"))
    assert set(images) <= set(said["img-src"])
    assert said["connect-src"] == said["script-src"] == ["'self'"]
    assert ("'unsafe-inline'" in said["style-src"]) == ("https:" in said["img-src"]) == (not own)
    elsewhere = csp(client(Page(folder, "https://photos.example:8/clip/", own=own)).get("/"))
    assert elsewhere["connect-src"] == ["'self'", "https://photos.example:8"]
    assert elsewhere["script-src"] == ["'self'"]


def test_config_says_whom_to_ask(folder):
    assert client(Page(folder)).get("/config.json").get_json()["defaultBackend"] == "http://localhost/"
    told = Page(folder, "http://photos.example:8", "trips", "link")
    assert client(told).get("/config.json").get_json() == {
        "defaultBackend": "http://photos.example:8", "defaultIndex": "trips", "urlColumn": "link",
    }  # fmt: skip


def test_a_page_comes_without_a_token_and_while_collections_open(folder):
    app = client(Page(folder), policy=Policy(read_token="a-token-to-read"), state=State(ready=False))
    for path in ("/", "/main.js", "/config.json"):
        assert app.get(path).status_code == 200
    assert app.get("/indices-list").status_code == 401


def test_without_a_page_it_is_said_what_can_be_asked():
    app = client(Page())
    text = app.get("/").text
    assert "There is no page in this build" in text
    (link,) = re.findall('href="(.*?)"', text)
    assert app.get(link).status_code == 200
    far = assemble([], Page(default_backend="http://photos.example/clip"), Meters(), Protection()).test_client()
    assert 'href="http://photos.example/clip/openapi"' in far.get("/").text


def test_our_own_page_is_served_once_it_is_built(folder, monkeypatch):
    monkeypatch.setattr(pages, "BUILT", folder.parent)
    assert open_page(None, None, "", "url") == Page(own=True)
    monkeypatch.setattr(pages, "BUILT", folder)
    assert open_page(None, None, "", "url") == Page(folder, own=True)
    assert open_page(folder, None, "", "url").own is False


def test_what_is_no_page_and_no_address(folder):
    with pytest.raises(InputError, match=r"no index\.html"):
        Page(folder.parent)
    for address in (
        "",
        "photos.example",
        "ftp://a",
        "http://",
        "http://a b",
        "http://a;script-src *",
        "http://[",
        "//a",
    ):
        with pytest.raises(InputError, match="no address"):
            Page(default_backend=address)


@pytest.mark.slow
def test_front_serves_the_page_alone(folder):
    options = ["--default-backend", "http://photos.example:8", "--default-index", "trips", "--page", folder]
    with running(*options, command=("front",)) as service:
        assert service.ask("/")[2] == INDEX
        assert service.ask("/config.json")[2]["defaultIndex"] == "trips"
        assert service.ask("/indices-list")[0] == 404
        service.wait_for(re.escape(f"--cors-origins {service.url}"))
        assert service.ask("/", headers={"Host": "evil.example"})[0] == 200  # the same for all who ask
        assert service.ask("/healthz")[2] == {"status": "ok"}
