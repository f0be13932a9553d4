"""Class sets that are stored by name."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve.back.app import create_app
from clipsieve.back.sets import SetFiles
from clipsieve.back.shelf import Served, Shelf
from clipsieve.index.collection import open_collection
from clipsieve.index.peer_export import export_peer
from tests.back.made import FAKE, add_items, serve

BUS = {"name": "bus", "positive": ["bus"], "negative": ["truck"]}
VEHICLES = {"classes": [BUS, {"name": "tram", "positive": ["cat"]}], "calibration": "none"}
DEPLOYED = {"classifier_configs": [{"name": "bus", "examples_to_include": ["bus"]}], "augment_examples": False}


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", 60)


@pytest.fixture
def client(folder):
    client, shelf = serve({"photos": folder})
    yield client
    shelf.close()


def put(client, name, value, match=None, **query):
    headers = {} if match is None else {"If-Match": match}
    asked = {"data": json.dumps(value), "content_type": "application/json", "query_string": query}
    return client.put(f"/api/v1/sets/{name}", headers=headers, **asked)


def refused(answer, status, words):
    assert answer.status_code == status, answer.get_data(as_text=True)
    error = answer.get_json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["code"] == status
    assert words in error["message"]


def names(client, **query):
    return [one["name"] for one in client.get("/api/v1/sets", query_string=query).get_json()["sets"]]


def test_a_set_comes_back_as_it_was_stored_unknown_fields_too(client, folder):
    value = {**VEHICLES, "version": 3, "é": {"page": [1.5, None]}}
    value["classes"] = [{**BUS, "note": "red ones"}, VEHICLES["classes"][1]]
    made = put(client, "vehicles-1_A", value)
    assert made.status_code == 201
    told = made.get_json()
    assert (told["name"], told["unknown"]) == ("vehicles-1_A", ["version", "é", "classes[0].note"])
    got = client.get("/api/v1/sets/vehicles-1_A")
    assert got.get_json() == value
    assert got.headers["ETag"] == made.headers["ETag"] == f'"{told["revision"]}"'
    assert json.loads((folder / "sets" / "vehicles-1_A.json").read_bytes()) == value
    again = client.get("/api/v1/sets/vehicles-1_A", headers={"If-None-Match": got.headers["ETag"]})
    assert (again.status_code, again.get_data()) == (304, b"")
    listed = client.get("/api/v1/sets").get_json()["sets"]
    assert listed == [{"name": "vehicles-1_A", "revision": told["revision"]}]


def test_only_who_knows_what_is_there_replaces_or_deletes_it(client):
    first = put(client, "mine", VEHICLES).headers["ETag"]
    refused(put(client, "mine", DEPLOYED), 412, "already")
    changed = put(client, "mine", DEPLOYED, first)
    assert (changed.status_code, changed.get_json()["unknown"]) == (200, [])
    second = changed.headers["ETag"]
    refused(put(client, "mine", VEHICLES, first), 412, "was changed since")
    refused(client.delete("/api/v1/sets/mine"), 428, "If-Match")
    refused(client.delete("/api/v1/sets/mine", headers={"If-Match": first}), 412, "was changed since")
    assert client.get("/api/v1/sets/mine").get_json() == DEPLOYED
    # A proxy that compresses has made a weak tag of it.
    deleted = client.delete("/api/v1/sets/mine", headers={"If-Match": f"W/{second}"})
    assert (deleted.status_code, deleted.get_data()) == (204, b"")
    refused(client.get("/api/v1/sets/mine"), 404, "no stored set 'mine'")
    refused(client.delete("/api/v1/sets/mine", headers={"If-Match": second}), 404, "no stored set 'mine'")
    refused(put(client, "mine", VEHICLES, second), 412, "any more")
    assert put(client, "mine", VEHICLES).status_code == 201


def test_of_many_who_replace_one_revision_one_does(client):
    first = put(client, "mine", VEHICLES).headers["ETag"]

    def replace(i):
        with client.application.test_client() as own:
            return put(own, "mine", {**VEHICLES, "version": i}, first).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(replace, range(16))) == [200] + [412] * 15


def test_a_question_names_a_stored_set(client):
    put(client, "vehicles", {**VEHICLES, "version": 1})
    put(client, "theirs", DEPLOYED)

    def search(status=200, **body):
        answer = client.post("/api/v1/search", json=body)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer

    asked = {"set": "vehicles", "class": "bus"}
    whole = {"class": {"positive": ["bus"], "negative": ["truck"]}}
    assert search(**asked).get_json()["hits"] == search(**whole).get_json()["hits"]
    assert search(set="theirs").get_json()["hits"]
    for path, more in [("distribution", {}), ("explain", {"id": "3"}), ("suggest", {})]:
        assert client.post(f"/api/v1/{path}", json={**asked, **more}).status_code == 200
    refused(search(404, set="vehicles", **{"class": "dog"}), 404, "no class 'dog'")
    refused(search(404, set="other"), 404, "no stored set 'other'")
    refused(search(404, set="../vehicles"), 404, "no stored set")


def test_each_collection_has_its_own(tmp_path):
    client, shelf = serve({name: add_items(tmp_path / name, 5) for name in ("a", "b")})
    put(client, "one", VEHICLES)
    put(client, "two", VEHICLES, collection="b")
    assert (names(client), names(client, collection="a"), names(client, collection="b")) == (["one"], ["one"], ["two"])
    asked = {"collection": "a", "set": "two", "class": "bus"}
    refused(client.post("/api/v1/search", json=asked), 404, "no stored set 'two'")
    refused(client.get("/api/v1/sets?collection=c"), 404, "no collection named 'c'")
    shelf.close()


def test_deployed_configurations_are_no_sets(client, folder):
    deployed = str(uuid.uuid4())
    (folder / "sets").mkdir()
    (folder / "sets" / f"{deployed}.json").write_text(json.dumps(DEPLOYED))
    (folder / "sets" / ".half.json.tmp").write_text("{")
    assert names(client) == []
    refused(client.get(f"/api/v1/sets/{deployed}"), 404, "no stored set")
    for name in (deployed, deployed.upper()):
        refused(put(client, name, VEHICLES), 400, "no uuid")
    assert json.loads((folder / "sets" / f"{deployed}.json").read_text()) == DEPLOYED


@pytest.mark.parametrize("name", ["a b", "..", "a.json", "é", "x" * 65, "a%0A", ".hidden", "a\\b"])
def test_a_name_is_a_safe_file_name(client, folder, name):
    answer = put(client, name, VEHICLES)
    assert answer.status_code in (308, 400, 404, 405)  # dots and slashes may not even reach the route
    assert answer.status_code == 308 or answer.get_json()["error"]["message"]
    assert not (folder / "sets").exists()
    assert put(client, "x" * 64, VEHICLES).status_code == 201


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, "no 'classes'"),
        ([], "object"),
        ({"classes": []}, "empty"),
        ({"classes": [{"name": "bus"}]}, "classes[0] has no 'positive'"),
        ({"classes": [BUS, BUS]}, "'bus' more than once"),
        ({"classes": [{**BUS, "threshold": "high"}]}, "threshold"),
        ({"classes": [{"name": "bus", "positive": ["bus", {"image": "3"}]}]}, "calibration"),
        ({"classes": [BUS], "note": "\ud800"}, "no JSON"),
        ({"classes": [BUS], "note": float("nan")}, "no JSON"),
    ],
)
def test_what_is_no_set_is_refused_and_changes_nothing(client, value, words):
    put(client, "mine", VEHICLES)
    refused(put(client, "mine", value, "*"), 400, words)
    assert client.get("/api/v1/sets/mine").get_json() == VEHICLES


def test_a_file_that_somebody_broke_is_named_and_can_be_replaced(client, folder):
    put(client, "mine", VEHICLES)
    for text in ("{", "[]", '{"classes": 3}'):
        (folder / "sets" / "mine.json").write_text(text)
        asked = client.post("/api/v1/search", json={"set": "mine", "class": "bus"})
        refused(asked, 500, "mine.json")
    (listed,) = client.get("/api/v1/sets").get_json()["sets"]
    assert put(client, "mine", VEHICLES, f'"{listed["revision"]}"').status_code == 200


def test_a_folder_that_may_only_be_read_needs_a_state(tmp_path, folder):
    peers = tmp_path / "peers"
    export_peer(folder, peers)
    client, shelf = serve({"peers": peers})
    before = sorted(peers.iterdir())
    refused(put(client, "mine", VEHICLES), 403, "--state")
    refused(client.delete("/api/v1/sets/mine", headers={"If-Match": "*"}), 403, "--state")
    assert (names(client), sorted(peers.iterdir())) == ([], before)
    shelf.close()

    state = tmp_path / "state" / "peers"
    shelf = Shelf([Served("peers", open_collection(peers, embedder=FAKE), state=state)])
    client = create_app(shelf, fetch=None).test_client()
    assert put(client, "mine", VEHICLES).status_code == 201
    assert SetFiles(state).names() == names(client) == ["mine"]
    shelf.close()


def test_what_cannot_be_written_is_said(client, folder):
    (folder / "sets").write_text("no folder")
    refused(put(client, "mine", VEHICLES), 500, "Nothing can be kept in")
