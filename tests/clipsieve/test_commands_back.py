import pytest

from clipsieve.back.config import Entry
from clipsieve.back.shelf import Served, Shelf
from clipsieve.back.stores import FolderStore, MemoryStore
from clipsieve.commands_back import make_store, model_of, open_entries
from clipsieve.errors import ModelUnavailable
from clipsieve.index.collection import open_collection
from clipsieve.index.peer_export import export_peer
from tests.back.made import FAKE, add_items

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
        served = open_entries(lambda name: FAKE, entries, given, None, None, None, None)
        assert [one.kept_in for one in served] == where
        for one in served:
            one.collection.close()


def test_the_model_is_the_collections(own, peers):
    assert model_of(Shelf([own, peers])) == "fake"
    with pytest.raises(ModelUnavailable, match="'peers' does not say which model"):
        model_of(Shelf([peers]))
    with pytest.raises(ModelUnavailable, match="has no model that classifies"):
        model_of(Shelf())
