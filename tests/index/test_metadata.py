import datetime
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.index import metadata
from clipsieve.index.metadata import SqliteMetadata
from clipsieve.manifest import Manifest, read_manifest
from clipsieve.shards import open_manifest
from clipsieve.types import Embeddings, ModelId
from clipsieve.writer import open_writer
from tests.contracts.metadata_store import MetadataStoreContract

MODEL = ModelId("test", "00", "none")


def add(folder: Path, rows: Sequence[Mapping[str, object]]) -> Manifest:
    """One shard of these rows; what is neither key nor caption is a column."""
    vectors = np.tile(np.float32([1, 0]), (len(rows), 1))
    columns = {name: [row[name] for row in rows] for name in rows[0] if name not in ("key", "caption")}
    with open_writer(folder, Manifest(MODEL, 2)) as writer:
        writer.append(
            Embeddings(vectors, tuple(str(row["key"]) for row in rows), MODEL),
            captions=[row.get("caption") for row in rows],  # type: ignore[misc]
            columns=columns,
        )
    return read_manifest(folder)


class TestSqliteMetadata(MetadataStoreContract):
    def make(self, folder: Path, rows: Sequence[Mapping[str, object]]) -> SqliteMetadata:
        add(folder, rows[:3])
        self.opened = SqliteMetadata(folder, add(folder, rows[3:]))  # two shards
        return self.opened

    @pytest.fixture(autouse=True)
    def _close(self) -> object:
        yield
        if hasattr(self, "opened"):
            self.opened.close()


def test_keys_both_ways(tmp_path: Path) -> None:
    with SqliteMetadata(tmp_path, add(tmp_path, [{"key": "a"}, {"key": "b"}, {"key": "a"}])) as store:
        assert store.keys([2, 1]) == ["a", "b"]
        assert store.ids_of_keys(["b", "a"]).tolist() == [1, 2]
        with pytest.raises(NotFound, match="'c'"):
            store.ids_of_keys(["a", "c"])


def test_types_come_back(tmp_path: Path) -> None:
    row = {
        "key": "a",
        "ok": True,
        "tags": ["x", "y"],
        "at": datetime.datetime(2020, 1, 2, 3, 4),
        "box": {"w": 1},
        "big": 2**62 + 1,
    }
    with SqliteMetadata(tmp_path, add(tmp_path, [row, row | {"key": "b", "ok": None}])) as store:
        expected = row | {"at": "2020-01-02T03:04:00"}
        for got in (store.get([0])[0], store._bulk([0])[0]):
            assert {name: got[name] for name in expected} == expected
            assert got["ok"] is True
        assert store.get([1])[0]["ok"] is None
        assert store.select("ok").tolist() == [0]
        assert store.select("at < '2021' and json_extract(box, '$.w') = 1").tolist() == [0, 1]


def test_columns_may_differ_between_shards(tmp_path: Path) -> None:
    add(tmp_path, [{"key": "a", "URL": "u", "n": 1}])
    add(tmp_path, [{"key": "b", "url": "v", "n": [1, 2]}])
    with SqliteMetadata(tmp_path, read_manifest(tmp_path)) as store:
        first, second = store.get([0, 1])
        assert (first["URL"], first["url"], first["n"]) == ("u", None, 1)
        assert (second["URL"], second["url"], second["n"]) == (None, "v", [1, 2])
        assert store.select("\"url\" = 'v'").tolist() == [1]
        assert store.select("\"URL\" = 'u'").tolist() == [0]


def test_the_bulk_path_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for start in (0, 50):
        add(
            tmp_path,
            [{"key": f"k{i}", "f": float(i) if i % 3 else None, "s": f"s{i}"} for i in range(start, start + 50)],
        )
    ids = np.random.default_rng(0).permutation(100)
    with SqliteMetadata(tmp_path, read_manifest(tmp_path)) as store:
        rows, keys = store.get(ids), store.keys(ids)
        monkeypatch.setattr(metadata, "BULK", 10)
        assert store.get(ids) == rows
        assert store.keys(ids) == keys
        with pytest.raises(NotFound, match="item 100"):
            store.get([*range(50), 100])


def test_a_stale_cache_catches_up_and_a_lost_one_is_made_again(tmp_path: Path) -> None:
    with SqliteMetadata(tmp_path, add(tmp_path, [{"key": "a"}])) as store:
        seen: list[tuple[int, int]] = []
        store.update(add(tmp_path, [{"key": "b"}, {"key": "c"}]), lambda *done: seen.append(done))
        assert seen == [(2, 2)]
        assert store.keys([0, 1, 2]) == ["a", "b", "c"]
    store.path.unlink()
    with SqliteMetadata(tmp_path, read_manifest(tmp_path)) as store:
        assert store.keys([0, 1, 2]) == ["a", "b", "c"]


def test_rows_of_a_shard_that_is_gone_are_forgotten(tmp_path: Path) -> None:
    add(tmp_path, [{"key": "a"}])
    both = add(tmp_path, [{"key": "b"}])
    with SqliteMetadata(tmp_path, both) as store:
        import dataclasses

        store.update(dataclasses.replace(both, shards=both.shards[1:]))
        assert store.select("1").tolist() == [1]
        store.update(both)
        assert store.select("1").tolist() == [0, 1]


@pytest.mark.parametrize("damage", [lambda b: b"not a database at all" * 300, lambda b: b[:4096], lambda b: b""])
def test_a_damaged_cache_is_made_again(tmp_path: Path, damage: object) -> None:
    manifest = add(tmp_path, [{"key": f"k{i}", "text": "x" * 100} for i in range(500)])
    SqliteMetadata(tmp_path, manifest).close()
    path = tmp_path / metadata.NAME
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    with SqliteMetadata(tmp_path, manifest) as store:
        assert store.keys([499]) == ["k499"]


def test_damage_that_shows_only_on_reading(tmp_path: Path) -> None:
    manifest = add(tmp_path, [{"key": f"k{i}", "text": "x" * 100} for i in range(2000)])
    SqliteMetadata(tmp_path, manifest).close()
    path = tmp_path / metadata.NAME
    data = bytearray(path.read_bytes())
    data[8 * 4096 :] = b"\xff" * (len(data) - 8 * 4096)
    path.write_bytes(data)
    with SqliteMetadata(tmp_path, manifest) as store:
        assert store.keys(range(2000)) == [f"k{i}" for i in range(2000)]


def test_state_and_folders_of_others(tmp_path: Path) -> None:
    manifest = add(tmp_path / "c", [{"key": "a"}])
    with SqliteMetadata(tmp_path / "c", manifest, state=tmp_path / "state") as store:
        assert store.path == tmp_path / "state" / metadata.NAME
    foreign = tmp_path / "foreign"
    (foreign / "img_emb").mkdir(parents=True)
    (foreign / "metadata").mkdir()
    for part, n in (("0", 2), ("10", 1), ("2", 3)):
        np.save(foreign / "img_emb" / f"img_emb_{part}.npy", np.ones((n, 1), np.float16))
        pq.write_table(
            pa.table({"image_path": [f"{part}-{i}.jpg" for i in range(n)]}),
            foreign / f"metadata/metadata_{part}.parquet",
        )
    before = sorted(foreign.rglob("*"))
    with SqliteMetadata(foreign, open_manifest(foreign)) as store:
        assert store.keys(range(6)) == ["0-0.jpg", "0-1.jpg", "10-0.jpg", "2-0.jpg", "2-1.jpg", "2-2.jpg"]
        assert sorted(foreign.rglob("*")) == before
        temporary = store.path
    assert not temporary.exists()


def test_embeddings_without_metadata_have_keys(tmp_path: Path) -> None:
    (tmp_path / "img_emb").mkdir()
    np.save(tmp_path / "img_emb" / "img_emb_0.npy", np.ones((2, 1), np.float16))
    with SqliteMetadata(tmp_path, open_manifest(tmp_path)) as store:
        assert store.keys([1, 0]) == ["img_emb_0.npy#1", "img_emb_0.npy#0"]


@pytest.mark.parametrize(
    "attack",
    [
        "id in (select number from shards)",
        "load_extension('x')",
        "randomblob(1000000000) is null",
        "id in (with recursive t(i) as (select 1 union all select i + 1 from t) select i from t)",
        "(select count(*) from sqlite_master) > 0",
        'nothing = "a text in double quotes"',
        "key = ''\0",
        "key = '\ud800'",
    ],
)
def test_what_a_filter_may_not_do(tmp_path: Path, attack: str) -> None:
    with (
        SqliteMetadata(tmp_path, add(tmp_path, [{"key": "a"}])) as store,
        pytest.raises(InputError, match="columns are id, key"),
    ):
        store.select(attack)


def test_a_slow_filter_is_ended(tmp_path: Path) -> None:
    manifest = add(tmp_path, [{"key": str(i)} for i in range(300)])
    slow = "exists (select 1 from items a, items b, items c, items d where a.key || b.key || c.key || d.key = 'x')"
    with SqliteMetadata(tmp_path, manifest) as store:
        with pytest.raises(InputError, match="took more than"):
            store.select(slow, limit_s=0.1)
        assert store.select("id = 1").tolist() == [1]


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    manifest = add(tmp_path, [{"key": str(i)} for i in range(200)])
    wrong: list[object] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            ids = rng.integers(0, 200, 20)
            if store.keys(ids) != [str(i) for i in ids]:
                wrong.append(ids)

    with SqliteMetadata(tmp_path, manifest) as store:
        threads = [threading.Thread(target=read, args=[i]) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
