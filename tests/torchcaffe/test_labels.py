"""Labels that no class has: named at once, or as soon as a GPU is waited for."""

import numpy as np
import pytest

from torchcaffe.core.errors import NetError
from torchcaffe.layers import looking

NET = """layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: {items} dim: {classes} }} }} }}
layer {{ name: "labels" type: "Input" top: "labels" input_param {{ shape {{ dim: {items} }} }} }}
layer {{ name: "l" type: "{layer}" bottom: "x" bottom: "labels" top: "y" }}
"""


def given(make_net, layer, scores, labels):
    """A net of one layer that has seen these."""
    net = make_net(NET.format(layer=layer, items=scores.shape[0], classes=scores.shape[1]))
    net.blobs["x"].data[...], net.blobs["labels"].data[...] = scores, labels
    net.forward()
    return net


def test_labels_out_of_range_are_named(make_net):
    with pytest.raises(NetError, match='"l".*label 5 is outside 0 to 2'):
        given(make_net, "SoftmaxWithLoss", np.zeros((1, 3), np.float32), np.full((1,), 5, np.float32))


@pytest.mark.parametrize("layer", ["SoftmaxWithLoss", "Accuracy", "HingeLoss", "MultinomialLogisticLoss"])
def test_labels_out_of_range_are_named_once_the_gpu_is_waited_for(make_net, make_solver, monkeypatch, layer):
    """As where a look at the labels is to wait for a GPU: nothing is read before all layers have run."""
    monkeypatch.setattr(looking, "waits", lambda tensor: True)
    scores, labels = np.full((2, 3), 0.3, np.float32), np.array([1, 5], np.float32)
    with pytest.raises(NetError, match='"l".*label 5 is outside 0 to 2'):
        given(make_net, layer, scores, labels)
    assert np.isfinite(given(make_net, layer, scores, labels / 5).blobs["y"].data).all()


def test_a_solver_looks_at_labels_when_it_has_stepped_and_before_it_takes_a_snapshot(make_solver, monkeypatch, tmp_path):
    monkeypatch.setattr(looking, "waits", lambda tensor: True)
    net = """layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
        shape { dim: 2 dim: 3 } shape { dim: 2 } data_filler { value: 1 } data_filler { value: -4 } } }
      layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
      layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "y" }"""
    for snapshot in ("", "snapshot: 1"):
        solver = make_solver(net, f"base_lr: 0.1 lr_policy: 'fixed' {snapshot}")
        with pytest.raises(NetError, match='"l".*label -4 is outside 0 to 2'):
            solver.step(2)
        assert solver.iter == (1 if snapshot else 2) and not list(tmp_path.glob("snapshot*"))
