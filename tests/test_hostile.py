"""Attacks on the real commands and a real service."""

import pytest

from benchmarks.hostile.__main__ import ALL, run


@pytest.mark.slow
def test_every_attack_holds(tmp_path):
    done = list(run(ALL, tmp_path))
    assert len(done) == len(ALL)
    assert not [f"{attack.number} {attack.name}: {seen}" for attack, held, seen in done if not held]
