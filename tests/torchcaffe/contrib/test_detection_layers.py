"""Permute, SmoothL1Loss and ROIPooling: against numpy written out, OpenCV's own, and differences."""

import math

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, numeric_gradient, one_layer
from opencv_nets import opencv

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError

rng = np.random.default_rng(0)


# ---- Permute
@pytest.mark.parametrize("order, axes", [([0, 2, 3, 1], (0, 2, 3, 1)), ([3], (3, 0, 1, 2)), ([1, 0], (1, 0, 2, 3)), ([], (0, 1, 2, 3))])
def test_permute(make_net, order, axes):
    settings = " ".join(f"order: {axis}" for axis in order)
    net = make_net(one_layer(f'type: "Permute" permute_param {{ {settings} }}', (2, 3, 4, 5)))
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    check_layer(net, lambda x: x.transpose(axes), [x])
    if order == [0, 2, 3, 1]:
        np.testing.assert_array_equal(opencv(one_layer(PERMUTE, (2, 3, 4, 5)), [x]), fill(net, x))


PERMUTE = 'type: "Permute" permute_param { order: 0 order: 2 order: 3 order: 1 }'


@pytest.mark.parametrize("settings, message", [
    ("order: 0 order: 4", "order names axis 4, but the bottom has 4 axes"),
    ("order: -1", "order names axis -1"),
    ("order: 1 order: 1", r"order names an axis twice: \[1, 1\]"),
])  # fmt: skip
def test_wrong_orders(make_net, settings, message):
    with pytest.raises(NetError, match=message):
        make_net(one_layer(f'type: "Permute" permute_param {{ {settings} }}', (2, 3, 4, 5)))


# ---- SmoothL1Loss
def smooth_l1(sigma):
    def reference(a, b, inside=1.0, outside=1.0):
        x = inside * (a - b)
        losses = np.where(np.abs(x) < 1 / sigma**2, (sigma * x) ** 2 / 2, np.abs(x) - 0.5 / sigma**2)
        return (outside * losses).sum() / len(a)

    return reference


@pytest.mark.parametrize("bottoms", [2, 3, 4])
@pytest.mark.parametrize("sigma", [None, 3.0])
@pytest.mark.parametrize("shape", [(3, 8), (2, 4, 3, 2)])
def test_smooth_l1_loss(make_net, bottoms, sigma, shape):
    settings = f"smooth_l1_loss_param {{ sigma: {sigma} }}" if sigma else ""
    net = make_net(one_layer(f'type: "SmoothL1Loss" {settings}', *[shape] * bottoms))
    values = [rng.normal(size=shape), rng.normal(size=shape), rng.uniform(0, 2, shape), rng.uniform(0, 2, shape)][:bottoms]
    check_layer(net, smooth_l1(sigma or 1.0), [value.astype(np.float32) for value in values], checked=(0, 1))


def test_smooth_l1_loss_weights_its_gradient(make_net):
    net = make_net(one_layer('type: "SmoothL1Loss" loss_weight: 3', (1, 2), (1, 2)))
    assert fill(net, [[4, 0.5]], [[0, 0]]) == pytest.approx(3.5 + 0.125)
    assert gradients(net, 3)[0][0].tolist() == [[3, 1.5]]


def test_smooth_l1_loss_refuses_and_warns(make_net, monkeypatch, capfd):
    with pytest.raises(ShapeError, match=r"bottoms differ in shape: \(1, 2\), \(1, 3\)"):
        make_net(one_layer('type: "SmoothL1Loss"', (1, 2), (1, 3)))
    with pytest.raises(NetError, match="sigma must be positive"):
        make_net(one_layer('type: "SmoothL1Loss" smooth_l1_loss_param { sigma: 0 }', (1, 2), (1, 2)))
    monkeypatch.setenv("GLOG_minloglevel", "1")
    net = make_net(one_layer('type: "SmoothL1Loss" loss_param { normalization: NONE }', (2, 2), (2, 2)))
    assert '"l" (SmoothL1Loss) divides by the batch size: loss_param has no effect' in capfd.readouterr().err
    assert fill(net, 2, 0) == 3


# ---- ROIPooling
def roi_pooling(pooled_h, pooled_w, scale):
    """Region by region and cell by cell, as section 2.1 of Fast R-CNN says it."""

    def rounded(value):
        return math.floor(value * scale + 0.5) if value >= 0 else -math.floor(-value * scale + 0.5)

    def reference(features, regions):
        top = np.zeros((len(regions), features.shape[1], pooled_h, pooled_w))
        for row, (image, *ends) in enumerate(regions):
            x1, y1, x2, y2 = (rounded(end) for end in ends)
            size_y, size_x = max(y2 - y1 + 1, 1) / pooled_h, max(x2 - x1 + 1, 1) / pooled_w
            for i in range(pooled_h):
                for j in range(pooled_w):
                    ys = [y for y in range(features.shape[2]) if y1 + math.floor(i * size_y) <= y < y1 + math.ceil((i + 1) * size_y)]
                    xs = [x for x in range(features.shape[3]) if x1 + math.floor(j * size_x) <= x < x1 + math.ceil((j + 1) * size_x)]
                    if ys and xs:
                        top[row, :, i, j] = features[int(image)][:, ys][:, :, xs].max((1, 2))
        return top

    return reference


REGIONS = np.array([
    [0, 0, 0, 31, 47], [1, 3, 5, 20, 9], [1, 10, 10, 10, 10], [0, 8, 8, 4, 4], [0, 20, 30, 90, 90], [1, -9, -12, 15, 40],
    [0, 60, 60, 70, 70], [1, 2, 2, 29.9, 45.9],
], np.float32)  # fmt: skip


@pytest.mark.parametrize("pooled_h, pooled_w, scale", [(2, 3, 0.25), (3, 2, 0.25), (1, 1, 1), (7, 7, 0.125), (4, 5, 0.3)])
def test_roi_pooling(make_net, pooled_h, pooled_w, scale):
    settings = f"pooled_h: {pooled_h} pooled_w: {pooled_w} spatial_scale: {scale}"
    net = make_net(one_layer(f'type: "ROIPooling" roi_pooling_param {{ {settings} }}', (2, 3, 12, 8), (8, 5)))
    features = rng.permutation(2 * 3 * 12 * 8).reshape(2, 3, 12, 8) / 100 - 3  # no two alike: the maximum has a gradient
    check_layer(net, roi_pooling(pooled_h, pooled_w, scale), [features, REGIONS], checked=(0,))
    assert not gradients(net, 1)[0][1].any()


def test_roi_pooling_sends_the_gradient_to_the_first_of_equal_ones(make_net):
    net = make_net(one_layer('type: "ROIPooling" roi_pooling_param { pooled_h: 1 pooled_w: 1 }', (1, 1, 2, 3), (2, 5)))
    fill(net, np.zeros((1, 1, 2, 3)), [[0, 0, 0, 2, 1], [0, 1, 0, 2, 1]])
    assert gradients(net, np.array([[[[5]]], [[[7]]]]))[0][0].tolist() == [[[[5, 7, 0], [0, 0, 0]]]]


def test_roi_pooling_as_opencv(make_net):
    regions = np.column_stack([np.zeros(20), rng.uniform(0, 60, (20, 2)), rng.uniform(60, 120, (20, 2))]).astype(np.float32)
    text = one_layer('type: "ROIPooling" roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.125 }', (1, 4, 16, 16), (20, 5))
    features = rng.normal(size=(1, 4, 16, 16)).astype(np.float32)
    np.testing.assert_array_equal(fill(make_net(text), features, regions), opencv(text, [features, regions]))


def test_other_numbers_of_regions(make_net):
    net = make_net(one_layer('type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }', (1, 3, 4, 4), (2, 5)))
    for count in (5, 0, 1):
        net.blobs["b1"].reshape(count, 5, 1, 1)
        assert fill(net, 1, np.zeros((count, 5, 1, 1))).shape == (count, 3, 2, 2)


def test_roi_pooling_refuses(make_net):
    settings = "pooled_h: 2 pooled_w: 2"
    layer = f'type: "ROIPooling" roi_pooling_param {{ {settings} }}'
    with pytest.raises(NetError, match="pooled_h and pooled_w must be positive"):
        make_net(one_layer('type: "ROIPooling"', (1, 3, 4, 4), (2, 5)))
    with pytest.raises(ShapeError, match=r"regions are \(r, 5\): image, x1, y1, x2, y2; their shape is \(2, 4\)"):
        make_net(one_layer(layer, (1, 3, 4, 4), (2, 4)))
    net = make_net(one_layer(layer, (1, 3, 4, 4), (1, 5)))
    with pytest.raises(NetError, match="regions name image 1 of a batch of 1"):
        fill(net, 0, [[1, 0, 0, 2, 2]])


def test_the_numeric_gradient_is_one():
    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(numeric_gradient(lambda: (x**2).sum(), x), [2, 4], rtol=1e-6)


def test_they_are_registered(contrib):
    assert {"Permute", "SmoothL1Loss", "ROIPooling"} <= set(caffe.layer_type_list())
