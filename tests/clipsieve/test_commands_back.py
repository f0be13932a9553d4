import numpy as np
import pytest
import torch

from clipsieve.back.config import Entry
from clipsieve.back.shelf import Served, Shelf
from clipsieve.back.stores import FolderStore, MemoryStore
from clipsieve.commands_back import make_store
from clipsieve.errors import InputError, ModelUnavailable
from clipsieve.index.collection import open_collection
from clipsieve.index.head import Prompts
from clipsieve.index.peer_export import export_peer
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.opening import load_model, load_text_model
from clipsieve.parts import Parts
from clipsieve.served_collections import model_of, open_entries, read_flags
from clipsieve.served_models import Models
from clipsieve.types import MetaClass
from tests.back.made import FAKE, add_items
from tests.inference.text_models import make_sentence_folder

ID = "b5d1bdec-3bf3-4632-a011-538384d5bcb1"


@pytest.fixture
def own(tmp_path):
    with open_collection(add_items(tmp_path / "own", 3), embedder=FAKE) as opened:
        yield Served("own", opened)


@pytest.fixture
def peers(own, tmp_path):
    export_peer(own.collection.folder, tmp_path / "peers")
    with open_collection(tmp_path / "peers") as opened:
        yield Served("peers", opened)


def test_classifiers_are_kept_in_the_state_or_in_the_first_collection(own, peers, tmp_path, capsys):
    for state, first, where in [(None, own, "own"), (tmp_path / "s", own, "s"), (tmp_path / "t", peers, "t")]:
        store = make_store(None, state, [Entry(first.name, first.collection.folder), Entry("other", tmp_path)])
        assert isinstance(store, FolderStore)
        store.put(ID, b"{}")
        assert (tmp_path / where / "sets" / f"{ID}.json").exists()
    assert capsys.readouterr().err == ""


def test_with_nowhere_to_keep_them_it_is_said_that_they_are_forgotten(peers, tmp_path, capsys):
    for entries in ([], [Entry("peers", peers.collection.folder)]):
        assert isinstance(make_store(None, None, entries), MemoryStore)
        assert "forgotten when the service ends" in capsys.readouterr().err
    assert not (tmp_path / "peers" / "sets").exists()


def test_what_people_make_is_kept_in_the_collection_or_in_the_state_each_in_its_own(own, peers, tmp_path):
    folders = {one.name: one.collection.folder for one in (own, peers)}
    state = tmp_path / "s"
    for wanted, given, where in [
        (["own"], None, [folders["own"]]),
        (["own"], state, [state]),
        (["own", "peers"], state, [state / "own", state / "peers"]),
    ]:
        entries = [Entry(name, folders[name]) for name in wanted]
        served = open_entries(lambda name: FAKE, entries, given, None, None, None, {})
        assert [one.kept_in for one in served] == where
        for one in served:
            one.collection.close()


def test_the_model_is_the_collections(own, peers):
    assert model_of(Shelf([own, peers])) == "fake"
    with pytest.raises(ModelUnavailable, match="'peers' does not say which model"):
        model_of(Shelf([peers]))
    with pytest.raises(ModelUnavailable, match="has no model that embeds"):
        model_of(Shelf())


def test_a_multilingual_model_embeds_texts_into_the_collections_space(own):
    entry = Entry("own", own.collection.folder)
    with pytest.raises(InputError, match=r"'other' embeds texts in 8 dimensions and the collection 'own' has 16"):
        open_entries(lambda name: FAKE, [entry], None, FakeEmbedder(8, "other"), None, None, {})
    (served,) = open_entries(lambda name: FAKE, [entry], None, FAKE, None, None, {})
    assert served.options.multilingual is FAKE
    served.collection.close()


@pytest.mark.slow
def test_models_of_texts_alone_are_batched_and_their_texts_kept(tmp_path):
    sentence_model = str(make_sentence_folder(tmp_path, 12))
    models = Models(Parts(load_model, load_texts=load_text_model), "cpu", lambda kind, ns: None)
    texts = models.texts(sentence_model)
    np.testing.assert_array_equal(texts.embed_texts(["dog"]), texts.embed_texts(["dog"]))
    statistics, cache = models.figures()[sentence_model]
    assert (statistics.kinds["text"].succeeded.count, cache.hits, cache.misses) == (1, 1, 1)
    assert models.texts(sentence_model) is texts
    both = models.texts("mini")
    assert models.get("mini") is both
    models.close()


def test_flags_come_from_a_class_set_a_safety_model_and_prompts(own, tmp_path):
    rows = own.collection.vectors([0, 1, 2])
    torch.save({"weight": torch.from_numpy(rows[:1]), "bias": torch.zeros(1)}, tmp_path / "head.pth")
    np.save(tmp_path / "prompts.npy", rows[:2])
    (tmp_path / "set.json").write_text('{"classes": [{"name": "safety", "positive": ["bus"]}]}')
    found = read_flags(None, tmp_path / "head.pth", 0.9, tmp_path / "prompts.npy")
    assert {name: flag.flags(rows).tolist() for name, flag in found.items()} == {
        "safety": [True, False, False],
        "violence": [False, True, False],
    }
    entry = Entry("own", own.collection.folder)
    (served,) = open_entries(lambda name: FAKE, [entry], None, None, None, None, found)
    ids, _ = served.flags.nearest(rows[0], 3, ["safety", "violence"], modality="image", dedup=False)
    assert ids.tolist() == [2]
    served.collection.close()
    mixed = read_flags(tmp_path / "set.json", None, 0.5, tmp_path / "prompts.npy")
    assert [type(mixed[name]) for name in ("safety", "violence")] == [MetaClass, Prompts]


def test_flags_that_cannot_be_meant(own, tmp_path):
    (tmp_path / "set.json").write_text('{"classes": [{"name": "violence", "positive": ["bus"]}]}')
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "many.npz", np.zeros((2, 16)))
    np.save(tmp_path / "prompts.npy", np.eye(2, 8))
    for given, words in [
        ((tmp_path / "set.json", None, 0.5, tmp_path / "prompts.npy"), "class violence, and .*give one of them"),
        ((None, None, 0.5, tmp_path / "gone.npy"), "cannot be read"),
        ((None, None, 0.5, tmp_path / "empty.npy"), "cannot be read"),
        ((None, None, 0.5, tmp_path / "many.npz"), "it is an archive of arrays"),
    ]:
        with pytest.raises(InputError, match=words):
            read_flags(*given)
    flags = read_flags(None, None, 0.5, tmp_path / "prompts.npy")
    with pytest.raises(InputError, match="violence takes vectors of 8 dimensions and the collection 'own' has 16"):
        open_entries(lambda name: FAKE, [Entry("own", own.collection.folder)], None, None, None, None, flags)


def test_texts_that_are_longer_than_the_model_reads_are_treated_as_the_service_is_told(own):
    asked = [f"{'word ' * 40}{end}" for end in ("red", "blue")]
    entry = Entry("own", own.collection.folder)
    for how in ("cut", "average"):
        (served,) = open_entries(lambda name: FAKE, [entry], None, FAKE, None, None, {}, long_text=how)
        for multilingual in (False, True):
            one, other = (served.embed_text(text, multilingual) for text in asked)
            assert np.array_equal(one, other) == (how == "cut")
        served.collection.close()
    (served,) = open_entries(lambda name: FAKE, [entry], None, FAKE, None, None, {}, long_text="error")
    for multilingual in (False, True):
        with pytest.raises(InputError, match="is longer than"):
            served.embed_text(asked[0], multilingual)
    served.collection.close()
