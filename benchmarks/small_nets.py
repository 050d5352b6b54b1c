"""Small nets: LeNet, and one of a quarter of its units, on one thread, against real Caffe and bare torch calls.

    python -m benchmarks.small_nets
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.child import Child
from benchmarks.measuring import CAFFE_PYTHON, cost, run, side_by_side

ROUNDS, SECONDS = 9, 0.2  # turns, and what a contender's turn lasts about
TIMES_CAFFE = 3  # the target

FILLERS = 'weight_filler { type: "xavier" } bias_filler { type: "constant" }'
LAYERS = f"""
layer {{ name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  convolution_param {{ num_output: 20 kernel_size: 5 stride: 1 {FILLERS} }} }}
layer {{ name: "pool1" type: "Pooling" bottom: "conv1" top: "pool1" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "conv2" type: "Convolution" bottom: "pool1" top: "conv2" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  convolution_param {{ num_output: 50 kernel_size: 5 stride: 1 {FILLERS} }} }}
layer {{ name: "pool2" type: "Pooling" bottom: "conv2" top: "pool2" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "ip1" type: "InnerProduct" bottom: "pool2" top: "ip1" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: 500 {FILLERS} }} }}
layer {{ name: "relu1" type: "ReLU" bottom: "ip1" top: "ip1" }}
layer {{ name: "ip2" type: "InnerProduct" bottom: "ip1" top: "ip2" param {{ lr_mult: 1 }} param {{ lr_mult: 2 }}
  inner_product_param {{ num_output: 10 {FILLERS} }} }}
"""
DEPLOY = f"""name: "LeNet"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 1 dim: 28 dim: 28 }} }} }}
{LAYERS}
layer {{ name: "prob" type: "Softmax" bottom: "ip2" top: "prob" }}
"""
TRAIN = f"""name: "LeNet"
layer {{ name: "mnist" type: "DummyData" top: "data" top: "label" dummy_data_param {{
  shape {{ dim: 64 dim: 1 dim: 28 dim: 28 }} shape {{ dim: 64 }}
  data_filler {{ type: "constant" value: 0.5 }} data_filler {{ type: "constant" value: 3 }} }} }}
{LAYERS}
layer {{ name: "accuracy" type: "Accuracy" bottom: "ip2" bottom: "label" top: "accuracy" include {{ phase: TEST }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "ip2" bottom: "label" top: "loss" }}
"""
SOLVER = """net: "{folder}/train_val.prototxt" base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: "inv"
gamma: 0.0001 power: 0.75 display: 0 max_iter: 1000000 random_seed: 1 snapshot_after_train: false solver_mode: CPU
"""


def write_files(folder):
    """LeNet as it is deployed (batch 1; also with a quarter of the units) and trained (batch 64), and its solver."""
    quarter = DEPLOY
    for units, fewer in (("20", "5"), ("50", "13"), ("500", "125")):
        quarter = quarter.replace(f"num_output: {units} ", f"num_output: {fewer} ")
    texts = {"deploy": DEPLOY, "quarter": quarter, "train_val": TRAIN, "solver": SOLVER.replace("{folder}", str(folder))}
    for name, text in texts.items():
        Path(folder, f"{name}.prototxt").write_text(text)


# ---- what the children run, in both engines: see benchmarks/child.py. Each gives the milliseconds of one call.
def make(caffe, folder, name, phase):
    """Net()."""
    return timed(lambda: caffe.Net(f"{folder}/{name}.prototxt", phase))


def forward(caffe, folder, count, name="deploy"):
    """Forward of `count` images that are in the blob already."""
    return timed(_filled(caffe, folder, count, name).forward)


def forward_data(caffe, folder, count):
    """Forward of `count` images given as an argument."""
    net = _filled(caffe, folder, count)
    images = net.blobs["data"].data.copy()
    return timed(lambda: net.forward(data=images))


def forward_reshaped(caffe, folder, count):
    """Reshape to `count` images and to one, with a forward of each."""
    net = _filled(caffe, folder, count)

    def call():
        for size in (count, 1):
            net.blobs["data"].reshape(size, 1, 28, 28)
            net.forward()

    return timed(call)


def forward_backward(caffe, folder):
    """Forward and backward of the training net, layer by layer as pycaffe's calls do it."""
    net = caffe.Net(f"{folder}/train_val.prototxt", caffe.TRAIN)

    def call():
        net.forward()
        net.backward()

    return timed(call)


def step(caffe, folder):
    """An iteration of training."""
    solver = caffe.SGDSolver(f"{folder}/solver.prototxt")
    return timed(lambda: solver.step(1))


def bare(caffe, folder, count, name="deploy"):
    """The deployed net's forward as torch calls and nothing else."""
    import torch
    import torch.nn.functional as F

    net = _filled(caffe, folder, count, name)
    (w1, b1), (w2, b2), (w3, b3), (w4, b4) = [[torch.from_numpy(b.data.copy()) for b in bs] for bs in net.params.values()]
    images = torch.from_numpy(net.blobs["data"].data.copy())

    @torch.no_grad()
    def call():
        x = F.max_pool2d(F.conv2d(images, w1, b1), 2)
        x = F.max_pool2d(F.conv2d(x, w2, b2), 2)
        x = F.relu_(F.linear(x.flatten(1), w3, b3))
        return F.softmax(F.linear(x, w4, b4), 1)

    return timed(call)


def _filled(caffe, folder, count, name="deploy"):
    import numpy as np

    net = caffe.Net(f"{folder}/{name}.prototxt", caffe.TEST)
    net.blobs["data"].reshape(count, 1, 28, 28)
    net.reshape()
    net.blobs["data"].data[...] = np.random.RandomState(0).rand(count, 1, 28, 28)
    return net


def timed(call):
    """A function that makes many calls and returns the median milliseconds of one, of ten parts.

    Of this thread's time, not the clock's: others may want the cores meanwhile.
    """
    import statistics
    import time

    def part(count):
        start = time.thread_time()
        for _ in range(count):
            call()
        return 1e3 * (time.thread_time() - start) / count

    part(3)
    count = max(1, int(1e3 * SECONDS / 10 / max(part(3), 1e-3)))
    return lambda: statistics.median(part(count) for _ in range(10))


# what is measured -> (function, arguments, target)
CALLS = {
    "Net() of LeNet, deploy": ("make", {"name": "deploy", "phase": 1}, TIMES_CAFFE),
    "Net() of LeNet, train_val": ("make", {"name": "train_val", "phase": 0}, TIMES_CAFFE),
    "Net() of a quarter of LeNet": ("make", {"name": "quarter", "phase": 1}, TIMES_CAFFE),
    "forward() of LeNet, batch 1": ("forward", {"count": 1}, TIMES_CAFFE),
    "forward() of a quarter of LeNet, batch 1": ("forward", {"count": 1, "name": "quarter"}, TIMES_CAFFE),
    "forward(data=...) of LeNet, batch 1": ("forward_data", {"count": 1}, None),
    "forward() of LeNet, batch 64": ("forward", {"count": 64}, None),
    "two reshapes and forward() of LeNet, batch 2 and 1": ("forward_reshaped", {"count": 2}, None),
    "forward() and backward() of LeNet, batch 64": ("forward_backward", {}, None),
    "solver.step(1) of LeNet, batch 64": ("step", {}, None),
}


def measured(folder, contenders):
    """Median milliseconds a call of each {name: (engine, function, arguments)}, taken in turns."""
    environment = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    children = {name: Child(engine, f"benchmarks.small_nets:{function}", environment, folder=folder, **arguments)
                for name, (engine, function, arguments) in contenders.items()}  # fmt: skip
    values = {name: [] for name in children}
    try:
        def turn(name):
            values[name].append(children[name]())

        side_by_side({name: lambda name=name: turn(name) for name in children}, ROUNDS)
    finally:
        for child in children.values():
            child.close()
    return {name: sorted(taken[1:])[len(taken[1:]) // 2] for name, taken in values.items()}


def rows(options):
    if options.gpu is not None:
        return []
    os.environ["GLOG_minloglevel"] = "2"
    found, engines = [], {"ours": "torch", **({"caffe": "caffe"} if CAFFE_PYTHON.exists() else {})}
    with tempfile.TemporaryDirectory() as folder:
        write_files(folder)
        for what, (function, arguments, limit) in CALLS.items():
            contenders = {name: (engine, function, arguments) for name, engine in engines.items()}
            if function == "forward":
                contenders["bare"] = ("torch", "bare", arguments)
            taken = measured(folder, contenders)
            for name, title, bar in (("caffe", "real Caffe 1.0", limit), ("bare", "bare torch calls", None)):
                if name in taken:
                    found.append(cost(what, taken["ours"], taken[name], title, "ms", bar))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
