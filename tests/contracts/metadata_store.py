"""What every MetadataStore does. A new one subclasses this and makes itself from rows."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from clipsieve.errors import InputError, NotFound
from clipsieve.protocols import MetadataStore

ROWS: list[dict[str, object]] = [
    {"key": "bus.jpg", "caption": "a red bus", "year": 1999, "a.b": 0.5},
    {"key": "cat.jpg", "caption": None, "year": 2005, "a.b": None},
    {"key": "dog's.jpg", "caption": 'a "good" dog; DROP TABLE items --', "year": 2021, "a.b": -1.5},
    {"key": "sub/été.png", "caption": "", "year": None, "a.b": 2.0},
]


class MetadataStoreContract:
    """Subclass it as `class TestMine(MetadataStoreContract)` and override `make`."""

    def make(self, folder: Path, rows: Sequence[Mapping[str, object]]) -> MetadataStore:
        """A store of these rows, which have the same columns, as ids 0, 1, 2, ..."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, tmp_path: Path) -> MetadataStore:
        return self.make(tmp_path, ROWS)

    def test_is_a_store(self, store: MetadataStore) -> None:
        assert isinstance(store, MetadataStore)

    def test_rows_come_in_the_order_asked(self, store: MetadataStore) -> None:
        rows = store.get([3, 0, 2, 0])
        assert [row["id"] for row in rows] == [3, 0, 2, 0]
        for row, i in zip(rows, [3, 0, 2, 0], strict=True):
            assert {name: row[name] for name in ROWS[i]} == ROWS[i]
        assert list(store.get([])) == []

    def test_numpy_ids_are_ids(self, store: MetadataStore) -> None:
        assert [row["key"] for row in store.get(np.array([1, 2], dtype=np.int64))] == ["cat.jpg", "dog's.jpg"]

    @pytest.mark.parametrize("bad", [[4], [0, 99], [-1]])
    def test_an_unknown_id_is_named(self, store: MetadataStore, bad: list[int]) -> None:
        with pytest.raises(NotFound, match=f"item {bad[-1]}"):
            store.get(bad)

    @pytest.mark.parametrize(
        ("where", "ids"),
        [
            ("year > 2000", [1, 2]),
            ("year IS NULL", [3]),
            ('"a.b" > 0', [0, 3]),
            ("caption LIKE '%red%' or key = 'cat.jpg'", [0, 1]),
            ("key = 'dog''s.jpg'", [2]),
            ("caption = 'a ; -- (' or length(caption) > 15", [2]),
            ("year > 3000", []),
            ("id in (0, 3)", [0, 3]),
        ],
    )
    def test_select(self, store: MetadataStore, where: str, ids: list[int]) -> None:
        got = store.select(where)
        assert got.dtype == np.int64
        assert got.tolist() == ids

    @pytest.mark.parametrize(
        "where",
        ["", "  ", "yeer > 3", "year >", "1) or (1", "(1", "1; drop table items", "1 -- x", "'open", "year > ?"],
    )
    def test_a_bad_expression_names_the_columns(self, store: MetadataStore, where: str) -> None:
        with pytest.raises(InputError, match=r'"a\.b"'):
            store.select(where)
