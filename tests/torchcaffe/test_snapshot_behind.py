"""Snapshots that are written while training continues: exact, one at a time, and errors reach the caller."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from torchcaffe.core import memory
from torchcaffe.core.errors import CaffeError
from torchcaffe.formats import files as caffe_files
from torchcaffe.solvers import resume
from torchcaffe.solvers.snapshots import find_snapshots

NET = """layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
    shape { dim: 4 dim: 6 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { value: 1 } } }
  layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3
    weight_filler { type: "xavier" } } }
  layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
  layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "y" }"""
SETTINGS = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 random_seed: 3 '


@pytest.fixture
def gate(monkeypatch):
    """An Event without which nothing is written."""
    opened, run = threading.Event(), resume.Background._run

    def wait(self, write):
        assert opened.wait(30)
        run(self, write)

    monkeypatch.setattr(resume.Background, "_run", wait)
    yield opened
    opened.set()


def prefix(solver):
    return solver.proto.snapshot_prefix


def contents(solver):
    """(bytes of weights and history, iteration) of the newest snapshot."""
    newest = find_snapshots(prefix(solver))[-1]
    state = caffe_files.read_solver_state(newest.state)
    weights = [blob.data for layer in caffe_files.read_weights(newest.model) for blob in layer.blobs]
    return [np.array(array).tobytes() for array in [*weights, *state.history]], state.iter


@pytest.mark.parametrize("form", ["", "snapshot_format: HDF5", "snapshot_diff: true"])
def test_it_is_the_snapshot_of_its_iteration_however_long_it_takes(make_solver, gate, form):
    gate.set()
    usual = make_solver(NET, SETTINGS + form)
    usual.step(3)
    usual.snapshot()
    gate.clear()
    behind = make_solver(NET, SETTINGS + form)  # draws from the seed on again
    behind.step(3)
    behind.snapshot_behind()
    assert behind.background.busy and not find_snapshots(prefix(behind))
    behind.step(4)  # in the same memory as the weights and the history that are being written
    assert behind.background.busy and behind.iter == 7
    gate.set()
    behind.background.wait()
    assert not behind.background.busy
    if "HDF5" not in form:
        assert contents(behind) == contents(usual)
    again = make_solver(NET, SETTINGS + form)
    again.restore(find_snapshots(prefix(behind))[-1].state)
    again.step(4)
    for ours, theirs in zip(again.net.params["ip"], behind.net.params["ip"]):
        assert np.array_equal(ours.data, theirs.data)


def test_the_next_one_waits(make_solver, gate, monkeypatch):
    solver = make_solver(NET, SETTINGS)
    solver.step(1)
    solver.snapshot_behind()
    solver.step(1)
    threading.Timer(0.3, gate.set).start()
    solver.snapshot()
    assert [snapshot.iteration for snapshot in find_snapshots(prefix(solver))] == [1, 2]
    solver.step(1)
    solver.snapshot_behind()
    solver.step(1)
    solver.snapshot_behind()
    solver.background.wait()
    assert [snapshot.iteration for snapshot in find_snapshots(prefix(solver))] == [1, 2, 3, 4]


@pytest.mark.parametrize("told_by", ["wait", "snapshot", "snapshot_behind"])
def test_what_goes_wrong_is_raised_once_where_it_is_waited_for(make_solver, monkeypatch, told_by):
    solver = make_solver(NET, SETTINGS)
    solver.step(1)

    def full(path):
        raise CaffeError(f"{path}: No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(resume.storage, "atomic_write", full)
        solver.snapshot_behind()
        while solver.background.busy:
            pass
    with pytest.raises(CaffeError, match="snapshot.*caffemodel: No space left on device"):
        {"wait": solver.background.wait, "snapshot": solver.snapshot, "snapshot_behind": solver.snapshot_behind}[told_by]()
    assert not find_snapshots(prefix(solver))  # without its record it does not count
    solver.snapshot()
    assert find_snapshots(prefix(solver))


def test_without_room_for_a_copy_it_is_written_at_once(make_solver, gate, monkeypatch):
    solver = make_solver(NET, SETTINGS)
    solver.step(1)
    monkeypatch.setattr(memory, "available", lambda device=None: 4 * 2 * 21 - 1)  # weights and momentum of 21 parameters
    solver.snapshot_behind()
    assert not solver.background.busy and find_snapshots(prefix(solver))
    solver.step(1)
    monkeypatch.setattr(memory, "available", lambda device=None: 4 * 2 * 21)
    solver.snapshot_behind()
    assert solver.background.busy
    gate.set()
    solver.background.wait()
