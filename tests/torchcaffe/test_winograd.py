"""Winograd's convolution against the sum itself, and its kept filters against everything that can write parameters."""

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core import execution
from torchcaffe.layers import winograd
from torchcaffe.layers.activation import ReLU

NET = """
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param {{ num_output: {outputs} kernel_size: 3
  {more} weight_filler {{ type: "xavier" }} bias_filler {{ type: "uniform" min: -1 max: 1 }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
"""


def text(shape=(1, 64, 14, 13), outputs=80, more="pad: 1"):
    return NET.format(shape=" ".join(f"dim: {dim}" for dim in shape), outputs=outputs, more=more)


@pytest.fixture
def made(monkeypatch):
    """List of the filters that were transformed since the test began, by their shapes."""
    shapes = []

    def transform(weight, tiles):
        shapes.append(tuple(weight.shape))
        return original(weight, tiles)

    original = winograd.transform_filters
    monkeypatch.setattr(winograd, "transform_filters", transform)
    return shapes


def random(shape):
    return np.random.default_rng(3).standard_normal(shape).astype(np.float32)


def by_sum(net, pad=(1, 1), images=None):
    """relu(convolution) as float64 sums."""
    weight, *bias = (torch.from_numpy(blob.data.astype(np.float64)) for blob in net.params["conv"])
    images = net.blobs["data"].data if images is None else images
    top = torch.conv2d(torch.from_numpy(images.astype(np.float64)), weight, *bias, padding=pad)
    return top.clamp_min(0).numpy()


def check(net, **how):
    wanted = by_sum(net, **how)
    np.testing.assert_allclose(net.forward()["conv"], wanted, atol=3e-5 * wanted.max())


@pytest.mark.parametrize("shape, outputs, more, pad", [
    ((1, 64, 14, 13), 80, "pad: 1", (1, 1)),  # sides that are no multiple of the tile's
    ((3, 64, 16, 12), 64, "pad: 1", (1, 1)),
    ((2, 80, 15, 18), 64, "bias_term: false", (0, 0)),
    ((1, 64, 12, 20), 96, "pad_h: 2 pad_w: 0", (2, 0)),
    ((1, 64, 70, 90), 64, "pad: 1", (1, 1)),  # in several parts, the last one overlapping
])  # fmt: skip
def test_it_is_the_sum(make_net, made, shape, outputs, more, pad):
    net = make_net(text(shape, outputs, more), caffe.TEST)
    net.blobs["data"].data[...] = random(shape)
    check(net, pad=pad)
    assert made == [(outputs, shape[1], 3, 3)]


def test_an_image_gives_the_same_numbers_in_every_batch(make_net):
    net = make_net(text(), caffe.TEST)
    images = random((5, 64, 14, 13))
    alone = []
    for image in images:
        net.blobs["data"].data[...] = image
        alone.append(net.forward()["conv"][0].copy())
    net.blobs["data"].reshape(5, 64, 14, 13)
    net.blobs["data"].data[...] = images
    np.testing.assert_array_equal(net.forward()["conv"], alone)


def test_filters_are_kept_until_a_parameter_is_written(make_net, made):
    net = make_net(text(), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    for _ in range(3):
        net.forward()
    assert len(made) == 1
    net.params["conv"][0].data[...] *= -2
    check(net)
    net.params["conv"][1].data[...] += 3  # the bias is no part of them
    check(net)


def test_an_array_that_a_user_holds_is_seen_when_it_is_written(make_net, made):
    net = make_net(text(), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    first = net.params["conv"][0].data[:1]  # of a script that keeps it, and writes it whenever it likes
    for _ in range(3):
        check(net)
    count = len(made)
    for _ in range(3):
        net.forward()
    assert len(made) == count  # holding it costs no transform
    for value in (1, -1):
        first[0, 0] += value
        check(net)
    del first
    check(net)


def test_every_other_way_to_write_parameters_is_seen(make_net, tmp_path):
    net, other = (make_net(text(), caffe.TEST, seed=seed) for seed in (1, 2))
    net.blobs["data"].data[...] = other.blobs["data"].data[...] = random((1, 64, 14, 13))
    check(net)
    check(other)
    other.save(str(tmp_path / "other.caffemodel"))
    net.copy_from(str(tmp_path / "other.caffemodel"))
    np.testing.assert_array_equal(net.forward()["conv"], other.forward()["conv"])
    net, third = (make_net(text(), caffe.TEST, seed=seed) for seed in (3, 4))  # nobody has looked at their parameters
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    net.forward()
    net.share_with(third)
    found = net.forward()["conv"].copy()
    np.testing.assert_allclose(found, by_sum(net), atol=1e-4)
    third.params["conv"][0].data[...] *= 2
    check(net)
    net.params["conv"][0].data_memory.put(torch.zeros(80, 64, 3, 3))
    check(net)


def test_a_step_of_the_solver_is_seen_by_its_test_net(make_solver):
    loss = 'layer { name: "loss" type: "Reduction" bottom: "conv" top: "loss" loss_weight: 1 }'
    solver = make_solver(text() + loss, "base_lr: 0.01 lr_policy: 'fixed' max_iter: 4 test_iter: 1 test_interval: 100")
    trained, tested = solver.net, solver.test_nets[0]
    images = random((1, 64, 14, 13))
    tested.share_with(trained)  # as the solver does before a test
    for net in (trained, tested):
        net.blobs["data"].data[...] = images
    for _ in range(2):
        execution.forward_only(tested)
        np.testing.assert_allclose(tested.blobs["conv"].data, by_sum(trained, images=images), atol=1e-4)
        solver.step(1)


def test_where_a_gradient_may_be_asked_for_it_stays_away(make_net, made):
    net = make_net("force_backward: true\n" + text(), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    net.forward()
    net.blobs["conv"].diff[...] = 1
    assert net.backward()["data"].any()
    make_net(text(), caffe.TRAIN).forward()
    assert made == []


def test_blobs_are_right_whenever_they_are_looked_at(make_net):
    net = make_net(text(), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    relu = by_sum(net)
    net.forward(end="conv")
    before = net.blobs["conv"].data.copy()
    assert before.min() < -0.1
    net.forward(start="relu")
    np.testing.assert_allclose(before.clip(0), relu, atol=1e-4)
    np.testing.assert_array_equal(net.blobs["conv"].data, before.clip(0))
    seen = []
    net.after_forward(lambda index: seen.append(net.blobs["conv"].data.copy()))
    net.forward()
    np.testing.assert_array_equal(seen[1], before)
    np.testing.assert_array_equal(seen[2], before.clip(0))


def test_the_relu_behind_is_done_with_it_unless_somebody_looks(make_net, monkeypatch):
    """The same bits whether the ReLU runs by itself or not; NaN stays, a slope keeps it apart."""
    calls = []
    for name in ("forward", "forward_in_place"):
        original = getattr(ReLU, name)
        monkeypatch.setattr(ReLU, name, lambda self, x, run=original: (calls.append(self.name), run(self, x))[1])
    net = make_net(text(), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    net.blobs["data"].data[0, :, 3, 3] = np.nan
    together = net.forward()["conv"].copy()
    assert calls == [] and np.isnan(together).any()
    execution.forward_only(net)
    np.testing.assert_array_equal(net.blobs["conv"].data, together)
    assert calls == []
    net.forward(end="conv")
    net.forward(start="relu")
    np.testing.assert_array_equal(net.blobs["conv"].data, together)
    assert calls == ["relu"]
    net = make_net(text().replace('"ReLU"', '"ReLU" relu_param { negative_slope: 0.1 }'), caffe.TEST)
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    assert net.forward()["conv"].min() < 0 and calls == ["relu"] * 2


def test_in_bf16_the_relu_is_not_lost(make_net, made):
    """The product is then bfloat16, which Winograd's method does not compute: the ReLU runs by itself."""
    try:
        caffe.set_precision("bf16")
        net = make_net(text(), caffe.TEST)
    finally:
        caffe.set_precision("float32")
    net.blobs["data"].data[...] = random((1, 64, 14, 13))
    wanted = by_sum(net)
    np.testing.assert_allclose(net.forward()["conv"], wanted, atol=0.02 * wanted.max())
    assert made == []


def test_an_image_gives_the_same_numbers_first_and_after_twenty_others(make_net):
    net = make_net(text(), caffe.TEST)
    first, *others = random((21, 64, 14, 13))
    found = []
    for image in (first, *others, first):
        net.blobs["data"].data[...] = image
        found.append(net.forward()["conv"].copy())
    np.testing.assert_array_equal(found[-1], found[0])
