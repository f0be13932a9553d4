"""/v1/embeddings, with OpenAI's own client and without."""

import base64
import threading

import numpy as np
import openai
import pytest
from werkzeug.serving import make_server

from clipsieve.back.app import create_embedding_app
from clipsieve.back.guard import Policy
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from tests.inference.pictures import encoded, picture

FAKE = FakeEmbedder(16)
TEXTS = ["a red bus", "x", "größer"]
IMAGE = encoded(picture(1, (6, 5)))
URL = "data:image/png;base64," + base64.b64encode(IMAGE).decode()
TOKEN = "a-token-to-read"


@pytest.fixture(scope="module")
def app():
    with batched(FAKE) as embedder:
        yield create_embedding_app(lambda: embedder, Meters(), Protection(Policy(read_token=TOKEN)))


@pytest.fixture(scope="module")
def address(app):
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def client(address):
    with openai.OpenAI(api_key=TOKEN, base_url=address, max_retries=0) as client:
        yield client


@pytest.fixture
def plain(app):
    def ask(body):
        return app.test_client().post("/v1/embeddings", json=body, headers={"Authorization": f"Bearer {TOKEN}"})

    return ask


def rows_of(answer):
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return np.array([one.embedding for one in answer.data], np.float32)


@pytest.mark.parametrize("form", [{}, {"encoding_format": "float"}])
def test_texts(client, form):
    answer = client.embeddings.create(model="text-embedding-3-small", input=TEXTS, **form)
    np.testing.assert_array_equal(rows_of(answer), FAKE.embed_texts(TEXTS))
    assert (answer.model, answer.usage.total_tokens) == ("fake", 5 + 3 + 3)
    np.testing.assert_array_equal(rows_of(client.embeddings.create(model="", input="a")), FAKE.embed_texts(["a"]))


def test_images_among_texts(client):
    answer = client.embeddings.create(model="fake", input=["a red bus", URL, "x"])
    expected = np.stack([*FAKE.embed_texts(["a red bus"]), *FAKE.embed_images([IMAGE]), *FAKE.embed_texts(["x"])])
    np.testing.assert_array_equal(rows_of(answer), expected)


def test_the_models(client):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").owned_by == "clipsieve"
    with pytest.raises(openai.NotFoundError, match="there is 'fake'"):
        client.models.retrieve("other")


def test_what_is_refused_is_the_clients_own_error(client, address):
    with pytest.raises(openai.BadRequestError, match="The file is no image"):
        client.embeddings.create(model="", input="data:image/png;base64,QUJD")
    with (
        openai.OpenAI(api_key="another-token", base_url=address, max_retries=0) as other,
        pytest.raises(openai.AuthenticationError, match="A token is needed"),
    ):
        other.embeddings.create(model="", input="a")


@pytest.mark.parametrize(
    "body",
    [
        {"input": URL.replace("data:image/png", "DATA:image/png")},
        {"input": URL.replace("image/png", "application/octet-stream")},
        {"input": URL.replace("image/png;", "image/png;charset=utf-8;")},
        {"input": URL, "modality": "image"},
        {"input": URL.partition(",")[2], "modality": "image"},
    ],
)
def test_an_image_is_one_in_every_spelling(plain, body):
    expected, got = plain({"input": URL}).json, plain(body).json
    assert (got["data"], got["usage"]) == (expected["data"], expected["usage"])


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ([], "no object"),
        ({}, "a text is expected"),
        ({"input": []}, "1 to 2,048"),
        ({"input": ["a"] * 2049}, "1 to 2,048"),
        ({"input": [1, 2]}, "token ids are not taken"),
        ({"input": [[1, 2]]}, "token ids are not taken"),
        ({"input": "data:image/png,abc"}, "data URL in base64"),
        ({"input": "data:image/png;base64,a b"}, "not base64"),
        ({"input": "https://example.com/x.png", "modality": "image"}, "an address is no image"),
        ({"input": "a red bus", "modality": "image"}, "not base64"),
        ({"input": "a", "modality": "audio"}, "neither text nor image"),
        ({"input": "a", "encoding_format": "int8"}, "neither float nor base64"),
        ({"input": "a", "dimensions": 15}, "vectors have 16"),
    ],
)
def test_requests_that_are_refused(plain, body, words):
    answer = plain(body)
    assert (answer.status_code, set(answer.json["error"])) == (400, {"message", "type", "param", "code"})
    assert words in answer.json["error"]["message"]


def test_a_route_that_is_not_there_is_said_in_the_same_shape(app):
    answer = app.test_client().get("/v1/chat/completions", headers={"Authorization": f"Bearer {TOKEN}"})
    assert (answer.status_code, answer.json["error"]["type"]) == (404, "invalid_request_error")


def test_a_text_that_is_cut_is_told_and_an_empty_one_refused(plain):
    assert "X-Clipsieve-Note" not in plain({"input": "a"}).headers
    assert "'rest' is left out" in plain({"input": ["a", "word " * 40 + "rest"]}).headers["X-Clipsieve-Note"]
    for given in ("", ["a", " "]):
        answer = plain({"input": given})
        assert answer.status_code == 400
        assert "an empty text" in answer.json["error"]["message"]
