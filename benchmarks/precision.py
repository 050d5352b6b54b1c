"""bf16 training against float32: 200 iterations of the demo's step 4, on the demo's own faces.

    python -m benchmarks.precision     # after `make demo`; draws docs/images/precision.png

Same weights, images, mirrors, crops and dropout masks in both; base_lr as committed. float32 runs twice, from seeds
apart, to show how far apart two runs of one precision are.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import ROOT, cost, run
from common import palette

ITERATIONS = 200
WINDOW = 20  # iterations that a plotted point averages
PICTURE = ROOT / "docs" / "images" / "precision.png"


def losses(folder, precision, seed):
    """(loss of each iteration, accuracy on the validation faces) of the demo's step 4 of GNet."""
    os.environ["GLOG_minloglevel"] = "2"
    import recipe
    import torchcaffe as caffe

    caffe.set_mode_cpu()
    caffe.set_precision(precision)
    net = (ROOT / recipe.net_prototxt("demo", "gnet", 4)).read_text()
    Path(folder, "net.prototxt").write_text(re.sub(r'source: "([^"]*)"', rf'source: "{ROOT}/\1"', net))
    solver = (ROOT / recipe.solver_prototxt("demo", "gnet", 4)).read_text()
    changes = {"net": f'net: "{folder}/net.prototxt"', "random_seed": f"random_seed: {seed}", "display": "display: 0"}
    changes.update(test_interval="test_interval: 1000000", test_initialization="test_initialization: false")
    for name, line in changes.items():
        solver = re.sub(rf"(?m)^{name}:.*$", line, solver)
    path = Path(folder, "solver.prototxt")
    path.write_text(solver.replace("snapshot: 500", "snapshot: 0"))
    one = caffe.get_solver(str(path))
    one.net.copy_from(str(ROOT / recipe.step_weights("demo", "gnet", 3)))
    one.keep_diffs = False
    found = []
    for _ in range(ITERATIONS):
        one.step(1)
        found.append(float(one.net.blobs["loss"].data))
    test = one.test_nets[0]
    test.share_with(one.net)
    accuracies = [float(test.forward()["accuracy"]) for _ in range(6)]
    caffe.set_precision("float32")
    return found, sum(accuracies) / len(accuracies)


def rows(options):
    import recipe

    needed = [recipe.step_weights("demo", "gnet", 3), recipe.lmdb_paths("demo", "gnet", 4)["train"]]
    missing = [path for path in needed if not (ROOT / path).exists()]
    if missing:
        print(f"left out: {', '.join(missing)} missing; `make demo` makes them", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            "float32": losses(folder, "float32", 2016),
            "bf16": losses(folder, "bf16", 2016),
            "float32, another seed": losses(folder, "float32", 2017),
        }
    draw({name: curve for name, (curve, _) in runs.items()})
    mean = {name: sum(curve) / len(curve) for name, (curve, _) in runs.items()}
    notes = {name: f"validation accuracy {runs[name][1]:.2%}, of float32 {runs['float32'][1]:.2%}" for name in runs}
    what = f"mean training loss of {ITERATIONS} iterations"
    return [
        cost(f"{what}, {name}", mean[name], mean["float32"], "float32", "", None, notes[name])
        for name in ("bf16", "float32, another seed")
    ]


def draw(curves):
    import matplotlib

    matplotlib.use("Agg")
    import numpy as np
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    for (name, curve), color in zip(curves.items(), (palette.ORANGE, palette.BLUE, palette.GRAY)):
        smooth = np.convolve(curve, np.ones(WINDOW) / WINDOW, "valid")
        axes.plot(range(WINDOW, len(curve) + 1), smooth, color=color, label=name, zorder=0 if "seed" in name else 2)
    axes.set(xlabel="iteration", ylabel=f"training loss, mean of {WINDOW}", title="Step 4 of GNet, demo profile")
    axes.legend(frameon=False)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
