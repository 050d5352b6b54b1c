"""Proposal: against plain numpy written out, the published table of anchors, and OpenCV's own."""

import numpy as np
import pytest
from layer_checks import fill, gradients, one_layer
from opencv_nets import opencv

import torchcaffe as caffe
from torchcaffe.core import permission
from torchcaffe.core.errors import NetError, ShapeError
from torchcaffe.layers import base

ROWS, COLUMNS = 6, 7
PUBLISHED = [  # the nine anchors that Faster R-CNN's authors print, counted from 0
    [-84, -40, 99, 55], [-176, -88, 191, 103], [-360, -184, 375, 199], [-56, -56, 71, 71], [-120, -120, 135, 135],
    [-248, -248, 263, 263], [-36, -80, 51, 95], [-80, -168, 95, 183], [-168, -344, 183, 359],
]  # fmt: skip


def text(settings="", items=1, anchors=9, tops=2):
    shapes = (items, 2 * anchors, ROWS, COLUMNS), (items, 4 * anchors, ROWS, COLUMNS), (items, 3)
    return one_layer(f'type: "Proposal" proposal_param {{ {settings} }}', *shapes, tops=tops)


def bottoms(items=1, anchors=9, seed=0):
    rng = np.random.default_rng(seed)
    sizes = [[96 - 10 * i, 112 - 5 * i, 1 + 0.5 * i] for i in range(items)]
    offsets = rng.normal(size=(items, 4 * anchors, ROWS, COLUMNS)) * 0.3
    return [np.float32(array) for array in (rng.uniform(size=(items, 2 * anchors, ROWS, COLUMNS)), offsets, sizes)]


def overlap(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0] + 1) * (a[3] - a[1] + 1) + (b[2] - b[0] + 1) * (b[3] - b[1] + 1) - both)


def reference(scores, offsets, sizes, anchors=PUBLISHED, stride=16, minimum=16, before=6000, after=300, threshold=0.7):
    rows, count = [], len(anchors)
    for image, (height, width, scale) in enumerate(sizes):
        found = []
        for y in range(ROWS):
            for x in range(COLUMNS):
                for a, (x1, y1, x2, y2) in enumerate(anchors):
                    w, h = x2 - x1 + 1, y2 - y1 + 1
                    dx, dy, dw, dh = offsets[image, 4 * a : 4 * a + 4, y, x].astype(float)
                    cx, cy = x1 + stride * x + w / 2 + dx * w, y1 + stride * y + h / 2 + dy * h
                    w, h = w * np.exp(dw), h * np.exp(dh)
                    box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                    box = box.clip(0, [width - 1, height - 1, width - 1, height - 1])
                    if min(box[2] - box[0], box[3] - box[1]) + 1 >= minimum * scale:
                        found.append((scores[image, count + a, y, x], box))
        kept = []
        for score, box in sorted(found, key=lambda pair: -pair[0])[:before]:
            if all(overlap(box, other) <= threshold for _, other in kept):
                kept.append((score, box))
        rows += [(image, *box, score) for score, box in kept[:after]]
    return np.array(rows)


def test_the_anchors_are_the_published_ones():
    from torchcaffe.contrib import proposal

    np.testing.assert_array_equal(proposal.anchors(16, (0.5, 1, 2), (8, 16, 32)), PUBLISHED)


@pytest.mark.parametrize("settings, options", [
    ("", {}),
    ("pre_nms_topn: 50 post_nms_topn: 10 nms_thresh: 0.5", dict(before=50, after=10, threshold=0.5)),
    ("min_size: 50 nms_thresh: 0.9", dict(minimum=50, threshold=0.9)),
    ("feat_stride: 8 ratio: 1 scale: [8, 16]", dict(stride=8, anchors=[PUBLISHED[3], PUBLISHED[4]])),
])  # fmt: skip
@pytest.mark.parametrize("items", [1, 2])
def test_regions_and_scores(make_net, settings, options, items):
    anchors = len(options.get("anchors", PUBLISHED))
    arrays = bottoms(items, anchors)
    expected = reference(*arrays, **options)
    regions, scores = fill(make_net(text(settings, items, anchors), caffe.TEST), *arrays)
    assert regions.shape == (len(expected), 5) and scores.shape == (len(expected), 1) and len(expected) > 5
    np.testing.assert_allclose(regions, expected[:, :5], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores[:, 0], expected[:, 5], rtol=1e-6)


def test_as_opencv(make_net):
    settings = "feat_stride: 16 base_size: 16 min_size: 0 pre_nms_topn: 6000 post_nms_topn: 300 nms_thresh: 0.7 "
    settings += "ratio: 0.5 ratio: 1 ratio: 2 scale: 8 scale: 16 scale: 32"
    arrays = bottoms()
    ours = fill(make_net(text(settings, tops=1), caffe.TEST), *arrays)
    theirs = opencv(text(settings, tops=1), arrays)
    assert len(theirs) == 300 and not theirs[len(ours) :].any()  # OpenCV fills up with 0
    np.testing.assert_allclose(ours, theirs[: len(ours)], rtol=1e-4, atol=1e-3)


def test_how_many_by_phase(make_net):
    counts = {}
    for phase in (caffe.TRAIN, caffe.TEST):
        layer = make_net(text(), phase).layer_dict["l"]
        counts[phase] = layer.before, layer.after
    assert counts == {caffe.TRAIN: (12000, 2000), caffe.TEST: (6000, 300)}


def test_no_region_and_no_gradient(make_net):
    net = make_net(text("min_size: 1000"))
    regions, scores = fill(net, *bottoms())
    assert regions.shape == (0, 5) and scores.shape == (0, 1)
    net = make_net(text())
    fill(net, *bottoms())
    assert not any(diff.any() for diff in gradients(net, 1)[0])


def test_what_is_refused(make_net):
    with pytest.raises(ShapeError, match=r"9 anchors need scores \(n, 18, h, w\) and offsets \(n, 36, h, w\), not \(1, 16, 6, 7\) and"):
        make_net(text(anchors=8))
    with pytest.raises(NetError, match="ratio and scale must be positive"):
        make_net(text("ratio: 0"))
    with pytest.raises(NetError, match="feat_stride and base_size must be positive"):
        make_net(text("feat_stride: 0"))
    with pytest.raises(ShapeError, match=r"sizes of the images are \(1, 3\): height, width, scale; not \(1, 2\)"):
        make_net(text().replace("dim: 1 dim: 3 ", "dim: 1 dim: 2 "))


# ---- as the authors' nets name it
PYTHON = 'type: "Python" python_param {{ module: "rpn.proposal_layer" layer: "ProposalLayer" param_str: "{}" }}'


def python_text(param_str, anchors=9):
    shapes = (1, 2 * anchors, ROWS, COLUMNS), (1, 4 * anchors, ROWS, COLUMNS), (1, 3)
    return one_layer(PYTHON.format(param_str), *shapes, tops=1)


@pytest.mark.parametrize("param_str, settings, anchors", [
    ("'feat_stride': 16", "", 9), ("'feat_stride': 8", "feat_stride: 8", 9),
    (r"'feat_stride': 16\n'scales': [4, 8]", "scale: [4, 8]", 6), ("{feat_stride: 8, scales: [8]}", "feat_stride: 8 scale: 8", 3),
])  # fmt: skip
def test_the_python_layer_of_the_authors_nets(make_net, param_str, settings, anchors):
    arrays = bottoms(anchors=anchors)
    ours = fill(make_net(text(settings, anchors=anchors, tops=1), caffe.TEST), *arrays)
    net = make_net(python_text(param_str, anchors), caffe.TEST)
    np.testing.assert_array_equal(fill(net, *arrays), ours)
    assert net.layers[-1].type == "Proposal"


def test_a_package_rpn_of_the_user_comes_first(make_net, tmp_path, monkeypatch):
    (tmp_path / "rpn").mkdir()
    (tmp_path / "rpn" / "__init__.py").write_text("raise RuntimeError('imported without permission')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(permission, "_said", False)  # whatever tests before this one allowed
    with pytest.raises(NetError, match='would import and run the module "rpn.proposal_layer": where you trust'):
        make_net(python_text("'feat_stride': 16"))


def test_the_python_layer_without_contrib(make_net, monkeypatch):
    monkeypatch.setattr(base, "STAND_INS", {})
    with pytest.raises(NetError, match='no module "rpn.proposal_layer"\nA layer that does the work of ProposalLayer is in torchcaffe.contr'):
        make_net(python_text("'feat_stride': 16"))


@pytest.mark.parametrize("param_str, message", [
    ("'nms': 3", "param_str has nms, which is not feat_stride or scales: 'nms': 3"),
    ("'feat_stride': many", "param_str: many is no value of feat_stride"),
    ("'scales': 8", "param_str: 8 is no value of scales"),
])  # fmt: skip
def test_a_wrong_param_str(make_net, param_str, message):
    with pytest.raises(NetError, match=message):
        make_net(python_text(param_str))
