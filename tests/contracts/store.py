"""What every Store of deployed configurations does. A new one subclasses this and makes itself."""

import threading
import uuid

import pytest

from clipsieve.back.stores import Store
from clipsieve.errors import InputError

ODD = [
    "",
    "x",
    "../secret",
    "sets/x",
    "7F0C3E52-9D1B-4A6E-8C55-2B1D0E94A7F3",
    "7f0c3e529d1b4a6e8c552b1d0e94a7f3",
    "{7f0c3e52-9d1b-4a6e-8c55-2b1d0e94a7f3}",
    "\ud800",
    "é",
]


class StoreContract:
    """Subclass it as `class TestMine(StoreContract)` and override `make`."""

    def make(self, folder) -> Store:
        """A store; another one made of the same folder keeps the same configurations."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path) -> Store:
        return self.make(tmp_path)

    def test_is_a_store(self, store):
        assert isinstance(store, Store)

    def test_what_was_put_last_is_there(self, store):
        one, other = str(uuid.uuid4()), str(uuid.uuid4())
        assert store.get(one) is None
        store.put(one, b'{"a": 1}')
        store.put(other, "é\n".encode())
        store.put(one, b"\x00\xff")
        assert (store.get(one), store.get(other)) == (b"\x00\xff", "é\n".encode())

    @pytest.mark.parametrize("id", ODD)
    def test_only_a_plain_uuid_is_an_id(self, store, id):
        assert store.get(id) is None
        with pytest.raises(InputError, match="no uuid"):
            store.put(id, b"{}")

    def test_many_threads_at_once_leave_one_of_their_values(self, store):
        id = str(uuid.uuid4())
        values = [bytes([65 + i]) * 10_000 for i in range(8)]
        seen, failed = [], []

        def work(value):
            try:
                for _ in range(5):
                    store.put(id, value)
                    seen.append(store.get(id))
            except Exception as error:
                failed.append(error)

        threads = [threading.Thread(target=work, args=[value]) for value in values]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert set(seen) <= set(values)
        assert store.get(id) in values


class LastingStoreContract(StoreContract):
    """Of a store that outlives its process."""

    def test_another_one_has_what_this_one_put(self, store, tmp_path):
        id = str(uuid.uuid4())
        other = self.make(tmp_path)
        store.put(id, b"1")
        assert other.get(id) == b"1"
        other.put(id, b"2")
        assert store.get(id) == b"2"
