"""Losses on vectors: EuclideanLoss, HingeLoss, ContrastiveLoss."""

from __future__ import annotations

import math

import torch

from torchcaffe.layers.base import register
from torchcaffe.layers.loss import LossLayer, as_labels


@register
class EuclideanLoss(LossLayer):
    """Sum of squared differences over twice the batch size; both bottoms get a gradient."""

    type = "EuclideanLoss"
    gradient_to = (0, 1)
    refuses_gradient = ()

    def shapes(self, *shapes):
        self.check_shape(
            math.prod(shapes[0][1:]) == math.prod(shapes[1][1:]), f"bottoms differ in size: {shapes[0]} and {shapes[1]}"
        )
        return super().shapes(*shapes)

    def forward(self, a, b):
        difference = a - b.reshape(a.shape)
        return (difference * difference).sum() / (2 * a.shape[0])


@register
class HingeLoss(LossLayer):
    """Sum of max(0, 1 - x) for the label's score and of max(0, 1 + x) for the others (or of squares: L2) over N."""

    type = "HingeLoss"

    def shapes(self, *shapes):
        self.check_shape(len(shapes[0]) > 1, f"needs scores along axis 1, got shape {shapes[0]}")
        self.check_shape(
            math.prod(shapes[1]) == shapes[0][0],
            f"scores {shapes[0]} need {shapes[0][0]} labels, got shape {shapes[1]}",
        )
        return super().shapes(*shapes)

    def forward(self, scores, labels):
        p = self.param.hinge_loss_param
        x = scores.flatten(1)
        labels = as_labels(self, labels, (x.shape[0], 1), x.shape[1], None)
        sign = torch.ones_like(x).scatter(1, labels, -1.0)
        margin = torch.relu(1 + sign * x)  # relu: no gradient at the corner
        return ((margin * margin) if p.norm == p.L2 else margin).sum() / x.shape[0]


@register
class ContrastiveLoss(LossLayer):
    """Pulls pairs of vectors together where the third bottom is not 0, and apart up to a margin where it is."""

    type = "ContrastiveLoss"
    bottoms = (3, 3)
    gradient_to = (0, 1)
    refuses_gradient = ()

    def shapes(self, *shapes):
        a, b, similar = shapes
        self.check_shape(
            all(math.prod(shape[2:]) == 1 for shape in (a, b)) and a[1:2] == b[1:2],
            f"needs two blobs of vectors of one length, got {a} and {b}",
        )
        self.check_shape(math.prod(similar[1:]) == 1, f"needs one similarity a pair, got shape {similar}")
        return super().shapes(*shapes)

    def forward(self, a, b, similar):
        p, count = self.param.contrastive_loss_param, a.shape[0]
        difference = (a - b.reshape(a.shape)).reshape(count, -1)  # one axis: vectors of one number
        similar = similar.reshape(-1).to(torch.int64) != 0
        square = (difference * difference).sum(1)
        with torch.no_grad():  # the value, and the factor of each difference in Caffe's gradient
            distance = square.sqrt()
            if p.legacy_version:
                apart = (p.margin - square).clamp(min=0)
                factor = -((p.margin - square) > 0).to(square.dtype)
            else:
                apart = (p.margin - distance).clamp(min=0) ** 2
                factor = -(p.margin - distance).clamp(min=0) / (distance + 1e-4)
            value = torch.where(similar, square, apart).sum() / (2 * count)
            factor = torch.where(similar, 1.0, factor)
        slope = (factor * square).sum() / (2 * count)
        return value + (slope - slope.detach())
