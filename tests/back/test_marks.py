"""What is said of items, and what is suggested because of it."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve.back.schema import MOST_MARKS
from clipsieve.index.collection import open_collection
from clipsieve.index.peer_export import export_peer
from clipsieve.marks import Marks
from clipsieve.types import MetaClass
from tests.back.made import FAKE, add_items, serve

COUNT = 60
BUS = {"name": "bus", "positive": ["bus"], "negative": ["truck"], "threshold": 0.5}


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", COUNT, width=[8] * COUNT, height=[7] * COUNT)


@pytest.fixture
def client(folder):
    client, shelf = serve({"photos": folder})
    yield client
    shelf.close()


def mark(item, verdict="right", name="bus", **more):
    return {"item": str(item), "class": name, "verdict": verdict, **more}


def send(client, method, marks, status=200, **query):
    asked = {"data": json.dumps(marks), "content_type": "application/json", "query_string": query}
    answer = client.open("/api/v1/marks", method=method, **asked)
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.get_json()


def said(client, **query):
    found = client.get("/api/v1/marks", query_string=query).get_json()["marks"]
    assert all(set(one) == {"item", "class", "verdict", "set", "at"} for one in found)
    return [(one["item"], one["class"], one["verdict"]) for one in found]


def test_the_same_mark_twice_is_one(client, folder):
    assert send(client, "POST", [mark(3), mark(4, "wrong", set="vehicles"), mark(3)]) == {"changed": 2}
    assert send(client, "POST", [mark(3)]) == {"changed": 0}
    assert send(client, "POST", [mark(4, name="tram")]) == {"changed": 1}
    assert said(client, **{"class": "bus"}) == [("3", "bus", "right"), ("4", "bus", "wrong")]
    assert said(client) == [*said(client, **{"class": "bus"}), ("4", "tram", "right")]
    assert len((folder / "marks.jsonl").read_bytes().splitlines()) == 3
    assert [m.item for m in Marks(folder).standing()] == [3, 4, 4]


def test_a_mark_is_changed_and_taken_back(client):
    send(client, "POST", [mark(3), mark(4), mark(5)])
    send(client, "POST", [mark(3, "wrong")])
    without_verdict = {"item": "5", "class": "bus"}
    # 3 is said to be wrong by now: whoever takes back "right" does not mean that.
    assert send(client, "DELETE", [mark(3), mark(4), without_verdict, mark(9)]) == {"changed": 2}
    assert said(client) == [("3", "bus", "wrong")]
    assert send(client, "DELETE", [mark(4)]) == {"changed": 0}


def test_marks_of_eight_threads_at_once_are_all_there(client, folder):
    def write(thread):
        with client.application.test_client() as own:
            for i in range(8):
                send(own, "POST", [mark(i, "right" if i % 2 else "wrong", f"class {thread}")])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    expected = {(str(i), f"class {t}", "right" if i % 2 else "wrong") for i in range(8) for t in range(8)}
    assert len(said(client)) == 64
    assert set(said(client)) == expected
    assert len(Marks(folder).standing()) == 64


@pytest.mark.parametrize(
    ("marks", "status", "words"),
    [
        ({"item": "3"}, 400, "list"),
        (None, 400, "list"),
        ([{"item": "3", "class": "bus"}], 400, "verdict"),
        ([mark(3, "maybe")], 400, "verdict"),
        ([mark(3, name="")], 400, "class"),
        ([mark(3, name="\ud800")], 400, "class"),
        ([mark("x")], 400, "item"),
        ([mark(2**63)], 400, "2**63"),
        ([mark(3, treshold=1)], 400, "treshold"),
        ([mark(3), mark(COUNT)], 404, str(COUNT)),
        ([mark(3)] * (MOST_MARKS + 1), 400, str(MOST_MARKS)),
    ],
)
def test_mistakes_get_a_sentence_and_nothing_is_said(client, folder, marks, status, words):
    error = send(client, "POST", marks, status)["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert words in error["message"]
    assert not (folder / "marks.jsonl").exists()


def test_an_item_that_was_removed_is_not_marked(client, folder):
    with open_collection(folder) as photos:
        photos.remove([3])
    assert "3" in send(client, "POST", [mark(3)], 404)["error"]["message"]


def test_a_damaged_line_is_named(client, folder):
    send(client, "POST", [mark(3), mark(4)])
    path = folder / "marks.jsonl"
    path.write_bytes(path.read_bytes().replace(b"wrong", b"right", 1).replace(b'"3"', b'"5"', 1))
    answers = [
        client.get("/api/v1/marks"),
        client.post("/api/v1/marks", json=[mark(7)]),
        client.delete("/api/v1/marks", json=[mark(4)]),
        client.post("/api/v1/suggest", json={"class": BUS}),
    ]
    for answer in answers:
        assert answer.status_code == 503
        assert "marks.jsonl line 1 is not as it was written" in answer.get_json()["error"]["message"]


def test_a_folder_that_may_only_be_read_needs_a_state(tmp_path, folder):
    export_peer(folder, tmp_path / "peers")
    client, shelf = serve({"peers": tmp_path / "peers"})
    for method in ("POST", "DELETE"):
        error = send(client, method, [mark(3)], 403)["error"]
        assert "--state" in error["message"]
    assert said(client) == []
    shelf.close()


def suggest(client, **body):
    answer = client.post("/api/v1/suggest", json={"class": BUS, **body})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    return answer.get_json()


def test_suggestions_are_the_librarys(client, folder):
    with open_collection(folder, embedder=FAKE) as photos:
        bus = MetaClass("bus", ["bus"], ["truck"], 0.5)
        matched = [hit.id for hit in photos.search(bus, COUNT).hits]
        below = [hit.id for hit in photos.search(bus, COUNT, view="below").hits]
        expected = photos.review(bus, [matched[0], below[0]], [matched[1], below[1]], 5)
        spread = photos.review(bus, [matched[0], below[0]], [matched[1], below[1]], 5, asking="spread")
    send(client, "POST", [mark(matched[0]), mark(below[0]), mark(matched[1], "wrong"), mark(below[1], "wrong")])
    send(client, "POST", [mark(matched[2], "wrong", "tram")])
    found = suggest(client, limit=5, asking="spread")
    assert [hit["id"] for hit in found["review"]] == [str(hit.id) for hit in spread.doubtful]
    found = suggest(client, limit=5)
    assert [hit["id"] for hit in found["review"]] == [str(hit.id) for hit in expected.doubtful]
    assert (found["class"], found["marks"], found["left"]) == ("bus", {"right": 2, "wrong": 2}, COUNT - 4)
    (positive,), (negative,) = found["positive"], found["negative"]
    assert positive["example"] == {"image": str(below[0])}
    assert negative["example"] == {"image": str(matched[1])}
    assert (positive["key"], positive["w"], positive["neg"]["ex"]) == (f"{below[0]}.jpg", 8, "truck")
    assert negative["thumb"].startswith(f"/api/v1/items/{matched[1]}/image")


def test_a_taken_example_is_not_proposed_again(client):
    (best,) = client.post("/api/v1/search", json={"class": BUS, "limit": 1}).get_json()["hits"]
    send(client, "POST", [mark(best["id"], "wrong")])
    (proposed,) = suggest(client)["negative"]
    taught = {**BUS, "negative": ["truck", proposed["example"]]}
    found = suggest(client, **{"class": taught})
    assert found["negative"] == []
    assert best["id"] not in [hit["id"] for hit in found["review"]]
    send(client, "DELETE", [mark(best["id"], "wrong")])
    assert suggest(client)["negative"] == []


@pytest.mark.parametrize("body", [{"limit": 0}, {"class": "bus"}, {"where": "nothing = 1"}, {"view": "below"}])
def test_what_cannot_be_suggested_is_said(client, body):
    answer = client.post("/api/v1/suggest", json={"class": BUS, **body})
    assert answer.status_code == 400
    assert answer.get_json()["error"]["message"]


def test_what_marks_teach_is_the_librarys_and_says_why(client, folder):
    right, wrong = range(0, 24, 3), range(1, 24, 3)  # buses and trucks
    send(client, "POST", [*map(mark, right), *(mark(i, "wrong") for i in wrong)])
    answer = client.post("/api/v1/learn", json={"class": BUS, "limit": 20})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    found = answer.get_json()
    with open_collection(folder, embedder=FAKE) as photos:
        learned, _ = photos.learn(MetaClass("bus", ["bus"], ["truck"], 0.5), right, wrong)
        ids, _ = photos.nearest(learned.direction, 20)
    assert [hit["id"] for hit in found["hits"]] == [str(i) for i in ids]
    assert sum(int(hit["id"]) % 3 == 0 for hit in found["hits"]) >= 15
    odds = [hit["odds"] for hit in found["hits"]]
    assert odds == sorted(odds, reverse=True)
    best = found["hits"][0]
    assert best["pos"]["ex"] == "bus" or int(best["pos"]["ex"]["image"]) in right
    assert best["pos"]["score"] > 0
    assert (found["wins"], found["loss"], found["loss_alone"]) == (learned.wins, learned.loss, learned.loss_alone)
    assert not {hit["id"] for hit in found["review"]} & {str(i) for i in (*right, *wrong)}


@pytest.mark.parametrize(("more", "words"), [({}, "one of each"), ({"where": "width > 2"}, "where")])
def test_what_cannot_be_learned_is_said(client, more, words):
    send(client, "POST", [mark(3)])
    answer = client.post("/api/v1/learn", json={"class": BUS, **more})
    assert answer.status_code == 400
    assert words in answer.get_json()["error"]["message"]
