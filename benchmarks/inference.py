"""Forward passes of the paper's net: one image and 64, against real Caffe, OpenCV and plain PyTorch.

    python -m benchmarks.inference
"""

from __future__ import annotations

import os
import tempfile

from benchmarks.child import Child
from benchmarks.measuring import CAFFE_PYTHON, ROOT, rate, run, side_by_side

DEFINITION = ROOT / "prototxt" / "paper" / "deploy_gender.prototxt"
MANY = 64


def write_weights(folder, definition=DEFINITION, name="random.caffemodel"):
    """Caffemodel of one of the paper's nets with random weights whose activations keep their size; its path."""
    import numpy as np

    os.environ["GLOG_minloglevel"] = "2"
    import torchcaffe as caffe

    net, random = caffe.Net(str(definition), caffe.TEST), np.random.RandomState(0)
    for weight, _ in net.params.values():
        fan_in = np.prod(weight.shape[1:])
        weight.data[...] = random.standard_normal(weight.shape).astype(np.float32) * np.sqrt(2 / fan_in)
    path = os.path.join(folder, name)
    net.save(path)
    return path


# ---- what the children run: see benchmarks/child.py
def forward(caffe, weights, count=1, gpu=None):
    """Forward of `count` images, in real Caffe or torchcaffe."""
    import numpy as np

    if gpu is None:
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    net = caffe.Net(str(DEFINITION), caffe.TEST, weights=weights)
    images = np.random.RandomState(1).standard_normal((count, 3, 224, 224)).astype(np.float32)
    net.blobs["data"].reshape(*images.shape)

    def call():
        net.blobs["data"].data[...] = images
        return float(net.forward()["prob"].sum())

    return call


def opencv(caffe, weights):
    """The same in OpenCV's DNN module, one image."""
    import cv2
    import numpy as np

    net = cv2.dnn.readNetFromCaffe(str(DEFINITION), weights)
    images = np.random.RandomState(1).standard_normal((1, 3, 224, 224)).astype(np.float32)

    def call():
        net.setInput(images)
        return float(net.forward().sum())

    return call


def loop(caffe, weights, count=1, gpu=None):
    """The same as a hand-written PyTorch function, channels-last throughout."""
    import torch
    import torch.nn.functional as F

    from benchmarks.torch_loop import BLOCKS

    device = "cpu" if gpu is None else f"cuda:{gpu}"
    net = caffe.Net(str(DEFINITION), caffe.TEST, weights=weights)
    tensors = [[torch.from_numpy(blob.data.copy()).to(device) for blob in blobs] for blobs in net.params.values()]
    tensors = [(w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w, b) for w, b in tensors]
    given = torch.randn(count, 3, 224, 224)

    @torch.inference_mode()
    def call():
        x, layer = given.to(device, memory_format=torch.channels_last), iter(tensors)
        for block in BLOCKS:
            for _ in block:
                x = F.relu_(F.conv2d(x, *next(layer), padding=1))
            x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for last in (False, False, True):
            weight, bias = next(layer)
            x = F.linear(x, weight.flatten(1), bias)
            x = F.softmax(x, 1) if last else F.relu_(x)
        return float(x.sum())

    return call


def measured(functions, rounds, warm_up=1):
    """Median seconds a call of each {name: (engine, function, arguments)}, in turns."""
    plain = {"GOMP_SPINCOUNT": "300000"}  # OpenMP's own, for PyTorch without torchcaffe's choice
    children = {name: Child(engine, f"benchmarks.inference:{function}", plain if name == "torch" else None, **arguments)
                for name, (engine, function, arguments) in functions.items()}  # fmt: skip
    try:
        return side_by_side(children, rounds, warm_up)
    finally:
        for child in children.values():
            child.close()


def rows(options):
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(folder)
        common = {"weights": weights, "gpu": options.gpu}
        one = {"ours": ("torch", "forward", common), "torch": ("torch", "loop", common)}
        if options.gpu is None:
            one["opencv"] = ("torch", "opencv", {"weights": weights})
            if CAFFE_PYTHON.exists():
                one["caffe"] = ("caffe", "forward", {"weights": weights})
        single = {name: 1 / seconds for name, seconds in measured(one, 21, warm_up=10).items()}
        many = {name: (engine, function, {**arguments, "count": MANY}) for name, (engine, function, arguments)
                in one.items() if name in ("ours", "torch")}  # fmt: skip
        batch = {name: MANY / seconds for name, seconds in measured(many, 3).items()}
    found = []
    baseline = {"caffe": ("real Caffe 1.0", 1.9), "opencv": ("OpenCV DNN (Winograd)", 0.9), "torch": ("plain PyTorch", None)}
    for name, (title, bar) in baseline.items():
        if name in single:
            found.append(rate("one image through VGG-16", single["ours"], single[name], title, "images/s", bar))
    found.append(rate(f"{MANY} images", batch["ours"], batch["torch"], "plain PyTorch", "images/s", 0.95))
    return found


if __name__ == "__main__":
    raise SystemExit(run(__doc__, rows))
