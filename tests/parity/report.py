"""The whole comparison with real Caffe, written to docs/parity.md and docs/images/parity.png: `make parity`."""

import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import comparison  # noqa: E402
import training  # noqa: E402
from headline import headline  # noqa: E402
from page import table  # noqa: E402

PAGE = ROOT / "docs" / "parity.md"
DIFFERS = Path(__file__).with_name("differs.md")
HEAD = """# torchcaffe against real Caffe 1.0

`make parity` wrote this page: the same prototxts on the same numbers in real Caffe 1.0 (Debian 11's, on the CPU,
unpacked by `make caffe`) and in torchcaffe (on the CPU), in float32. Differences are relative: of an array's element,
to the larger of the element and the array's mean size; of a loss, to the iteration's loss.
"""


def solvers(folder):
    from solver_jobs import ITERATIONS, KINDS, POLICIES, SETTINGS, solver_jobs

    trained = training.train_both(solver_jobs(folder), folder)
    rows = []
    for kind in KINDS:
        of_kind = [one for one in trained if one.name.split()[0] == kind]
        rows.append((kind, len(of_kind), largest(of_kind, "curve"), largest(of_kind, "weights")))
    text = f"""
## Solvers, {ITERATIONS} iterations each

A small net with random data, xavier fills and dropout from one seed; every learning rate policy
({", ".join(POLICIES)}), and {", ".join(SETTINGS)} on top.
"""
    return text + table(("solver", "cases", "loss curve", "weights"), rows)


def nets(folder):
    from net_jobs import ITERATIONS, net_jobs

    trained = training.train_both(net_jobs(folder), folder)
    rows = [(one.name, len(one.theirs), one.curve, one.weights) for one in trained]
    text = f"\n## Whole nets, {ITERATIONS} iterations of SGD each\n\nSmall nets of the kinds people train.\n"
    return text + table(("net", "iterations", "loss curve", "weights"), rows)


def layers():
    rows = comparison.compare()
    total = ("all", sum(row[1] for row in rows), max(row[2] for row in rows))
    text = "\n## Layers\n\nForward and backward: data and diffs of all blobs and parameters.\n"
    return text + table(("layer", "cases", "largest difference"), [*rows, total])


def largest(trained, what):
    return max(getattr(one, what) for one in trained)


def main():
    if not comparison.CAFFE_PYTHON.exists():
        print("make parity needs real Caffe in .caffe/: type `make caffe`", file=sys.stderr)
        return 1
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print("headline ...", flush=True)
    text, over = headline()
    text = HEAD + text
    for section in (solvers, nets):
        print(section.__name__, "...", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            text += section(Path(folder))
    print("layers ...", flush=True)
    text += layers() + "\n" + DIFFERS.read_text()
    PAGE.write_text(text)
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
