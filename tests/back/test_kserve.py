"""KServe's protocol v2: what a real Triton answered to the same requests, by status and by what is in the answer."""

import base64
import gzip
import json
import zlib

import numpy as np
import pytest

from clipsieve.back.app import create_app, create_embedding_app
from clipsieve.back.guard import Policy
from clipsieve.back.meters import Meters
from clipsieve.back.protect import Protection
from clipsieve.back.shelf import Shelf
from clipsieve.errors import Overloaded, TimedOut
from clipsieve.inference.batch_request import BatchOptions
from clipsieve.inference.batcher import batched
from clipsieve.inference.fake import FakeEmbedder
from tests.inference.pictures import encoded, picture

FAKE = FakeEmbedder(16)
CONTEXT = FAKE.context
IDS = list(range(CONTEXT))
IMAGE = encoded(picture(1, (6, 5)))
TEXT_INFER, IDS_INFER, IMAGE_INFER, PIXEL_INFER = (
    f"/v2/models/{name}/infer" for name in ("embed_text", "siglip_text", "embed_image", "siglip_vision")
)


@pytest.fixture
def client():
    with batched(FAKE, BatchOptions(max_batch=32)) as embedder:
        protection = Protection(Policy(max_bytes=10_000))
        yield create_embedding_app(lambda: embedder, Meters(), protection).test_client()


def ids(data=IDS, shape=(1, CONTEXT), datatype="INT64", name="INPUT_IDS", **more):
    return {"inputs": [{"name": name, "shape": list(shape), "datatype": datatype, "data": data}], **more}


def texts(data, shape=None, **more):
    one = {"name": "INPUT_TEXT", "shape": shape or [len(data), 1], "datatype": "BYTES", "data": data}
    return {"inputs": [one], **more}


def rows_of(answer):
    assert answer.status_code == 200, answer.text
    (output,) = answer.json["outputs"]
    assert (output["name"], output["datatype"]) == ("EMBEDDING", "FP32")
    return np.array(output["data"], np.float32).reshape(output["shape"])


def of_ids(*rows):
    return FAKE.embed_tokens(FAKE.from_ids(np.array(rows, np.int64)))


def binary(value, *tensors):
    head = json.dumps(value).encode()
    return {"data": head + b"".join(tensors), "headers": {"Inference-Header-Content-Length": str(len(head))}}


def read_binary(answer):
    assert answer.status_code == 200, answer.text
    assert answer.mimetype == "application/octet-stream"
    length = int(answer.headers["Inference-Header-Content-Length"])
    (output,) = json.loads(answer.data[:length])["outputs"]
    assert output["parameters"]["binary_data_size"] == len(answer.data) - length
    assert "data" not in output
    return np.frombuffer(answer.data[length:], "<f4").reshape(output["shape"])


# ------------------------------------------------------------------------------------------------ what the service is


@pytest.mark.parametrize("path", ["health/live", "health/ready", "models/siglip_text/ready"])
def test_health_is_an_empty_answer(client, path):
    answer = client.get(f"/v2/{path}")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, b"", "text/plain")


def test_a_service_that_opens_is_not_ready():
    protection = Protection()
    protection.state.ready = False
    client = create_embedding_app(lambda: FAKE, Meters(), protection).test_client()
    assert client.get("/v2/health/live").status_code == 200
    assert client.get("/v2/health/ready").status_code == 503


def test_the_server_names_what_it_can(client):
    assert client.get("/v2").json["extensions"] == [
        "classification",
        "model_repository",
        "model_configuration",
        "binary_tensor_data",
        "parameters",
        "statistics",
    ]


@pytest.mark.parametrize(
    ("name", "inputs", "rows"),
    [
        ("siglip_text", [("INPUT_IDS", "INT64", [-1, CONTEXT]), ("INPUT_TEXT", "BYTES", [-1, 1])], 32),
        ("siglip_vision", [("PIXEL_VALUES", "FP32", [-1, 3, 4, 4])], 32),
        ("embed_text", [("INPUT_TEXT", "BYTES", [-1, 1])], 60),
        ("embed_image", [("INPUT_IMAGE", "BYTES", [-1, 1])], 60),
    ],
)
def test_models_have_the_names_datatypes_and_shapes_that_were_deployed(client, name, inputs, rows):
    for path in (f"/v2/models/{name}", f"/v2/models/{name}/versions/1"):
        assert client.get(path).json == {
            "name": name,
            "versions": ["1"],
            "platform": "python",
            "inputs": [{"name": n, "datatype": d, "shape": s} for n, d, s in inputs],
            "outputs": [{"name": "EMBEDDING", "datatype": "FP32", "shape": [-1, 16]}],
        }
    config = client.get(f"/v2/models/{name}/config").json
    assert config["max_batch_size"] == rows
    assert [one["dims"] for one in config["input"]] == [shape[1:] for _, _, shape in inputs]
    assert config["input"][-1]["data_type"] == {"BYTES": "TYPE_STRING"}.get(inputs[-1][1], "TYPE_FP32")
    assert config["dynamic_batching"]["preferred_batch_size"] == [32]


def test_the_repository_lists_them(client):
    names = ["siglip_text", "embed_text", "siglip_vision", "embed_image"]
    assert client.post("/v2/repository/index").json == [
        {"name": name, "version": "1", "state": "READY"} for name in names
    ]
    refused = client.post("/v2/repository/models/siglip_text/unload")
    assert (refused.status_code, list(refused.json)) == (400, ["error"])


def test_a_model_of_images_alone_has_no_texts():
    class Images:
        model, dim, lanes, pixels = FAKE.model, FAKE.dim, 1, None
        preprocess, preprocess_image, from_pixels = FAKE.preprocess, FAKE.preprocess_image, FAKE.from_pixels
        embed_images, embed_tensors = FAKE.embed_images, FAKE.embed_tensors

    with batched(Images()) as embedder:
        client = create_embedding_app(lambda: embedder, Meters(), Protection()).test_client()
        assert [model["name"] for model in client.post("/v2/repository/index").json] == ["embed_image"]
        assert client.get("/v2/models/embed_text").status_code == 404


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nope", 404),
        ("GET", "/v2/models/siglip_text/versions/7", 404),
        ("GET", "/v2/models/nope/ready", 400),
        ("GET", "/v2/models/siglip_text/versions/7/ready", 400),
        ("GET", "/v2/models/nope/stats", 404),
        ("GET", "/v2/bogus", 404),
        ("GET", IDS_INFER, 405),
        ("POST", "/v2/models/nope/infer", 404),
        ("POST", "/v2/models/siglip_text/versions/9/infer", 404),
        ("POST", IDS_INFER, 400),
    ],
)
def test_what_is_not_there_is_said_in_the_protocols_shape(client, method, path, status):
    answer = client.open(path, method=method)
    assert answer.status_code == status
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)


# --------------------------------------------------------------------------------------------------------- inference


def test_flat_and_nested_values_and_rows_in_order(client):
    expected = of_ids(IDS, IDS[::-1])
    flat = client.post(IDS_INFER, json=ids(IDS + IDS[::-1], (2, CONTEXT), id="abc"))
    np.testing.assert_array_equal(rows_of(flat), expected)
    assert list(flat.json) == ["id", "model_name", "model_version", "outputs"]
    assert (flat.json["id"], flat.json["model_name"], flat.json["model_version"]) == ("abc", "siglip_text", "1")
    nested = client.post("/v2/models/siglip_text/versions/1/infer", json=ids([IDS, IDS[::-1]], (2, CONTEXT)))
    np.testing.assert_array_equal(rows_of(nested), expected)
    assert "id" not in nested.json


def test_both_generations_of_the_text_model_are_answered(client):
    words = ["a red bus", "größer"]
    expected = FAKE.embed_texts(words)
    for path in (IDS_INFER, TEXT_INFER):
        np.testing.assert_array_equal(rows_of(client.post(path, json=texts(words))), expected)
        np.testing.assert_array_equal(rows_of(client.post(path, json=texts([[w] for w in words]))), expected)
    both = ids()
    both["inputs"].extend(texts(["a"])["inputs"])
    assert client.post(IDS_INFER, json=both).status_code == 400


def test_pixels(client):
    pixels = np.random.default_rng(0).standard_normal((2, *FAKE.pixels)).astype(np.float32)
    body = ids(pixels.tolist(), pixels.shape, "FP32", "PIXEL_VALUES")
    expected = FAKE.embed_tensors(FAKE.from_pixels(pixels))
    np.testing.assert_array_equal(rows_of(client.post(PIXEL_INFER, json=body)), expected)
    del body["inputs"][0]["data"]
    body["inputs"][0]["parameters"] = {"binary_data_size": pixels.nbytes}
    answer = client.post(PIXEL_INFER, **binary(body, pixels.tobytes()))
    np.testing.assert_array_equal(rows_of(answer), expected)  # bytes alone do not make the answer bytes


def test_an_image_as_the_body_is_answered_with_bytes(client):
    headers = {"Inference-Header-Content-Length": "0", "Content-Type": "application/octet-stream"}
    answer = client.post(IMAGE_INFER, data=IMAGE, headers=headers)
    np.testing.assert_array_equal(read_binary(answer), FAKE.embed_images([IMAGE]))
    raw = np.array(IDS, "<i8").tobytes()
    np.testing.assert_array_equal(read_binary(client.post(IDS_INFER, data=raw, headers=headers)), of_ids(IDS))
    short = client.post(IDS_INFER, data=b"123", headers=headers)
    assert (short.status_code, list(short.json)) == (400, ["error"])


def test_an_image_in_base64(client):
    one = {"name": "INPUT_IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": [base64.b64encode(IMAGE).decode()]}
    body = {"inputs": [one], "parameters": {"base64_encoded": True}}
    np.testing.assert_array_equal(rows_of(client.post(IMAGE_INFER, json=body)), FAKE.embed_images([IMAGE]))
    one["data"] = ["no base64!"]
    assert client.post(IMAGE_INFER, json=body).status_code == 400


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": {"binary_data_output": True}},
        {"outputs": [{"name": "EMBEDDING", "parameters": {"binary_data": True}}]},
        {
            "outputs": [{"name": "EMBEDDING", "parameters": {"binary_data": True}}],
            "parameters": {"binary_data_output": False},
        },
    ],
)
def test_bytes_are_answered_where_they_are_asked_for(client, more):
    np.testing.assert_array_equal(read_binary(client.post(IDS_INFER, json=ids(**more))), of_ids(IDS))


def test_an_output_has_the_last_word_on_its_own_form(client):
    more = {
        "outputs": [{"name": "EMBEDDING", "parameters": {"binary_data": False}}],
        "parameters": {"binary_data_output": True},
    }
    np.testing.assert_array_equal(rows_of(client.post(IDS_INFER, json=ids(**more))), of_ids(IDS))


def test_elements_of_bytes_come_each_after_their_length(client):
    words = ["a red bus", "x", "größer"]
    tensor = b"".join(len(w.encode()).to_bytes(4, "little") + w.encode() for w in words)
    one = {"name": "INPUT_TEXT", "shape": [3, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(tensor)}}
    answer = client.post(TEXT_INFER, **binary({"inputs": [one]}, tensor))
    np.testing.assert_array_equal(rows_of(answer), FAKE.embed_texts(words))


def test_the_greatest_values_with_their_places(client):
    wanted = [{"name": "EMBEDDING", "parameters": {"classification": 2}}]
    (output,) = client.post(IDS_INFER, json=ids(outputs=wanted)).json["outputs"]
    row = of_ids(IDS)[0]
    best = np.argsort(-row)[:2]
    assert output == {
        "name": "EMBEDDING",
        "datatype": "BYTES",
        "shape": [1, 2],
        "data": [f"{row[i]:f}:{i}" for i in best],
    }


@pytest.mark.parametrize(("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_both_ways(client, name, pack):
    body = binary(ids(parameters={"binary_data_output": True}))
    headers = {**body["headers"], "Content-Encoding": name, "Accept-Encoding": name}
    answer = client.post(IDS_INFER, data=pack(body["data"]), headers=headers)
    assert answer.headers["Content-Encoding"] == name
    answer.data = gzip.decompress(answer.data) if name == "gzip" else zlib.decompress(answer.data)
    np.testing.assert_array_equal(read_binary(answer), of_ids(IDS))


def test_whoever_names_all_that_it_reads_is_not_sent_packed_answers(client):
    answer = client.post(IDS_INFER, json=ids(), headers={"Accept-Encoding": "gzip, deflate, br"})
    assert "Content-Encoding" not in answer.headers
    assert rows_of(answer).shape == (1, 16)


@pytest.mark.parametrize(
    ("data", "encoding", "words"),
    [
        (gzip.compress(b" " * 20_000, mtime=0), "gzip", "more than 10,000 bytes unpacked"),
        (gzip.compress(b"{}", mtime=0)[:-3], "gzip", "as a whole"),
        (b"{}", "gzip", "not gzip"),
        (b"{}", "br", "not read"),
    ],
)
def test_packed_bodies_that_are_refused(client, data, encoding, words):
    answer = client.post(IDS_INFER, data=data, headers={"Content-Encoding": encoding})
    assert answer.status_code == 400
    assert words in answer.json["error"]


def wrong(**changes):
    """A request whose one input differs from a good one; None leaves a field out."""
    (one,) = ids()["inputs"]
    one = {name: value for name, value in {**one, **changes}.items() if value is not None}
    return {"inputs": [one]}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (ids(IDS * 33, (33, CONTEXT)), "33 rows; one request has 1 to 32"),
        (ids([], (0, CONTEXT)), "0 rows"),
        (ids(shape=(CONTEXT,)), "the rows first"),
        (ids(IDS[:5], (1, 5)), "takes [-1, 8]"),
        (ids(IDS[:5]), "has 5 values"),
        (ids([IDS, IDS[:3]], (2, CONTEXT)), "different lengths"),
        (ids(datatype="INT32"), "takes INT64"),
        (ids(datatype="INT99"), "none of BOOL"),
        (ids(name="X"), "there is INPUT_IDS and INPUT_TEXT"),
        (ids([0.5] * CONTEXT), "something else"),
        (ids(["a"] * CONTEXT), "something else"),
        (ids([2**63] * CONTEXT), "beyond INT64"),
        (ids([-1] * CONTEXT), "token id -1"),
        (ids(None), "no list of values"),
        (wrong(shape="x"), "no list of whole numbers"),
        (wrong(shape=None), "no list of whole numbers"),
        (wrong(parameters={"binary_data_size": 8}), "in the JSON and after it"),
        (wrong(data=None, parameters={"binary_data_size": 64}), "64 bytes, and 0 are there"),
        (ids(outputs=[{"name": "NOPE"}]), "'EMBEDDING' alone"),
        (ids(outputs=[{"name": "EMBEDDING"}] * 2), "'EMBEDDING' alone"),
        (ids(outputs=7), "a list is expected"),
        (ids(id=7), "no text"),
        (ids(parameters=[]), "an object is expected"),
        (ids(parameters={"binary_data_output": 7}), "true or false"),
        (ids(parameters={"timeout": "soon"}), "microseconds"),
        (ids(parameters={"priority": 9}), "1 to 3"),
        ({"inputs": ids()["inputs"] * 2}, "given twice"),
        ({"inputs": [*ids()["inputs"], *texts(["a", "b"])["inputs"]]}, "2 rows and the one before 1"),
        ({"inputs": []}, "no inputs"),
        ({}, "no inputs"),
        ([], "an object is expected"),
    ],
)
def test_requests_that_are_refused_with_a_sentence(client, body, words):
    answer = client.post(IDS_INFER, json=body)
    assert (answer.status_code, list(answer.json)) == (400, ["error"])
    assert words in answer.json["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (texts([3]), "each element is a text"),
        (texts(["a"], [2, 1]), "has 1 elements, and its shape 2"),
        (texts(["a"], parameters={"embed_model": "multilingual_e5_large"}), "this service has 'siglip_text'"),
    ],
)
def test_texts_that_are_refused(client, body, words):
    answer = client.post(TEXT_INFER, json=body)
    assert answer.status_code == 400
    assert words in answer.json["error"]


@pytest.mark.parametrize(
    ("size", "tensor", "words"),
    [
        (6, b"\x02\0\0\0ab", None),
        (5, b"\x02\0\0\0a", "ends within its element 0"),
        (3, b"\x02\0\0", "ends within its element 0"),
        (0, b"", "has 0 elements"),
        (6, b"\x02\0\0\0\xff\xfe", "not UTF-8"),
        (6, b"\x02\0\0\0abc", "1 bytes are left over"),
        (7, b"\x02\0\0\0ab", "7 bytes, and 6 are there"),
        (-1, b"", "-1 bytes"),
    ],
)
def test_bytes_that_are_not_what_the_json_says(client, size, tensor, words):
    one = {"name": "INPUT_TEXT", "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": size}}
    answer = client.post(TEXT_INFER, **binary({"inputs": [one]}, tensor))
    assert (answer.status_code == 200) is (words is None)
    assert words is None or words in answer.json["error"]


@pytest.mark.parametrize(("data", "length"), [(b"{not", None), (b"{}", "99"), (b"{}", "x"), (b"\xff", None)])
def test_bodies_that_are_none(client, data, length):
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    answer = client.post(IDS_INFER, data=data, headers=headers)
    assert (answer.status_code, list(answer.json)) == (400, ["error"])


def test_json_that_costs_more_than_it_seems_to_is_refused_and_bytes_are_no_json(client):
    deep = client.post(IDS_INFER, data=b"[" * 5000)
    assert deep.status_code == 400
    assert "within each other" in deep.json["error"]
    headers = {"Inference-Header-Content-Length": "0"}
    answer = client.post(IMAGE_INFER, data=b"[" * 5000, headers=headers)
    assert "no image" in answer.json["error"]


# ---------------------------------------------------------------------------------------------------- how it is batched


def test_timeout_and_priority_are_the_batchers():
    seen = []

    class Seen(FakeEmbedder):
        options = BatchOptions()

        def embed_texts(self, texts, **how):
            seen.append(how)
            if texts == ["late"]:
                raise TimedOut("late")
            if texts == ["many"]:
                raise Overloaded("many", 7)
            return super().embed_texts(texts)

    client = create_embedding_app(lambda: Seen(), Meters(), Protection()).test_client()
    for parameters in ({}, {"priority": 1, "timeout": 1500}, {"priority": 3}):
        rows_of(client.post(TEXT_INFER, json=texts(["a"], parameters=parameters)))
    assert [(how["timeout"], how["priority"]) for how in seen] == [(None, 0), (0.0015, -1), (None, 1)]
    assert {how["name"] for how in seen} == {"embed_text"}
    assert client.post(TEXT_INFER, json=texts(["late"])).status_code == 503
    many = client.post(TEXT_INFER, json=texts(["many"]))
    assert (many.status_code, many.headers["Retry-After"], many.json) == (503, "7", {"error": "many"})


def test_a_text_beyond_the_context_is_refused_unless_it_may_be_cut(client):
    given = ["short", "one two three four five six seven"]
    answer = client.post(TEXT_INFER, json=texts(given))
    assert answer.status_code == 400
    assert "'one two three four five six seven' has 9 tokens, and the model reads 8" in answer.json["error"]
    for yes in (True, "true"):
        rows_of(client.post(TEXT_INFER, json=texts(given, parameters={"truncation": yes})))


def test_a_request_may_have_as_many_rows_as_a_batch():
    with batched(FAKE, BatchOptions(max_batch=64)) as embedder:
        client = create_embedding_app(lambda: embedder, Meters(), Protection()).test_client()
        assert b'"max_batch_size":64' in client.get("/v2/models/siglip_text/config").data
        assert len(rows_of(client.post(TEXT_INFER, json=texts(["a"] * 64)))) == 64
        assert client.post(TEXT_INFER, json=texts(["a"] * 65)).status_code == 400


def test_statistics_are_of_what_ran(client):
    def stats(name):
        (one,) = client.get(f"/v2/models/{name}/stats").json["model_stats"]
        return one

    before = stats("siglip_text")
    assert (before["inference_count"], before["execution_count"], before["last_inference"]) == (0, 0, 0)
    rows_of(client.post(IDS_INFER, json=ids(IDS * 3, (3, CONTEXT))))
    rows_of(client.post(IDS_INFER, json=ids()))
    rows_of(client.post(TEXT_INFER, json=texts(["a", "b"])))
    one = {"name": "INPUT_IMAGE", "shape": [1, 1], "datatype": "BYTES", "data": ["no image"]}
    assert client.post(IMAGE_INFER, json={"inputs": [one]}).status_code == 400
    after = stats("siglip_text")
    assert (after["inference_count"], after["execution_count"]) == (4, 2)
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in after["batch_stats"]] == [(1, 1), (3, 1)]
    parts = after["inference_stats"]
    assert {parts[n]["count"] for n in ("success", "queue", "compute_infer", "compute_output")} == {2}
    assert 0 < parts["queue"]["ns"] + parts["compute_infer"]["ns"] <= parts["success"]["ns"]
    assert after["last_inference"] > 1.7e12
    assert (stats("embed_text")["inference_count"], stats("embed_text")["execution_count"]) == (2, 1)
    assert stats("embed_image")["inference_stats"]["fail"]["count"] == 1
    everyone = client.get("/v2/models/stats").json["model_stats"]
    assert [m["inference_count"] for m in everyone] == [4, 2, 0, 0]


def test_the_service_of_collections_answers_it_too_and_each_protocol_in_its_shape():
    with batched(FAKE) as embedder:
        app = create_app(Shelf(), fetch=lambda url: b"", encoder=lambda: embedder)
        client = app.test_client()
        np.testing.assert_array_equal(rows_of(client.post(IDS_INFER, json=ids())), of_ids(IDS))
        assert isinstance(client.get("/v2/bogus").get_json()["error"], str)
        assert isinstance(client.get("/api/v1/bogus").get_json()["error"], dict)
        assert "message" in client.post("/knn-service", json={}).get_json()
    without = create_app(Shelf(), fetch=lambda url: b"").test_client()
    assert without.get("/v2").status_code == 404


def test_every_route_is_described(client):
    paths = client.get("/openapi").json["paths"]
    infer = paths["/v2/models/{name}/infer"]["post"]
    assert set(infer["requestBody"]["content"]) == {"application/json", "application/octet-stream"}
    assert infer["responses"]["default"]["content"]["application/json"]["schema"]["required"] == ["error"]
    own = [path for path in paths if path.startswith("/v2")]
    assert len(own) == 16
    assert all(o["responses"]["200"]["content"] for path in own for o in paths[path].values())


@pytest.mark.parametrize("parameters", [{}, {"truncation": True}])
def test_an_empty_text_is_refused(client, parameters):
    one = {"name": "INPUT_TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [" "]}
    answer = client.post(TEXT_INFER, json={"inputs": [one], "parameters": parameters})
    assert answer.status_code == 400
    assert "an empty text" in answer.json["error"]


@pytest.mark.parametrize("datatype", [[], ["INT64"], {}, {"INT64": 1}, None, 64])
def test_a_datatype_that_is_no_text_is_refused(client, datatype):
    answer = client.post(IDS_INFER, json=ids(datatype=datatype))
    assert answer.status_code == 400
    assert list(answer.json) == ["error"]
    assert "datatype" in answer.json["error"]
