"""Both engines on all cases, and how far apart they are: `compare()`."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np  # noqa: E402
import run_cases
from cases import CASES
from files import prepare

ROOT = Path(__file__).resolve().parents[2]
CAFFE_PYTHON = ROOT / ".caffe" / "python"
LIMIT = 1e-4  # relative, float32
HUGE = 1e30  # beyond: stand-ins for "nothing", such as max pooling's -FLT_MAX; they do not set the scale
PART = 2**22  # elements looked at together: VGG-Face's fc6 has a hundred million


def difference(a, b, smallest=1e-6, power=1):
    """Largest difference between two arrays, relative to the larger of the element and the mean size of the array.

    The mean of sizes (power 1), or their root mean square (power 2), is `smallest` where it is less. Infinite where shapes
    differ, or where one is not finite and the other is something else.
    """
    if a.shape != b.shape:
        return np.inf
    a, b = np.ravel(a), np.ravel(b)
    parts = [slice(start, start + PART) for start in range(0, a.size, PART)]
    floor = max(_mean_size([a[part] for part in parts], power), smallest)
    return max((_difference(a[part], b[part], floor) for part in parts), default=0.0)


def _mean_size(parts, power):
    total, count = 0.0, 0
    for part in parts:
        sizes = np.abs(np.asarray(part, np.float64))
        usual = sizes[sizes < HUGE]  # neither is a not-a-number
        total, count = total + float((usual**power).sum()), count + usual.size
    return (total / count) ** (1 / power) if count else 0.0


def _difference(a, b, floor):
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    if same.all():
        return 0.0
    if not (np.isfinite(a) | same).all() or not (np.isfinite(b) | same).all():
        return np.inf
    a, b = np.asarray(a[~same], np.float64), np.asarray(b[~same], np.float64)
    return float((np.abs(a - b) / np.maximum(np.maximum(np.abs(a), np.abs(b)), floor)).max())


def real_caffe(folder):
    """(arrays, structures, how the aborts end) from real Caffe, all in one child process. Raises RuntimeError."""
    results = Path(folder) / "caffe"
    environment = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", GLOG_minloglevel="3")
    command = [str(CAFFE_PYTHON), str(Path(run_cases.__file__).resolve()), str(folder), str(results)]
    done = subprocess.run(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    if done.returncode:
        raise RuntimeError(f"real Caffe stopped with {done.returncode}:\n" + "\n".join(done.stderr.splitlines()[-15:]))
    with np.load(f"{results}.npz") as file:
        arrays = {name: file[name] for name in file.files}
    found = json.loads(Path(f"{results}.json").read_text())
    return arrays, found["structures"], found["ends"]


def our_own(folder, run=None):
    """(arrays, structures) from torchcaffe in this process, whose HDF5 shuffles begin anew, as in real Caffe's."""
    import torchcaffe
    from torchcaffe.data import shuffles

    shuffles.library.set_state(shuffles.LibraryRandom().state())
    before = os.environ.get("GLOG_minloglevel")
    os.environ["GLOG_minloglevel"] = "3"
    try:
        arrays, structures = run_cases.run_all(torchcaffe, "torchcaffe", folder, run=run, log=None)
    finally:
        if before is None:
            del os.environ["GLOG_minloglevel"]
        else:
            os.environ["GLOG_minloglevel"] = before
    return arrays, json.loads(json.dumps(structures))


def differences(theirs, ours):
    """[(case number, what, difference)] of two engines' arrays; a missing one counts as infinite."""
    found = []
    for name in sorted(set(theirs) | set(ours)):
        number, _, what = name.partition("/")
        apart = difference(theirs[name], ours[name]) if name in theirs and name in ours else np.inf
        found.append((int(number), what, apart))
    return found


def compare():
    """[(layer type, number of cases, largest relative difference)], sorted by type. Needs .caffe (`make caffe`)."""
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        theirs, _, _ = real_caffe(folder)
        ours, _ = our_own(folder)
    largest = {case.type: 0.0 for case in CASES}
    for number, _, apart in differences(theirs, ours):
        type = CASES[number].type
        largest[type] = max(largest[type], apart)
    return [(type, sum(case.type == type for case in CASES), largest[type]) for type in sorted(largest)]


def main():
    """Print the table."""
    sys.path.insert(0, str(ROOT))
    for type, cases, apart in compare():
        print(f"{type:24} {cases:4} {apart:.1e}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
