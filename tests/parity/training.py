"""The same training in both engines at once, and how far apart loss curves and weights are: `train_both(jobs)`."""

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import train_jobs
from comparison import CAFFE_PYTHON, ROOT, difference

LIMIT = 1e-3  # relative, after many iterations in float32
LOSS = re.compile(r"\] Iteration (\d+)\b.*, loss = (\S+)")


class Trained(NamedTuple):
    """One job in both engines: the logged losses, and the largest relative differences."""

    name: str
    theirs: list
    ours: list
    curve: float
    weights: float


def train_both(jobs, folder):
    """[Trained] of jobs as train_jobs.py takes them. `folder` holds what is written. Raises RuntimeError."""
    folder = Path(folder)
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    engines = [(CAFFE_PYTHON, "caffe"), (sys.executable, "torchcaffe")]
    return _compare(jobs, [_start(interpreter, engine, path, folder) for interpreter, engine in engines])


class Followed(NamedTuple):
    """Iterations of torchcaffe, each from real Caffe's weights and momentum: differences, a number an iteration."""

    theirs: list
    ours: list
    loss: np.ndarray
    weights: np.ndarray
    history: np.ndarray


def follow(job, folder):
    """Followed of a job whose solver takes snapshots as "FOLDER/snapshot"; they fill `folder`. Raises RuntimeError."""
    folder, name = Path(folder), job["name"]
    path = folder / "jobs.json"
    path.write_text(json.dumps([{**job, "trace": str(folder)}]))
    theirs = _finish(*_start(CAFFE_PYTHON, "caffe", path, folder))[0][name]
    path.write_text(json.dumps([{**job, "follow": str(folder)}]))
    curves, found = _finish(*_start(sys.executable, "torchcaffe", path, folder))
    ours = curves[name]
    assert len(theirs) == len(ours) == job["iterations"]
    apart = np.abs(np.array(theirs) - np.array(ours)) / np.maximum(np.abs(theirs), 1e-12)
    return Followed(theirs, ours, apart, found[f"{name}/weights"], found[f"{name}/history"])


def caffe_twice(jobs, folder):
    """[Trained] of real Caffe against itself, "ours" being Caffe with OpenBLAS's other kernels: float32's own share."""
    folder = Path(folder)
    path = folder / "jobs.json"
    path.write_text(json.dumps(jobs))
    running = []
    for kernels in ("Haswell", "Sandybridge"):
        (folder / kernels).mkdir()
        running.append(_start(CAFFE_PYTHON, "caffe", path, folder / kernels, OPENBLAS_CORETYPE=kernels))
    return _compare(jobs, running)


def _compare(jobs, running):
    (their_curves, their_weights), (our_curves, our_weights) = [_finish(*started) for started in running]
    assert their_weights.keys() == our_weights.keys()
    trained = []
    for job in jobs:
        name = job["name"]
        theirs, ours = their_curves[name], our_curves[name]
        keys = [key for key in their_weights if key.startswith(name + "/")]
        apart = [difference(their_weights[key], our_weights[key]) for key in keys]
        assert apart and len(theirs) == job["iterations"], f"{name}: {len(theirs)} losses, {len(apart)} weights"
        trained.append(Trained(name, theirs, ours, curve_difference(theirs, ours), max(apart)))
    return trained


def curve_difference(theirs, ours):
    """Largest difference between two lists of losses, relative to the iteration's loss; infinite where one is short."""
    if len(theirs) != len(ours) or not np.isfinite(theirs + ours).all():
        return np.inf
    a, b = np.array(theirs), np.array(ours)
    return float((np.abs(a - b) / np.maximum(np.abs(a), 1e-12)).max())


def _start(interpreter, engine, jobs, folder, **variables):
    log, results = folder / f"{engine}.log", folder / f"{engine}.npz"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", **variables)
    environment.update(GLOG_minloglevel="0", GLOG_logtostderr="1")
    environment["PYTHONPATH"] = "" if engine == "caffe" else str(ROOT)
    command = [str(interpreter), str(Path(train_jobs.__file__).resolve()), str(jobs), str(results), engine]
    with open(log, "w") as file:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file)
    return process, log, results


def _finish(process, log, results):
    status = process.wait()
    lines = log.read_text(errors="replace").splitlines()
    if status:
        raise RuntimeError(f"{results.stem} stopped with {status}:\n" + "\n".join(lines[-15:]))
    curves, name = defaultdict(list), None
    for line in lines:
        if line.startswith(train_jobs.MARK):
            name = line[len(train_jobs.MARK) :]
        loss = LOSS.search(line)
        if loss:
            curves[name].append(float(loss.group(2)))
    with np.load(results) as file:
        return curves, {key: file[key] for key in file.files}
