"""/detect of a real process with the embedded detector, real image bytes, and nothing else served."""

import json
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from clipsieve.demo_scenes import SIDE, scene
from clipsieve.inference.mini.scenes import render
from tests.back.service import running
from tests.inference.pictures import encoded

pytestmark = pytest.mark.slow  # a process that loads a model

COUNT = 12
NAMES = sorted({f"{thing.colour} {thing.shape}" for i in range(COUNT) for thing in scene(i).objects})
CLASSES = [{"name": n, "examples_to_include": [f"a {n}"], "detection_threshold": 0.3} for n in NAMES]


@pytest.fixture(scope="module")
def service():
    with running("--detector", "mini") as service:
        yield service


@pytest.fixture(scope="module")
def pictures():
    return [encoded(render(scene(i), SIDE), "PNG") for i in range(COUNT)]


def post(service, path, data):
    """Status and JSON of an image in a form."""
    edge = uuid.uuid4().hex
    head = f'--{edge}\r\nContent-Disposition: form-data; name="data"; filename="a.png"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(service.url + path, body, headers), timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, json.load(answer)


def deployed(service, **body):
    kind = "detector" if "detector_configs" in body else "classifier"
    return service.ask(f"/deploy_{kind}", {"augment_examples": False, **body})[2]["deployed_id"]


def truth(number):
    """(name, box in 0..1) of what is in a scene."""
    found = []
    for thing in scene(number).objects:
        half = thing.extent / 2
        box = (thing.x - half, thing.y - half, thing.x + half, thing.y + half)
        found.append((f"{thing.colour} {thing.shape}", box))
    return found


def overlap(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    both = np.prod(np.maximum(high - low, 0))
    return both / (np.prod(np.subtract(a[2:], a[:2])) + np.prod(np.subtract(b[2:], b[:2])) - both)


def test_real_images_are_searched_together(service, pictures):
    id = deployed(service, detector_configs=CLASSES)
    with ThreadPoolExecutor(COUNT + 1) as pool:  # concurrently: they share passes, and one among them is bad
        asked = [pool.submit(post, service, f"/detect?deployed_id={id}", data) for data in pictures]
        bad = pool.submit(post, service, f"/detect?deployed_id={id}", pictures[0][:100])
        assert bad.result()[0] == 422
        answers = [one.result() for one in asked]
    wanted = seen = 0
    for number, (status, [found]) in enumerate(answers):
        assert status == 200
        assert post(service, f"/detect?deployed_id={id}", pictures[number]) == (200, [found])  # what is kept of it
        for name, box in truth(number):
            wanted += 1
            boxes = [np.array(one["tlbr"]) / SIDE for one in found if one["class"] == name]
            seen += any(overlap(b, box) > 0.5 for b in boxes)
        assert all(0.3 <= one["score"] <= 1 for one in found)
    assert seen >= 0.8 * wanted
    figures = service.ask("/metrics")[2]
    assert 'clipsieve_embed_requests_total{kind="image",model="mini (detector)",outcome="succeeded"} 12.0' in figures


def test_without_a_model_that_classifies(service, pictures):
    id = deployed(service, classifier_configs=[{"name": "cat", "examples_to_include": ["cat"]}])
    status, said = post(service, f"/classify?deployed_id={id}", pictures[0])
    assert (status, said["status_code"]) == (503, 503)
    assert "back --model" in said["message"]
