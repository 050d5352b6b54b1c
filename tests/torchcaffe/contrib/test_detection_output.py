"""DetectionOutput: against plain numpy written out, and OpenCV's own."""

import numpy as np
import pytest
from layer_checks import fill, one_layer
from opencv_nets import opencv

from torchcaffe.core.errors import NetError, ShapeError

PRIORS, CLASSES = 60, 4


def layer(settings):
    return f'type: "DetectionOutput" detection_output_param {{ num_classes: {CLASSES} {settings} }}'


def text(settings, items=2, locations=1):
    return one_layer(layer(settings), (items, PRIORS * locations * 4), (items, PRIORS * CLASSES), (1, 2, PRIORS * 4))


def bottoms(items=2, locations=1, seed=0):
    """Offsets, scores (softmax) and priors with their variances."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(0, 0.6, (PRIORS, 2))
    priors = np.concatenate([corners, corners + rng.uniform(0.1, 0.4, (PRIORS, 2))], 1)
    scores = np.exp(2 * rng.normal(size=(items, PRIORS, CLASSES)))
    scores /= scores.sum(2, keepdims=True)
    offsets = rng.normal(size=(items, PRIORS * locations * 4))
    variances = np.tile([0.1, 0.1, 0.2, 0.2], PRIORS)
    arrays = offsets, scores.reshape(items, -1), np.stack([priors.reshape(-1), variances])[None]
    return [array.astype(np.float32) for array in arrays]


def jaccard(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def decoded(offset, prior, variance, code):
    """Equations of SSD's section 2.2, backwards."""
    x1, y1, x2, y2 = prior
    width, height = x2 - x1, y2 - y1
    o = offset * variance
    if code == "CORNER":
        return prior + o
    if code == "CORNER_SIZE":
        return prior + o * [width, height, width, height]
    x, y = (x1 + x2) / 2 + o[0] * width, (y1 + y2) / 2 + o[1] * height
    w, h = width * np.exp(o[2]), height * np.exp(o[3])
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def reference(offsets, scores, priors, code="CORNER", share=True, variance_in_target=False, threshold=-1.0, nms=0.3, top_k=None,
              keep=None, eta=1.0, background=0):  # fmt: skip
    corners, variances = priors[0].astype(np.float64).reshape(2, -1, 4)
    variances = np.ones_like(variances) if variance_in_target else variances
    rows = []
    for image in range(len(offsets)):
        found = []
        score = scores[image].reshape(PRIORS, CLASSES)
        offset = offsets[image].astype(np.float64).reshape(PRIORS, -1, 4)
        for label in range(CLASSES):
            if label == background:
                continue
            boxes = [decoded(offset[i, 0 if share else label], corners[i], variances[i], code) for i in range(PRIORS)]
            order = [i for i in np.argsort(-score[:, label], kind="stable") if score[i, label] > threshold][:top_k]
            kept, limit = [], nms
            for i in order:
                if all(jaccard(boxes[i], boxes[j]) <= limit for j in kept):
                    kept.append(i)
                    limit *= eta if limit > 0.5 else 1
            found += [(image, label, score[i, label], *boxes[i]) for i in kept]
        if keep is not None:
            best = sorted(found, key=lambda row: -row[2])[:keep]
            found = sorted(best, key=lambda row: row[1])
        rows += found
    return np.array(rows)


CASES = [
    ("", {}),
    ("code_type: CENTER_SIZE", dict(code="CENTER_SIZE")),
    ("code_type: CENTER_SIZE confidence_threshold: 0.4 nms_param { nms_threshold: 0.45 top_k: 20 } keep_top_k: 15",
     dict(code="CENTER_SIZE", threshold=0.4, nms=0.45, top_k=20, keep=15)),
    ("code_type: CORNER_SIZE nms_param { nms_threshold: 0.6 eta: 0.9 }", dict(code="CORNER_SIZE", nms=0.6, eta=0.9)),
    ("code_type: CENTER_SIZE variance_encoded_in_target: true", dict(code="CENTER_SIZE", variance_in_target=True)),
    ("share_location: false keep_top_k: 7", dict(share=False, keep=7)),
    ("background_label_id: -1 keep_top_k: 1000", dict(background=-1, keep=1000)),
    ("background_label_id: 2 keep_top_k: 0 confidence_threshold: 0.9", dict(background=2, threshold=0.9, keep=0)),
]  # fmt: skip


@pytest.mark.parametrize("settings, options", CASES)
def test_detections(make_net, settings, options):
    locations = 1 if options.get("share", True) else CLASSES
    arrays = bottoms(locations=locations)
    expected = reference(*arrays, **options)
    if not len(expected):
        expected = np.array([[0, *[-1] * 6], [1, *[-1] * 6]])
    found = fill(make_net(text(settings, locations=locations)), *arrays)
    assert found.shape == (1, 1, len(expected), 7)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("settings", [CASES[2][0], "code_type: CENTER_SIZE keep_top_k: 200 confidence_threshold: 0.01", "code_type: CORNER",
                                      "share_location: false keep_top_k: 30 nms_param { nms_threshold: 0.45 top_k: 400 }"])  # fmt: skip
def test_as_opencv(make_net, settings):
    locations = CLASSES if "false" in settings else 1
    arrays = bottoms(locations=locations, seed=1)
    nms = "nms_param { nms_threshold: 0.45 top_k: 100 }"
    for given in ("share_location: true", "background_label_id: 0", nms, "keep_top_k: 200", "code_type: CORNER"):
        if given.split()[0] not in settings:
            settings += f" {given}"  # OpenCV needs them, or has other defaults
    found = fill(make_net(text(settings, locations=locations)), *arrays)
    theirs = opencv(text(settings, locations=locations), arrays)[0, 0]
    theirs = theirs[theirs[:, 2] > 0]  # OpenCV fills up to keep_top_k with 0, and sorts by image and score only
    theirs = theirs[np.lexsort([-theirs[:, 2], theirs[:, 1], theirs[:, 0]])]
    assert found[0, 0].shape == theirs.shape and len(theirs) > 10
    np.testing.assert_allclose(found[0, 0], theirs, rtol=1e-5, atol=1e-6)


def test_a_batch_of_another_size_and_no_detection(make_net):
    net = make_net(text("confidence_threshold: 0.99"))
    assert net.blobs["y0"].data.shape == (1, 1, 1, 7)
    arrays = bottoms(3)
    arrays[1][...] = 0.25
    for blob, array in zip(("b0", "b1", "b2"), arrays):
        net.blobs[blob].reshape(*array.shape)
    assert fill(net, *arrays).tolist() == [[[[image, *[-1] * 6] for image in range(3)]]]
    arrays[1].reshape(3, PRIORS, CLASSES)[1, 5] = [0, 0, 0, 1]
    found = fill(net, *arrays)
    assert found.shape == (1, 1, 1, 7) and found[0, 0, 0, :3].tolist() == [1, 3, 1]


def test_equal_scores_and_empty_boxes(make_net):
    """The first of equals is looked at first; a box without an area overlaps nothing."""
    net = make_net(one_layer('type: "DetectionOutput" detection_output_param { num_classes: 2 }', (1, 16), (1, 8), (1, 2, 16)))
    priors = np.zeros((1, 2, 16))
    priors[0, 0] = [0.1, 0.1, 0.5, 0.5, 0.1, 0.1, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3, 0.4, 0.4, 0.2, 0.2]
    found = fill(net, 0, [[0, 0.5] * 4], priors)[0, 0]
    np.testing.assert_allclose(found[:, 3:], priors[0, 0].reshape(4, 4)[[0, 2, 3]], rtol=1e-6)


@pytest.mark.parametrize("settings, message", [
    ("num_classes: 0", "num_classes is missing; it counts the background"),
    ("num_classes: 4 nms_param { nms_threshold: -1 }", "nms_threshold must not be negative"),
    ("num_classes: 4 nms_param { eta: 0 }", "eta must be over 0 and at most 1"),
])  # fmt: skip
def test_wrong_settings(make_net, settings, message):
    with pytest.raises(NetError, match=message):
        make_net(text("").replace(f"num_classes: {CLASSES}", settings))


def test_wrong_bottoms_and_the_gradient(make_net):
    with pytest.raises(ShapeError, match=r"60 priors and 4 classes need 240 offsets an image for 2 images, got shape \(2, 960\)"):
        make_net(text("", locations=CLASSES))
    with pytest.raises(ShapeError, match=r"60 priors and 4 classes need 240 scores an image for 2 images, got shape \(1, 240\)"):
        make_net(one_layer(layer(""), (2, PRIORS * 4), (1, PRIORS * CLASSES), (1, 2, PRIORS * 4)))
    with pytest.raises(ShapeError, match=r"prior boxes are \(1, 2, n\), not \(1, 240\)"):
        make_net(one_layer(layer(""), (2, PRIORS * 4), (2, PRIORS * CLASSES), (1, PRIORS * 4)))
    net = make_net(text(""))
    fill(net, *bottoms())
    with pytest.raises(NetError, match='"l" .DetectionOutput.: has no gradient for its bottom "b0"'):
        net.backward()


def test_what_is_not_written_is_said(make_net, monkeypatch, capfd):
    monkeypatch.setenv("GLOG_minloglevel", "1")
    make_net(text('save_output_param { output_directory: "results" output_format: "VOC" }'))
    assert "save_output_param has no effect: read the top from Python" in capfd.readouterr().err
    make_net(text('save_output_param { label_map_file: "labelmap_voc.prototxt" }'))
    assert "save_output_param" not in capfd.readouterr().err
