"""The coarse copy that is kept beside a collection: made, followed, and not believed when it was changed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from clipsieve.errors import CollectionDamaged
from clipsieve.index import coarse
from clipsieve.index.build import build_indices
from clipsieve.index.coarse import open_coarse
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.compact import compact
from clipsieve.index.examples import unit_rows
from clipsieve.index.rule import Question, Ranked
from clipsieve.index.screen import Screen
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.types import Embeddings, Hit, MetaClass
from clipsieve.whole import verify
from clipsieve.writer import open_writer

DIM = 16
FAKE = FakeEmbedder(DIM)
FILES = ("image.coarse.npy", "image.coarse_bounds.npy", "image.coarse_dims.npy")


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "LEAST_NUMBERS", 1)


def fill(folder: Path, n: int, seed: int, captions: bool = False) -> None:
    rng = np.random.default_rng(seed)
    vectors = unit_rows(FAKE.embed_texts(["bus", "cat"])[np.arange(n) % 2] + 0.3 * rng.normal(size=(n, DIM)))
    with open_writer(folder, Manifest(FAKE.model, DIM)) as writer:
        first = writer.manifest.next_id
        keys = tuple(f"{i}.jpg" for i in range(first, first + n))
        texts = [f"text {i}" if i % 3 else None for i in range(n)] if captions else None
        writer.append(
            Embeddings(vectors, keys, FAKE.model),
            texts=None if texts is None else Embeddings(FAKE.embed_texts([t or "" for t in texts]), keys, FAKE.model),
            captions=texts,
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    fill(path, 300, 0)
    build_indices(path)
    return path


QUESTION = MetaClass("bus", ["bus"], ["cat"])


def answers(photos: Collection) -> list[tuple[Hit, ...]]:
    every = photos.search(QUESTION, k=500, order="new").hits
    return [photos.search(QUESTION, k=k).hits for k in (5, 500)] + [
        every,
        tuple(photos.filter(QUESTION, threshold=0.2)),
    ]


def plain(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Hit, ...]]:
    """The answers without the copy."""
    with monkeypatch.context() as patch, open_collection(folder, embedder=FAKE) as photos:
        patch.setattr("clipsieve.index.opened.open_coarse_rows", lambda *_: None)
        return answers(photos)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the copy was asked for."""
    asked: list[str] = []
    topk, threshold = Screen.topk, Screen.threshold

    def recorded_topk(self: Screen, questions: Sequence[Question]) -> list[Ranked]:
        asked.append("topk")
        return topk(self, questions)

    def recorded_threshold(self: Screen, question: Question) -> Iterator[Ranked]:
        asked.append("threshold")
        return threshold(self, question)

    monkeypatch.setattr(Screen, "topk", recorded_topk)
    monkeypatch.setattr(Screen, "threshold", recorded_threshold)
    return asked


def test_questions_go_by_the_copy_and_answer_the_same(
    folder: Path, monkeypatch: pytest.MonkeyPatch, looks: list[str]
) -> None:
    manifest = read_manifest(folder)
    assert {file.path for file in manifest.indices[0].files.values()} >= set(FILES)
    assert verify(folder, manifest) == {}
    with open_collection(folder, embedder=FAKE) as photos:
        found = answers(photos)
    assert sorted(looks) == ["threshold", "threshold", "topk", "topk"]
    assert found == plain(folder, monkeypatch)


def test_what_was_added_and_removed_since_is_followed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, looks: list[str]
) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        best = [hit.id for hit in photos.search(QUESTION, k=20).hits]
        fill(folder, 40, 1)
        with open_writer(folder) as writer:
            writer.remove([*best[:10], 301])
        assert photos.refresh()
        found = answers(photos)
        assert looks
        assert found == plain(folder, monkeypatch)
        assert not {*best[:10], 301} & {hit.id for hit in found[1]}
        assert any(hit.id >= 300 for hit in found[1])
        (built,) = build_indices(folder)
        assert (built.action, built.entry.rows) == ("extended", 340)
        assert photos.refresh()
        assert answers(photos) == found
        compact(folder)
        assert photos.refresh()
        assert read_manifest(folder).indices[0].rows == 329
        assert answers(photos) == found
    names = {file.path for file in read_manifest(folder).indices[0].files.values()}
    assert {path.name for path in folder.glob("image*")} == names
    assert len(names) == 4


def test_a_copy_is_made_where_an_earlier_version_made_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coarse, "LEAST_NUMBERS", 10**9)
    assert "coarse" not in build_indices(folder, rebuild=True)[0].entry.files
    assert build_indices(folder)[0].action == "kept"
    monkeypatch.setattr(coarse, "LEAST_NUMBERS", 1)
    (built,) = build_indices(folder)
    assert (built.action, "coarse" in built.entry.files) == ("extended", True)
    assert build_indices(folder)[0].action == "kept"


def test_captions_have_a_copy_of_those_that_are_there(tmp_path: Path, looks: list[str]) -> None:
    fill(tmp_path, 90, 0, captions=True)
    build_indices(tmp_path)
    with open_collection(tmp_path, embedder=FAKE) as photos:
        hits = photos.search(MetaClass("t", ["text 7"]), k=100, modality="text").hits
    assert looks == ["topk"]
    assert hits[0].id == 7
    assert len(hits) == 60


@pytest.mark.parametrize("name", FILES)
def test_a_changed_copy_is_not_answered_from(folder: Path, name: str) -> None:
    whole = (folder / name).read_bytes()
    with open_collection(folder, embedder=FAKE) as photos:
        photos.search(QUESTION)
        (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CollectionDamaged, match=name):
            photos.search(QUESTION)
    with pytest.raises(CollectionDamaged, match=name):
        open_collection(folder, embedder=FAKE)


def test_files_of_something_else_are_refused(tmp_path: Path) -> None:
    paths = {role: tmp_path / f"{role}.npy" for role in coarse.FILES}
    np.save(paths["coarse"], np.zeros((3, 64), np.int8))
    np.save(paths["coarse_bounds"], np.zeros((4, 3), np.float32))
    np.save(paths["coarse_dims"], np.zeros((2, 16), np.float64))
    with pytest.raises(CollectionDamaged, match="float64"):
        open_coarse(paths, 3, 16)
    paths["coarse"].write_bytes(b"short")
    with pytest.raises(CollectionDamaged, match="cannot be read"):
        open_coarse(paths, 3, 16)
    with pytest.raises(CollectionDamaged, match="cannot be read"):
        open_coarse(dict.fromkeys(paths, tmp_path / "gone.npy"), 3, 16)


def test_info_times_a_question_by_the_copy(folder: Path, looks: list[str]) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        (index,) = photos.info(timed=True)["indices"]
    assert index["scan_ms"] > 0
    assert set(looks) == {"topk"}
