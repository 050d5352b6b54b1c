"""STOCHASTIC pooling, which real Caffe has on a GPU only, against its rule written out in numpy."""

import numpy as np
import pytest
from scipy import stats

import torchcaffe as caffe
from torchcaffe.core.errors import NetError

SEED = 11
SIZES = [
    "kernel_size: 2 stride: 2",
    "kernel_size: 3 stride: 2",  # windows overlap, and the last ends beyond the image
    "kernel_size: 2 stride: 3",
    "kernel_h: 3 kernel_w: 2 stride_h: 1 stride_w: 4",
    "kernel_size: 3 stride: 2 round_mode: FLOOR",
    "global_pooling: true",
]
rng = np.random.default_rng(0)


def text(settings, shape):
    dims = " ".join(f"dim: {size}" for size in shape)
    return (
        f'force_backward: true layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }} '
        f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ pool: STOCHASTIC {settings} }} }}'
    )


def windows(net, settings, shape):
    """((n, c, i, j), rows, columns) of each window, the rows and columns being those inside the image."""
    words = settings.replace(":", "").split()
    given = dict(zip(words[::2], words[1::2]))
    kernel = [int(given.get(f"kernel_{a}", given.get("kernel_size", shape[2 + i]))) for i, a in enumerate("hw")]
    stride = [int(given.get(f"stride_{a}", given.get("stride", 1))) for a in "hw"]
    for place in np.ndindex(*net.blobs["y"].data.shape):
        first = [place[2 + i] * stride[i] for i in (0, 1)]
        yield place, *(range(first[i], min(first[i] + kernel[i], shape[2 + i])) for i in (0, 1))


def filled(make_net, settings, shape, phase, zeros=0.3):
    net = make_net(text(settings, shape), phase)
    x = np.abs(rng.normal(size=shape)).astype(np.float32)
    x[rng.random(shape) < zeros] = 0  # as behind a ReLU
    net.blobs["x"].data[...] = x
    return net, x


@pytest.mark.parametrize("settings", SIZES)
def test_training_takes_a_number_drawn_in_proportion(make_net, settings):
    shape = (3, 2, 7, 6)
    net, x = filled(make_net, settings, shape, caffe.TRAIN)
    caffe.set_random_seed(SEED)
    net.forward()
    tops = net.blobs["y"].data.shape
    share = np.random.RandomState(SEED).randint(0, 2**32, tops, np.uint32) / 2.0**32
    net.blobs["y"].diff[...] = rng.normal(size=tops)
    net.backward()
    gradient = np.zeros(shape)
    for place, rows, columns in windows(net, settings, shape):
        n, c = place[:2]
        cells = [(n, c, row, column) for row in rows for column in columns]
        if not cells:  # beyond the image
            assert net.blobs["y"].data[place] == 0
            continue
        threshold = share[place] * sum(float(x[cell]) for cell in cells)
        total = 0.0
        for cell in cells:
            total += float(x[cell])
            if total >= threshold:
                break
        assert net.blobs["y"].data[place] == x[cell]
        gradient[cell] += net.blobs["y"].diff[place]
    np.testing.assert_allclose(net.blobs["x"].diff, gradient, atol=1e-6)


@pytest.mark.parametrize("settings", SIZES)
def test_testing_weighs_the_numbers_by_themselves(make_net, settings):
    shape = (2, 3, 7, 6)
    net, x = filled(make_net, settings, shape, caffe.TEST)
    x[0, 0] = net.blobs["x"].data[0, 0] = 0  # nothing to weigh by
    net.forward()
    tops = net.blobs["y"].data.shape
    net.blobs["y"].diff[...] = rng.normal(size=tops)
    net.backward()
    gradient = np.zeros(shape)
    for place, rows, columns in windows(net, settings, shape):
        n, c = place[:2]
        window = x[n, c, rows.start : rows.stop, columns.start : columns.stop].astype(np.float64)
        total = window.sum()
        mean = (window**2).sum() / total if total > 0 else 0
        assert net.blobs["y"].data[place] == pytest.approx(mean, rel=1e-5)
        if total > 0:
            part = net.blobs["y"].diff[place] * (2 * window - mean) / total
            gradient[n, c, rows.start : rows.stop, columns.start : columns.stop] += part
    np.testing.assert_allclose(net.blobs["x"].diff, gradient, atol=1e-5)


def test_the_share_of_each_place(make_net):
    net = make_net(text("kernel_size: 2 stride: 2", (1, 1, 200, 200)))
    net.blobs["x"].data[...] = np.tile([[1, 2], [3, 4]], (100, 100))
    caffe.set_random_seed(3)
    counts = np.unique(net.forward()["y"], return_counts=True)[1]
    assert stats.chisquare(counts, 10000 * np.array([0.1, 0.2, 0.3, 0.4])).pvalue > 1e-4


def test_each_forward_draws_anew_and_a_seed_repeats(make_net):
    net, _ = filled(make_net, "kernel_size: 3", (1, 2, 9, 9), caffe.TRAIN, zeros=0)
    caffe.set_random_seed(3)
    first, second = net.forward()["y"].copy(), net.forward()["y"].copy()
    assert (first != second).mean() > 0.5
    caffe.set_random_seed(3)
    np.testing.assert_array_equal(net.forward()["y"], first)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_window_beyond_the_image_gives_zero(make_net, phase):
    net = make_net(text("kernel_size: 1 stride: 2", (1, 1, 4, 4)), phase)
    net.blobs["x"].data[...] = 5
    y = net.forward()["y"]
    assert y.shape == (1, 1, 3, 3) and (y[..., :2, :2] == 5).all() and not y[..., 2, :].any() and not y[..., 2].any()


def test_no_pad_and_no_mask(make_net):
    with pytest.raises(NetError, match='"p" .Pooling.: pad is for MAX and AVE pooling'):
        make_net(text("kernel_size: 2 pad: 1", (1, 1, 4, 4)))
    with pytest.raises(NetError, match="a second top .the mask. is for MAX pooling"):
        make_net(text("kernel_size: 2", (1, 1, 4, 4)).replace('top: "y"', 'top: "y" top: "mask"'))
