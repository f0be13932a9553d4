"""DirectAI's protocol for detectors: as its own tests and clients use it, and where its server answers wrongly."""

import io
import json
import math
import uuid

import pytest
from PIL import Image

from clipsieve.back.app import create_app
from clipsieve.back.shelf import Shelf
from clipsieve.back.stores import MemoryStore
from clipsieve.errors import InputError, StoreUnavailable
from clipsieve.index.examples import unit_rows
from clipsieve.index.templates import SIMPLE
from tests.back.made import FAKE, FakeDetector
from tests.inference.pictures import encoded, jpeg, picture

BUS = {"name": "bus", "examples_to_include": ["bus"], "examples_to_exclude": [], "detection_threshold": 0.1}
CAT = {"name": "cat", "examples_to_include": ["cat"], "examples_to_exclude": [], "detection_threshold": 0.1}
PLAIN = {"augment_examples": False}
LEFT, RIGHT, WHOLE = (0, 0, 0.5, 1), (0.5, 0, 1, 1), (0, 0, 1, 1)
UNKNOWN = "b5d1bdec-3bf3-4632-a011-538384d5bcb1"
PICTURE = jpeg(0)
NO_IMAGE = {"status_code": 422, "message": "Invalid image received, unable to open.", "data": None}
NO_KEY = {"status_code": 400, "message": "Key not found", "data": None}


@pytest.fixture
def store():
    return MemoryStore()


@pytest.fixture
def client(store):
    return serve(store, ("cat", LEFT), ("bus", RIGHT))


def serve(store, *seen, detector=None):
    detector = detector or FakeDetector(*seen)
    return start(store, detector=lambda: detector)


def start(store, **options):
    options = {"embedder": lambda: FAKE, **options}
    return create_app(Shelf([]), fetch=lambda url: b"", store=store, **options).test_client()


def deploy(client, *configs, **fields):
    return client.post("/deploy_detector", json={"detector_configs": list(configs), **fields})


def deployed(client, *configs, **fields):
    return deploy(client, *configs, **fields).get_json()["deployed_id"]


def detect(client, id, data=PICTURE):
    return client.post(f"/detect?deployed_id={id}", data={"data": (io.BytesIO(data), "a.jpg", "image/jpg")})


def boxes(client, id, data=PICTURE):
    answer = detect(client, id, data)
    assert answer.status_code == 200, answer.get_json()
    [found] = answer.get_json()
    return found


def names(client, id):
    return [one["class"] for one in boxes(client, id)]


def get(client, id):
    return client.get(f"/model_config?deployed_id={id}").get_json()


def refusal(message, status=422):
    return status, {"status_code": status, "message": message, "data": None}


def told(answer):
    return answer.status_code, answer.get_json()


# DirectAI's own tests of a detector that need no trained weights.

MISSING = "field required (type=value_error.missing)"


def test_a_body_without_configs(client):
    message = f"1 validation error for Request body -> detector_configs {MISSING}"
    assert told(client.post("/deploy_detector", json={})) == refusal(message)


def test_a_class_without_what_it_includes(client):
    without = {name: value for name, value in BUS.items() if name != "examples_to_include"}
    message = f"1 validation error for Request body -> detector_configs -> 0 -> examples_to_include {MISSING}"
    assert told(deploy(client, without, nms_threshold=0.4)) == refusal(message)


@pytest.mark.parametrize("left_out", ["", "examples_to_exclude", "detection_threshold", "nms_threshold"])
def test_a_detector_is_deployed(client, left_out):
    config = {name: value for name, value in BUS.items() if name != left_out}
    fields = {name: value for name, value in {"nms_threshold": 0.4, **PLAIN}.items() if name != left_out}
    answer = deploy(client, config, **fields)
    assert (answer.status_code, answer.get_json()["message"]) == (200, "New model deployed.")
    assert uuid.UUID(answer.get_json()["deployed_id"]).version == 4


def test_a_detector_without_classes_is_deployed(client):
    assert deploy(client).get_json()["message"] == "New model deployed."


@pytest.mark.parametrize("data", [b"This is not an image file", b"", jpeg(1)[: len(jpeg(1)) // 2], b"<svg/>"])
def test_what_is_no_image(client, store, data):
    id = deployed(client, BUS)
    for one in (client, start(store)):  # an image is looked at before the id, and before there is a detector
        for known in (id, UNKNOWN):
            assert told(detect(one, known, data)) == (422, NO_IMAGE)


# What its clients may rely on besides.


@pytest.mark.parametrize("augment", [True, False, None])
def test_scores_are_directais_formula(store, augment):
    client = serve(store, ("bus", RIGHT))
    templates = SIMPLE if augment else ("{}",)

    def score(text):
        rows = FAKE.embed_texts([template.replace("{}", text) for template in templates])
        mean = unit_rows(unit_rows(rows).mean(axis=0, keepdims=True))[0]
        logit = (float(mean @ FAKE.embed_texts(["bus"])[0]) + FakeDetector.shift) * FakeDetector.scale
        return 1 / (1 + math.exp(-logit))

    texts = ["lorry", "bus", "coach"]
    every = {**BUS, "examples_to_include": texts, "detection_threshold": 0}
    [found] = boxes(client, deployed(client, every, augment_examples=augment))
    assert found["score"] == pytest.approx(max(map(score, texts)), abs=1e-6)


def test_boxes_are_in_pixels_of_the_upright_image(client):
    id = deployed(client, BUS, CAT, **PLAIN)
    wide = picture(3, size=(200, 100))
    expected = {"bus": [100, 0, 200, 100], "cat": [0, 0, 100, 100]}
    lying = Image.Exif()
    lying[0x0112] = 6
    turned = encoded(wide.transpose(Image.Transpose.ROTATE_90), exif=lying)
    for data in (encoded(wide), turned):
        assert {one["class"]: one["tlbr"] for one in boxes(client, id, data)} == expected
    assert boxes(client, id, encoded(wide.transpose(Image.Transpose.ROTATE_90)))[0]["tlbr"] == [50, 0, 100, 200]


@pytest.mark.parametrize("size", [(3000, 1), (1, 3000), (1, 1)])
def test_images_of_any_shape(client, size):
    # 3000 x 1 is a 500 there.
    data = encoded(Image.new("RGB", size, "red"))
    assert boxes(client, deployed(client, BUS, **PLAIN), data)[0]["tlbr"] == [size[0] / 2, 0, *size]


@pytest.mark.parametrize(
    "image",
    [
        *((picture(0).convert(mode), "PNG") for mode in ("RGBA", "L", "1", "I;16")),
        *((picture(0), format) for format in ("GIF", "WEBP", "BMP")),
    ],
)
def test_every_kind_of_image(client, image):
    assert len(boxes(client, deployed(client, BUS, CAT, **PLAIN), encoded(*image))) == 2


def test_a_negative_takes_the_neighbours_too(store):
    # The bus is a little like a house, and less like a truck; of its neighbour a truck is the better explanation.
    client = serve(store, ("bus", (0, 0, 0.8, 1)), ("truck", WHOLE), ("bus", (0, 0, 0.01, 1)))
    house = {"name": "house", "examples_to_include": ["house"], "detection_threshold": 0}
    against = {**house, "examples_to_exclude": ["truck"]}
    assert len(boxes(client, deployed(client, house, **PLAIN))) == 2
    [left] = boxes(client, deployed(client, against, **PLAIN))
    assert left["tlbr"][2] < 10


def test_what_suppresses_what(store):
    client = serve(store, ("bus", WHOLE), ("cat", WHOLE), ("bus", (0, 0, 0.6, 1)))
    across = deployed(client, BUS, CAT, **PLAIN)
    each = deployed(client, BUS, CAT, **PLAIN, class_agnostic_nms=False)
    null = deployed(client, BUS, CAT, **PLAIN, class_agnostic_nms=None)
    apart = deployed(client, BUS, CAT, **PLAIN, class_agnostic_nms=False, nms_threshold=0.7)
    assert [names(client, id) for id in (across, each, null)] == [["bus"], ["bus", "cat"], ["bus", "cat"]]
    assert names(client, apart) == ["bus", "bus", "cat"]
    assert get(client, null)["class_agnostic_nms"] is None


@pytest.mark.parametrize(("threshold", "count"), [(0.1, 2), (0, 2), (-3, 2), (1, 0), (7, 0)])
def test_thresholds(client, threshold, count):
    every = {"name": "x", "examples_to_include": ["bus", "cat"], "detection_threshold": threshold}
    id = deployed(client, every, **PLAIN)
    assert len(boxes(client, id)) == count
    assert get(client, id)["detector_configs"][0]["detection_threshold"] == threshold


def test_a_known_id_is_changed_and_an_unknown_one_is_not_adopted(client):
    id = deployed(client, BUS, **PLAIN)
    assert deploy(client, CAT, deployed_id=id, **PLAIN).get_json() == {"deployed_id": id, "message": "Model updated."}
    assert names(client, id) == ["cat"]
    answer = deploy(client, BUS, deployed_id=UNKNOWN).get_json()
    assert answer["message"] == f"{UNKNOWN} model not found. Generated new model."
    body = {"classifier_configs": [{"name": "x", "examples_to_include": ["x"]}], "deployed_id": id}
    assert client.post("/deploy_classifier", json=body).get_json()["message"] == "Model updated."
    assert told(detect(client, id)) == refusal(f"{id} is a classifier; detect with the id of a detector.")


def test_every_field_comes_back_with_its_default(client):
    id = deployed(client, {"name": "x", "examples_to_include": ["y"]}, other=1)
    config = {"name": "x", "examples_to_include": ["y"], "examples_to_exclude": [], "detection_threshold": 0.1}
    assert get(client, id) == {
        "detector_configs": [config],
        "nms_threshold": 0.4,
        "class_agnostic_nms": True,
        "deployed_id": id,
        "augment_examples": True,
    }


def test_what_is_stored_is_what_directai_stores(client, store):
    id = deployed(
        client, {**BUS, "examples_to_exclude": ["tram"]}, {**CAT, "detection_threshold": "7"}, nms_threshold=1
    )
    assert json.loads(store.get(id)) == {
        "labels": ["bus", "cat"],
        "inc_sub_labels_dict": {"bus": ["bus"], "cat": ["cat"]},
        "exc_sub_labels_dict": {"bus": ["tram"], "cat": []},
        "augment_examples": True,
        "deployed_id": id,
        "nms_threshold": 1.0,
        "class_agnostic_nms": True,
        "label_conf_thres": {"bus": 0.1, "cat": 7.0},
    }


def test_what_directai_stored_detects(client, store):
    stored = {"labels": ["bus"], "inc_sub_labels_dict": {"bus": ["bus"]}, "augment_examples": False}
    store.put(UNKNOWN, json.dumps({**stored, "nms_threshold": 0.4, "label_conf_thres": {"bus": 0.9}}).encode())
    assert boxes(client, UNKNOWN) == boxes(client, deployed(client, {**BUS, "detection_threshold": 0.9}, **PLAIN))


def test_the_id_and_the_image_must_be_given(client):
    id, data = f"query -> deployed_id {MISSING}", f"body -> data {MISSING}"
    assert told(client.post("/detect")) == refusal(f"2 validation errors for Request {id} {data}")
    for unknown in (UNKNOWN, "", "x"):
        assert told(detect(client, unknown)) == (400, NO_KEY)
    assert told(client.get("/detect")) == (405, {"detail": "Method Not Allowed"})


def test_images_are_searched_and_texts_embedded_once(store):
    detector = FakeDetector(("cat", LEFT), ("bus", RIGHT))
    client = serve(store, detector=detector)
    id = deployed(client, BUS, **PLAIN)
    for _ in range(3):
        boxes(client, id)
    assert (detector.images, detector.texts) == (1, ["bus"])
    deploy(client, BUS, {**CAT, "detection_threshold": 0.2}, deployed_id=id, **PLAIN)
    assert names(client, id) == ["bus", "cat"]
    assert (detector.images, detector.texts) == (1, ["bus", "cat"])
    boxes(client, id, jpeg(1))
    assert detector.images == 2


def test_a_service_without_a_detector_keeps_them(store):
    client = start(store)
    id = deployed(client, BUS)
    assert get(client, id)["detector_configs"] == [BUS]
    answer = detect(client, id)
    message = "This service has no detector; start it with one: back --detector MODEL."
    assert told(answer) == refusal(message, 503)
    assert told(detect(client, UNKNOWN)) == (400, NO_KEY)


def test_a_service_without_a_model_keeps_classifiers(store):
    detector = FakeDetector(("cat", LEFT))
    client = start(store, embedder=None, detector=lambda: detector)

    def classify(id, data=PICTURE):
        return told(client.post(f"/classify?deployed_id={id}", data={"data": (io.BytesIO(data), "a.jpg")}))

    body = {"classifier_configs": [{"name": "cat", "examples_to_include": ["cat"]}]}
    id = client.post("/deploy_classifier", json=body).get_json()["deployed_id"]
    message = "This service has no model that classifies; start it with one: back --model NAME."
    assert classify(id) == refusal(message, 503)
    assert classify(id, b"no image") == (422, NO_IMAGE)
    assert classify(UNKNOWN) == (400, NO_KEY)
    id = deployed(client, CAT, **PLAIN)
    assert classify(id)[0] == 422
    assert names(client, id) == ["cat"]


def test_a_store_that_fails():
    class Broken:
        def get(self, id):
            raise StoreUnavailable("Redis at h:1 does not do what it is asked (Connection refused).")

        def put(self, id, value):
            self.get(id)

    client = serve(Broken())
    message = "Exception in Model Config Storage Server. Please try again."
    for answer in (detect(client, UNKNOWN), deploy(client, BUS), deploy(client, BUS, deployed_id=UNKNOWN)):
        assert told(answer) == refusal(message, 502)


@pytest.mark.parametrize(
    ("error", "words"),
    [(RuntimeError("out of memory"), "error of the service"), (InputError("There is no model 'x'."), "no model 'x'")],
)
def test_a_detector_that_cannot_be_had_is_the_services_fault(store, error, words):
    def load():
        raise error

    client = start(store, detector=load)
    status, said = told(detect(client, deployed(client, BUS)))
    assert (status, said["status_code"]) == (500, 500)
    assert words in said["message"]


def test_both_routes_are_described(client):
    paths = client.get("/openapi").get_json()["paths"]
    for path, kind in (("/deploy_detector", "application/json"), ("/detect", "multipart/form-data")):
        operation = paths[path]["post"]
        assert operation["requestBody"]["content"][kind]["schema"]["required"]
        assert operation["responses"]["200"]["content"]["application/json"]["schema"]["type"] in ("object", "array")
        assert "anyOf" in operation["responses"]["default"]["content"]["application/json"]["schema"]


# Where DirectAI's server answers wrongly.


@pytest.mark.parametrize("nms", [0.4, 1, 1.5])
def test_boxes_of_which_none_overlap(client, nms):
    # With class_agnostic_nms, which is its default: 500.
    assert names(client, deployed(client, BUS, CAT, **PLAIN, nms_threshold=nms)) == ["bus", "cat"]


def test_nothing_is_found(store):
    client = serve(store)
    assert detect(client, deployed(client, BUS)).get_json() == [[]]


def test_no_classes(store):
    # Deployed there too, and then 500.
    detector = FakeDetector(("cat", LEFT))
    client = serve(store, detector=detector)
    for fields in ({}, {"class_agnostic_nms": False}):
        assert told(detect(client, deployed(client, **fields))) == (200, [[]])


def test_a_detector_does_not_classify(client):
    id = deployed(client, BUS)
    answer = client.post(f"/classify?deployed_id={id}", data={"data": (io.BytesIO(jpeg(0)), "a.jpg")})
    assert told(answer) == refusal(f"{id} is a detector; classify with the id of a classifier.")


def test_two_classes_of_one_name_are_refused(client):
    message = "Two classes are named 'bus'; give each a name of its own."
    assert told(deploy(client, BUS, {**CAT, "name": "bus"})) == refusal(message)
    message = "Model lacks example_to_include for bus class."
    assert told(deploy(client, {**BUS, "examples_to_include": []})) == refusal(message)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-1e999"])
def test_numbers_that_are_not_finite_are_refused(client, value):
    for least, nms, what in ((value, "1", "detection_threshold of a"), ("1", value, "nms_threshold")):
        config = f'{{"name": "a", "examples_to_include": ["a"], "detection_threshold": {least}}}'
        body = f'{{"detector_configs": [{config}], "nms_threshold": {nms}}}'
        answer = client.post("/deploy_detector", data=body, content_type="application/json")
        assert told(answer) == refusal(f"{what} is {float(value.lower())}; give a finite number.")


def test_a_text_on_both_sides_is_kept(store):
    # A tie is the positive's, unlike in a classifier.
    client = serve(store, ("bus", WHOLE))
    assert names(client, deployed(client, {**BUS, "examples_to_exclude": ["bus"]}, **PLAIN)) == ["bus"]
