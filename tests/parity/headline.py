"""The headline of docs/parity.md: the demo's step 4 in both engines, freely and along real Caffe's own path."""

import tempfile
from pathlib import Path

import numpy as np  # noqa: E402
import training  # noqa: E402
from comparison import ROOT
from headline_job import COMMITTED_RATE, ITERATIONS, RATE, RATES, chain_files, step4_job
from page import table  # noqa: E402

from common import palette

PICTURE = ROOT / "docs" / "images" / "parity.png"
FROM_CHAIN = """the demo's own step 3 (`weights/demo/step3_gnet.caffemodel`) and LMDB of faces, which `make demo` makes."""
MADE_UP = """the same random VGG-Face weights of the demo's width, and an LMDB of synthetic images. (After `make demo`, `make parity`
uses the demo's weights and faces instead.)"""


def along():
    """Followed of step 4 at the committed rate, from the demo's own chain where it is there."""
    with tempfile.TemporaryDirectory() as folder:
        return training.follow(step4_job(Path(folder), chain=chain_files()), folder)


def too_far(followed):
    """Sentences on what exceeds its limit, of along()'s answer."""
    if followed.loss.max() <= training.LIMIT:
        return []
    return [f"step 4, each iteration from Caffe's weights: losses differ by {followed.loss.max():.1e}, limit {training.LIMIT:g}"]


def headline():
    """(Markdown, what exceeded its limit) of the section; draws the picture."""
    chain, followed = chain_files(), along()
    free = [both_ways(rate, chain) for rate in RATES]
    slow = free[0][0]
    draw(slow, followed)
    worst, usual = (np.max, np.median)
    rows = [
        (what, float(usual(values)), float(worst(values)))
        for what, values in (
            ("loss", followed.loss),
            ("weights after the iteration", followed.weights),
            ("momentum after the iteration", followed.history),
        )
    ]
    text = f"""
## The demo's step 4, {ITERATIONS} iterations

`solvers/demo/step4_gnet.prototxt` and its net, with mirroring, random crops and dropout from one seed. Both engines read
{FROM_CHAIN if chain else MADE_UP}

Trained independently at base_lr {RATE:g}, the loss curves of the two engines differ by at most **{slow.curve:.1e}** (target: at
most 1e-3). The loss goes from {slow.theirs[0]:.3g} to {slow.theirs[-1]:.3g}.

At the solver's own base_lr, {COMMITTED_RATE:g}, torchcaffe repeats each of Caffe's {ITERATIONS} iterations from Caffe's weights and momentum
before it, with one continuing random stream: the losses differ by at most **{worst(followed.loss):.1e}**.

| of {ITERATIONS} iterations at {COMMITTED_RATE:g} | median difference | largest |
|---|---|---|
""" + "".join(f"| {what} | {a:.1e} | {b:.1e} |\n" for what, a, b in rows)
    text += """
The few large differences come from a ReLU or a maximum that switches because of rounding.

![Both loss curves](images/parity.png)

Trained independently at that rate, the curves diverge, as do those of real Caffe with two different OpenBLAS kernels
(`OPENBLAS_CORETYPE`): training amplifies differences in the last bit, faster at higher learning rates. The largest
differences within 100 iterations:
"""
    text += table(
        ("base_lr", "loss, torchcaffe", "loss, Caffe with other kernels", "weights, torchcaffe", "weights, Caffe with other kernels"),
        [(f"{rate:g}", a.curve, b.curve, a.weights, b.weights) for rate, (a, b) in zip(RATES, free)],
    )
    over = []
    if not slow.curve <= training.LIMIT:
        over.append(f"step 4 at base_lr {RATE:g}: loss curves differ by {slow.curve:.1e}, limit {training.LIMIT:g}")
    return text, over + too_far(followed)


def both_ways(rate, chain):
    """(torchcaffe against real Caffe, real Caffe against itself with other kernels), trained freely at `rate`."""
    found = []
    for train in (training.train_both, training.caffe_twice):
        with tempfile.TemporaryDirectory() as folder:
            found += train([step4_job(Path(folder), rate=rate, chain=chain)], folder)
    return found


def draw(slow, followed):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, plots = pyplot.subplots(1, 2, figsize=(11, 3.2), layout="constrained")
    titles = (f"base_lr {RATE:g}, each by itself", f"base_lr {COMMITTED_RATE:g}, each iteration from Caffe's weights")
    for axes, one, title in zip(plots, (slow, followed), titles):
        axes.plot(one.theirs, color=palette.ORANGE, linewidth=4, alpha=0.5, label="Caffe 1.0")
        axes.plot(one.ours, color=palette.BLUE, linewidth=1, label="torchcaffe")
        axes.set(xlabel="iteration", ylabel="training loss", title=title)
        axes.legend(frameon=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
