"""BN, PSPNet's with moving averages and SegNet's without, against numpy."""

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, one_layer

import torchcaffe as caffe
from torchcaffe.core.errors import NetError, ShapeError

rng = np.random.default_rng(0)


def channels_last(values, x):
    return np.reshape(values, (1, -1) + (1,) * (x.ndim - 2))


def of_batch(eps):
    """Ioffe and Szegedy's algorithm 1, a channel at a time."""

    def reference(x, slope, bias, *averages):
        y = np.empty_like(x)
        for c in range(x.shape[1]):
            mean = x[:, c].sum() / x[:, c].size
            variance = ((x[:, c] - mean) ** 2).sum() / x[:, c].size
            y[:, c] = slope.ravel()[c] * (x[:, c] - mean) / np.sqrt(variance + eps) + bias.ravel()[c]
        return y

    return reference


def of_averages(eps):
    def reference(x, slope, bias, mean, variance):
        return channels_last(slope, x) * (x - channels_last(mean, x)) / np.sqrt(channels_last(variance, x) + eps) + channels_last(bias, x)

    return reference


SHAPES = [(3, 2, 4, 5), (6, 2), (4, 2, 3)]
BLOB = (1, 2, 1, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_training_uses_the_batch_and_gathers_averages(make_net, shape):
    net = make_net(one_layer('type: "BN" bn_param { momentum: 0.75 eps: 0.01 }', shape))
    start = [blob.data.copy() for blob in net.params["l"]]
    assert [blob.shape for blob in start] == [BLOB] * 4
    assert [blob.ravel().tolist() for blob in start] == [[1, 1], [0, 0], [0, 0], [1, 1]]
    x = rng.normal(3, 2, shape).astype(np.float32)
    check_layer(net, of_batch(0.01), [x], [[2, -1], [0.5, 4], [1, 2], [3, 4]], checked=[0, 1, 2])
    axes = (0, *range(2, x.ndim))
    mean, variance = 0.75 * np.array([1, 2]) + 0.25 * x.mean(axes), 0.75 * np.array([3, 4]) + 0.25 * x.var(axes)
    np.testing.assert_allclose(net.params["l"][2].data.ravel(), mean, rtol=1e-5)
    np.testing.assert_allclose(net.params["l"][3].data.ravel(), variance, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("phase, settings", [(caffe.TEST, ""), (caffe.TRAIN, "frozen: true"), (caffe.TEST, "frozen: true")])
def test_testing_and_frozen_use_the_averages(make_net, shape, phase, settings):
    net = make_net(one_layer(f'type: "BN" bn_param {{ {settings} }}', shape), phase)
    parameters = [[2, -1], [0.5, 4], [1, 2], [3, 0.25]]
    x = rng.normal(3, 2, shape).astype(np.float32)
    check_layer(net, of_averages(1e-5), [x], parameters, checked=[0, 1, 2])
    assert [blob.data.ravel().tolist() for blob in net.params["l"]] == parameters


def test_momentum_and_eps_of_the_fork(make_net):
    """0.9 and 1e-5 where the prototxt is silent."""
    net = make_net(one_layer('type: "BN"', (2, 1)))
    y = fill(net, [[1], [2]])
    np.testing.assert_allclose(y, np.array([[-0.5], [0.5]]) / np.sqrt(0.25 + 1e-5), rtol=1e-6)
    np.testing.assert_allclose([blob.data.item() for blob in net.params["l"][2:]], [0.15, 0.925], rtol=1e-6)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_one_value_a_channel(make_net, phase):
    net = make_net(one_layer('type: "BN" bn_param { slope_filler { value: 3 } bias_filler { value: 2 } }', (1, 2, 1, 1)), phase)
    y = fill(net, np.reshape([5, 7], (1, 2, 1, 1)))
    expected = [2, 2] if phase == caffe.TRAIN else [17 - 15 * 5e-6, 23 - 21 * 5e-6]
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-6)
    if phase == caffe.TRAIN:
        np.testing.assert_allclose(net.params["l"][2].data.ravel(), [0.5, 0.7], rtol=1e-6)
        np.testing.assert_allclose(net.params["l"][3].data.ravel(), [0.9, 0.9], rtol=1e-6)
        assert not gradients(net, 1)[0][0].any()


SOLVER = "base_lr: 0.1 lr_policy: 'fixed' momentum: 0.9 weight_decay: 0.1 max_iter: 9 display: 0 random_seed: 1"
TRAINED = """
    layer { name: "data" type: "DummyData" top: "data" top: "y" dummy_data_param {
            shape { dim: 4 dim: 2 dim: 3 dim: 3 } shape { dim: 4 dim: 2 dim: 3 dim: 3 }
            data_filler { type: "gaussian" std: 3 mean: 2 } data_filler { value: 1 } } }
    layer { name: "bn" type: "BN" bottom: "data" top: "bn" PARAM bn_param { SETTINGS } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "bn" bottom: "y" top: "loss" }"""


def test_the_solver_leaves_the_averages_alone(make_solver):
    """Even where the prototxt gives them a rate and a decay, as many do; what changes them is the momentum alone."""
    param = "param { lr_mult: 1 decay_mult: 0 } " * 2 + "param { lr_mult: 1 decay_mult: 1 } " * 2
    for given in ("", param):
        solver = make_solver(TRAINED.replace("PARAM", given).replace("SETTINGS", "momentum: 1"), SOLVER)
        solver.step(3)
        slope, bias, mean, variance = (blob.data.ravel() for blob in solver.net.params["bn"])
        assert mean.tolist() == [0, 0] and variance.tolist() == [1, 1]
        assert np.all(slope != 1) and np.all(bias != 0)


def test_frozen_layers_do_not_learn_at_all(make_solver):
    solver = make_solver(TRAINED.replace("PARAM", "param { lr_mult: 1 }").replace("SETTINGS", "frozen: true"), SOLVER)
    solver.step(2)
    assert [blob.data.ravel().tolist() for blob in solver.net.params["bn"]] == [[1, 1], [0, 0], [0, 0], [1, 1]]


# ---- SegNet's
SEGNET = 'type: "BN" bn_param { bn_mode: LEARN scale_filler { value: 2 } shift_filler { value: 0.5 } }'


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_segnets_uses_the_batch_in_every_phase(make_net, shape, phase):
    net = make_net(one_layer(SEGNET, shape), phase)
    assert [blob.data.ravel().tolist() for blob in net.params["l"]] == [[2, 2], [0.5, 0.5]]
    assert all(blob.data.shape == BLOB for blob in net.params["l"])
    check_layer(net, of_batch(1e-9), [rng.normal(3, 2, shape).astype(np.float32)], [[2, -1], [0.5, 4]])


def test_segnets_statistics_as_tops(make_net):
    x = rng.normal(3, 2, (3, 2, 4, 5)).astype(np.float32)
    net = make_net(one_layer(SEGNET, x.shape, tops=3))
    y, mean, variance = fill(net, x)
    assert mean.shape == variance.shape == BLOB
    np.testing.assert_allclose(y, of_batch(1e-9)(x, np.array([2, 2]), np.array([0.5, 0.5])), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mean.ravel(), x.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(variance.ravel(), x.var((0, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_segnets_inference(make_net, shape):
    net = make_net(one_layer('type: "BN" bn_param { bn_mode: INFERENCE }', shape), caffe.TEST)
    reference = lambda x, scale, shift: channels_last(scale, x) * x + channels_last(shift, x)  # noqa: E731
    check_layer(net, reference, [rng.normal(size=shape).astype(np.float32)], [[2, -1], [0.5, 4]])


def test_in_place(make_net):
    x = rng.normal(size=(3, 2, 4, 4)).astype(np.float32)
    for settings in ("", "frozen: true", "bn_mode: LEARN", "bn_mode: INFERENCE"):
        found = []
        for top in ("y0", "b0"):
            net = make_net(one_layer(f'type: "BN" bn_param {{ {settings} }}', x.shape).replace('top: "y0"', f'top: "{top}"'))
            net.blobs["b0"].data[...] = x
            net.forward()
            found.append(net.blobs[top].data.copy())
            net.blobs[top].diff[...] = np.cos(x)
            net.backward()
            found.append(net.blobs["b0"].diff.copy())
        np.testing.assert_array_equal(found[0], found[2])
        np.testing.assert_array_equal(found[1], found[3])


@pytest.mark.parametrize("settings, shape, tops, error, message", [
    ("slope_filler { value: 1 } scale_filler { value: 1 }", (2, 3), 1, NetError,
     r"slope_filler \(PSPNet's BN\) and scale_filler \(SegNet's BN\) do not go together"),
    ("momentum: 0.9 bn_mode: LEARN", (2, 3), 1, NetError, r"momentum \(PSPNet's BN\) and bn_mode \(SegNet's BN\)"),
    ("momentum: 1.5", (2, 3), 1, NetError, "momentum is from 0 to 1, not 1.5"),
    ("eps: -1", (2, 3), 1, NetError, "eps is 0 or more, not -1"),
    ("frozen: true", (2, 3), 2, NetError, "only SegNet's BN, with bn_mode LEARN, has more than one top"),
    ("bn_mode: INFERENCE", (2, 3), 3, NetError, "only SegNet's BN, with bn_mode LEARN, has more than one top"),
    ("", (2,), 1, ShapeError, r"needs channels in axis 1, got shape \(2,\)"),
])  # fmt: skip
def test_wrong_settings(make_net, settings, shape, tops, error, message):
    with pytest.raises(error, match=rf'layer "l" \(BN\): {message}'):
        make_net(one_layer(f'type: "BN" bn_param {{ {settings} }}', shape, tops=tops))


def test_another_number_of_channels(make_net):
    net = make_net(one_layer('type: "BN"', (2, 3)))
    net.blobs["b0"].reshape(2, 4)
    with pytest.raises(ShapeError, match=r'layer "l" \(BN\): built for 3 channels, got shape \(2, 4\)'):
        net.reshape()
