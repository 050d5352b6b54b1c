"""Faster R-CNN on VGG16, written from its paper: loads, detects as OpenCV does with the same weights, trains."""

import numpy as np
import pytest
import torch
from detection_nets import faster_rcnn
from opencv_nets import opencv

import torchcaffe as caffe
from torchcaffe import layers as L

SIZE = 160, 224


def image(seed=0):
    return np.random.default_rng(seed).normal(size=(1, 3, *SIZE)).astype(np.float32)


@pytest.mark.slow
def test_the_papers_net(make_net):
    """Full size: 137 million parameters; 300 regions of the paper's anchors, fewer in so small an image."""
    net = make_net(str(faster_rcnn(SIZE)), caffe.TEST)
    net.forward(data=image(), im_info=np.array([[*SIZE, 1]]))
    rois = net.blobs["rois"].data
    assert 10 < len(rois) <= 300 and net.blobs["cls_prob"].data.shape == (len(rois), 21)
    assert sum(blob.count for blobs in net.params.values() for blob in blobs) == 137_078_239
    np.testing.assert_allclose(net.blobs["cls_prob"].data.sum(1), 1, rtol=1e-5)


def test_deploy_net_and_weights(make_net, tmp_path):
    width, hidden = 8, 64
    settings = dict(feat_stride=16, base_size=16, min_size=0, ratio=[0.5, 1, 2], scale=[2, 4, 8], pre_nms_topn=6000,
                    post_nms_topn=50, nms_thresh=0.7)  # fmt: skip
    text = str(faster_rcnn(SIZE, width, hidden, proposals=settings))
    net = make_net(text, caffe.TEST)
    sizes = np.array([[*SIZE, 1]], np.float32)
    net.forward(data=image(), im_info=sizes)
    found = {name: net.blobs[name].data.copy() for name in ("rois", "cls_prob", "bbox_pred")}
    assert [found[name].shape for name in found] == [(50, 5), (50, 21), (50, 84)]
    assert net.blobs["roi_pool5"].data.shape == (50, 512 // width, 7, 7)
    weights = tmp_path / "faster_rcnn.caffemodel"
    net.save(str(weights))
    for name, ours in found.items():
        theirs = opencv(text, {"data": image(), "im_info": sizes}, name, weights.read_bytes())
        same = np.isclose(ours, theirs.reshape(ours.shape), rtol=1e-3, atol=1e-3).all(1)
        assert same.mean() > 0.9, name  # two scores may lie within the rounding errors of the two

    other = make_net(text, caffe.TEST, seed=2)
    other.copy_from(str(weights))
    other.forward(data=image(), im_info=sizes)
    for name, ours in found.items():
        np.testing.assert_array_equal(other.blobs[name].data, ours)


def test_an_image_without_proposals(make_net):
    net = make_net(str(faster_rcnn(SIZE, 8, 64, proposals=dict(min_size=1000))), caffe.TEST)
    net.forward(data=image(), im_info=np.array([[*SIZE, 1]]))
    shapes = [net.blobs[name].data.shape for name in ("rois", "roi_pool5", "cls_prob", "bbox_pred")]
    assert shapes == [(0, 5), (0, 64, 7, 7), (0, 21), (0, 84)]


def test_the_authors_python_layer_runs_the_same_net(make_net):
    def python(*bottoms):
        return L.Python(*bottoms, module="rpn.proposal_layer", layer="ProposalLayer", param_str="'feat_stride': 16")

    rois = []
    for proposal in (None, python):
        net = make_net(str(faster_rcnn(SIZE, 8, 64, proposal=proposal)), caffe.TEST)
        net.forward(data=image(), im_info=np.array([[*SIZE, 1]]))
        rois.append(net.blobs["rois"].data.copy())
    np.testing.assert_array_equal(*rois)
    assert len(rois[0]) > 10


def targets():
    """Inputs of the training net: one object in the image, one region on it, seven beside it."""
    from torchcaffe.contrib import boxes, proposal

    rng = np.random.default_rng(1)
    truth = np.array([[64, 32, 191, 127]], np.float32)
    rows, columns = SIZE[0] // 16, SIZE[1] // 16
    anchors = proposal.place(proposal.anchors(16, (0.5, 1, 2), (2, 4, 8)), rows, columns, 16)
    overlap = boxes.overlaps(anchors, truth, 1)[:, 0]
    labels = np.where(overlap > 0.5, 1, np.where(overlap < 0.3, 0, -1))
    labels[rng.permutation(np.flatnonzero(labels == 0))[64:]] = -1
    moved = np.where(labels[:, None] == 1, codes(truth, anchors), 0)

    def as_blob(values):  # (rows * columns * anchors, 4) -> (1, 4 * anchors, rows, columns)
        return values.reshape(1, rows, columns, -1).transpose(0, 3, 1, 2)

    ones = np.repeat((labels == 1)[:, None], 4, 1)
    corners = rng.uniform(0, 60, (7, 2))
    rois = np.concatenate([truth + [3, -2, -4, 5], np.concatenate([corners, corners + rng.uniform(16, 30, (7, 2))], 1)])
    head = np.zeros((8, 84))
    head[0, 4 * 12 : 4 * 12 + 4] = 10 * codes(truth, rois[:1])
    inside = np.zeros((8, 84))
    inside[0, 4 * 12 : 4 * 12 + 4] = 1
    return {
        "rpn_labels": labels.reshape(rows, columns, 9).transpose(2, 0, 1).reshape(1, 1, 9 * rows, columns),
        "rpn_bbox_targets": as_blob(moved), "rpn_bbox_inside_weights": as_blob(ones),
        "rpn_bbox_outside_weights": as_blob(ones / (labels >= 0).sum()), "rois": np.insert(rois, 0, 0, axis=1),
        "labels": [12, *[0] * 7], "bbox_targets": head, "bbox_inside_weights": inside, "bbox_outside_weights": inside,
    }  # fmt: skip


def codes(truth, others):
    """Equation 2 of the paper."""
    sides, wanted = others[:, 2:] - others[:, :2] + 1, truth[:, 2:] - truth[:, :2] + 1
    centers = (truth[:, :2] + wanted / 2 - others[:, :2] - sides / 2) / sides
    return np.concatenate([centers, np.log(wanted / sides)], 1)


def test_the_targets_are_what_proposals_are_decoded_by():
    from torchcaffe.contrib import proposal

    truth, others = np.array([[64, 32, 191, 127]]), np.array([[60, 40, 180, 150], [0, 0, 15, 15]])
    moved = proposal.move(torch.tensor(others).double(), torch.tensor(codes(truth, others)))
    np.testing.assert_allclose(moved - torch.tensor([0, 0, 1, 1]), np.repeat(truth, 2, 0))  # x2 is that of the next pixel


def test_training_end_to_end(make_solver, make_net, tmp_path):
    solver = make_solver(
        str(faster_rcnn(SIZE, 8, 64, train=8)),
        "base_lr: 0.01 momentum: 0.9 weight_decay: 0.0005 lr_policy: 'fixed' random_seed: 1 max_iter: 20 snapshot: 20",
    )
    net = solver.net
    net.blobs["data"].data[...] = image()
    net.blobs["data"].data[0, :, 32:128, 64:192] += 2
    for name, values in targets().items():
        net.blobs[name].data[...] = values
    start = net.params["conv1_1"][0].data.copy()
    names = ("rpn_loss_cls", "rpn_loss_bbox", "loss_cls", "loss_bbox")
    losses = []
    for _ in range(20):
        solver.step(1)
        losses.append([float(net.blobs[name].data) for name in names])
    first, last = np.array(losses[0]), np.mean(losses[-3:], 0)
    assert np.isfinite(losses).all() and last.sum() < 0.5 * first.sum()
    assert not np.array_equal(start, net.params["conv1_1"][0].data)

    settings = dict(scale=[2, 4, 8], post_nms_topn=20)
    weights = str(next(tmp_path.glob("*_iter_20.caffemodel")))
    deploy = make_net(str(faster_rcnn(SIZE, 8, 64, proposals=settings)), caffe.TEST, weights=weights)
    deploy.forward(data=net.blobs["data"].data, im_info=np.array([[*SIZE, 1]]))
    assert deploy.blobs["cls_prob"].data.shape == (20, 21)
