import pytest

from clipsieve.durable import append_line, read_lines
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


def test_damage_elsewhere_is_named(tmp_path):
    path = tmp_path / "marks.jsonl"
    path.write_text('{"i": 0}\n[1]\n{"i": 2}\n')
    with pytest.raises(CollectionDamaged, match="line 2"):
        read_lines(path)
