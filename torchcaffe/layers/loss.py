"""Losses on classes and probabilities: scalars of shape (). The losses on vectors are in margin_loss."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from torchcaffe.distributed import parallel
from torchcaffe.core.errors import ShapeError
from torchcaffe.layers import looking
from torchcaffe.layers.base import Layer, apply, register

SMALLEST = 1e-20  # where InfogainLoss and MultinomialLogisticLoss limit probabilities: kLOG_THRESHOLD
LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.33655: -log(FLT_MIN), Caffe's limit for one item


class Limited(torch.autograd.Function):
    """Values of at least `low` and at most `high`, with the gradient of values without limits. NaN stays NaN."""

    @staticmethod
    def forward(context, values, low, high):
        return values.clamp(low, high)

    @staticmethod
    def backward(context, gradient):
        return gradient, None, None


class LossLayer(Layer):
    """Scalar top; normalisation by loss_param as in Caffe."""

    bottoms = (2, 2)
    is_loss = True
    in_place = False
    gradient_to = (0,)
    refuses_gradient = (1,)
    default_normalization = "VALID"

    def setup(self, bottom, top):
        p = self.param.loss_param
        self.normalization = p.normalization
        if not p.HasField("normalization"):
            if p.HasField("normalize"):
                self.normalization = p.VALID if p.normalize else p.BATCH_SIZE
            else:
                self.normalization = p.NormalizationMode.Value(self.default_normalization)
        self.ignore_label = p.ignore_label if p.HasField("ignore_label") else None

    def shapes(self, *shapes):
        self.check_shape(all(shapes[:2]), f"needs a batch along axis 0, got shapes {shapes[0]} and {shapes[1]}")
        if shapes[0][:1] != shapes[1][:1]:
            raise ShapeError(
                f'layer "{self.name}" ({self.type}): bottoms differ in batch size: {shapes[0]}, {shapes[1]}'
            )
        return [()]

    def normalizer(self, outer, inner, valid):
        """Number to divide by, at least 1; `valid` is called only where it is needed.

        Of a split batch: such that the mean over ranks is what the whole batch gives.
        """
        p = self.param.loss_param
        ranks = self.share.count if self.share.split else 1
        if self.normalization == p.FULL:
            return max(1.0, outer * inner)
        if self.normalization == p.BATCH_SIZE:
            return max(1.0, outer)
        if self.normalization == p.NONE:
            return 1.0 / ranks
        if self.ignore_label is None:
            return max(1.0, outer * inner)
        count = valid() if ranks == 1 else parallel.current().total(valid())
        return torch.clamp(count, min=1.0) / ranks


def class_axis(layer, parameter, shapes):
    """(axis, outer, classes, inner) of scores against labels; checks the number of labels."""
    axis = layer.axis(parameter.axis, len(shapes[0]))
    outer, inner = math.prod(shapes[0][:axis]), math.prod(shapes[0][axis + 1 :])
    if outer * inner != math.prod(shapes[1]):
        raise ShapeError(
            f'layer "{layer.name}" ({layer.type}): scores {shapes[0]} need {outer * inner} labels, '
            f"got {math.prod(shapes[1])} from shape {shapes[1]}"
        )
    return axis, outer, shapes[0][axis], inner


def as_labels(layer, labels, shape, classes, ignore):
    """Labels as int64 of `shape`, truncated as C does; out of range is an error here (Caffe reads foreign memory).

    On a GPU the check is deferred, see looking.in_range.
    """
    what = f"label {{}} is outside 0 to {classes - 1}; correct the labels or num_output"
    return looking.in_range(layer, labels.reshape(shape).to(torch.int64), classes, what, ignore)


@register
class SoftmaxWithLoss(LossLayer):
    """Mean of -log softmax(scores)[label] over the items that are not ignored."""

    type = "SoftmaxWithLoss"

    def shapes(self, *shapes):
        class_axis(self, self.param.softmax_param, shapes)
        return super().shapes(*shapes)

    def forward(self, scores, labels):
        axis, outer, classes, inner = class_axis(self, self.param.softmax_param, (scores.shape, labels.shape))
        labels = as_labels(self, labels, (outer, inner), classes, self.ignore_label)
        logarithms = F.log_softmax(scores.reshape(outer, classes, inner), 1)
        used = None if self.ignore_label is None else labels != self.ignore_label
        index = labels if used is None else torch.where(used, labels, 0)
        loss = -logarithms.gather(1, index[:, None])[:, 0]
        if self.context.traceable or looking.waits(loss) or not loss.numel() or not loss.detach().amax().item() <= LARGEST_LOSS:
            loss = apply(Limited, loss, None, LARGEST_LOSS)
        if used is not None:
            loss = torch.where(used, loss, 0.0)
        return loss.sum() / self.normalizer(outer, inner, lambda: used.sum().to(scores.dtype))


@register
class SigmoidCrossEntropyLoss(LossLayer):
    """Sum over outputs of the cross entropy of sigmoid(x) against targets, divided by the batch size by default."""

    type = "SigmoidCrossEntropyLoss"
    default_normalization = "BATCH_SIZE"

    def shapes(self, *shapes):
        if math.prod(shapes[0]) != math.prod(shapes[1]):
            raise ShapeError(
                f'layer "{self.name}" ({self.type}): scores {shapes[0]} and targets {shapes[1]} differ in count'
            )
        return super().shapes(*shapes)

    def forward(self, scores, targets):
        outer = scores.shape[0] if scores.dim() else 1
        inner = scores.numel() // max(outer, 1)
        targets = targets.reshape(scores.shape)
        loss = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        used = None if self.ignore_label is None else targets.trunc() != self.ignore_label
        if used is not None:
            loss = torch.where(used, loss, 0.0)
        return loss.sum() / self.normalizer(outer, inner, lambda: used.sum().to(scores.dtype))


@register
class InfogainLoss(LossLayer):
    """-sum over classes of H[label, class] * log softmax(scores)[class]; H from a file or the third bottom."""

    type = "InfogainLoss"
    bottoms = (2, 3)
    tops = (1, 2)
    gradient_to = (0, 2)
    refuses_gradient = (1, 2)

    def setup(self, bottom, top):
        super().setup(bottom, top)
        p = self.param.infogain_loss_param
        self.check(not self.param.loss_param.HasField("normalize"), "normalize is not for this loss: use normalization")
        self.matrix = None
        if len(bottom) < 3:
            from torchcaffe.formats.files import read_blob

            self.check(p.source, "the infogain matrix is missing: give infogain_loss_param.source or a third bottom")
            self.matrix = torch.from_numpy(np.array(read_blob(p.source), np.float32)).to(self.context.device)
        self.refuses_gradient = (1, 2)[: len(bottom) - 1]

    def shapes(self, *shapes):
        classes = class_axis(self, self.param.infogain_loss_param, shapes)[2]
        found = self.matrix.shape if self.matrix is not None else shapes[2]
        self.check_shape(
            math.prod(found) == classes**2,
            f"{classes} classes need an infogain matrix of {classes**2} values, got {found}",
        )
        return (super().shapes(*shapes) + [shapes[0]])[: max(1, len(self.param.top))]

    def forward(self, scores, labels, matrix=None):
        p = self.param.infogain_loss_param
        _, outer, classes, inner = class_axis(self, p, (scores.shape, labels.shape))
        labels = as_labels(self, labels, (outer, inner), classes, self.ignore_label)
        matrix = (self.matrix if matrix is None else matrix).reshape(classes, classes)
        logarithms = F.log_softmax(scores.reshape(outer, classes, inner), 1)
        limited = apply(Limited, logarithms, math.log(SMALLEST), None)
        used = torch.ones_like(labels, dtype=torch.bool) if self.ignore_label is None else labels != self.ignore_label
        weights = matrix[torch.where(used, labels, 0)].movedim(2, 1) * used[:, None]
        normalizer = self.normalizer(outer, inner, lambda: used.sum().to(scores.dtype))
        loss = -(weights * limited).sum() / normalizer
        return (loss, logarithms.detach().exp().reshape(scores.shape))[: max(1, len(self.param.top))]


@register
class MultinomialLogisticLoss(LossLayer):
    """Mean of -log p[label] over the batch, from probabilities."""

    type = "MultinomialLogisticLoss"

    def shapes(self, *shapes):
        self.check_shape(len(shapes[0]) > 1, f"needs probabilities along axis 1, got shape {shapes[0]}")
        self.check_shape(
            math.prod(shapes[1][1:]) == 1, f"needs one label an item, got labels of shape {shapes[1]} for {shapes[0]}"
        )
        return super().shapes(*shapes)

    def forward(self, probabilities, labels):
        p = probabilities.flatten(1)
        labels = as_labels(self, labels, (p.shape[0], 1), p.shape[1], None)
        chosen = p.gather(1, labels)
        limited = chosen.detach().clamp(min=SMALLEST)  # Caffe's gradient is that at the limit
        return -(limited.log() + (chosen - chosen.detach()) / limited).sum() / p.shape[0]
