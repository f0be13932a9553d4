"""Filters against whoever wants one to cost more than it should."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipsieve.errors import InputError, Overloaded
from clipsieve.index import functions, metadata, where
from clipsieve.index.metadata import SqliteMetadata
from clipsieve.types import Int64
from tests.index.test_metadata import add

LONG = "replace(replace(replace(replace('aaaaaaaaaa', 'a', '{0}'), 'a', '{0}'), 'a', '{0}'), 'a', 'aaa')".format(
    "a" * 30
)
"""800,000 times the letter a, made by 200 letters."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteMetadata]:
    folder: Path = tmp_path_factory.mktemp("rows")
    rows = [{"key": f"k{i}", "n": i, "s": f"text {i}", "box": '{"w": 1}'} for i in range(2_000)]
    with SqliteMetadata(folder, add(folder, rows)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        ("instr(printf('%.*c', 3000000, 'a') || id, printf('%.*c', 100000, 'a') || 'b') > 0", "may not call 'printf'"),
        ("hex(key) = ''", "may not call 'hex'"),
        ("json_array(key) = ''", "may not call 'json_array'"),
        ("id in (select a.id * 10 + b.id from items a, items b)", "may not collect or sort"),
        ("(select a.id from items a, items b order by a.key || b.key) = 1", "may not collect or sort"),
        ("exists (select 1 from (select key || key k from items) where k = '')", "more than one query"),
        ("exists (select 1 from json_each(items.box))", "may only compare columns"),
        ("key = 'a\0b'", "no place in an expression"),
        (f"key || {'x' * 300_000} = 1", "at most 100,000"),
        (" and ".join(["id > 1"] * 5_000), "Expression tree is too large"),
        (f"{'(' * 5_000}1{')' * 5_000}", "parser stack overflow"),
        (f"s like '%{'a%' * 200}'", "instr finds longer texts"),
        ("nowhere" * 2_000 + " = 1", "no such column"),
        ('"' + "nowhere" * 2_000 + '" = 1', "there is no column"),
    ],
)
def test_what_a_filter_may_not_do(store: SqliteMetadata, attack: str, words: str) -> None:
    with pytest.raises(InputError, match="cannot be used") as raised:
        store.select(attack)
    assert words in str(raised.value)
    assert len(str(raised.value)) < 1_000


@pytest.mark.parametrize(
    "filter",
    [
        "instr(s, '7 ') = 0 and instr(x'0102', x'02') = 2 and instr(null, 'a') is null and instr(12.5, '.') = 3",
        "replace(s, 'text', 'b') = 'b ' || n and replace(s, '', 'x') = s and replace(1.5, '.', ',') = '1,5'",
        "trim('xxaxx', 'x') = 'a' and ltrim('xyax', 'yx') = 'ax' and rtrim('xaxy', 'yx') = 'xa' and trim(' a ') = 'a'",
        "trim('aaa', 'a') = '' and trim('a', '') = 'a' and trim(null, 'a') is null and rtrim('größe', 'eß') = 'grö'",
    ],
)
@pytest.mark.parametrize("guard", ["1", f"length({LONG}) > 1"])
def test_functions_do_what_sqlites_do(store: SqliteMetadata, filter: str, guard: str) -> None:
    more = "upper(lower('Ä')) = 'Ä' and box -> '$.w' = '1' and s like 'TEXT%' and s glob 'te[x]t*'"
    assert len(store.select(f"{filter} and {more} and {guard}")) == 2_000


HOSTILE = {
    "instr": f"instr({LONG} || id, substr({LONG}, 1, 400000) || 'b') > 0",
    "replace": f"length(replace({LONG} || id, substr({LONG}, 1, 400000) || 'b', 'x')) < 0",
    "trim": f"length(trim({LONG} || id, 'bcdefghijklmnopqrstuvwxyz')) < 0",
    "trim, all of it": f"length(trim({LONG}, {LONG} || id)) < 0",
    "like": f"{LONG} || id like '%{'a%' * 90}b'",
    "like, letters": f"{LONG} || id like '%{'a' * 190}b'",
    "glob": f"{LONG} || id glob '*{'[abc]' * 38}x'",
    "upper": f"upper({LONG} || id) = lower({LONG} || id)",
    "strftime": f"length(strftime(replace(substr({LONG}, 1, 400000), 'a', '%f') || id, 'now')) < 0",
    "date": f"date({LONG} || id, {', '.join(['id'] * 100)}) = 1",
    "json": f"json_extract('[' || replace({LONG}, 'aa', '1,') || id || ']', '$[99999]') < 0",
    "json path": f"json_extract(box, '$' || replace(substr({LONG}, 1, 300000), 'a', '[0]') || id) < 0",
    "-> ": f"(('[' || replace({LONG}, 'aa', '1,') || id || ']') -> '$[99999]') < 0",
    "many calls": " or ".join([f"length(upper(key || {LONG})) < 0"] * 300),
    "many texts": " or ".join([f"key || {LONG} = id || {LONG}"] * 200),
    "arguments": f"max({', '.join([f'id || {LONG}'] * 100)}) < ''",
    "joined": "exists (select 1 from items a, items b, items c where a.key || b.key || c.key = items.key)",
    "joined, long": f"exists (select 1 from items a, items b where upper(a.key || {LONG}) = b.key)",
    "numbers": f"(replace({LONG}, 'a', '9') || id) * 1.0 < 0",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_filter_ends_at_its_deadline(store: SqliteMetadata, name: str) -> None:
    began, said = time.perf_counter(), ""
    try:
        assert len(store.select(HOSTILE[name], limit_s=1)) == 0
    except InputError as error:
        said = str(error)
    assert time.perf_counter() - began < 2.5  # the deadline, and a second and a half for a busy machine
    assert not said or "took more than 1 s" in said or "makes a value of more than" in said
    assert store.select("id = 1").tolist() == [1]


def test_long_values_of_the_table_are_compared(tmp_path: Path) -> None:
    rows = [{"key": "a", "s": "x" * 3_000_000 + "end"}, {"key": "b", "s": "x" * 70_000}, {"key": "c", "s": "x"}]
    with SqliteMetadata(tmp_path, add(tmp_path, rows)) as store:
        assert store.select("length(s) > 2").tolist() == [0, 1]
        assert store.select("s like '%END' or instr(s, 'end') > 0").tolist() == [0]
        assert store.select("substr(s, -1) = 'x' and key < 'c'").tolist() == [1]
        assert store.get([0])[0]["s"] == rows[0]["s"]
        with pytest.raises(InputError, match="makes a value of more than"):
            store.select("length(s || s || s || s || s) > 0")


def test_so_many_filters_work_at_once(store: SqliteMetadata, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "WAIT_SECONDS", 0.01)
    running, go = threading.Semaphore(0), threading.Event()

    def held(*_: object) -> list[tuple[int]]:
        running.release()
        assert go.wait(30)
        return []

    monkeypatch.setattr(where, "run", held)
    threads = [threading.Thread(target=store.select, args=["id = 1"]) for _ in range(metadata.FILTERS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert running.acquire(timeout=30)
    try:
        with pytest.raises(Overloaded, match="filters are at work"):
            store.select("id = 1")
    finally:
        go.set()
        for thread in threads:
            thread.join()
    monkeypatch.undo()
    assert store.select("id = 1").tolist() == [1]


def test_texts_to_count_are_few_and_short(store: SqliteMetadata) -> None:
    counted: list[str] = []

    def count(text: str, least: float, ids: Int64) -> Int64:
        counted.append(text)
        raise AssertionError

    for filter, words in (
        ("count('a' || id) > 0", "more than 100 texts"),
        (f"count({LONG}) > 0", "at most 10,000 are read"),
    ):
        with pytest.raises(InputError, match=words):
            store.select(filter, count=count)
    assert not counted


def test_what_costs_is_guarded_and_what_is_guarded_may_be_called() -> None:
    assert set(functions.COSTLY) < where.FUNCTIONS
