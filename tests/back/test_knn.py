"""clip-retrieval's protocol, as its clients use it and as they misuse it."""

import base64
import gzip
import json

import numpy as np
import pytest

from clipsieve.back.shelf import Options
from clipsieve.errors import CollectionChanged, InputError
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.head import make_network, make_prompts
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.types import MetaClass
from tests.back.made import DIM, FAKE, add_items, serve, vectors
from tests.inference.pictures import jpeg, write_tree

COUNT = 60


@pytest.fixture
def folder(tmp_path):
    urls = [f"https://example.org/{i}.jpg" if i % 2 else None for i in range(COUNT)]
    return add_items(tmp_path / "photos.clip", COUNT, url=urls, NSFW=["UNLIKELY"] * COUNT, width=list(range(COUNT)))


@pytest.fixture
def client(folder, tmp_path):
    other = add_items(tmp_path / "other.clip", 3, seed=5, url=["a", "b", "c"])
    client, shelf = serve({"photos": folder, "other": other})
    yield client
    shelf.close()


def ask(client, path="/knn-service", type="application/json", **fields):
    body = {"modality": "image", "num_images": 5, "indice_name": "photos", **fields}
    return client.post(environ_overrides={"PATH_INFO": path}, data=json.dumps(body), content_type=type)


def test_the_fronts_own_request(client):
    answer = ask(
        client,
        path="//knn-service",
        type="text/plain;charset=UTF-8",
        text="bus",
        image=None,
        image_url=None,
        embedding_input=None,
        num_images=40,
        num_result_ids=3000,
        use_mclip=False,
        deduplicate=True,
        use_safety_model=True,
        use_violence_detector=True,
        aesthetic_score="",
        aesthetic_weight="0.5",
    )
    hits = answer.get_json()
    assert answer.status_code == 200
    assert len(hits) == COUNT
    assert set(hits[0]) == {"url", "image_path", "caption", "NSFW", "id", "similarity"}
    assert set(hits[40]) == {"id", "similarity"}
    scores = [hit["similarity"] for hit in hits]
    assert scores == sorted(scores, reverse=True)
    assert all(hit["caption"] == "a bus" for hit in hits[:10])
    assert client.get(environ_overrides={"PATH_INFO": "//indices-list"}).get_json() == ["photos", "other"]


def test_answers_are_those_of_the_library(client, folder):
    with open_collection(folder, embedder=FAKE) as photos:
        hits = photos.search(MetaClass("q", ["bus"]), k=7).hits
        captions = photos.search(MetaClass("q", ["bus"]), k=7, modality="text").hits
    found = ask(client, text="bus", num_images=7).get_json()
    assert [hit["id"] for hit in found] == [hit.id for hit in hits]
    assert [hit["similarity"] for hit in found] == pytest.approx([hit.score for hit in hits])
    found = ask(client, text="bus", num_images=7, modality="text").get_json()
    assert [hit["id"] for hit in found] == [hit.id for hit in captions]


def test_every_kind_of_question_in_its_order(folder, tmp_path):
    asked = []

    def fetch(url):
        asked.append(url)
        return jpeg(3)

    client, shelf = serve({"photos": folder}, fetch)
    vector = FAKE.embed_texts(["cat"])[0]
    fields = {
        "text": "bus",
        "image": base64.b64encode(jpeg(1)).decode(),
        "image_url": "https://example.org/3.jpg",
        "embedding_input": [float(x) for x in vector],
    }
    expected = [vector, FAKE.embed_images([jpeg(3)])[0], FAKE.embed_images([jpeg(1)])[0], FAKE.embed_texts(["bus"])[0]]
    given = {}
    for (name, value), question in zip(reversed(fields.items()), expected, strict=True):
        given[name] = value
        ids, products = shelf[None].collection.nearest(question, 5)
        hits = ask(client, **given).get_json()
        assert [hit["id"] for hit in hits] == ids.tolist(), name
        assert [hit["similarity"] for hit in hits] == pytest.approx(products.tolist())
    assert asked == ["https://example.org/3.jpg"]
    blank = {"text": "", "image": "", "image_url": ""}
    assert ask(client, **blank, embedding_input=fields["embedding_input"]).get_json() != []
    shelf.close()


def test_metadata(client):
    answer = client.post(
        environ_overrides={"PATH_INFO": "//metadata"}, data=json.dumps({"ids": [3, "4"], "indice_name": None})
    )
    rest = {"image_path": None, "NSFW": "UNLIKELY"}
    assert answer.get_json() == [
        {"id": 3, "metadata": {"url": "https://example.org/3.jpg", "caption": "a bus", **rest}},
        {"id": 4, "metadata": {"url": None, "caption": "a truck", **rest}},
    ]
    assert client.post("/metadata", data=json.dumps({"ids": [], "indice_name": "nobody"})).get_json() == []


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"modality": None}, 400, "modality is None"),
        ({"modality": "sound", "text": "a"}, 400, "'image' or 'text'"),
        ({"num_images": "many", "text": "a"}, 400, "num_images is 'many'"),
        ({"num_images": -1, "text": "a"}, 400, "num_images is -1"),
        ({"num_images": True, "text": "a"}, 400, "num_images is True"),
        ({"num_images": 1e9, "text": "a"}, 400, "1,000,000 at most"),
        ({"indice_name": "nobody", "text": "a"}, 404, "there is photos, other"),
        ({"indice_name": 7, "text": "a"}, 400, "indice_name is 7"),
        ({"text": ""}, 400, "There is no question"),
        ({"text": ["bus"]}, 400, "text is no text"),
        ({"embedding_input": [1.0, 2.0]}, 400, "shape (2,)"),
        ({"embedding_input": [0.0] * DIM}, 400, "length 0"),
        ({"embedding_input": "bus"}, 400, "no list of numbers"),
        ({"embedding_input": [[1.0], [2.0, 3.0]]}, 400, "no list of numbers"),
        ({"image": "AAAA"}, 400, "image"),
        ({"image": "!!!!"}, 400, "image: the image is not base64"),
        ({"image_url": "data:image/jpeg;base64,!!!!"}, 400, "image: a data URL is not base64"),
        ({"image_url": "data:image/jpeg," + "a" * 9_000}, 400, "may not be asked for"),
        ({"image_url": "http://127.0.0.1/x"}, 400, "may not be asked for"),
        ({"text": "a", "use_mclip": True}, 400, "without a multilingual"),
        ({"text": "a", "aesthetic_score": 11, "aesthetic_weight": 1}, 400, "aesthetic_score is 11"),
        ({"text": "a", "aesthetic_score": 9, "aesthetic_weight": ""}, 400, "aesthetic_weight"),
    ],
)
def test_mistakes_get_a_sentence(client, fields, status, words):
    answer = ask(client, **fields)
    assert answer.status_code == status
    assert list(answer.get_json()) == ["message"]
    assert words in answer.get_json()["message"]


@pytest.mark.parametrize("name", ["modality", "num_images", "indice_name"])
def test_a_missing_field_is_named(client, name):
    body = {"modality": "image", "num_images": 5, "indice_name": None, "text": "a"}
    del body[name]
    answer = client.post("/knn-service", data=json.dumps(body))
    assert (answer.status_code, answer.get_json()) == (400, {"message": f"The field {name} is missing."})


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b"\xff", b"[" * 60])
def test_a_body_that_is_no_object(client, body):
    for path in ("/knn-service", "/metadata"):
        answer = client.post(path, data=body)
        assert answer.status_code == 400
        assert "body is not" in answer.get_json()["message"]


@pytest.mark.parametrize(
    ("ids", "status"), [([COUNT], 404), ([-1], 404), (["x"], 400), ([1.5], 400), ("1", 400), ([2**70], 400)]
)
def test_ids_that_are_none(client, ids, status):
    answer = client.post("/metadata", data=json.dumps({"ids": ids, "indice_name": "photos"}))
    assert answer.status_code == status
    assert answer.get_json()["message"]


def test_unknown_fields_and_an_unasked_rating_are_ignored(client):
    plain = ask(client, text="bus").get_json()
    assert ask(client, text="bus", aesthetic_score=9, aesthetic_weight=0.5, colour="red").get_json() == plain
    assert ask(client, text="bus", num_images=0).get_json() == []


def test_a_rating_moves_the_question(folder):
    rating = FAKE.embed_texts(["cat"])[0]
    client, shelf = serve({"photos": folder}, photos=Options(ratings={9: rating}))
    moved = FAKE.embed_texts(["bus"])[0] + 0.5 * rating
    ids, products = shelf[None].collection.nearest(moved / np.linalg.norm(moved), 5)
    hits = ask(client, text="bus", aesthetic_score="9", aesthetic_weight="0.5").get_json()
    assert [hit["id"] for hit in hits] == ids.tolist()
    assert [hit["similarity"] for hit in hits] == pytest.approx(products.tolist())
    assert (
        ask(client, text="bus", aesthetic_score=8, aesthetic_weight=1).get_json() == ask(client, text="bus").get_json()
    )
    shelf.close()


def test_another_language(folder):
    class French:
        model, dim = FAKE.model, DIM

        def embed_texts(self, texts):
            return FAKE.embed_texts([{"chat": "cat"}[text] for text in texts])

    client, shelf = serve({"photos": folder}, photos=Options(multilingual=French()))
    assert ask(client, text="chat", use_mclip=True).get_json() == ask(client, text="cat").get_json()
    shelf.close()


def test_what_is_flagged_is_left_out_and_filled_up(folder, tmp_path):
    flag = MetaClass("safety", ["bus"], ["cat", "truck"])
    client, shelf = serve({"photos": folder}, photos=Options(flags={"safety": flag}))
    flagged = {hit.id for hit in shelf[None].collection.filter(flag)}
    assert 10 < len(flagged) < 30
    plain = ask(client, text="bus", num_images=10, use_violence_detector=True).get_json()
    safe = ask(client, text="bus", num_images=10, use_safety_model=True).get_json()
    assert {hit["id"] for hit in plain} <= flagged
    assert len(safe) == 10
    assert not {hit["id"] for hit in safe} & flagged
    add_items(folder, 30, seed=9, url=[None] * 30)  # flagged anew, without a restart
    now = {hit["id"] for hit in ask(client, text="bus", num_images=90, use_safety_model=True).get_json()}
    assert any(i >= COUNT for i in now)
    assert not now & {hit.id for hit in shelf[None].collection.filter(flag)}
    shelf.close()


def test_what_a_head_flags_is_left_out_and_filled_up(folder):
    rows = vectors(COUNT)
    network = make_network({"weight": FAKE.embed_texts(["bus"]), "bias": np.zeros(1, np.float32)}, "head.pth")
    prompts = make_prompts(FAKE.embed_texts(["truck", "cat"]), "prompts.npy")
    client, shelf = serve({"photos": folder}, photos=Options(flags={"safety": network, "violence": prompts}))
    unsafe, violent = (set(np.flatnonzero(head.flags(rows)).tolist()) for head in (network, prompts))
    found = {
        switches: {
            hit["id"] for hit in ask(client, text="bus", num_images=15, **dict.fromkeys(switches, True)).get_json()
        }
        for switches in [(), ("use_safety_model",), ("use_violence_detector", "use_safety_model")]
    }
    assert [len(ids) for ids in found.values()] == [15, 15, 15]
    bare, safe, peaceful = found.values()
    assert bare & unsafe
    assert not safe & unsafe
    assert safe & violent
    assert not peaceful & (unsafe | violent)
    assert client.get("/api/v1/info").get_json()["collections"][0]["flags"] == [
        {"name": "safety", "kind": "head"},
        {"name": "violence", "kind": "prompts"},
    ]
    shelf.close()


def test_what_is_added_and_removed_shows_without_a_restart(client, folder):
    assert len(ask(client, text="bus", num_images=1000).get_json()) == COUNT
    add_items(folder, 10, seed=3)
    assert len(ask(client, text="bus", num_images=1000).get_json()) == COUNT + 10
    with open_collection(folder) as photos:
        photos.remove([0, 3])
    ids = [hit["id"] for hit in ask(client, text="bus", num_images=1000).get_json()]
    assert len(ids) == COUNT + 8
    assert not {0, 3} & set(ids)
    answer = client.post("/metadata", data=json.dumps({"ids": [3], "indice_name": "photos"}))
    assert answer.status_code == 404


def test_local_files_come_as_small_jpegs(tmp_path):
    root = write_tree(tmp_path / "in", {"a.jpg": jpeg(0), "b.jpg": jpeg(1)})
    embed_collection(open_source(root), FakeEmbedder(DIM), tmp_path / "c")
    client, shelf = serve({"c": tmp_path / "c"})
    hits = ask(client, text="bus", indice_name=None).get_json()
    assert {hit["image_path"] for hit in hits} == {str(root / "a.jpg"), str(root / "b.jpg")}
    assert all(base64.b64decode(hit["image"]).startswith(b"\xff\xd8") for hit in hits)
    (root / "a.jpg").unlink()
    assert "image" in ask(client, text="bus", indice_name=None).get_json()[0]  # remembered
    shelf.close()


def test_values_that_json_does_not_know(tmp_path):
    odd = {"NSFW": [float("nan"), 1.5], "url": ["u", None]}
    client, shelf = serve({"c": add_items(tmp_path / "c", 2, **odd)})
    rows = client.post("/metadata", data=json.dumps({"ids": [0, 1], "indice_name": "c"})).get_data(as_text=True)
    assert [row["metadata"]["NSFW"] for row in json.loads(rows, parse_constant=pytest.fail)] == [None, 1.5]
    shelf.close()


def test_a_fetch_that_fails_says_why(folder):
    def fetch(url):
        raise InputError("The server answered 404, not with the image.")

    client, shelf = serve({"photos": folder}, fetch)
    answer = ask(client, image_url="https://example.org/gone.jpg")
    assert (answer.status_code, answer.get_json()["message"]) == (400, "The server answered 404, not with the image.")
    shelf.close()


def test_figures(client):
    ask(client, text="bus")
    text = client.get("/metrics").get_data(as_text=True)
    for name in ("full_knn_request_time", "metadata_get_time", "knn_index_time", "text_clip_inference_time"):
        assert f"{name}_count 1.0" in text
        assert f"{name}_created" in text
    assert 'clipsieve_requests_total{method="POST",route="/knn-service",status="200"} 1.0' in text
    assert client.open("/knn-service", method="MADEUP").status_code == 405
    assert 'method="other",route="none",status="405"' in client.get("/metrics").get_data(as_text=True)
    packed = client.get("/metrics", headers={"Accept-Encoding": "deflate, gzip;q=0.5"})
    assert (packed.content_encoding, b"knn_index_time_count 1.0" in gzip.decompress(packed.get_data())) == (
        "gzip",
        True,
    )
    assert client.get("/metrics", headers={"Accept-Encoding": "gzip;q=0"}).content_encoding is None
    assert "full_knn_request_time" in client.get("/metrics-summary").get_data(as_text=True)
    config = client.get("/config.json").get_json()
    assert config == {"defaultBackend": "http://localhost/", "defaultIndex": "", "urlColumn": "url"}


def test_other_addresses_and_methods(client):
    answer = client.get("/nowhere")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (404, 404)
    answer = client.get("/knn-service")
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, {"OPTIONS", "POST"})


def test_a_question_that_a_commit_overtakes_is_asked_again(client, monkeypatch):
    nearest, times = Collection.nearest, [1]

    def overtaken(self, *arguments, **options):
        times[0] -= 1
        if times[0] >= 0:
            raise CollectionChanged("The folder has another commit by now.")
        return nearest(self, *arguments, **options)

    monkeypatch.setattr(Collection, "nearest", overtaken)
    assert len(ask(client, text="bus").get_json()) == 5
    times[0] = 2
    answer = ask(client, text="bus")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert "another commit" in answer.get_json()["message"]


def test_what_is_removed_between_finding_and_showing_is_no_404(client, folder, monkeypatch):
    nearest = Collection.nearest
    done: list[int] = []

    def removed(self, *arguments, **options):
        ids, products = nearest(self, *arguments, **options)
        if not done:
            done.append(int(ids[0]))
            with open_collection(folder) as photos:
                photos.remove(done)
            ask(client, text="bus")  # whoever comes next makes the service read the new commit
        return ids, products

    monkeypatch.setattr(Collection, "nearest", removed)
    answer = ask(client, text="bus")
    assert answer.status_code == 200
    assert done[0] not in [hit["id"] for hit in answer.get_json()]


def test_what_the_model_leaves_out_of_a_text_is_told_in_a_header(client):
    answer = ask(client, text="bus " * 40 + "größer")
    assert isinstance(answer.get_json(), list)
    assert "'gr%C3%B6%C3%9Fer' is left out." in answer.headers["X-Clipsieve-Note"]
    assert "X-Clipsieve-Note" not in ask(client, text="bus").headers


@pytest.mark.parametrize("text", [" ", "\t", "\u200b"])
def test_a_blank_text_is_no_question(client, text):
    answer = ask(client, text=text)
    assert answer.status_code == 400
    assert "an empty text" in answer.get_json()["message"]
