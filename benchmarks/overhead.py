"""Overhead of an iteration: a deep net of tiny layers against plain torch modules.

    python -m benchmarks.overhead
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.measuring import cost, run, side_by_side

BLOCKS, WIDTH, SIZE, BATCH = 12, 8, 8, 4
ITERATIONS = 200


def solver(folder, device, compiled=False):
    """Solver of BLOCKS convolutions with ReLU, an inner product and a softmax loss, on constant data."""
    os.environ["GLOG_minloglevel"] = "2"
    import torchcaffe as caffe
    from torchcaffe import layers

    net = caffe.NetSpec()
    shapes = [dict(dim=[BATCH, WIDTH, SIZE, SIZE]), dict(dim=[BATCH])]
    fillers = [dict(type="constant", value=0.5), dict(type="constant", value=1)]
    net.data, net.label = layers.DummyData(ntop=2, shape=shapes, data_filler=fillers)
    bottom = net.data
    for index in range(BLOCKS):
        fill = dict(type="xavier")
        net[f"conv{index}"] = layers.Convolution(bottom, num_output=WIDTH, kernel_size=3, pad=1, weight_filler=fill)
        net[f"relu{index}"] = bottom = layers.ReLU(net[f"conv{index}"], in_place=True)
    net.score = layers.InnerProduct(bottom, num_output=10, weight_filler=dict(type="xavier"))
    net.loss = layers.SoftmaxWithLoss(net.score, net.label)
    Path(folder, "net.prototxt").write_text(str(net.to_proto()))
    Path(folder, "solver.prototxt").write_text(
        f'train_net: "{folder}/net.prototxt" base_lr: 0.001 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.0005 '
        "max_iter: 1000000 random_seed: 1 snapshot_after_train: false"
    )
    if device == "cpu":
        caffe.set_mode_cpu()
    else:
        caffe.set_device(int(device.split(":")[1]))
        caffe.set_mode_gpu()
    caffe.set_compile(compiled)
    one = caffe.get_solver(f"{folder}/solver.prototxt")
    one.keep_diffs = not compiled
    return one


def modules(device):
    """The same in torch.nn with torch.optim.SGD; returns a function that trains ITERATIONS iterations."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    blocks = [module for _ in range(BLOCKS) for module in (nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(inplace=True))]
    model = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(WIDTH * SIZE * SIZE, 10))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.001, momentum=0.9, weight_decay=0.0005)
    images = torch.full((BATCH, WIDTH, SIZE, SIZE), 0.5, device=device).to(memory_format=torch.channels_last)
    labels = torch.ones(BATCH, dtype=torch.long, device=device)

    def train():
        for _ in range(ITERATIONS):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            loss.item()  # a loop that reports its loss, as a solver does

    return train


def rows(options):
    import torch

    torch.set_num_threads(1)  # layers this small gain nothing from a second thread
    device = "cpu" if options.gpu is None else f"cuda:{options.gpu}"
    with tempfile.TemporaryDirectory() as folder:
        ours, compiled = (solver(folder, device, way) for way in (False, True))
        contenders = {"ours": lambda: ours.step(ITERATIONS), "compiled": lambda: compiled.step(ITERATIONS)}
        taken = side_by_side({**contenders, "torch": modules(device)}, rounds=7)
    per = {name: seconds / ITERATIONS * 1e3 for name, seconds in taken.items()}
    what, baseline = f"one iteration, {BLOCKS} tiny convolutions", "torch modules and torch.optim.SGD"
    return [
        cost(what, per["ours"], per["torch"], baseline, "ms", 1.3),
        cost(f"{what}, compiled", per["compiled"], per["torch"], baseline, "ms", 1.3),
    ]


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
