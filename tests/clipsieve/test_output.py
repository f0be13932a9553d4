import csv
import io
import json
import math

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from clipsieve.errors import InputError
from clipsieve.output import COLUMNS, choose_format, print_table, to_csv, to_json, to_jsonl, write_parquet
from clipsieve.types import Example, Hit, QueryResult

AWKWARD = 'holiday, "2024"/[bold]bus[/bold] = 1.jpg'
BUS, TRUCK = Example(text="red bus"), Example(image="ab" * 32)
RESULT = QueryResult(
    (Hit(2**60, AWKWARD, 0.31, 0.05, BUS, TRUCK), Hit(4, "b.jpg", 0.25, math.inf, BUS)),
    "complete",
    recall=0.97,
    timings_ms={"search": 1.5},
)
NAMES = {TRUCK.image: "truck.jpg"}


def table(result):
    text = io.StringIO()
    print_table(Console(file=text, width=200), result, NAMES)
    return text.getvalue()


def test_the_table_shows_rank_score_margin_reason_and_key_and_below_it_the_claim():
    lines = table(RESULT).splitlines()
    assert lines[1].split() == f"1 0.310 +0.050 looks like: red bus; nearest not: truck.jpg {AWKWARD}".split()
    assert lines[2].split() == ["2", "0.250", "looks", "like:", "red", "bus", "b.jpg"]
    assert lines[3] == "2 hits; complete within what the index can find (measured recall 0.970); search 1.5 ms"


def test_no_hits_are_said_in_words():
    assert table(QueryResult((), "exact")).startswith("Nothing in the collection matches.\n0 hits; exact")


def test_json_has_ids_as_strings_and_no_infinity():
    value = json.loads(json.dumps(to_json(RESULT, NAMES), allow_nan=False))
    assert (value["claim"], value["recall"], value["timings_ms"]) == ("complete", 0.97, {"search": 1.5})
    first, second = value["hits"]
    assert tuple(first) == COLUMNS
    assert (first["id"], first["key"], first["negative"]) == (str(2**60), AWKWARD, "truck.jpg")
    assert (second["margin"], second["negative"]) == (None, None)
    assert [json.loads(line) for line in to_jsonl(RESULT, NAMES).splitlines()] == [first, second]


def test_csv_reads_back():
    first, second = csv.DictReader(io.StringIO(to_csv(RESULT, NAMES)))
    assert first["key"] == AWKWARD
    assert (first["id"], second["margin"]) == (str(2**60), "")


def test_parquet_reads_back(tmp_path):
    write_parquet(tmp_path / "hits.parquet", RESULT, NAMES)
    read = pq.read_table(tmp_path / "hits.parquet")
    assert tuple(read.column_names) == COLUMNS
    assert read["id"].to_pylist() == [2**60, 4]
    assert read["margin"].to_pylist()[1] is None
    assert read.schema.metadata[b"claim"] == b"complete"


def test_the_format_is_what_was_asked_for_else_what_the_suffix_says(tmp_path):
    assert choose_format(None, None) == "table"
    assert choose_format("jsonl", None) == "jsonl"
    assert choose_format(None, tmp_path / "x.HTML") == "html"
    assert choose_format("csv", tmp_path / "x.txt") == "csv"
    with pytest.raises(InputError, match="give --format"):
        choose_format(None, tmp_path / "hits")
    with pytest.raises(InputError, match=r"--out FILE\.parquet"):
        choose_format("parquet", None)
    with pytest.raises(InputError, match="choose one of table, jsonl"):
        choose_format("xml", None)
