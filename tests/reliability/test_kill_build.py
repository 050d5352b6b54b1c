"""A build that is killed at random instants leaves complete LMDBs or none; many more kills: kill_build.py."""

import kill_build


def test_killed_builds_leave_no_half_lmdb():
    fallen, _ = kill_build.run(kills=3, seed=2)
    assert fallen == 3
