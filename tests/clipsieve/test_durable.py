import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipsieve.durable import append_line, read_lines, sift_lines, write_lines
from clipsieve.errors import CollectionDamaged


def test_lines_come_back_in_order(tmp_path):
    path = tmp_path / "marks.jsonl"
    assert read_lines(path) == []
    for i in range(3):
        append_line(path, {"i": i, "text": "a\nb"})
    assert read_lines(path) == [{"i": i, "text": "a\nb"} for i in range(3)]


def test_every_torn_last_line_is_left_out_and_then_cut_off(tmp_path):
    path = tmp_path / "marks.jsonl"
    append_line(path, {"i": 0})
    append_line(path, {"i": 1})
    data = path.read_bytes()
    first = data.index(b"\n") + 1
    for end in range(first, len(data)):
        path.write_bytes(data[:end])
        assert read_lines(path) == [{"i": 0}]
        append_line(path, {"i": 2})
        assert read_lines(path) == [{"i": 0}, {"i": 2}]


@given(st.integers(0), st.integers(0, 7))
@pytest.mark.slow
def test_a_flipped_bit_is_found_wherever_it_is(at, bit):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "marks.jsonl"
        lines = [{"i": i, "text": "\u00e9\t"} for i in range(3)]
        for line in lines:
            append_line(path, line)
        data = bytearray(path.read_bytes())
        data[at % len(data)] ^= 1 << bit
        path.write_bytes(data)
        good, bad = sift_lines(path)
        # One line at most is hurt, two where the flip joins them, and a last one that lost its end counts as torn.
        assert all(line in lines for line in good)
        assert len(good) in (1, 2)
        if bad:
            with pytest.raises(CollectionDamaged, match=f"line {bad[0]}"):
                read_lines(path)
        else:
            assert good == lines[:2]


def test_what_counts_can_be_less_than_what_is_there(tmp_path):
    path = tmp_path / "removed.jsonl"
    append_line(path, {"i": 0})
    size = path.stat().st_size
    append_line(path, {"i": 1})
    assert read_lines(path, size) == [{"i": 0}]
    append_line(path, {"i": 2}, size)
    assert read_lines(path) == [{"i": 0}, {"i": 2}]


def test_lines_written_at_once_are_those_appended(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    values = [{"i": i} for i in range(3)]
    for value in values:
        append_line(one, value)
    write_lines(two, values)
    assert one.read_bytes() == two.read_bytes()
