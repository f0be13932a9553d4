"""What answers state of an approximate index, by the kind of their question."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from clipsieve.errors import ModelUnavailable
from clipsieve.index import measure
from clipsieve.index.asked import UNMEASURED
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.kinds import kinds_of
from clipsieve.index.measure import recall_of
from clipsieve.index.stored import entry_of
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.types import Embeddings, Example, Float32, MetaClass, ModelId
from clipsieve.writer import open_writer
from tests.index.test_measure import DIM, images, texts

MODEL = ModelId("apart", "00", "none")
N = 6_000


class TextsApart:
    """Embeds a text by its hash, away from all images."""

    model, dim = MODEL, DIM

    def embed_texts(self, asked) -> Float32:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in asked]
        return np.concatenate([texts(1, seed) for seed in seeds] or [np.zeros((0, DIM), np.float32)])


TEXTS = TextsApart()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "QUESTIONS", {40: 24})
    monkeypatch.setattr(measure, "VISITED", 200)
    keys = tuple(f"{i}.jpg" for i in range(N))
    with open_writer(tmp_path, Manifest(MODEL, DIM)) as writer:
        writer.append(Embeddings(images(N, 0), keys, MODEL), columns={"n": list(range(N))})
    return tmp_path


def index(folder, embed=TEXTS.embed_texts, recall=0.8, **how):
    (built,) = build_indices(folder, recall=recall, texts=embed, **how)
    return built


@pytest.mark.slow
def test_an_answer_states_the_figure_of_its_kind(folder):
    index(folder, factory="IVF128,Flat")
    entry = entry_of(read_manifest(folder), "image")
    assert entry is not None
    stated = {(kind.source, kind.shape): kind.recall for kind in kinds_of(entry)}
    assert entry.recall == min(recall for recall in stated.values() if recall is not None)
    with open_collection(folder, embedder=TEXTS) as photos:
        assert photos.info()["indices"][0]["kinds"] == entry.parameters["kinds"]
        by_text = photos.search(MetaClass("t", ["a cat"]))
        assert (by_text.claim, by_text.recall) == ("complete", stated["text", "one"])
        by_image = photos.search(MetaClass("i", [Example(image=7)]))
        assert (by_image.claim, by_image.recall) == ("complete", stated["image", "one"])
        two = photos.search(MetaClass("i", [Example(image=7), Example(image=9)]))
        assert (two.claim, two.recall) == ("complete", stated["image", "several"])
        mixed = photos.search(MetaClass("i", ["a cat", Example(image=9)]), calibration="background")
        assert mixed.claim in ("exact", "complete")
        assert mixed.recall in (None, min(stated["image", "several"] or 0, stated["text", "several"] or 0))
        more = photos.search(MetaClass("t", ["a cat"]), k=41)  # measured, and for no answer so large
        assert more.claim == "exact"


@pytest.mark.slow
def test_without_a_figure_an_answer_is_partial_and_measuring_mends_it(folder):
    def unavailable(_):
        raise ModelUnavailable("The weights of apart are not here; fetch them.")

    built = index(folder, unavailable, factory="IVF128,Flat")
    assert (built.action, built.lacks) == ("built", "The weights of apart are not here; fetch them.")
    question = MetaClass("t", ["a cat"])
    with open_collection(folder, embedder=TEXTS) as photos:
        answer = photos.search(question)
        assert (answer.claim, answer.recall, answer.notes[-1]) == ("partial", None, UNMEASURED)
        assert photos.search(MetaClass("i", [Example(image=7)])).claim == "complete"
        assert photos.search(question, where="n < 100").claim == "exact"  # so few are scored directly
        assert photos.nearest(TEXTS.embed_texts(["a cat"])[0])[0].shape == (40,)
    assert index(folder, unavailable).action == "kept"
    file = entry_of(read_manifest(folder), "image").files["index"]
    assert index(folder).action == "measured"
    assert entry_of(read_manifest(folder), "image").files["index"] == file
    assert index(folder).action == "kept"
    with open_collection(folder, embedder=TEXTS) as photos:
        assert photos.search(question).claim == "complete"


@pytest.mark.slow
def test_an_older_collection_has_a_figure_for_images_until_it_is_measured(folder):
    index(folder, factory="IVF128,Flat")
    with open_writer(folder) as writer:
        entry = entry_of(writer.manifest, "image")
        assert entry is not None
        old = {name: value for name, value in entry.parameters.items() if name != "kinds"}
        entry = dataclasses.replace(entry, parameters=old, recall=0.991)
        writer.commit(dataclasses.replace(writer.manifest, indices=(entry,)))
    with open_collection(folder, embedder=TEXTS) as photos:
        assert photos.search(MetaClass("i", [Example(image=7)])).recall == 0.991
        assert photos.search(MetaClass("t", ["a cat"])).claim == "partial"
        assert any("images alone" in sentence for sentence in photos.info(timed=True)["advice"])
    assert index(folder).action == "measured"
    with open_collection(folder, embedder=TEXTS) as photos:
        assert photos.search(MetaClass("t", ["a cat"])).claim == "complete"


@pytest.mark.slow
def test_what_answers_by_text_state_is_what_they_find(folder):
    index(folder, factory="IVF128,Flat")
    found, stated = [], 0.0
    with open_collection(folder, embedder=TEXTS) as photos:
        for number in range(60):
            question = MetaClass("t", [f"text {number}"])
            answer = photos.rank(question)
            if answer.claim == "complete":
                stated = answer.recall or 0
                exact = photos.rank(question, where="n >= 0", view="matched", order="margin")
                found.append(recall_of(answer.ranked, exact.ranked))
    assert len(found) > 40
    assert stated - np.mean(found) <= 0.01
    assert np.mean(np.array(found) < stated - 0.05) <= 0.05
