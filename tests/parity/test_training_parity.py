"""Training against real Caffe: every solver and policy, whole nets, and the demo profile's step 4."""

import comparison  # noqa: E402
import numpy as np  # noqa: E402
import pytest
import training  # noqa: E402
import whole_nets  # noqa: E402
from headline_job import RATE, step4_job
from net_jobs import NETS, net_jobs
from solver_jobs import KINDS, POLICIES, SETTINGS, solver_jobs


@pytest.fixture(scope="module", autouse=True)
def caffe():
    if not comparison.CAFFE_PYTHON.exists():
        pytest.skip("needs real Caffe in .caffe/: type `make caffe`")


def apart(trained):
    return {one.name: one[3:] for one in trained if not max(one.curve, one.weights) <= training.LIMIT}


def test_solvers_policies_and_settings(tmp_path):
    trained = training.train_both(solver_jobs(tmp_path), tmp_path)
    assert len(trained) == len(KINDS) * (len(POLICIES) + len(SETTINGS))
    assert apart(trained) == {}


@pytest.mark.slow
@pytest.mark.parametrize("names", [list(NETS)[0::2], list(NETS)[1::2]], ids=["half", "other-half"])
def test_whole_nets(tmp_path, names):
    compared = whole_nets.compare(net_jobs(tmp_path, "small", names), tmp_path)
    assert len(compared) == len(names)
    assert whole_nets.over(compared) == []


@pytest.mark.slow
def test_step_4_with_mirror_crop_and_dropout(tmp_path):
    (trained,) = training.train_both([step4_job(tmp_path, iterations=30, rate=RATE)], tmp_path)
    assert trained.curve <= training.LIMIT


@pytest.mark.slow
def test_each_iteration_at_the_committed_rate_from_caffes_own_weights(tmp_path):
    followed = training.follow(step4_job(tmp_path, iterations=10), tmp_path)
    assert followed.loss.max() <= training.LIMIT
    # Now and then a ReLU or a maximum falls the other way and shows in a few numbers: the usual iteration counts.
    assert np.median(followed.weights) <= 1e-4
    assert np.median(followed.history) <= training.LIMIT


def test_a_difference_is_seen():
    assert training.curve_difference([1.0, 0.5], [1.0, 0.5004]) < training.LIMIT
    assert training.curve_difference([1.0, 0.5], [1.0, 0.501]) > training.LIMIT
    assert training.curve_difference([1.0, 0.5], [1.0]) == float("inf")
