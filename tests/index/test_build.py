import dataclasses
from pathlib import Path

import numpy as np
import pytest

from clipsieve.errors import CollectionDamaged, InputError, MissingExtra
from clipsieve.index import build, faiss_index, plan, train
from clipsieve.index.build import build_indices
from clipsieve.index.flat import FlatIndex
from clipsieve.index.plan import choose_index
from clipsieve.index.rows import Rows
from clipsieve.index.stored import entry_of, open_groups, open_index, rows_of, shards_of
from clipsieve.index.train import tune_and_measure
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.perceptual import COLUMN, perceptual_hash
from clipsieve.types import Embeddings, Float32, ModelId
from clipsieve.whole import verify
from clipsieve.writer import open_writer
from tests.inference.pictures import encoded, picture

MODEL = ModelId("test", "00", "none")
DIM = 16


def clustered(n: int, seed: int = 0) -> Float32:
    centres = np.random.default_rng(7).normal(size=(30, DIM))
    rng = np.random.default_rng(seed)
    vectors = centres[rng.integers(0, 30, n)] + 0.4 * rng.normal(size=(n, DIM))
    return np.ascontiguousarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def add(
    folder: Path,
    vectors: Float32,
    texts: Float32 | None = None,
    captions: list[str | None] | None = None,
    looks: list[bytes] | None = None,
    thumbs: list[bytes | None] | None = None,
) -> Manifest:
    with open_writer(folder, Manifest(MODEL, DIM)) as writer:
        start = writer.manifest.next_id
        keys = tuple(f"{i}.jpg" for i in range(start, start + len(vectors)))
        hashes = [f"{i:064x}" for i in range(start, start + len(vectors))]
        writer.append(
            Embeddings(vectors, keys, MODEL),
            texts=None if texts is None else Embeddings(texts, keys, MODEL),
            captions=captions,
            columns={"content_hash": hashes} | ({} if looks is None else {COLUMN: looks}),
            thumbs=thumbs,
        )
    return read_manifest(folder)


def test_the_plan_follows_size_and_memory() -> None:
    gib = 1 << 30
    assert choose_index(1_000_000, 512, gib).kind == "flat"
    assert choose_index(1_000_001, 512, 4 * gib).kind == "IVF4096,SQfp16"
    assert choose_index(5_000_000, 512, 4 * gib).kind == "IVF8192,SQ8"
    assert choose_index(10_000_000, 512, 4 * gib).kind == "IVF16384,PQ256"
    assert choose_index(100_000_000, 512, 8 * gib).kind == "IVF32768,PQ64"
    huge = choose_index(1_000_000_000, 512, 4 * gib)
    assert huge.on_disk
    assert huge.kind.endswith("SQ8")
    for n in (100_001, 1_000_000, 3_000_000, 10**9):
        for memory in (gib // 4, gib, 64 * gib):
            assert choose_index(n, 512, memory).bytes <= memory
    with pytest.raises(InputError):
        choose_index(5, 0, gib)


def test_the_plan_says_why_there_is_an_index() -> None:
    mib = 2**20
    for given, kind, why in [
        ((300_000, 512, 4096 * mib), "flat", "reads all 300,000 vectors: answers are exact"),
        (
            (300_000, 512, 100 * mib),
            "IVF512,PQ256",
            "The coarse copy of 300,000 vectors takes 146 MiB of 100 MiB; 512 inv",
        ),
        ((300_000, 512, 4096 * mib, 100.0, 40.0), "flat", "in 40 ms, of 100 ms asked for"),
        ((300_000, 512, 4096 * mib, 20.0, 40.0), "IVF2048,SQfp16", "takes a question 40 ms, of 20 ms asked for; 2,048"),
        ((5_000_000, 512, 4096 * mib, 1000.0, 400.0), "flat", "in 400 ms"),
        ((2_000_000, 512, 4096 * mib), "IVF4096,SQfp16", "more than the 1,000,000 that every question reads; 4,096"),
        ((300_000, 512, 4096), "flat", "takes 146 MiB of 4 KiB, but no index can be made in 4 KiB: all are read"),
        ((500, 512, 4096 * mib, 1.0, 40.0), "flat", "no index can be made of so few"),
    ]:
        plan = choose_index(*given)
        assert plan.kind == kind
        assert why in plan.why


@pytest.mark.slow
def test_a_large_flat_collection_finds_duplicates_through_lists(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (build, plan):
        monkeypatch.setattr(module, "FLAT_ROWS", 100)
    vectors = clustered(6000)
    vectors[4000:4010] = vectors[:10]
    looks = [perceptual_hash(picture(i)) for i in range(300)] * 20  # of other pictures by their vectors, mostly
    looks[4000:4010] = looks[:10]
    add(tmp_path, vectors, looks=looks)
    (built,) = build_indices(tmp_path)
    assert built.entry.kind == "flat"
    assert open_groups(tmp_path, read_manifest(tmp_path))(np.arange(4000, 4010)).tolist() == list(range(10))


@pytest.mark.slow
def test_a_latency_is_measured_here(tmp_path: Path) -> None:
    add(tmp_path, clustered(3000))
    (fast,) = build_indices(tmp_path, latency_ms=60_000)
    assert (fast.entry.kind, "of 60000 ms asked for" in fast.why) == ("flat", True)
    (slow,) = build_indices(tmp_path, latency_ms=1e-6, rebuild=True)
    assert slow.entry.kind.startswith("IVF")
    for wrong in (0.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="latency"):
            build_indices(tmp_path, latency_ms=wrong)


@pytest.mark.parametrize("kind", ["SQ8", "IVF1,SQ8"])
def test_an_index_that_visits_all_and_loses_some_is_passed_over(tmp_path: Path, kind: str) -> None:
    """Such a one, which `--memory 4K` used to make, claimed to be exact, and every question raised."""
    add(tmp_path, clustered(900))
    build_indices(tmp_path, factory=kind)
    assert open_index(tmp_path, read_manifest(tmp_path), "image") == (None, None)


def test_a_small_collection_is_its_own_index(tmp_path: Path) -> None:
    vectors = clustered(300)
    looks = [perceptual_hash(picture(i)) for i in [*range(200), *range(10), *range(210, 300)]]
    add(tmp_path, vectors, looks=looks)
    (built,) = build_indices(tmp_path)
    manifest = read_manifest(tmp_path)
    assert (built.entry.kind, built.entry.recall, built.action) == ("flat", None, "built")
    assert open_index(tmp_path, manifest, "image") == (None, None)
    assert open_groups(tmp_path, manifest)(np.arange(200, 210)).tolist() == list(range(10))
    assert len(manifest.background) == 300
    assert verify(tmp_path, manifest) == {}
    assert build_indices(tmp_path)[0].action == "kept"
    assert built.entry.parameters["hashed"] == 300


def test_what_has_no_hash_is_known_by_its_thumbnail_if_it_has_one(tmp_path: Path) -> None:
    add(tmp_path, clustered(2), looks=[perceptual_hash(picture(i, (300, 200))) for i in range(2)])
    thumbs = [encoded(picture(i, (120, 80)), "WEBP") for i in (1, 0, 5)]
    add(tmp_path, clustered(4, seed=1), thumbs=[*thumbs, None])
    (built,) = build_indices(tmp_path)
    groups = open_groups(tmp_path, read_manifest(tmp_path))
    assert groups(np.arange(6)).tolist() == [0, 1, 1, 0, 4, 5]
    assert built.entry.parameters["hashed"] == 5
    add(tmp_path, clustered(1, seed=2), looks=[perceptual_hash(picture(5, (200, 200)))])
    assert build_indices(tmp_path)[0].action == "extended"
    groups = open_groups(tmp_path, read_manifest(tmp_path))
    assert groups(np.arange(7)).tolist() == [0, 1, 1, 0, 4, 5, 4]


@pytest.mark.slow
def test_an_approximate_index_is_tuned_measured_extended_and_rebuilt(tmp_path: Path) -> None:
    add(tmp_path, clustered(2500))
    add(tmp_path, clustered(1500, seed=1))
    seen: list[tuple[str, int, int]] = []
    (built,) = build_indices(tmp_path, factory="IVF64,SQfp16", recall=0.9, progress=lambda *p: seen.append(p))
    assert built.entry.recall is not None
    assert 0.85 < built.entry.recall <= 1
    # lists of 60 rows: fewer than 21 would leave a search for 40 short, and send it to a scan
    assert 21 <= built.entry.parameters["effort"] < 64
    assert {what for what, _, _ in seen} == {"training", "filling", "tuning", "duplicates"}
    assert all(done <= total for _, done, total in seen)

    manifest = add(tmp_path, clustered(500, seed=2))
    queries = clustered(20, seed=5)
    truth = FlatIndex(rows_of(tmp_path, DIM, shards_of(manifest, "image"), "image")).search(queries, 10)
    index, recall = open_index(tmp_path, manifest, "image")
    assert index is not None
    assert index.count == 4500  # what is not covered yet is scanned beside it
    assert faiss_index.measure_recall(index.search(queries, 10), truth) > 0.8

    (extended,) = build_indices(tmp_path, recall=0.9)
    manifest = read_manifest(tmp_path)
    assert (extended.action, extended.entry.rows, extended.entry.shards) == ("extended", 4500, (0, 1, 2))
    assert extended.entry.kind == "IVF64,SQfp16"
    assert verify(tmp_path, manifest) == {}
    index, recall = open_index(tmp_path, manifest, "image")
    assert index is not None
    assert recall == extended.entry.recall
    assert faiss_index.measure_recall(index.search(queries, 10), truth) > 0.8
    assert sorted(p.name for p in tmp_path.glob("image*")) == ["image_2.groups.npy", "image_2.index"]

    (again,) = build_indices(tmp_path, rebuild=True)
    assert (again.action, again.entry.kind) == ("built", "flat")
    assert [p.name for p in tmp_path.glob("image*")] == ["image_3.groups.npy"]


def test_an_effort_that_sufficed_is_kept_while_it_does() -> None:
    rows = Rows(DIM, [(range(3000), clustered(3000))])
    index = faiss_index.train_and_build("IVF64,Flat", rows)
    kept = tune_and_measure(index, rows, 0.3, known=3)
    assert kept.effort == 3
    assert kept.recall is not None
    assert 0.3 <= kept.recall < 1
    tuned = tune_and_measure(index, rows, 1.0, known=3)
    assert (tuned.effort or 0) > 3
    assert (tuned.recall or 0) > kept.recall


@pytest.mark.slow
def test_captions_get_an_index_of_those_that_are_there(tmp_path: Path) -> None:
    vectors = clustered(600)
    captions = [None if i % 3 == 0 else f"text {i}" for i in range(600)]
    manifest = add(tmp_path, vectors, clustered(600, seed=3), captions)
    image, text = build_indices(tmp_path, factory="IVF8,Flat")
    manifest = read_manifest(tmp_path)
    assert (image.entry.name, image.entry.rows, text.entry.name, text.entry.rows) == ("image", 600, "text", 400)
    index, _ = open_index(tmp_path, manifest, "text")
    assert index is not None
    found = index.search(vectors[:4], 400).ids
    assert not np.isin(found, np.arange(0, 600, 3)).any()


def test_lists_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, clustered(2000))
    wanted = plan.Plan("IVF16,SQ8", True, 1, "for the test")
    monkeypatch.setattr(build, "choose_index", lambda *_: wanted)
    (built,) = build_indices(tmp_path, memory_bytes=30_000)  # several parts
    manifest = read_manifest(tmp_path)
    assert set(built.entry.files) == {"index", "lists", "groups"}
    assert verify(tmp_path, manifest) == {}
    moved = tmp_path.with_name("moved")
    tmp_path.rename(moved)
    index, _ = open_index(moved, manifest, "image")
    assert index is not None
    queries = clustered(10, seed=4)
    truth = FlatIndex(rows_of(moved, DIM, shards_of(manifest, "image"), "image")).search(queries, 10)
    assert faiss_index.measure_recall(index.search(queries, 40), truth) > 0.8
    assert sorted(p.name for p in moved.glob(".image*")) == []


@pytest.mark.slow
def test_a_killed_build_leaves_the_collection_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, clustered(900))
    build_indices(tmp_path, factory="IVF8,Flat")
    before = read_manifest(tmp_path)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("clipsieve.writer.Writer.commit", die)
        with pytest.raises(KeyboardInterrupt):
            build_indices(tmp_path, factory="IVF8,SQ8", rebuild=True)
    assert read_manifest(tmp_path).indices == before.indices
    assert verify(tmp_path, before) == {}
    build_indices(tmp_path)
    assert sorted(p.name for p in tmp_path.glob("image*")) == ["image.groups.npy", "image.index"]


def test_a_changed_index_file_is_not_answered_from(tmp_path: Path) -> None:
    add(tmp_path, clustered(900))
    build_indices(tmp_path, factory="IVF8,Flat")
    (tmp_path / "image.index").write_bytes(b"short")
    with pytest.raises(CollectionDamaged, match="rebuild"):
        open_index(tmp_path, read_manifest(tmp_path), "image")


@pytest.mark.slow
def test_names_of_index_files_do_not_come_again_at_once(tmp_path: Path) -> None:
    add(tmp_path, clustered(900))
    names = []
    for _ in range(3):
        (built,) = build_indices(tmp_path, factory="IVF8,Flat", rebuild=True)
        names += [file.path for file in built.entry.files.values()]
    assert len(set(names)) == 6
    assert sorted(path.name for path in tmp_path.glob("image*")) == sorted(names[-2:])


def test_an_index_over_shards_that_are_gone_does_not_count(tmp_path: Path) -> None:
    add(tmp_path, clustered(100))
    build_indices(tmp_path)
    manifest = read_manifest(tmp_path)
    assert entry_of(manifest, "image") is not None
    assert entry_of(dataclasses.replace(manifest, shards=()), "image") is None


def test_options_that_cannot_be(tmp_path: Path) -> None:
    add(tmp_path, clustered(100))
    with pytest.raises(InputError, match="recall"):
        build_indices(tmp_path, recall=0)
    with pytest.raises(InputError, match="device"):
        build_indices(tmp_path, device="tpu")
    with pytest.raises(InputError, match="cannot make an index"):
        build_indices(tmp_path, factory="nonsense")
    if not hasattr(faiss_index.load_faiss(), "StandardGpuResources"):
        with pytest.raises(MissingExtra, match="gpu"):
            train.check_device("cuda")
