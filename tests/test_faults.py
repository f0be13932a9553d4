"""Writers that are killed."""

import pytest

from benchmarks import faults


@pytest.mark.slow
def test_nothing_is_lost_or_doubled_by_twenty_kills(tmp_path):
    done = faults.run(20, seed=1, scratch=tmp_path)
    assert done.total() >= 20
    assert set(done) == set(faults.STEPS)
