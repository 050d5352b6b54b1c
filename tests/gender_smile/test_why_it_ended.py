"""Why a training's process ended, in words."""

from __future__ import annotations

import signal

import pytest

import recipe
from common import command
from gender_smile.training import chain, process, protocol

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
