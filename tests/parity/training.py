"""The same training in both engines at once, and how far apart loss curves and weights are: `train_both(jobs)`."""

import re
from collections import defaultdict
from typing import NamedTuple

import numpy as np  # noqa: E402
import train_jobs
from engine_runs import Run, differences

LIMIT = 1e-3  # relative, after many iterations in float32
LOSS = re.compile(r"\] Iteration (\d+)\b.*, loss = (\S+)")


class Trained(NamedTuple):
    """One job in both engines: the logged losses, the largest relative differences, and how far the weights went."""

    name: str
    theirs: list
    ours: list
    curve: float
    weights: float
    moved: float


def train_both(jobs, folder):
    """[Trained] of jobs as train_jobs.py takes them. `folder` holds what is written. Raises RuntimeError."""
    return _compare(jobs, [Run(train_jobs.__file__, jobs, engine, folder) for engine in ("caffe", "torchcaffe")])


class Followed(NamedTuple):
    """Iterations of torchcaffe, each from real Caffe's weights and momentum: differences, a number an iteration."""

    theirs: list
    ours: list
    loss: np.ndarray
    weights: np.ndarray
    history: np.ndarray


def follow(job, folder):
    """Followed of a job whose solver takes snapshots as "FOLDER/snapshot"; they fill `folder`. Raises RuntimeError."""
    name = job["name"]
    theirs = _curves(Run(train_jobs.__file__, [{**job, "trace": str(folder)}], "caffe", folder).lines())[name]
    run = Run(train_jobs.__file__, [{**job, "follow": str(folder)}], "torchcaffe", folder)
    ours = _curves(run.lines())[name]
    assert len(theirs) == len(ours) == job["iterations"]
    apart = np.abs(np.array(theirs) - np.array(ours)) / np.maximum(np.abs(theirs), 1e-12)
    found = run.arrays(name, "followed")
    return Followed(theirs, ours, apart, found["weights"], found["history"])


def caffe_twice(jobs, folder):
    """[Trained] of real Caffe against itself, "ours" being Caffe with OpenBLAS's other kernels: float32's own share."""
    kernels = ("Haswell", "Sandybridge")
    return _compare(
        jobs, [Run(train_jobs.__file__, jobs, "caffe", folder, name, OPENBLAS_CORETYPE=name) for name in kernels]
    )


def _compare(jobs, runs):
    theirs, ours = runs
    their_curves, our_curves = [_curves(run.lines()) for run in runs]
    trained = []
    for job in jobs:
        name = job["name"]
        curves = their_curves[name], our_curves[name]
        assert len(curves[0]) == job["iterations"], f"{name}: {len(curves[0])} losses"
        apart = max(differences(theirs, ours, name, "weights").values())
        moved = float(theirs.arrays(name, "moved")["all"])
        trained.append(Trained(name, *curves, curve_difference(*curves), apart, moved))
    return trained


def _curves(lines):
    """{job's name: losses} of a log."""
    curves, name = defaultdict(list), None
    for line in lines:
        if line.startswith(train_jobs.MARK):
            name = line[len(train_jobs.MARK) :]
        loss = LOSS.search(line)
        if loss:
            curves[name].append(float(loss.group(2)))
    return curves


def curve_difference(theirs, ours):
    """Largest difference between two lists of losses, relative to the iteration's loss; infinite where one is short."""
    if len(theirs) != len(ours) or not np.isfinite(theirs + ours).all():
        return np.inf
    a, b = np.array(theirs), np.array(ours)
    return float((np.abs(a - b) / np.maximum(np.abs(a), 1e-12)).max())
