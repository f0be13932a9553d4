"""The page's own API, /api/v1."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from clipsieve.back.schema import MOST_RESULTS
from clipsieve.back.start import texts_of
from clipsieve.errors import InputError
from clipsieve.index.collection import open_collection
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.types import ClassSet, Example, MetaClass
from tests.back.made import DIM, FAKE, add_items, serve
from tests.inference.pictures import jpeg, write_tree

COUNT = 60
BUS = {"positive": ["bus"], "negative": ["truck"]}


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", COUNT, width=list(range(COUNT)), height=[7] * COUNT)


@pytest.fixture
def client(folder):
    client, shelf = serve({"photos": folder})
    yield client
    shelf.close()


def post(client, path, status=200, **body):
    answer = client.post(f"/api/v1{path}", json=body)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.get_json()


def test_info(client):
    info = client.get("/api/v1/info").get_json()
    (photos,) = info["collections"]
    assert (photos["id"], photos["count"], photos["dim"]) == ("photos", COUNT, DIM)
    assert photos["modalities"] == ["image", "text"]
    assert info["limits"]["results"] == MOST_RESULTS
    assert "yolo" in info["formats"]["export"]


def test_where_to_begin(client):
    start = client.get("/api/v1/start").get_json()
    assert set(start["texts"]) == {"a bus", "a truck", "a cat"}
    assert len({item["id"] for item in start["items"]}) == 24
    assert client.get(start["items"][0]["thumb"]).status_code in (200, 404)  # these have no files
    assert texts_of(["a long sentence of which nobody would make a question", "!", ""]) == []


@pytest.mark.parametrize("view", ["matched", "rejected", "below"])
@pytest.mark.parametrize("sort", ["score", "margin", "new"])
def test_pages_are_the_librarys_answer(client, folder, view, sort):
    asked = {"class": {**BUS, "threshold": 0.3}, "view": view, "sort": sort, "limit": 7}
    found, page = [], post(client, "/search", **asked)
    while True:
        found += page["hits"]
        if page["next"] is None:
            break
        assert len(page["hits"]) == 7
        page = post(client, "/search", **asked, cursor=page["next"])
    with open_collection(folder, embedder=FAKE) as photos:
        hits = photos.search(MetaClass("q", ["bus"], ["truck"], 0.3), k=COUNT, view=view, order=sort).hits
    assert [hit["id"] for hit in found] == [str(hit.id) for hit in hits]
    assert [hit["score"] for hit in found] == pytest.approx([hit.score for hit in hits])
    assert [hit["margin"] for hit in found] == pytest.approx([hit.margin for hit in hits])


def test_a_hit_says_why(client):
    hit = post(client, "/search", **{"class": BUS}, limit=1)["hits"][0]
    assert hit["pos"] == {"ex": "bus", "score": hit["score"]}
    assert hit["neg"]["ex"] == "truck"
    assert hit["score"] - hit["neg"]["score"] == pytest.approx(hit["margin"])
    assert (hit["w"], hit["h"]) == (int(hit["id"]), 7)
    assert hit["thumb"].startswith(f"/api/v1/items/{hit['id']}/image")
    alone = post(client, "/search", **{"class": {"positive": ["bus"]}}, limit=1)["hits"][0]
    assert (alone["margin"], alone["neg"]) == (None, None)


def test_a_set_is_asked_by_class(client):
    classes = {"classes": [{"name": "bus", **BUS}, {"name": "cat", "positive": ["cat"]}]}
    one = post(client, "/search", set=classes, **{"class": "bus"})
    assert one["hits"] == post(client, "/search", **{"class": BUS})["hits"]
    assert "name one" in post(client, "/search", 400, set=classes)["error"]["message"]
    assert "no class 'dog'" in post(client, "/search", 404, set=classes, **{"class": "dog"})["error"]["message"]
    assert "no stored set 'mine'" in post(client, "/search", 404, set="mine")["error"]["message"]


def test_a_cursor_of_an_older_commit_is_refused(client, folder):
    page = post(client, "/search", **{"class": BUS}, limit=5)
    add_items(folder, 5, seed=3, width=[1] * 5, height=[1] * 5)
    error = post(client, "/search", 400, **{"class": BUS}, limit=5, cursor=page["next"])["error"]
    assert "has changed" in error["message"]
    again = post(client, "/search", **{"class": BUS}, limit=5)
    assert again["index_rev"] != page["index_rev"]


def test_a_distribution_counts_every_item_in_a_bin(client, folder):
    found = post(client, "/distribution", **{"class": {**BUS, "threshold": 0.3}})
    with open_collection(folder, embedder=FAKE) as photos:
        counted = photos.distribution(MetaClass("q", ["bus"], ["truck"], 0.3))
    assert found["counts"] == {"matched": counted.matched, "rejected": counted.rejected, "below": counted.below}
    assert not found["estimated"]
    bins, lo, hi = found["hist"]["bins"], found["hist"]["lo"], found["hist"]["hi"]
    assert len(bins) <= 64
    assert sum(map(sum, bins)) == COUNT
    assert sum(found["hist"]["ranked"]) == COUNT
    asked = {"class": {**BUS, "threshold": 0.3}, "veto": "hard", "limit": COUNT}
    scores = [
        h["score"] for view in ("matched", "rejected", "below")
        for h in post(client, "/search", **asked, view=view)["hits"]
    ]  # fmt: skip
    assert lo <= min(scores) <= max(scores) <= hi
    width = (hi - lo) / len(bins)
    middle = len(bins) // 2
    inside = sum(lo + middle * width <= score < lo + (middle + 1) * width for score in scores)
    assert sum(bins[middle]) == inside
    given = post(client, "/distribution", **{"class": BUS}, lo=0.0, hi=1.0, bins=10)["hist"]
    assert (given["lo"], given["hi"], len(given["bins"])) == (0.0, 1.0, 10)
    assert "give both" in post(client, "/distribution", 400, **{"class": BUS}, lo=1.0)["error"]["message"]


def test_explain(client, folder):
    several = {"positive": ["bus", "cat"], "negative": ["truck"], "threshold": 0.1}
    hit = post(client, "/search", **{"class": several}, limit=1)["hits"][0]
    found = post(client, "/explain", **{"class": several}, id=hit["id"])
    assert found["accepted"]
    assert found["positive"][0]["ex"] == hit["pos"]["ex"]
    assert found["score"] == pytest.approx(hit["score"])
    assert found["margin"] == pytest.approx(hit["margin"])
    assert post(client, "/explain", 404, **{"class": several}, id="99999")["error"]["code"] == 404


def test_items_and_their_images(tmp_path):
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i, (400, 300)) for i in range(3)})
    embed_collection(open_source(root), FakeEmbedder(DIM), tmp_path / "c")
    client, shelf = serve({"a&b": tmp_path / "c", "c": tmp_path / "c"})
    item = client.get("/api/v1/items/1").get_json()
    assert (item["id"], item["key"], item["metadata"]["width"]) == ("1", "1.jpg", 400)
    whole = client.get("/api/v1/items/1/image")
    assert whole.get_data() == (root / "1.jpg").read_bytes()
    assert whole.mimetype == "image/jpeg"
    small = client.get("/api/v1/items/1/image?size=128")
    assert small.mimetype == "image/webp"
    assert len(small.get_data()) < len(whole.get_data())
    for shown, size in ((whole, ""), (small, "?size=128")):
        assert "max-age" in shown.headers["Cache-Control"]
        for tag in (shown.headers["ETag"], f"W/{shown.headers['ETag']}"):  # as proxies that pack answers make it
            again = client.get(f"/api/v1/items/1/image{size}", headers={"If-None-Match": tag})
            assert (again.status_code, again.get_data(), again.headers["ETag"]) == (304, b"", shown.headers["ETag"])
    hit = post(client, "/search", **{"class": {"positive": ["bus"]}}, collection="a&b", limit=1)["hits"][0]
    assert client.get(hit["thumb"]).mimetype == "image/webp"
    for path, status in [("9", 404), ("x", 404), ("1/image?size=77", 400), ("9/image", 404), ("1?collection=d", 404)]:
        answer = client.get(f"/api/v1/items/{path}")
        assert answer.status_code == status, path
        assert answer.get_json()["error"]["message"]
    shelf.close()


def test_an_image_is_an_example_by_upload_and_by_url(folder):
    def fetch(url):
        if "bad" in url:
            raise InputError("The server answered 404, not with the image.")
        return jpeg(5)

    client, shelf = serve({"photos": folder}, fetch)
    form = {"data": (io.BytesIO(jpeg(5)), "a.jpg"), "collection": "photos"}
    origin = {"Origin": "http://localhost"}
    said = client.post("/api/v1/uploads", data=form, headers=origin).get_json()
    uploaded = said["id"]
    kind, _, shown = said["thumb"].partition(",")
    with Image.open(io.BytesIO(base64.b64decode(shown))) as thumb:
        assert (kind, thumb.format, max(thumb.size) <= 128) == ("data:image/webp;base64", "WEBP", True)
    assert post(client, "/fetch", url="https://example.org/a.jpg")["id"] == uploaded
    hits = post(client, "/search", **{"class": {"positive": [{"image": uploaded}]}}, limit=5)["hits"]
    photos = shelf[None].collection
    classes = ClassSet([MetaClass("q", [Example(image=uploaded)])], "background")
    assert [h["id"] for h in hits] == [str(h.id) for h in photos.search(classes, k=5).hits]
    mixed = post(client, "/search", **{"class": {"positive": ["bus", {"image": uploaded}]}}, limit=5)["hits"]
    classes = ClassSet([MetaClass("q", ["bus", Example(image=uploaded)])], "background")
    assert [h["id"] for h in mixed] == [str(h.id) for h in photos.search(classes, k=5).hits]
    assert "404" in post(client, "/fetch", 400, url="https://example.org/bad.jpg")["error"]["message"]
    for data in (b"", b"no image"):
        broken = {"data": (io.BytesIO(data), "a.jpg")}
        assert client.post("/api/v1/uploads", data=broken, headers=origin).status_code == 400
    assert client.post("/api/v1/uploads", data={}, headers=origin).status_code == 400
    much = b'--b\r\nContent-Disposition: form-data; name="data"\r\n\r\n' + b"a" * 600_000 + b"\r\n--b--\r\n"
    long = client.post("/api/v1/uploads", data=much, content_type="multipart/form-data; boundary=b", headers=origin)
    assert (long.status_code, "as a file" in long.get_json()["error"]["message"]) == (413, True)
    shelf.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, "There is no question"),
        ({"class": "bus"}, "there is no set"),
        ({"class": {"positive": []}}, "positive"),
        ({"class": {"positive": ["\ud83d"]}}, "not whole"),
        ({"class": BUS, "limit": 0}, "limit"),
        ({"class": BUS, "limit": 10**6}, "limit"),
        ({"class": BUS, "treshold": 1}, "treshold"),
        ({"class": BUS, "view": "all"}, "view"),
        ({"class": BUS, "where": "nothing = 1"}, "nothing"),
        ({"class": BUS, "cursor": "x"}, "cursor"),
        ({"class": {"positive": [{"image": "f" * 64}]}}, "upload"),
    ],
)
def test_mistakes_get_a_sentence(client, body, words):
    answer = client.post("/api/v1/search", data=json.dumps(body), content_type="application/json")
    assert answer.status_code in (400, 404)
    error = answer.get_json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"", "application/json", "not JSON"),
        (b"{", "application/json", "not JSON"),
        (b"[1]", "application/json", "the body: Input should be a valid object."),
        (b"null", "application/json", "a valid object"),
        (json.dumps({"class": BUS}).encode(), "application/x-www-form-urlencoded", "Content-Type: application/json"),
    ],
)
def test_a_body_that_is_no_object(client, body, content_type, words):
    answer = client.post("/api/v1/search", data=body, content_type=content_type)
    assert (answer.status_code, words in answer.get_json()["error"]["message"]) == (400, True)


def test_every_route_is_described(client):
    spec = client.get("/openapi").get_json()
    assert spec["openapi"] == "3.1.0"
    rules = {rule.rule for rule in client.application.url_map.iter_rules()}
    described = {path.replace("{", "<").replace("}", ">") for path in spec["paths"]}
    assert rules == described
    json.dumps(spec, allow_nan=False)
    ours = [(way, said) for path, ways in spec["paths"].items() if "/api/" in path for way, said in ways.items()]
    for way, operation in ours:
        done = {status: answer for status, answer in operation["responses"].items() if status.startswith("2")}
        assert done
        assert all(("content" in answer) == (status != "204") for status, answer in done.items()), (way, operation)
    assert spec["components"]["securitySchemes"]["token"]["scheme"] == "bearer"


def test_boxes_of_hits_and_items(tmp_path):
    detector = FakeDetector(regions=4)
    root = write_tree(tmp_path / "in", {f"{i}.jpg": jpeg(i, (80, 60)) for i in range(4)})
    embed_collection(open_source(root), FAKE, tmp_path / "c", finder=Finder(detector))
    client, shelf = serve({"c": tmp_path / "c"}, detector=lambda: detector)
    asked = {"class": {"name": "bus", **BUS}}
    hits = post(client, "/search", **asked, view="matched", boxes=True, box_threshold=0.2)["hits"]
    hits += post(client, "/search", **asked, view="rejected", boxes=True, box_threshold=0.2)["hits"]
    assert len(hits) == 4
    bus, truck = detector.embed_texts(["bus", "truck"])
    for hit in hits:
        regions = shelf[None].collection.regions.of([int(hit["id"])])
        score, other = (1 / (1 + np.exp(-(regions.vectors @ t + regions.shift) * regions.scale)) for t in (bus, truck))
        wanted = [i for i in np.argsort(-score) if score[i] >= max(0.2, other[i])]  # quarters do not overlap
        x0, y0, x1, y1 = regions.boxes[wanted].T
        assert [box[:4] for box in hit["boxes"]] == np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist()
        assert [box[4] for box in hit["boxes"]] == pytest.approx(score[wanted], abs=1e-5)
        assert {box[5] for box in hit["boxes"]} <= {"bus"}
        item = client.get(f"/api/v1/items/{hit['id']}").get_json()
        assert sorted(item["regions"]) == sorted([x, y, 0.5, 0.5] for x in (0, 0.5) for y in (0, 0.5))
    assert any(hit["boxes"] for hit in hits)
    assert "boxes" not in post(client, "/search", **asked)["hits"][0]
    known = client.get("/api/v1/info").get_json()["collections"][0]
    assert (known["detector"], known["boxes"]) == ("fake", False)  # what the service has, is not loaded yet
    shelf.close()
    for given, words in ((None, "--detector fake"), (lambda: FakeDetector(name="other"), "other")):
        client, shelf = serve({"c": tmp_path / "c"}, detector=given)
        assert words in post(client, "/search", 400, **asked, boxes=True)["error"]["message"]
        shelf.close()


def test_boxes_where_there_are_no_regions(client):
    assert "holds no regions" in post(client, "/search", 404, **{"class": BUS}, boxes=True)["error"]["message"]
    assert client.get("/api/v1/items/1").get_json()["regions"] is None


def test_what_the_model_leaves_out_of_texts_is_noted(client):
    assert post(client, "/search", **{"class": BUS})["notes"] == []
    for side in ("positive", "negative"):
        (note,) = post(client, "/search", **{"class": {**BUS, side: ["word " * 40 + "rest"]}})["notes"]
        assert "'rest' is left out" in note
        asked = {"collection": "photos", "class": {**BUS, side: ["word " * 40 + "rest"]}}
        for path, more in (("distribution", {}), ("explain", {"id": "1"})):
            answer = client.post(f"/api/v1/{path}", json={**asked, **more})
            assert (answer.status_code, "'rest' is left out" in answer.headers["X-Clipsieve-Note"]) == (200, True)
    answer = post(client, "/search", 400, **{"class": {"positive": [" "]}})
    assert "an empty text" in answer["error"]["message"]
