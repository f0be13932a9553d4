import csv
import io

import pytest

from clipsieve.csv_cells import CsvWriter, exact_text, plain_cell

COMPUTED = ["=cmd|' /C calc'!A0", "+a", "-a", "@SUM(1)", "\tx", "\rx", "'=x"]


@pytest.mark.parametrize("value", COMPUTED)
def test_no_spreadsheet_computes_a_field(value):
    text = io.StringIO()
    CsvWriter(text).writerow([value, -5, "-5", "+1.5e3", "a=b", None])
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == ["'" + value, "-5", "-5", "+1.5e3", "a=b", ""]


def test_raw_fields_are_exact():
    text = io.StringIO()
    CsvWriter(text, raw=True).writerow(COMPUTED)
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == COMPUTED


@pytest.mark.parametrize("value", [*COMPUTED, "a", "'a", "''", "", "'", "-5"])
def test_a_cell_is_read_back(value):
    assert exact_text(plain_cell(value)) == value
