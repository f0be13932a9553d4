"""Captions that are no strings, fields that are long, members of tars with dots."""

import datetime
import decimal
import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.captions import caption_text
from clipsieve.inference.add import add_to_collection
from clipsieve.inference.fake import FakeEmbedder
from clipsieve.inference.lists import read_rows
from clipsieve.inference.paths import expand
from clipsieve.inference.reader import open_source
from clipsieve.inference.run import embed_collection
from clipsieve.manifest import read_manifest
from clipsieve.shards import read_metadata
from tests.inference.pictures import jpeg


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1984, ("1984", True)),
        (1984.0, ("1984", True)),
        (True, ("true", True)),
        (float("nan"), (None, True)),
        (b"caf\xc3\xa9", ("café", True)),
        (b"\xff", (None, False)),
        (["a dot", "x"], ("a dot", False)),
        (["one"], ("one", True)),
        ({"en": "x"}, (None, False)),
        (" ", (None, True)),
    ],
)
def test_what_a_field_says_as_a_caption(value, expected):
    assert caption_text(value) == expected


def test_captions_of_tables_are_kept_as_text_or_in_the_metadata(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"image": [jpeg(0)], "captions": [["a", "b"]], "title": [1984]}), path)
    (item,) = open_source(path, caption_column="captions").items()
    assert (item.caption, item.meta) == ("a", {"captions": ["a", "b"], "title": 1984})
    assert next(iter(open_source(path, caption_column="title").items())).caption == "1984"


def test_a_long_field_costs_nothing_and_captions_stay_as_written(tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(f"url,caption\na,{'x' * 200_000}\nb,007\nc,1.50\n")
    rows = list(read_rows("l", expand(path)[0], 0, lambda _, fields: fields["caption"]))
    assert [len(rows[0]), *rows[1:]] == [200_000, "007", "1.50"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["22.05.jpg", "22.05.txt", "22.05.json"], [("22", "22.05.txt", 1)]),
        (["s1.input.jpg", "s1.outputs.txt"], [("s1", "s1.outputs.txt", None)]),
        (
            ["2022.A.jpg", "2022.b.jpg", "2022.A.txt", "2022.b.txt"],
            [("2022.A", "2022.A.txt", None), ("2022.b", "2022.b.txt", None)],
        ),
        (["v.1.jpg", "o.jpg", "v.2.jpg"], [("v", None, None), ("o", None, None), ("v.2", None, None)]),
    ],
)
def test_members_with_dots_keep_captions_and_metadata(tmp_path, names, expected):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in names:
            data = jpeg(0) if name.endswith("jpg") else b'{"x": 1}' if name.endswith("json") else name.encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    items = list(open_source(tmp_path / "x.tar").items())
    assert [(item.key.removeprefix("x.tar/"), item.caption, item.meta.get("x")) for item in items] == expected


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_a_column_of_captions_is_found_however_its_texts_are_stored(tmp_path, kind):
    captions = pa.array(["a bus", "größer"]).cast(kind)
    pq.write_table(pa.table({"caption": captions, "image": [jpeg(1), jpeg(2)]}), tmp_path / "t.parquet")
    assert [item.caption for item in open_source(tmp_path / "t.parquet").items()] == ["a bus", "größer"]


@pytest.mark.parametrize(
    ("values", "captions", "no_text"),
    [
        ([1984, 300], ["1984", "300"], 0),
        ([1.5, float("nan")], ["1.5", None], 0),
        ([True, False], ["true", "false"], 0),
        ([b"a bus", b"\xff\xfe"], ["a bus", None], 1),
        ([["a", "b"], []], ["a", None], 0),
        ([{"en": "a"}, None], [None, None], 1),
        ([decimal.Decimal("1.50"), None], ["1.50", None], 0),
        ([datetime.date(2026, 1, 2), None], ["2026-01-02", None], 0),
        ([[["p", "q"]], [["x"]]], ["p", "x"], 0),
    ],
    ids=str,
)
def test_captions_of_any_type_are_texts_or_counted(tmp_path, values, captions, no_text):
    table = pa.table({"image": [jpeg(0), jpeg(1)], "caption": values, "blob": [b"x", b"y"]})
    pq.write_table(table, tmp_path / "t.parquet")
    done = embed_collection(open_source(tmp_path / "t.parquet"), FakeEmbedder(), tmp_path / "c")
    assert (done.captions_no_text, done.left_out) == (no_text, {"blob": 1})
    rows = read_metadata(tmp_path / "c", read_manifest(tmp_path / "c").shards[0]).to_pylist()
    assert [row["caption"] for row in rows] == captions
    assert sum(row.get("caption_error") is not None for row in rows) == no_text
    pq.write_table(table.set_column(0, "image", [pa.array([jpeg(2), jpeg(3)])]), tmp_path / "u.parquet")
    added = add_to_collection(open_source(tmp_path / "u.parquet"), lambda _: FakeEmbedder(), tmp_path / "c")
    assert (added.captions_no_text, added.left_out) == (no_text, {"blob": 1})


def test_two_columns_of_one_name_are_both_kept(tmp_path):
    table = pa.table([[jpeg(0)], [1], [2]], names=["image", "a", "a"])
    pq.write_table(table, tmp_path / "t.parquet")
    (item,) = open_source(tmp_path / "t.parquet").items()
    assert item.meta == {"a": 1, "a_2": 2}
    pq.write_table(pa.table([["http://x/0"], [1], [2]], names=["url", "a", "a"]), tmp_path / "l.parquet")
    (row,) = read_rows("l", expand(tmp_path / "l.parquet")[0], 0, lambda _, fields: fields)
    assert row == {"url": "http://x/0", "a": 1, "a_2": 2}
