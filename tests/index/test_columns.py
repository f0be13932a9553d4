"""What a filter compares, and what is read back, is what the tables hold, whatever their names and types."""

import datetime
import hashlib
import math
import operator
import unicodedata
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clipsieve.errors import CollectionDamaged, InputError
from clipsieve.index import cache, connections
from clipsieve.index.cells import kind_of, read
from clipsieve.index.metadata import SqliteMetadata
from clipsieve.manifest import File, Manifest, Shard
from tests.index.test_metadata import MODEL


class Tables:
    """A collection's metadata, as tables of any columns in shards of a folder."""

    def __init__(self, folder):
        self.folder, self.shards, self.rows = folder, [], 0
        (folder / "metadata").mkdir(exist_ok=True, parents=True)

    def add(self, columns, trusted=True):
        """One more shard. `trusted`: it is ours, where others' tables have no checksum."""
        import pyarrow.parquet as pq

        rows, number = len(columns[0][1]), len(self.shards)
        ids = range(self.rows, self.rows + rows)
        own = [("id", pa.array(ids, pa.int64())), ("key", pa.array([f"k{i}" for i in ids]))]
        own.append(("has_caption", pa.array([False] * rows)))
        pairs = [*own, *columns]
        table = pa.Table.from_arrays([values for _, values in pairs], [name for name, _ in pairs])
        path = f"metadata/metadata_{number:06}.parquet"
        pq.write_table(table, self.folder / path)
        data = (self.folder / path).read_bytes()
        file = File(path, len(data), hashlib.sha256(data).hexdigest() if trusted else "")
        self.shards.append(Shard(number, rows, ids[0], ids[-1], {"metadata": file}))
        self.rows += rows
        return self

    def open(self):
        return SqliteMetadata(self.folder, Manifest(MODEL, 2, shards=tuple(self.shards), next_id=self.rows))


def opened(folder, *shards):
    tables = Tables(folder)
    for columns in shards:
        tables.add(list(columns.items()))
    return tables.open()


def selected(store, where):
    return store.select(where).tolist()


def test_wide_tables_are_read_and_filtered(tmp_path):
    with opened(tmp_path, {f"c{i}": pa.array([i, -i]) for i in range(300)}) as store:
        assert store.get([1])[0]["c299"] == -299
        assert selected(store, "c299 > 0") == [0]


def test_columns_beyond_sqlites_stay_readable(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "COLUMNS", 6)
    shard = {f"c{i}": pa.array([i, None]) for i in range(5)} | {"b": pa.array([b"\xff", b""]), "n": pa.array([[1], []])}
    with opened(tmp_path, shard) as store:
        row = store.get([0])[0]
        assert (row["c2"], row["c4"], row["b"], row["n"]) == (2, 4, b"\xff", [1])
        assert store.get([1])[0]["c4"] is None
        assert selected(store, "c2 = 2") == [0]
        for where in ("c4 = 4", '"c4" = 4'):
            with pytest.raises(InputError, match="none of the first 6 columns"):
                store.select(where)


@pytest.mark.slow
def test_three_thousand_columns(tmp_path):
    with opened(tmp_path, {f"c{i}": pa.array([i, -i]) for i in range(3000)}) as store:
        assert store.get([1])[0]["c2999"] == -2999
        assert selected(store, "c1500 > 0") == [0]


def test_decimals_compare_as_numbers_and_are_read_exactly(tmp_path):
    texts = ["9.00", "10.00", "123456789012345678901234567.89", None]
    prices = pa.array([t and Decimal(t) for t in texts], pa.decimal128(38, 2))
    with opened(tmp_path, {"price": prices}) as store:
        assert [row["price"] for row in store.get(range(4))] == texts
        assert selected(store, "price < 10") == [0]
        assert selected(store, "price >= 10") == [1, 2]
        assert selected(store, "price = '10'") == [1]


def test_integers_beyond_sqlites_are_read_exactly(tmp_path):
    with opened(tmp_path, {"n": pa.array([1, 2**63 + 1, 2**64 - 1], pa.uint64())}) as store:
        assert [row["n"] for row in store.get(range(3))] == [1, 2**63 + 1, 2**64 - 1]
        assert selected(store, "n > 9000000000000000000") == [1, 2]


def test_durations_are_seconds(tmp_path):
    lengths = [datetime.timedelta(days=1), datetime.timedelta(seconds=1.5), datetime.timedelta(hours=9)]
    with opened(tmp_path, {"length": pa.array(lengths)}) as store:
        assert [row["length"] for row in store.get(range(3))] == [86400, 1.5, 32400]
        assert selected(store, "length < 86400") == [1, 2]


def test_times_compare_in_utc_whatever_their_precision(tmp_path):
    at = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)
    there = [at - datetime.timedelta(hours=1), at + datetime.timedelta(hours=1)]
    with opened(
        tmp_path,
        {"at": pa.array([at], pa.timestamp("s", "UTC"))},
        {"at": pa.array(there, pa.timestamp("ms", "Asia/Tokyo"))},
    ) as store:
        assert [row["at"][-6:] for row in store.get(range(3))] == ["+00:00", "+09:00", "+09:00"]
        assert store.get([1])[0]["at"] == "2024-05-01T20:00:00+09:00"
        assert selected(store, "at < '2024-05-01T12:00:00+00:00'") == [1]
    half = [1714564800 * 10**9 + 1, 1714564800 * 10**9 + 5 * 10**8]
    with opened(tmp_path, {"ns": pa.array(half, pa.timestamp("ns"))}) as store:
        assert [row["ns"] for row in store.get([0, 1])] == [
            "2024-05-01T12:00:00.000000001",
            "2024-05-01T12:00:00.500000",
        ]


def test_times_beyond_pythons(tmp_path):
    with opened(tmp_path, {"at": pa.array([10**12], pa.timestamp("s", "Europe/Rome"))}) as store:
        assert store.get([0])[0]["at"] == "33658-09-27T01:46:40+00:00"


def test_nested_numbers_that_json_has_not(tmp_path):
    values = [[math.nan, math.inf, -math.inf, 1.5], [0.5]]
    with opened(tmp_path, {"n": pa.array(values), "s": pa.array([["NaN", 'x"Infinity'], []])}) as store:
        row = store.get([0])[0]
        assert row["n"] == [None, math.inf, -math.inf, 1.5]
        assert row["s"] == ["NaN", 'x"Infinity']
        assert selected(store, "json_extract(n, '$[1]') > 1e300") == [0]


def test_half_floats_bytes_and_booleans(tmp_path):
    columns = {
        "half": pa.array(np.array([0.5, np.nan], np.float16)),
        "data": pa.array([b"\x00\xff", b"a"]),
        "ok": pa.array([True, False]),
    }
    with opened(tmp_path, columns) as store:
        assert [tuple(row[name] for name in columns) for row in store.get([0, 1])] == [
            (0.5, b"\x00\xff", True),
            (None, b"a", False),
        ]
        assert selected(store, "half = 0.5 and data = x'00ff' and ok") == [0]
        assert selected(store, "half is null") == [1]


@pytest.mark.parametrize(
    "shards",
    [
        [{"Year": [1999, 2001]}, {"year": [2002]}],
        [{"Year": [1999, 2001], "year": [2002, 1]}],
    ],
)
def test_names_that_differ_in_case_are_told_apart(tmp_path, shards):
    with opened(tmp_path, *({n: pa.array(v) for n, v in shard.items()} for shard in shards)) as store:
        assert {"Year", "year"} < set(store.columns)
        assert selected(store, '"Year" > 2000') == [1]
        assert selected(store, "`year` > 2000 or [year] > 2000") == ([2] if len(shards) > 1 else [0])
        for where in ("year > 2000", "YEAR > 2000", "items.Year > 1", '"YEAR" > 1'):
            with pytest.raises(InputError, match='may be "Year" or "year"; put the one'):
                store.select(where)


def test_a_later_shard_brings_the_same_name_in_another_case(tmp_path):
    tables = Tables(tmp_path).add([("Year", pa.array([1]))])
    with tables.open() as store:
        assert selected(store, "year = 1") == [0]
        tables.add([("year", pa.array([2]))])
        with tables.open() as later:
            assert selected(later, '"year" = 2') == [1]
        assert store.get([0])[0]["Year"] == 1
        with pytest.raises(InputError, match="put the one"):
            store.select("year = 1")


def test_who_has_a_cache_open_notices_that_another_made_it_again(tmp_path):
    tables = Tables(tmp_path).add([("ok", pa.array([True]))])
    with tables.open() as store:
        assert store.get([0])[0]["ok"] is True
        tables.add([("ok", pa.array(["no"]))])
        with tables.open() as later:
            assert [row["ok"] for row in later.get([0, 1])] == [True, "no"]
            assert store.get([0])[0]["ok"] is True
            assert store.types["ok"] == "boolean or text"


def test_one_name_is_one_column_whatever_its_types(tmp_path):
    years = [pa.array([1999, 2001]), pa.array(["2002", "unknown"]), pa.array([2000.0, 2003.5])]
    with opened(tmp_path, *({"year": values} for values in years)) as store:
        shown = [row["year"] for row in store.get(range(6))]
        assert shown == [1999, 2001, "2002", "unknown", 2000.0, 2003.5]
        assert [type(value) for value in shown] == [int, int, str, str, float, float]
        assert selected(store, "year > 2000 and typeof(year) != 'text'") == [1, 2, 5]
        assert selected(store, "year = '2002'") == [2]
        assert store.types["year"] == "number or text"


def test_texts_that_are_no_numbers_own_stay_texts(tmp_path):
    tables = Tables(tmp_path).add([("code", pa.array(["007", "8"]))])
    with tables.open() as store:
        assert selected(store, "code = 7") == []
    tables.add([("code", pa.array([7, 8]))])
    with tables.open() as store:  # made again: it compares otherwise
        assert [row["code"] for row in store.get(range(4))] == ["007", "8", 7, 8]
        assert selected(store, "code = 7") == [2]
        assert selected(store, "code = '007'") == [0]
        assert selected(store, "code = '8'") == [1]


@pytest.mark.parametrize(
    "name",
    [
        "select",
        "and",
        'a"b',
        "a\nb",
        "rowid",
        "oid",
        "_rowid_",
        "",
        "count",
        "ä",
        "c]d",
        "`",
        "items",
        "x'y",
        "a.b",
        "🙂",
    ],
)
def test_any_name_may_be_used_in_double_quotes(tmp_path, name):
    with opened(tmp_path, {name: pa.array([10, 20])}) as store:
        assert store.get([1])[0][name] == 20
        assert selected(store, '"' + name.replace('"', '""') + '" = 10') == [0]


def test_names_that_look_alike(tmp_path):
    composed, decomposed = "é", unicodedata.normalize("NFD", "é")
    with opened(tmp_path, {composed: pa.array([1]), decomposed: pa.array([2])}) as store:
        assert selected(store, f'"{composed}" = 1 and "{decomposed}" = 2') == [0]
    with opened(tmp_path / "decomposed", {decomposed: pa.array([2])}) as store:
        assert selected(store, f'"{composed}" = 2') == [0]
        assert selected(store, f'"{composed.upper()}" = 2') == [0]


@pytest.mark.parametrize(("name", "word"), [("ID", "ID"), ("Key", "KEY"), ("RowID", "rowid")])
def test_names_like_those_of_a_row_itself(tmp_path, name, word):
    columns = {name: pa.array([7])} | ({"rowid": pa.array([8])} if name == "RowID" else {})
    with opened(tmp_path, columns) as store:
        assert store.get([0])[0][name] == 7
        assert selected(store, f'"{name}" = 7 and id = 0') == [0]
        with pytest.raises(InputError, match="put the one that you mean"):
            store.select(f"{word} = 7")


def test_a_name_twice_in_one_table(tmp_path):
    with Tables(tmp_path).add([("x", pa.array([1])), ("x", pa.array(["a"]))]).open() as store:
        assert store.get([0], ["x", "x_2"]) == [{"id": 0, "x": 1, "x_2": "a"}]
        assert selected(store, "x = 1 and x_2 = 'a'") == [0]
        assert store._bulk([0], ["x_2"]) == [{"id": 0, "x_2": "a"}]


def test_a_row_longer_than_a_connection_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(connections, "MOST_BYTES", 20_000)
    with opened(tmp_path, {"text": pa.array(["x" * 30_000, "y"])}) as store:
        assert len(store.get([0, 1])[0]["text"]) == 30_000
        assert store.keys([0, 1]) == ["k0", "k1"]


def test_a_hostile_range_of_ids_is_refused(tmp_path):
    shard = Shard(0, 1, 0, 2**31, {"img_emb": File("img_emb/img_emb_000000.npy", 1, "00")})
    with pytest.raises(CollectionDamaged, match="1 rows and the ids 0 to 2147483648"):
        SqliteMetadata(tmp_path, Manifest(MODEL, 2, shards=(shard,), next_id=2**31 + 1))


def test_texts_that_are_not_utf8_are_named(tmp_path):
    bad = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    tables = Tables(tmp_path)
    with pytest.raises(CollectionDamaged, match=r"metadata_000000\.parquet"):
        tables.add([("text", bad)]).open()
    table = pa.table({"text": bad})
    with pytest.raises(CollectionDamaged, match=r"column 'text'"):
        cache.read_column(tmp_path, tables.shards[0], table, "text")


def test_bytes_in_a_filter_are_no_text(tmp_path):
    with opened(tmp_path, {"data": pa.array([b"\x80", b"a"])}) as store:
        assert selected(store, "data != x'80'") == [1]


def test_dictionaries_extensions_and_runs_are_their_values():
    texts = pa.array(["a", None, "a"])
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([1, 3], pa.int32()), pa.array([5, 6]))
    assert read(pa.chunked_array([texts.dictionary_encode()])).shown == ["a", None, "a"]
    assert read(pa.chunked_array([runs])).shown == [5, 6, 6]
    uuid = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))
    assert read(pa.chunked_array([uuid])).shown == [b"0" * 16]


# Random tables against an oracle in Python.

NAMES = ["a", "A", "year", "Year", "rowid", "select", "x y", "é"]
SECONDS = st.integers(0, 2_000_000_000)


def arrays(type_, values):
    return st.lists(st.none() | values, min_size=1, max_size=4).map(lambda v: pa.array(v, type_))


def from_numbers(type_, values):
    """Of a type that Python's values cannot make: by the integers below it."""
    return st.lists(st.none() | values, min_size=1, max_size=4).map(lambda v: pa.array(v, pa.int64()).cast(type_))


TEXTS = st.sampled_from(["", "a", "B", "7", "007", "-3", "1.5", "1e3", "zz%", "\0", "é"]) | st.text(max_size=4)
COLUMNS = st.one_of(
    arrays(pa.int64(), st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9)),
    arrays(pa.uint64(), st.integers(0, 2**64 - 1)),
    arrays(pa.float64(), st.floats()),
    arrays(pa.float32(), st.floats(width=32)),
    arrays(pa.float16(), st.floats(width=16)),
    arrays(pa.bool_(), st.booleans()),
    arrays(pa.string(), TEXTS),
    arrays(pa.binary(), st.binary(max_size=3)),
    arrays(pa.decimal128(30, 3), st.integers(-(10**25), 10**25).map(lambda n: Decimal(n).scaleb(-3))),
    arrays(pa.date32(), st.dates()),
    from_numbers(pa.timestamp("s"), SECONDS),
    from_numbers(pa.timestamp("ns", "Asia/Tokyo"), SECONDS.map(lambda s: s * 500_000_001)),
    from_numbers(pa.duration("ms"), st.integers(-(10**6), 10**6)),
    arrays(pa.list_(pa.float64()), st.lists(st.floats(), max_size=2)),
    arrays(pa.string(), TEXTS).map(lambda column: column.dictionary_encode()),
    st.integers(1, 3).map(pa.nulls),
)


@st.composite
def shards(draw):
    made = []
    for _ in range(draw(st.integers(1, 3))):
        names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True))
        columns = [draw(COLUMNS) for _ in names]
        rows = min(map(len, columns))
        made.append([(name, column.slice(0, rows)) for name, column in zip(names, columns, strict=True)])
    return made


def shown(column):
    """What `get` gives back of a column, by Python's own means."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return [
            None if v is None else instant(v, datetime.timedelta(hours=9)) for v in column.cast(pa.int64()).to_pylist()
        ]
    return [plain(value) for value in column.to_pylist()]


def instant(nanoseconds, offset):
    seconds, rest = divmod(nanoseconds, 10**9)
    at = datetime.datetime.fromtimestamp(seconds, datetime.timezone(offset)).isoformat()
    if not rest:
        return at
    digits = f"{rest:09}" if rest % 1000 else f"{rest // 1000:06}"
    return f"{at[:19]}.{digits}{at[19:]}"


def plain(value):
    if isinstance(value, list):
        return [plain(v) for v in value]
    if isinstance(value, float | np.floating):
        return None if math.isnan(value) else float(value)
    if isinstance(value, datetime.timedelta):
        seconds = value / datetime.timedelta(seconds=1)
        return int(seconds) if seconds.is_integer() else seconds
    if isinstance(value, Decimal):
        return str(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def compared(column):
    """The values of a column as a filter compares them: (class, value), with numbers before texts before bytes."""
    numeric = pa.types.is_decimal(column.type)
    zoned = pa.types.is_timestamp(column.type) and column.type.tz
    result: list[tuple[int, Any] | None] = []
    for number, value in enumerate(shown(column)):
        if value is None:
            result.append(None)
        elif numeric:
            result.append((0, float(value)))
        elif zoned:
            result.append((1, instant(column.cast(pa.int64())[number].as_py(), datetime.timedelta(0))))
        elif isinstance(value, bytes):
            result.append((2, value))
        elif isinstance(value, str):
            result.append((1, value))
        elif isinstance(value, list):
            result.append((1, None))
        else:
            result.append((0, float(value) if isinstance(value, int) and value >= 2**63 else value))
    return result


LITERALS = st.one_of(
    st.integers(-9, 9).map(lambda n: ((0, n), str(n))),
    st.floats(-1e6, 1e6).map(lambda x: ((0, x), repr(x))),
    st.sampled_from(["a", "b", "2001-09-09", "zz", "B"]).map(lambda t: ((1, t), f"'{t}'")),
    st.binary(max_size=2).map(lambda b: ((2, b), f"x'{b.hex()}'")),
)
COMPARISONS = {"=": operator.eq, "<": operator.lt, ">": operator.gt, "!=": operator.ne, "<=": operator.le}


def expected(values, literal, compare, texts):
    """Rows for which the comparison holds. `texts`: the column has texts alone, and a number is compared as one."""
    if texts and literal[0] == 0:
        return None
    rows = []
    for row, value in values:
        if value is None:
            continue
        if value[0] == 1:
            value = (1, value[1].encode())
        other = (1, literal[1].encode()) if literal[0] == 1 else literal
        if compare(value, other):
            rows.append(row)
    return rows


def check(folder, made, data):
    tables = Tables(folder)
    for columns in made:
        tables.add(columns)
    names = list(dict.fromkeys(name for columns in made for name, _ in columns))
    with tables.open() as store:
        got, bulk = store.get(range(tables.rows)), store._bulk(list(range(tables.rows)))
        for name in names:
            values: list[Any] = []
            seen: list[Any] = []
            kinds: set[str] = set()
            for columns in made:
                count = len(columns[0][1])
                column = dict(columns).get(name)
                if column is not None and pa.types.is_dictionary(column.type):
                    column = column.dictionary_decode()
                values += [None] * count if column is None else compared(column)
                seen += [None] * count if column is None else shown(column)
                kinds |= set() if column is None else {kind_of(column.type)} - {""}
            assert [row[name] for row in got] == seen
            assert [row[name] for row in bulk] == seen
            assert [type(row[name]) for row in got] == [type(value) for value in seen]
            quoted = f'"{name}"'
            assert selected(store, f"{quoted} is null") == [row for row, value in enumerate(values) if value is None]
            texts = {"text", "time", "json"} & kinds
            if "json" in kinds or (texts and kinds - texts - {"blob"}):
                continue  # which texts are numbers has its own tests
            (literal, sql), sign = data.draw(LITERALS), data.draw(st.sampled_from(sorted(COMPARISONS)))
            rows = expected(list(enumerate(values)), literal, COMPARISONS[sign], bool(texts))
            if rows is not None:
                assert selected(store, f"{quoted} {sign} {sql}") == rows, (name, sign, sql)
                assert selected(store, f"{quoted} between {sql} and {sql}") == expected(
                    list(enumerate(values)), literal, operator.eq, bool(texts)
                )
            if kinds <= {"text"}:
                begin = [row for row, value in enumerate(values) if value is not None and value[1][:1] in ("a", "A")]
                assert selected(store, f"{quoted} like 'a%'") == begin


QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large]


@given(made=shards(), data=st.data())
@settings(max_examples=4, deadline=None, suppress_health_check=QUIET)
def test_filters_select_what_python_selects(tmp_path_factory, made, data):
    check(tmp_path_factory.mktemp("some"), made, data)


@pytest.mark.slow
@given(made=shards(), data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
def test_many_filters_select_what_python_selects(tmp_path_factory, made, data):
    check(tmp_path_factory.mktemp("many"), made, data)
