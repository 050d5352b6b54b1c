"""Why a training's process ended, in words."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import numpy as np
import pytest

import recipe
from common import command
from gender_smile.training import chain, process, protocol, solve

LOG = "# an earlier start\nF0101 10:00:00.000001 7 old.cpp:1] Check failed: old\n# this start\nIteration 5, loss = 1\n"


@pytest.fixture
def row(tmp_path):
    found = chain.Row(recipe.DEMO, "gnet", 2, root=str(tmp_path))
    (tmp_path / found.folder).mkdir(parents=True)
    return found


def why(row, log: str, status: int, end=None) -> str:
    with open(row.path(f"{row.folder}/train.log"), "w") as stream:
        stream.write(log)
    return process.reason(row, end, status)


@pytest.mark.parametrize("number, cause", [
    (signal.SIGBUS, "an LMDB, was truncated or replaced during the run"), (signal.SIGSEGV, "a C library"),
    (signal.SIGABRT, "a library aborted"), (signal.SIGKILL, "memory ran out"), (signal.SIGILL, "another processor"),
    (signal.SIGXCPU, "ulimit -t"), (signal.SIGTRAP, ""),
])
def test_a_signal_is_told_by_name_and_cause_not_by_the_last_line_of_the_log(row, number, cause):
    found = why(row, LOG, -number)
    assert found.startswith(f"the process that trains was killed ({number.name}") and cause in found
    assert "Iteration" not in found and "old" not in found and found.endswith(f"(log: {row.folder}/train.log)")


def test_a_check_of_caffes_is_told_in_its_own_words(row):
    fatal = "F0101 11:00:00.000001 9 net.cpp:3] Check failed: x == y\n*** Check failure stack trace: ***\n"
    assert why(row, LOG + fatal, -signal.SIGABRT).startswith("Check failed: x == y (exit status -6)")
    assert why(row, LOG, 1).startswith("Iteration 5, loss = 1 (exit status 1)")
    assert why(row, LOG, 1, {"message": "its own\nwords"}).startswith("its own (log: ")


def test_weights_that_would_have_no_place_are_told_before_training(row, tmp_path):
    (tmp_path / "weights").write_text("in the way")
    with pytest.raises(chain.ChainError, match=r"step 2, .*: weights/demo/step2_.*: cannot be written: Not a directory"):
        process.run(row, "job.json", None, (), None, None)


def test_both_pythons_mean_the_same_by_a_stop():
    """protocol.py runs in real Caffe's Python too, so it has these by itself."""
    assert (protocol.STOP_SIGNALS, protocol.STOPPED) == (command.STOP_SIGNALS, command.INTERRUPTED)


def test_weights_that_are_not_finite_are_found_where_they_are_without_a_copy_to_the_host():
    class Params(dict):
        def items(self):
            raise AssertionError("weights were copied")

    ours = SimpleNamespace(solver=SimpleNamespace(not_finite="fc7"), net=SimpleNamespace(params=Params()))
    assert solve.Training._not_finite(ours) == "fc7"
    blobs = {"conv": [np.ones(3)], "fc": [np.ones(2), np.array([1, np.inf])]}
    params = {name: [SimpleNamespace(data=data) for data in arrays] for name, arrays in blobs.items()}
    theirs = SimpleNamespace(solver=SimpleNamespace(), net=SimpleNamespace(params=params))  # real Caffe's
    assert solve.Training._not_finite(theirs) == "fc"
    params["fc"][1].data[:] = 0
    assert solve.Training._not_finite(theirs) == ""
