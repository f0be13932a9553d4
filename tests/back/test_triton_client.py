"""Triton's own client, against the service as a process with a real model."""

import asyncio

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from clipsieve.inference.embedder import TorchEmbedder, load_embedder
from tests.back.service import running
from tests.inference.pictures import encoded, picture

pytestmark = pytest.mark.slow

TEXTS = ["a red bus", "two dogs", "größer"]
IMAGES = [encoded(picture(i, (70, 50))) for i in range(3)]


@pytest.fixture(scope="module")
def mini():
    embedder = load_embedder("mini", device="cpu")
    assert isinstance(embedder, TorchEmbedder)
    return embedder


@pytest.fixture(scope="module")
def address():
    with running("--model", "mini", command=("embed-server",)) as service:
        yield service.url.removeprefix("http://")


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


def given(name, datatype, array, binary=True):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    return [tensor.set_data_from_numpy(array, binary_data=binary)]


def texts_in(texts, binary=True):
    return given("INPUT_TEXT", "BYTES", np.array([[text.encode()] for text in texts], object), binary)


def ids_of(mini, texts):
    return np.stack([one["text"] for one in mini.tokenize(texts)]).astype(np.int64)


def check(result, expected):
    """The rows have the model's own lengths, and the embedder's directions."""
    rows = result.as_numpy("EMBEDDING")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    assert not np.allclose(lengths, 1, atol=1e-3)
    np.testing.assert_allclose(rows / lengths, expected, atol=1e-5)


def test_what_there_is(client, mini):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("siglip_text")
    assert client.is_model_ready("siglip_text", "1")
    assert not client.is_model_ready("nope")
    assert client.get_server_metadata()["name"] == "clipsieve"
    assert client.get_model_metadata("siglip_text")["inputs"][0]["shape"] == [-1, mini.context]
    assert client.get_model_config("embed_text")["max_batch_size"] == 60
    assert len(client.get_model_repository_index()) == 4
    with pytest.raises(InferenceServerException, match="not known") as raised:
        client.get_model_metadata("nope")
    assert raised.value.status() == "404"


@pytest.mark.parametrize("binary", [True, False])
def test_every_model_by_bytes_and_by_json(client, mini, binary):
    wanted = [triton.InferRequestedOutput("EMBEDDING", binary_data=binary)]
    ids = ids_of(mini, TEXTS)
    pixels = np.random.default_rng(0).standard_normal((2, *mini.pixels)).astype(np.float32)
    for model, inputs, expected in [
        ("siglip_text", given("INPUT_IDS", "INT64", ids, binary), mini.embed_texts(TEXTS)),
        ("siglip_text", texts_in(TEXTS, binary), mini.embed_texts(TEXTS)),
        ("embed_text", texts_in(TEXTS, binary), mini.embed_texts(TEXTS)),
        ("siglip_vision", given("PIXEL_VALUES", "FP32", pixels, binary), mini.embed_tensors(mini.from_pixels(pixels))),
    ]:
        result = client.infer(model, inputs, outputs=wanted, request_id="mine")
        check(result, expected)
        assert result.get_response()["id"] == "mine"


def test_images_as_bytes(client, mini):
    images = np.array([[image] for image in IMAGES], object)
    check(client.infer("embed_image", given("INPUT_IMAGE", "BYTES", images)), mini.embed_images(IMAGES))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_both_ways(client, mini, algorithm):
    result = client.infer(
        "embed_text",
        texts_in(TEXTS),
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    check(result, mini.embed_texts(TEXTS))


def test_many_requests_of_several_rows_at_once_keep_their_rows(address, mini):
    plans = [[f"text {i} {j}" for j in range(1 + i % 3)] for i in range(60)]
    with triton.InferenceServerClient(address, concurrency=30) as client:
        asked = [client.async_infer("embed_text", texts_in(plan)) for plan in plans]
        for plan, one in zip(plans, asked, strict=True):
            check(one.get_result(timeout=60), mini.embed_texts(plan))


def test_from_asyncio(address, mini):
    async def ask():
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            asked = (client.infer("embed_text", texts_in([text])) for text in TEXTS)
            return await asyncio.gather(*asked)

    for text, result in zip(TEXTS, asyncio.run(ask()), strict=True):
        check(result, mini.embed_texts([text]))


def test_parameters_timeouts_and_priorities(client, mini):
    result = client.infer(
        "embed_text", texts_in(TEXTS), priority=1, timeout=30_000_000, parameters={"embed_model": "siglip_text"}
    )
    check(result, mini.embed_texts(TEXTS))
    with pytest.raises(InferenceServerException, match=r"within 1e-06 s") as raised:
        client.infer("embed_text", texts_in(TEXTS), timeout=1)
    assert raised.value.status() == "503"


def test_what_is_wrong_is_said(client):
    with pytest.raises(InferenceServerException, match="there is INPUT_TEXT") as raised:
        client.infer("embed_text", given("X", "INT64", np.zeros((1, 1), np.int64)))
    assert raised.value.status() == "400"


def test_statistics_are_of_what_was_asked(client):
    def stats():
        (one,) = client.get_inference_statistics("embed_text")["model_stats"]
        return one["inference_count"], one["execution_count"], one["inference_stats"]["success"]["count"]

    before = stats()
    for _ in range(4):
        client.infer("embed_text", texts_in(TEXTS))
    assert [now - then for now, then in zip(stats(), before, strict=True)] == [12, 4, 4]
