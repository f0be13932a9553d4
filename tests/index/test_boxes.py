"""Boxes found across a collection, and counted."""

import math

import numpy as np
import pytest

from clipsieve.errors import InputError, ModelMismatch
from clipsieve.index import boxes, collection
from clipsieve.index.build import build_indices
from clipsieve.index.examples import unit_rows
from clipsieve.index.regions import CollectionRegions
from clipsieve.inference.fake import FakeDetector, FakeEmbedder
from clipsieve.manifest import Detection, Manifest
from clipsieve.opening import open_collection
from clipsieve.stored_regions import store
from clipsieve.types import Embeddings, MetaClass, Regions
from clipsieve.writer import open_writer

D = 8
DETECTOR, EMBEDDER = FakeDetector(D), FakeEmbedder(D)
TEXTS = ("red circle", "orange circle", "square")
COUNTS = [[5, 0, 3, 1, 40], [2, 7, 30]]


@pytest.fixture
def folder(tmp_path):
    """Regions around the vectors of texts, of item 0 on; shifts and scales differ."""
    rng = np.random.default_rng(0)
    with open_writer(tmp_path, Manifest(EMBEDDER.model, D, detection=Detection(DETECTOR.model, D, 40, False))) as w:
        for counts in COUNTS:
            item = np.repeat(np.arange(len(counts)), counts)
            m = len(item)
            near = DETECTOR.embed_texts(TEXTS)[rng.integers(0, 3, m)] + 0.15 * rng.standard_normal((m, D))
            near /= np.linalg.norm(near, axis=1, keepdims=True)
            corner = rng.random((m, 2)) / 2
            box = np.concatenate([corner, corner + 0.2], axis=1).astype(np.float32)
            objectness, shift, scale = np.sort(rng.random(m))[::-1], rng.normal(-0.6, 0.1, m), rng.uniform(3, 20, m)
            found = Regions(
                near.astype(np.float32),
                box,
                item,
                objectness.astype(np.float32),
                shift.astype(np.float32),
                scale.astype(np.float32),
                DETECTOR.model,
            )
            keys = tuple(f"{w.manifest.next_id + i}.jpg" for i in range(len(counts)))
            w.append(
                Embeddings(EMBEDDER.embed_texts(keys), keys, EMBEDDER.model), regions=store(found, len(counts), None)
            )
    return tmp_path


def plainly(photos, positive, negative, threshold, every_box):
    """(item, box, score) of all that the rule accepts, region by region."""
    regions = photos.regions.of(photos.select("1"))
    found = []
    for i in range(len(regions.item)):

        def d(text, i=i):
            cosine = float(regions.vectors[i].astype(np.float64) @ DETECTOR.embed_texts([text])[0])
            return 1 / (1 + math.exp(-(cosine + float(regions.shift[i])) * float(regions.scale[i])))

        p, n = max(map(d, positive)), max(map(d, negative), default=0)
        if p > n and p >= threshold:
            found.append((int(regions.item[i]), tuple(regions.boxes[i].tolist()), p))
    found.sort(key=lambda one: -one[2])
    return found if every_box else [one for j, one in enumerate(found) if one[0] not in [o[0] for o in found[:j]]]


@pytest.mark.parametrize("every_box", [False, True])
@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("k", [1, 4, 1000])
def test_the_best_boxes_are_those_of_the_rule(folder, monkeypatch, every_box, approximate, k):
    if approximate:  # as if the index could miss some: candidates are deepened then, from very few on
        build_indices(folder)
        monkeypatch.setattr(boxes, "DEPTH", 2)
        monkeypatch.setattr(CollectionRegions, "approximate", property(lambda self: True))
    with open_collection(folder, embedder=EMBEDDER) as photos:
        photos.remove([2])
        for negative, threshold in [((), None), (("orange circle", "square"), None), (("orange circle",), 0.8)]:
            question = MetaClass("q", ["red circle", "a ball"], negative, threshold)
            found = photos.search_regions(question, DETECTOR, k, every_box=every_box)
            wanted = plainly(photos, ("red circle", "a ball"), negative, threshold or 0, every_box)[:k]
            assert [(hit.id, hit.box) for hit in found.hits] == [(item, box) for item, box, _ in wanted]
            assert [hit.score for hit in found.hits] == pytest.approx([score for *_, score in wanted], abs=1e-6)
            assert found.claim == "exact"
            assert all((hit.margin == math.inf) == (not negative) for hit in found.hits)
        within = photos.search_regions(MetaClass("q", ["square"]), DETECTOR, where="id > 3", within=np.array([0, 4, 7]))
        assert {hit.id for hit in within.hits} == {4, 7}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["IVF64,Flat", "IVF64,SQ8"])
def test_an_index_that_misses_some(tmp_path, kind):
    """Inverted lists of which few are read: what is found is the rule's, in the order of the detector's logits."""
    rng = np.random.default_rng(1)
    items, each = 1500, 8
    m = items * each
    near = unit_rows(DETECTOR.embed_texts([f"thing {i}" for i in range(200)])[rng.integers(0, 200, m)])
    vectors = unit_rows((near + 0.2 * rng.standard_normal((m, D))).astype(np.float32))
    corner = rng.random((m, 2)) / 2
    box = np.concatenate([corner, corner + 0.2], axis=1).astype(np.float32)
    shift, scale = rng.normal(-0.6, 0.1, m).astype(np.float32), rng.uniform(3, 20, m).astype(np.float32)
    found = Regions(
        vectors, box, np.repeat(np.arange(items), each), np.zeros(m, np.float32), shift, scale, DETECTOR.model
    )
    keys = tuple(f"{i}.jpg" for i in range(items))
    images = Embeddings(unit_rows(rng.standard_normal((items, D)).astype(np.float32)), keys, EMBEDDER.model)
    with open_writer(tmp_path, Manifest(EMBEDDER.model, D, detection=Detection(DETECTOR.model, D, each, False))) as w:
        w.append(images, regions=store(found, items, None))
    texts = [[f"thing {i}"] for i in range(20)]
    exact, k = {}, 50
    with open_collection(tmp_path, embedder=EMBEDDER) as photos:
        for text in texts:
            question = MetaClass("q", text, ["thing 150", "thing 151"], 0.3)
            answer = photos.search_regions(question, DETECTOR, k, every_box=True)
            assert answer.claim == "exact"
            exact[text[0]] = {hit.box: hit.score for hit in answer.hits}
        every = photos.search_regions(MetaClass("q", ["thing 3"], ["thing 150"]), DETECTOR, m, every_box=True)
        logits = {hit.box: hit.score for hit in every.hits}
    build_indices(tmp_path, factory=kind, recall=0.6)
    with open_collection(tmp_path, embedder=EMBEDDER) as photos:
        assert photos.regions.approximate
        kept = 0.0
        for text in texts:
            question = MetaClass("q", text, ["thing 150", "thing 151"], 0.3)
            answer = photos.search_regions(question, DETECTOR, k, every_box=True)
            assert answer.claim == "complete"
            assert answer.recall is not None
            assert 0.5 < answer.recall < 1
            scores = [hit.score for hit in answer.hits]
            assert scores == sorted(scores, reverse=True)
            kept += len({hit.box for hit in answer.hits} & exact[text[0]].keys()) / max(len(exact[text[0]]), 1)
        assert 0.5 < kept / len(texts) < 1  # it does miss some
        answer = photos.search_regions(MetaClass("q", ["thing 3"], ["thing 150"]), DETECTOR, k, every_box=True)
        assert len(answer.hits) == k
        assert [hit.score for hit in answer.hits] == pytest.approx([logits[hit.box] for hit in answer.hits], abs=1e-6)
        once = photos.search_regions(MetaClass("q", ["thing 3"]), DETECTOR, k)
        assert len({hit.id for hit in once.hits}) == k
        some = photos.search_regions(MetaClass("q", ["thing 3"]), DETECTOR, k, where="id % 7 = 0", every_box=True)
        assert {hit.id % 7 for hit in some.hits} == {0}


def test_objects_are_counted_once(folder):
    question = MetaClass("q", ["red circle"], ["orange circle"])
    with open_collection(folder, embedder=EMBEDDER) as photos:
        counts = {}
        for id in photos.select("1").tolist():
            regions = photos.regions.of([id])
            vectors = boxes.embed_question(question, DETECTOR)
            counts[id] = len(boxes.kept(regions, vectors, 0.5).region)
            positive = [one for one in plainly(photos, ["red circle"], ["orange circle"], 0.5, True) if one[0] == id]
            assert counts[id] <= len(positive)
        assert max(counts.values()) > 2
        ids = np.random.default_rng(0).permutation(list(counts))
        assert boxes.count(photos.regions, vectors, ids, 0.5).tolist() == [counts[id] for id in ids.tolist()]


def test_filters_count(folder):
    loaded = []

    def load(name, *, device):
        loaded.append(name)
        return DETECTOR

    with open_collection(folder, embedder=EMBEDDER, load_detector=load) as photos:
        ids = photos.select("1")

        def counts(text, least):
            vectors = boxes.embed_question(MetaClass(text, [text]), DETECTOR)
            return dict(zip(ids.tolist(), boxes.count(photos.regions, vectors, ids, least).tolist(), strict=True))

        red, square = counts("red circle", 0.1), counts("it's a square", 0.5)
        assert len({*red.values()}) > 2
        for n in (1, 2, max(red.values()), 100):
            assert photos.select(f"COUNT ('red circle') >= {n}").tolist() == [id for id in red if red[id] >= n]
        found = photos.select("id > 2 and (count('red circle') > 2 or not count('it''s a square', 0.5))")
        assert found.tolist() == [id for id in red if id > 2 and (red[id] > 2 or not square[id])]
        assert {hit.id for hit in photos.search(MetaClass("q", ["a"]), where="count('red circle') = 1").hits} == {
            id for id, n in red.items() if n == 1
        }
        assert len(loaded) == 1
        many = max(red, key=lambda id: red[id])
        photos.remove([many])
        assert many not in photos.select("count('red circle') > 0")
        assert photos.select("key = 'count(' or count('nothing like it', 1) > 0").tolist() == []


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("count() > 1", "cannot be used"),
        ("count(*) > 1", "cannot be used"),
        ("count('a', 1, 2) > 1", "cannot be used"),
        ('count("red circle") > 1', "single quotes"),
        ("count(' ') > 1", "give it a text"),
        ("count('a', 'b') > 1", "a number in 0..1"),
    ],
)
def test_what_cannot_be_counted(folder, where, words):
    with (
        open_collection(folder, embedder=EMBEDDER, load_detector=lambda *_, **__: DETECTOR) as photos,
        pytest.raises(InputError, match=words),
    ):
        photos.select(where)


def test_nothing_is_counted_without_a_detector(folder):
    with collection.open_collection(folder, embedder=EMBEDDER) as photos:
        with pytest.raises(InputError, match="there is no detector here"):
            photos.select("count('a') > 1")
        with pytest.raises(InputError, match="none was given"):
            photos.search_regions(MetaClass("q", ["a"]))


def test_what_cannot_be_asked(folder):
    with open_collection(folder, embedder=EMBEDDER) as photos:
        with pytest.raises(ModelMismatch):
            photos.search_regions(MetaClass("q", ["a"]), FakeDetector(D, name="other"))
        with pytest.raises(InputError, match="at least one"):
            photos.search_regions(MetaClass("q", ["a"]), DETECTOR, 0)
