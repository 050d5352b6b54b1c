"""A pycaffe for Python 2.7 and later: what a Caffe of one's own looks like from gender_smile/training/solve.py.

Like the real one it takes no unicode in Python 2, and has no mean_loss, gradient_norms or copy_report. Its weights are
numpy files.
"""
import re

import numpy as np

TRAIN, TEST = 0, 1


def set_mode_cpu():
    pass


class Blob(object):
    def __init__(self, *values):
        self.data = np.array(values, np.float32)
        self.diff = np.ones_like(self.data)


class Net(object):
    outputs = ["accuracy", "loss"]

    def __init__(self):
        self.params = {"conv": [Blob(0.5, 0.25), Blob(0.0)], "fc": [Blob(0.75), Blob(0.0)]}
        self.blobs = {"loss": Blob(2.0)}
        self.blob_loss_weights = {"accuracy": 0.0, "loss": 1.0}

    def copy_from(self, path):
        assert isinstance(path, str)
        with open(path, "rb") as stream:
            self.params["conv"][0].data[...] = np.load(stream)

    def share_with(self, other):
        self.params = other.params

    def forward(self):
        return {"accuracy": np.array(0.5), "loss": np.array(1.0)}


class Solver(object):
    def __init__(self, path):
        assert isinstance(path, str)
        with open(path) as stream:
            text = stream.read()
        self.prefix = re.search('snapshot_prefix: "(.*)"', text).group(1)
        self.iter, self.net, self.test_nets = 0, Net(), [Net()]

    def step(self, count):
        for _ in range(count):
            self.iter += 1
            self.net.params["conv"][0].data += 1
            self.net.blobs["loss"].data[...] = 1.0 / self.iter

    def snapshot(self):
        for suffix in ("caffemodel", "solverstate"):
            with open("%s_iter_%d.%s" % (self.prefix, self.iter, suffix), "wb") as stream:
                np.save(stream, self.net.params["conv"][0].data)

    def restore(self, path):
        assert isinstance(path, str)
        self.iter = int(re.search(r"_iter_(\d+)", path).group(1))


def get_solver(path):
    return Solver(path)
