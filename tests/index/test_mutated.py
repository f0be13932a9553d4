"""Every byte of small files of others, changed: none ends the process, each is an answer or an error of ours."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.index import mutated

ROOT = Path(__file__).parents[2]
APART = 60
"""Mutations of kinds of which each costs a process of its own."""
MOST = 3000
"""Mutations of other kinds."""

KINDS = tuple(mutated.kinds(Path()))


def found(kind: str, folder: Path, count: int) -> list[str]:
    """What was wrong with the mutations of a kind; a child that dies is followed by one that goes on after it."""
    progress, start, wrong = folder / "progress", 0, list[str]()
    while True:
        words = [sys.executable, "-m", "tests.index.mutated", kind, str(start), str(start + count), folder, progress]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
        wrong += [line for line in done.stdout.splitlines() if line.startswith("WRONG")]
        if done.returncode == 0:
            return wrong
        assert progress.exists(), done.stderr  # else the whole file was not read
        at = int(progress.read_text())
        wrong.append(f"mutation {at} ended the process with {done.returncode}: {done.stderr[-1500:]}")
        start = at + 1
        if len(wrong) > 5:
            return wrong


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_changed_byte_ends_the_process(kind, tmp_path):
    assert found(kind, tmp_path, APART if kind == "hdf5" else MOST) == []


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # vectors of NaN and infinities
@pytest.mark.parametrize(
    ("kind", "count"), [("npy", 40), ("npy-vectors", 4), ("parquet", 40), ("arrow", 40), ("stream", 40)]
)
def test_changed_bytes_are_an_answer_or_an_error(kind, count, tmp_path, capsys):
    """In this process: kinds that have long not ended one."""
    mutated.main(kind, "0", str(count), str(tmp_path), str(tmp_path / "progress"))
    assert (tmp_path / "progress").read_text() == "done"
    assert "WRONG" not in capsys.readouterr().out
