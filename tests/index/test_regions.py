"""Regions of a collection: loaded by item, searched by logit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipsieve.errors import CollectionChanged, InputError, NotFound
from clipsieve.index.build import build_indices
from clipsieve.index.compact import compact
from clipsieve.index.flat import FlatIndex
from clipsieve.index.region_rows import LogitRows, asked
from clipsieve.manifest import Detection, Manifest
from clipsieve.opening import open_collection
from clipsieve.stored_regions import store
from clipsieve.types import Embeddings, ModelId, Regions
from clipsieve.writer import open_writer
from tests.index.made import unit

MODEL, DETECTOR = ModelId("test", "0", "none"), ModelId("detector", "1", "none")
D, R = 6, 9


def found_in(counts, seed, unseen=()):
    """So many random regions of each item, whose scales and shifts differ a lot; and vectors of their crops."""
    rng = np.random.default_rng(seed)
    item = np.repeat(np.arange(len(counts)), counts)
    m = len(item)
    corner = rng.random((m, 2)).astype(np.float32) / 2
    numbers = [np.sort(rng.random(m))[::-1], rng.normal(-0.2, 0.2, m), rng.uniform(0.1, 20, m)]
    objectness, shift, scale = (v.astype(np.float32) for v in numbers)
    boxes = np.concatenate([corner, corner + 0.25], axis=1)
    regions = Regions(unit(rng.standard_normal((m, R))), boxes, item, objectness, shift, scale, DETECTOR)
    return store(regions, len(counts), unit(rng.standard_normal((m, D))), unseen)


def append(folder, counts, seed, *, looked=True, unseen=()):
    new = Manifest(model=MODEL, dim=D, detection=Detection(DETECTOR, R, 40, True))
    with open_writer(folder, new) as writer:
        start, n = writer.manifest.next_id, len(counts)
        vectors = unit(np.random.default_rng(seed).standard_normal((n, D)))
        keys = tuple(f"{start + i}.jpg" for i in range(n))
        found = found_in(counts, seed, unseen) if looked else None
        writer.append(Embeddings(vectors, keys, MODEL), regions=found)


COUNTS = [[3, 0, 2, 1], [0, 0], [4, 1, 0, 0, 6]]


@pytest.fixture
def folder(tmp_path):
    for seed, counts in enumerate(COUNTS):
        append(tmp_path, counts, seed, unseen=[1] if seed == 0 else [])
    return tmp_path


def everything(*counts, seed0=0):
    """(item, vector, box, numbers, crop) of all regions, as they were stored, in order."""
    rows, first = [], 0
    for seed, own in enumerate(counts, seed0):
        found = found_in(own, seed)
        for i in range(len(found.item)):
            row = found.vectors[i], found.boxes[i], found.numbers[i], found.crops[i]
            rows.append((first + int(found.item[i]), *(v.astype(np.float32) for v in row)))
        first += len(own)
    return rows


def logits(rows, text):
    return np.array([(float(v.astype(np.float64) @ text) + float(n[1])) * float(n[2]) for _, v, _, n, _ in rows])


def texts(n, seed=99):
    return unit(np.random.default_rng(seed).standard_normal((n, R)))


def test_the_regions_of_some_items(folder):
    rows = everything(*COUNTS)
    with open_collection(folder) as photos:
        regions = photos.regions.of([10, 0, 1, 3])
        wanted = [row for row in rows if row[0] in (0, 1, 3, 10)]
        assert regions.item.tolist() == [row[0] for row in wanted]
        np.testing.assert_array_equal(regions.vectors, np.stack([row[1] for row in wanted]))
        np.testing.assert_array_equal(regions.boxes, np.stack([row[2] for row in wanted]))
        for i, name in enumerate(("objectness", "shift", "scale")):
            np.testing.assert_array_equal(getattr(regions, name), [row[3][i] for row in wanted])
        assert regions.model == DETECTOR
        assert len(photos.regions.of([1, 4, 5]).item) == 0
        assert len(photos.regions.of([]).item) == 0
        assert photos.regions.of(range(11)).item.tolist() == [row[0] for row in rows]


def test_regions_in_any_order_by_number(folder):
    rows, numbers = everything(*COUNTS), np.array([16, 0, 7, 7, 5])
    with open_collection(folder) as photos:
        regions = photos.regions.take(numbers)
        assert regions.item.tolist() == [rows[n][0] for n in numbers]
        np.testing.assert_array_equal(regions.boxes, np.stack([rows[n][2] for n in numbers]))
        for number in (-1, 17):
            with pytest.raises(NotFound, match=rf"no region {number}; there are 17"):
                photos.regions.take(np.array([number]))


def search_is_as_said(photos, rows, k, text, live):
    hits = photos.regions.search(text[None], k)
    scores = np.where([row[0] in live for row in rows], logits(rows, text), -np.inf)
    order = np.lexsort((np.arange(len(rows)), -scores.astype(np.float32)))[:k]
    order = order[np.isfinite(scores[order])]
    assert hits.numbers[0, : len(order)].tolist() == order.tolist()
    assert hits.items[0, : len(order)].tolist() == [rows[i][0] for i in order]
    np.testing.assert_allclose(hits.scores[0, : len(order)], scores[order], rtol=1e-5, atol=1e-5)
    assert (hits.numbers[0, len(order) :] == -1).all()
    assert (hits.items[0, len(order) :] == -1).all()
    return hits


@pytest.mark.parametrize("indexed", [None, "flat", "Flat", "IVF1,Flat", "SQ8"])
def test_a_search_finds_the_highest_logits(folder, indexed):
    if indexed is not None:
        build_indices(folder, factory=indexed)
    append(folder, [2, 3], 3)  # beside the index
    rows = everything(*COUNTS, [2, 3])
    with open_collection(folder) as photos:
        photos.remove([0, 11])
        live = set(range(13)) - {0, 11}
        for text in texts(4):
            hits = search_is_as_said(photos, rows, 5, text, live)
        assert hits.claim == ("complete" if indexed == "SQ8" else "exact")
        search_is_as_said(photos, rows, 40, texts(1)[0], live)
        assert photos.regions.count == len(rows) - 3 - 2
        only = np.array([2, 3, 8])
        found = photos.regions.search(texts(1), 40, only=only)
        assert set(found.items[0].tolist()) == {-1, 2, 3} | ({8} if COUNTS[2][2] else set())
        both = photos.regions.search(texts(2), 3)
        np.testing.assert_array_equal(both.numbers[1], photos.regions.search(texts(2)[1:], 3).numbers[0])


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_the_order_of_the_inner_products_is_that_of_the_logits(seed, m):
    rng = np.random.default_rng(seed)
    vectors, (text,) = unit(rng.standard_normal((m, R))).astype(np.float16), texts(1, seed)
    shift, scale = rng.normal(-0.3, 0.3, m).astype(np.float32), rng.uniform(0.01, 50, m).astype(np.float32)
    rows = LogitRows(R, [(range(m), vectors)], lambda numbers: (shift[numbers], scale[numbers]))
    expected = (vectors.astype(np.float64) @ text + shift) * scale
    near = FlatIndex(rows).search(asked(text[None]), m)
    np.testing.assert_allclose(near.scores[0], expected[near.ids[0]], rtol=1e-5, atol=1e-5)
    assert (np.diff(expected[near.ids[0]]) <= 1e-5 * np.abs(expected).max()).all()
    np.testing.assert_allclose(rows.questions(np.arange(m))[:, : R + 1], np.c_[vectors, np.ones(m)])


def test_unit_rows_would_find_others(folder):
    """Why the index holds scale and shift."""
    rows, (text,) = everything(*COUNTS), texts(1)
    by_cosine = np.argsort([-float(row[1] @ text) for row in rows])[:5]
    assert set(by_cosine.tolist()) != set(np.argsort(-logits(rows, text))[:5].tolist())


@pytest.mark.parametrize("indexed", [None, "Flat"])
def test_crops_are_found_by_the_collections_own_vectors(folder, indexed):
    if indexed is not None:
        build_indices(folder, factory=indexed)
    rows, question = everything(*COUNTS), unit(np.random.default_rng(7).standard_normal((1, D)))
    cosines = np.array([float(row[4] @ question[0]) for row in rows])
    with open_collection(folder) as photos:
        hits = photos.regions.search(question, 4, space="crop")
        best = np.argsort(-cosines)[:4]
        assert hits.numbers[0].tolist() == best.tolist()
        np.testing.assert_allclose(hits.scores[0], cosines[best], atol=1e-6)
        with pytest.raises(InputError, match=f"{R} dimensions"):
            photos.regions.search(texts(1), 4, space="crop")


def test_indices_are_extended_and_made_anew_where_older_images_were_looked_through(tmp_path):
    append(tmp_path, [2, 3], 0, looked=False)
    append(tmp_path, [5, 1], 1)
    made = {b.entry.name: (b.action, b.entry.rows) for b in build_indices(tmp_path, factory="Flat")}
    assert made == {"image": ("built", 4), "region": ("built", 6), "crop": ("built", 6)}
    append(tmp_path, [1, 1], 2)
    made = {b.entry.name: (b.action, b.entry.rows) for b in build_indices(tmp_path, factory="Flat")}
    assert made == {"image": ("extended", 6), "region": ("extended", 8), "crop": ("extended", 8)}
    with open_collection(tmp_path) as photos:
        before = photos.regions.search(texts(1), 8)
        assert photos.regions.lacking == 2
        with open_writer(tmp_path) as writer:
            writer.add_regions(0, found_in([2, 3], 0))
        rows = everything([2, 3], [5, 1], [1, 1])
        search_is_as_said_before = photos.regions.search(texts(1), 8)
        np.testing.assert_array_equal(before.numbers, search_is_as_said_before.numbers)
        photos.refresh()  # what the index has by position has other numbers now
        search_is_as_said(photos, rows, 13, texts(1)[0], set(range(6)))
    made = {b.entry.name: (b.action, b.entry.rows) for b in build_indices(tmp_path, factory="Flat")}
    assert made == {"image": ("kept", 6), "region": ("built", 13), "crop": ("built", 13)}
    with open_collection(tmp_path) as photos:
        search_is_as_said(photos, rows, 13, texts(1)[0], set(range(6)))


def test_an_open_index_is_kept_over_a_commit(folder):
    build_indices(folder, factory="Flat")
    with open_collection(folder) as photos:
        photos.regions.search(texts(1), 3)
        index = photos.regions._made["covered", "region"]
        photos.remove([0])
        assert photos.regions._made["covered", "region"] is index
        rows = everything(*COUNTS)
        search_is_as_said(photos, rows, 40, texts(1)[0], set(range(1, 11)))


def test_compacted_regions_are_found_as_before(folder):
    build_indices(folder, factory="Flat")
    with open_collection(folder) as photos:
        photos.remove([2, 6])
        before = photos.regions.search(texts(1), 40)
    compact(folder)
    with open_collection(folder) as photos:
        after = photos.regions.search(texts(1), 40)
        np.testing.assert_array_equal(after.items, before.items)
        np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5, atol=1e-6)
        assert {i["name"]: i["kind"] for i in photos.info()["regions"]["indices"]} == {"region": "flat", "crop": "flat"}


def test_info_counts_what_is_there_and_what_is_not(folder):
    append(folder, [1, 1, 1], 5, looked=False)
    build_indices(folder)
    append(folder, [2], 6)
    with open_collection(folder) as photos:
        photos.remove([0, 12])
        info = photos.info(timed=True)
        known = info["regions"]
        assert (known["detector"], known["most"], known["crops"]) == ("detector", 40, True)
        assert (known["count"], known["lacking"], known["unseen"]) == (16, 2, 1)
        flat = {"kind": "flat", "recall": None, "rows": 17, "not_covered": 2}
        assert known["indices"] == [{"name": "region", **flat}, {"name": "crop", **flat}]
        assert any("clipsieve regions" in sentence for sentence in info["advice"])


def test_what_has_no_regions_says_so(tmp_path, folder):
    with open_writer(tmp_path / "bare", Manifest(model=MODEL, dim=D)) as writer:
        writer.append(Embeddings(unit(np.ones((1, D))), ("a.jpg",), MODEL))
    with open_collection(tmp_path / "bare") as photos:
        assert photos.info()["regions"] is None
        with pytest.raises(NotFound, match="holds no regions; find them with `clipsieve regions"):
            photos.regions  # noqa: B018
    with open_collection(folder) as photos:
        photos.remove([3])
        with pytest.raises(NotFound, match="Item 3 was removed"):
            photos.regions.of([3])
        with pytest.raises(InputError, match="ask for at least 1"):
            photos.regions.search(texts(1), 0)


def test_a_detector_without_a_region_anywhere(tmp_path):
    append(tmp_path, [0, 0], 0)
    assert [built.entry.name for built in build_indices(tmp_path)] == ["image"]
    with open_collection(tmp_path) as photos:
        assert photos.regions.search(texts(1), 2).items.tolist() == [[-1, -1]]
        assert photos.regions.info()["count"] == 0


def test_regions_that_a_later_commit_did_away_with(folder):
    with open_collection(folder) as photos:
        _ = photos.regions.count
        with open_writer(folder) as writer:
            writer.drop_regions()
        with pytest.raises(CollectionChanged):
            photos.regions.of([0])
        photos.refresh()
        with pytest.raises(NotFound, match="holds no regions"):
            _ = photos.regions
