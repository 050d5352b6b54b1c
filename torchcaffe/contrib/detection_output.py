"""DetectionOutput (SSD, Liu et al. 2016): detections from predicted offsets, class scores and prior boxes."""

from __future__ import annotations

import math

import numpy as np
import torch

from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.contrib.boxes import NMS_FIELDS, CodeType, decode, suppress
from torchcaffe.core import log


@register_layer
class DetectionOutput(TorchLayer):
    """The boxes that remain of each class after non-maximum suppression.

    Bottoms: offsets (n, priors * 4), or (n, priors * classes * 4) unless share_location; class scores (n, priors * classes);
    prior boxes and their variances (1, 2, priors * 4).
    Top: (1, 1, detections, 7), one row each: image of the batch, class, score, xmin, ymin, xmax, ymax as fractions of the
    image. Rows are sorted by image and class, then the best first. Without any detection there is one row for each image:
    its number, then six times -1.
    """

    type = "DetectionOutput"
    bottoms = (3, 3)
    in_place = False
    has_backward = False
    settings = {
        "detection_output_param": {
            "num_classes": int,
            "share_location": (bool, True),
            "background_label_id": (int, 0),
            "nms_param": NMS_FIELDS,
            "save_output_param": {
                "output_directory": str,
                "output_name_prefix": str,
                "output_format": str,
                "label_map_file": str,
                "name_size_file": str,
                "num_test_image": int,
            },
            "code_type": (CodeType, CodeType.CORNER),
            "keep_top_k": (int, -1),
            "variance_encoded_in_target": (bool, False),
            "confidence_threshold": float,
            "visualize": (bool, False),
            "visualize_threshold": float,
            "save_file": str,
        }
    }
    settings_numbers = {"detection_output_param": 204}

    def setup(self, bottom, top):
        p = self.param.detection_output_param
        self.check(p.num_classes > 0, "num_classes is missing; it counts the background")
        self.check(p.nms_param.nms_threshold >= 0, "nms_threshold must not be negative")
        self.check(0 < p.nms_param.eta <= 1, "eta must be over 0 and at most 1")
        self.top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") else -1
        self.threshold = p.confidence_threshold if p.HasField("confidence_threshold") else -np.inf
        for unused, what in ((p.save_output_param.output_directory, "save_output_param"), (p.visualize, "visualize")):
            if unused:
                log.warning(f'layer "{self.name}" (DetectionOutput): {what} has no effect: read the top from Python')

    def shapes(self, offsets, scores, priors):
        p = self.param.detection_output_param
        self.check_shape(len(priors) == 3 and priors[1] == 2, f"prior boxes are (1, 2, n), not {priors}")
        boxes, items = priors[2] // 4, offsets[0]
        expected = (boxes * 4 * (1 if p.share_location else p.num_classes), boxes * p.num_classes)
        for what, shape, count in zip(("offsets", "scores"), (offsets, scores), expected):
            found = math.prod(shape[1:])
            self.check_shape(
                shape[0] == items and found == count,
                f"{boxes} priors and {p.num_classes} classes need {count} {what} an image for {items} images, got shape {shape}",
            )
        return [(1, 1, 1, 7)]  # how many there are is known after forward

    @torch.no_grad()
    def forward(self, offsets, scores, priors):
        p = self.param.detection_output_param
        corners, variances = priors.reshape(2, -1, 4)
        offsets = offsets.reshape(len(offsets), len(corners), -1, 4).transpose(1, 2)  # (n, location classes, priors, 4)
        boxes = decode(offsets, corners, None if p.variance_encoded_in_target else variances, p.code_type)
        scores = scores.reshape(len(scores), len(corners), p.num_classes).transpose(1, 2)
        rows = [
            np.insert(self.detect(*item), 0, index, axis=1)
            for index, item in enumerate(zip(boxes.cpu().numpy(), scores.cpu().numpy()))
        ]
        detections = np.concatenate(rows) if rows else np.empty((0, 7), np.float32)
        if not len(detections):
            detections = np.full((len(offsets), 7), -1, np.float32)
            detections[:, 0] = np.arange(len(offsets))
        return torch.from_numpy(detections).to(offsets.device)[None, None]

    def detect(self, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Rows (class, score, box), float32, of one image: boxes (1 or classes, priors, 4), scores (classes, priors)."""
        p = self.param.detection_output_param
        rows = [np.empty((0, 6), np.float32)]
        for label in range(p.num_classes):
            if label == p.background_label_id:
                continue
            chosen = np.flatnonzero(scores[label] > self.threshold)
            found, score = boxes[0 if p.share_location else label][chosen], scores[label][chosen]
            kept = suppress(found, score, p.nms_param.nms_threshold, self.top_k, p.nms_param.eta)
            rows.append(np.column_stack([np.full(len(kept), label, np.float32), score[kept], found[kept]]))
        together = np.concatenate(rows)
        if -1 < p.keep_top_k < len(together):
            best = np.argsort(-together[:, 1], kind="stable")[: p.keep_top_k]
            together = together[best[np.argsort(together[best, 0], kind="stable")]]
        return together
