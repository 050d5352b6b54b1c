"""Losses and metrics: scalars of shape ()."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from torchcaffe.errors import ShapeError
from torchcaffe.layers.base import Layer, register

LARGEST_LOSS = -math.log(torch.finfo(torch.float32).tiny)  # 87.33655: -log(FLT_MIN), Caffe's limit for one item


class LossLayer(Layer):
    """Scalar top; normalisation by loss_param as in Caffe."""

    bottoms = (2, 2)
    is_loss = True
    in_place = False
    gradient_to = (0,)
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
        if shapes[0][:1] != shapes[1][:1]:
            raise ShapeError(f'layer "{self.name}" ({self.type}): bottoms differ in batch size: {shapes[0]}, {shapes[1]}')
        return [()]

    def normalizer(self, outer, inner, valid):
        """Number to divide by, at least 1; `valid` is called only where it is needed."""
        p = self.param.loss_param
        if self.normalization == p.FULL:
            return max(1.0, outer * inner)
        if self.normalization == p.BATCH_SIZE:
            return max(1.0, outer)
        if self.normalization == p.NONE:
            return 1.0
        return max(1.0, outer * inner) if self.ignore_label is None else torch.clamp(valid(), min=1.0)


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
    """Labels as int64 of `shape`, truncated as C does; out of range is an error here (Caffe reads foreign memory)."""
    labels = labels.reshape(shape).to(torch.int64)
    if labels.device.type == "cpu":  # on a GPU the check would stop the pipeline; torch asserts there by itself
        wrong = (labels < 0) | (labels >= classes)
        if ignore is not None:
            wrong &= labels != ignore
        if wrong.any():
            value = int(labels[wrong][0])
            layer.check(False, f"label {value} is outside 0 to {classes - 1}; correct the labels or num_output")
    return labels


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
        loss = loss + (loss.clamp(max=LARGEST_LOSS) - loss).detach()  # the limit shows in the value, not the gradient
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
            raise ShapeError(f'layer "{self.name}" ({self.type}): scores {shapes[0]} and targets {shapes[1]} differ in count')
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
class Accuracy(Layer):
    """Share of items whose true class is among the top_k scores; a tie counts against the true class."""

    type = "Accuracy"
    bottoms = (2, 2)
    tops = (1, 2)
    in_place = False
    has_backward = False
    gradient_to = ()

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
