"""The names of snapshot files: found again as they were written, also beside real Caffe."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from torchcaffe.solvers import snapshots

ROOT = Path(__file__).resolve().parents[2]
SOLVER = """layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 2 } } }
layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip" inner_product_param { num_output: 1 } }
layer { name: "l" type: "EuclideanLoss" bottom: "ip" bottom: "ip" top: "l" }"""


@pytest.mark.parametrize("suffix, setting", [("", ""), (".h5", "snapshot_format: HDF5")])
def test_what_a_solver_writes_is_found_oldest_first(make_solver, tmp_path, suffix, setting):
    solver = make_solver(SOLVER, f"base_lr: 0.1 lr_policy: 'fixed' snapshot: 1 {setting}")
    folder = tmp_path / "a[1]"  # a pattern, if it were not escaped
    folder.mkdir()
    prefix = solver.proto.snapshot_prefix = str(folder / "x")
    solver.step(11)
    found = snapshots.find_snapshots(prefix)
    assert [one.iteration for one in found] == list(range(1, 12))
    assert found[-1] == (11, f"{prefix}_iter_11.caffemodel{suffix}", f"{prefix}_iter_11.solverstate{suffix}",
                         f"{prefix}_iter_11.json")  # fmt: skip
    assert all(os.path.isfile(path) for one in found for path in one[1:])
    assert snapshots.record_path(found[-1].state) == found[-1].record


def test_what_an_interrupted_write_left_is_listed_and_is_no_snapshot(tmp_path):
    names = [".x_iter_3.0a1b.tmp.caffemodel", "x_iter_2.caffemodel", "x_iter_2.solverstate", "x_iter_2.json.part"]
    for name in names + ["y_iter_2.json", "x_iterations.json"]:
        (tmp_path / name).touch()
    prefix = str(tmp_path / "x")
    assert [os.path.basename(path) for path in snapshots.find_files(prefix)] == sorted(names)
    assert snapshots.find_snapshots(prefix) == []


def test_the_names_can_be_had_without_torch_and_numpy():
    code = "import sys; import torchcaffe.solvers.snapshots; sys.exit(bool({'torch', 'numpy', 'google'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
