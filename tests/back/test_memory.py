"""A service without memory says so, and goes on."""

import errno

import pytest

from clipsieve.errors import InputError, lacks_memory
from tests.back.made import add_items, serve

QUESTION = {"modality": "image", "num_images": 2, "indice_name": "photos", "image_url": "https://example.org/1.jpg"}


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")])
def test_a_request_for_which_there_is_no_memory_may_come_again(tmp_path, error):
    def fetch(url):
        raise error

    client, shelf = serve({"photos": add_items(tmp_path / "photos", 3)}, fetch)
    for path, body in (("/knn-service", QUESTION), ("/api/v1/fetch", {"url": QUESTION["image_url"]})):
        answer = client.post(path, json=body)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert "not enough memory" in answer.text
    assert client.get("/healthz").status_code == 200
    assert client.post("/knn-service", json={**QUESTION, "text": "a bus"}).status_code == 200
    shelf.close()


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("can't start new thread"), True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True),
        (OSError("Error while deserializing header: Cannot allocate memory (os error 12)"), True),
        (ImportError("No module named 'torch'"), False),
        (RuntimeError("The shapes do not fit."), False),
        (OSError(errno.ENOENT, "No such file"), False),
        (InputError("allocate memory"), False),
    ],
)
def test_what_says_that_there_is_no_memory(error, lacks):
    assert lacks_memory(error) == lacks
