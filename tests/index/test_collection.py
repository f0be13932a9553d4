import dataclasses
import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import clipsieve
from clipsieve.errors import (
    CollectionMissing,
    CollectionReadOnly,
    InputError,
    ModelMismatch,
    NotFound,
)
from clipsieve.index import opened, stored
from clipsieve.index.build import build_indices
from clipsieve.index.collection import Collection, open_collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.rule import Veto
from clipsieve.index.templates import OPENAI, SIMPLE
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.manifest import Manifest
from clipsieve.perceptual import COLUMN, perceptual_hash
from clipsieve.types import ClassSet, Embeddings, Example, Float32, MetaClass, ModelId, QueryResult
from clipsieve.writer import open_writer
from tests.inference.pictures import picture

DIM = 16
FAKE = FakeEmbedder(DIM)


def near(texts: Sequence[str], n: int, seed: int) -> Float32:
    """n vectors around those of the texts, in turn."""
    rng = np.random.default_rng(seed)
    vectors = FAKE.embed_texts(texts)[np.arange(n) % len(texts)] + 0.25 * rng.normal(size=(n, DIM))
    return unit_rows(vectors.astype(np.float32))


def fill(
    folder: Path,
    vectors: Float32,
    captions: Sequence[str | None] | None = None,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> None:
    with open_writer(folder, Manifest(FAKE.model, DIM)) as writer:
        first = writer.manifest.next_id
        keys = tuple(f"{i}.jpg" for i in range(first, first + len(vectors)))
        writer.append(
            Embeddings(vectors, keys, FAKE.model),
            texts=None
            if captions is None
            else Embeddings(FAKE.embed_texts([c or "" for c in captions]), keys, FAKE.model),
            captions=captions,
            columns={
                "n": list(range(first, first + len(vectors))),
                "content_hash": [f"{i:064x}" for i in range(first, first + len(vectors))],
                **(columns or {}),
            },
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "photos"
    fill(path, near(["bus", "truck", "cat"], 240, 0))
    fill(path, near(["bus", "dog"], 60, 1))
    return path


@pytest.fixture
def photos(folder: Path) -> Iterator[Collection]:
    with open_collection(folder, embedder=FAKE) as collection:
        yield collection


def by_definition(
    collection: Collection, positive: Sequence[str], negative: Sequence[str], allowed: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """Ids and scores by the soft veto, item by item, best first."""
    found = []
    for i in range(300):
        if allowed(i):
            vector = collection.vectors([i])[0].astype(np.float64)
            best = max(float(FAKE.embed_texts([t])[0].astype(np.float64) @ vector) for t in positive)
            worst = max((float(FAKE.embed_texts([t])[0].astype(np.float64) @ vector) for t in negative), default=-2.0)
            found.append((i, best - max(0.0, worst - best)))
    return sorted(found, key=lambda f: (-np.float32(f[1]), f[0]))


def ids(result: QueryResult) -> list[int]:
    return [hit.id for hit in result.hits]


def test_a_class_with_a_negative(photos: Collection) -> None:
    result = photos.search(MetaClass("bus", ["bus"], ["truck"]), k=20)
    expected = by_definition(photos, ["bus"], ["truck"], lambda i: True)[:20]
    assert ids(result) == [i for i, _ in expected]
    assert result.claim == "exact"
    first = result.hits[0]
    assert (first.key, first.positive, first.negative) == (f"{first.id}.jpg", Example("bus"), Example("truck"))
    assert first.score == pytest.approx(expected[0][1], abs=1e-6)


@pytest.mark.parametrize("factory", ["flat", "IVF8,SQfp16"])
def test_every_way_to_search_gives_the_same(folder: Path, factory: str) -> None:
    build_indices(folder, factory=factory, recall=1.0)
    fill(folder, near(["bus"], 30, 3))  # not in the index
    with open_collection(folder, embedder=FAKE) as photos:
        assert photos.count == 330
        question = MetaClass("bus", ["bus", "dog"], ["truck"])
        found = ids(photos.search(question, k=5))
        scanned = [hit.id for hit in photos.filter(question)]
        assert set(found) <= set(scanned)
        assert found == ids(photos.search(question, k=330))[:5]
        assert scanned == sorted(scanned)
        assert any(i >= 300 for i in ids(photos.search(question, k=60)))


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 300), st.integers(0, 300), st.integers(1, 50), st.booleans())
def test_a_filter_and_removals_hold(photos: Collection, low: int, high: int, k: int, negative: bool) -> None:
    against = ["truck"] if negative else []
    result = photos.search(
        MetaClass("bus", ["bus", "cat"], against), k, where=f"n >= {low} and n < {high} and n % 3 <> 1"
    )
    expected = by_definition(photos, ["bus", "cat"], against, lambda i: low <= i < high and i % 3 != 1)
    assert ids(result) == [i for i, _ in expected[:k]]


def test_removed_items_are_gone_everywhere(photos: Collection) -> None:
    question = MetaClass("bus", ["bus"], threshold=0.3)
    best = ids(photos.search(question, k=3))
    photos.remove(best[:2])
    assert photos.count == 298
    assert ids(photos.search(question, k=1)) == best[2:]
    assert not set(best[:2]) & {hit.id for hit in photos.filter(question)}
    assert not set(best[:2]) & set(photos.select("1").tolist())
    before = photos.distribution(question)
    assert before.matched + before.rejected + before.below == 298
    for call in (photos.items, photos.vectors):
        with pytest.raises(NotFound, match="removed"):
            call(best[:1])
    with pytest.raises(NotFound):
        photos.search(MetaClass("like it", [Example(image=best[0])]))
    with pytest.raises(NotFound, match="no item 300"):
        photos.remove([300])


def test_one_of_each_duplicate_group_still_fills_up(folder: Path) -> None:
    copies = near(["bus"], 1, 9)
    sides = [100] * 40
    sides[3], sides[17] = 150, 300
    columns = {"width": sides, "height": sides, COLUMN: [perceptual_hash(picture(1))] * 40}
    fill(folder, np.repeat(copies, 40, axis=0), columns=columns)
    build_indices(folder)
    with open_collection(folder, embedder=FAKE) as photos:
        question = MetaClass("it", [Example(image=300)])
        assert set(ids(photos.search(question, k=40))) == set(range(300, 340))
        deduplicated = ids(photos.search(question, k=40, dedup=True))
        assert len(deduplicated) == 40
        assert deduplicated[0] == 317  # the one with most pixels
        assert not set(deduplicated[1:]) & set(range(300, 340))
        filtered = [hit.id for hit in photos.filter(question, 0.9, dedup=True)]
        assert filtered == [317]
        assert ids(photos.search(question, k=1, dedup=True, where="n < 310")) == [303]  # of those that are asked for
        assert photos.nearest(copies[0], 1, dedup=True)[0].tolist() == [317]
        (note,) = photos.search(question, dedup=True).notes
        assert note.startswith("Of 300 of 340 images no near-duplicates are left out")
        assert COLUMN not in photos.columns
        assert COLUMN not in photos.items([300])[0]
        photos.remove([317])
        assert ids(photos.search(question, k=1, dedup=True)) == [303]


def test_groups_that_went_by_vectors_alone_hide_nothing(folder: Path) -> None:
    fill(folder, np.repeat(near(["bus"], 1, 9), 3, axis=0))
    build_indices(folder)
    with open_writer(folder) as writer:  # as earlier releases wrote it
        (entry,) = writer.manifest.indices
        path = folder / entry.files["groups"].path
        np.save(path, np.minimum(np.arange(303), 300))
        files = {"groups": writer.file(path)}
        parameters = {"duplicate_cosine": 0.999}
        old = dataclasses.replace(entry, files=files, parameters=parameters)
        writer.commit(dataclasses.replace(writer.manifest, indices=(old,)))
    with open_collection(folder, embedder=FAKE) as photos:
        found = photos.search(MetaClass("it", [Example(image=300)]), k=3, dedup=True)
        assert set(ids(found)) == {300, 301, 302}
        assert "told them by vectors alone" in found.notes[0]
    build_indices(folder, rebuild=True)
    with open_collection(folder, embedder=FAKE) as photos:
        notes = photos.search(MetaClass("bus", ["bus"]), dedup=True).notes
        assert any("no perceptual hash" in note for note in notes)


def test_duplicates_that_were_not_looked_for(photos: Collection) -> None:
    with pytest.raises(NotFound, match="clipsieve index"):
        photos.search(MetaClass("bus", ["bus"]), dedup=True)


def test_captions_are_asked_only_where_there_are_some(folder: Path) -> None:
    fill(folder, near(["cat"], 4, 5), ["a bus", None, "a cat", " "])
    with open_collection(folder, embedder=FAKE) as photos:
        result = photos.search(MetaClass("bus", ["a bus"]), modality="text")
        assert (result.hits[0].id, round(result.hits[0].score, 3)) == (300, 1.0)
        assert set(ids(result)) == {300, 302}


def test_no_captions_is_said(photos: Collection) -> None:
    with pytest.raises(NotFound, match="captions"):
        photos.search(MetaClass("bus", ["bus"]), modality="text")


def test_a_set_its_class_and_what_it_carries(photos: Collection) -> None:
    templates = ("a photo of a {}", "{} on a street")
    classes = ClassSet([MetaClass("bus", ["bus"]), MetaClass("cat", ["cat"])], templates=templates)
    by_hand = unit_rows(FAKE.embed_texts(["a photo of a bus", "bus on a street"]).mean(axis=0, keepdims=True))
    np.testing.assert_allclose(photos.embed(classes)[0].positive, by_hand, atol=1e-6)
    np.testing.assert_allclose(photos.embed(classes, None)[0].positive, FAKE.embed_texts(["bus"]), atol=1e-6)
    assert photos.search(classes, name="bus", templates=None).hits == photos.search(classes.classes[0]).hits
    with pytest.raises(InputError, match="name one of bus, cat"):
        photos.search(classes)
    with pytest.raises(NotFound, match="'tram'"):
        photos.search(classes, name="tram")


def test_texts_and_images_meet_on_the_background_scale(photos: Collection) -> None:
    mixed = MetaClass("bus", ["bus", Example(image=0)], threshold=2.0)
    with pytest.raises(InputError, match="background"):
        photos.search(mixed)
    result = photos.search(mixed, calibration="background")
    assert all(hit.score >= 2 for hit in result.hits)
    assert result.hits[0].id == 0  # the example itself
    spread = photos.distribution(mixed, calibration="background")
    assert spread.matched == len(list(photos.filter(mixed, calibration="background"))) >= len(result.hits)
    assert photos.distribution(mixed, calibration="background", sample=100).exact is False


def test_an_image_by_id_by_upload_and_by_hash(photos: Collection) -> None:
    assert ids(photos.search(MetaClass("it", [Example(image=7)]), k=1)) == [7]
    assert ids(photos.search(MetaClass("it", [Example(image=f"{7:064x}")]), k=1)) == [7]
    file = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(file, "PNG")
    name = photos.add_example_image(file.getvalue())
    (vectors,) = photos.embed(ClassSet([MetaClass("it", [Example(image=name)])]))
    np.testing.assert_array_equal(vectors.positive, FAKE.embed_images([file.getvalue()]))
    with pytest.raises(NotFound, match="upload"):
        photos.search(MetaClass("it", [Example(image="0" * 60 + "ffff")]))
    with pytest.raises(InputError, match="Image 0"):
        photos.add_example_image(b"no image")


def test_rows_and_keys(photos: Collection) -> None:
    assert [row["key"] for row in photos.items([5, 2])] == ["5.jpg", "2.jpg"]
    assert photos.ids_of_keys(["9.jpg"]).tolist() == [9]
    assert photos.select("n < 3").tolist() == [0, 1, 2]
    assert photos.vectors([3]).dtype == np.float32
    with pytest.raises(InputError, match="columns are id, key"):
        photos.search(MetaClass("bus", ["bus"]), where="nonsense >")


@pytest.mark.parametrize("name", ["labels.parquet", "labels.csv", "labels"])
def test_labelling(photos: Collection, tmp_path: Path, name: str) -> None:
    classes = ClassSet([MetaClass(t, [t]) for t in ("bus", "truck", "cat", "dog")])
    counts = photos.label(classes, tmp_path / name)
    assert sum(counts.values()) == 300
    assert counts["bus"] > 80
    if name == "labels":
        assert (tmp_path / name / "labels_000000.parquet").exists()
    else:
        assert (tmp_path / name).exists()
        assert not (tmp_path / f"{name}.parts").exists()
        with pytest.raises(InputError, match="exists"):
            photos.label(classes, tmp_path / name)
    if name == "labels.parquet":
        table = pq.read_table(tmp_path / name)
        assert table["id"].to_pylist() == list(range(300))
        assert table["label"].to_pylist().count("bus") == counts["bus"]
    with pytest.raises(InputError, match="txt"):
        photos.label(classes, tmp_path / "labels.txt")


def test_an_embedder_is_found_when_it_is_needed(folder: Path) -> None:
    asked: list[str] = []

    def load(name: str) -> FakeEmbedder:
        asked.append(name)
        return FAKE

    with open_collection(folder, load=load) as photos:
        photos.search(MetaClass("it", [Example(image=0)]))
        assert asked == []
        photos.search(MetaClass("bus", ["bus"]))
        photos.search(MetaClass("cat", ["cat"]))
        assert asked == ["fake"]
    with open_collection(folder) as photos, pytest.raises(InputError, match="'fake', and no embedder"):
        photos.search(MetaClass("bus", ["bus"]))


def test_another_model_is_refused(folder: Path) -> None:
    with pytest.raises(ModelMismatch):
        open_collection(folder, embedder=FakeEmbedder(DIM, "other"))
    with pytest.raises(InputError, match="int embeds neither"):
        open_collection(folder, embedder=3)

    class Drifted(FakeEmbedder):
        def embed_texts(self, texts: Sequence[str]) -> Float32:
            return super().embed_texts([text + "!" for text in texts])

    from clipsieve.inference.probe import probe

    probed = folder.with_name("probed")
    with open_writer(probed, Manifest(FAKE.model, DIM, probe=probe(FAKE))) as writer:
        writer.append(Embeddings(FAKE.embed_texts(["x"]), ("x",), FAKE.model))
    open_collection(probed, embedder=FAKE, probe=probe).close()
    with pytest.raises(ModelMismatch, match="probe texts"):
        open_collection(probed, embedder=Drifted(DIM), probe=probe)


def test_refresh_sees_what_others_commit(folder: Path) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        assert photos.refresh() is False
        stream = photos.filter(MetaClass("bus", ["bus"]))
        first = next(stream)
        fill(folder, near(["bus"], 10, 4))
        assert photos.count == 300
        assert photos.refresh() is True
        assert photos.count == 310
        assert photos.keys([309]) == ["309.jpg"]
        assert [first.id, *(hit.id for hit in stream)][-1] < 300  # what was begun goes on as it began


def test_long_work_stays_at_its_commit(folder: Path) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        bus = MetaClass("bus", ["bus"])
        classes = ClassSet([bus, MetaClass("cat", ["cat"])])
        before = photos.search(bus, k=5)
        fixed, count = photos.fixed(photos.embed(classes)), photos.count
        fill(folder, near(["bus"], 30, seed=5))
        photos.remove([before.hits[0].id])
        assert photos.search(bus, k=5).hits != before.hits
        assert fixed.search(bus, k=5).hits == before.hits
        assert fixed.items([before.hits[0].id])[0]["key"] == before.hits[0].key
        assert fixed.count == count
        with pytest.raises(InputError, match="embedded before"):
            fixed.search(MetaClass("dog", ["dog"]))


def test_what_is_left_out_of_a_fixed_commit_is_not_found(folder: Path) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        bus = MetaClass("bus", ["bus"])
        classes = ClassSet([bus])
        every = photos.search(bus, k=photos.count).hits
        gone = np.sort(np.array([hit.id for hit in every[:40:2]]))
        left = [hit for hit in every if hit.id not in gone]
        fixed = photos.fixed(photos.embed(classes), gone)
        assert list(fixed.search(bus, k=photos.count).hits) == left
        assert list(fixed.search(bus, k=30, order="new").hits) == sorted(left, key=lambda hit: -hit.id)[:30]
        assert {hit.id for hit in fixed.filter(bus, 0.5)} == {hit.id for hit in left if hit.score >= 0.5}
        assert fixed.distribution(bus, threshold=0.5).matched == sum(hit.score >= 0.5 for hit in left)
        ids, _ = fixed.nearest(FAKE.embed_texts(["bus"])[0], 20, without=np.array([left[0].id]))
        assert ids.tolist() == [hit.id for hit in left[1:21]]
        reviewed = fixed.review(bus, right=[every[0].id, every[-1].id], threshold=every[50].score, asking="spread")
        assert not {hit.id for hit in (*reviewed.doubtful, *reviewed.missed)} & set(gone.tolist())
        assert fixed.explain(bus, every[0].id)[1] == pytest.approx([every[0].score])


def test_texts_of_another_tower_have_vectors_of_their_own(folder: Path) -> None:
    class French:
        model, dim = ModelId("french", "", ""), FAKE.dim

        def embed_texts(self, texts: Sequence[str]) -> Float32:
            return FAKE.embed_texts([{"chat": "cat", "bus": "truck"}[text] for text in texts])

    with open_collection(folder, embedder=FAKE) as photos:
        classes = ClassSet([MetaClass("chat", ["chat"], ["bus"])])
        (french,) = photos.embed(classes, tower=French())
        (english,) = photos.embed(ClassSet([MetaClass("cat", ["cat"], ["truck"])]))
        assert french.model == english.model
        np.testing.assert_array_equal(french.positive, english.positive)
        np.testing.assert_array_equal(french.negative, english.negative)
        (plain,) = photos.embed(classes)
        np.testing.assert_array_equal(plain.negative, FAKE.embed_texts(["bus"]))  # not what the tower made of it


def test_an_index_that_stayed_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def spy(folder: Path, manifest: Manifest, modality: str) -> object:
        index = stored.open_covered(folder, manifest, modality)
        assert index is not None
        read.append(index.count)
        return index

    monkeypatch.setattr(opened, "open_covered", spy)
    build_indices(folder, factory="IVF4,Flat")
    with open_collection(folder, embedder=FAKE) as photos:
        first = photos.search(MetaClass("bus", ["bus"]), k=1).hits[0]
        fill(folder, FAKE.embed_texts(["bus"]))
        assert photos.refresh()
        assert photos.search(MetaClass("bus", ["bus"]), k=1).hits[0].id == 300
        photos.remove([300])
        assert photos.search(MetaClass("bus", ["bus"]), k=1).hits == (first,)
        photos.remove([first.id])
        assert photos.search(MetaClass("bus", ["bus"]), k=1).hits[0].id not in (first.id, 300)
        assert read == [300]
        build_indices(folder)
        assert photos.refresh()
        assert photos.search(MetaClass("bus", ["bus"]), k=1).hits[0].id not in (first.id, 300)
        assert read == [300, 301]


def test_info(folder: Path) -> None:
    build_indices(folder)
    with open_collection(folder) as photos:
        photos.remove([3])
        known = photos.info(timed=True)
        assert (known["count"], known["removed"], known["model"], known["dim"]) == (299, 1, "fake", DIM)
        (index,) = known["indices"]
        assert index["scan_ms"] > 0  # every question reads a flat index
        facts = {"name": "image", "kind": "flat", "recall": None, "rows": 300, "search_ms": None, "not_covered": 0}
        assert index == facts | {"kinds": []} | {"scan_ms": index["scan_ms"]}
        assert known["advice"] == []


def test_no_collection(tmp_path: Path) -> None:
    with pytest.raises(CollectionMissing):
        open_collection(tmp_path / "nothing")
    with pytest.raises(CollectionMissing):
        open_collection(tmp_path)


def test_an_empty_collection(tmp_path: Path) -> None:
    with open_writer(tmp_path, Manifest(FAKE.model, DIM)):
        pass
    with open_collection(tmp_path, embedder=FAKE) as empty:
        assert empty.count == 0
        assert empty.search(MetaClass("bus", ["bus"])).hits == ()
        assert list(empty.filter(MetaClass("bus", ["bus"]))) == []
        assert empty.info(timed=True)["advice"] == []


def peers_embeddings(folder: Path, vectors: Float32) -> None:
    (folder / "img_emb").mkdir(parents=True)
    (folder / "metadata").mkdir()
    for part, cut in (("0", slice(0, 60)), ("1", slice(60, None))):
        np.save(folder / f"img_emb/img_emb_{part}.npy", vectors[cut].astype(np.float16))
        paths = [f"{i}.jpg" for i in range(len(vectors))][cut]
        pq.write_table(pa.table({"image_path": paths}), folder / f"metadata/metadata_{part}.parquet")


def test_a_folder_of_clip_retrieval(tmp_path: Path) -> None:
    peers_embeddings(tmp_path, near(["bus", "cat"], 100, 0))
    with open_collection(tmp_path, model="fake", load=lambda name: FakeEmbedder(DIM, name)) as peer:
        assert peer.model is None
        hit = peer.search(MetaClass("bus", ["bus"], ["cat"]), k=1).hits[0]
        assert hit.id % 2 == 0
        assert hit.key == f"{hit.id}.jpg"
        assert peer.model == FAKE.model
        with pytest.raises(CollectionReadOnly):
            peer.remove([0])
    with open_collection(tmp_path) as peer, pytest.raises(InputError, match="--model"):
        peer.search(MetaClass("bus", ["bus"]))


@pytest.mark.parametrize("factory", ["Flat", "IVF4,Flat", "HNSW16", "IVF4,SQ8"])
def test_an_index_folder_of_clip_retrieval(tmp_path: Path, factory: str) -> None:
    vectors = near(["bus", "cat"], 400, 0)
    index = faiss.index_factory(DIM, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    faiss.write_index(index, str(tmp_path / "image.index"))
    (tmp_path / "metadata").mkdir()
    table = pa.table({"image_path": [f"{i}.jpg" for i in range(400)]})
    pq.write_table(table, tmp_path / "metadata" / "metadata_0.parquet")
    before = sorted(tmp_path.rglob("*"))
    with open_collection(tmp_path, embedder=FAKE) as peer:
        assert peer.count == 400
        result = peer.search(MetaClass("bus", ["bus"], ["cat"]), k=5)
        assert len(result.hits) == 5
        assert all(hit.id % 2 == 0 and hit.key == f"{hit.id}.jpg" for hit in result.hits)
        found = peer.vectors([3])[0]
        np.testing.assert_allclose(found, vectors[3], atol=0.02)
        assert peer.info()["read_only"]
    assert sorted(tmp_path.rglob("*")) == before


def test_many_threads_ask_at_once(photos: Collection) -> None:
    questions = [MetaClass(t, [t], ["truck"]) for t in ("bus", "cat", "dog")]
    expected = [photos.search(q).hits for q in questions]
    wrong: list[str] = []

    def ask(turn: int) -> None:
        for i in range(6):
            which = (turn + i) % 3
            if photos.search(questions[which]).hits != expected[which]:
                wrong.append(questions[which].name)

    threads = [threading.Thread(target=ask, args=[i]) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.slow
def test_the_template_lists_are_open_clips() -> None:
    lists = pytest.importorskip("open_clip.zero_shot_metadata")
    assert tuple(t("{}") for t in lists.OPENAI_IMAGENET_TEMPLATES) == OPENAI
    assert tuple(t("{}") for t in lists.SIMPLE_IMAGENET_TEMPLATES) == SIMPLE


def test_it_is_what_the_package_opens(folder: Path) -> None:
    with clipsieve.open(folder, embedder=FAKE) as photos:
        assert isinstance(photos, Collection)


def test_nearest_to_a_vector(photos: Collection) -> None:
    vector = 3 * FAKE.embed_texts(["bus"])[0]
    ids, products = photos.nearest(vector, 20)
    assert ids.tolist() == [hit.id for hit in photos.search(MetaClass("bus", ["bus"]), k=20).hits]
    np.testing.assert_allclose(products, photos.vectors(ids) @ vector, rtol=1e-5)
    rest, _ = photos.nearest(vector, 20, without=ids[:5])
    assert rest.tolist()[:15] == ids.tolist()[5:]
    assert len(photos.nearest(vector, 10**4)[0]) == photos.count
    for bad in (np.zeros(DIM), np.ones(DIM + 1), np.full(DIM, np.nan), np.ones((1, DIM))):
        with pytest.raises(InputError, match="The vector has shape"):
            photos.nearest(bad.astype(np.float32))


@pytest.mark.parametrize("indexed", [False, True])
def test_nearest_fills_up_what_duplicates_took(folder: Path, indexed: bool) -> None:
    with open_collection(folder, embedder=FAKE) as photos:
        vector = FAKE.embed_texts(["bus"])[0]
        copies = photos.vectors(photos.nearest(vector, 3)[0])
    hashes = [perceptual_hash(picture(i)) for i in range(3) for _ in range(20)]
    fill(folder, np.repeat(copies, 20, axis=0), columns={COLUMN: hashes})
    if indexed:
        build_indices(folder, factory="flat")
    with open_collection(folder, embedder=FAKE) as photos:
        plain, _ = photos.nearest(vector, 30)
        timings: dict[str, float] = {}
        once, scores = photos.nearest(vector, 30, dedup=True, timings=timings)
        assert len(plain) == len(once) == 30
        assert (plain >= 300).sum() > 20
        assert (once >= 300).sum() == (3 if indexed else 0)  # the first items have no hash, and so no copies
        assert (np.diff(scores) <= 0).all()
        assert timings["dedup"] > 0


@pytest.mark.parametrize("veto", ["soft", "hard"])
def test_every_item_is_in_one_view(photos: Collection, veto: Veto) -> None:
    question = MetaClass("bus", ["bus"], ["truck"], threshold=0.3)
    seen = {
        view: photos.search(question, k=300, view=view, veto=veto).hits for view in ("matched", "rejected", "below")
    }
    counted = photos.distribution(question, veto=veto)
    assert [len(hits) for hits in seen.values()] == [counted.matched, counted.rejected, counted.below]
    assert min(len(hits) for hits in seen.values()) > 0
    assert sorted(hit.id for hits in seen.values() for hit in hits) == list(range(300))
    for hits in seen.values():
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all((hit.score >= 0.3) == (veto == "hard") and hit.margin <= 0 for hit in seen["rejected"])
    least = int(np.argmin(np.abs(counted.edges - np.float32(0.3))))  # a bin begins at the threshold
    assert counted.ranked[least:].sum() == counted.matched
    assert all(hit.score < 0.3 for hit in seen["below"])


def test_other_orders(photos: Collection) -> None:
    question = MetaClass("bus", ["bus"], ["truck"])
    hits = photos.search(question, k=300).hits
    by_margin = photos.search(question, k=20, order="margin").hits
    newest = photos.search(question, k=20, order="new").hits
    assert [h.id for h in by_margin] == [h.id for h in sorted(hits, key=lambda h: (-h.margin, -h.score, h.id))[:20]]
    assert [h.id for h in newest] == sorted((h.id for h in hits), reverse=True)[:20]
    by_margin = photos.search(question, k=20, order="margin", where="n < 100", view="rejected").hits
    assert all(hit.margin <= 0 and hit.id < 100 for hit in by_margin)


def test_explain_gives_every_example_its_score(photos: Collection) -> None:
    question = MetaClass("bus", ["bus", "dog"], ["truck"])
    hit = photos.search(question, k=1).hits[0]
    meta, positive, negative = photos.explain(question, hit.id)
    assert meta == question
    assert max(positive) == pytest.approx(hit.score)
    assert max(positive) - max(negative) == pytest.approx(hit.margin)
    with pytest.raises(NotFound):
        photos.explain(question, 10**6)


def test_rows_held_in_memory_answer_the_same(folder: Path) -> None:
    with open_collection(folder, embedder=FAKE) as plain, open_collection(folder, embedder=FAKE) as held:
        held.keep_rows(10**9)
        question = MetaClass("bus", ["bus"], ["truck"])
        assert held.search(question, k=50).hits == plain.search(question, k=50).hits
        fill(folder, near(["bus"], 30, 3))
        assert held.refresh()
        assert plain.refresh()
        assert held.search(question, k=300).hits == plain.search(question, k=300).hits
        assert any(hit.id >= 300 for hit in held.search(question, k=300).hits)


LONG = "word " * 40 + "rest"


def test_an_answer_notes_what_the_model_leaves_out_of_its_texts(photos):
    assert photos.search(MetaClass("bus", ["bus"])).notes == ()
    for meta in (MetaClass("q", [LONG]), MetaClass("q", ["bus"], [LONG])):
        (note,) = photos.search(meta).notes
        assert "'rest' is left out" in note
        assert photos.notes(ClassSet([meta])) == (note,)


def test_a_long_text_is_cut_refused_or_averaged(folder):
    classes = ClassSet([MetaClass("q", [LONG])])
    with open_collection(folder, embedder=FAKE) as photos:
        np.testing.assert_allclose(photos.embed(classes)[0].positive, FAKE.embed_texts([LONG]), atol=1e-6)
    with open_collection(folder, embedder=FAKE, long_text="average") as photos:
        (mean,) = unit_rows(FAKE.embed_texts(FAKE.split_text(LONG)).mean(axis=0, keepdims=True))
        np.testing.assert_allclose(photos.embed(classes)[0].positive[0], mean, atol=1e-6)
    with (
        open_collection(folder, embedder=FAKE, long_text="error") as photos,
        pytest.raises(InputError, match="leaves out 'rest'"),
    ):
        photos.search(MetaClass("q", [LONG]))
    with pytest.raises(InputError, match="long_text is 'trim'"):
        open_collection(folder, embedder=FAKE, long_text="trim")
