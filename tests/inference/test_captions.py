"""Captions that are no strings, fields that are long, members of tars with dots."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.captions import caption_text
from clipsieve.inference.lists import read_rows
from clipsieve.inference.paths import expand
from clipsieve.inference.reader import open_source
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
