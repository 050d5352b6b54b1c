"""Whole nets in both engines: forward and backward, then training: `compare(jobs, folder)`."""

from pathlib import Path
from typing import NamedTuple

import numpy as np  # noqa: E402
import pass_jobs
import training  # noqa: E402
from comparison import LIMIT, difference
from engine_runs import Run, differences

KINDS = ("data", "diff", "gradient")


class Compared(NamedTuple):
    """A net in both engines: its training, and the largest difference of each of KINDS, with the blob's name."""

    trained: training.Trained
    forward: float
    backward: float
    where: dict


def compare(jobs, folder):
    """[Compared] of net_jobs.net_jobs' jobs. `folder` holds what is written. Raises RuntimeError."""
    folder = Path(folder)
    for name in ("passes", "training"):
        (folder / name).mkdir()
    theirs = Run(pass_jobs.__file__, jobs, "caffe", folder / "passes")
    theirs.lines()
    ours = Run(pass_jobs.__file__, jobs, "torchcaffe", folder / "passes", more=[theirs.results])
    ours.lines()
    trained = training.train_both(jobs, folder / "training")
    return [Compared(one, *_passes(theirs, ours, job)) for one, job in zip(trained, jobs)]


def _passes(theirs, ours, job):
    name, where = job["name"], {}
    for kind in KINDS:
        found = differences(theirs, ours, name, kind, smallest=1e-30, power=2)
        if kind == "gradient":
            found.update(_cancelled(theirs, ours, job))
        blob = max(found, key=found.get)
        where[kind] = (found[blob], blob)
    return where["data"][0], max(where["diff"][0], where["gradient"][0]), where


def _cancelled(theirs, ours, job):
    """Differences of biases whose gradients are 0 but for rounding: relative to the gradients of the layer's weights."""
    found = {}
    theirs, ours = [run.arrays(job["name"], "gradient") for run in (theirs, ours)]
    for layer in job["cancelling"]:
        bias = layer + "[1]"
        size = float(np.abs(theirs[layer + "[0]"]).mean())
        found[bias] = difference(theirs[bias], ours[bias], size)
    return found


def over(compared):
    """Sentences on what exceeds its limit, of compare()'s answers."""
    found = []
    for one in compared:
        for what, value, limit in (
            ("loss curve", one.trained.curve, training.LIMIT),
            ("weights", one.trained.weights, training.LIMIT),
            ("forward", one.forward, LIMIT),
            ("backward", one.backward, LIMIT),
        ):
            if not value <= limit:
                found.append(f"{one.trained.name}: {what} differs by {value:.1e}, limit {limit:g} ({one.where})")
    return found
