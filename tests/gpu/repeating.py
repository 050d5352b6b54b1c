"""Two trainings, one of them stopped and resumed, and all layers twice: `repeating.py FOLDER GPU|cpu` prints what differs.

A process of its own: set_deterministic() comes before the GPU's first work.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "parity")]
os.environ["GLOG_minloglevel"] = "3"

import run_cases  # noqa: E402
from cases import CASES  # noqa: E402
from files import prepare  # noqa: E402
from net_jobs import net_jobs  # noqa: E402

import torchcaffe  # noqa: E402
from torchcaffe.data import shuffles  # noqa: E402

NETS = ("LeNet", "CIFAR-10 full", "AlexNet", "GoogLeNet")  # AlexNet and GoogLeNet: windows that overlap, Dropout, LRN
ITERATIONS = 16


def main(folder: str, device: str) -> int:
    torchcaffe.set_deterministic()
    jobs = net_jobs(folder, "small", NETS)
    prepare(Path(folder))
    if device != "cpu":
        torchcaffe.set_device(int(device))
        torchcaffe.set_mode_gpu()
    different = [job["name"] for job in jobs if len(set(trainings(job, folder))) > 1]
    different += [f"{case.type} {case.layer}" for number, case in enumerate(CASES) if len(set(passes(number, folder))) > 1]
    print(json.dumps(different))
    return 0


def trainings(job, folder):
    """Digests of the weights after ITERATIONS: twice from the start, and once with a snapshot and a new solver between."""
    stem = f"{folder}/{job['name'].replace(' ', '_')}"
    for stops in ((ITERATIONS,), (ITERATIONS,), (ITERATIONS // 2, ITERATIONS)):
        state = None
        for stop in stops:
            solver = torchcaffe.get_solver(job["solver"])
            solver.proto.snapshot_prefix, solver.keep_diffs = stem, False
            if state:
                solver.restore(state)
            else:
                solver.net.copy_from(job["weights"])
            solver.step(stop - solver.iter)
            solver.snapshot()
            state = f"{stem}_iter_{stop}.solverstate"
        yield digest(blob.data for blobs in solver.net.params.values() for blob in blobs)


def passes(number, folder):
    for _ in range(2):
        arrays = {}
        shuffles.library.set_state(shuffles.LibraryRandom().state())  # of HDF5Data: one for the whole process
        run_cases.run_case(torchcaffe, "torchcaffe", folder, CASES[number], number, arrays)
        yield digest(arrays[name] for name in sorted(arrays))


def digest(arrays) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(array.tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
