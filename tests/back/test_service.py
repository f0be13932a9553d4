"""`clipsieve back` in a process of its own, over sockets."""

import http.client
import json
import signal
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest
from PIL import Image

from clipsieve.back.protect import Protection
from clipsieve.back.serve import Binding, serve
from clipsieve.errors import InputError
from clipsieve.index.build import build_indices
from clipsieve.marks import Marks
from tests.back.made import FAKE, add_items
from tests.back.redis_server import running_redis
from tests.back.service import running
from tests.inference.pictures import encoded

pytestmark = pytest.mark.slow  # runs of the whole program, a second or more each

QUESTION = {
    "embedding_input": FAKE.embed_texts(["bus"])[0].tolist(),
    "modality": "image",
    "num_images": 3,
    "indice_name": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = add_items(tmp_path_factory.mktemp("served") / "photos.clip", 60, url=["u"] * 60)
    build_indices(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder):
    with running(folder) as service:
        yield service


def test_it_serves_until_it_is_told_to_end(folder):
    with running(folder) as service:
        assert service.ask("/healthz")[2] == {"status": "ok"}
        assert service.ask("//indices-list")[2] == ["photos"]
        status, _, hits = service.ask("/knn-service", QUESTION)
        assert (status, len(hits)) == (200, 3)
        service.process.send_signal(signal.SIGTERM)
        service.wait_for("Told to end")
        assert service.process.wait(60) == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_an_address_that_cannot_be_had_is_said(host):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        binding = Binding(host, taken.getsockname()[1])
        with pytest.raises(InputError, match=f"{host}, port {binding.port} .* give another"):
            serve(lambda: None, lambda: None, lambda: None, binding, Protection(), lambda url: None)


def test_connections_are_kept(service):
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    connection.connect()
    kept = connection.sock
    for _ in range(3):
        connection.request("GET", "/indices-list")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'["photos"]')
        assert connection.sock is kept
    connection.close()


def test_what_people_make_is_kept_beside_the_vectors(service, folder):
    bus = {"classes": [{"name": "bus", "positive": ["bus"]}]}
    status, headers, _ = service.ask("/api/v1/sets/vehicles", bus, method="PUT")
    assert (status, (folder / "sets" / "vehicles.json").exists()) == (201, True)
    matching = {"If-Match": headers["ETag"]}
    assert service.ask("/api/v1/sets/vehicles", headers=matching, method="DELETE")[0] == 204
    marks = [{"item": "3", "class": "bus", "verdict": "wrong"}]
    assert service.ask("/api/v1/marks", marks)[2] == {"changed": 1}
    assert [mark.item for mark in Marks(folder).standing()] == [3]
    assert service.ask("/api/v1/marks", marks, method="DELETE")[2] == {"changed": 1}
    assert Marks(folder).standing() == []


def test_what_a_folder_gets_shows_in_a_running_service(tmp_path):
    folder = add_items(tmp_path / "c", 5)
    with running(folder) as service:
        everything = {**QUESTION, "num_images": 100}
        assert len(service.ask("/knn-service", everything)[2]) == 5
        add_items(folder, 4, seed=1)
        assert len(service.ask("/knn-service", everything)[2]) == 9


DEPLOY = {"classifier_configs": [{"name": "bus", "examples_to_include": ["a bus"]}]}


def test_deployed_classifiers_lie_in_the_first_collection(service, folder):
    _, _, said = service.ask("/deploy_classifier", DEPLOY)
    assert said["message"] == "New model deployed."
    assert [path.stem for path in (folder / "sets").iterdir()] == [said["deployed_id"]]
    assert service.ask(f"/model_config?deployed_id={said['deployed_id']}")[2]["classifier_configs"][0]["name"] == "bus"


def test_a_model_alone_classifies_with_what_redis_holds(tmp_path):
    id = "b5d1bdec-3bf3-4632-a011-538384d5bcb1"
    stored = {
        "labels": ["red", "blue"],
        "inc_sub_labels_dict": {"red": ["red"], "blue": ["blue"]},
        "exc_sub_labels_dict": {},
    }
    red = encoded(Image.new("RGB", (64, 64), "red"))
    with running_redis(tmp_path) as redis:
        with redis.client() as client:
            client.set(id, json.dumps(stored))
        with running("--model", "mini", "--store", redis.address) as service:
            status, _, said = service.ask(f"/classify?deployed_id={id}", *form(red))
            assert (status, said["pred"]) == (200, "red")
            assert service.ask("/deploy_classifier", {**DEPLOY, "deployed_id": id})[2]["message"] == "Model updated."
            assert service.ask("/indices-list")[2] == []
            with redis.client() as client:
                assert json.loads(client.get(id))["labels"] == ["bus"]
            assert service.ask(f"/classify?deployed_id={id}", *form(red))[2]["pred"] == "bus"
            detector = {"detector_configs": DEPLOY["classifier_configs"]}
            id = service.ask("/deploy_detector", detector)[2]["deployed_id"]
            with redis.client() as client:
                assert json.loads(client.get(id))["label_conf_thres"] == {"bus": 0.1}
            assert service.ask(f"/detect?deployed_id={id}", *form(red))[0] == 503  # it has none
            redis.process.terminate()
            redis.process.wait(60)
            for path, body in [(f"/model_config?deployed_id={id}", None), ("/deploy_classifier", DEPLOY)]:
                status, _, said = service.ask(path, body)
                assert (status, said["status_code"], said["data"]) == (502, 502, None)


def form(data):
    """Body and headers of a form with an image as `data`."""
    head = b'--b\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n'
    return head + data + b"\r\n--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([], "indices_paths.json does not exist"),
        (["--indices-paths", "broken.json"], "broken.json is not JSON"),
        (["a", "b/a"], "Two folders are called 'a'"),
        (["--model", "mini", "--store", "redis://127.0.0.1:1/0"], "Redis at 127.0.0.1:1 does not do"),
        (["--model", "nonsense"], "The model 'nonsense' is not known"),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path, arguments, words):
    (tmp_path / "broken.json").write_text("{")
    words_ = [sys.executable, "-m", "clipsieve", "back", *arguments, "--port", "0"]
    done = subprocess.run(words_, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
