"""What flags leave out is left out as if it had never been there."""

import numpy as np
import pytest

from clipsieve.back.flags import Flags
from clipsieve.index.build import build_indices
from clipsieve.index.collection import open_collection
from clipsieve.index.examples import unit_rows
from clipsieve.index.head import make_network, make_prompts
from clipsieve.manifest import Manifest
from clipsieve.types import Embeddings, MetaClass
from clipsieve.writer import open_writer
from tests.back.made import DIM, FAKE, add_items

COUNT = 400


class Counting:
    """A head that counts what it is shown."""

    dim, cost = DIM, DIM

    def __init__(self, head):
        self.head, self.shown = head, 0

    def flags(self, vectors):
        self.shown += len(vectors)
        return self.head.flags(vectors)


@pytest.fixture(params=[False, True], ids=["scanned", "indexed"])
def photos(request, tmp_path):
    folder = add_items(tmp_path / "photos.clip", COUNT)
    if request.param:
        build_indices(folder, factory="flat")
    with open_collection(folder, embedder=FAKE) as collection:
        yield collection


def linear(share, rows):
    """A head that flags that share of the rows."""
    weight = np.random.default_rng(0).normal(size=(1, DIM)).astype(np.float32)
    state = {"weight": weight, "bias": np.zeros(1, np.float32)}
    scores = np.sort(make_network(state, "head").scores(rows))
    above = round((1 - share) * len(rows))
    return make_network(state, "head", float(scores[above - 1]) if above else -np.inf)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 1.0])
@pytest.mark.parametrize("dedup", [False, True])
def test_heads_and_classes_leave_out_what_all_rows_say(photos, share, dedup):
    ids = np.arange(COUNT)
    rows = unit_rows(photos.vectors(ids))
    flags = {"safety": linear(share, rows), "violence": MetaClass("violence", ["cat"], ["bus", "truck"])}
    unsafe = ids[flags["safety"].flags(rows)]
    violent = np.array([hit.id for hit in photos.filter(flags["violence"])])
    assert len(unsafe) == round(share * COUNT)
    vector = FAKE.embed_texts(["bus"])[0]
    for asked, gone in [
        (["safety"], unsafe),
        (["violence", "safety"], np.union1d(unsafe, violent)),
        (["violence"], violent),
        (["unknown"], ids[:0]),
        ([], ids[:0]),
    ]:
        expected = photos.nearest(vector, 40, dedup=dedup, without=gone)
        for _ in range(2):  # the second time from what is known
            found = Flags(photos, flags).nearest(vector, 40, asked, modality="image", dedup=dedup)
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_allclose(found[1], expected[1], rtol=1e-6)


def test_a_duplicate_takes_the_place_of_one_that_is_flagged(tmp_path):
    bus, cat = FAKE.embed_texts(["bus", "cat"])
    rows = unit_rows(np.stack([bus, bus + 0.05 * cat, cat]))
    with open_writer(tmp_path / "photos.clip", Manifest(FAKE.model, DIM)) as writer:
        writer.append(Embeddings(rows, ("flagged.jpg", "copy.jpg", "cat.jpg"), FAKE.model))

    class Head:
        dim, cost = DIM, DIM

        def flags(self, vectors):
            return vectors @ rows[0] > 0.9999

    with open_collection(tmp_path / "photos.clip") as photos:
        assert photos.nearest(bus, 3, dedup=True)[0].tolist() == [0, 2]
        found, _ = Flags(photos, {"safety": Head()}).nearest(bus, 3, ["safety"], modality="image", dedup=True)
    assert found.tolist() == [1, 2]


def test_a_head_is_shown_each_item_once_and_only_what_was_found(photos):
    head = Counting(make_prompts(FAKE.embed_texts(["cat", "bus"]), "prompts"))
    flags = Flags(photos, {"violence": head})
    vector = FAKE.embed_texts(["bus"])[0]
    timings: dict[str, float] = {}
    first, _ = flags.nearest(vector, 40, ["violence"], modality="text", dedup=True, timings=timings)
    shown = head.shown
    assert 40 < shown < COUNT
    assert timings.keys() == {"safety", "knn_index", "dedup"}
    assert timings["knn_index"] > timings["dedup"] > 0
    again, _ = flags.nearest(vector, 40, ["violence"], modality="text", dedup=True)
    assert again.tolist() == first.tolist()
    assert head.shown == shown


def test_a_commit_is_looked_at_anew(tmp_path):
    folder = add_items(tmp_path / "photos.clip", 30)
    with open_collection(folder, embedder=FAKE) as photos:
        flags = Flags(photos, {"violence": make_prompts(FAKE.embed_texts(["cat", "bus"]), "prompts")})
        vector = FAKE.embed_texts(["bus"])[0]

        def ask():
            return flags.nearest(vector, 90, ["violence"], modality="image", dedup=False)[0]

        before = ask()
        add_items(folder, 30, seed=7)
        assert ask().tolist() == before.tolist()  # until somebody looks
        photos.refresh()
        after = ask()
    assert set(before) < set(after)
    assert len(after) < 60
