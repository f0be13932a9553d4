import csv

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clipsieve.errors import InputError
from clipsieve.grading import grade
from clipsieve.labels import read_only, short_path, tables, truth_of, write_directai, write_table

SCHEMA = pa.schema([("id", pa.int64()), ("key", pa.string()), ("label", pa.string())])
KEYS = ["cat/a.jpg", "cat/b.jpg", "Big_Dog/c.jpg", "owl/d.jpg", "e.jpg"]
GIVEN = ["cat", "big dog", "big dog", "cat", None]


def rows(ids):
    return [{"id": i, "key": KEYS[i], "image_path": None, "kind": None if i == 4 else KEYS[i][:3]} for i in ids]


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for number, ids in enumerate(([0, 1], [2, 3, 4])):
        columns = [ids, [KEYS[i] for i in ids], [GIVEN[i] for i in ids]]
        pq.write_table(pa.table(columns, schema=SCHEMA), folder / f"labels_{number:06d}.parquet")
    return folder


@pytest.mark.parametrize(
    ("path", "short"),
    [("/d/cat/a.b.jpg", "cat/a.b"), ("a.jpg", "a"), ("/a.jpg", "a"), ("x\\cat\\a.jpg", "cat/a"), ("cat/a", "cat/a")],
)
def test_short_paths_are_directais_without_its_fault_at_the_first_dot(path, short):
    assert short_path(path) == short


def test_only_some(parts, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("cat/b\n\n e.jpg \n")
    found = [key for table, _ in tables(parts, rows, read_only(listed)) for key in table["key"].to_pylist()]
    assert found == ["cat/b.jpg", "e.jpg"]
    listed.write_text("\n")
    with pytest.raises(InputError, match="names no image"):
        read_only(listed)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_all_parts_become_one_file(parts, tmp_path, kind):
    out = tmp_path / "out"
    write_table((table for table, _ in tables(parts, rows)), SCHEMA, out, kind)
    if kind == "parquet":
        assert pq.read_table(out)["label"].to_pylist() == GIVEN
    else:
        with out.open(newline="") as file:
            assert [line[2] for line in csv.reader(file)] == ["label", "cat", "big dog", "big dog", "cat", ""]


def test_directais_csv_is_quoted(tmp_path):
    write_directai(iter([(["/d/a, b/c.jpg"], ["x"], None)]), tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_text().splitlines() == ["path,pred", '"a, b/c",x']
    write_directai(iter([(["c.jpg"], ["x"], ["y"]), (["d.jpg"], [None], ["y"])]), tmp_path / "b.csv")
    lines = (tmp_path / "b.csv").read_text().splitlines()
    assert lines == ["path,label,pred,is_correct", "c,y,x,0.0", "d,y,,0.0"]
    write_directai(iter([]), tmp_path / "c.csv")
    assert (tmp_path / "c.csv").read_text().splitlines() == ["path,pred"]


def test_the_truth_is_a_folder_or_a_column():
    assert truth_of(rows(range(5)), "folder", ["cat", "big dog"]) == [
        ("cat", 0),
        ("cat", 0),
        ("Big_Dog", 1),
        ("owl", -1),
        (None, -1),
    ]
    assert truth_of(rows([0, 4]), "kind", ["cat"]) == [("cat", 0), (None, -1)]
    with pytest.raises(InputError, match="no column 'sort' to take the truth from; there are id, key"):
        truth_of(rows([0]), "sort", ["cat"])


def test_a_grade_counts_what_is_right_and_leaves_out_what_it_cannot_know(parts):
    graded = grade(parts, rows, ("cat", "big dog"), "folder")
    assert graded.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    assert (graded.images, graded.unknown, graded.others) == (3, 1, {"owl": 1})
    assert graded.accuracy == pytest.approx(2 / 3)
    value = graded.to_json()
    assert value["per_class"]["cat"]["recall"] == 0.5
    assert np.array(value["confusion"]["rows"]).sum() == 4
    text = graded.to_text()
    for words in ("accuracy 0.6667 of 3 images", "big dog", "not graded: owl", "Of 1 images the truth is not known"):
        assert words in text
    assert graded.to_png().startswith(b"\x89PNG")


def test_no_truth_at_all_is_an_error(parts):
    with pytest.raises(InputError, match="No image lies in a folder called after one of the classes bird but cat"):
        grade(parts, rows, ("bird",), "folder")
