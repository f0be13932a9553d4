import json
import uuid

import pytest

from clipsieve.back.stores import FolderStore, MemoryStore, RedisStore, open_store
from clipsieve.errors import InputError, StoreUnavailable
from tests.back.redis_server import running_redis
from tests.contracts.store import LastingStoreContract, StoreContract

ID = "b5d1bdec-3bf3-4632-a011-538384d5bcb1"


class TestMemory(StoreContract):
    def make(self, folder):
        return MemoryStore()


class TestFolder(LastingStoreContract):
    def make(self, folder):
        return FolderStore(folder / "sets")

    def test_a_configuration_is_a_file_of_its_own(self, store, tmp_path):
        store.put(ID, b'{"labels": []}')
        assert [path.name for path in (tmp_path / "sets").iterdir()] == [f"{ID}.json"]
        assert (tmp_path / "sets" / f"{ID}.json").read_bytes() == b'{"labels": []}'

    def test_files_elsewhere_are_out_of_reach(self, store, tmp_path):
        (tmp_path / "sets").mkdir()
        for name in ("secret", "sets/mine"):
            (tmp_path / f"{name}.json").write_text("{}")
        for id in ("../secret", "mine", str(tmp_path / "secret")):
            assert store.get(id) is None

    def test_a_folder_that_fails_is_said(self, tmp_path):
        (tmp_path / "sets").write_text("no folder")
        store = FolderStore(tmp_path / "sets")
        for ask in (lambda: store.put(ID, b"{}"), lambda: store.get(ID)):
            with pytest.raises(StoreUnavailable, match=ID):
                ask()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.mark.slow
class TestRedis(LastingStoreContract):
    @pytest.fixture(autouse=True)
    def _served(self, server):
        self.server = server

    def make(self, folder):
        return open_store(self.server.address)

    def test_the_id_is_the_key_and_nothing_expires(self, store):
        id, value = str(uuid.uuid4()), json.dumps({"labels": ["é"]}).encode()
        store.put(id, value)
        with self.server.client() as client:
            assert client.get(id) == value
            assert client.ttl(id) == -1
            client.set(id, b"by another program")
        assert store.get(id) == b"by another program"

    def test_a_key_of_another_kind_and_a_wrong_password_are_said(self, store):
        with self.server.client() as client:
            client.lpush(ID, "x")
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            store.get(ID)
        with pytest.raises(StoreUnavailable) as error:
            open_store(f"redis://default:secret@127.0.0.1:{self.server.port}/0")
        assert "secret" not in str(error.value)


@pytest.mark.slow
def test_a_redis_that_ends_is_said_and_one_that_is_back_is_used(tmp_path):
    with running_redis(tmp_path) as server:
        store = RedisStore(server.address)
        store.put(ID, b"kept")
    for ask in (lambda: store.get(ID), lambda: store.put(ID, b"lost")):
        with pytest.raises(StoreUnavailable, match=f"127.0.0.1:{server.port}"):
            ask()
    with running_redis(tmp_path, server.port):
        assert store.get(ID) == b"kept"


@pytest.mark.parametrize(
    "address", ["", "redis", "http://x", "redis://:pass@host:port/0", "redis://h:1/0?socket_timeout=x"]
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(InputError, match="redis://") as error:
        open_store(address)
    assert "pass@" not in str(error.value)


def test_nobody_listens():
    with pytest.raises(StoreUnavailable, match=r"127\.0\.0\.1:1 "):
        open_store("redis://127.0.0.1:1/0")
