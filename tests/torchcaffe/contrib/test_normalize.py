"""Normalize: SSD's with a learned scale, NormFace's without; each against numpy."""

import numpy as np
import pytest
from layer_checks import check_layer, fill, one_layer

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError

rng = np.random.default_rng(0)


def ssd(across_spatial):
    def reference(x, scale):
        norm = np.sqrt((x**2).sum((1, 2, 3) if across_spatial else 1, keepdims=True) + 1e-10)
        return x / norm * np.reshape(scale, (1, -1, 1, 1))

    return reference


@pytest.mark.parametrize("across_spatial", [True, False])
@pytest.mark.parametrize("channel_shared", [True, False])
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_ssd(make_net, across_spatial, channel_shared, phase):
    settings = f"across_spatial: {across_spatial} channel_shared: {channel_shared}".lower()
    layer = f'type: "Normalize" norm_param {{ {settings} scale_filler {{ value: 20 }} }}'
    net = make_net(one_layer(layer, (2, 3, 2, 2)), phase)
    (scale,) = net.params["l"]
    assert scale.data.shape == (() if channel_shared else (3,)) and np.all(scale.data == 20)
    x = rng.normal(size=(2, 3, 2, 2)).astype(np.float32)
    check_layer(net, ssd(across_spatial), [x], [rng.uniform(1, 3, scale.data.shape)])


def test_ssd_of_vectors_and_of_zeros(make_net):
    net = make_net(one_layer('type: "Normalize" norm_param { across_spatial: false }', (2, 2)))
    np.testing.assert_allclose(fill(net, [[3, 4], [0, 0]]), [[0.6, 0.8], [0, 0]], rtol=1e-6)
    net.blobs["b0"].reshape(1, 2, 1, 1)
    np.testing.assert_allclose(fill(net, [[[[6]], [[8]]]]), [[[[0.6]], [[0.8]]]], rtol=1e-6)


@pytest.mark.parametrize(
    "settings, order", [("", 2), ("normalize_param { }", 2), ('normalize_param { normalize_type: "L1" }', 1)]
)
@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2, 2)])
def test_normface(make_net, settings, order, shape):
    def reference(x):
        return x / (np.abs(x) ** order).sum(1, keepdims=True) ** (1 / order)

    net = make_net(one_layer(f'type: "Normalize" {settings}', shape))
    assert "l" not in net.params
    check_layer(net, reference, [rng.normal(size=shape).astype(np.float32)])
    assert not fill(net, np.zeros(shape)).any()


@pytest.mark.parametrize("settings, shape, error, message", [
    ('normalize_param { normalize_type: "L3" }', (2, 3), NetError, r'layer "l" \(Normalize\): normalize_type is "L1" or "L2", not "L3"'),
    ("norm_param { } normalize_param { }", (2, 3), NetError, r'layer "l" \(Normalize\): give norm_param \(SSD\) or normalize_param'),
    ("norm_param { }", (2,), ShapeError, r'layer "l" \(Normalize\): needs channels in axis 1, got shape \(2,\)'),
])  # fmt: skip
def test_wrong_settings(make_net, settings, shape, error, message):
    with pytest.raises(error, match=message):
        make_net(one_layer(f'type: "Normalize" {settings}', shape))


def test_another_number_of_channels(make_net):
    net = make_net(one_layer('type: "Normalize" norm_param { channel_shared: false }', (2, 3)))
    net.blobs["b0"].reshape(2, 4)
    with pytest.raises(ShapeError, match=r'layer "l" \(Normalize\): built for 3 channels, got shape \(2, 4\)'):
        net.reshape()
