"""Tables of every dialect give the rows that were written."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.inference import delimited
from clipsieve.inference.delimited import dialect_of, read_delimited, read_lines

A, B = "http://x/a.jpg", "http://x/b.jpg"
OPEN = "has a quote without its pair"


def read(text, usual=","):
    """A table's columns and rows."""
    parts = read_lines(io.StringIO(text, newline=""))
    head = next(parts, [])
    dialect = dialect_of(head, usual)
    return dialect.columns, list(read_delimited(iter([head, *parts]), dialect))


UC = ["url", "caption"]
DIALECTS: dict[str, tuple[str, list[str], list[Any]]] = {
    "commas": (f'url,caption\n{A},"one, two"\n{B},\n', UC, [[A, "one, two"], [B, ""]]),
    "semicolons": (f"url;caption\n{A};one, two\n{B};c\n", UC, [[A, "one, two"], [B, "c"]]),
    "bars": (f"url|caption\n{A}|one, two\n{B}|c\n", UC, [[A, "one, two"], [B, "c"]]),
    "tabs in a .csv": (f"url\tcaption\n{A}\tone, two\n{B}\tc\n", UC, [[A, "one, two"], [B, "c"]]),
    "a delimiter that is named": (f"sep=;\nurl;caption\n{A};c\n", UC, [[A, "c"]]),
    "semicolons in texts": (f"url,caption\n{A},x;y\n{B},z\n", UC, [[A, "x;y"], [B, "z"]]),
    "one column": (f"url\n{A}\n{B};c\n", ["url"], [[A], [B + ";c"]]),
    "lone carriage returns": (f"url,caption\r{A},c\r{B},d\r", UC, [[A, "c"], [B, "d"]]),
    "both line ends": (f"url,caption\r\n{A},c\n{B},d\r\n", UC, [[A, "c"], [B, "d"]]),
    "no last line end": (f"url,caption\n{A},c", UC, [[A, "c"]]),
    "blank lines": (f"\n\nurl,caption\n\n{A},c\n\n\n{B},d\n", UC, [[A, "c"], [B, "d"]]),
    "lines within texts": (f'url,caption\n{A},"one\n\ntwo"\n{B},d\n', UC, [[A, "one\n\ntwo"], [B, "d"]]),
    "a header over two lines": (f'url,"the\ncaption"\n{A},c\n', ["url", "the\ncaption"], [[A, "c"]]),
    "doubled quotes": (f'url,caption\n{A},"say ""hi"", x"\n', UC, [[A, 'say "hi", x']]),
    "quotes after a backslash": (f'url,caption\n{A},"say \\"hi\\", x"\n{B},c\n', UC, [[A, 'say "hi", x'], [B, "c"]]),
    "a backslash alone": (f"url,caption\n{A},C:\\new\n", UC, [[A, "C:\\new"]]),
    "a NUL": (f"url,caption\n{A},a\0b\n", UC, [[A, "a\0b"]]),
    "no header": (f"{A},c\n{B},d\n", ["url", "column_2"], [[A, "c"], [B, "d"]]),
    "no header, tabs": (f"a, b\t{A}\nc\t{B}\n", ["column_1", "url"], [["a, b", A], ["c", B]]),
    "URLs with delimiters, no header": ("http://x/a;1|2\nhttp://x/b;1|2\n", ["url"], [["http://x/a;1|2"], ["http://x/b;1|2"]]),
    "names twice and none": (f"url,a,a,\n{A},1,2,3\n", ["url", "a", "a_2", "column_4"], [[A, "1", "2", "3"]]),
    "a row too short": (f"url,caption\n{A}\n{B},d\n", UC, [[A], [B, "d"]]),
    "a row too long": (f"url,caption\n{A},one, two\n{B},d\n", UC, ["3 fields for 2 columns", [B, "d"]]),
    "a quote never closed": (f'url,caption\n{A},"c\n{B},d\n{B},e\n', UC, [[A, '"c'], [B, "d"], [B, "e"]]),
    "a quote never closed, a comma after it": (f'url,caption\n{A},"c, x\n{B},d\n', UC, [OPEN, [B, "d"]]),
    "a quote closed by the next text": (f'url,caption\n{A},"c, x\n{B},"d"\n{B},e\n', UC, [OPEN, [B, "d"], [B, "e"]]),
    "a quote that meets a later one": (f'url,caption\n{A},"c\n{B},d"\n{B},e\n', UC, [[A, '"c'], [B, 'd"'], [B, "e"]]),
    "a URL in a text": (f'url,caption\n{A},"see\n{B}"\n', UC, [[A, f"see\n{B}"]]),
    "a word in quotes": (f'url,caption\n{A},"big" cat\n{B},d\n', UC, [[A, '"big" cat'], [B, "d"]]),
    "a word and a comma in quotes": (f'url,caption\n{A},"big, x" cat\n{B},d\n', UC, [[A, "big, x cat"], [B, "d"]]),
    "inches": (f'url,caption\n{A},5" nail\n{B},"5"" nail"\n', UC, [[A, '5" nail'], [B, '5" nail']]),
    "nothing": ("", [], []),
    "only blank lines": ("\n \n", [], []),
    "only a header": ("url,caption\n", UC, []),
}  # fmt: skip


@pytest.mark.parametrize("case", DIALECTS)
@pytest.mark.parametrize("lines", [1, 64])
def test_a_dialect_gives_its_rows(case, lines, monkeypatch):
    monkeypatch.setattr(delimited, "LINES", max(lines, 3))
    text, columns, wanted = DIALECTS[case]
    found_columns, found = read(text)
    assert found_columns == columns
    assert [row if isinstance(row, list) else None for row in found] == [
        row if isinstance(row, list) else None for row in wanted
    ]
    assert all(reason in row for reason, row in zip(wanted, found, strict=True) if isinstance(reason, str))


def test_tabs_are_usual_in_tsv():
    assert read(f"caption,url\tkey\n{A}\tk\n", "\t") == (["caption,url", "key"], [[A, "k"]])


def test_a_long_text_is_a_text():
    long = "x" * 200_000
    assert read(f"url,caption\n{A},{long}\n{B},c\n")[1] == [[A, long], [B, "c"]]
    lines = "\n".join("y" * 80 for _ in range(5_000))
    assert read(f'url,caption\n{A},"{lines}"\n{B},c\n')[1] == [[A, lines], [B, "c"]]


def test_an_open_quote_is_given_up_after_a_while(monkeypatch):
    monkeypatch.setattr(delimited, "MOST_OPEN", 1000)
    rows = [[B, f"c{i}"] for i in range(1000)]
    text = "".join(f"{','.join(row)}\n" for row in rows)
    assert read(f'url,caption\n{A},"a, b\n{text}')[1][1:] == rows


# Python's own writer leaves \r without quotes where it ends no lines.
fields = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0\r"), max_size=12)
tables = st.integers(2, 4).flatmap(
    lambda width: st.lists(st.lists(fields, min_size=width, max_size=width), min_size=1, max_size=90)
)


@given(
    tables,
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_what_csv_writes_comes_back(rows, delimiter, end, quoting):
    file = io.StringIO()
    header = ["url", *(f"c{i}" for i in range(1, len(rows[0])))]
    # The first rows tell the dialect: a text of nothing but other delimiters could belong to any.
    plain = [[A, *("x" for _ in header[1:])]] * 100
    csv.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows([header, *plain, *rows])
    assert read(file.getvalue()) == (header, [*plain, *rows])
