"""Depthwise convolutions, ReLU6, ShuffleChannel and Axpy against numpy."""

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, one_layer

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError

rng = np.random.default_rng(0)


def depthwise(stride=1, pad=0, dilation=1, bias=True, multiple=1):
    """Each output channel from one input channel, pixel by pixel."""

    def reference(x, w, b=None):
        n, channels, height, width = x.shape
        kh, kw = w.shape[2:]
        rows = (height + 2 * pad - (dilation * (kh - 1) + 1)) // stride + 1
        columns = (width + 2 * pad - (dilation * (kw - 1) + 1)) // stride + 1
        y = np.zeros((n, channels * multiple, rows, columns))
        for out in range(channels * multiple):
            for i in range(rows):
                for j in range(columns):
                    for r in range(kh):
                        for c in range(kw):
                            row, column = i * stride - pad + r * dilation, j * stride - pad + c * dilation
                            if 0 <= row < height and 0 <= column < width:
                                y[:, out, i, j] += x[:, out // multiple, row, column] * w[out, 0, r, c]
            y[:, out] += b[out] if bias else 0
        return y

    return reference


TYPES = ["DepthwiseConvolution", "ConvolutionDepthwise"]


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("given", ["", "num_output: 3 group: 3"])
@pytest.mark.parametrize("stride, pad, dilation, bias", [(1, 1, 1, True), (2, 1, 1, False), (1, 0, 2, True)])
def test_depthwise_convolution(make_net, kind, given, stride, pad, dilation, bias):
    text = one_layer(f"""type: "{kind}" convolution_param {{ {given} kernel_size: 3 stride: {stride} pad: {pad}
        dilation: {dilation} bias_term: {str(bias).lower()} weight_filler {{ type: "msra" }} }}""", (2, 3, 5, 6))  # fmt: skip
    net = make_net(text)
    shapes = [blob.data.shape for blob in net.params["l"]]
    assert shapes == [(3, 1, 3, 3), (3,)][: 1 + bias] and net.params["l"][0].data.any()
    x = rng.normal(size=(2, 3, 5, 6)).astype(np.float32)
    parameters = [rng.normal(size=shape) for shape in shapes]
    check_layer(net, depthwise(stride, pad, dilation, bias), [x], parameters)


def test_rectangular_kernels_and_several_outputs_a_channel(make_net):
    layer = 'type: "DepthwiseConvolution" convolution_param { num_output: 6 kernel_h: 1 kernel_w: 3 stride_h: 1 stride_w: 1 }'
    net = make_net(one_layer(layer, (1, 3, 2, 4)))
    check_layer(net, depthwise(multiple=2), [rng.normal(size=(1, 3, 2, 4))], [rng.normal(size=(6, 1, 1, 3)), rng.normal(size=6)])


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
@pytest.mark.parametrize("kind", TYPES)
def test_it_is_a_convolution_of_as_many_groups(make_net, kind, phase):
    """To the last bit, with the same parameters; 32 channels and more take another way in Convolution."""
    settings = 'num_output: 48 group: 48 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } bias_filler { value: 0.1 }'
    x = rng.normal(size=(2, 48, 16, 16)).astype(np.float32)
    tops = [
        fill(make_net(one_layer(f'type: "{name}" convolution_param {{ {settings} }}', x.shape), phase), x)
        for name in (kind, "Convolution")
    ]
    np.testing.assert_array_equal(*tops)


@pytest.mark.parametrize("kind, settings, message", [
    ("DepthwiseConvolution", "group: 2 num_output: 4", "group is the number of channels, 4, or left out; not 2"),
    ("DepthwiseConvolution", "num_output: 6", "num_output is a multiple of the 4 channels, not 6"),
    ("ConvolutionDepthwise", "num_output: 8", "num_output is the number of channels, 4, or left out; not 8"),
    ("ConvolutionDepthwise", "stride: 0", "strides must be positive"),
])  # fmt: skip
def test_wrong_settings_of_depthwise_convolutions(make_net, kind, settings, message):
    with pytest.raises(NetError, match=rf'layer "l" \({kind}\): {message}'):
        make_net(one_layer(f'type: "{kind}" convolution_param {{ kernel_size: 3 {settings} }}', (1, 4, 5, 5)))


def test_a_depthwise_convolution_of_another_number_of_channels(make_net):
    net = make_net(one_layer('type: "DepthwiseConvolution" convolution_param { kernel_size: 3 }', (1, 4, 5, 5)))
    net.blobs["b0"].reshape(1, 8, 5, 5)
    with pytest.raises(NetError, match=r'layer "l" \(DepthwiseConvolution\): built for 4 channels, got shape'):
        net.reshape()
    with pytest.raises(NetError, match=r'layer "l" \(ConvolutionDepthwise\): kernel_size is missing'):
        make_net(one_layer('type: "ConvolutionDepthwise"', (1, 4, 5, 5)))


# ---- ReLU6
def test_relu6(make_net):
    x = rng.uniform(-4, 10, (3, 4, 2)).astype(np.float32)
    assert (x < 0).any() and (x > 6).any() and ((x > 0) & (x < 6)).any()
    check_layer(make_net(one_layer('type: "ReLU6"', x.shape)), lambda x: np.minimum(np.maximum(x, 0), 6), [x])


def test_relu6_at_its_corners_and_in_place(make_net):
    x = np.array([[-1, 0, 0.5, 5.5, 6, 7]], np.float32)
    for top in ("y0", "b0"):
        net = make_net(one_layer('type: "ReLU6"', x.shape).replace('top: "y0"', f'top: "{top}"'))
        net.blobs["b0"].data[...] = x
        net.forward()
        assert net.blobs[top].data.tolist() == [[0, 0, 0.5, 5.5, 6, 6]]
        net.blobs[top].diff[...] = 2
        net.backward()
        assert net.blobs["b0"].diff.tolist() == [[0, 0, 2, 2, 0, 0]]


def test_relu6_in_place_after_a_convolution_trains(make_solver):
    net = """
        layer { name: "d" type: "DummyData" top: "d" top: "t" dummy_data_param { shape { dim: 4 dim: 3 } shape { dim: 4 dim: 2 }
                data_filler { type: "gaussian" std: 4 } data_filler { value: 3 } } }
        layer { name: "ip" type: "InnerProduct" bottom: "d" top: "ip"
                inner_product_param { num_output: 2 weight_filler { type: "xavier" } bias_filler { value: 1 } } }
        layer { name: "relu" type: "ReLU6" bottom: "ip" top: "TOP" }
        layer { name: "loss" type: "EuclideanLoss" bottom: "TOP" bottom: "t" top: "loss" }"""
    found = []
    for top in ("ip", "other"):
        solver = make_solver(net.replace("TOP", top), "base_lr: 0.1 lr_policy: 'fixed' max_iter: 3 display: 0 random_seed: 1")
        solver.step(3)
        found.append([blob.data.copy() for blob in solver.net.params["ip"]])
    for in_place, apart in zip(*found):
        np.testing.assert_array_equal(in_place, apart)


# ---- ShuffleChannel
@pytest.mark.parametrize("group", [1, 2, 3, 6])
@pytest.mark.parametrize("shape", [(2, 6), (2, 6, 2, 3)])
def test_shuffle_channel(make_net, group, shape):
    def reference(x):
        y, each = np.empty_like(x), shape[1] // group
        for old in range(shape[1]):
            y[:, old % each * group + old // each] = x[:, old]
        return y

    net = make_net(one_layer(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', shape))
    check_layer(net, reference, [rng.normal(size=shape).astype(np.float32)])


def test_shuffling_back(make_net):
    """Two groups of three, then three groups of two: every channel is at its place again."""
    x = rng.normal(size=(2, 6, 2, 2)).astype(np.float32)
    text = one_layer('type: "ShuffleChannel" shuffle_channel_param { group: 2 }', x.shape)
    text += 'layer { name: "back" type: "ShuffleChannel" bottom: "y0" top: "z" shuffle_channel_param { group: 3 } }'
    net = make_net(text)
    assert [int(c) for c in fill(net, np.arange(6).reshape(1, 6, 1, 1))[0, :, 0, 0]] == [0, 3, 1, 4, 2, 5]
    fill(net, x)
    np.testing.assert_array_equal(net.blobs["z"].data, x)


@pytest.mark.parametrize("group", [4, 0, -2])
def test_wrong_groups(make_net, group):
    with pytest.raises(NetError, match=rf'layer "l" \(ShuffleChannel\): group {group} must divide 6 channels'):
        make_net(one_layer(f'type: "ShuffleChannel" shuffle_channel_param {{ group: {group} }}', (2, 6, 1, 1)))


# ---- Axpy
@pytest.mark.parametrize("a, x", [((2, 3, 1, 1), (2, 3, 2, 4)), ((2, 3), (2, 3, 2, 4)), ((2, 3), (2, 3))])
def test_axpy(make_net, a, x):
    def reference(a, x, y):
        out = np.array(y)
        for n in range(x.shape[0]):
            for c in range(x.shape[1]):
                out[n, c] += a.reshape(x.shape[:2])[n, c] * x[n, c]
        return out

    arrays = [rng.normal(size=shape).astype(np.float32) for shape in (a, x, x)]
    check_layer(make_net(one_layer('type: "Axpy"', a, x, x)), reference, arrays)


@pytest.mark.parametrize("shapes, message", [
    (((2, 3), (2, 4, 5, 5), (2, 4, 5, 5)), r"a of shape \(2, 3\) does not fit \(2, 4, 5, 5\): it needs shape \(2, 4\) or"),
    (((2, 4, 5, 1), (2, 4, 5, 5), (2, 4, 5, 5)), r"a of shape \(2, 4, 5, 1\) does not fit"),
    (((2, 4), (2, 4, 5, 5), (2, 4, 5, 4)), r"x and y need one shape, not \(2, 4, 5, 5\) and \(2, 4, 5, 4\)"),
    (((2,), (2,), (2,)), r"x needs channels in axis 1, got shape \(2,\)"),
])  # fmt: skip
def test_wrong_shapes_of_axpy(make_net, shapes, message):
    with pytest.raises(ShapeError, match=rf'layer "l" \(Axpy\): {message}'):
        make_net(one_layer('type: "Axpy"', *shapes))


def test_axpy_takes_three_bottoms(make_net):
    with pytest.raises(NetError, match=r'layer "l" \(Axpy\) takes 3 bottom blobs, not 2'):
        make_net(one_layer('type: "Axpy"', (2, 3), (2, 3)))


def test_no_gradient_for_what_does_not_need_one(make_net):
    """Without force_backward nothing is written to the diffs of inputs."""
    net = make_net(one_layer('type: "Axpy"', (2, 3), (2, 3), (2, 3)).replace("force_backward: true", ""))
    fill(net, *[np.ones((2, 3))] * 3)
    bottoms, _ = gradients(net, 1)
    assert not any(diff.any() for diff in bottoms)
