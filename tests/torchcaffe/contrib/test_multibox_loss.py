"""MultiBoxLoss: against plain numpy written out, box by box, and its gradients by differences."""

import numpy as np
import pytest
from layer_checks import check_layer, fill, gradients, one_layer

from torchcaffe.core.errors import NetError, ShapeError

PRIORS, CLASSES, ITEMS = 14, 3, 3
LABELS = [  # image, class, number, box, difficult
    [0, 1, 0, 0.10, 0.10, 0.45, 0.50, 0], [0, 2, 1, 0.50, 0.40, 0.90, 0.95, 0], [0, 1, 2, 0.12, 0.15, 0.40, 0.60, 1],
    [2, 2, 0, 0.20, 0.30, 0.70, 0.80, 0], [-1, 1, 0, 0.30, 0.30, 0.60, 0.60, 0],
]  # fmt: skip


def layer(settings, more=""):
    return f'type: "MultiBoxLoss" multibox_loss_param {{ num_classes: {CLASSES} {settings} }} {more}'


def text(settings="", more="", locations=1, labels=5):
    shapes = (ITEMS, PRIORS * locations * 4), (ITEMS, PRIORS * CLASSES), (1, 2, PRIORS * 4), (1, 1, labels, 8)
    return one_layer(layer(settings, more), *shapes)


def bottoms(locations=1, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-0.05, 0.6, (PRIORS, 2))
    priors = np.concatenate([corners, corners + rng.uniform(0.2, 0.5, (PRIORS, 2))], 1)
    priors[0], priors[1] = [0.11, 0.1, 0.43, 0.52], [0.48, 0.4, 0.9, 0.9]  # close to labeled boxes
    variances = np.tile([0.1, 0.1, 0.2, 0.2], PRIORS)
    arrays = [rng.normal(size=(ITEMS, PRIORS * locations * 4)), 2 * rng.normal(size=(ITEMS, PRIORS * CLASSES)),
              np.stack([priors.reshape(-1), variances])[None], np.reshape(LABELS, (1, 1, -1, 8))]  # fmt: skip
    return [np.float32(array) for array in arrays]


# ---- SSD's section 2.2, box by box
def jaccard(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def center(box):
    return np.array([(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]])


def encoded(box, prior, code):
    b, p = center(box), center(prior)
    if code == "CORNER":
        return box - prior
    if code == "CORNER_SIZE":
        return (box - prior) / p[[2, 3, 2, 3]]
    return np.array([(b[0] - p[0]) / p[2], (b[1] - p[1]) / p[3], np.log(b[2] / p[2]), np.log(b[3] / p[3])])


def decoded(offset, prior, code):
    p = center(prior)
    if code == "CORNER":
        return prior + offset
    if code == "CORNER_SIZE":
        return prior + offset * p[[2, 3, 2, 3]]
    x, y, w, h = p[0] + offset[0] * p[2], p[1] + offset[1] * p[3], p[2] * np.exp(offset[2]), p[3] * np.exp(offset[3])
    return np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])


def matched(boxes, truth, threshold, inside=False):
    """(row of truth, -1 or -2 for each box; largest overlap of each box)."""
    table = np.array([[jaccard(box, other) for other in truth] for box in boxes]).reshape(len(boxes), len(truth))
    match = [-2 if inside and (min(box) < 0 or max(box) > 1) else -1 for box in boxes]
    table[np.array(match) == -2] = 0
    open_rows = set(range(len(truth)))
    while open_rows:
        best = max(((table[i, j], -i, -j) for i in range(len(boxes)) for j in open_rows if match[i] == -1), default=(0, 0, 0))
        if best[0] <= 1e-6:
            break
        match[-best[1]] = -best[2]
        open_rows.remove(-best[2])
    if threshold is not None:
        for i in range(len(boxes)):
            if match[i] == -1 and len(truth) and table[i].max() >= threshold:
                match[i] = int(table[i].argmax())
    return match, table.max(1) if len(truth) else np.zeros(len(boxes))


def suppressed(indices, boxes, losses, threshold):
    kept = []
    for i in sorted(indices, key=lambda i: -losses[i]):
        if all(jaccard(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def score_loss(scores, label, kind):
    if kind == "SOFTMAX":
        return np.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[label]
    target = np.zeros(CLASSES)
    if label is not None and label >= 0:
        target[label] = 1
    return (np.log1p(np.exp(-np.abs(scores))) + np.maximum(scores, 0) - scores * target).sum()


def reference(code="CORNER", share=True, location="SMOOTH_L1", kind="SOFTMAX", mining="MAX_NEGATIVE", weight=1.0, threshold=0.5,
              prior_matching=True, difficult=True, ratio=3.0, negative_overlap=0.5, in_target=False, bp_inside=False, inside=False,
              nms=None, nms_prior=False, sample=64, background=0, agnostic=False, divide=lambda matches: max(matches, 1)):  # fmt: skip
    def one_location_loss(offset, prior, variance, box):
        target, predicted = encoded(box, prior, code), offset.copy()
        target = target if in_target else target / variance
        if bp_inside:
            where = prior if prior_matching else decoded(offset if in_target else offset * variance, prior, code)
            predicted = np.where((where < 0) | (where > 1), target, predicted)
        x = np.abs((predicted - target) / (variance if in_target else 1))
        return (x * x / 2 if location == "L2" else np.where(x < 1, x * x / 2, x - 0.5)).sum()

    def image_loss(offsets, scores, corners, variances, rows):
        """(loss of the offsets, loss of the scores, number of matches)."""
        def label_of(j):
            return background + 1 if agnostic else int(rows[j][1])

        if not len(rows):
            extra = sum(score_loss(s, background if kind == "SOFTMAX" else None, kind) for s in scores) if mining == "NONE" else 0
            return 0.0, extra, 0
        boxes = [[decoded(offsets[i, c] * (1 if in_target else variances[i]), corners[i], code) for i in range(PRIORS)]
                 for c in range(offsets.shape[1])]  # fmt: skip
        match = {}
        for c in [0] if share else [c for c in range(CLASSES) if c != background]:
            mine = [j for j in range(len(rows)) if share or rows[j][1] == c]
            if prior_matching:
                all_matched, overlap = matched(corners, rows[:, 3:7], threshold, inside)
                match[c] = [j if j < 0 or j in mine else -1 for j in all_matched], overlap
            else:
                all_matched, overlap = matched(boxes[c], rows[mine, 3:7], threshold, inside)
                match[c] = [j if j < 0 else mine[j] for j in all_matched], overlap
        negatives = []
        if mining != "NONE":
            m, overlap = match[0]
            losses = [score_loss(scores[i], label_of(m[i]) if m[i] >= 0 else background, kind) for i in range(PRIORS)]
            if mining == "HARD_EXAMPLE":
                losses = [loss + (one_location_loss(offsets[i, 0], corners[i], variances[i], rows[m[i], 3:7]) if m[i] >= 0 else 0)
                          for i, loss in enumerate(losses)]  # fmt: skip
            eligible = [i for i in range(PRIORS) if mining == "HARD_EXAMPLE" or (m[i] == -1 and overlap[i] < negative_overlap)]
            best = sorted(eligible, key=lambda i: -losses[i])
            if nms:
                best = suppressed(eligible, corners if nms_prior else boxes[0], losses, nms)
            chosen = best[: sample if mining == "HARD_EXAMPLE" else int(sum(j >= 0 for j in m) * ratio)]
            negatives = [i for i in chosen if m[i] == -1]
            if mining == "HARD_EXAMPLE":
                match[0] = [j if j < 0 or i in chosen else -1 for i, j in enumerate(m)], overlap
        pairs = [(i, c, j) for c in match for i, j in enumerate(match[c][0]) if j >= 0]
        location_loss = sum(one_location_loss(offsets[i, c], corners[i], variances[i], rows[j, 3:7]) for i, c, j in pairs)
        if mining != "NONE":
            scored = [score_loss(scores[i], label_of(j), kind) for i, c, j in pairs]
            scored += [score_loss(scores[i], background, kind) for i in negatives]
        else:
            labels = {i: label_of(j) for i, c, j in pairs}
            scored = [score_loss(scores[i], labels.get(i, background if kind == "SOFTMAX" else None), kind) for i in range(PRIORS)]
        return location_loss, sum(scored), len(pairs)

    def loss(offsets, scores, priors, labels):
        corners, variances = priors[0].reshape(2, PRIORS, 4)
        rows = [row for row in labels.reshape(-1, 8) if row[0] >= 0 and (difficult or not row[7])]
        parts = [image_loss(offsets[item].reshape(PRIORS, -1, 4), scores[item].reshape(PRIORS, CLASSES), corners, variances,
                            np.array([row for row in rows if row[0] == item]).reshape(-1, 8)) for item in range(ITEMS)]  # fmt: skip
        location_loss, scores_loss, matches = (sum(part) for part in zip(*parts))
        return (weight * location_loss + scores_loss) / divide(matches)

    return loss


CASES = [
    ("", {}),
    ("code_type: CENTER_SIZE loc_weight: 2 overlap_threshold: 0.3 neg_pos_ratio: 1.5 neg_overlap: 0.2",
     dict(code="CENTER_SIZE", weight=2, threshold=0.3, ratio=1.5, negative_overlap=0.2)),
    ("code_type: CORNER_SIZE loc_loss_type: L2 match_type: BIPARTITE", dict(code="CORNER_SIZE", location="L2", threshold=None)),
    ("conf_loss_type: LOGISTIC use_difficult_gt: false", dict(kind="LOGISTIC", difficult=False)),
    ("conf_loss_type: LOGISTIC mining_type: NONE", dict(kind="LOGISTIC", mining="NONE")),
    ("mining_type: NONE", dict(mining="NONE")),
    ("do_neg_mining: false code_type: CENTER_SIZE", dict(mining="NONE", code="CENTER_SIZE")),
    ("do_neg_mining: true ignore_cross_boundary_bbox: true", dict(inside=True)),
    ("share_location: false mining_type: NONE", dict(share=False, mining="NONE")),
    ("share_location: false mining_type: NONE use_prior_for_matching: false code_type: CENTER_SIZE overlap_threshold: 0.2",
     dict(share=False, mining="NONE", prior_matching=False, code="CENTER_SIZE", threshold=0.2)),
    ("use_prior_for_matching: false overlap_threshold: 0.2 bp_inside: true", dict(prior_matching=False, threshold=0.2, bp_inside=True)),
    ("bp_inside: true overlap_threshold: 0.1 encode_variance_in_target: true code_type: CORNER_SIZE",
     dict(bp_inside=True, threshold=0.1, in_target=True, code="CORNER_SIZE")),
    ("mining_type: HARD_EXAMPLE sample_size: 4 overlap_threshold: 0.2", dict(mining="HARD_EXAMPLE", sample=4, threshold=0.2)),
    ("nms_param { nms_threshold: 0.2 } neg_pos_ratio: 4", dict(nms=0.2, ratio=4)),
    ("nms_param { nms_threshold: 0.3 } use_prior_for_nms: true neg_pos_ratio: 4", dict(nms=0.3, nms_prior=True, ratio=4)),
    ("background_label_id: -1 conf_loss_type: LOGISTIC", dict(background=-1, kind="LOGISTIC")),
]  # fmt: skip


@pytest.mark.parametrize("settings, options", CASES)
def test_loss_and_gradients(make_net, settings, options):
    locations = 1 if options.get("share", True) else CLASSES
    net = make_net(text(settings, locations=locations))
    check_layer(net, reference(**options), bottoms(locations), checked=(0, 1))
    assert not gradients(net, 1)[0][2].any()


@pytest.mark.parametrize("more, divide", [
    ("VALID", lambda matches: matches), ("BATCH_SIZE", lambda matches: ITEMS), ("FULL", lambda matches: ITEMS * PRIORS),
    ("NONE", lambda matches: 1),
])  # fmt: skip
def test_normalization(make_net, more, divide):
    net = make_net(text("", f"loss_param {{ normalization: {more} }}"))
    assert fill(net, *bottoms()) == pytest.approx(reference(divide=divide)(*np.array(bottoms(), object)), rel=1e-4)


def test_the_reference_is_not_the_same_for_all_options():
    losses = [reference(**options)(*bottoms(1 if options.get("share", True) else CLASSES)) for _, options in CASES]
    assert len(set(np.round(losses, 5))) == len(CASES)


def test_agnostic(make_net):
    arrays = bottoms()
    shapes = [array.shape for array in arrays]
    arrays[1] = arrays[1][:, : PRIORS * 2]
    shapes[1] = arrays[1].shape
    settings = layer("map_object_to_agnostic: true").replace("num_classes: 3", "num_classes: 2")
    agnostic = fill(make_net(one_layer(settings, *shapes)), *arrays)
    arrays[3][..., 1] = 1
    settings = layer("").replace("num_classes: 3", "num_classes: 2")
    assert fill(make_net(one_layer(settings, *shapes)), *arrays) == agnostic > 0


def test_images_without_labeled_boxes(make_net):
    """Nothing is trained on them, and a batch of nothing else has no loss."""
    net = make_net(text())
    arrays = bottoms()
    fill(net, *arrays)
    offsets, scores = gradients(net, 1)[0][:2]
    assert offsets[0].any() and scores[0].any() and not offsets[1].any() and not scores[1].any()
    arrays[3][..., 0] = -1
    assert fill(net, *arrays) == 0
    assert not any(diff.any() for diff in gradients(net, 1)[0][:2])
    net.blobs["b3"].reshape(1, 1, 0, 8)
    assert fill(net, *arrays[:3], np.zeros((1, 1, 0, 8))) == 0


def test_propagate_down_as_in_ssds_nets(make_net):
    """A part of the loss whose gradient is not wanted is left out."""
    whole, offsets, scores = (
        fill(make_net(text("", flags).replace("force_backward: true", "")), *bottoms())
        for flags in ("propagate_down: true propagate_down: true propagate_down: false propagate_down: false",
                      "propagate_down: true propagate_down: false propagate_down: false propagate_down: false",
                      "propagate_down: false propagate_down: true propagate_down: false propagate_down: false")
    )  # fmt: skip
    assert whole == pytest.approx(offsets + scores) and offsets > 0 and scores > 0


def test_labels_from_hdf5(make_solver, tmp_path):
    """One item of the file for each image: its number in the batch, filled up with rows for no image."""
    h5py = pytest.importorskip("h5py")
    rng = np.random.default_rng(0)
    labels = np.full((2, 1, 3, 8), -1.0)
    labels[0, 0, :1], labels[1, 0, :2] = LABELS[0], [[1, *LABELS[1][1:]], [1, *LABELS[3][1:]]]
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["data"], file["label"] = rng.normal(size=(2, 3, 32, 32)), labels
    (tmp_path / "images.txt").write_text(f"{tmp_path}/images.h5\n")
    heads = "".join(f"""
        layer {{ name: "{name}" type: "Convolution" bottom: "c" top: "{name}" convolution_param {{ num_output: {count}
                 kernel_size: 1 weight_filler {{ type: "xavier" }} }} }}
        layer {{ name: "{name}_p" type: "Permute" bottom: "{name}" top: "{name}_p" permute_param {{ order: [0, 2, 3, 1] }} }}
        layer {{ name: "{name}_f" type: "Flatten" bottom: "{name}_p" top: "{name}_f" }}""" for name, count in (("loc", 12), ("conf", 9)))
    net = f"""
        layer {{ name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param {{ source: "{tmp_path}/images.txt" batch_size: 2 }} }}
        layer {{ name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param {{ num_output: 8 kernel_size: 8 stride: 8
                 weight_filler {{ type: "xavier" }} }} }}
        {heads}
        layer {{ name: "p" type: "PriorBox" bottom: "c" bottom: "data" top: "p" prior_box_param {{ min_size: 12 aspect_ratio: 2 }} }}
        layer {{ name: "loss" type: "MultiBoxLoss" bottom: "loc_f" bottom: "conf_f" bottom: "p" bottom: "label" top: "loss"
                 multibox_loss_param {{ num_classes: 3 code_type: CENTER_SIZE overlap_threshold: 0.3 }} }}"""
    solver = make_solver(net, "base_lr: 0.02 momentum: 0.9 lr_policy: 'fixed' random_seed: 1 max_iter: 60")
    losses = []
    for _ in range(60):
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert losses[-1] < 0.3 * losses[0]


@pytest.mark.parametrize("change, message", [
    ([0, 3], "label 3 is outside 0 to 2; correct the labels or num_classes"),
    ([0, 0], r"a box has the label of the background, 0 \(background_label_id\)"),
    ([3, 1], "a label names image 3 of a batch of 3"),
])  # fmt: skip
def test_wrong_labels(make_net, change, message):
    arrays = bottoms()
    arrays[3][0, 0, 1, :2] = change
    with pytest.raises(NetError, match=r'layer "l" \(MultiBoxLoss\): ' + message):
        fill(make_net(text()), *arrays)


def test_a_labeled_box_without_a_width(make_net):
    arrays = bottoms()
    arrays[3][0, 0, 1, 5] = 0.5
    with pytest.raises(NetError, match=r"a labeled box has no width or height: \[0.5, 0.4, 0.5, 0.95\]"):
        fill(make_net(text("code_type: CENTER_SIZE")), *arrays)


@pytest.mark.parametrize("settings, message", [
    ("num_classes: 0", "num_classes is missing"),
    ("num_classes: 3 share_location: false", "without share_location only mining_type: NONE is possible"),
    ("num_classes: 3 do_neg_mining: true mining_type: NONE", "do_neg_mining contradicts mining_type"),
    ("num_classes: 3 map_object_to_agnostic: true", "map_object_to_agnostic needs num_classes: 2"),
    ("num_classes: 3 background_label_id: -1", "background_label_id -1 is none of the 3 classes, which conf_loss_type: SOFTMAX needs"),
    ("num_classes: 3 neg_pos_ratio: 0", "neg_pos_ratio and sample_size must be positive"),
])  # fmt: skip
def test_wrong_settings(make_net, settings, message):
    with pytest.raises(NetError, match=message):
        make_net(text().replace("num_classes: 3", settings))


def test_wrong_bottoms(make_net):
    with pytest.raises(ShapeError, match=r"14 priors and 3 classes need 56 offsets an image, got shape \(3, 168\)"):
        make_net(text(locations=3))
    with pytest.raises(ShapeError, match=r"labels are \(1, 1, n, 8\), not \(3, 5\)"):
        make_net(one_layer(layer(""), (ITEMS, PRIORS * 4), (ITEMS, PRIORS * CLASSES), (1, 2, PRIORS * 4), (3, 5)))
