"""The parity cases on their way out of Caffe: each net with its numbers, and what torchcaffe itself computes for it."""

import collections

import numpy as np
import pytest
import run_cases
import torch
from case import Case, values
from cases import CASES

import torchcaffe as caffe

SOURCES = ("Data", "ImageData", "WindowData", "HDF5Data", "MemoryData", "DummyData", "HDF5Output", "Python")
# Whole windows of what is no number: Caffe skips it, PyTorch and onnxruntime do not.
STRANGE = ("special", "holes")


def layer_cases(phase):
    """[(number, case)] with every layer that computes, in this phase."""
    found = []
    for number, case in enumerate(CASES):
        if case.type in SOURCES or any(kind in STRANGE for _, kind in case.bottoms):
            continue
        other = Case.__new__(Case)
        other.__dict__.update(case.__dict__, phase=phase)
        found.append((number, other))
    return found


def some(cases, most):
    """The first, and then every few of each type's cases."""
    by_type = collections.defaultdict(list)
    for number, case in cases:
        by_type[case.type].append((number, case))
    return [pair for pairs in by_type.values() for pair in pairs[:: max(1, len(pairs) // most)][:most]]


# A few cases of each type, and all of them.
SHARES = pytest.mark.parametrize("most", [3, pytest.param(10_000, marks=pytest.mark.slow)])


class Run:
    """A case's net, filled: `arrays` are its inputs; `tops` is what torchcaffe gives, {name: array}."""

    def __init__(self, folder, case, number):
        self.case, self.random = case, np.random.RandomState(number)
        self.net = run_cases.build(caffe, "torchcaffe", folder, case, number)
        if case.parameters is not None:
            for blobs in self.net.params.values():
                for blob in blobs:
                    blob.data[...] = values(case.parameters, blob.data.shape, self.random)
        self.forward(0)

    def forward(self, turn):
        """Run on the bottoms of this turn: the second may have other shapes."""
        run_cases.fill(self.net, self.case, turn, self.random)
        self.arrays = {name: np.array(self.net.blobs[name].data) for name in self.net.inputs}
        self.net.forward()
        self.tops = {name: np.array(self.net.blobs[name].data) for name in self.net.outputs}

    def tensors(self):
        return [torch.from_numpy(array.copy()) for array in self.arrays.values()]
