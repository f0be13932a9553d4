"""An image that takes too much memory to decode is refused on every way in, and let in where there is room."""

import base64
import io
from contextlib import nullcontext

import pytest

from clipsieve.back.app import create_app, create_embedding_app
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection
from clipsieve.back.shelf import Served, Shelf
from clipsieve.errors import InputError
from clipsieve.image_memory import ImageMemory
from clipsieve.index.collection import open_collection
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from tests.back.made import DIM, FakeDetector, add_items
from tests.inference.pictures import encoded, picture

IMAGE = encoded(picture(1, (300, 300)), "WEBP")
TEXT = base64.b64encode(IMAGE).decode()
URL = f"data:image/webp;base64,{TEXT}"
CLASSES = [{"name": "bus", "examples_to_include": ["bus"], "examples_to_exclude": []}]
TOTAL = 20_000_000


@pytest.fixture
def memory():
    return ImageMemory(TOTAL, wait_s=0)


@pytest.fixture
def ways(tmp_path, memory):
    """Name of a way in -> what sends the image there."""
    embedder = FakeEmbedder(DIM, image_memory=memory)
    folder = add_items(tmp_path / "photos", 3)
    served = Served("photos", open_collection(folder, embedder=embedder), image_memory=memory)

    def fetch(url):
        raise InputError(f"{url} may not be asked for.")

    with batched(embedder) as model:
        app = create_app(
            Shelf([served]), fetch=fetch, embedder=lambda: model, detector=FakeDetector, image_memory=memory
        ).test_client()
        embedding = create_embedding_app(lambda: model, Meters(), Protection()).test_client()

        def directai(way, config):
            id = app.post(f"/deploy_{way}", json={f"{way}_configs": config}).get_json()["deployed_id"]
            path = f"/{'classify' if way == 'classifier' else 'detect'}?deployed_id={id}"
            return app.post(path, data={"data": (io.BytesIO(IMAGE), "a.webp", "image/webp")})

        tensor = {"name": "INPUT_IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [TEXT]}
        tensors = {"inputs": [tensor], "parameters": {"base64_encoded": True}}
        knn = {"modality": "image", "num_images": 2, "indice_name": "photos", "image": TEXT}
        yield {
            "knn-service": lambda: app.post("/knn-service", json=knn),
            "uploads": lambda: app.post(
                "/api/v1/uploads", data={"data": (io.BytesIO(IMAGE), "a.webp"), "collection": "photos"}
            ),
            "classify": lambda: directai("classifier", CLASSES),
            "detect": lambda: directai("detector", CLASSES),
            "openai": lambda: embedding.post("/v1/embeddings", json={"model": "fake", "input": URL}),
            "kserve": lambda: embedding.post("/v2/models/embed_image/infer", json=tensors),
        }
        served.collection.close()


@pytest.mark.parametrize("way", ["knn-service", "uploads", "classify", "detect", "openai", "kserve"])
def test_an_image_that_never_fits_is_413_and_one_that_does_not_now_503(ways, memory, way):
    for held, total, status in ((0, 10_000, 413), (TOTAL, TOTAL, 503), (0, TOTAL, 200)):
        memory.set(total, 0)
        with memory.hold(held, "another image") if held else nullcontext():
            answer = ways[way]()
        assert answer.status_code == status, answer.text
        if status != 200:
            assert answer.is_json
            assert "--image-memory" in answer.text
        assert (answer.headers.get("Retry-After") == "1") == (status == 503)
        assert memory.held == 0
