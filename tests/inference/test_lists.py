import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError
from clipsieve.inference.lists import columns_of, count_rows, read_rows
from clipsieve.inference.paths import expand
from clipsieve.types import Skipped

ROWS: list[dict[str, Any]] = [
    {"url": "http://x/0.jpg", "caption": "a, b", "width": 7, "ratio": 0.5},
    {"url": "http://x/1.jpg", "caption": 'two\nlines, "quoted"', "width": -8, "ratio": None},
    {"url": "http://x/2.jpg", "caption": None, "width": 10**12, "ratio": 1.25},
]
CSV = (
    "url,caption,width,ratio\n"
    'http://x/0.jpg,"a, b",7,0.5\n\n'
    'http://x/1.jpg,"two\nlines, ""quoted""",-8,\n'
    f"http://x/2.jpg,,{10**12},1.25\n"
)


def rows(path, start=0):
    """The rows as (name, fields) or Skipped, and how many there are in all."""
    (place,) = expand(path)
    reading = read_rows("l", place, start, lambda name, fields: (name, dict(fields)))
    found = []
    while True:
        try:
            found.append(next(reading))
        except StopIteration as end:
            return found, end.value


@pytest.fixture(params=["parquet", "csv", "csv.gz", "tsv", "json", "jsonl", "jsonl.gz"])
def path(request, tmp_path):
    path, kind = tmp_path / f"list.{request.param}", request.param.removesuffix(".gz")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=2)
        return path
    text = {
        "csv": "\ufeff" + CSV,
        "tsv": CSV.replace(",", "\t").replace("a\t b", "a, b").replace("lines\t", "lines,"),
        "json": json.dumps(ROWS, indent=1),
        "jsonl": "".join(json.dumps(row) + "\n" for row in ROWS) + "\n",
    }[kind]
    with gzip.open(path, "wb") if path.suffix == ".gz" else path.open("wb") as file:
        file.write(text.encode())
    return path


def test_every_format_says_the_same(path):
    (place,) = expand(path)
    assert columns_of(place) == list(ROWS[0])
    assert count_rows(place) == 3
    for start in range(5):
        assert rows(path, start) == ([(f"l#{i}", row) for i, row in enumerate(ROWS)][start:], 3)


def test_a_text_file_holds_a_url_on_each_line(tmp_path):
    path = tmp_path / "l.txt"
    path.write_bytes(b"http://x/0\r\n\r\n  http://x/1  \nhttp://x/\xff")
    assert rows(path)[0] == [
        ("l#0", {"url": "http://x/0"}),
        ("l#1", {"url": "http://x/1"}),
        ("l#2", {"url": "http://x/ÿ"}),
    ]
    assert count_rows(expand(path)[0]) == 3


@pytest.mark.parametrize("text", ["007", "1e5", "+1", "0x10", "1_000", "nan", "inf", "1.", "--1", "9" * 30])
def test_what_may_be_a_code_stays_text(tmp_path, text):
    path = tmp_path / "l.csv"
    path.write_text(f"url,code\nhttp://x/0,{text}\n")
    assert rows(path)[0][0][1]["code"] == text


def test_rows_that_say_nothing_are_skipped_and_counted(tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"url": "a"}\n[1]\n{"url": \n"b"\n{"url": "c"}\n')
    found, count = rows(path)
    assert count == count_rows(expand(path)[0]) == 5
    assert [type(row) is Skipped for row in found] == [False, True, True, True, False]
    path = tmp_path / "l.csv"
    path.write_text("url,caption\na,one, two\nb\nc,three\n")
    found, count = rows(path)
    assert found[0].key == "l#0"
    assert "3 fields for 2 columns" in found[0].reason
    assert found[1:] == [("l#1", {"url": "b"}), ("l#2", {"url": "c", "caption": "three"})]


def test_rows_before_damage_are_not_lost_to_an_open_quote(tmp_path):
    lines = ["url,caption", f'{A},"open, x', *(f"http://x/{i * 7919},c" for i in range(5000))]
    whole = gzip.compress("\n".join(lines).encode())
    (tmp_path / "l.csv.gz").write_bytes(whole[: len(whole) // 2])
    found, _ = rows(tmp_path / "l.csv.gz")
    assert sum(type(row) is tuple for row in found) > 100


def test_damage_costs_what_comes_after_it_and_the_numbers_stay_right(tmp_path):
    whole = gzip.compress("\n".join(["url", *(f"http://x/{i * 7919}" for i in range(5000))]).encode())
    path = tmp_path / "l.csv.gz"
    path.write_bytes(whole[: len(whole) // 2])
    found, count = rows(path)
    assert 100 < len(found) == count < 5000
    assert isinstance(found[-1], Skipped)
    assert f"past its row {count - 1}" in found[-1].reason
    assert rows(path, count - 1) == (found[-1:], count)
    assert rows(path, count) == ([], count)


def test_a_damaged_row_group_costs_its_rows_alone(tmp_path):
    path = tmp_path / "l.parquet"
    table = pa.table({"url": [f"http://x/{i}" for i in range(30)]})
    pq.write_table(table, path, row_group_size=10, compression="none", use_dictionary=False)
    data = bytearray(path.read_bytes())
    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data[column.data_page_offset : column.data_page_offset + 40] = b"\xff" * 40
    path.write_bytes(data)
    found, count = rows(path)
    assert (len(found), count) == (30, 30)
    assert [type(row) is Skipped for row in found] == [False] * 10 + [True] * 10 + [False] * 10


def test_columns_of_bytes_are_left_out(tmp_path):
    path = tmp_path / "l.parquet"
    pq.write_table(pa.table({"url": ["a"], "hash": [b"x"]}), path)
    assert rows(path)[0] == [("l#0", {"url": "a"})]


def test_what_is_no_list_is_said(tmp_path):
    (tmp_path / "l.json").write_text("[{")
    with pytest.raises(InputError, match=r"l\.json' is no JSON .*mend it"):
        rows(tmp_path / "l.json")
    (tmp_path / "l.docx").write_text("")
    with pytest.raises(InputError, match="no list by its name"):
        rows(tmp_path / "l.docx")
    (tmp_path / "l.csv").write_text("")
    assert columns_of(expand(tmp_path / "l.csv")[0]) == []
    assert rows(tmp_path / "l.csv") == ([], 0)


A, B = "http://x/a.jpg", "http://x/b.jpg"
ROW_A, ROW_B = {"url": A, "n": 1}, {"url": B, "n": 2}
LINES = f"url,n\n{A},1\n{B},2\n"
JSONL = "".join(json.dumps(row) + "\n" for row in (ROW_A, ROW_B))
CONTENTS = {
    "JSON lines in a .csv": ("l.csv", JSONL.encode()),
    "an array in a .jsonl": ("l.jsonl", json.dumps([ROW_A, ROW_B], indent=1).encode()),
    "a table in a .json": ("l.json", LINES.encode()),
    "a table in a .txt": ("l.txt", LINES.encode()),
    "tabs in a .txt": ("l.txt", LINES.replace(",", "\t").encode()),
    "gzip without its suffix": ("l.csv", gzip.compress(LINES.encode())),
    "a suffix without gzip": ("l.csv.gz", LINES.encode()),
    "UTF-16": ("l.csv", LINES.encode("utf-16")),
    "UTF-16 without a mark": ("l.csv", LINES.encode("utf-16-le")),
    "an array in an object": ("l.json", json.dumps({"version": 1, "data": [ROW_A, ROW_B]}, indent=1).encode()),
    "the same on one line": ("l.json", json.dumps({"version": 1, "data": [ROW_A, ROW_B]}).encode()),
    "an array deeper down": ("l.json", json.dumps({"a": {"b": [ROW_A, ROW_B]}, "c": 1}).encode()),
    "objects over several lines": ("l.json", "\n".join(json.dumps(r, indent=1) for r in (ROW_A, ROW_B)).encode()),
    "pandas' columns": ("l.json", json.dumps({"url": {"0": A, "1": B}, "n": {"0": 1, "1": 2}}).encode()),
    "pandas' index": ("l.json", json.dumps({"0": ROW_A, "1": ROW_B}, indent=1).encode()),
    "pandas' split": ("l.json", json.dumps({"columns": ["url", "n"], "data": [[A, 1], [B, 2]]}).encode()),
    "arrays as columns": ("l.json", json.dumps({"url": [A, B], "n": [1, 2]}).encode()),
}


@pytest.mark.parametrize("case", CONTENTS)
def test_a_list_is_what_it_holds_whatever_its_name(case, tmp_path):
    name, data = CONTENTS[case]
    (tmp_path / name).write_bytes(data)
    (place,) = expand(tmp_path / name)
    assert (columns_of(place), count_rows(place)) == (["url", "n"], 2)
    assert [row for _, row in rows(tmp_path / name)[0]] == [ROW_A, ROW_B]


def test_parquet_without_its_suffix(tmp_path):
    pq.write_table(pa.Table.from_pylist([ROW_A, ROW_B]), tmp_path / "l.csv")
    assert [row for _, row in rows(tmp_path / "l.csv")[0]] == [ROW_A, ROW_B]


def test_one_object_is_one_row(tmp_path):
    (tmp_path / "l.json").write_text(json.dumps({**ROW_A, "tags": ["x", "y"]}, indent=1))
    assert rows(tmp_path / "l.json")[0] == [("l#0", {**ROW_A, "tags": ["x", "y"]})]


def test_letters_of_old_tables(tmp_path):
    (tmp_path / "l.csv").write_bytes(f"url,caption\n{A},caf\xe9\n{B},".encode("latin-1") + "straße\n".encode())
    assert [row["caption"] for _, row in rows(tmp_path / "l.csv")[0]] == ["café", "straße"]


def test_a_damaged_line_of_json_costs_itself(tmp_path):
    (tmp_path / "l.jsonl").write_text('{"url": "a"\n{"url": "b"}\n{"url": "c"}\n')
    found, count = rows(tmp_path / "l.jsonl")
    assert [type(row) is Skipped for row in found] == [True, False, False]
    assert count == 3
    assert columns_of(expand(tmp_path / "l.jsonl")[0]) == ["url"]


def test_a_damaged_entry_of_an_array_costs_itself(tmp_path):
    (tmp_path / "l.json").write_text('[{"url": "a"}, {"url": b}, {"url": "c"},\n {"url": "d"')
    found, count = rows(tmp_path / "l.json")
    assert [type(row) is Skipped for row in found] == [False, True, False, True]
    assert "no JSON past its row 2" in found[3].reason
    assert count == 4


def test_an_array_of_urls(tmp_path):
    (tmp_path / "l.json").write_text(json.dumps([A, "no address", B]))
    found, _ = rows(tmp_path / "l.json")
    assert (found[0], found[2]) == (("l#0", {"url": A}), ("l#2", {"url": B}))
    assert "no JSON object" in found[1].reason


def test_a_row_may_hold_objects(tmp_path):
    (tmp_path / "l.json").write_text(json.dumps({"url": A, "boxes": [{"x": 1}]}))
    assert rows(tmp_path / "l.json")[0] == [("l#0", {"url": A, "boxes": [{"x": 1}]})]


def test_the_images_of_coco_are_the_rows(tmp_path):
    images = [{"id": 1, "coco_url": A}, {"id": 2, "coco_url": B}]
    (tmp_path / "l.json").write_text(json.dumps({"images": images, "annotations": [{"id": 1}], "info": {}}))
    assert [row for _, row in rows(tmp_path / "l.json")[0]] == images
