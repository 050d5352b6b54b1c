"""A pycaffe without layers, for tests of the driver: starts at once, counts iterations, writes Caffe's files.

Each parameter is a small array that every iteration moves towards 1. The environment steers it: FAKE_SECONDS an
iteration takes; FAKE_LOSS="nan@5" or "stuck" spoils the loss; FAKE_EXPLODES=15 makes the
gradients of iteration 15 huge; FAKE_ABORT=3 dies in iteration 3 as Caffe's checks do; FAKE_SAYS names a file for the
switches that are set.
"""

import os
import sys
import time

import numpy as np

from torchcaffe.formats import files

TRAIN, TEST = 0, 1
__version__ = "fake"
LEARNING = ("Convolution", "InnerProduct")


def _say(what):
    if "FAKE_SAYS" in os.environ:
        with open(os.environ["FAKE_SAYS"], "a") as file:
            file.write(what + "\n")


def set_mode_cpu():
    _say("set_mode_cpu")


def set_deterministic():
    _say("set_deterministic")


def set_compile(compiles):
    _say("set_compile=%s" % compiles)


def set_mode_gpu():
    raise RuntimeError("this fake has no GPU")


def set_device(number):
    set_mode_gpu()


class Blob:
    def __init__(self, data):
        self.data = np.array(data, np.float32)
        self.diff = np.zeros_like(self.data)


class Net:
    def __init__(self, path, phase, weights=None):
        self.proto = files.read_net(path)
        learning = [layer.name for layer in self.proto.layer if layer.type in LEARNING]
        self.params = {name: [Blob([len(name), 0.25]), Blob([0.0])] for name in learning}
        self.blobs = {"loss": Blob(2.0)}
        self.outputs = ["accuracy", "loss"]
        self.blob_loss_weights = {"accuracy": 0.0, "loss": 1.0}
        if weights:
            self.copy_from(weights)

    def copy_from(self, path):
        for layer in files.read_weights(path):
            for blob, given in zip(self.params.get(layer.name, ()), layer.blobs):
                blob.data[...] = np.resize(given.data, blob.data.shape) if blob.data.size > 1 else 0

    def share_with(self, other):
        self.params = other.params

    def forward(self):
        accuracy = 1.0 - min(1.0, abs(1.0 - float(self.params["fc7"][0].data[1])))
        return {"accuracy": np.array(accuracy), "loss": np.array(1.0 - accuracy)}

    def save(self, path):
        names = {layer.name: layer for layer in self.proto.layer}
        net = type(self.proto)(layer=[names[name] for name in self.params])
        files.write_weights(path, net, [[blob.data for blob in blobs] for blobs in self.params.values()])


class Solver:
    def __init__(self, path):
        self.proto = files.read_solver(path)
        assert self.proto.test_interval > self.proto.max_iter, "the solver itself must not test"
        self.iter = 0
        self.net = Net(self.proto.net, TRAIN)
        self.test_nets = [Net(self.proto.net, TEST)]
        self.learned = 0.0

    @property
    def lr(self):
        return self.proto.base_lr * (1 - self.iter / self.proto.max_iter)

    def step(self, count):
        for _ in range(count):
            time.sleep(float(os.environ.get("FAKE_SECONDS", 0)))
            if os.environ.get("FAKE_ABORT") == str(self.iter):
                sys.stderr.write("F1123 19:07:00.008105 16676 blob.cpp:32] Check failed: shape[i] >= 0\n")
                sys.stderr.flush()
                os.abort()
            for blobs in self.net.params.values():
                blobs[0].data += np.float32(0.01) * (1 - blobs[0].data)
                blobs[0].diff[...] = 1e6 if os.environ.get("FAKE_EXPLODES") == str(self.iter) else 1
            self.net.blobs["loss"].data[...] = self._loss()
            self.iter += 1
            if self.proto.snapshot and self.iter % self.proto.snapshot == 0:
                self.snapshot()

    def _loss(self):
        spoiled = os.environ.get("FAKE_LOSS", "")
        if spoiled == "stuck":
            return 87.3365
        return np.nan if spoiled == f"nan@{self.iter}" else 1.0 / (1 + self.iter)

    def snapshot(self):
        stem = f"{self.proto.snapshot_prefix}_iter_{self.iter}"
        self.net.save(stem + ".caffemodel")
        files.write_solver_state(stem + ".solverstate", files.SolverState(self.iter, stem + ".caffemodel", 0, []))

    def restore(self, path):
        state = files.read_solver_state(path)
        self.net.copy_from(state.learned_net)
        self.iter = state.iter


def get_solver(path):
    return Solver(path)
