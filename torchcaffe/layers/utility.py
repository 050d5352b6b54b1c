"""Layers that move blobs about, and Softmax: Split, Concat, Slice, Eltwise, Flatten, Silence."""

from __future__ import annotations

import math

import torch

from torchcaffe.layers.base import Layer, register


@register
class Split(Layer):
    """The same blob several times; gradients sum."""

    type = "Split"
    tops = (1, None)
    in_place = False

    def shapes(self, shape):
        return [shape] * len(self.param.top)

    def forward(self, x):
        return tuple(x.view_as(x) for _ in self.param.top)


@register
class Concat(Layer):
    type = "Concat"
    bottoms = (1, None)
    in_place = False

    def setup(self, bottom, top):
        p = self.param.concat_param
        self.check(not (p.HasField("axis") and p.HasField("concat_dim")), "give axis or concat_dim, not both")
        self.along = p.concat_dim if p.HasField("concat_dim") else self.axis(p.axis, len(bottom[0].dims))

    def shapes(self, *shapes):
        def others(shape):
            return shape[: self.along] + shape[self.along + 1 :]

        for shape in shapes[1:]:
            self.check(
                len(shape) == len(shapes[0]) and others(shape) == others(shapes[0]),
                f"bottoms must agree except in axis {self.along}: {shapes[0]} and {shape}",
            )
        total = sum(shape[self.along] for shape in shapes)
        return [shapes[0][: self.along] + (total,) + shapes[0][self.along + 1 :]]

    def forward(self, *bottoms):
        return torch.cat(bottoms, self.along)


@register
class Slice(Layer):
    """Cuts along one axis, at `slice_point`s or in equal parts."""

    type = "Slice"
    tops = (1, None)
    in_place = False

    def setup(self, bottom, top):
        p = self.param.slice_param
        self.check(not (p.HasField("axis") and p.HasField("slice_dim")), "give axis or slice_dim, not both")
        self.along = p.slice_dim if p.HasField("slice_dim") else self.axis(p.axis, len(bottom[0].dims))

    def lengths(self, size):
        tops, points = len(self.param.top), list(self.param.slice_param.slice_point)
        if points:
            self.check(len(points) == tops - 1, f"{tops} tops need {tops - 1} slice points, not {len(points)}")
            edges = [0] + points + [size]
            lengths = [after - before for before, after in zip(edges, edges[1:])]
            self.check(min(lengths) > 0, f"slice points {points} must increase and stay below {size}")
            return lengths
        self.check(size % tops == 0, f"axis {self.along} of size {size} does not divide into {tops} equal parts")
        return [size // tops] * tops

    def shapes(self, shape):
        return [shape[: self.along] + (n,) + shape[self.along + 1 :] for n in self.lengths(shape[self.along])]

    def forward(self, x):
        return torch.split(x, self.lengths(x.shape[self.along]), self.along)


@register
class Eltwise(Layer):
    """SUM (with coefficients), PROD or MAX of blobs of one shape."""

    type = "Eltwise"
    bottoms = (2, None)

    def setup(self, bottom, top):
        p = self.param.eltwise_param
        self.check(len(p.coeff) in (0, len(bottom)), f"{len(bottom)} bottoms need as many coeff, not {len(p.coeff)}")
        self.check(not (p.operation == p.PROD and len(p.coeff)), "coeff is for SUM, not for PROD")

    def shapes(self, *shapes):
        for shape in shapes[1:]:
            self.check(shape == shapes[0], f"all bottoms must have one shape: {shapes[0]} and {shape}")
        return [shapes[0]]

    def forward(self, *bottoms):
        p = self.param.eltwise_param
        if p.operation == p.SUM:
            coefficients = list(p.coeff) or [1.0] * len(bottoms)
            return sum(x if c == 1 else c * x for c, x in zip(coefficients, bottoms))
        if p.operation == p.PROD:
            return math.prod(bottoms[1:], start=bottoms[0])
        top = torch.where(bottoms[0] > bottoms[1], bottoms[0], bottoms[1])  # a tie goes to the second, as in Caffe
        for x in bottoms[2:]:
            top = torch.where(x > top, x, top)
        return top


@register
class Flatten(Layer):
    """Axes `axis` to `end_axis` become one."""

    type = "Flatten"
    in_place = False

    def shapes(self, shape):
        p = self.param.flatten_param
        first, last = self.axis(p.axis, len(shape)), self.axis(p.end_axis, len(shape))
        return [shape[:first] + (math.prod(shape[first : last + 1]),) + shape[last + 1 :]]

    def forward(self, x):
        return x.reshape(self.shapes(tuple(x.shape))[0])


@register
class Silence(Layer):
    """Consumes blobs; their gradient is zero."""

    type = "Silence"
    bottoms = (1, None)
    tops = (0, 0)

    def shapes(self, *shapes):
        return []

    def forward(self, *bottoms):
        return ()


@register
class Softmax(Layer):
    type = "Softmax"

    def setup(self, bottom, top):
        self.along = self.axis(self.param.softmax_param.axis, len(bottom[0].dims))

    def forward(self, x):
        return torch.softmax(x, self.along)
