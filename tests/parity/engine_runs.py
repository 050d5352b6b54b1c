"""Scripts run under either engine's Python, and what they leave: a log, and a folder of arrays."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np  # noqa: E402
from comparison import CAFFE_PYTHON, ROOT, difference

PYTHON = {"caffe": CAFFE_PYTHON, "torchcaffe": sys.executable}


class Run:
    """A script at work: `script JOBS RESULTS ENGINE ...`, one thread. `folder` holds what is written.

    Args:
        script: Python file, run under both engines' Python.
        jobs: what it does, written to JOBS as JSON.
        engine: caffe or torchcaffe.
        name: of the folder RESULTS and of the log, where not the engine's.
        more: further arguments.
        variables: of the environment.
    """

    def __init__(self, script, jobs, engine, folder, name=None, more=(), **variables):
        folder = Path(folder)
        self.results = folder / (name or engine)
        self.results.mkdir()
        self.log = folder / f"{self.results.name}.log"
        path = folder / f"{self.results.name}.json"
        path.write_text(json.dumps(jobs))
        environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", **variables)
        environment.update(GLOG_minloglevel="0", GLOG_logtostderr="1")
        environment["PYTHONPATH"] = "" if engine == "caffe" else str(ROOT)
        command = [PYTHON[engine], Path(script).resolve(), path, self.results, engine, *more]
        with open(self.log, "w") as file:
            self.process = subprocess.Popen(
                [str(word) for word in command], env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=file
            )

    def lines(self):
        """The log's lines, when the script has ended. Raises RuntimeError where it failed."""
        status = self.process.wait()
        lines = self.log.read_text(errors="replace").splitlines()
        if status:
            raise RuntimeError(f"{self.results.name} stopped with {status}:\n" + "\n".join(lines[-15:]))
        return lines

    def arrays(self, job, kind):
        """{name: array} of what was kept as (job, kind, name), mapped from the files."""
        found = {}
        for path in self.results.iterdir():
            key = unquote(path.stem).split("/", 2)
            if key[:2] == [job, kind]:
                found[key[2]] = np.load(path, mmap_mode="r")
        return found


def differences(theirs, ours, job, kind, **options):
    """{name: difference} of what two Runs kept under the same names."""
    theirs, ours = theirs.arrays(job, kind), ours.arrays(job, kind)
    assert theirs and theirs.keys() == ours.keys(), f"{job}: {kind} of {sorted(theirs.keys() ^ ours.keys())}"
    return {name: difference(array, ours[name], **options) for name, array in theirs.items()}
