"""Accuracy: a metric, not a loss; it has no gradient."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torchcaffe.layers.base import Layer, register
from torchcaffe.layers.loss import as_labels, class_axis


@register
class Accuracy(Layer):
    """Share of items whose true class is among the top_k scores; a tie counts against the true class."""

    type = "Accuracy"
    bottoms = (2, 2)
    tops = (1, 2)
    in_place = False
    has_backward = False

    def setup(self, bottom, top):
        p = self.param.accuracy_param
        self.top_k = p.top_k
        self.ignore_label = p.ignore_label if p.HasField("ignore_label") else None

    def shapes(self, *shapes):
        classes = class_axis(self, self.param.accuracy_param, shapes)[2]
        self.check(self.top_k <= classes, f"top_k {self.top_k} exceeds the {classes} classes")
        return [(), (classes,)][: max(1, len(self.param.top))]

    def forward(self, scores, labels):
        _, outer, classes, inner = class_axis(self, self.param.accuracy_param, (scores.shape, labels.shape))
        labels = as_labels(self, labels, (outer, inner), classes, self.ignore_label)
        scores = scores.reshape(outer, classes, inner)
        used = torch.ones_like(labels, dtype=torch.bool) if self.ignore_label is None else labels != self.ignore_label
        index = torch.where(used, labels, 0)[:, None]
        rivals = (scores >= scores.gather(1, index)).scatter(1, index, False).sum(1)
        hits = ((rivals < self.top_k) & used).to(scores.dtype)
        accuracy = hits.sum() / used.sum().clamp(min=1)
        if len(self.param.top) < 2:
            return accuracy
        members = F.one_hot(index[:, 0], classes).to(scores.dtype) * used[..., None]
        return accuracy, (members * hits[..., None]).sum((0, 1)) / members.sum((0, 1)).clamp(min=1)
