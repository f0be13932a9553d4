"""Files of a collection that somebody spoils while it is served: 503 and a sentence in each protocol's shape."""

import os

import pytest

from tests.back.made import add_items, serve

COUNT = 12

ROUTES = {
    "own": (
        "/api/v1/search",
        {"class": {"positive": ["bus"]}, "collection": "photos"},
        lambda said: said["error"]["message"],
    ),
    "clip-retrieval": (
        "/knn-service",
        {"text": "bus", "modality": "image", "num_images": 3, "indice_name": "photos"},
        lambda said: said["message"],
    ),
}


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", COUNT, width=list(range(COUNT)))


@pytest.fixture
def client(folder):
    client, shelf = serve({"photos": folder})
    yield client
    shelf.close()


def overwrite(path):
    with path.open("r+b") as file:
        file.seek(-50, os.SEEK_END)
        file.write(bytes(50))
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(path, ns=(later, later))


@pytest.mark.parametrize(("path", "body", "sentence"), ROUTES.values(), ids=ROUTES)
@pytest.mark.parametrize("spoil", [overwrite, lambda path: os.truncate(path, 200)], ids=["overwritten", "cut short"])
def test_vectors_spoilt_while_served(client, folder, path, body, sentence, spoil):
    (vectors,) = (folder / "img_emb").iterdir()
    data, status = vectors.read_bytes(), vectors.stat()
    assert client.post(path, json=body).status_code == 200
    spoil(vectors)
    for _ in range(2):
        answer = client.post(path, json=body)
        assert answer.status_code == 503
        assert "img_emb_000000.npy has changed; run `clipsieve check`" in sentence(answer.get_json())
        assert "Retry-After" not in answer.headers  # waiting mends nothing
    vectors.write_bytes(data)  # restored from a copy
    os.utime(vectors, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize("damage", [b"", b"no database" * 100], ids=["emptied", "overwritten"])
def test_a_cache_spoilt_while_served_is_made_again(client, folder, damage):
    asked = {"class": {"positive": ["bus"]}, "where": "width > 9", "collection": "photos"}
    before = client.post("/api/v1/search", json=asked)
    (folder / "cache.sqlite").write_bytes(damage)
    for path, body in (
        ("/api/v1/search", asked),
        ("/metadata", {"ids": [0, 5], "indice_name": "photos"}),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == 200, answer.text
    again = client.post("/api/v1/search", json=asked).get_json()
    assert again["hits"] == before.get_json()["hits"]
    assert {hit["id"] for hit in again["hits"]} == {"10", "11"}
