"""Nets of contrib layers, trained by two ranks over gloo, learn what one process learns; and Embed with them."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import contrib_ranks_job as job
import h5py
import numpy as np
import pytest

from torchcaffe.formats.files import read_weights

START = """import signal, sys
from torchcaffe.distributed.launch import launch
sys.exit(launch(sys.argv[1:], 2, (signal.SIGHUP,)))
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{"alone", "rank0", "rank1"}: net -> weights."""
    folder, random = tmp_path_factory.mktemp("ranks"), np.random.default_rng(0)
    count = 3 * job.BATCH
    with h5py.File(folder / "rows.h5", "w") as file:
        file["data"] = random.normal(size=(count, 3, 8, 8)).astype(np.float32)
        file["words"] = random.integers(0, job.WORDS, (count, 4)).astype(np.float32)
        file["label"] = random.integers(0, job.CLASSES, count).astype(np.float32)
    (folder / "hdf5.txt").write_text(str(folder / "rows.h5"))
    script = str(Path(job.__file__))
    environment = {**os.environ, "PYTHONPATH": str(Path(script).parents[3]), "OMP_NUM_THREADS": "1", "GLOG_minloglevel": "2"}
    for start in ([], ["-c", START]):
        done = subprocess.run([sys.executable, *start, script, str(folder)], env=environment, capture_output=True, text=True,
                              timeout=240)  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    return {"folder": folder, **{name: pickle.loads((folder / f"{name}.pickle").read_bytes())
                                 for name in ("alone", "rank0", "rank1")}}  # fmt: skip


@pytest.mark.parametrize("net", ("faces", "maps", "ssd"))
def test_two_ranks_learn_what_one_process_learns(results, net):
    alone, first, second = (results[name][net] for name in ("alone", "rank0", "rank1"))
    assert alone.keys() == first.keys() and all(np.array_equal(first[name], second[name]) for name in first)
    apart = {name: np.abs(first[name] - array).max() / np.abs(array).max() for name, array in alone.items()}
    assert max(apart.values()) < 1e-5, apart


@pytest.mark.parametrize("net", ("faces", "maps", "ssd"))
def test_the_snapshot_is_what_the_ranks_hold(results, net):
    path = results["folder"] / f"{net}_iter_{job.ITERATIONS}.caffemodel"
    saved = {f"{layer.name} {i}": np.reshape(blob.data, blob.shape) for layer in read_weights(str(path))
             for i, blob in enumerate(layer.blobs)}  # fmt: skip
    for name, array in results["rank1"][net].items():
        assert np.array_equal(saved[name], array), name
