"""Precisions: what bf16 changes, and that float32 stays what it is."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core import precision

NET = """name: "small"
layer { name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 8 dim: 3 dim: 12 dim: 12 } shape { dim: 8 }
  data_filler { type: "uniform" min: -1 max: 1 } data_filler { type: "constant" value: 1 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 8 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "bn" type: "BatchNorm" bottom: "pool" top: "bn" }
layer { name: "ip" type: "InnerProduct" bottom: "bn" top: "ip"
  inner_product_param { num_output: 16 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "ip" top: "ip" }
layer { name: "score" type: "InnerProduct" bottom: "ip" top: "score"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss" }
"""
SOLVER = 'train_net: "{net}" base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" max_iter: 99 random_seed: 3'


@pytest.fixture
def solver(tmp_path):
    """solver(precision) -> a solver of the small net, always from the same seed."""

    def make(precision):
        (tmp_path / "net.prototxt").write_text(NET)
        (tmp_path / "solver.prototxt").write_text(SOLVER.format(net=tmp_path / "net.prototxt"))
        caffe.set_precision(precision)
        return caffe.get_solver(str(tmp_path / "solver.prototxt"))

    yield make
    caffe.set_precision("float32")


def losses(solver, count=30):
    found = []
    for _ in range(count):
        solver.step(1)
        found.append(float(solver.net.blobs["loss"].data))
    return np.array(found)


def test_bf16_trains_nearly_as_float32_and_not_the_same(solver):
    reference, narrow = losses(solver("float32")), losses(solver("bf16"))
    assert reference[-1] < 0.5 * reference[0]
    assert not np.array_equal(reference, narrow)
    np.testing.assert_allclose(narrow, reference, atol=0.03)


def test_bf16_activations_are_bfloat16_and_what_decides_is_float32(solver):
    one = solver("bf16")
    types = {}
    for index, layer in enumerate(one.net.built_layers):
        forward = layer.forward

        def spied(*bottoms, forward=forward, name=layer.name):
            tops = forward(*bottoms)
            types[name] = (bottoms[0].dtype if bottoms else None, (tops[0] if isinstance(tops, (tuple, list)) else tops).dtype)
            return tops

        layer.forward = spied
    one.net.forward()
    narrow, full = torch.bfloat16, torch.float32
    assert types["conv"][1] == types["pool"][1] == types["ip"][1] == types["drop"][1] == narrow
    assert types["bn"] == (full, full) and types["loss"] == (full, full)


@pytest.mark.parametrize("whole", [True, False])
def test_blobs_show_float32_whatever_computes(solver, whole):
    one = solver("bf16")
    if not whole:
        one.net.after_forward(lambda index: None)  # somebody looks: a layer at a time
    one.step(3)
    for blob in one.net.blobs.values():
        assert blob.data.dtype == blob.diff.dtype == np.float32
    rounded = torch.from_numpy(one.net.blobs["conv"].data).bfloat16().float().numpy()
    assert np.array_equal(rounded, one.net.blobs["conv"].data) and rounded.any()
    assert one.net.blobs["conv"].diff.any()
    weights = one.net.params["conv"][0].data
    assert not np.array_equal(weights, torch.from_numpy(weights).bfloat16().float().numpy())  # weights keep all bits


def test_a_layer_at_a_time_and_one_sweep_agree_in_bf16(solver):
    sweep = losses(solver("bf16"), 5)  # before the other is built: both draw from the one seed
    layerwise = solver("bf16")
    layerwise.net.after_forward(lambda index: None)
    np.testing.assert_allclose(losses(layerwise, 5), sweep, rtol=2e-3)


def test_a_net_keeps_the_precision_it_was_built_with(solver):
    one = solver("float32")
    caffe.set_precision("bf16")
    one.net.forward()
    assert one.net.blobs["conv"].tensor().dtype == torch.float32


def test_what_is_refused(solver):
    with pytest.raises(ValueError, match="unknown precision 'half'; known: float32, tf32, bf16"):
        caffe.set_precision("half")
    with pytest.raises(RuntimeError, match="tf32 is a GPU's"):
        solver("tf32")


def test_cudnn_tries_its_algorithms_in_training_only(monkeypatch):
    """What it picks depends on the moment, and an answer must not depend on what ran before it in the process."""
    cudnn = SimpleNamespace(benchmark=None)
    monkeypatch.setattr(torch, "backends", SimpleNamespace(cuda=SimpleNamespace(matmul=SimpleNamespace()), cudnn=cudnn))
    net = SimpleNamespace(device=torch.device("cuda"), precision="float32")
    for training in (False, True, False):
        precision.apply(net, training=training)
        assert cudnn.benchmark is training
