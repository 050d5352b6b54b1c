"""SSD300 on VGG16, written from its paper: loads, detects as OpenCV does with the same weights, trains."""

import numpy as np
import pytest
from detection_nets import SSD_SOURCES, ssd300
from opencv_nets import opencv

import torchcaffe as caffe
from torchcaffe.formats import files


@pytest.mark.parametrize("width", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_deploy_net_and_weights(make_net, tmp_path, width):
    """8732 default boxes, as section 3.1 of the paper counts them; detections of random weights are OpenCV's."""
    text = str(ssd300(width))
    net = make_net(text, caffe.TEST)
    image = np.random.default_rng(0).normal(size=(1, 3, 300, 300)).astype(np.float32)
    found = net.forward(data=image)["detection_out"].copy()
    assert [net.blobs[source].data.shape[2] for source in SSD_SOURCES] == [38, 19, 10, 5, 3, 1]
    assert net.blobs["mbox_priorbox"].data.shape == (1, 2, 4 * 8732) and found.shape == (1, 1, 200, 7)
    weights = tmp_path / "ssd.caffemodel"
    net.save(str(weights))
    theirs = opencv(text, {"data": image}, "detection_out", weights.read_bytes())[0, 0]
    theirs = theirs[np.lexsort([-theirs[:, 2], theirs[:, 1]])]
    # Two scores or an overlap and its threshold may lie within the rounding errors of the two.
    same = np.isclose(found[0, 0], theirs, rtol=1e-3, atol=1e-4).all(1)
    assert same.mean() > 0.97

    other = make_net(text, caffe.TEST, seed=2)
    assert not np.array_equal(other.forward(data=image)["detection_out"], found)
    other.copy_from(str(weights))
    np.testing.assert_array_equal(other.forward(data=image)["detection_out"], found)
    layers = {layer.name: layer for layer in files.read_weights(weights)}
    assert list(layers["conv4_3_norm"].blobs[0].shape) == [512 // width] and layers["conv4_3_norm"].blobs[0].data[0] == 20


@pytest.mark.parametrize("width, batch", [(16, 1), pytest.param(4, 2, marks=pytest.mark.slow)])
def test_training(make_solver, make_net, tmp_path, width, batch):
    solver = make_solver(
        str(ssd300(width, batch, train=True)),
        "type: 'Adam' base_lr: 0.001 momentum: 0.9 weight_decay: 0.0005 lr_policy: 'fixed' random_seed: 1 max_iter: 20 snapshot: 20",
    )
    blobs = solver.net.blobs
    images = 0.1 * np.random.default_rng(0).normal(size=(batch, 3, 300, 300))
    labels = [[0, 5, 0, 0.3, 0.2, 0.7, 0.6, 0], [0, 7, 1, 0.1, 0.7, 0.2, 0.8, 0], [1, 9, 0, 0.1, 0.5, 0.4, 0.8, 0]][: batch + 1]
    for image, label, _, left, top, right, bottom, _ in labels:
        images[int(image), :, int(300 * top) : int(300 * bottom), int(300 * left) : int(300 * right)] += 5 - label
    blobs["data"].data[...] = images
    blobs["label"].reshape(1, 1, len(labels), 8)
    blobs["label"].data[0, 0] = labels
    losses = []
    for _ in range(20):
        solver.step(1)
        losses.append(float(blobs["mbox_loss"].data))
    assert np.isfinite(losses).all() and np.mean(losses[-3:]) < 0.7 * losses[0]

    deploy = make_net(str(ssd300(width, batch)), caffe.TEST, weights=str(next(tmp_path.glob("*_iter_20.caffemodel"))))
    found = deploy.forward(data=images)["detection_out"][0, 0]
    assert {int(row[0]) for row in found} <= set(range(batch)) and (found[:, 2] > 0.01).all()
