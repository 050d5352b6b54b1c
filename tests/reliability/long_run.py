"""A day-long training in small: 20,000 iterations of a tiny net, with tests and snapshots; memory and handles stay flat.

    python tests/reliability/long_run.py

Watches the process that trains and the one that drives it. Exits with 1 where the training fails, or where either's
memory in the last tenth of the time is more than 32 MB above that in the second tenth, or its open files more than 2.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import watching

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "tests" / "support")]
sys.path[:0] = PATHS

MEMORY, HANDLES = 32, 2  # what may be more at the end: MB, open files
BEGUN = 6  # rows of metrics, one for each 20 iterations; the first test and snapshot come after 100
COMMAND = """
import sys
from dataclasses import replace
from tiny_project import TINY
from common import engine; from gender_smile.training import chain, metrics; from tools import train
metrics.draw([], sys.argv[1] + "/empty.png", "")  # what a drawing of the curve loads is there from the start
profile = replace(TINY, max_iter={2: int(sys.argv[2])}, test_interval={2: 100}, snapshot=100, display=20)
train.run(chain.rows(profile, ["gnet"], [1, 2], root=sys.argv[1]), engine.interpreter("torch"))
"""


def watch(root: str, iterations: int, every: float):
    """(exit status, {"driver" or "trainer": [(MB, open files), ...]}, seconds) of a training of step 2."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)}
    found, began = {"driver": [], "trainer": []}, time.monotonic()
    with open(Path(root) / "output.txt", "w") as output:
        process = subprocess.Popen([sys.executable, "-c", COMMAND, root, str(iterations)], stdout=output, stderr=output,
                                   env=environment)  # fmt: skip
        while process.poll() is None:
            if begun(Path(root) / "runs/tiny/step2_scheme3/metrics.csv"):
                for who, pids in (("driver", [process.pid]), ("trainer", watching.children(process.pid))):
                    try:
                        found[who] += [(watching.resident(pid), watching.handles(pid)) for pid in pids[:1]]
                    except OSError:  # it has just ended
                        pass
            time.sleep(every)
    return process.returncode, found, time.monotonic() - began


def begun(metrics: Path) -> bool:
    """True once the training has tested and taken snapshots, so that all it loads is loaded."""
    try:
        return len(metrics.read_text().splitlines()) > BEGUN
    except OSError:
        return False


def wrong(status: int, found: dict) -> list:
    """What is not as promised, a line each."""
    problems = [f"the training ended with status {status}"] if status else []
    for who, samples in found.items():
        if not samples:
            problems.append(f"the {who} was never seen")
            continue
        for what, limit, sizes in zip(("MB", "open files"), (MEMORY, HANDLES), zip(*samples)):
            if watching.growth(sizes) > limit:
                problems.append(f"{who}: {watching.growth(sizes):.1f} more {what} at the end than after a tenth")
    return problems


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=20000, help="default: %(default)s")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two looks; default: %(default)s")
    options = parser.parse_args(argv)
    from tiny_project import TINY, make_project

    with tempfile.TemporaryDirectory() as root:
        make_project(root, replace(TINY, max_iter={2: options.iterations, 3: 1, 4: 1}, test_interval=dict.fromkeys((2, 3, 4), 100),
                                   snapshot=100, display=20))  # fmt: skip
        status, found, seconds = watch(root, options.iterations, options.every)
        problems = wrong(status, found)
        if status:
            print((Path(root) / "output.txt").read_text()[-2000:])
    print(f"{options.iterations} iterations in {seconds:.0f} s")
    for who, samples in found.items():
        tenths = samples[:: max(1, len(samples) // 10)]
        print(f"{who}: " + ", ".join(f"{size:.0f} MB {handles} files" for size, handles in tenths))
    return watching.verdict(problems)


if __name__ == "__main__":
    raise SystemExit(main())
