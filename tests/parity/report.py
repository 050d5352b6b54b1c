"""The whole comparison with real Caffe, written to docs/parity.md and docs/images/parity.png: `make parity`.

`make parity FAST=1` does what the tests cannot, as it needs what `make demo` leaves: the demo's step 4 from its own chain,
an iteration at a time. It writes no page. Both exit with 1 where a limit is exceeded.
"""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import comparison  # noqa: E402
import numpy as np  # noqa: E402
import training  # noqa: E402
import whole_nets  # noqa: E402
from headline import along, headline, too_far  # noqa: E402
from net_jobs import ITERATIONS, NETS, net_jobs  # noqa: E402
from page import table  # noqa: E402

PAGE = ROOT / "docs" / "parity.md"
DIFFERS = Path(__file__).with_name("differs.md")
HEAD = """# torchcaffe against real Caffe 1.0

`make parity` wrote this page. It runs the same prototxts on the same numbers in real Caffe 1.0 (Debian 11's, installed by
`make caffe`) and in torchcaffe, both on the CPU in float32. Differences are relative: of an array's element, to the larger
of its magnitude and the array's mean magnitude; of a loss, to the iteration's loss.
"""


def solvers():
    from solver_jobs import ITERATIONS, KINDS, POLICIES, SETTINGS, solver_jobs

    with tempfile.TemporaryDirectory() as folder:
        trained = training.train_both(solver_jobs(Path(folder)), folder)
    rows = []
    for kind in KINDS:
        of_kind = [one for one in trained if one.name.split()[0] == kind]
        rows.append((kind, len(of_kind), largest(of_kind, "curve"), largest(of_kind, "weights")))
    text = f"""
## Solvers, {ITERATIONS} iterations each

A small net with random data, xavier fillers and dropout from one seed; every learning rate policy
({", ".join(POLICIES)}),
and cases with {", ".join(name for name in SETTINGS if name != "all")}, and all of these together.
"""
    over = [f"{one.name}: {one.curve:.1e}, {one.weights:.1e}" for one in trained
            if not max(one.curve, one.weights) <= training.LIMIT]  # fmt: skip
    return text + table(("solver", "cases", "loss curve", "weights"), rows), over


def nets():
    """(Markdown, what exceeded its limit): one net after the other, as the large ones take gigabytes of disk."""
    compared = []
    for name in NETS:
        print(f"    {name}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            compared += whole_nets.compare(net_jobs(folder, "paper", [name]), folder)
    rows = []
    for one in compared:
        at = NETS[one.trained.name].paper
        width = "" if at.width == 1 else f", {at.width:g} of the width"
        size = f"{at.batch} of {at.side} {NETS[one.trained.name].unit}{width}"
        rows.append((one.trained.name, size, one.forward, one.backward, one.trained.curve, one.trained.weights))
    text = f"""
## Whole nets, {ITERATIONS} iterations of SGD each

Each net is written from its paper, with its dropout and auxiliary heads, and starts from the same weights in both engines.
Compared are forward and backward (data, diff and gradient of every blob, relative to its root mean square; backward from
the same activations, because within rounding of a ReLU's kink either gradient is valid), then {ITERATIONS} iterations. Learning
rates are the authors', scaled to the smaller batch; lower where rounding would otherwise grow (`tests/parity/net_jobs.py`:
`slower`). VGG-Face starts from a file in V1 format, MTCNN's nets from their authors' weights, the others from fillers.
"""
    names = ("net", "batch", "forward", "backward", "loss curve", "weights")
    return text + table(names, rows), whole_nets.over(compared)


def layers():
    rows = comparison.compare()
    over = [f"layer {name}: differs by {apart:.1e}" for name, _, apart in rows if not apart <= comparison.LIMIT]
    total = ("all", sum(row[1] for row in rows), max(row[2] for row in rows))
    text = "\n## Layers\n\nForward and backward: data and diffs of all blobs and parameters.\n"
    return text + table(("layer", "cases", "largest difference"), [*rows, total]), over


def largest(trained, what):
    return max(getattr(one, what) for one in trained)


def main():
    if not comparison.CAFFE_PYTHON.exists():
        print("make parity needs real Caffe in .caffe/: type `make caffe`", file=sys.stderr)
        return 1
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if sys.argv[1:] == ["--fast"]:
        followed = along()
        print(f"step 4 of the demo, {len(followed.loss)} iterations, each from real Caffe's weights and momentum: losses "
              f"differ by at most {followed.loss.max():.1e}, momentum mostly by {np.median(followed.history):.1e}")  # fmt: skip
        return finish(too_far(followed))
    text, over = HEAD, []
    for section in (headline, solvers, nets, layers):
        print(section.__name__, "...", flush=True)
        found, exceeded = section()
        text, over = text + found, over + exceeded
    text += "\n" + DIFFERS.read_text()
    PAGE.write_text(text)
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return finish(over)


def finish(over):
    """Say what exceeded its limit; the exit status."""
    for sentence in over:
        print(f"beyond the limit: {sentence}", file=sys.stderr)
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
