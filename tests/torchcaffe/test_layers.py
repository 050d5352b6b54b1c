"""Layers against arithmetic written out in numpy, and their gradients against differences."""

import math

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError
from torchcaffe.layers import looking

LOWEST = np.finfo(np.float32).min  # where max pooling starts: what a window beyond the image gives
rng = np.random.default_rng(0)


def one_layer(layer, shapes, loss="sum"):
    """Prototxt of Input blobs b0, b1, ... feeding one layer; its top `y` is summed with weight 1 where it is no loss."""
    inputs = "".join(
        f'layer {{ name: "b{i}" type: "Input" top: "b{i}" input_param {{ shape {{ {"".join(f"dim: {d} " for d in s)} }} }} }}\n'
        for i, s in enumerate(shapes)
    )
    bottoms = " ".join(f'bottom: "b{i}"' for i in range(len(shapes)))
    return f'force_backward: true\n{inputs}layer {{ name: "l" {bottoms} top: "y" {layer} }}\n'


def run(make_net, layer, *arrays, phase=caffe.TRAIN, parameters=()):
    net = make_net(one_layer(layer, [a.shape for a in arrays]), phase)
    for index, array in enumerate(arrays):
        net.blobs[f"b{index}"].data[...] = array
    for blob, values in zip(net.params.get("l", []), parameters):
        blob.data[...] = values
    net.forward()
    return net


def numeric_gradient(net, array, weight, step=1e-2):
    """Gradient of sum(weight * y) by central differences, at up to 12 places of a live array; NaN elsewhere."""
    gradient = np.full_like(array, np.nan)
    for place in rng.permutation(array.size)[:12]:
        index = np.unravel_index(place, array.shape)
        kept = array[index]
        values = []
        for change in (step, -step):
            array[index] = kept + change
            values.append(float((net.forward()["y"].astype(np.float64) * weight).sum()))
        array[index] = kept
        gradient[index] = (values[0] - values[1]) / (2 * step)
    net.forward()
    return gradient


def check_gradients(net, bottoms=1, tolerance=2e-2):
    weight = rng.normal(size=net.blobs["y"].data.shape).astype(np.float32)
    if net.blob_loss_weights["y"]:
        weight = np.full_like(weight, net.blob_loss_weights["y"])
    net.clear_param_diffs()
    net.blobs["y"].diff[...] = weight
    net.backward()
    live = [net.blobs[f"b{i}"] for i in range(bottoms)] + list(net.params.get("l", []))
    found = [blob.diff.copy() for blob in live]
    for blob, gradient in zip(live, found):
        expected = numeric_gradient(net, blob.data, weight)
        looked = ~np.isnan(expected)
        np.testing.assert_allclose(gradient[looked], expected[looked], rtol=tolerance, atol=tolerance)


def numpy_convolution(x, w, b, stride, pad, dilation, group):
    n, channels, height, width = x.shape
    outputs, _, kh, kw = w.shape
    x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    eh, ew = dilation * (kh - 1) + 1, dilation * (kw - 1) + 1
    oh, ow = (x.shape[2] - eh) // stride + 1, (x.shape[3] - ew) // stride + 1
    y = np.zeros((n, outputs, oh, ow))
    for o in range(outputs):
        first = o // (outputs // group) * (channels // group)
        block = x[:, first : first + channels // group]
        for i in range(oh):
            for j in range(ow):
                window = block[:, :, i * stride : i * stride + eh : dilation, j * stride : j * stride + ew : dilation]
                y[:, o, i, j] = (window * w[o]).sum((1, 2, 3)) + b[o]
    return y


@pytest.mark.parametrize("stride, pad, dilation, group", [(1, 1, 1, 1), (2, 0, 1, 1), (1, 2, 2, 1), (2, 1, 1, 2)])
def test_convolution(make_net, stride, pad, dilation, group):
    x = rng.normal(size=(2, 4, 6, 7)).astype(np.float32)
    w, b = rng.normal(size=(6, 4 // group, 3, 3)).astype(np.float32), rng.normal(size=6).astype(np.float32)
    layer = f"""type: "Convolution" convolution_param {{ num_output: 6 kernel_size: 3 stride: {stride} pad: {pad}
        dilation: {dilation} group: {group} weight_filler {{ type: "xavier" }} }}"""
    net = run(make_net, layer, x, parameters=(w, b))
    np.testing.assert_allclose(net.blobs["y"].data, numpy_convolution(x, w, b, stride, pad, dilation, group), atol=1e-4)
    check_gradients(net)


@pytest.mark.parametrize("transpose", [False, True])
def test_inner_product(make_net, transpose):
    x = rng.normal(size=(3, 2, 2, 2)).astype(np.float32)
    w, b = rng.normal(size=(5, 8)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    layer = f'type: "InnerProduct" inner_product_param {{ num_output: 5 transpose: {str(transpose).lower()} }}'
    net = run(make_net, layer, x, parameters=(w.T if transpose else w, b))
    np.testing.assert_allclose(net.blobs["y"].data, x.reshape(3, 8) @ w.T + b, atol=1e-4)
    check_gradients(net)


def numpy_pooling(x, kernel, stride, pad, average):
    """Straight from the rules: rounding up, clipping only with padding, the divisor counting the near padding."""
    sizes = []
    for size in x.shape[2:]:
        count = math.ceil((size + 2 * pad - kernel) / stride) + 1
        if pad and (count - 1) * stride >= size + pad:
            count -= 1
        sizes.append(count)
    y = np.zeros(x.shape[:2] + tuple(sizes))
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            h, w = i * stride - pad, j * stride - pad
            divisor = (min(h + kernel, x.shape[2] + pad) - h) * (min(w + kernel, x.shape[3] + pad) - w)
            window = x[:, :, max(h, 0) : h + kernel, max(w, 0) : w + kernel]
            y[:, :, i, j] = window.sum((2, 3)) / divisor if average else window.max((2, 3), initial=LOWEST)
    return y


@pytest.mark.parametrize("method", ["MAX", "AVE"])
@pytest.mark.parametrize("size, kernel, stride, pad", [(8, 2, 2, 0), (7, 2, 2, 0), (7, 3, 2, 0), (6, 3, 2, 1), (5, 2, 2, 1)])
def test_pooling(make_net, method, size, kernel, stride, pad):
    x = rng.permutation(2 * 3 * size * (size + 1)).reshape(2, 3, size, size + 1).astype(np.float32) * 0.1
    layer = f'type: "Pooling" pooling_param {{ pool: {method} kernel_size: {kernel} stride: {stride} pad: {pad} }}'
    net = run(make_net, layer, x)
    np.testing.assert_allclose(net.blobs["y"].data, numpy_pooling(x, kernel, stride, pad, method == "AVE"), rtol=1e-5)
    check_gradients(net)


@pytest.mark.parametrize("size, kernel, stride", [(8, 2, 2), (7, 2, 2), (8, 3, 2), (7, 3, 1), (5, 2, 3), (4, 1, 1), (3, 3, 2)])
@pytest.mark.parametrize("after", ("", "convolution"))
def test_max_pooling_without_a_gradient_is_the_same(make_net, size, kernel, stride, after):
    """There a net takes another way; after a convolution its numbers lie in another order too."""
    layer = f'type: "Pooling" pooling_param {{ kernel_size: {kernel} stride: {stride} }}'
    text = one_layer(layer, [(2, 3, size, size + 1)]).replace("force_backward: true\n", "")
    if after:
        text = text.replace('bottom: "b0"', 'bottom: "c"').replace(
            'layer { name: "l"',
            'layer { name: "c" type: "Convolution" bottom: "b0" top: "c" convolution_param { num_output: 3 kernel_size: 1 '
            'weight_filler { type: "gaussian" std: 1 } } param { lr_mult: 0 } param { lr_mult: 0 } }\nlayer { name: "l"',
        )
    net = make_net(text)
    net.blobs["b0"].data[...] = rng.normal(size=(2, 3, size, size + 1))
    net.forward()
    bottom = net.blobs["c" if after else "b0"].data
    np.testing.assert_array_equal(net.blobs["y"].data, numpy_pooling(bottom, kernel, stride, 0, False).astype(np.float32))
    assert np.isfinite(bottom).all() and np.ptp(bottom) > 1  # pooling leaves its bottom alone


@pytest.mark.parametrize("channels", (3, 17))
def test_prelu_on_what_a_convolution_made(make_net, channels):
    """Numbers of a convolution lie channel by channel at each pixel; a few channels are taken another way than many."""
    text = f"""layer {{ name: "b0" type: "Input" top: "b0" input_param {{ shape {{ dim: 2 dim: 2 dim: 5 dim: 4 }} }} }}
    layer {{ name: "c" type: "Convolution" bottom: "b0" top: "c" convolution_param {{ num_output: {channels}
             kernel_size: 2 weight_filler {{ type: "gaussian" std: 1 }} }} }}
    layer {{ name: "p" type: "PReLU" bottom: "c" top: "p" prelu_param {{ filler {{ type: "uniform" }} }} }}"""
    net = make_net("force_backward: true\n" + text)
    net.blobs["b0"].data[...] = rng.normal(size=(2, 2, 5, 4))
    net.blobs["p"].diff[...] = gradient = rng.normal(size=(2, channels, 4, 3)).astype(np.float32)
    net.forward()
    net.backward()
    x, slope = net.blobs["c"].data, net.params["p"][0].data.reshape(1, -1, 1, 1)
    np.testing.assert_array_equal(net.blobs["p"].data, np.where(x > 0, x, slope * x))
    np.testing.assert_array_equal(net.blobs["c"].diff, np.where(x > 0, gradient, slope * gradient))
    expected = (gradient * np.minimum(x, 0)).sum((0, 2, 3))
    np.testing.assert_allclose(net.params["p"][0].diff, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", ("kernel_size: 3 stride: 2", "kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2 pad: 1"))
@pytest.mark.parametrize("masked", (False, True))
@pytest.mark.parametrize("odd", (False, True))
def test_max_pooling_that_does_not_wait_for_a_gpu_is_the_same(make_net, monkeypatch, setting, masked, odd):
    """As on a GPU, whose numbers the host does not look at: top, mask and gradient, of ordinary numbers and others."""
    x = rng.normal(size=(2, 3, 9, 8)).astype(np.float32)
    if odd:
        x[0, 0, :4, :4], x[0, 1, 2:5], x[1, 2, ::3, 1] = -np.inf, np.nan, np.inf
    tops = 'top: "mask" ' if masked else ""
    found = []
    for waits in (False, True):
        with monkeypatch.context() as patch:
            if waits:
                patch.setattr(looking, "waits", lambda tensor: True)
                patch.setattr(torch.Tensor, "item", lambda tensor: pytest.fail("waited for the GPU"))
            net = make_net(one_layer(f'{tops}type: "Pooling" pooling_param {{ {setting} }}', [x.shape]))
            net.blobs["b0"].data[...] = x
            net.forward()
            net.blobs["y"].diff[...] = np.arange(net.blobs["y"].count).reshape(net.blobs["y"].shape)
            net.backward()
            names = ["y", "mask"] if masked else ["y"]
            found.append([net.blobs[name].data.copy() for name in names] + [net.blobs["b0"].diff.copy()])
    for first, second in zip(*found):
        np.testing.assert_array_equal(first, second)
    assert not np.isnan(found[0][0]).any()


def test_max_pooling_mask_is_the_index_in_the_plane(make_net):
    net = make_net(
        one_layer('top: "mask" type: "Pooling" pooling_param { kernel_size: 2 stride: 2 pad: 0 }', [(1, 1, 4, 4)]).replace(
            "force_backward: true\n", ""
        )
    )
    net.blobs["b0"].data[...] = np.arange(16).reshape(1, 1, 4, 4)
    net.forward()
    np.testing.assert_array_equal(net.blobs["mask"].data.reshape(-1), [5, 7, 13, 15])


@pytest.mark.parametrize(
    "layer, function",
    [
        ('type: "ReLU"', lambda x: np.maximum(x, 0)),
        ('type: "ReLU" relu_param { negative_slope: 0.1 }', lambda x: np.where(x > 0, x, 0.1 * x)),
        ('type: "PReLU"', lambda x: np.where(x > 0, x, 0.25 * x)),
        ('type: "Sigmoid"', lambda x: 1 / (1 + np.exp(-x))),
        ('type: "TanH"', np.tanh),
        ('type: "Power" power_param { scale: -1 shift: 1 }', lambda x: 1 - x),
        ('type: "Power" power_param { power: 2 scale: 0.5 shift: 3 }', lambda x: (3 + 0.5 * x) ** 2),
        ('type: "Softmax"', lambda x: np.exp(x) / np.exp(x).sum(1, keepdims=True)),
        ('type: "Flatten"', lambda x: x.reshape(len(x), -1)),
        ('type: "Dropout" dropout_param { dropout_ratio: 0 }', lambda x: x),
    ],
)
def test_elementwise(make_net, layer, function):
    x = rng.normal(size=(2, 3, 2, 2)).astype(np.float32)
    x += np.sign(x) * 0.05  # away from the kink
    net = run(make_net, layer, x)
    np.testing.assert_allclose(net.blobs["y"].data, function(x), atol=1e-5)
    check_gradients(net)


def test_dropout_keeps_caffes_draws_and_scales(make_net):
    x = np.ones((2, 50), np.float32)
    net = run(make_net, 'type: "Dropout" dropout_param { dropout_ratio: 0.25 }', x)
    draws = np.random.RandomState(1).randint(0, 2**32, size=(2, 50), dtype=np.uint32)
    np.testing.assert_allclose(net.blobs["y"].data, (draws / 2.0**32 <= 0.75) / 0.75, rtol=1e-6)
    net.blobs["y"].diff[...] = 1
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, net.blobs["y"].data, rtol=1e-6)
    same = run(make_net, 'type: "Dropout"', x, phase=caffe.TEST)
    np.testing.assert_array_equal(same.blobs["y"].data, x)


def test_eltwise_concat_slice(make_net):
    a, b = rng.normal(size=(2, 3, 2, 2)).astype(np.float32), rng.normal(size=(2, 3, 2, 2)).astype(np.float32)
    b += np.sign(b - a) * 0.1  # away from a tie, where MAX has no derivative
    for operation, expected in (("SUM", a + b), ("PROD", a * b), ("MAX", np.maximum(a, b))):
        net = run(make_net, f'type: "Eltwise" eltwise_param {{ operation: {operation} }}', a, b)
        np.testing.assert_allclose(net.blobs["y"].data, expected, rtol=1e-5)
        check_gradients(net, bottoms=2)
    net = run(make_net, 'type: "Eltwise" eltwise_param { coeff: 2 coeff: -1 }', a, b)
    np.testing.assert_allclose(net.blobs["y"].data, 2 * a - b, rtol=1e-5)
    net = run(make_net, 'type: "Concat"', a, b)
    np.testing.assert_array_equal(net.blobs["y"].data, np.concatenate([a, b], 1))
    check_gradients(net, bottoms=2)
    net = make_net(one_layer('top: "z" type: "Slice" slice_param { slice_point: 1 }', [(2, 3, 2, 2)]))
    net.blobs["b0"].data[...] = a
    net.forward()
    np.testing.assert_array_equal(net.blobs["y"].data, a[:, :1])
    np.testing.assert_array_equal(net.blobs["z"].data, a[:, 1:])


def test_softmax_loss(make_net):
    x, labels = rng.normal(size=(4, 3)).astype(np.float32), np.array([0, 2, 1, 1], np.float32)
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    net = make_net(one_layer('type: "SoftmaxWithLoss" loss_weight: 2', [(4, 3), (4,)]).replace("force_backward: true\n", ""))
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = x, labels
    net.forward()
    expected = -np.log(p[np.arange(4), labels.astype(int)]).mean()
    assert float(net.blobs["y"].data) == pytest.approx(expected, rel=1e-5)
    # a loss frozen at 87.3365: the value is limited, the gradient is not
    net.blobs["b0"].data[...] = [[1000, 0, 0]] * 4
    net.blobs["b1"].data[...] = 1
    net.forward()
    assert float(net.blobs["y"].data) == pytest.approx(87.33655, rel=1e-6)


def test_softmax_loss_gradient_and_ignored_labels(make_net):
    x, labels = rng.normal(size=(2, 3, 2, 2)).astype(np.float32), rng.integers(0, 3, (2, 1, 2, 2)).astype(np.float32)
    labels[0, 0, 0, 0] = 9
    layer = 'type: "SoftmaxWithLoss" loss_param { ignore_label: 9 }'
    net = run(make_net, layer, x, labels)
    net.backward()
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    one_hot = (labels == np.arange(3)[None, :, None, None]).astype(np.float32)
    expected = np.where(labels == 9, 0, (p - one_hot) / 7)
    np.testing.assert_allclose(net.blobs["b0"].diff, expected, atol=1e-6)


def test_sigmoid_cross_entropy_is_summed_over_outputs_and_averaged_over_the_batch(make_net):
    x, t = rng.normal(size=(4, 5)).astype(np.float32), rng.integers(0, 2, (4, 5, 1, 1)).astype(np.float32)
    p = 1 / (1 + np.exp(-x))
    expected = -(t[..., 0, 0] * np.log(p) + (1 - t[..., 0, 0]) * np.log(1 - p)).sum() / 4
    net = run(make_net, 'type: "SigmoidCrossEntropyLoss"', x, t)
    assert float(net.blobs["y"].data) == pytest.approx(expected, rel=1e-5)
    net.backward()
    np.testing.assert_allclose(net.blobs["b0"].diff, (p - t[..., 0, 0]) / 4, atol=1e-6)


def test_accuracy_counts_ties_against_the_true_class(make_net):
    scores = np.array([[1, 0, 0], [0, 2, 1], [1, 1, 1]], np.float32)
    net = make_net(one_layer('type: "Accuracy"', [(3, 3), (3,)]).replace("force_backward: true\n", ""), caffe.TEST)
    net.blobs["b0"].data[...], net.blobs["b1"].data[...] = scores, [0, 1, 2]
    net.forward()
    assert float(net.blobs["y"].data) == pytest.approx(2 / 3)


def test_bad_layers_are_refused_by_name(make_net):
    for layer, shapes, message in (
        ('type: "Convolutoin"', [(1, 1, 3, 3)], r'unknown layer type "Convolutoin"; did you mean Convolution or Deconvolution\?'),
        ('type: "Convolution" convolution_param { num_output: 2 }', [(1, 1, 3, 3)], "kernel_size is missing"),
        ('type: "Convolution" convolution_param { num_output: 2 kernel_size: 9 }', [(1, 1, 3, 3)], "smaller than the kernel"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }', [(1, 1, 4, 4)], "pad .* must be below kernel"),
        ('type: "Eltwise"', [(2, 3), (2, 4)], r"one shape: \(2, 3\) and \(2, 4\)"),
        ('type: "SoftmaxWithLoss"', [(2, 3), (3,)], "need 2 labels, got 3"),
        ('type: "ReLU"', [(2, 3), (2, 3)], "takes 1 bottom blobs, not 2"),
        ('type: "InnerProduct" inner_product_param { num_output: 2 weight_filler { type: "xavir" } }', [(2, 3)], "unknown filler"),
    ):
        with pytest.raises((NetError, ShapeError), match=message):
            make_net(one_layer(layer, shapes))
