"""Arithmetic over several blobs or over axes: Eltwise, Reduction, ArgMax, Softmax."""

from __future__ import annotations

import math

import torch

from torchcaffe.layers.base import Layer, apply, register


class Product(torch.autograd.Function):
    """Product of blobs whose gradient is dy * y / x (Caffe's stable_prod_grad: false): not a number where x is 0."""

    @staticmethod
    def forward(context, *bottoms):
        product = math.prod(bottoms[1:], start=bottoms[0])
        context.save_for_backward(product, *bottoms)
        return product

    @staticmethod
    def backward(context, gradient):
        product, *bottoms = context.saved_tensors
        return tuple(gradient * (product / x) for x in bottoms)


@register
class Eltwise(Layer):
    """SUM (with coefficients), PROD or MAX of blobs of one shape."""

    type = "Eltwise"
    bottoms = (2, None)

    def setup(self, bottom, top):
        p = self.param.eltwise_param
        self.check(len(p.coeff) in (0, len(bottom)), f"{len(bottom)} bottoms need as many coeff, not {len(p.coeff)}")
        self.check(not (p.operation == p.PROD and len(p.coeff)), "coeff is for SUM, not for PROD")
        self.gradient_from_bottoms = p.operation == p.SUM or p.operation == p.PROD and p.stable_prod_grad

    def shapes(self, *shapes):
        for shape in shapes[1:]:
            self.check(shape == shapes[0], f"all bottoms must have one shape: {shapes[0]} and {shape}")
        return [shapes[0]]

    def forward(self, *bottoms):
        p = self.param.eltwise_param
        if p.operation == p.SUM:
            coefficients = list(p.coeff) or [1.0] * len(bottoms)
            return sum(x if c == 1 else c * x for c, x in zip(coefficients, bottoms))
        if p.operation == p.PROD and not p.stable_prod_grad:
            return apply(Product, *bottoms)
        if p.operation == p.PROD:
            return math.prod(bottoms[1:], start=bottoms[0])
        top = torch.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])  # a tie goes to the second, as in Caffe
        for x in bottoms[2:]:
            top = torch.where(x > top, x, top)
        return top


@register
class Reduction(Layer):
    """SUM, ASUM (of absolute values), SUMSQ (of squares) or MEAN over all axes from `axis` on, times coeff."""

    type = "Reduction"
    gradient_from_bottoms = True
    in_place = False

    def setup(self, bottom, top):
        self.first = self.axis(self.param.reduction_param.axis, len(bottom[0].dims))

    def shapes(self, shape):
        return [shape[: self.first]]

    def forward(self, x):
        p = self.param.reduction_param
        x = x.flatten(self.first)
        if p.operation == p.ASUM:
            y = x.abs().sum(-1)
        elif p.operation == p.SUMSQ:
            y = (x * x).sum(-1)
        else:
            y = x.mean(-1) if p.operation == p.MEAN else x.sum(-1)
        return y * p.coeff if p.coeff != 1 else y


@register
class ArgMax(Layer):
    """Indices (or values) of the top_k largest, of each item or along `axis`; of equal values the later comes first."""

    type = "ArgMax"
    in_place = False
    has_backward = False

    def setup(self, bottom, top):
        p = self.param.argmax_param
        shape = bottom[0].dims
        self.check_shape(shape, "needs a blob with axes")
        self.along = self.axis(p.axis, len(shape)) if p.HasField("axis") else None
        size = math.prod(shape[1:]) if self.along is None else shape[self.along]
        self.check(p.top_k >= 1, "top_k must be positive")
        self.check(p.top_k <= size, f"top_k {p.top_k} exceeds the {size} values to choose from")

    def shapes(self, shape):
        p = self.param.argmax_param
        if self.along is not None:
            return [shape[: self.along] + (p.top_k,) + shape[self.along + 1 :]]
        return [(shape[0], 2 if p.out_max_val else 1, p.top_k) + (1,) * (len(shape) - 3)]

    def forward(self, x):
        p = self.param.argmax_param
        shape = self.shapes(tuple(x.shape))[0]
        along = 1 if self.along is None else self.along
        x = x.reshape(x.shape[0], -1) if self.along is None else x  # flatten(1) wants a second axis
        values, order = torch.sort(x.flip(along), dim=along, descending=True, stable=True)
        values = values.narrow(along, 0, p.top_k)
        index = (x.shape[along] - 1 - order.narrow(along, 0, p.top_k)).to(x.dtype)
        if self.along is not None:
            return (values if p.out_max_val else index).contiguous()
        return (torch.stack([index, values], 1) if p.out_max_val else index).reshape(shape)


@register
class Softmax(Layer):
    type = "Softmax"

    def setup(self, bottom, top):
        self.along = self.axis(self.param.softmax_param.axis, len(bottom[0].dims))

    def forward(self, x):
        return torch.softmax(x, self.along)
