"""Tars, captions and tables that lose something, and cells that a spreadsheet computes."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.hostile.attack import Attacks
from benchmarks.hostile.lab import Lab, clipsieve, jpeg, require, rows, skipped

ATTACKS = Attacks()
RED, BLUE = jpeg("red"), jpeg("blue")

SAMPLES: dict[str, tuple[str, dict[str, bytes], list[tuple[str, Any]]]] = {
    "a date": ("t.tar", {"22.05.jpg": RED, "22.05.txt": b"a cap", "22.05.json": b'{"x": 1}'}, [("a cap", 1)]),
    "a date, gzipped": (
        "t.tar.gz",
        {"22.05.jpg": RED, "22.05.txt": b"a cap", "22.05.json": b'{"x": 1}'},
        [("a cap", 1)],
    ),
    "input and outputs": ("t.tar", {"s1.input.jpg": RED, "s1.outputs.txt": b"a cap"}, [("a cap", None)]),
    "two of one stem": (
        "t.tar",
        {"a.1.jpg": RED, "a.1.txt": b"one", "a.2.jpg": BLUE, "a.2.txt": b"two", "a.2.json": b'{"x": 2}'},
        [("one", None), ("two", 2)],
    ),
    "two dates, sorted by kind": (
        "t.tar",
        {"1.5.jpg": RED, "1.6.jpg": BLUE, "1.5.txt": b"one", "1.6.txt": b"two"},
        [("one", None), ("two", None)],
    ),
    "a number": ("t.tar", {"a.jpg": RED, "a.json": b'{"x": 1, "caption": "from json"}'}, [("from json", 1)]),
}


@ATTACKS.add(4, SAMPLES)
def members_with_dots_keep_caption_and_metadata(lab: Lab, folder: Path, given: Any) -> str:
    name, members, wanted = given
    _tar(folder / name, members)
    done = clipsieve("inference", name, "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)
    found = [(row["caption"], row.get("x")) for row in rows(folder / "c.clip")]
    require(sorted(found, key=str) == sorted(wanted, key=str), f"captions and x are {found}")
    return str(found)


CAPTIONS: dict[str, tuple[Any, str]] = {
    "numbers": ([1984, 300], "1984"),
    "lists": ([["a red dot", "x"], ["y"]], "a red dot"),
    "bytes": ([b"a red dot", b"y"], "a red dot"),
    "decimals": ([0.25, float("nan")], "0.25"),
    "switches": ([True, False], "true"),
    "structs": ([{"en": "a red dot"}, {"en": "y"}], "a red dot"),
}


@ATTACKS.add(5, CAPTIONS)
def captions_of_a_table_that_are_no_texts(lab: Lab, folder: Path, given: tuple[Any, str]) -> str:
    values, wanted = given
    pq.write_table(pa.table({"image": [RED, BLUE], "title": values}), folder / "t.parquet")
    done = clipsieve("inference", "t.parquet", "c.clip", "--model", "mini", "--caption-column", "title", cwd=folder)
    require(done.code == 0, done.said)
    return _kept(folder / "c.clip", wanted)


@ATTACKS.add(5, {"a number": 1984, "a list": ["a red dot"], "an object": {"en": "a red dot"}})
def captions_in_json_that_are_no_texts(lab: Lab, folder: Path, value: Any) -> str:
    _tar(folder / "t.tar", {"a.jpg": RED, "a.json": json.dumps({"caption": value}).encode()})
    done = clipsieve("inference", "t.tar", "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)
    return _kept(folder / "c.clip", "1984" if value == 1984 else "a red dot")


def _kept(collection: Path, wanted: str) -> str:
    row = rows(collection)[0]
    own = {k: v for k, v in row.items() if k not in ("id", "key", "image_path", "content_hash", "size", "mtime")}
    require(wanted in str(own).lower(), f"the row is {own}")
    return str(own)


LONG = "x" * 200_000
URL = "http://127.0.0.1:9/{}.jpg"  # refused without being asked, so that each row is listed
LISTS: dict[str, tuple[str, bytes]] = {
    "a long field": ("l.csv", f"url,caption\n{URL},{LONG}\n{URL},b\n{URL},c\n".encode()),
    "a long field in TSV": ("l.tsv", f"url\tcaption\n{URL}\t{LONG}\n{URL}\tb\n{URL}\tc\n".encode()),
    "semicolons": ("l.csv", f"url;caption\n{URL};a\n{URL};b\n{URL};c\n".encode()),
    "UTF-16": ("l.csv", f"url,caption\n{URL},a\n{URL},b\n{URL},c\n".encode("utf-16")),
    "lone carriage returns": ("l.csv", f"url,caption\r{URL},a\r{URL},b\r{URL},c\r".encode()),
    "a NUL": ("l.csv", f"url,caption\n{URL},a\0a\n{URL},b\n{URL},c\n".encode()),
    "a quote that is never closed": ("l.csv", f'url,caption\n{URL},"a\n{URL},b\n{URL},c\n'.encode()),
    "a row too many": ("l.csv", f"url,caption\n{URL},a,b,c\n{URL},b\n{URL},c\n".encode()),
    "a broken line of JSON": ("l.jsonl", f'{{"url": "{URL}"\n{{"url": "{URL}"}}\n{{"url": "{URL}"}}\n'.encode()),
    "JSON over several lines": ("l.json", json.dumps([{"url": URL}] * 3, indent=1).encode()),
    "one JSON object": ("l.json", json.dumps({"data": [{"url": URL}] * 3}).encode()),
}


@ATTACKS.add(6, LISTS)
def every_row_of_a_list_is_counted(lab: Lab, folder: Path, given: tuple[str, bytes]) -> str:
    name, data = given
    for i in range(3):
        data = (
            data.replace(b"{}", b"%d" % i, 1)
            if b"{}" in data
            else data.replace("{}".encode("utf-16-le"), f"{i}".encode("utf-16-le"), 1)
        )
    (folder / name).write_bytes(data)
    done = clipsieve(
        "inference", name, "c.clip", "--model", "mini", "--timeout", 1, "--retries", 0, "--format", "urls", cwd=folder
    )
    require("Traceback" not in done.err, done.err[-200:])
    listed = skipped(folder / "c.clip")
    if not listed and done.code not in (0, None):
        return done.refused()
    require(len(listed) >= 3, f"{len(listed)} of 3 rows are counted: {done.said[-150:]}")
    return f"{len(listed)} rows listed"


COLUMNS: dict[str, tuple[dict[str, Any], str, int]] = {
    "codes with zeros": ({"code": ["007", "7"]}, "code = '007'", 1),
    "names of two cases": ({"Year": [1, 2], "year": [3, 4]}, '"year" = 3 or "Year" = 1', 1),
    "texts that are numbers": ({"n": ["10", "9"]}, "n < '9'", 1),
    "large numbers": ({"n": [2**53 + 1, 2**53]}, f"n = {2**53 + 1}", 1),
    "unsigned beyond 63 bits": ({"n": pa.array([2**63 + 5, 1], pa.uint64())}, "n > 5", 1),
    "switches": ({"ok": [True, False]}, "ok = true", 1),
    "a name of SQL": ({"order": [1, 2], "rowid": [3, 4]}, '"order" = 1 and "rowid" = 3', 1),
    "our own names": ({"id": [100, 200], "width": [7, 8]}, '"meta.id" = 100 and "meta.width" = 7', 1),
    "dates": ({"d": pa.array([0, 86_400_000_000], pa.timestamp("us"))}, "d < '1970-01-02'", 1),
    "decimals": ({"d": pa.array([1, 2], pa.int64()).cast(pa.decimal128(21, 1))}, "d = 1", 1),
    "infinities": ({"d": [float("inf"), float("-inf")]}, "d > 1e308", 1),
}


@ATTACKS.add(6, COLUMNS)
def a_filter_compares_what_the_table_holds(lab: Lab, folder: Path, given: tuple[dict[str, Any], str, int]) -> str:
    columns, where, wanted = given
    pq.write_table(pa.table({"image": [RED, BLUE], **columns}), folder / "t.parquet")
    done = clipsieve("inference", "t.parquet", "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)
    found = clipsieve("search", "c.clip", "red", "--where", where, "--json", cwd=folder)
    require(found.code == 0, found.err[-250:])
    hits = [hit["id"] for hit in found.json["hits"]]
    require(hits == ["0"][:wanted], f"{where} finds {hits}")
    return where


@ATTACKS.add(6, {"images and URLs": "urls", "images and numbers": "numbers"})
def each_file_is_judged_by_itself(lab: Lab, folder: Path, other: str) -> str:
    (folder / "p").mkdir()
    pq.write_table(pa.table({"image": [RED, BLUE]}), folder / "p" / "b.parquet")
    columns = {"url": [URL]} if other == "urls" else {"n": [1]}
    pq.write_table(pa.table(columns), folder / "p" / "a.parquet")
    done = clipsieve("inference", "p", "c.clip", "--model", "mini", cwd=folder)
    found = rows(folder / "c.clip") if (folder / "c.clip" / "metadata").exists() else []
    require(len(found) == 2, f"{len(found)} of 2 images: {done.said[-200:]}")
    require("a.parquet" in done.said or skipped(folder / "c.clip"), f"nothing is said of a.parquet: {done.said[-200:]}")
    return done.said


FORMULAS = ("=cmd|'/C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1", "\uff1d1+1")


@ATTACKS.add(17, {"search": "search", "label": "label", "filter": "filter"})
def a_cell_is_no_formula(lab: Lab, folder: Path, command: str) -> str:
    _formulas(folder)
    written = _csv(folder, command)
    bad = [cell for row in csv.reader(io.StringIO(written)) for cell in row if _computes(cell)]
    require(not bad, f"cells begin like formulas: {bad}")
    return f"{len(written.splitlines())} lines"


@ATTACKS.add(17, {"search": "search", "label": "label"})
def raw_csv_is_exact(lab: Lab, folder: Path, command: str) -> str:
    _formulas(folder)
    written = _csv(folder, command, "--raw-csv")
    require("=1.jpg" in [cell for row in csv.reader(io.StringIO(written)) for cell in row], written[-300:])
    return "exact"


def _formulas(folder: Path) -> None:
    (folder / "p").mkdir()
    for i, formula in enumerate(FORMULAS):
        (folder / "p" / f"{'=+-@'[i % 4]}{i}.jpg").write_bytes(jpeg("red", (30 + i, 30)))
        (folder / "p" / f"{'=+-@'[i % 4]}{i}.txt").write_text(formula, newline="")
    (folder / "p" / "=1.jpg").write_bytes(BLUE)
    (folder / "set.json").write_text(json.dumps({"classes": [{"name": "=1+1", "positive": ["red"]}]}))
    done = clipsieve("inference", "p", "c.clip", "--model", "mini", cwd=folder)
    require(done.code == 0, done.said)


def _csv(folder: Path, command: str, *more: str) -> str:
    words: dict[str, list[str]] = {
        "search": ["search", "c.clip", "red", "--format", "csv", "--out", "o.csv"],
        "label": ["label", "c.clip", "--set", "set.json", "--out", "o.csv"],
        "filter": ["filter", "c.clip", "red", "-k", "99", "--as", "list", "--out", "o"],
    }
    done = clipsieve(*words[command], *more, cwd=folder)
    require(done.code == 0, done.said[-250:])
    found = [folder / "o.csv"] if command != "filter" else sorted((folder / "o").rglob("*.csv"))
    return "".join(path.read_bytes().decode() for path in found if path.exists())


def _computes(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell.lstrip(" ")[:1] in "=+-@\t\r\uff1d" and bool(cell.strip(" "))
    return False


def _tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as made:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
