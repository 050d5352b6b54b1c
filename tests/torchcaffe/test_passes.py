"""What a pass must see although it works out nothing twice: written blobs, other shapes, the user's own functions."""

import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import torchcaffe as caffe
from torchcaffe.core import execution
from torchcaffe.core.errors import NetError
from torchcaffe.layers import vision

INPUT = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 1 dim: 3 dim: 13 dim: 13 } } }\n'
NET = INPUT + """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 5 pad: 1
  weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param { kernel_size: 3 stride: 2 } }
layer { name: "global" type: "Pooling" bottom: "pool" top: "global" pooling_param { pool: AVE global_pooling: true } }
layer { name: "fc" type: "InnerProduct" bottom: "global" top: "fc" inner_product_param { num_output: 5
  weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""


def expected(net):
    """The net's answer for what its blobs and parameters hold, in torch alone."""
    x, (w1, b1), (w2, b2) = (torch.from_numpy(net.blobs["data"].data.copy()), *(
        [torch.from_numpy(blob.data.copy()) for blob in net.params[name]] for name in ("conv", "fc")
    ))  # fmt: skip
    x = F.max_pool2d(F.conv2d(x, w1, b1, padding=1).relu(), 3, 2, ceil_mode=True)
    return torch.softmax(F.linear(x.mean((2, 3)), w2, b2), 1).numpy()


def test_each_pass_sees_what_was_written_and_reshaped_since_the_last(make_net):
    net, random = make_net(NET, caffe.TEST), np.random.default_rng(0)
    held = net.params["conv"][0].data  # an array that stays outside
    for batch, side in ((1, 13), (1, 13), (2, 13), (1, 13), (1, 16), (3, 9)):
        net.blobs["data"].reshape(batch, 3, side, side)
        net.blobs["data"].data[...] = random.normal(size=(batch, 3, side, side))
        held += 0.1 * random.normal(size=held.shape)
        net.params["fc"][1].data[...] = random.normal(size=5)
        np.testing.assert_allclose(net.forward()["prob"], expected(net), rtol=1e-4)
        assert net.blobs["pool"].data.shape[2] == -(-(side - 2 - 3) // 2) + 1


def test_a_shape_that_does_not_fit_is_refused_and_the_one_before_still_runs(make_net):
    net = make_net(NET, caffe.TEST)
    net.blobs["data"].data[...] = 1
    before = net.forward()["prob"].copy()
    net.blobs["data"].reshape(1, 3, 1, 1)
    with pytest.raises(NetError, match='"conv".*smaller than the kernel'):
        net.forward()
    assert torch.is_grad_enabled()  # what a pass switches, it switches back
    net.blobs["data"].reshape(1, 3, 13, 13)
    net.blobs["data"].data[...] = 1
    np.testing.assert_array_equal(net.forward()["prob"], before)


def test_the_users_functions_run_in_the_callers_mode(make_net):
    loss = 'layer { name: "loss" type: "Reduction" bottom: "prob" top: "loss" loss_weight: 1 reduction_param { operation: SUMSQ } }'
    net, seen = make_net(NET + loss), []
    net.blobs["data"].data[...] = np.arange(13)
    net.before_forward(lambda index: seen.append(torch.is_grad_enabled()))
    net.after_forward(lambda index: seen.append(torch.is_grad_enabled()))
    net.forward()
    assert seen == [True] * 16
    with torch.no_grad():
        net.forward()
        assert not torch.is_grad_enabled()
    assert seen[16:] == [False] * 16
    net.backward()  # what was recorded does not depend on the caller's mode
    assert np.any(net.params["fc"][0].diff)


class Doubling(caffe.Layer):
    """Twice the bottom, by torch's gradient of its square."""

    def setup(self, bottom, top):
        pass

    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].data.shape)

    def forward(self, bottom, top):
        x = torch.tensor(bottom[0].data, requires_grad=True)
        x.square().sum().backward()
        top[0].data[...] = x.grad.numpy()


def test_a_python_layer_may_use_autograd_in_its_forward(make_net, monkeypatch):
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "1")
    layer = 'layer { name: "twice" type: "Python" bottom: "data" top: "twice" python_param { module: "%s" layer: "Doubling" } }'
    net = make_net(INPUT + layer % __name__, caffe.TEST)
    net.blobs["data"].data[...] = 3
    assert np.all(net.forward()["twice"] == 6)
    execution.forward_only(net)
    assert np.all(net.blobs["twice"].data == 6)


def test_a_net_and_its_memory_are_freed_at_once(make_net):
    net = make_net(NET, caffe.TEST)
    net.forward()
    gone = [weakref.ref(thing) for thing in (net, *net.built_layers)]
    del net
    assert [thing() for thing in gone] == [None] * len(gone)


@pytest.mark.parametrize("settings", ["", "pad: 2", "stride: 2", "stride_h: 3 stride_w: 2", "bias_term: false", "group: 2",
                                      "dilation: 2"])  # fmt: skip
def test_a_small_convolution_of_one_image_is_that_of_many(make_net, settings):
    layer = 'layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 5 %s ' \
            'weight_filler { type: "xavier" } bias_filler { type: "uniform" } } }'  # fmt: skip
    net, images = make_net(INPUT.replace("dim: 3", "dim: 6") + layer % settings, caffe.TEST), np.random.default_rng(0).normal(size=(3, 6, 13, 13))
    alone = [net.forward(data=image[None])["conv"].copy() for image in images]
    assert net.built_layers[1].small == (settings not in ("group: 2", "dilation: 2"))
    net.blobs["data"].reshape(3, 6, 13, 13)
    np.testing.assert_allclose(net.forward(data=images)["conv"], np.concatenate(alone), rtol=1e-4, atol=1e-5)


def test_a_convolution_is_small_by_the_products_of_one_image(make_net, monkeypatch):
    net = make_net(NET, caffe.TEST)
    conv = net.built_layers[1]
    assert conv.small  # 11 x 11 x 4 x 3 x 25 = 36,300
    monkeypatch.setattr(vision, "SMALL", 36_300 - 1)
    net.reshape()
    assert not conv.small
    monkeypatch.setattr(vision, "SMALL", 36_300)
    net.reshape()
    assert conv.small
