"""`clipsieve back` in a process of its own, over sockets."""

import http.client
import signal
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from clipsieve.index.build import build_indices
from tests.back.made import FAKE, add_items
from tests.back.service import running

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
        assert service.process.wait(60) == 0


def test_connections_are_kept(service):
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=30)
    connection.connect()
    socket = connection.sock
    for _ in range(3):
        connection.request("GET", "/indices-list")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b'["photos"]')
        assert connection.sock is socket
    connection.close()


def test_what_a_folder_gets_shows_in_a_running_service(tmp_path):
    folder = add_items(tmp_path / "c", 5)
    with running(folder) as service:
        everything = {**QUESTION, "num_images": 100}
        assert len(service.ask("/knn-service", everything)[2]) == 5
        add_items(folder, 4, seed=1)
        assert len(service.ask("/knn-service", everything)[2]) == 9


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere is not a folder"),
        ([], "indices_paths.json does not exist"),
        (["--indices-paths", "broken.json"], "broken.json is not JSON"),
        (["a", "b/a"], "Two folders are called 'a'"),
    ],
)
def test_what_cannot_be_served_is_said(tmp_path, arguments, words):
    (tmp_path / "broken.json").write_text("{")
    words_ = [sys.executable, "-m", "clipsieve", "back", *arguments, "--port", "0"]
    done = subprocess.run(words_, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode in (1, 2)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
