"""Kill a training again and again at random instants, and compare what it ends with to an uninterrupted one's.

    python tests/reliability/kill_chain.py --kills 50

A tiny chain (steps 1 to 4, torchcaffe on the CPU, or on a GPU with --gpu) is trained twice: once undisturbed, once with SIGKILL to the driver,
to the process that trains, or to both, after random times and right inside the writing of snapshots; after each kill
the same command is started again. Prints how many kills fell where; exits with 1 unless all weights are the same bits.
"""

from __future__ import annotations

import argparse
import collections
import glob
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from watching import children

ROOT = Path(__file__).resolve().parents[2]
PATHS = [str(ROOT), str(ROOT / "tests" / "support")]
sys.path[:0] = PATHS

COMMAND = """
import sys
from dataclasses import replace
from tiny_project import TINY
from common import engine; from gender_smile.training import chain, process; from tools import train
iterations = {step: int(sys.argv[2]) for step in (2, 3, 4)}
profile = replace(TINY, max_iter=iterations, test_interval={step: 7 for step in iterations}, snapshot=3)
try:
    train.run(chain.rows(profile, ["gnet"], [1, 2, 3, 4], root=sys.argv[1]), engine.interpreter("torch"),
              gpu=int(sys.argv[3]) if sys.argv[3] else None, deterministic=bool(sys.argv[3]))
except (chain.ChainError, process.Stopped) as error:
    raise SystemExit(f"{error}")
"""


def start(root, iterations, gpu=None):
    """The training's command, in a session of its own."""
    command = [sys.executable, "-c", COMMAND, str(root), str(iterations), "" if gpu is None else str(gpu)]
    with open(Path(root) / "output.txt", "a") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True,
                                env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)})


def make(root, iterations):
    from tiny_project import TINY, make_project

    make_project(str(root), replace(TINY, max_iter=dict.fromkeys((2, 3, 4), iterations), snapshot=3))


def writing(root):
    return glob.glob(f"{root}/runs/*/*/.snapshot_iter_*.tmp*")


def kill_once(process, root, draw):
    """Wait for a random instant, or for a snapshot that is being written, and kill; where it fell, None: it had ended."""
    inside, longest = draw.random() < 0.4, draw.uniform(0.2, 9.0)
    until = time.monotonic() + (30 if inside else longest)
    while time.monotonic() < until and not (inside and writing(root)):
        if process.poll() is not None:
            return None
        time.sleep(0.0005 if inside else 0.005)
    whom = draw.choice(["driver", "trainer", "both"])
    training, place = children(process.pid), "inside a snapshot" if writing(root) else "elsewhere"
    for pid in ([process.pid] if whom != "trainer" else []) + (training if whom != "driver" else []):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    process.wait()
    for pid in training:  # one that was left alone ends by itself, as nobody listens any more
        while os.path.exists(f"/proc/{pid}") and "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1][:3]:
            time.sleep(0.05)
    return f"{whom}, {place}"


def weights(root):
    """{file of weights: its SHA-256, as recorded}."""
    return {Path(path).name: json.loads(Path(path).read_text())["sha256"] for path in glob.glob(f"{root}/weights/tiny/*.json")
            if "step1" not in path}  # fmt: skip


def run(kills, seed, iterations, gpu=None):
    """(Counter of where kills fell, weights of the undisturbed training, weights of the other)."""
    draw, fallen = random.Random(seed), collections.Counter()
    with tempfile.TemporaryDirectory() as quiet, tempfile.TemporaryDirectory() as killed:
        for root in (quiet, killed):
            make(root, iterations)
        status = start(quiet, iterations, gpu).wait()
        if status:
            raise RuntimeError(Path(quiet, "output.txt").read_text())
        ended = False
        while not ended:
            process = start(killed, iterations, gpu)
            place = kill_once(process, killed, draw) if sum(fallen.values()) < kills else None
            if place:
                fallen[place] += 1
            elif process.wait() == 0:
                ended = True
                if sum(fallen.values()) < kills:  # done before enough had fallen: begin the chain again
                    ended = weights(killed) != weights(quiet)
                    for path in glob.glob(f"{killed}/weights/tiny/step[234]*"):
                        os.remove(path)
            else:
                lines = Path(killed, "output.txt").read_text().splitlines()
                if not any("was killed" in line for line in lines[-3:]):
                    raise RuntimeError("\n".join(lines[-20:]))
        return fallen, weights(quiet), weights(killed)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=40, help="of each step (default: %(default)s)")
    parser.add_argument("--gpu", type=int, help="train there, with --deterministic")
    options = parser.parse_args()
    began = time.monotonic()
    fallen, wanted, found = run(options.kills, options.seed, options.iterations, options.gpu)
    for place, count in sorted(fallen.items()):
        print(f"{count:4} kills of {place}")
    print(f"{sum(fallen.values())} kills in {time.monotonic() - began:.0f} s; weights of {', '.join(sorted(found))}: "
          f"{'the same bits' if found == wanted else 'DIFFERENT'}")  # fmt: skip
    return 0 if found == wanted and found else 1


if __name__ == "__main__":
    raise SystemExit(main())
