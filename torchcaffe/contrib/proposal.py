"""Proposal (Faster R-CNN, Ren et al. 2015): regions to look at, from the outputs of the region proposal network."""

from __future__ import annotations

import ast
import re

import numpy as np
import torch

from torchcaffe.contrib.boxes import suppress
from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.proto import caffe_pb2

PAIR = re.compile(r"""['"]?(\w+)['"]?\s*:\s*(\[[^\]]*\]|[\w.+-]+)""")  # 'feat_stride': 16
COUNTS = {"TRAIN": (12000, 2000), "TEST": (6000, 300)}  # boxes before and after suppression, where they are not given


@register_layer
class Proposal(TorchLayer):
    """The best regions of each image: anchors moved by the predicted offsets, without those that overlap a better one.

    Bottoms: scores (n, 2 * anchors, h, w), first those of the background; offsets (n, 4 * anchors, h, w): of the center in
    sizes of the anchor, then logarithms of the sizes' ratios; sizes of the images (n, 3): height and width in pixels, scale.
    Tops: regions (r, 5): image, x1, y1, x2, y2 in pixels, the best first; their scores (r, 1), if wanted. The regions get no
    gradient, as in the paper's approximate joint training.

    It also runs the Python layer rpn.proposal_layer.ProposalLayer of the authors' nets, with `feat_stride` and `scales` of
    its param_str, unless a package `rpn` is installed.
    """

    type = "Proposal"
    bottoms = (3, 3)
    tops = (1, 2)
    in_place = False
    gradient_to = ()
    stands_for = ("rpn.proposal_layer", "ProposalLayer")
    settings = {
        "proposal_param": {
            "feat_stride": (int, 16),  # pixels of the image a cell of the scores
            "base_size": (int, 16),  # side of an anchor of scale 1
            "min_size": (int, 16),  # smaller regions are left out; times the image's scale
            "ratio": [float],  # height / width; 0.5, 1 and 2 where none is given
            "scale": [float],  # 8, 16 and 32 where none is given
            "pre_nms_topn": int,
            "post_nms_topn": int,
            "nms_thresh": (float, 0.7),
        }
    }

    def setup(self, bottom, top):
        p = self.p = self.settings_in_python() if self.param.type == "Python" else self.param.proposal_param
        self.check(p.feat_stride > 0 and p.base_size > 0, "feat_stride and base_size must be positive")
        self.check(all(value > 0 for value in [*p.ratio, *p.scale]), "ratio and scale must be positive")
        self.anchors = anchors(p.base_size, p.ratio or (0.5, 1, 2), p.scale or (8, 16, 32))
        before, after = COUNTS["TRAIN" if self.training else "TEST"]
        self.before = p.pre_nms_topn if p.HasField("pre_nms_topn") else before
        self.after = p.post_nms_topn if p.HasField("post_nms_topn") else after

    def settings_in_python(self):
        """ProposalParameter from python_param.param_str, such as "'feat_stride': 16"."""
        text = self.param.python_param.param_str
        p = caffe_pb2.LayerParameter().proposal_param
        for name, value in PAIR.findall(text):
            self.check(
                name in ("feat_stride", "scales"), f"param_str has {name}, which is not feat_stride or scales: {text}"
            )
            try:
                number = ast.literal_eval(value)
                setattr(p, name, int(number)) if name == "feat_stride" else p.scale.extend(number)
            except (ValueError, SyntaxError, TypeError):
                self.check(False, f"param_str: {value} is no value of {name}: {text}")
        return p

    def shapes(self, scores, offsets, sizes):
        count = len(self.anchors)
        cells = scores[2:]
        fits = len(scores) == 4 and scores[1] == 2 * count and offsets == (scores[0], 4 * count, *cells)
        self.check_shape(
            fits,
            f"{count} anchors need scores (n, {2 * count}, h, w) and offsets (n, {4 * count}, h, w), not {scores} and {offsets}",
        )
        self.check_shape(
            len(sizes) == 2 and sizes[0] == scores[0] and sizes[1] >= 3,
            f"sizes of the images are ({scores[0]}, 3): height, width, scale; not {sizes}",
        )
        return [(1, 5), (1, 1)]  # how many there are is known after forward

    @torch.no_grad()
    def forward(self, scores, offsets, sizes):
        count = len(self.anchors)
        rows, columns = scores.shape[2:]
        placed = torch.from_numpy(place(self.anchors, rows, columns, self.p.feat_stride))
        boxes = move(placed.to(offsets.device), offsets.permute(0, 2, 3, 1).reshape(len(offsets), -1, 4)).cpu().numpy()
        objects = scores[:, count:].permute(0, 2, 3, 1).reshape(len(scores), -1).cpu().numpy()
        regions, best = [np.empty((0, 5), np.float32)], [np.empty((0, 1), np.float32)]
        for image, (height, width, scale) in enumerate(sizes[:, :3].tolist()):
            found, score = self.propose(boxes[image], objects[image], height, width, scale)
            regions.append(np.insert(found, 0, image, axis=1))
            best.append(score[:, None])
        tops = [torch.from_numpy(np.concatenate(part)).to(scores.device) for part in (regions, best)]
        return tuple(tops[: max(1, len(self.param.top))])

    def propose(self, boxes, scores, height: float, width: float, scale: float):
        """Boxes (r, 4) and scores (r,) of one image, float32, the best first."""
        p = self.p
        boxes = boxes.clip(0, np.array([width - 1, height - 1] * 2, np.float32))
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        large = np.flatnonzero((sides >= p.min_size * scale).all(1))
        before, after = (count if count > 0 else -1 for count in (self.before, self.after))
        kept = large[suppress(boxes[large], scores[large], p.nms_thresh, before, limit=after, border=1)]
        return boxes[kept], scores[kept]


def anchors(base_size: float, ratios, scales) -> np.ndarray:
    """(ratios * scales, 4), float32: boxes around the first cell, of about scale^2 * base_size^2 pixels each.

    Sides of scale 1 are rounded to pixels; the center is that of the base box, (base_size - 1) / 2.
    """
    center = (base_size - 1) / 2
    boxes = []
    for ratio in ratios:
        width = np.round(np.sqrt(base_size**2 / ratio))
        sides = np.array([width, np.round(width * ratio)])
        boxes += [
            np.concatenate([center - (scale * sides - 1) / 2, center + (scale * sides - 1) / 2]) for scale in scales
        ]
    return np.array(boxes, np.float32)


def place(boxes: np.ndarray, rows: int, columns: int, stride: int) -> np.ndarray:
    """Anchors of all cells, (rows * columns * anchors, 4)."""
    x, y = np.meshgrid(np.arange(columns, dtype=np.float32) * stride, np.arange(rows, dtype=np.float32) * stride)
    shifts = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shifts + boxes).reshape(-1, 4)


def move(boxes: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Boxes (n, 4) moved by offsets (..., n, 4), as R-CNN codes them; the last pixel belongs to a box."""
    sides = boxes[..., 2:] - boxes[..., :2] + 1
    centers = boxes[..., :2] + sides / 2 + offsets[..., :2] * sides
    halves = torch.exp(offsets[..., 2:]) * sides / 2
    return torch.cat([centers - halves, centers + halves], -1)
