import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from clipsieve.durable import append_lines
from clipsieve.errors import CollectionDamaged
from clipsieve.marks import Mark, Marks


def said(marks, class_name=None):
    return [(m.item, m.class_name, m.verdict) for m in marks.standing(class_name)]


def test_the_last_word_on_an_item_and_a_class_holds(tmp_path):
    marks = Marks(tmp_path)
    assert said(marks) == []
    assert marks.add([Mark(2**62, "bus", "right"), Mark(2, "bus", "right"), Mark(2, "tram", "right")]) == 3
    assert marks.add([Mark(2**62, "bus", "wrong", "vehicles"), Mark(2, "bus", "right")]) == 1
    expected = [(2, "bus", "right"), (2, "tram", "right"), (2**62, "bus", "wrong")]
    assert said(marks) == said(Marks(tmp_path)) == expected
    assert said(marks, "tram") == [(2, "tram", "right")]
    assert (marks.standing()[-1].set, len(marks.standing()[-1].at)) == ("vehicles", 25)
    assert len(marks.path.read_bytes().splitlines()) == 4


def test_what_is_taken_back_is_a_line_too(tmp_path):
    marks = Marks(tmp_path)
    marks.add([Mark(1, "bus", "right"), Mark(2, "bus", "wrong"), Mark(3, "bus", "right")])
    # Somebody else has said otherwise of 1 meanwhile; of 9 nothing was ever said.
    gone = [Mark(1, "bus", "wrong"), Mark(2, "bus", None), Mark(3, "bus", "right"), Mark(9, "bus", None)]
    assert marks.take_back(gone) == 2
    assert marks.take_back(gone) == 0
    assert said(marks) == said(Marks(tmp_path)) == [(1, "bus", "right")]
    assert len(marks.path.read_bytes().splitlines()) == 5


def test_threads_and_processes_write_at_once(tmp_path):
    work = (
        "import sys; from pathlib import Path; from clipsieve.marks import Mark, Marks\n"
        "marks = Marks(Path(sys.argv[1]))\n"
        "for i in range(20): marks.add([Mark(int(sys.argv[2]) + i, 'bus', 'right')])"
    )
    others = [subprocess.Popen([sys.executable, "-c", work, tmp_path, str(1000 * n)]) for n in (1, 2)]
    shared, alone = Marks(tmp_path), Marks(tmp_path)

    def write(n):
        for i in range(10):
            (shared if n % 2 else alone).add([Mark(100 * n + i, "bus", "wrong")])
            shared.standing()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    assert [other.wait(60) for other in others] == [0, 0]
    expected = {100 * n + i for n in range(8) for i in range(10)} | {1000 * n + i for n in (1, 2) for i in range(20)}
    for marks in (shared, alone, Marks(tmp_path)):
        assert {mark.item for mark in marks.standing()} == expected


def test_a_damaged_line_is_named(tmp_path):
    marks = Marks(tmp_path)
    marks.add([Mark(i, "bus", "right") for i in range(3)])
    whole = marks.path.read_bytes()
    marks.path.write_bytes(whole.replace(b'"item":"1"', b'"item":"7"'))
    for ask in (marks.standing, lambda: marks.add([Mark(5, "bus", "right")]), lambda: marks.take_back([])):
        with pytest.raises(CollectionDamaged, match=r"marks.jsonl line 2 is not as it was written"):
            ask()
    marks.path.write_bytes(whole)
    assert len(marks.standing()) == 3


def test_a_line_that_is_whole_but_no_mark_is_named(tmp_path):
    marks = Marks(tmp_path)
    marks.add([Mark(1, "bus", "right")])
    append_lines(marks.path, [{"item": "2", "class": "bus", "verdict": "perhaps"}])
    with pytest.raises(CollectionDamaged, match="line 2 is no mark"):
        marks.standing()


def test_what_could_not_be_written_is_not_said(tmp_path, monkeypatch):
    marks = Marks(tmp_path)
    marks.add([Mark(1, "bus", "right")])

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("clipsieve.marks.append_lines", full)
        with pytest.raises(OSError, match="No space"):
            marks.add([Mark(1, "bus", "wrong")])
    assert said(marks) == [(1, "bus", "right")]
