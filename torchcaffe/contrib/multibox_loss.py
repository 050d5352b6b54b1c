"""MultiBoxLoss (SSD, Liu et al. 2016): the loss of predicted offsets and class scores against labeled boxes."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from torchcaffe.layers.base import register_layer
from torchcaffe.contrib.boxes import NMS_FIELDS, CodeType, decode, encode
from torchcaffe.contrib.matching import UNMATCHED, match, mine
from torchcaffe.contrib.smooth_l1_loss import smooth_l1
from torchcaffe.distributed import parallel
from torchcaffe.layers.loss import LARGEST_LOSS, LossLayer


class LocLossType(enum.IntEnum):
    L2 = 0
    SMOOTH_L1 = 1


class ConfLossType(enum.IntEnum):
    SOFTMAX = 0
    LOGISTIC = 1


class MatchType(enum.IntEnum):
    BIPARTITE = 0
    PER_PREDICTION = 1


class MiningType(enum.IntEnum):
    NONE = 0
    MAX_NEGATIVE = 1
    HARD_EXAMPLE = 2


@dataclass
class Matches:
    """Pairs of a prior box and a labeled box over the batch; int64 arrays of one length, except `background`.

    items, priors: image and prior box; location: index of the location class; truth: row of the labels.
    background: (images, prior boxes) chosen as background.
    """

    items: np.ndarray
    priors: np.ndarray
    location: np.ndarray
    truth: np.ndarray
    background: tuple[np.ndarray, np.ndarray]


@register_layer
class MultiBoxLoss(LossLayer):
    """(loc_weight * loss of the matched priors' offsets + loss of class scores) / number of matches.

    Bottoms: offsets (n, priors * 4), or (n, priors * classes * 4) unless share_location; scores (n, priors * classes) before
    softmax; prior boxes and their variances (1, 2, priors * 4); labels (1, 1, g, 8), one row each: image of the batch or -1
    for none, class, number of the object, xmin, ymin, xmax, ymax as fractions of the image, difficult (1) or not (0).
    """

    type = "MultiBoxLoss"
    bottoms = (4, 4)
    gradient_to = (0, 1)
    refuses_gradient = ()
    settings = {
        "multibox_loss_param": {
            "loc_loss_type": (LocLossType, LocLossType.SMOOTH_L1),
            "conf_loss_type": (ConfLossType, ConfLossType.SOFTMAX),
            "loc_weight": (float, 1.0),
            "num_classes": int,
            "share_location": (bool, True),
            "match_type": (MatchType, MatchType.PER_PREDICTION),
            "overlap_threshold": (float, 0.5),
            "use_prior_for_matching": (bool, True),
            "background_label_id": (int, 0),
            "use_difficult_gt": (bool, True),
            "do_neg_mining": bool,
            "neg_pos_ratio": (float, 3.0),
            "neg_overlap": (float, 0.5),
            "code_type": (CodeType, CodeType.CORNER),
            "number_15": None,
            "encode_variance_in_target": (bool, False),
            "map_object_to_agnostic": (bool, False),
            "ignore_cross_boundary_bbox": (bool, False),
            "bp_inside": (bool, False),
            "mining_type": (MiningType, MiningType.MAX_NEGATIVE),
            "nms_param": NMS_FIELDS,
            "sample_size": (int, 64),
            "use_prior_for_nms": (bool, False),
        }
    }
    settings_numbers = {"multibox_loss_param": 201}

    def setup(self, bottom, top):
        super().setup(bottom, top)
        p = self.p = self.param.multibox_loss_param
        self.check(p.num_classes > 0, "num_classes is missing; it counts the background")
        self.mines = p.mining_type != p.NONE
        if p.HasField("do_neg_mining"):  # of nets older than mining_type
            self.mines = p.do_neg_mining if not p.HasField("mining_type") else self.mines
            self.check(p.do_neg_mining == self.mines, "do_neg_mining contradicts mining_type: leave it out")
        self.check(p.share_location or not self.mines, "without share_location only mining_type: NONE is possible")
        self.check(p.neg_pos_ratio > 0 and p.sample_size > 0, "neg_pos_ratio and sample_size must be positive")
        self.check(
            p.conf_loss_type == p.LOGISTIC or 0 <= p.background_label_id < p.num_classes,
            f"background_label_id {p.background_label_id} is none of the {p.num_classes} classes, which conf_loss_type: SOFTMAX "
            "needs",
        )
        if p.map_object_to_agnostic:
            classes = 2 if p.background_label_id >= 0 else 1
            self.check(p.num_classes == classes, f"map_object_to_agnostic needs num_classes: {classes}")

    def shapes(self, offsets, scores, priors, labels):
        self.check_shape(len(priors) == 3 and priors[1] == 2, f"prior boxes are (1, 2, n), not {priors}")
        self.check_shape(labels[-1:] == (8,), f"labels are (1, 1, n, 8), not {labels}")
        count = priors[2] // 4
        expected = (count * 4 * (1 if self.p.share_location else self.p.num_classes), count * self.p.num_classes)
        for what, shape, numbers in zip(("offsets", "scores"), (offsets, scores), expected):
            found = math.prod(shape[1:])
            self.check_shape(
                found == numbers,
                f"{count} priors and {self.p.num_classes} classes need {numbers} {what} an image, got shape {shape}",
            )
        return super().shapes(offsets, scores, priors, labels)

    def forward(self, offsets, scores, priors, labels):
        priors, labels = priors.detach().reshape(2, -1, 4), labels.detach().reshape(-1, 8)
        items, count = len(offsets), priors.shape[1]
        offsets = offsets.reshape(items, count, -1, 4).transpose(1, 2)  # (n, location classes, priors, 4)
        scores = scores.reshape(items, count, -1)
        labels = self.used_labels(labels, items)
        matches = self.find_matches(offsets.detach(), scores.detach(), priors, labels)
        flags = [*self.param.propagate_down, True, True][:2] if self.param.propagate_down else [True, True]
        loss = torch.zeros((), device=scores.device)
        if flags[0]:
            loss = loss + self.p.loc_weight * self.location_losses(offsets, priors, labels, matches).sum()
        if flags[1]:
            loss = loss + self.score_loss(scores, labels, matches)
        return loss / self.divisor(items, count, len(matches.truth))

    # ---- labels and matches
    def used_labels(self, labels: torch.Tensor, items: int) -> torch.Tensor:
        """The rows of labels that count, (g, 8)."""
        rows = labels[labels[:, 0] != -1]
        if not self.p.use_difficult_gt:
            rows = rows[rows[:, 7] == 0]
        for row in rows.tolist():
            image, label = int(row[0]), int(row[1])
            self.check(0 <= image < items, f"a label names image {image} of a batch of {items}")
            background = label == self.p.background_label_id
            self.check(not background, f"a box has the label of the background, {label} (background_label_id)")
            known = self.p.map_object_to_agnostic or 0 <= label < self.p.num_classes
            self.check(
                known, f"label {label} is outside 0 to {self.p.num_classes - 1}; correct the labels or num_classes"
            )
            ordered = self.p.code_type != CodeType.CENTER_SIZE or (row[3] < row[5] and row[4] < row[6])
            self.check(ordered, f"a labeled box has no width or height: {[round(value, 6) for value in row[3:7]]}")
        return rows

    def find_matches(self, offsets, scores, priors, labels) -> Matches:
        rows = labels.cpu().numpy()
        predicted = None
        if not self.p.use_prior_for_matching or self.p.HasField("nms_param"):
            predicted = self.decoded(offsets, priors).cpu().numpy()
        corners = priors[0].cpu().numpy()
        found = [
            self.match_image(
                np.flatnonzero(rows[:, 0] == item), rows, corners, None if predicted is None else predicted[item]
            )
            for item in range(len(offsets))
        ]
        background: tuple = (np.empty(0, np.int64),) * 2
        if self.mines:
            losses = self.mining_losses(offsets, scores, priors, labels, collect(found, background))
            chosen = []
            for item, (image, loss) in enumerate(zip(found, losses)):
                if not image:  # no labeled box: nothing is trained
                    continue
                boxes = corners if predicted is None or self.p.use_prior_for_nms else predicted[item, 0]
                matched, overlap = image[0]
                matched, negatives = mine(matched, overlap, loss, self.p, boxes)
                image[0] = matched, overlap
                chosen.append((np.full(len(negatives), item), negatives))
            if chosen:
                background = tuple(np.concatenate(part) for part in zip(*chosen))
        return collect(found, background)

    def match_image(self, own, rows, corners, predicted) -> dict:
        """Location class -> (matches as rows of the labels, overlaps), for the labels `own` of one image; {} without any."""
        if not len(own):
            return {}
        p = self.p
        threshold = p.overlap_threshold if p.match_type == p.PER_PREDICTION else None
        classes = [None] if p.share_location else [c for c in range(p.num_classes) if c != p.background_label_id]
        found = {}
        for index, label in enumerate(classes):
            location = 0 if label is None else label
            among = own
            if label is not None and not p.use_prior_for_matching:
                among = own[rows[own, 1].astype(int) == label]
            if index == 0 or not p.use_prior_for_matching:
                boxes = corners if p.use_prior_for_matching else predicted[location]
                matched, overlap = match(rows[among, 3:7], boxes, threshold, p.ignore_cross_boundary_bbox)
                matched = np.where(matched >= 0, np.append(among, 0)[matched], matched)
            kept = matched
            if label is not None and p.use_prior_for_matching:
                kept = np.where((matched >= 0) & (rows[matched, 1].astype(int) != label), UNMATCHED, matched)
            found[location] = kept, overlap
        return found

    def mining_losses(self, offsets, scores, priors, labels, matches: Matches) -> np.ndarray:
        """(n, priors): the loss by which boxes are mined."""
        with torch.no_grad():
            targets = self.targets(scores.shape[:2], labels, matches)
            losses = self.score_losses(scores.flatten(0, 1), self.as_targets(targets.flatten(), True)).reshape(
                targets.shape
            )
            if self.p.mining_type == self.p.HARD_EXAMPLE:
                one = self.location_losses(offsets, priors, labels, matches).sum(1)
                losses = losses.index_put(tuple(self.indices(matches.items, matches.priors)), one, accumulate=True)
        return losses.cpu().numpy()

    # ---- losses
    def location_losses(self, offsets, priors, labels, matches: Matches) -> torch.Tensor:
        """(matches, 4)."""
        p = self.p
        items, boxes, location, truth = self.indices(matches.items, matches.priors, matches.location, matches.truth)
        corners, variances = priors[0, boxes], priors[1, boxes]
        predicted = offsets[items, location, boxes]
        targets = encode(labels[truth, 3:7], corners, None if p.encode_variance_in_target else variances, p.code_type)
        if p.bp_inside:
            matched = corners
            if not p.use_prior_for_matching:
                matched = self.decoded(offsets.detach(), priors)[items, location, boxes]
            predicted = torch.where((matched < 0) | (matched > 1), targets, predicted)
        if p.encode_variance_in_target:
            predicted, targets = predicted / variances, targets / variances
        difference = predicted - targets
        return difference * difference / 2 if p.loc_loss_type == p.L2 else smooth_l1(difference)

    def score_loss(self, scores, labels, matches: Matches) -> torch.Tensor:
        targets = self.targets(scores.shape[:2], labels, matches)
        if not self.mines:
            return self.score_losses(scores.flatten(0, 1), self.as_targets(targets.flatten(), False)).sum()
        items, boxes = (np.concatenate(pair) for pair in zip((matches.items, matches.priors), matches.background))
        items, boxes = self.indices(items, boxes)
        return self.score_losses(scores[items, boxes], self.as_targets(targets[items, boxes], True)).sum()

    def targets(self, shape, labels, matches: Matches) -> torch.Tensor:
        """int64 (n, priors): the class of each prior box; background_label_id where it has no match."""
        targets = torch.full(tuple(shape), self.p.background_label_id, device=labels.device)
        items, boxes, truth = self.indices(matches.items, matches.priors, matches.truth)
        object_class = self.p.background_label_id + 1
        targets[items, boxes] = object_class if self.p.map_object_to_agnostic else labels[truth, 1].long()
        return targets

    def as_targets(self, classes, with_background: bool) -> torch.Tensor:
        """Classes as they are for softmax; for logistic losses (m, classes) of 0 and 1.

        Without mining, SSD's logistic loss wants 0 of all classes of an unmatched box, that of the background, too.
        """
        if self.p.conf_loss_type == self.p.SOFTMAX:
            return classes
        hot = classes[:, None] == torch.arange(self.p.num_classes, device=classes.device)
        if not with_background and self.p.background_label_id >= 0:
            hot[:, self.p.background_label_id] = False
        return hot.to(torch.float32)

    def score_losses(self, scores, targets) -> torch.Tensor:
        """(m,) of scores (m, classes)."""
        if self.p.conf_loss_type == self.p.LOGISTIC:
            return F.binary_cross_entropy_with_logits(scores, targets, reduction="none").sum(1)
        loss = F.cross_entropy(scores, targets, reduction="none")
        return loss + (loss.clamp(max=LARGEST_LOSS) - loss).detach()  # the limit shows in the value, not the gradient

    def divisor(self, items: int, priors: int, count: int) -> float:
        """By loss_param.normalization; the number of matches by default."""
        p = self.param.loss_param
        if self.normalization != p.VALID:
            return self.normalizer(items, priors, None)
        ranks = self.share.count if self.share.split else 1
        total = count if ranks == 1 else float(parallel.current().total(torch.tensor(float(count))))
        return max(1.0, total) / ranks

    # ---- help
    def decoded(self, offsets, priors) -> torch.Tensor:
        variances = None if self.p.encode_variance_in_target else priors[1]
        return decode(offsets, priors[0], variances, self.p.code_type)

    def indices(self, *arrays) -> list[torch.Tensor]:
        return [torch.from_numpy(array).to(self.context.device) for array in arrays]


def collect(found: list[dict], background) -> Matches:
    """All matches of a batch; `found` is, for each image, location class -> (rows of the labels, overlaps)."""
    parts = [(np.empty(0, np.int64),) * 4]
    for item, image in enumerate(found):
        for location, (matched, _) in image.items():
            priors = np.flatnonzero(matched >= 0)
            parts.append((np.full(len(priors), item), priors, np.full(len(priors), location), matched[priors]))
    items, boxes, locations, truth = (np.concatenate(column) for column in zip(*parts))
    return Matches(items, boxes, locations, truth, background)
