"""Broken input for all that reads foreign bytes, a minute of it; what was found once is read again first."""

import pytest

from benchmarks.fuzz.__main__ import CORPUS, run
from benchmarks.fuzz.targets import TARGETS

MINUTE = 60.0


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_broken_input_is_refused_in_a_sentence(name, tmp_path):
    result = run(name, MINUTE / len(TARGETS), seed=1, found=tmp_path)
    assert result.inputs
    assert not result.found, [path.read_text() for path in tmp_path.rglob("*.txt")]


def test_the_corpus_is_of_targets_and_small():
    kept = [path for path in CORPUS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} <= set(TARGETS)
    assert sum(path.stat().st_size for path in kept) < 500_000
