"""Questions of /api/v1 that use what is served beyond the collection's model: another language's, ratings, flags."""

import csv
import io
from contextlib import contextmanager

import numpy as np
import pytest

from clipsieve.back import flags, work
from clipsieve.back.app import create_app
from clipsieve.back.jobs import Jobs
from clipsieve.back.shelf import Options, Served, Shelf
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.head import make_network
from clipsieve.manifest import Manifest
from clipsieve.perceptual import COLUMN, perceptual_hash
from clipsieve.types import Embeddings, MetaClass, ModelId
from clipsieve.writer import open_writer
from tests.back.made import DIM, FAKE, add_items, vectors
from tests.back.test_api import post
from tests.back.test_jobs import begin, ended, finished
from tests.inference.pictures import picture

COUNT = 300
BUS = {"name": "bus", "positive": ["bus"], "negative": ["truck"], "threshold": 0.3}
VIOLENCE = MetaClass("violence", ["cat"], ["bus", "truck"])
RATING = FAKE.embed_texts(["a rating"])[0]


class French:
    model, dim = ModelId("french", "", ""), DIM

    def embed_texts(self, texts):
        return FAKE.embed_texts([{"autobus": "bus", "camion": "truck"}[text] for text in texts])


def head(share=0.4):
    """A linear head that flags about that share of what there is."""
    weight = np.random.default_rng(0).normal(size=(1, DIM)).astype(np.float32)
    state = {"weight": weight, "bias": np.zeros(1, np.float32)}
    scores = make_network(state, "head").scores(vectors(COUNT))
    return make_network(state, "head", float(np.quantile(scores, 1 - share)))


@pytest.fixture
def folder(tmp_path):
    return add_items(tmp_path / "photos.clip", COUNT)


@contextmanager
def serving(folder, place, **options):
    """A client of a service over the collection, and its jobs, which are not begun."""
    shelf = Shelf([Served("photos", open_collection(folder, embedder=FAKE), Options(**options))])
    jobs = Jobs(place / "jobs", work.make_work(shelf))
    try:
        yield create_app(shelf, fetch=lambda url: b"", jobs=jobs).test_client(), jobs
    finally:
        jobs.close()
        shelf.close()


@pytest.fixture
def client(folder, tmp_path):
    offered = {"multilingual": French(), "ratings": {9: RATING}, "flags": {"safety": head(), "violence": VIOLENCE}}
    with serving(folder, tmp_path, **offered) as (client, jobs):
        jobs.start()
        yield client


def flagged(folder, *names):
    """Ids that are to be left out."""
    gone = set(np.flatnonzero(head().flags(vectors(COUNT))).tolist()) if "safety" in names else set()
    if "violence" in names:
        with open_collection(folder, embedder=FAKE) as photos:
            gone |= {hit.id for hit in photos.filter(VIOLENCE)}
    return gone


def every(client, **body):
    """All hits of a question, page by page."""
    page = post(client, "/search", **body, limit=40)
    hits = page["hits"]
    while page["next"] is not None:
        page = post(client, "/search", **body, limit=40, cursor=page["next"])
        hits += page["hits"]
    return hits


def ids(hits):
    return [int(hit["id"]) for hit in hits]


def test_info_says_what_is_offered(client):
    (photos,) = client.get("/api/v1/info").get_json()["collections"]
    assert photos["multilingual"] is True
    assert photos["ratings"] == [9]
    assert photos["flags"] == [{"name": "safety", "kind": "head"}, {"name": "violence", "kind": "class"}]


@pytest.mark.parametrize("names", [["safety"], ["violence"], ["violence", "safety"]])
@pytest.mark.parametrize("sort", ["score", "margin", "new"])
@pytest.mark.slow
def test_what_is_flagged_is_as_if_it_were_not_there(client, folder, names, sort):
    gone = flagged(folder, *names)
    counts = post(client, "/distribution", **{"class": BUS}, without=names)
    assert counts["estimated"] is False
    assert sum(sum(pair) for pair in counts["hist"]["bins"]) == COUNT - len(gone)
    for view in ("matched", "rejected", "below"):
        asked = {"class": BUS, "sort": sort, "view": view}
        bare, sifted = every(client, **asked), every(client, **asked, without=names)
        assert [hit["id"] for hit in sifted] == [hit["id"] for hit in bare if int(hit["id"]) not in gone]
        assert len(sifted) == counts["counts"][view]
    assert 10 < len(gone) < COUNT - 10


def test_one_that_is_not_flagged_stands_for_its_duplicates(tmp_path):
    bus, cat = FAKE.embed_texts(["bus", "cat"])
    rows = unit_rows(np.stack([bus, bus + 0.05 * cat, cat]))
    with open_writer(tmp_path / "photos.clip", Manifest(FAKE.model, DIM)) as writer:
        keys = ("flagged.jpg", "copy.jpg", "cat.jpg")
        hashes = [perceptual_hash(picture(i)) for i in (1, 1, 2)]
        writer.append(Embeddings(rows, keys, FAKE.model), columns={COLUMN: hashes})
    build_indices(tmp_path / "photos.clip")
    exactly = make_network({"weight": bus[None], "bias": np.zeros(1, np.float32)}, "head", 0.9999)
    asked = {"class": {"positive": ["bus"]}, "dedup": True}
    with serving(tmp_path / "photos.clip", tmp_path, flags={"safety": exactly}) as (client, _):
        assert ids(every(client, **asked)) == [0, 2]
        assert ids(every(client, **asked, without=["safety"])) == [1, 2]


def test_of_many_items_a_head_looks_at_a_sample_for_a_count(client, folder, monkeypatch):
    monkeypatch.setattr(flags, "BUDGET", 150 * DIM)  # the head has a weight for each dimension
    found = post(client, "/distribution", **{"class": BUS}, without=["safety"])
    assert found["estimated"] is True
    left, truth = COUNT - len(flagged(folder, "safety")), len(every(client, **{"class": BUS}, without=["safety"]))
    assert sum(found["counts"].values()) == pytest.approx(left, rel=0.1)
    assert found["counts"]["matched"] == pytest.approx(truth, rel=0.2)
    assert post(client, "/distribution", **{"class": BUS}, without=["violence"])["estimated"] is False


def test_another_language_is_asked_as_if_it_were_english(client):
    french = {"class": {"name": "bus", "positive": ["autobus"], "negative": ["camion"], "threshold": 0.3}}
    english, foreign = every(client, **{"class": BUS}), every(client, **french, multilingual=True)
    assert ids(foreign) == ids(english)
    assert foreign[0]["pos"] == {"ex": "autobus", "score": english[0]["score"]}
    same = {"hist": post(client, "/distribution", **{"class": BUS})["hist"]}
    assert post(client, "/distribution", **french, multilingual=True)["hist"] == same["hist"]
    told = post(client, "/explain", **french, multilingual=True, id="0")
    assert told["score"] == post(client, "/explain", **{"class": BUS}, id="0")["score"]
    asked = post(client, "/suggest", **french, multilingual=True)["review"]
    assert ids(asked) == ids(post(client, "/suggest", **{"class": BUS})["review"])


def test_a_rating_moves_the_positive_examples(client, folder):
    moved = FAKE.embed_texts(["bus"])[0] + 0.8 * RATING
    with open_collection(folder) as photos:
        rows = photos.vectors(np.arange(COUNT)).astype(np.float64)
    best, worst = rows @ (moved / np.linalg.norm(moved)), rows @ FAKE.embed_texts(["truck"])[0]
    matched = [int(i) for i in np.argsort(-best) if best[i] > worst[i] and best[i] >= 0.3]
    asked = {"class": BUS, "rating": 9, "rating_weight": 0.8}
    hits = every(client, **asked)
    assert ids(hits) == matched
    assert matched != ids(every(client, **{"class": BUS}))
    assert hits[0]["score"] == pytest.approx(best[matched[0]], abs=1e-6)
    assert post(client, "/distribution", **asked)["counts"]["matched"] == len(matched)
    assert post(client, "/explain", **asked, id=str(matched[0]))["score"] == pytest.approx(hits[0]["score"])
    image = {"class": {"positive": [{"image": "0"}]}, "rating": 9, "limit": 1}
    away = rows[0] + 0.5 * RATING
    first = post(client, "/search", **image)["hits"][0]
    assert int(first["id"]) == int((rows @ away).argmax())  # the score is calibrated, in the order of cosines


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/search", {"without": ["nsfw"]}, "no flag 'nsfw'; it has safety, violence."),
        ("/distribution", {"rating": 3}, "no rating 3; it has 9."),
        ("/search", {"rating": 10}, "rating: "),
        ("/search", {"rating_weight": 0.5}, "give one, or leave it out"),
        ("/search", {"multilingual": True, "boxes": True}, "reads no other languages"),
        ("/explain", {"without": ["safety"], "id": "0"}, "without: "),
        ("/learn", {"rating": 9}, "rating: "),
        ("/jobs", {"kind": "export", "format": "csv", "without": ["nsfw"]}, "no flag 'nsfw'"),
        ("/jobs", {"kind": "label", "format": "csv", "without": ["safety"]}, "takes no without"),
        ("/jobs", {"kind": "label", "format": "csv", "rating": 9}, "takes no rating"),
        ("/jobs", {"kind": "export", "format": "csv", "ids": ["0"], "class": None, "without": []}, "is of a question"),
    ],
)
def test_what_cannot_be_done_is_said(client, path, body, said):
    body = body if "kind" in body and body["kind"] == "label" else {"class": BUS, **body}
    assert said in post(client, path, 400, **body)["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"multilingual": True}, "without a multilingual model"),
        ({"rating": 9}, "no rating 9; it has none."),
        ({"without": ["safety"]}, "no flag 'safety'; it has none."),
    ],
)
def test_what_is_not_offered_is_refused(folder, tmp_path, body, said):
    with serving(folder, tmp_path) as (client, _):
        for path in ("/search", "/distribution", "/suggest"):
            assert said in post(client, path, 400, **{"class": BUS}, **body)["error"]["message"]


@pytest.mark.parametrize("looked_at", [COUNT, 20])
def test_nobody_is_asked_about_what_is_left_out(client, folder, monkeypatch, looked_at):
    monkeypatch.setattr(flags, "LOOKED_AT", looked_at)
    gone = flagged(folder, "safety")
    some, others = sorted(gone), [i for i in range(COUNT) if i not in gone]
    marks = [(some[0], "right"), (some[1], "wrong"), (others[0], "right"), (others[1], "wrong")]
    body = [{"item": str(item), "class": "bus", "verdict": verdict} for item, verdict in marks]
    assert client.post("/api/v1/marks", json=body).status_code == 200
    for asking in ("doubtful", "spread"):
        found = post(client, "/suggest", **{"class": BUS}, without=["safety"], asking=asking, limit=10)
        assert found["review"]
        shown = [*found["review"], *found["positive"], *found["negative"]]
        assert not set(ids(shown)) & gone
    learned = post(client, "/learn", **{"class": {**BUS, "threshold": None}}, without=["safety"], limit=50)
    assert len(learned["hits"]) == 50
    assert not set(ids([*learned["hits"], *learned["review"]])) & gone


def test_an_export_holds_what_the_search_shows(client):
    asked = {"class": {**BUS, "positive": ["autobus"], "negative": ["camion"]}, "multilingual": True, "rating": 9}
    shown = every(client, **asked, without=["safety", "violence"])
    _, data = finished(client, kind="export", format="csv", **asked, without=["safety", "violence"])
    rows = list(csv.DictReader(io.StringIO(data.decode())))
    assert [row["id"] for row in rows] == [hit["id"] for hit in shown]


def test_labels_are_of_the_language_that_was_asked(client):
    french = {"classes": [{"name": name, "positive": [name]} for name in ("autobus", "camion")]}
    english = {"classes": [{"name": name, "positive": [name]} for name in ("bus", "truck")]}
    rows = [
        [row["label"] for row in csv.DictReader(io.StringIO(data.decode()))]
        for _, data in (
            finished(client, kind="label", format="csv", set=french, multilingual=True),
            finished(client, kind="label", format="csv", set=english),
        )
    ]
    assert rows[0] == [{"bus": "autobus", "truck": "camion"}[label] for label in rows[1]]


def test_a_job_does_not_forget_a_flag_that_is_gone(folder, tmp_path):
    with serving(folder, tmp_path, flags={"violence": VIOLENCE}) as (client, _):
        begin(client, kind="export", format="csv", **{"class": BUS}, without=["violence"])
    with serving(folder, tmp_path) as (client, jobs):  # started anew without --flags
        jobs.start()
        assert "no flag 'violence'" in ended(client, jobs.all()[0].id)["message"]
