"""A build that is killed at random instants leaves complete things or none; many more kills: kill_build.py."""

import kill_build
import pytest


@pytest.mark.slow
@pytest.mark.parametrize("what", ["lmdb", "detections"])  # weights of 580 MB: by hand
def test_killed_builds_leave_nothing_half(what):
    fallen, _ = kill_build.run(kills=3, seed=2, what=what)
    assert fallen == 3
