"""Jobs of /api/v1: what they write, how they are watched and cancelled, and what a restart leaves of them."""

import csv
import io
import json
import os
import signal
import tarfile
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.back import jobs as queue
from clipsieve.back import work
from clipsieve.back.app import create_app
from clipsieve.back.config import entries_of
from clipsieve.back.job import DAYS, KEPT, Job, Pace, Result, outdated
from clipsieve.back.jobs import Jobs
from clipsieve.back.shelf import Served, Shelf
from clipsieve.commands_back import make_jobs
from clipsieve.errors import CollectionLocked, InputError, NotFound, Overloaded
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.compact import compact
from clipsieve.index.label import SCHEMA
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.inference.finding import Finder
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import Manifest
from clipsieve.types import ClassSet, Embeddings, MetaClass
from clipsieve.writer import open_writer
from tests.back.made import DIM, FAKE, NAMES, add_items
from tests.back.service import poll, running
from tests.inference.pictures import jpeg, write_tree

DETECTOR = FakeDetector(DIM)
COUNT = 600
BUS = {"name": "bus", "positive": ["bus"], "negative": ["truck"]}
SET = {"classes": [{"name": name, "positive": [name]} for name in NAMES]}


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", COUNT, width=[i % 7 + 1 for i in range(COUNT)], height=[5] * COUNT)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A collection whose images are there, but for one."""
    root = tmp_path_factory.mktemp("pictures")
    write_tree(root / "in", {f"{'ab'[i % 2]}/{i}.jpg": jpeg(i, (20, 10)) for i in range(12)})
    embed_collection(open_source(root / "in"), FakeEmbedder(DIM), root / "photos.clip", workers=1)
    (root / "in" / "b" / "7.jpg").unlink()
    return root / "photos.clip"


@contextmanager
def serving(folder, place, wrap=lambda work: work, detector=None):
    """A client of a service over the collection, with the jobs in a folder."""
    shelf = Shelf([Served("photos", open_collection(folder, embedder=FAKE))])
    jobs = Jobs(place / "jobs", wrap(work.make_work(shelf)))
    jobs.start()
    try:
        yield create_app(
            shelf, fetch=lambda url: b"", jobs=jobs, detector=detector and (lambda: detector)
        ).test_client()
    finally:
        jobs.close()
        shelf.close()


@pytest.fixture
def client(folder, tmp_path):
    with serving(folder, tmp_path) as client:
        yield client


def begin(client, status=202, **body):
    answer = client.post("/api/v1/jobs", json=body)
    assert answer.status_code == status, answer.get_data(as_text=True)
    value = answer.get_json()
    return value["id"] if status == 202 else value["error"]["message"]


def ended(client, id):
    """The job once it is over."""

    def look():
        job = client.get(f"/api/v1/jobs/{id}").get_json()
        return job if job["state"] not in ("waiting", "running") else None

    return poll(look, 30)


def finished(client, **body):
    """The job, and the bytes of its result."""
    job = ended(client, begin(client, **body))
    assert job["state"] == "done", job
    data = download(client, job["result_url"])
    assert job["bytes"] == len(data)
    return job, data


def download(client, url):
    """The bytes of a file."""
    with client.get(url) as answer:
        assert answer.status_code == 200
        return answer.get_data()


def searched(client, **body):
    """All the items of a question, as /search pages through them."""
    hits: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = client.post("/api/v1/search", json={**body, "limit": 250, "cursor": cursor}).get_json()
        hits += page["hits"]
        cursor = page["next"]
        if cursor is None:
            return hits


def in_csv(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


# ------------------------------------------------------------------------------------------------ what they write


@pytest.mark.parametrize(
    "question",
    [
        {"class": BUS},
        {"class": BUS, "view": "rejected", "sort": "margin", "veto": "hard"},
        {"class": BUS, "view": "rejected", "threshold": 0.2},
        {"class": BUS, "view": "below", "threshold": 0.6},
        {"class": BUS, "threshold": 0.2, "sort": "new", "where": "width > 3"},
        {"set": SET, "class": "cat", "modality": "text"},
        {"class": {"positive": ["bus"]}, "dedup": True},
    ],
)
def test_an_export_is_what_search_answers(client, folder, question):
    if "dedup" in question:
        build_indices(folder)
    hits = searched(client, **question)
    job, data = finished(client, kind="export", format="csv", **question)
    rows = in_csv(data)
    assert [row["id"] for row in rows] == [hit["id"] for hit in hits]
    assert [float(row["score"]) for row in rows] == pytest.approx([hit["score"] for hit in hits])
    assert [row["positive"] for row in rows] == [hit["pos"]["ex"] for hit in hits]
    assert {row["label"] for row in rows} == {"cat" if "set" in question else "bus"}
    assert (job["items"], job["done"], job["total"], job["skipped"]) == (len(hits),) * 3 + (0,)


def test_tables_of_an_export(client):
    hits = searched(client, **{"class": BUS})
    _, data = finished(client, kind="export", format="parquet", **{"class": BUS})
    table = pq.read_table(io.BytesIO(data))
    text, number = pa.string(), pa.float32()
    types = {"id": pa.int64(), "key": text, "image": text, "label": text, "score": number, "margin": number}
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == types | {
        "positive": text,
        "negative": text,
    }
    assert table["id"].to_pylist() == [int(hit["id"]) for hit in hits]
    assert table["margin"].to_pylist() == pytest.approx([hit["margin"] for hit in hits], abs=1e-6)
    _, data = finished(client, kind="export", format="jsonl", **{"class": BUS})
    lines = [json.loads(line) for line in data.splitlines()]
    assert [(line["id"], line["score"], line["negative"]) for line in lines] == [
        (hit["id"], hit["score"], "truck") for hit in hits
    ]


def test_boxes_of_an_export(client):
    hits = searched(client, **{"class": BUS})
    _, data = finished(client, kind="export", format="coco", **{"class": BUS})
    coco = json.loads(data)
    assert [image["id"] for image in coco["images"]] == [int(hit["id"]) for hit in hits]
    assert coco["categories"] == [{"id": 1, "name": "bus"}]
    sizes = {image["id"]: [image["width"], image["height"]] for image in coco["images"]}
    assert sizes == {int(hit["id"]): [hit["w"], hit["h"]] for hit in hits}
    for number, (annotation, hit) in enumerate(zip(coco["annotations"], hits, strict=True), start=1):
        assert (annotation["id"], annotation["image_id"]) == (number, int(hit["id"]))
        assert annotation["bbox"] == [0, 0, hit["w"], hit["h"]]
        assert (annotation["area"], annotation["iscrowd"]) == (hit["w"] * hit["h"], 0)
    _, data = finished(client, kind="export", format="yolo", **{"class": BUS})
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        labels = {name: found.read(name) for name in found.namelist() if name != "data.yaml"}
        assert b'names:\n  0: "bus"\n' in found.read("data.yaml")
    assert labels == {f"labels/{Path(hit['key']).stem}.txt": b"0 0.5 0.5 1 1\n" for hit in hits}


@pytest.fixture(scope="module")
def looked_through(tmp_path_factory):
    """A collection with regions: quarters of 20 x 10 pixels, of which each image's show other things."""
    root = tmp_path_factory.mktemp("looked")
    write_tree(root / "in", {f"{i}.jpg": jpeg(i, (40, 20)) for i in range(6)})
    embed_collection(open_source(root / "in"), FAKE, root / "photos.clip", finder=Finder(DETECTOR), workers=1)
    return root / "photos.clip"


def boxes_by_hand(folder, threshold, names=("bus",)):
    """Item -> its boxes as files have them: quarters do not overlap, so that each shows its best class."""
    texts = DETECTOR.embed_texts(names)
    with open_collection(folder) as collection:
        regions = collection.regions
        found = {}
        for id in collection.sample(100).tolist():
            own = regions.of([id])
            scores = 1 / (1 + np.exp(-(own.vectors @ texts.T + own.shift[:, None]) * own.scale[:, None]))
            found[id] = [
                {"class": names[k], "score": pytest.approx(row[k], abs=1e-5), "box": [40 * x0, 20 * y0, 20, 10]}
                for k in range(len(names))
                for row, (x0, y0, *_) in sorted(zip(scores, own.boxes, strict=True), key=lambda pair: -pair[0][k])
                if row[k] >= threshold and row.argmax() == k
            ]
    return found


@pytest.mark.slow
def test_detected_boxes_of_an_export(looked_through, tmp_path):
    wanted = boxes_by_hand(looked_through, 0.3)
    assert 0 < sum(map(len, wanted.values())) < 24
    question = {"class": {"positive": ["bus"], "threshold": -1.0}, "boxes": True, "box_threshold": 0.3}
    with serving(looked_through, tmp_path, detector=DETECTOR) as client:
        for format, read in (
            ("csv", lambda data: [{**row, "boxes": json.loads(row["boxes"])} for row in in_csv(data)]),
            ("parquet", lambda data: pq.read_table(io.BytesIO(data)).to_pylist()),
            ("jsonl", lambda data: [json.loads(line) for line in data.splitlines()]),
        ):
            rows = read(finished(client, kind="export", format=format, **question)[1])
            assert {int(row["id"]): row["boxes"] for row in rows} == wanted
            assert {(int(row["width"]), int(row["height"])) for row in rows} == {(40, 20)}
        coco = json.loads(finished(client, kind="export", format="coco", **question)[1])
        assert {image["id"] for image in coco["images"]} == set(wanted)
        flat = [(id, box["box"], box["score"]) for id, boxes in wanted.items() for box in boxes]
        told = [(a["image_id"], a["bbox"], a["score"]) for a in coco["annotations"]]
        assert sorted(told, key=lambda one: one[:2]) == sorted(flat, key=lambda one: one[:2])
        with zipfile.ZipFile(io.BytesIO(finished(client, kind="export", format="yolo", **question)[1])) as found:
            labels = {name: found.read(name).decode().splitlines() for name in found.namelist()}
        for id, boxes in wanted.items():
            shares = [f"0 {(b['box'][0] + 10) / 40:.6f} {(b['box'][1] + 5) / 20:.6f} 0.500000 0.500000" for b in boxes]
            assert labels[f"labels/{id}.txt"] == shares
        with tarfile.open(
            fileobj=io.BytesIO(finished(client, kind="export", format="webdataset", **question)[1])
        ) as tar:
            parts = [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]
        assert {int(part["id"]): part["boxes"] for part in parts} == wanted


def test_detected_boxes_beside_labels(looked_through, tmp_path):
    wanted = boxes_by_hand(looked_through, 0.3, NAMES)
    asked = {"kind": "label", "set": SET, "boxes": True, "box_threshold": 0.3}
    with serving(looked_through, tmp_path, detector=DETECTOR) as client:
        table = pq.read_table(io.BytesIO(finished(client, format="parquet", **asked)[1]))
        assert table.column_names == [*SCHEMA.names, "width", "height", "boxes"]
        assert dict(zip(table["id"].to_pylist(), table["boxes"].to_pylist(), strict=True)) == wanted
        coco = json.loads(finished(client, format="coco", **asked)[1])
        assert len(coco["annotations"]) == sum(map(len, wanted.values()))
        assert "no place for boxes" in begin(client, 400, format="folders", **asked)
        assert "those of a class" in begin(client, 400, kind="export", format="csv", ids=["1"], boxes=True)
    with serving(looked_through, tmp_path) as client:
        assert "--detector fake" in begin(client, 400, format="csv", **asked)


def test_images_of_an_export(pictures, tmp_path):
    question = {"class": {"positive": ["anything"], "threshold": -1.0}}
    with serving(pictures, tmp_path) as client:
        job, data = finished(client, kind="export", format="webdataset", **question)
        lost = download(client, job["skipped_url"])
        _, zipped = finished(client, kind="export", format="yolo", images=True, **question)
        whole = {hit["id"]: client.get(f"/api/v1/items/{hit['id']}/image") for hit in searched(client, **question)}
    there = {id: image.get_data() for id, image in whole.items() if image.status_code == 200}
    assert len(there) == 11
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    assert {str(int(n[:-4])): d for n, d in members.items() if n.endswith(".jpg")} == there
    assert {json.loads(d)["label"] for n, d in members.items() if n.endswith(".json")} == {"anything"}
    assert (job["items"], job["skipped"]) == (11, 1)
    assert [row["key"] for row in in_csv(lost)] == ["b/7.jpg"]
    with zipfile.ZipFile(io.BytesIO(zipped)) as found:
        images = {n for n in found.namelist() if n.startswith("images/")}
        assert "labels/a/0.txt" in found.namelist()
        assert len(images) == 11
        assert {found.read(n) for n in images} == set(there.values())


def test_an_export_of_ids(client):
    hits = searched(client, **{"class": BUS})
    wanted = [hit["id"] for hit in hits[5:0:-1]]
    _, data = finished(client, kind="export", format="csv", ids=wanted)
    assert [row["id"] for row in in_csv(data)] == wanted
    assert set(in_csv(data)[0]) == {"id", "key", "image"}
    hard = {"class": BUS, "veto": "hard"}
    rejected = searched(client, view="rejected", **hard)[0]["id"]
    job, data = finished(client, kind="export", format="csv", ids=[*wanted, rejected], limit=3, **hard)
    assert [row["id"] for row in in_csv(data)] == [hit["id"] for hit in hits[1:4]]
    assert rejected in download(client, job["skipped_url"]).decode()
    job, data = finished(client, kind="export", format="jsonl", ids=["3", str(2**63 - 1), "4"])
    assert [json.loads(line)["id"] for line in data.splitlines()] == ["3", "4"]
    assert in_csv(download(client, job["skipped_url"]))[0]["key"] == str(2**63 - 1)


@pytest.mark.parametrize("reject", [False, True])
def test_labels(client, folder, tmp_path, reject):
    classes = {"classes": [{**c, "threshold": 0.5} for c in SET["classes"]]}
    with open_collection(folder, embedder=FAKE) as photos:
        metas = [MetaClass(name, [name], threshold=0.5) for name in NAMES]
        photos.label(ClassSet(metas), tmp_path / "l.parquet", reject=reject)
    table = pq.read_table(tmp_path / "l.parquet")
    asked = {"kind": "label", "set": classes, "reject": reject}
    job, data = finished(client, format="parquet", **asked)
    found = pq.read_table(io.BytesIO(data))
    assert found.schema.equals(SCHEMA)
    assert found.equals(table)
    assert (job["items"], job["total"], job["stage"]) == (COUNT, COUNT, "writing")
    rows = in_csv(finished(client, format="csv", **asked)[1])
    assert [row["label"] or None for row in rows] == table["label"].to_pylist()
    lines = [json.loads(line) for line in finished(client, format="jsonl", **asked)[1].splitlines()]
    assert [(line["id"], line["label"], line["margin"]) for line in lines] == [
        (str(id), label, None) for id, label in zip(table["id"].to_pylist(), table["label"].to_pylist(), strict=True)
    ]
    coco = json.loads(finished(client, format="coco", **asked)[1])
    names = {category["id"]: category["name"] for category in coco["categories"]}
    labelled = {a["image_id"]: names[a["category_id"]] for a in coco["annotations"]}
    assert [labelled.get(id) for id in table["id"].to_pylist()] == table["label"].to_pylist()


def test_texts_that_a_spreadsheet_computes_are_exact_where_asked(client):
    classes = {"classes": [{"name": "=bus", "positive": ["bus"]}]}
    for raw, label in ((False, "'=bus"), (True, "=bus")):
        for kind, asked in (("label", {"set": classes}), ("export", {"class": "=bus", "set": classes, "limit": 3})):
            rows = in_csv(finished(client, kind=kind, format="csv", raw_csv=raw, **asked)[1])
            assert {row["label"] for row in rows} == {label}
    answer = client.post("/api/v1/jobs", json={"kind": "label", "set": classes, "format": "parquet", "raw_csv": True})
    assert (answer.status_code, "raw_csv is for CSV" in answer.get_data(as_text=True)) == (400, True)


def test_labels_with_their_images(pictures, tmp_path):
    classes = {"classes": [{"name": "x/y", "positive": ["cat"]}]}
    with serving(pictures, tmp_path) as client:
        job, data = finished(client, kind="label", format="folders", set=classes)
        _, tarred = finished(client, kind="label", format="webdataset", set=classes)
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert {f"x_y/{'ab'[i % 2]}/{i}.jpg" for i in range(12) if i != 7} == set(found.namelist())
    assert (job["items"], job["skipped"]) == (11, 1)
    with tarfile.open(fileobj=io.BytesIO(tarred)) as tar:
        assert sum(name.endswith(".jpg") for name in tar.getnames()) == 11


def test_a_download_has_a_name_and_its_kind(client):
    id = begin(client, kind="export", format="csv", **{"class": {"name": "Straßen/Bus", "positive": ["bus"]}})
    with client.get(ended(client, id)["result_url"], headers={"Range": "bytes=0-1"}) as answer:
        assert (answer.status_code, answer.get_data(), answer.mimetype) == (206, b"id", "text/csv")
        assert answer.headers["Content-Disposition"].startswith("attachment; filename=photos-Stra")


def test_a_download_of_a_service_that_was_given_a_relative_folder(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with serving(Path(folder.name), Path()) as client:
        job, data = finished(client, kind="export", format="csv", ids=["3"])
        assert [row["id"] for row in in_csv(data)] == ["3"]
        Path("jobs", job["id"], "result.csv").unlink()
        answer = client.get(job["result_url"])
        assert (answer.status_code, "gone" in answer.get_data(as_text=True)) == (404, True)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "kind"),
        ({"kind": "label", "format": "csv"}, 400, "no set"),
        ({"kind": "label", "format": "yolo", "set": SET}, 400, "webdataset"),
        ({"kind": "label", "format": "csv", "set": SET, "where": "id > 1"}, 400, "where"),
        ({"kind": "label", "format": "csv", "set": "mine"}, 404, "mine"),
        ({"kind": "export", "format": "folders", "class": BUS}, 400, "yolo"),
        ({"kind": "export", "format": "csv"}, 400, "no question"),
        ({"kind": "export", "format": "csv", "class": BUS, "reject": True}, 400, "reject"),
        ({"kind": "export", "format": "csv", "class": BUS, "where": "nothing = 1"}, 400, "nothing"),
        ({"kind": "export", "format": "csv", "class": BUS, "dedup": True}, 404, "duplicate groups"),
        ({"kind": "export", "format": "csv", "class": {"positive": [{"image": "f" * 64}]}}, 404, "upload"),
        ({"kind": "export", "format": "csv", "ids": []}, 400, "ids"),
        ({"kind": "export", "format": "csv", "ids": ["x"]}, 400, "ids"),
        ({"kind": "export", "format": "csv", "class": BUS, "collection": "other"}, 404, "other"),
    ],
)
def test_mistakes_are_said_at_once(client, body, status, words):
    assert words in begin(client, status, **body)
    assert client.get("/api/v1/jobs").get_json() == {"jobs": []}


def test_there_is_no_such_job(client):
    for path in ("", "/result", "/skipped"):
        error = client.get(f"/api/v1/jobs/nothing{path}").get_json()["error"]
        assert (error["code"], "no job" in error["message"]) == (404, True)
    assert client.delete("/api/v1/jobs/nothing").status_code == 404


# ---------------------------------------------------------------------------------------------- while they run


def holding(at="writing"):
    """Wraps work so that it waits when it first says that it is at a stage: reached, let go, and the wrapper."""
    reached, let_go = threading.Event(), threading.Event()

    def wrap(work):
        def held(job, folder, tell):
            def told(stage, done, total):
                if stage == at and not reached.is_set():
                    reached.set()
                    assert let_go.wait(30)
                tell(stage, done, total)

            return work(job, folder, told)

        return held

    return reached, let_go, wrap


def test_a_running_and_a_waiting_job_are_cancelled(folder, tmp_path):
    reached, let_go, wrap = holding()
    with serving(folder, tmp_path, wrap) as client:
        asked = {"kind": "export", "format": "csv", "class": BUS}
        first, second = begin(client, **asked), begin(client, **asked)
        assert reached.wait(30)
        jobs = client.get("/api/v1/jobs").get_json()["jobs"]
        assert [(job["id"], job["state"]) for job in jobs] == [(second, "waiting"), (first, "running")]
        assert "it is running" in client.get(f"/api/v1/jobs/{first}/result").get_json()["error"]["message"]
        for id in (second, first):
            assert client.delete(f"/api/v1/jobs/{id}").get_json() == {"id": id, "state": "cancelled"}
        assert client.get(f"/api/v1/jobs/{second}").get_json()["state"] == "cancelled"
        let_go.set()
        assert ended(client, first)["state"] == "cancelled"
        assert list((tmp_path / "jobs" / first).iterdir()) == []
        job, _ = finished(client, **asked)
        assert client.delete(f"/api/v1/jobs/{job['id']}").get_json()["state"] == "removed"
        assert client.get(job["result_url"]).status_code == 404
        assert not (tmp_path / "jobs" / job["id"]).exists()


@pytest.mark.parametrize("kind", ["label", "export"])
@pytest.mark.parametrize("compacted", [False, True])
@pytest.mark.slow
def test_what_a_collection_becomes_meanwhile(folder, tmp_path, kind, compacted):
    with open_collection(folder, embedder=FAKE) as photos:
        ids = {str(hit.id) for hit in photos.search(MetaClass("bus", ["bus"], ["truck"]), k=COUNT).hits}
    reached, let_go, wrap = holding()
    with serving(folder, tmp_path, wrap) as client:
        question = {"set": SET} if kind == "label" else {"class": BUS}
        id = begin(client, kind=kind, format="coco", **question)
        assert reached.wait(30)
        with open_writer(folder) as writer:
            writer.remove([int(min(ids))])
        add_items(folder, 10, seed=9, width=[1] * 10, height=[1] * 10)
        if compacted:
            compact(folder)
        assert client.get("/api/v1/info").get_json()["collections"][0]["count"] == COUNT + 9
        let_go.set()
        job = ended(client, id)
        assert job["state"] == "done", job
        found = {str(image["id"]) for image in json.loads(download(client, job["result_url"]))["images"]}
        if kind == "export" and not compacted:
            assert found == ids
        elif kind == "export":
            assert found == {hit["id"] for hit in searched(client, **question)}
        else:
            assert len(found) == COUNT + 9 * compacted


def test_a_failure_is_a_sentence(tmp_path):
    errors = iter([InputError("It cannot be."), OSError(28, "No space left on device", "x"), ZeroDivisionError()])

    def work(job, folder, tell):
        raise next(errors)

    jobs = Jobs(tmp_path / "jobs", work)
    for _ in range(3):
        jobs.add("export", "photos", "csv", "x", lambda folder: None)
    jobs.start()
    done = poll(lambda: all(job.state == "failed" for job in jobs.all()) and jobs.all()[::-1])
    assert done[0].message == "It cannot be."
    assert "No space left" in done[1].message
    assert done[2].id in done[2].message
    jobs.close()


def test_an_uploaded_example_is_not_lost_by_a_restart(folder, tmp_path):
    """Nor is a model needed: what a job asks is embedded when it is made."""
    shelf = Shelf([Served("photos", open_collection(folder, embedder=FAKE))])
    jobs = Jobs(tmp_path / "jobs", work.make_work(shelf))  # not started
    client = create_app(shelf, fetch=lambda url: jpeg(40), jobs=jobs).test_client()
    image = client.post("/api/v1/fetch", json={"url": "https://example.org/40.jpg"}).get_json()["id"]
    question = {"class": {"positive": [{"image": image}]}}
    hits = searched(client, **question)
    id = begin(client, kind="export", format="csv", **question)
    jobs.close()
    shelf.close()
    shelf = Shelf([Served("photos", open_collection(folder))])
    jobs = Jobs(tmp_path / "jobs", work.make_work(shelf))
    jobs.start()
    client = create_app(shelf, fetch=lambda url: b"", jobs=jobs).test_client()
    job = ended(client, id)
    assert [row["id"] for row in in_csv(download(client, job["result_url"]))] == [hit["id"] for hit in hits]
    jobs.close()
    shelf.close()


# ------------------------------------------------------------------------------------------------------- the queue


def write(job, folder, tell):
    """Work that waits for the file `go` beside the folders, and counts how often it was begun."""
    with (folder / "begun").open("a") as file:
        file.write("x")
    tell("writing", 0, 2)
    poll(lambda: tell("writing", 1, 2) or (folder.parent / "go").exists(), 30)
    (folder / "result.csv").write_text("id\n")
    return Result("result.csv", 0)


def running_job(jobs):
    return poll(lambda: next((job for job in jobs.all() if job.state == "running" and job.done), None))


def test_a_service_that_ends_leaves_its_jobs_to_the_next(tmp_path):
    jobs = Jobs(tmp_path, write)
    first = jobs.add("export", "photos", "csv", "x", lambda folder: (folder / "task").touch()).id
    second = jobs.add("label", "photos", "csv", "x", lambda folder: None).id
    jobs.start()
    assert running_job(jobs).id == first
    with pytest.raises(CollectionLocked, match="Another service"):
        Jobs(tmp_path, write)
    jobs.close()
    assert (jobs[first].state, jobs[second].state) == ("waiting", "waiting")
    (tmp_path / "left").mkdir()  # by one that was killed while it made a job
    (tmp_path / "go").touch()
    jobs = Jobs(tmp_path, write)
    assert not (tmp_path / "left").exists()
    jobs.start()
    poll(lambda: all(job.state == "done" for job in jobs.all()))
    assert [job.id for job in sorted(jobs.all(), key=lambda job: job.ended or 0)] == [first, second]
    assert {path.name for path in (tmp_path / first).iterdir()} == {"result.csv"}
    jobs.close()
    jobs = Jobs(tmp_path, write)
    assert (jobs[first].state, jobs.path(first, "result.csv").read_text()) == ("done", "id\n")
    jobs.close()


def test_a_job_that_was_cancelled_too_late_has_no_result(tmp_path):
    def work(job, folder, tell):
        jobs.cancel(job.id)
        return write(job, folder, lambda *_: None)

    (tmp_path / "go").touch()
    jobs = Jobs(tmp_path, work)
    job = jobs.add("export", "photos", "csv", "x", lambda folder: None)
    jobs.start()
    assert poll(lambda: jobs[job.id].ended and jobs[job.id]).state == "cancelled"
    assert list((tmp_path / job.id).iterdir()) == []
    jobs.close()


def test_jobs_stand_back_behind_requests(tmp_path):
    nice = []

    def work(job, folder, tell):
        with ThreadPoolExecutor(1) as pool:
            nice.append(pool.submit(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())).result())
        raise InputError("That is all.")

    jobs = Jobs(tmp_path, work)
    jobs.add("export", "photos", "csv", "x", lambda folder: None)
    jobs.start()
    poll(lambda: nice)
    assert nice[0] >= queue.NICE
    jobs.close()


def test_a_job_that_cannot_be_written_down_leaves_nothing(tmp_path):
    jobs = Jobs(tmp_path / "jobs", lambda job, folder, tell: Result("", 0))
    with pytest.raises(ZeroDivisionError):
        jobs.add("export", "photos", "csv", "x", lambda folder: 1 / 0)
    jobs.close()
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["lock"]


def test_too_many_jobs_are_told_to_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "MOST_WAITING", 2)
    jobs = Jobs(tmp_path, write)
    for _ in range(2):
        jobs.add("export", "photos", "csv", "x", lambda folder: None)
    with pytest.raises(Overloaded):
        jobs.add("export", "photos", "csv", "x", lambda folder: None)
    jobs.close()


def test_old_results_go(tmp_path):
    now = 1e9
    jobs = Jobs(tmp_path, write, clock=lambda: now)
    (tmp_path / "go").touch()
    job = jobs.add("export", "photos", "csv", "x", lambda folder: None)
    jobs.start()
    poll(lambda: jobs[job.id].state == "done")
    now += DAYS * 86_400 + 1
    jobs.add("export", "photos", "csv", "x", lambda folder: None)
    with pytest.raises(NotFound, match=str(DAYS)):
        jobs[job.id]
    assert not (tmp_path / job.id).exists()
    jobs.close()


def test_which_jobs_are_outdated():
    def job(id, state, ended):
        return Job(id, "export", "photos", "csv", "x", 0.0, state, ended=ended)

    many = [job(str(i), "done", float(i)) for i in range(KEPT + 2)]
    assert outdated([*many, job("w", "waiting", None), job("r", "running", None)], 100.0) == ["1", "0"]
    week = DAYS * 86_400.0
    assert outdated([job("a", "failed", 10.0), job("b", "cancelled", 12.0)], week + 11.0) == ["a"]


def test_the_pace_is_that_of_the_last_reports():
    pace = Pace()
    assert pace.at("finding", 0, 0.0) is None
    assert pace.at("writing", 0, 1.0) is None
    assert pace.at("writing", 10, 2.0) == 10
    for second in range(3, 203):
        rate = pace.at("writing", 10 + 100 * (second - 2), float(second))
    assert rate == 100
    job = Job("a", "export", "photos", "csv", "x", 0.0, "running", done=50, total=150, rate=rate)
    assert job.eta_s == 1.0


def test_where_jobs_are_kept(folder, tmp_path, capsys):
    entries = entries_of([folder])
    first = make_jobs(Shelf(), None, entries)
    second = make_jobs(Shelf(), None, entries)
    third = make_jobs(Shelf(), tmp_path / "state", entries)
    assert (first.folder, third.folder) == (folder / "jobs", tmp_path / "state" / "jobs")
    assert "Another service" in capsys.readouterr().err
    for jobs in (first, second, third):
        jobs.close()
    assert not second.folder.exists()


# ------------------------------------------------------------------------------------------------ a real process


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_killed_service_goes_on_with_its_labelling(tmp_path):
    fake = FakeEmbedder()
    count, classes = 60_000, [{"name": f"c{i}", "positive": [f"class {i}"]} for i in range(1500)]
    with open_writer(tmp_path / "photos.clip", Manifest(fake.model, fake.dim)) as writer:
        vectors = np.random.default_rng(0).normal(size=(count, fake.dim)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        writer.append(Embeddings(vectors, tuple(f"{i}.jpg" for i in range(count)), fake.model))
    place = tmp_path / "photos.clip" / "jobs"

    def parts(id):
        return {path.name: path.stat().st_mtime_ns for path in (place / id).glob("parts-*/labels_*.parquet")}

    with running(tmp_path / "photos.clip", module="tests.child") as service:
        body = {"kind": "label", "set": {"classes": classes}, "format": "parquet"}
        status, _, answer = service.ask("/api/v1/jobs", body)
        assert status == 202
        id = answer["id"]
        poll(lambda: parts(id))
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(30) == 0
    stopped = parts(id)
    assert 0 < len(stopped) < 6
    assert json.loads((place / f"{id}.json").read_bytes())["state"] == "waiting"
    with running(tmp_path / "photos.clip", module="tests.child") as service:
        poll(lambda: len(parts(id)) > len(stopped))
        killed = parts(id)
        for pid in (*children(service.process.pid), service.process.pid):
            os.kill(pid, signal.SIGKILL)
        service.process.wait(30)
    assert stopped.items() <= killed.items()
    assert json.loads((place / f"{id}.json").read_bytes())["state"] == "running"
    with running(tmp_path / "photos.clip", module="tests.child") as service:
        kept = {}

        def done():
            kept.update(parts(id))
            job = service.ask(f"/api/v1/jobs/{id}")[2]
            assert job["state"] != "failed", job
            return job["state"] == "done" and job

        job = poll(done)
        assert killed.items() <= kept.items()
        assert job["items"] == count
    table = pq.read_table(place / id / "result.parquet")
    with open_collection(tmp_path / "photos.clip", embedder=fake) as photos:
        metas = [MetaClass(c["name"], c["positive"]) for c in classes]
        photos.label(ClassSet(metas), tmp_path / "l.parquet")
    once = pq.read_table(tmp_path / "l.parquet")
    assert table.select(["id", "key"]).equals(once.select(["id", "key"]))
    # Labels come of float32 products, whose last bits depend on how many threads BLAS uses: near-ties may differ.
    assert np.allclose(table["score"], once["score"], atol=1e-5)
    assert np.mean(np.array(table["label"]) == np.array(once["label"])) > 0.99
