import csv
import io

import pytest

from clipsieve.csv_cells import CsvWriter


@pytest.mark.parametrize("value", ["=cmd|' /C calc'!A0", "+a", "-a", "@SUM(1)", "\tx", "\rx", "'=x"])
def test_no_spreadsheet_computes_a_field(value):
    text = io.StringIO()
    CsvWriter(text).writerow([value, -5, "-5", "+1.5e3", "a=b", None])
    assert next(csv.reader(io.StringIO(text.getvalue(), newline=""))) == ["'" + value, "-5", "-5", "+1.5e3", "a=b", ""]
