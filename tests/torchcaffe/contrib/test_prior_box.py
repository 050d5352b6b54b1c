"""PriorBox: against numpy written out and OpenCV's own."""

import math
import subprocess
import sys

import numpy as np
import pytest
from layer_checks import fill, one_layer
from opencv_nets import opencv

from torchcaffe import params as P
from torchcaffe.core.errors import NetError, ShapeError
from torchcaffe.formats import files

VARIANCES = "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2"


def layer(settings):
    return f'type: "PriorBox" prior_box_param {{ {settings} }}'


def reference(cells, image, sizes, step=None, offset=0.5):
    """Boxes around each cell's center, all `sizes` (width, height) at one cell before the next."""
    step = step or (image[0] / cells[0], image[1] / cells[1])
    boxes = []
    for row in range(cells[0]):
        for column in range(cells[1]):
            x, y = (column + offset) * step[1], (row + offset) * step[0]
            for width, height in sizes:
                boxes += [(x - width / 2) / image[1], (y - height / 2) / image[0], (x + width / 2) / image[1], (y + height / 2) / image[0]]
    return np.array(boxes)


R2, R3 = math.sqrt(2), math.sqrt(3)
CASES = [
    ("min_size: 30", [(30, 30)], {}),
    ("min_size: 30 max_size: 60 aspect_ratio: 2", [(30, 30), (30 * R2, 30 * R2), (30 * R2, 30 / R2), (30 / R2, 30 * R2)], {}),
    ("min_size: 30 aspect_ratio: [2, 3] flip: false", [(30, 30), (30 * R2, 30 / R2), (30 * R3, 30 / R3)], {}),
    ("min_size: 30 aspect_ratio: 2 aspect_ratio: 0.5 aspect_ratio: 1", [(30, 30), (30 * R2, 30 / R2), (30 / R2, 30 * R2)], {}),
    ("min_size: 8 min_size: 18 max_size: 32 max_size: 50", [(8, 8), (16, 16), (18, 18), (30, 30)], {}),
    ("min_size: 30 step: 8 offset: 0", [(30, 30)], dict(step=(8, 8), offset=0)),
    ("min_size: 30 step_h: 9 step_w: 7", [(30, 30)], dict(step=(9, 7))),
    ("min_size: 30 img_size: 200", [(30, 30)], dict(image=(200, 200))),
    ("min_size: 30 img_h: 200 img_w: 100", [(30, 30)], dict(image=(200, 100))),
]


@pytest.mark.parametrize("settings, sizes, others", CASES)
@pytest.mark.parametrize("clip", [True, False])
def test_boxes_and_variances(make_net, settings, sizes, others, clip):
    text = one_layer(layer(f"{settings} clip: {clip} {VARIANCES}".replace("True", "true").replace("False", "false")),
                     (2, 3, 5, 4), (2, 3, 60, 90))  # fmt: skip
    boxes = reference(**{"cells": (5, 4), "image": (60, 90), "sizes": sizes, **others})
    boxes = boxes.clip(0, 1) if clip else boxes
    top = fill(make_net(text), 0, 0)
    assert top.shape == (1, 2, len(boxes)) and len(boxes) == 5 * 4 * len(sizes) * 4
    np.testing.assert_allclose(top[0, 0], boxes, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(top[0, 1], np.tile(np.float32([0.1, 0.1, 0.2, 0.2]), len(boxes) // 4))
    if "img" not in settings:
        np.testing.assert_allclose(top, opencv(text, [np.zeros((2, 3, 5, 4)), np.zeros((2, 3, 60, 90))]), rtol=1e-6, atol=1e-6)


def test_one_variance_none_and_no_image(make_net):
    for settings, variance in (("", 0.1), ("variance: 0.3", 0.3)):
        top = fill(make_net(one_layer(layer(f"min_size: 4 img_size: 9 {settings}"), (1, 1, 2, 2))), 0)
        np.testing.assert_array_equal(top[0, 1], np.full(16, variance, np.float32))


def test_another_image_size(make_net):
    net = make_net(one_layer(layer("min_size: 30"), (1, 1, 2, 2), (1, 3, 60, 60)))
    small = fill(net, 0, 0)
    small[...] = 7  # the top is the caller's: a change of it does not reach the next forward
    net.blobs["y0"].data[...] = 7
    np.testing.assert_allclose(fill(net, 0, 0)[0, 0], reference((2, 2), (60, 60), [(30, 30)]), rtol=1e-6)
    net.blobs["b0"].reshape(1, 1, 3, 2)
    net.blobs["b1"].reshape(1, 3, 90, 60)
    np.testing.assert_allclose(fill(net, 0, 0)[0, 0], reference((3, 2), (90, 60), [(30, 30)]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings, message", [
    ("", "min_size is missing"),
    ("min_size: 0", "min_size is missing; it is in pixels and positive"),
    ("min_size: 3 min_size: 4 max_size: 5", "give as many max_size as min_size"),
    ("min_size: 3 max_size: 3", "max_size 3 is not larger than its min_size 3"),
    ("min_size: 3 variance: 1 variance: 2", "variance is given once or four times, not 2 times"),
    ("min_size: 3 variance: 0", "variance must be positive"),
    ("min_size: 3 aspect_ratio: 0", "aspect_ratio must be positive"),
    ("min_size: 3 step: 3 step_h: 3 step_w: 3", "give either step, or step_h and step_w"),
    ("min_size: 3 step_h: 3", "give either step, or step_h and step_w"),
    ("min_size: 3 step: 0", "step must be positive"),
    ("min_size: 3 img_size: 9 img_h: 3", "give either img_size, or img_h and img_w"),
])  # fmt: skip
def test_wrong_settings(make_net, settings, message):
    with pytest.raises(NetError, match=r'layer "l" \(PriorBox\): ' + message):
        make_net(one_layer(layer(settings), (1, 1, 2, 2), (1, 3, 9, 9)))


def test_wrong_bottoms(make_net):
    with pytest.raises(NetError, match="needs the image as its second bottom, or img_size"):
        make_net(one_layer(layer("min_size: 3"), (1, 1, 2, 2)))
    with pytest.raises(ShapeError, match=r"bottoms have 4 axes \(n, c, h, w\), not the shape \(1, 3\)"):
        make_net(one_layer(layer("min_size: 3"), (1, 1, 2, 2), (1, 3)))


def test_ssds_scripts_without_contrib(root):
    code = "from torchcaffe import params as P\ntry:\n    P.MultiBoxLoss\nexcept AttributeError as problem:\n    print(problem)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "no message MultiBoxLossParameter in caffe.proto"
    assert second.startswith("MultiBoxLoss is in torchcaffe.contrib: import torchcaffe.contrib before")


def test_names_of_ssds_scripts_and_numbers_of_its_fields():
    """P.PriorBox.CENTER_SIZE in Python; in files, the numbers of SSD's fork."""
    assert (P.PriorBox.CORNER, P.PriorBox.CENTER_SIZE, P.PriorBox.CORNER_SIZE) == (1, 2, 3)
    assert (P.MultiBoxLoss.SMOOTH_L1, P.MultiBoxLoss.MAX_NEGATIVE, P.MultiBoxLoss.PER_PREDICTION) == (1, 1, 1)
    text = """layer {
        permute_param { order: 5 } prior_box_param { offset: 1 } norm_param { across_spatial: false }
        multibox_loss_param { code_type: CENTER_SIZE encode_variance_in_target: true sample_size: 3 nms_param { eta: 1 } }
        detection_output_param { keep_top_k: 3 confidence_threshold: 1 variance_encoded_in_target: true }
        roi_pooling_param { spatial_scale: 1 } smooth_l1_loss_param { sigma: 1 } }"""
    layer = files.parse_net(text).layer[0]
    one = b"\x00\x00\x80\x3f"
    expected = {
        202: b"\x08\x05",
        203: b"\x6d" + one,
        206: b"\x08\x00",
        201: b"\x70\x02\x80\x01\x01\xaa\x01\x05\x1d" + one + b"\xb0\x01\x03",
        204: b"\x38\x03\x40\x01\x4d" + one,
        8266711: b"\x1d" + one,
        8266712: b"\x0d" + one,
    }
    assert {field.number: value.SerializeToString(deterministic=True) for field, value in layer.ListFields()} == expected
