"""Interp and Upsample against numpy."""

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, one_layer

from torchcaffe.core.errors import NetError, PrototxtError, ShapeError

rng = np.random.default_rng(0)


# ---- Interp
def bilinear(height, width, crop_start=0, crop_end=0):
    """Output pixel i lies at i (input - 1) / (output - 1) of the cropped input, between two rows and two columns."""

    def reference(x):
        x = x[:, :, crop_start : x.shape[2] - crop_end, crop_start : x.shape[3] - crop_end]
        y = np.empty(x.shape[:2] + (height, width))
        for i in range(height):
            row = i * (x.shape[2] - 1) / (height - 1) if height > 1 else 0.0
            top = min(int(row), x.shape[2] - 1)
            bottom = min(top + 1, x.shape[2] - 1)
            for j in range(width):
                column = j * (x.shape[3] - 1) / (width - 1) if width > 1 else 0.0
                left = min(int(column), x.shape[3] - 1)
                right = min(left + 1, x.shape[3] - 1)
                down, along = row - top, column - left
                y[:, :, i, j] = (1 - down) * ((1 - along) * x[:, :, top, left] + along * x[:, :, top, right]) + down * (
                    (1 - along) * x[:, :, bottom, left] + along * x[:, :, bottom, right]
                )
        return y

    return reference


@pytest.mark.parametrize("settings, size, crop", [
    ("height: 7 width: 9", (7, 9), (0, 0)), ("height: 3 width: 2", (3, 2), (0, 0)), ("height: 1 width: 1", (1, 1), (0, 0)),
    ("zoom_factor: 3", (13, 16), (0, 0)), ("shrink_factor: 2", (3, 3), (0, 0)), ("shrink_factor: 4 zoom_factor: 2", (3, 3), (0, 0)),
    ("height: 5 width: 6", (5, 6), (0, 0)), ("height: 6 width: 6 pad_beg: -1 pad_end: -2", (6, 6), (1, 2)),
    ("zoom_factor: 2 pad_end: -1", (7, 9), (0, 1)), ("shrink_factor: 1 pad_beg: -1", (4, 5), (1, 0)),
])  # fmt: skip
def test_interp(make_net, settings, size, crop):
    x = rng.normal(size=(2, 3, 5, 6)).astype(np.float32)
    net = make_net(one_layer(f'type: "Interp" interp_param {{ {settings} }}', x.shape))
    assert net.blobs["y0"].data.shape == (2, 3, *size)
    check_layer(net, bilinear(*size, *crop), [x])


def test_interp_of_another_size_and_of_one_pixel(make_net):
    net = make_net(one_layer('type: "Interp" interp_param { zoom_factor: 2 }', (1, 1, 2, 2)))
    fill(net, [[[[0, 2], [4, 6]]]])
    assert net.blobs["y0"].data.tolist() == [[[[0, 1, 2], [2, 3, 4], [4, 5, 6]]]]
    net.blobs["b0"].reshape(1, 1, 1, 3)
    assert fill(net, [[[[1, 3, 5]]]]).tolist() == [[[[1, 2, 3, 4, 5]]]]
    net = make_net(one_layer('type: "Interp" interp_param { height: 3 width: 2 }', (1, 1, 1, 1)))
    assert fill(net, 7).tolist() == [[[[7, 7]] * 3]]  # as PSPNet's pooled 1×1 level


@pytest.mark.parametrize("settings, shape, error, message", [
    ("", (1, 1, 4, 4), NetError, "give height and width, or zoom_factor or shrink_factor or both"),
    ("height: 3", (1, 1, 4, 4), NetError, "width must be positive, not 0"),
    ("height: 3 width: 3 zoom_factor: 2", (1, 1, 4, 4), NetError, "give height and width or zoom_factor, not both"),
    ("zoom_factor: 0", (1, 1, 4, 4), NetError, "zoom_factor must be positive, not 0"),
    ("shrink_factor: -1", (1, 1, 4, 4), NetError, "shrink_factor must be positive, not -1"),
    ("zoom_factor: 2 pad_beg: 1", (1, 1, 4, 4), NetError, "pad_beg is 0, or negative to crop; not 1"),
    ("zoom_factor: 2 pad_beg: -2 pad_end: -2", (1, 1, 4, 9), ShapeError, "pad_beg and pad_end crop 4 rows and columns"),
    ("zoom_factor: 2", (1, 4, 4), ShapeError, r"needs 4 axes, got shape \(1, 4, 4\)"),
])  # fmt: skip
def test_wrong_settings_of_interp(make_net, settings, shape, error, message):
    with pytest.raises(error, match=rf'layer "l" \(Interp\): {message}'):
        make_net(one_layer(f'type: "Interp" interp_param {{ {settings} }}', shape))


# ---- Upsample
def put_at(size):
    def reference(x, mask):
        y = np.zeros(x.shape[:2] + (size[0] * size[1],))
        for n, c, i, j in np.ndindex(x.shape):
            y[n, c, int(mask[n, c, i, j])] = x[n, c, i, j]
        return y.reshape(x.shape[:2] + size)

    return reference


def places(shape, pixels):
    """A mask of different places in each plane."""
    mask = np.empty(shape)
    for n, c in np.ndindex(shape[:2]):
        mask[n, c] = rng.permutation(pixels)[: shape[2] * shape[3]].reshape(shape[2:])
    return mask


@pytest.mark.parametrize("settings, size", [
    ("", (4, 6)), ("scale: 2", (4, 6)), ("scale: 3", (6, 9)), ("scale_h: 1 scale_w: 4", (2, 12)),
    ("scale: 2 pad_out_h: true", (3, 6)), ("pad_out_w: true", (4, 5)), ("upsample_h: 3 upsample_w: 7", (3, 7)),
    ("upsample_h: 5 upsample_w: 5 scale: 2", (5, 5)),
])  # fmt: skip
def test_upsample_with_a_mask(make_net, settings, size):
    shape = (2, 3, 2, 3)
    net = make_net(one_layer(f'type: "Upsample" upsample_param {{ {settings} }}', shape, shape))
    assert net.blobs["y0"].data.shape == (2, 3, *size)
    check_layer(net, put_at(size), [rng.normal(size=shape).astype(np.float32), places(shape, size[0] * size[1])], checked=[0])


POOLED = """
force_backward: true
layer { name: "b0" type: "Input" top: "b0" input_param { shape { dim: 2 dim: 3 dim: HEIGHT dim: WIDTH } } }
layer { name: "pool" type: "Pooling" bottom: "b0" top: "pool" top: "mask" pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "l" type: "Upsample" bottom: "pool" bottom: "mask" top: "y0" upsample_param { SETTINGS } }
"""


@pytest.mark.parametrize("height, width, settings", [(4, 6, "scale: 2"), (5, 6, "pad_out_h: true"), (5, 3, "upsample_h: 5 upsample_w: 3")])
def test_pooling_and_back(make_net, height, width, settings):
    """What is pooled comes back to its place, and nothing else; the gradient passes to the maxima alone."""
    net = make_net(POOLED.replace("HEIGHT", str(height)).replace("WIDTH", str(width)).replace("SETTINGS", settings))
    x = rng.normal(size=(2, 3, height, width)).astype(np.float32)
    kept = np.zeros(x.shape, bool)
    for n, c, i, j in np.ndindex(2, 3, -(-height // 2), -(-width // 2)):
        window = x[n, c, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        row, column = np.unravel_index(window.argmax(), window.shape)
        kept[n, c, 2 * i + row, 2 * j + column] = True
    np.testing.assert_array_equal(fill(net, x), np.where(kept, x, 0))
    weight = rng.normal(size=x.shape).astype(np.float32)
    (diff,), _ = gradients(net, weight)
    np.testing.assert_array_equal(diff, np.where(kept, weight, 0))


def test_upsample_without_a_mask(make_net):
    x = rng.normal(size=(2, 3, 2, 3)).astype(np.float32)
    net = make_net(one_layer('type: "Upsample" upsample_param { scale: 3 }', x.shape))
    check_layer(net, lambda x: x.repeat(3, 2).repeat(3, 3), [x])


@pytest.mark.parametrize("settings, masks, error, message", [
    ("scale: 2 scale_h: 2 scale_w: 2", 1, NetError, "give scale, or scale_h and scale_w, not both"),
    ("scale_h: 2", 1, NetError, "give both scale_h and scale_w, or none of them"),
    ("upsample_w: 2", 1, NetError, "give both upsample_h and upsample_w, or none of them"),
    ("scale: 0", 1, NetError, r"sizes and scales must be positive: \(0, 0\)"),
    ("upsample_h: 4 upsample_w: -4", 1, NetError, r"sizes and scales must be positive: \(4, -4\)"),
    ("scale: 3 pad_out_h: true", 1, NetError, "pad_out_h is for a scale of 2: give upsample_h and upsample_w instead"),
    ("", 0, NetError, r"without a mask \(a second bottom\) it needs a positive scale"),
    ("upsample_h: 4 upsample_w: 4", 0, NetError, r"without a mask \(a second bottom\) it takes scale alone"),
])  # fmt: skip
def test_wrong_settings_of_upsample(make_net, settings, masks, error, message):
    with pytest.raises(error, match=rf'layer "l" \(Upsample\): {message}'):
        make_net(one_layer(f'type: "Upsample" upsample_param {{ {settings} }}', *[(1, 2, 2, 2)] * (1 + masks)))


def test_wrong_masks(make_net):
    with pytest.raises(ShapeError, match=r'layer "l" \(Upsample\): the mask needs the values\' shape, \(1, 2, 2, 2\), not'):
        make_net(one_layer('type: "Upsample"', (1, 2, 2, 2), (1, 2, 2, 3)))
    net = make_net(one_layer('type: "Upsample"', (1, 1, 2, 2), (1, 1, 2, 2)))
    for wrong, named in (([0, 1, 2, 16], 16), ([-1, 1, 2, 3], 1)):
        with pytest.raises(NetError, match=rf'layer "l" \(Upsample\): the mask has the place {named}, but the top has 16 pixels'):
            fill(net, np.ones((1, 1, 2, 2)), np.reshape(wrong, (1, 1, 2, 2)))
    assert fill(net, np.ones((1, 1, 2, 2)), np.reshape([0, 1, 2, 15], (1, 1, 2, 2))).sum() == 4


def test_misspelled_settings_are_named(make_net):
    with pytest.raises(PrototxtError, match=r"UpsampleParameter has no field 'upsample_x'; did you mean upsample_"):
        make_net(one_layer('type: "Upsample" upsample_param { upsample_x: 3 }', (1, 1, 2, 2)))
