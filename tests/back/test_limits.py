"""What is too much for one request."""

import pytest

from clipsieve.back import limits
from clipsieve.back.app import create_app
from clipsieve.back.gate import Shares
from clipsieve.back.knn import weight
from clipsieve.back.limits import SMALL_ANSWER, Limits, holding
from clipsieve.back.shelf import Served, Shelf
from clipsieve.errors import Overloaded
from clipsieve.index.collection import open_collection
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from tests.back.made import FAKE, add_items
from tests.inference.pictures import jpeg, write_tree

LONG = "a" * (limits.MOST_LETTERS + 1)
MANY = [f"a{i}" for i in range(11)]
KNN = {"modality": "image", "num_images": 1, "indice_name": None}


def deployed(positive):
    return {"classifier_configs": [{"name": "a", "examples_to_include": positive}]}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    root = tmp_path_factory.mktemp("limits")
    write_tree(root / "in", {f"{i}.jpg": jpeg(i) for i in range(3)})
    folder = root / "photos.clip"
    embed_collection(open_source(root / "in"), FakeEmbedder(), folder, workers=1)
    return Shelf([Served("photos", open_collection(folder, embedder=FakeEmbedder()))])


@pytest.fixture(scope="module")
def client(shelf):
    embedder = FakeEmbedder()
    return create_app(shelf, fetch=lambda url: b"", embedder=lambda: embedder, limits=Limits(100, 2)).test_client()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/knn-service", {**KNN, "text": LONG}, 400),
        ("/api/v1/search", {"class": {"positive": ["a", LONG]}}, 400),
        ("/api/v1/search", {"class": {"positive": ["a"], "negative": [LONG]}}, 400),
        ("/deploy_classifier", deployed([LONG]), 422),
    ],
)
def test_a_text_that_keeps_a_tokenizer_busy(client, path, body, status):
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert "10,001 letters" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/search", {"class": {"positive": MANY[:6], "negative": MANY[6:]}}, 400),
        ("PUT", "/api/v1/sets/many", {"classes": [{"name": name, "positive": [name]} for name in MANY]}, 400),
        ("POST", "/deploy_classifier", deployed(MANY), 422),
    ],
)
def test_more_examples_than_can_be_embedded_soon(client, monkeypatch, method, path, body, status):
    monkeypatch.setattr(limits, "MOST_EXAMPLES", 10)
    answer = client.open(path, method=method, json=body)
    assert answer.status_code == status
    assert "11 examples" in answer.get_data(as_text=True)


def test_more_pictures_than_fit_an_answer(client):
    for path, body in (
        ("/metadata", {"ids": [0, 1, 2], "indice_name": None}),
        ("/knn-service", {**KNN, "text": "bus", "num_images": 3}),
    ):
        answer = client.post(path, json=body)
        assert (answer.status_code, "3 of these items" in answer.get_json()["message"]) == (400, True)
    answer = client.post("/knn-service", json={**KNN, "text": "bus", "num_images": 2, "num_result_ids": 3})
    assert ["image" in hit for hit in answer.get_json()] == [True, True, False]


def test_large_answers_wait_for_each_other_and_small_ones_do_not():
    rows = Shares(4 * SMALL_ANSWER)
    large = 2 * SMALL_ANSWER
    with holding(rows, "", large), holding(rows, "", 1000 * large):
        with pytest.raises(Overloaded, match="large answers"), holding(rows, "", large):
            pass
        with holding(rows, "", SMALL_ANSWER):
            assert rows.held == 2 * large
    assert rows.held == 0


def test_an_answer_weighs_what_it_shows(shelf, tmp_path):
    assert [weight(shelf[None], *asked, Limits(pictures=2)) for asked in ((3, 1), (50, 50))] == [3 + 100, 3 + 200]
    linked = open_collection(add_items(tmp_path / "c", 5, url=["u"] * 5), embedder=FAKE)
    assert weight(Served("c", linked), 50, 50, Limits()) == 5
    linked.close()
