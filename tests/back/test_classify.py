"""DirectAI's protocol for classifiers: as its own tests and clients use it, and where its server answers wrongly."""

import io
import json
import uuid

import numpy as np
import pytest
from PIL import Image, ImageDraw

from clipsieve.back.app import create_app
from clipsieve.back.shelf import Shelf
from clipsieve.back.stores import MemoryStore
from clipsieve.errors import InputError, StoreUnavailable
from clipsieve.index.examples import unit_rows
from clipsieve.index.templates import OPENAI
from clipsieve.inference.embedder import load_embedder
from tests.back.made import FAKE
from tests.inference.pictures import encoded, jpeg, picture

BOTTLE = {"name": "bottle", "examples_to_include": ["bottle"], "examples_to_exclude": []}
CAN = {"name": "can", "examples_to_include": ["can"], "examples_to_exclude": []}
UNKNOWN = "b5d1bdec-3bf3-4632-a011-538384d5bcb1"
NO_IMAGE = {"status_code": 422, "message": "Invalid image received, unable to open.", "data": None}
NO_KEY = {"status_code": 400, "message": "Key not found", "data": None}
NO_STORE = {
    "status_code": 502,
    "message": "Exception in Model Config Storage Server. Please try again.",
    "data": None,
}


class Counting:
    """The fake model, which counts what it embeds."""

    model, dim = FAKE.model, FAKE.dim

    def __init__(self):
        self.texts, self.images = [], 0

    def embed_texts(self, texts):
        self.texts += texts
        return FAKE.embed_texts(texts)

    def embed_images(self, images):
        self.images += len(images)
        return FAKE.embed_images(images)


@pytest.fixture
def model():
    return Counting()


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def client(model, store):
    return serve(model, store)


def serve(model, store=None):
    return create_app(Shelf([]), fetch=lambda url: b"", embedder=lambda: model, store=store).test_client()


def deploy(client, *configs, **fields):
    return client.post("/deploy_classifier", json={"classifier_configs": list(configs), **fields})


def deployed(client, *configs, **fields):
    return deploy(client, *configs, **fields).get_json()["deployed_id"]


def classify(client, id, data, name="a.jpg"):
    return client.post(f"/classify?deployed_id={id}", data={"data": (io.BytesIO(data), name, "image/jpg")})


def get(client, id):
    return client.get(f"/model_config?deployed_id={id}")


def cosine(text, image, templates=("{}",)):
    rows = FAKE.embed_texts([template.replace("{}", text) for template in templates])
    return float(unit_rows(rows.mean(axis=0, keepdims=True))[0] @ FAKE.embed_images([image])[0])


# DirectAI's own tests of a classifier that need no trained weights.


def test_a_body_without_configs(client):
    message = "1 validation error for Request body -> classifier_configs field required (type=value_error.missing)"
    answer = client.post("/deploy_classifier", json={})
    assert (answer.status_code, answer.get_json()) == (422, {"data": None, "message": message, "status_code": 422})


def test_a_class_without_what_it_includes(client):
    where = "body -> classifier_configs -> 0 -> examples_to_include"
    message = f"1 validation error for Request {where} field required (type=value_error.missing)"
    answer = deploy(client, {"name": "bottle", "examples_to_exclude": []}, CAN)
    assert (answer.status_code, answer.get_json()) == (422, {"data": None, "message": message, "status_code": 422})


def test_no_classes(client):
    answer = deploy(client)
    expected = {"data": None, "message": "Class list is empty.", "status_code": 422}
    assert (answer.status_code, answer.get_json()) == (422, expected)


@pytest.mark.parametrize(
    "body",
    [
        {"classifier_configs": [BOTTLE, CAN]},
        {"classifier_configs": [{"name": n, "examples_to_include": [n]} for n in ("bottle", "can")]},
        {"classifier_configs": [BOTTLE, CAN], "augment_examples": False},
    ],
)
def test_a_classifier_is_deployed(client, body):
    answer = client.post("/deploy_classifier", json=body)
    assert answer.status_code == 200
    assert answer.get_json()["message"] == "New model deployed."
    assert uuid.UUID(answer.get_json()["deployed_id"]).version == 4


def test_what_was_deployed_is_told(client):
    body = {"classifier_configs": [BOTTLE, CAN], "augment_examples": True}
    id = client.post("/deploy_classifier", json=body).get_json()["deployed_id"]
    answer = get(client, id)
    assert (answer.status_code, answer.get_json()) == (200, {**body, "deployed_id": id})


@pytest.mark.parametrize("data", [b"This is not an image file", b"", jpeg(1)[: len(jpeg(1)) // 2], b"<svg/>"])
def test_what_is_no_image(client, data):
    for id in (deployed(client, BOTTLE, CAN), UNKNOWN):  # an image is looked at before the id
        answer = classify(client, id, data, "bad_file_path.suffix")
        assert (answer.status_code, answer.get_json()) == (422, NO_IMAGE)


# What its clients may rely on besides.


@pytest.mark.parametrize("augment", [True, False, None])
def test_scores_are_directais_formula(client, augment):
    configs = [
        {"name": "bottle", "examples_to_include": ["bottle", "flask"], "examples_to_exclude": ["vase"]},
        {"name": "can", "examples_to_include": ["can"], "examples_to_exclude": ["tin", "bottle"]},
        {"name": "", "examples_to_include": ["x"]},
    ]
    id = deployed(client, *configs, augment_examples=augment)
    templates = OPENAI if augment else ("{}",)
    decided = set()
    for seed in range(8):
        answer = classify(client, id, jpeg(seed))
        assert answer.status_code == 200
        value = answer.get_json()
        raw = {}
        for c in configs:
            d = [
                [(1 + cosine(text, jpeg(seed), templates)) / 2 for text in c.get(f"examples_to_{side}", [])]
                for side in ("include", "exclude")
            ]
            accepted = max(d[0]) > max(d[1], default=0)
            decided.add(accepted)
            raw[c["name"]] = max(d[0]) if accepted else 1 - max(d[1])
        assert value["raw_scores"] == pytest.approx(raw, abs=1e-6)
        powers = {name: np.exp(score / 0.07) for name, score in raw.items()}
        shares = {name: power / sum(powers.values()) for name, power in powers.items()}
        assert value["scores"] == pytest.approx(shares, abs=1e-5)
        assert sum(value["scores"].values()) == pytest.approx(1, abs=1e-12)
        assert value["pred"] == max(raw, key=raw.get)
    assert decided == {True, False}


@pytest.mark.parametrize(
    "image",
    [
        *((picture(0).convert(mode), "PNG") for mode in ("RGBA", "L", "1", "I;16")),
        *((picture(0), format) for format in ("GIF", "WEBP", "BMP")),
    ],
)
def test_every_kind_of_image_is_classified(client, image):
    assert classify(client, deployed(client, BOTTLE, CAN), encoded(*image)).status_code == 200


def test_a_known_id_is_changed_and_an_unknown_one_is_not_adopted(client, store):
    id = deployed(client, BOTTLE)
    assert deploy(client, CAN, deployed_id=id).get_json() == {"deployed_id": id, "message": "Model updated."}
    assert get(client, id).get_json()["classifier_configs"] == [CAN]
    for asked in (UNKNOWN, "", "my model", "../x"):
        answer = deploy(client, BOTTLE, deployed_id=asked).get_json()
        assert answer["message"] == f"{asked} model not found. Generated new model."
        assert answer["deployed_id"] != asked
        assert store.get(answer["deployed_id"]) is not None


def test_every_field_comes_back_with_its_default(client):
    id = deployed(client, {"name": "x", "examples_to_include": ["y", "y"]}, augment_examples=None, other=1)
    expected = [{"name": "x", "examples_to_include": ["y", "y"], "examples_to_exclude": []}]
    assert get(client, id).get_json() == {
        "classifier_configs": expected,
        "deployed_id": id,
        "augment_examples": None,
    }


def test_what_is_stored_is_what_directai_stores(client, store):
    id = deployed(client, {**BOTTLE, "examples_to_exclude": ["vase"]}, CAN, augment_examples=False)
    assert json.loads(store.get(id)) == {
        "labels": ["bottle", "can"],
        "inc_sub_labels_dict": {"bottle": ["bottle"], "can": ["can"]},
        "exc_sub_labels_dict": {"bottle": ["vase"], "can": []},
        "augment_examples": False,
        "deployed_id": id,
    }


def test_the_id_and_the_image_must_be_given(client):
    id, data = "query -> deployed_id", "body -> data"
    missing = "field required (type=value_error.missing)"
    answers = [
        (client.post("/classify"), f"2 validation errors for Request {id} {missing} {data} {missing}"),
        (client.post("/classify?deployed_id=x"), f"1 validation error for Request {data} {missing}"),
        (
            client.post("/classify?deployed_id=x", json={"data": "x"}),
            f"1 validation error for Request {data} {missing}",
        ),
        (client.post("/classify?deployed_id=x", data={"data": ""}), f"1 validation error for Request {data} {missing}"),
        (
            client.post("/classify", data={"data": (io.BytesIO(b"x"), "a")}),
            f"1 validation error for Request {id} {missing}",
        ),
        (
            client.post("/classify?deployed_id=x", data={"data": "abc"}),
            f"1 validation error for Request {data} Expected UploadFile, received: <class 'str'> (type=value_error)",
        ),
        (client.get("/model_config"), f"1 validation error for Request {id} {missing}"),
    ]
    for answer, message in answers:
        assert answer.status_code == 422
        assert answer.get_json() == {"status_code": 422, "message": message, "data": None}


def test_of_several_ids_and_images_the_last_counts(client):
    id = deployed(client, BOTTLE, CAN)
    files = [(io.BytesIO(data), "a", "image/jpg") for data in (b"no image", jpeg(3))]
    answer = client.post(f"/classify?deployed_id={UNKNOWN}&deployed_id={id}", data={"data": files})
    assert answer.get_json() == classify(client, id, jpeg(3)).get_json()


def test_unknown_ids(client):
    for id in (UNKNOWN, "", "x", "..%2Fx"):
        for answer in (classify(client, id, jpeg(0)), get(client, id)):
            assert (answer.status_code, answer.get_json()) == (400, NO_KEY)


def test_bodies_that_are_no_json(client):
    answer = client.post("/deploy_classifier", data=b"{", content_type="application/json")
    assert (answer.status_code, answer.get_json()["message"].split(" (")[0]) == (
        422,
        "1 validation error for Request body -> 1 Expecting property name enclosed in double quotes: line 1 column 2",
    )
    answer = client.post("/deploy_classifier", data=b'{"a": \xff}', content_type="application/json")
    assert (answer.status_code, answer.get_json()) == (400, {"detail": "There was an error parsing the body"})
    answer = client.post("/deploy_classifier", data=b"[" * 100_000, content_type="application/json")
    assert (answer.status_code, answer.get_json()["status_code"]) == (400, 400)


def test_messages_are_one_line(client):
    answer = deploy(client, {"name": "a\nb   c", "examples_to_include": []})
    assert answer.get_json()["message"] == "Model lacks example_to_include for a b c class."


def test_other_methods_keep_starlettes_shape(client):
    for answer, allowed in [(client.get("/classify"), "POST"), (client.post("/model_config"), "GET")]:
        assert (answer.status_code, answer.get_json()) == (405, {"detail": "Method Not Allowed"})
        assert allowed in answer.headers["Allow"]


def test_a_store_that_fails(model, caplog):
    class Broken:
        def get(self, id):
            raise StoreUnavailable("Redis at h:1 does not do what it is asked (Connection refused).")

        def put(self, id, value):
            self.get(id)

    client = serve(model, Broken())
    for answer in (
        classify(client, UNKNOWN, jpeg(0)),
        get(client, UNKNOWN),
        deploy(client, BOTTLE),
        deploy(client, BOTTLE, deployed_id=UNKNOWN),
    ):
        assert (answer.status_code, answer.get_json()) == (502, NO_STORE)
    assert classify(client, UNKNOWN, b"no image").get_json() == NO_IMAGE
    assert "Connection refused" in caplog.text


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("out of memory"), "error of the service"), (InputError("There is no model 'x'."), "no model 'x'")],
)
def test_a_model_that_fails_is_the_services_fault(store, error, words):
    def load():
        raise error

    client = create_app(Shelf([]), fetch=lambda url: b"", embedder=load, store=store).test_client()
    answer = classify(client, deployed(client, BOTTLE), jpeg(0))
    assert answer.status_code == 500
    assert answer.get_json()["status_code"] == 500
    assert words in answer.get_json()["message"]


def test_a_model_without_a_text_tower_is_named(store):
    class Blind:
        model, dim = FAKE.model, FAKE.dim

        def embed_images(self, images):
            return FAKE.embed_images(images)

    client = serve(Blind(), store)
    answer = classify(client, deployed(client, BOTTLE), jpeg(0))
    assert (answer.status_code, "'fake'" in answer.get_json()["message"]) == (500, True)


def test_texts_and_images_are_embedded_once(client, model):
    id = deployed(client, BOTTLE, CAN, augment_examples=False)
    for _ in range(3):
        classify(client, id, jpeg(0))
    assert (model.texts, model.images) == (["bottle", "can"], 1)
    deploy(client, BOTTLE, {**CAN, "examples_to_exclude": ["tin"]}, augment_examples=False, deployed_id=id)
    plain = classify(client, id, jpeg(0)).get_json()
    assert (model.texts, model.images) == (["bottle", "can", "tin"], 1)
    deploy(client, BOTTLE, {**CAN, "examples_to_exclude": ["tin"]}, augment_examples=True, deployed_id=id)
    assert classify(client, id, jpeg(0)).get_json() != plain
    assert len(model.texts) == 3 + 3 * len(OPENAI)


def test_what_another_process_changes_in_the_store_shows(client, store):
    id = deployed(client, BOTTLE, CAN)
    classify(client, id, jpeg(0))
    value = json.loads(store.get(id))
    value["inc_sub_labels_dict"]["can"] = ["tin"]
    store.put(id, json.dumps(value).encode())
    other = deployed(client, BOTTLE, {**CAN, "examples_to_include": ["tin"]})
    assert classify(client, id, jpeg(0)).get_json() == classify(client, other, jpeg(0)).get_json()


# What DirectAI stored.


def test_what_directai_stored_is_classified_with(client, store):
    stored = {"labels": ["a", "b"], "inc_sub_labels_dict": {"a": ["x"], "b": ["y"]}}
    store.put(UNKNOWN, json.dumps(stored).encode())
    same = deployed(client, {"name": "a", "examples_to_include": ["x"]}, {"name": "b", "examples_to_include": ["y"]})
    assert classify(client, UNKNOWN, jpeg(0)).get_json() == classify(client, same, jpeg(0)).get_json()
    assert get(client, UNKNOWN).get_json() == {**get(client, same).get_json(), "deployed_id": UNKNOWN}


def test_a_detector_is_told_and_does_not_classify(client, store):
    stored = {
        "labels": ["a", "b"],
        "inc_sub_labels_dict": {"a": ["x"], "b": ["y"]},
        "exc_sub_labels_dict": {"a": ["z"]},
        "augment_examples": True,
        "deployed_id": UNKNOWN,
        "nms_threshold": 0.5,
        "class_agnostic_nms": None,
        "label_conf_thres": {"a": 7},
    }
    store.put(UNKNOWN, json.dumps(stored).encode())
    assert get(client, UNKNOWN).get_json() == {
        "detector_configs": [
            {"name": "a", "examples_to_include": ["x"], "examples_to_exclude": ["z"], "detection_threshold": 7},
            {"name": "b", "examples_to_include": ["y"], "examples_to_exclude": [], "detection_threshold": 0.1},
        ],
        "nms_threshold": 0.5,
        "class_agnostic_nms": None,
        "deployed_id": UNKNOWN,
        "augment_examples": True,
    }
    answer = classify(client, UNKNOWN, jpeg(0))  # there: 200
    assert (answer.status_code, answer.get_json()["message"]) == (
        422,
        f"{UNKNOWN} is a detector; classify with the id of a classifier.",
    )


MISMATCH = "Labels and inc_sub_labels_dict keys must be equal. exc_sub_labels_dict keys must be a subset of labels."


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        ({"labels": ["a"], "inc_sub_labels_dict": {"b": ["b"]}}, MISMATCH),
        ({"labels": ["a"], "inc_sub_labels_dict": {"a": ["a"]}, "exc_sub_labels_dict": {"b": []}}, MISMATCH),
        ({"labels": [], "inc_sub_labels_dict": {}}, "it has no class"),
        ({"labels": ["a"], "inc_sub_labels_dict": {"a": []}}, "is empty"),
        ({"labels": ["a"], "inc_sub_labels_dict": {"a": "text"}}, "text"),
        ({"labels": ["a"], "inc_sub_labels_dict": {"a": ["a"]}, "nms_threshold": "high"}, "'high' is no number"),
        ([], "TypeError"),
        ({}, "inc_sub_labels_dict"),
        (float("nan"), "NaN"),
    ],
)
def test_what_is_stored_and_no_configuration(client, store, stored, words):
    store.put(UNKNOWN, json.dumps(stored).encode())
    for answer in (get(client, UNKNOWN), classify(client, UNKNOWN, jpeg(0))):
        assert answer.status_code == 500
        assert UNKNOWN in answer.get_json()["message"]
        assert words in answer.get_json()["message"]


# Where DirectAI's server answers wrongly.


def test_two_classes_of_one_name_are_refused(client, store):
    # There the first one is lost, and as soon as any class excludes something it always wins.
    twice = {"name": "can", "examples_to_include": ["tin"]}
    answer = deploy(client, BOTTLE, CAN, twice)
    assert answer.status_code == 422
    assert answer.get_json() == {
        "status_code": 422,
        "message": "Two classes are named 'can'; give each a name of its own.",
        "data": None,
    }
    stored = {"labels": ["can", "bottle", "can"], "inc_sub_labels_dict": {"can": ["tin"], "bottle": ["bottle"]}}
    store.put(UNKNOWN, json.dumps({**stored, "exc_sub_labels_dict": {"bottle": ["vase"]}}).encode())
    same = deployed(client, twice, {**BOTTLE, "examples_to_exclude": ["vase"]})
    assert classify(client, UNKNOWN, jpeg(0)).get_json() == classify(client, same, jpeg(0)).get_json()


def test_a_text_on_both_sides_is_rejected_with_full_precision(client):
    same = {"name": "both", "examples_to_include": ["can"], "examples_to_exclude": ["can"]}
    value = classify(client, deployed(client, same, CAN, augment_examples=False), jpeg(2)).get_json()
    d = (1 + cosine("can", jpeg(2))) / 2
    assert value["raw_scores"] == pytest.approx({"both": 1 - d, "can": d}, abs=1e-7)


def test_images_are_turned_upright(client):
    lying = Image.Exif()
    lying[0x0112] = 6
    upright, stored = picture(5), picture(5).transpose(Image.Transpose.ROTATE_90)
    id = deployed(client, BOTTLE, CAN)
    plain, turned = (classify(client, id, data).get_json() for data in (encoded(upright), encoded(stored, exif=lying)))
    assert turned == plain
    assert classify(client, id, encoded(stored)).get_json() != plain


@pytest.mark.slow
def test_a_real_model_tells_what_is_drawn():
    client = serve(load_embedder("mini", device="cpu"))
    configs = [
        {"name": "circles", "examples_to_include": ["a red circle"], "examples_to_exclude": ["a blue square"]},
        {"name": "squares", "examples_to_include": ["a blue square"], "examples_to_exclude": ["a red circle"]},
    ]
    drawn = {}
    for name, colour in (("circles", "red"), ("squares", "blue")):
        image = Image.new("RGB", (128, 128), "white")
        shape = ImageDraw.Draw(image).ellipse if name == "circles" else ImageDraw.Draw(image).rectangle
        shape((32, 32, 96, 96), fill=colour)
        drawn[name] = encoded(image)
    for augment in (True, False):
        id = deployed(client, *configs, augment_examples=augment)
        for name, data in drawn.items():
            value = classify(client, id, data).get_json()
            assert value["pred"] == name
            assert value["scores"][name] > 0.9


def test_texts_that_are_cut_are_told_when_deployed_and_when_asked():
    client = serve(FAKE)
    answer = deploy(client, {"name": "long", "examples_to_include": ["word " * 40 + "rest"]}, augment_examples=False)
    asked = classify(client, answer.get_json()["deployed_id"], jpeg(0))
    for one in (answer, asked):
        assert one.status_code == 200
        assert "'rest' is left out" in one.headers["X-Clipsieve-Note"]
    refused = deploy(client, {"name": "none", "examples_to_include": [" "]})
    assert (refused.status_code, "an empty text" in refused.get_json()["message"]) == (422, True)
