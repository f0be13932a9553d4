"""`clipsieve.Client` against a service: what it returns is what the library returns."""

import contextlib
import inspect
import threading

import numpy as np
import pytest
from werkzeug.serving import make_server

from clipsieve import Client, ClipsieveError, Example, InputError, MetaClass, Modality, NotFound
from clipsieve.back.app import create_app
from clipsieve.back.guard import Policy
from clipsieve.back.protect import Protection, State
from clipsieve.back.shelf import Served, Shelf
from clipsieve.errors import Overloaded, ServiceUnavailable, TimedOut
from clipsieve.index.collection import open_collection
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.types import ClassSet
from tests.back.made import FAKE, add_items
from tests.inference.pictures import jpeg, write_tree
from tests.inference.webserver import answer, serving

COUNT = 60
BUS = MetaClass("bus", ["bus"], ["truck"])
FAR = "https://example.org/5.jpg"


@contextlib.contextmanager
def served(folder, embedder, **protection):
    """The address of a service in this process, and the collection that it serves."""
    with open_collection(folder, embedder=embedder) as collection:
        shelf = Shelf([Served("photos", collection)])
        app = create_app(shelf, fetch={FAR: jpeg(5)}.__getitem__, protection=Protection(**protection))
        server = make_server("127.0.0.1", 0, app, threaded=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.port}", collection
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("client") / "photos.clip"
    with served(add_items(folder, COUNT, width=list(range(COUNT))), FAKE) as service:
        yield service


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    write_tree(root / "in", {f"{i:02}.jpg": jpeg(i) for i in range(24)})
    embed_collection(open_source(root / "in"), FakeEmbedder(), root / "c")
    with served(root / "c", FakeEmbedder()) as service:
        yield service


@pytest.fixture
def client(service):
    with Client(service[0]) as client:
        yield client


@pytest.mark.parametrize("path", ["", "/", "/knn-service", "/knn-service/"])
def test_query_is_the_librarys_nearest(service, path):
    url, photos = service
    ids, products = photos.nearest(FAKE.embed_texts(["bus"])[0], 5, dedup=True)
    with Client(url + path, "photos", num_images=5) as client:
        found = client.query(text="bus")
        assert client.query(embedding_input=FAKE.embed_texts(["bus"])[0]) == found
    assert [hit["id"] for hit in found] == ids.tolist()
    assert [hit["similarity"] for hit in found] == pytest.approx(products.tolist())
    assert set(found[0]) == {"id", "similarity", "caption", "image_path"}


def test_query_takes_an_image_by_path_and_by_url(pictures, tmp_path):
    (tmp_path / "5.jpg").write_bytes(jpeg(5))
    with Client(pictures[0], num_images=3) as client:
        found = client.query(image=tmp_path / "5.jpg")
        assert client.query(image=str(tmp_path / "5.jpg")) == client.query(image=FAR) == found
    assert found[0]["id"] == 5
    assert found[0]["similarity"] == pytest.approx(1, abs=1e-3)


def test_query_compares_with_captions_too(service):
    with Client(service[0], "photos", modality=Modality.TEXT, num_images=1) as client:
        assert client.query(text="a cat")[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert Client(service[0], modality="text").modality == "text"


@pytest.mark.parametrize("question", [{}, {"text": ""}, {"text": "a", "image": "b"}, {"image": "nowhere.jpg"}])
def test_a_query_that_asks_nothing_is_refused_here(question):
    with Client("http://127.0.0.1:1") as client, pytest.raises(InputError):
        client.query(**question)


def test_the_constructor_is_clip_retrievals():
    """As the package's source has it; the slow test compares with the package."""
    given = {n: p.default for n, p in inspect.signature(Client).parameters.items() if p.kind is not p.KEYWORD_ONLY}
    assert list(given.items())[2:] == [
        ("use_mclip", False), ("aesthetic_score", 9), ("aesthetic_weight", 0.5), ("modality", Modality.IMAGE),
        ("num_images", 40), ("deduplicate", True), ("use_safety_model", True), ("use_violence_detector", True),
    ]  # fmt: skip
    assert list(given)[:2] == ["url", "indice_name"]


@pytest.mark.parametrize("view", ["matched", "rejected", "below"])
@pytest.mark.parametrize("order", ["score", "margin", "new"])
def test_search_is_the_librarys(client, service, view, order):
    asked = {"threshold": 0.3, "view": view, "order": order, "where": "width > 3"}
    ours, theirs = client.search(BUS, 7, **asked), service[1].search(BUS, 7, **asked)
    assert (ours.hits, ours.claim, ours.recall) == (theirs.hits, theirs.claim, theirs.recall)
    assert list(client.search_all(BUS, page=7, **asked)) == list(service[1].search(BUS, COUNT, **asked).hits)


def test_more_hits_than_a_page_holds(client, service, monkeypatch):
    monkeypatch.setattr("clipsieve.client.PAGE", 4)
    assert client.search(BUS, 10).hits == service[1].search(BUS, 10).hits
    assert client.search(BUS, 0).hits == ()


def test_pages_are_asked_for_as_they_are_wanted(service, monkeypatch):
    asked = []
    with Client(service[0]) as client:
        ask = client._json

        def counted(*args, **request):
            asked.append(args)
            return ask(*args, **request)

        monkeypatch.setattr(client, "_json", counted)
        hits = client.search_all(BUS, page=5)
        assert asked == []
        for expected in (1, 1, 1, 1, 1, 2):
            next(hits)
            assert len(asked) == expected


def test_questions_of_texts_and_of_sets(client, service):
    classes = ClassSet([BUS, MetaClass("cat", ["cat"])], calibration="background")
    assert client.search((["bus"], ["truck"]), 5).hits == client.search(BUS, 5).hits
    found = client.search(classes, 5, name="cat").hits
    assert found == service[1].search(classes, 5, name="cat").hits
    assert found[0].negative is None
    for question, name, error in [
        (classes, None, InputError),
        (classes, "dog", NotFound),
        ("bus", None, InputError),
        (([], ["truck"]), None, InputError),
    ]:
        with pytest.raises(error):
            client.search(question, name=name)
    with pytest.raises(InputError, match="give a number"):
        client.search(BUS, -1)


def test_images_are_examples(pictures):
    url, photos = pictures
    with Client(url) as client:
        uploaded = Example(image=client.add_example_image(jpeg(5)))
        for example in (uploaded, Example(image=5)):
            question = ClassSet([MetaClass("it", [example], [Example(image=2)])], "background")
            hits = client.search(question, 3).hits
            assert hits == photos.search(question, 3).hits
            assert (hits[0].id, hits[0].positive) == (5, example)


def test_explain_is_the_librarys(client, service):
    several = MetaClass("q", ["bus", "cat"], ["truck"], 0.1)
    assert client.explain(several, 4) == service[1].explain(several, 4)
    assert client.explain((["bus"], []), 4)[2] == []
    with pytest.raises(NotFound):
        client.explain(several, 9999)


def test_items_images_and_info(client, pictures, service):
    assert client.items([3, 1]) == [dict(row) for row in service[1].items([3, 1])]
    assert client.info()["collections"][0]["count"] == COUNT
    with Client(pictures[0], "photos") as other:
        assert other.image(5) == jpeg(5)
        assert other.items(np.array([5]))[0]["key"] == "05.jpg"
        with pytest.raises(InputError, match="size"):
            other.image(5, size=77)


@pytest.mark.parametrize("ask", [lambda c: c.query(text="bus"), lambda c: c.search(BUS), lambda c: c.items([0])])
def test_the_services_sentences_come_as_errors(service, ask):
    with Client(service[0], "nobody") as client, pytest.raises(NotFound, match="there is photos"):
        ask(client)


def test_what_it_refuses_is_an_input_error(client):
    for ask in (lambda: client.query(embedding_input=[1.0, 2.0]), lambda: client.search(BUS, where="nothing = 1")):
        with pytest.raises(InputError, match=r"\w+ \w+"):
            ask()


def test_a_token_is_sent(tmp_path):
    folder = add_items(tmp_path / "c", 3)
    with served(folder, FAKE, policy=Policy(read_token="a-token-to-read")) as (url, _):
        with Client(url) as client, pytest.raises(InputError, match="token is needed"):
            client.info()
        with Client(url, token="a-token-to-read") as client:
            assert client.info()["collections"][0]["count"] == 3


def test_a_service_without_a_place_says_when_to_come_back(tmp_path):
    with served(add_items(tmp_path / "c", 3), FAKE, state=State(ready=False)) as (url, _), Client(url) as client:
        with pytest.raises(Overloaded, match="opening") as caught:
            client.info()
        assert caught.value.retry_after == 1


def test_what_is_no_service_is_named():
    def silent(handler):
        handler.closing.wait(60)

    pages = {"/page/api/v1/info": b"<html>", "/broken/api/v1/info": answer(500), "/silent/api/v1/info": silent}
    with serving(pages) as site:
        for path, error, words in [
            ("/page", ClipsieveError, "not with JSON"),
            ("/broken", ClipsieveError, "answered 500"),
            ("/nowhere", NotFound, "answered 404"),
            ("/silent", TimedOut, "did not answer in 0.1 s"),
        ]:
            with Client(site.url + path, timeout=0.1) as client, pytest.raises(error, match=words) as caught:
                client.info()
            assert site.url in str(caught.value)
    with Client(site.url) as client, pytest.raises(ServiceUnavailable, match=f"{site.url} cannot be reached"):
        client.info()
    for url in ("photos.example.org", "ftp://a", ""):
        with pytest.raises(InputError, match="no address"):
            Client(url)
