"""A chain that is killed at random instants ends with the same bits; many more kills: kill_chain.py."""

import kill_chain
import pytest


@pytest.mark.slow
def test_killed_training_ends_with_the_same_weights():
    fallen, wanted, found = kill_chain.run(kills=3, seed=4, iterations=12)
    assert sum(fallen.values()) == 3
    assert found == wanted and len(found) == 3
