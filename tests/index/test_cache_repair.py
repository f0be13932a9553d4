"""A cache that somebody damages between two questions, or during them, is made again and says so once."""

import logging
import sqlite3
import threading

import pytest

from clipsieve.errors import CollectionError, CollectionLocked, InputError
from clipsieve.index import cache
from clipsieve.index.metadata import SqliteMetadata
from tests.index.test_metadata import add


def drop(table):
    def damage(path):
        with sqlite3.connect(path) as connection:
            connection.execute(f"DROP TABLE {table}")
        connection.close()

    return damage


def execute(*statements):
    def damage(path):
        connection = sqlite3.connect(path, isolation_level=None)
        for statement in statements:
            connection.execute(statement)
        connection.close()

    return damage


def left_in_wal(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM items")
    data, log = path.read_bytes(), path.with_name(path.name + "-wal").read_bytes()
    connection.close()
    path.write_bytes(data)
    path.with_name(path.name + "-wal").write_bytes(log)


def overwrite_pages(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))


def replace_by_another(path):
    path.unlink()
    execute("CREATE TABLE items (id INTEGER PRIMARY KEY, key TEXT)", f"PRAGMA user_version = {cache.SCHEMA}")(path)


DAMAGES = {
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:5000]),
    "no database": lambda path: path.write_bytes(b"no database" * 500),
    "pages": overwrite_pages,
    "deleted": lambda path: path.unlink(),
    "items": drop("items"),
    "shards": drop("shards"),
    "columns": drop("columns"),
    "more": drop("more"),
    "stamp": drop("stamp"),
    "rows": execute("DELETE FROM items"),
    "a view": execute("DROP TABLE items", "CREATE VIEW items AS SELECT 1 AS id, 'a' AS key"),
    "another version": execute("PRAGMA user_version = 1"),
    "write-ahead log": left_in_wal,
    "replaced": replace_by_another,
}


@pytest.fixture
def store(tmp_path):
    manifest = add(tmp_path, [{"key": f"k{i}", "year": i, "text": "x" * 100} for i in range(300)])
    with SqliteMetadata(tmp_path, manifest) as opened:
        yield opened


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("ask", ["keys", "select"])
def test_damage_between_two_questions(store, damage, ask, caplog):
    asked = {
        "keys": lambda: store.keys([299, 0]) == ["k299", "k0"],
        "select": lambda: store.select("year > 297").tolist() == [298, 299],
    }[ask]
    assert asked()
    damage(store.path)
    with caplog.at_level(logging.WARNING, "clipsieve"):
        assert asked()
        assert asked()
    assert [record.message for record in caplog.records] == [
        f"{store.path} was damaged, of another version or changed by another program; it has been made again."
    ]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_before_it_is_opened(store, damage):
    folder, manifest = store._folder, store._manifest
    store.close()
    damage(store.path)
    for _ in range(2):
        with SqliteMetadata(folder, manifest) as again:
            assert again.keys([299]) == ["k299"]
            assert again.select("year = 3").tolist() == [3]
    assert not store.path.with_name("cache.sqlite-wal").exists()


@pytest.mark.slow
def test_damage_during_questions(store):
    wrong: list[object] = []
    over = threading.Event()

    def ask():
        while not over.is_set():
            try:
                if store.select("year = 3").tolist() != [3] or store.keys([9]) != ["k9"]:
                    wrong.append("another answer")
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for damage in ("emptied", "items", "deleted", "another version"):
        with_no_writer(DAMAGES[damage], store.path)
        store.keys([1])
    over.set()
    for thread in threads:
        thread.join()
    assert wrong == []


def with_no_writer(damage, path):
    """Try until nobody is making the cache again."""
    for _ in range(200):
        try:
            return damage(path)
        except sqlite3.OperationalError:
            continue
    raise AssertionError("the cache stayed locked")


def test_two_processes_at_different_commits_leave_each_other_alone(store, caplog):
    """What another one of ours writes is no damage."""
    folder = store._folder
    second = add(folder, [{"key": "new", "year": 1}])
    with SqliteMetadata(folder, second) as other, caplog.at_level(logging.WARNING, "clipsieve"):
        assert other.keys([300]) == ["new"]
        assert store.keys([5]) == ["k5"]
        assert store.select("year = 1").tolist() == [1]
        assert other.select("year = 1").tolist() == [1, 300]
    assert not caplog.records


def test_a_wrong_filter_is_still_a_wrong_filter(store):
    with pytest.raises(InputError, match="nothing_such"):
        store.select("nothing_such > 3")


def test_a_folder_in_its_place_is_named(store):
    store.path.unlink()
    store.path.mkdir()
    with pytest.raises(CollectionError, match=r"cache\.sqlite cannot be written or read"):
        store.keys([1])
    store.path.rmdir()
    assert store.keys([1]) == ["k1"]


def test_a_lock_of_somebody_else_is_named(store, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: connect(*a, **(k | {"timeout": 0.01})))
    holder = connect(store.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(CollectionLocked, match="is locked by another process"):
        store.keys([1])
    holder.close()
    assert store.keys([1]) == ["k1"]
