"""Layers that copy, join, cut, reshape, crop or repeat blobs."""

from __future__ import annotations

import math

import torch

from torchcaffe.layers import looking
from torchcaffe.layers.base import Layer, register


@register
class Split(Layer):
    """The same blob several times; gradients sum."""

    type = "Split"
    gradient_from_bottoms = True
    any_precision = True
    is_view = True
    tops = (1, None)
    in_place = False

    def shapes(self, shape):
        return [shape] * len(self.param.top)

    def forward(self, x):
        return tuple(x.expand_as(x) for _ in self.param.top)  # not a view: of one image it loses the memory order


@register
class Concat(Layer):
    type = "Concat"
    gradient_from_bottoms = True
    any_precision = True
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
    gradient_from_bottoms = True
    any_precision = True
    is_view = True
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
class Flatten(Layer):
    """Axes `axis` to `end_axis` become one."""

    type = "Flatten"
    gradient_from_bottoms = True
    any_precision = True
    is_view = True
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
    any_precision = True
    bottoms = (1, None)
    tops = (0, 0)

    def shapes(self, *shapes):
        return []

    def forward(self, *bottoms):
        return ()


@register
class Reshape(Layer):
    """Axes `axis` to `axis + num_axes` replaced by `shape`: 0 copies the bottom's dimension, one -1 is inferred."""

    type = "Reshape"
    gradient_from_bottoms = True
    any_precision = True
    is_view = True
    in_place = False

    def setup(self, bottom, top):
        wanted = list(self.param.reshape_param.shape.dim)
        self.check(wanted.count(-1) < 2, f"only one dimension may be -1: {wanted}")
        self.check(all(size >= -1 for size in wanted), f"dimensions must be -1, 0 or positive: {wanted}")

    def shapes(self, shape):
        p = self.param.reshape_param
        first = self.axis(p.axis, len(shape), end=True)
        self.check(p.num_axes >= -1, f"num_axes must be -1 or more, not {p.num_axes}")
        last = len(shape) if p.num_axes == -1 else first + p.num_axes
        self.check_shape(last <= len(shape), f"axes {first} to {last} exceed shape {shape}")
        wanted = list(p.shape.dim)
        for index, size in enumerate(wanted):
            if size == 0:
                self.check_shape(first + index < len(shape), f"dimension {index} copies an axis that {shape} lacks")
                wanted[index] = shape[first + index]
        new = list(shape[:first]) + wanted + list(shape[last:])
        count = math.prod(shape)
        if -1 in new:
            known = math.prod(size for size in new if size != -1)
            self.check_shape(
                known and count % known == 0, f"{count} values of {shape} do not divide by {known} of {new}"
            )
            new[new.index(-1)] = count // known
        self.check_shape(math.prod(new) == count, f"shape {shape} ({count} values) cannot become {tuple(new)}")
        return [tuple(new)]

    def forward(self, x):
        return x.reshape(self.shapes(tuple(x.shape))[0])


@register
class Tile(Layer):
    """The blob `tiles` times along one axis."""

    type = "Tile"
    gradient_from_bottoms = True
    in_place = False

    def shapes(self, shape):
        p = self.param.tile_param
        self.check(p.tiles > 0, "tiles must be positive")
        self.along = self.axis(p.axis, len(shape))
        return [shape[: self.along] + (shape[self.along] * p.tiles,) + shape[self.along + 1 :]]

    def forward(self, x):
        return torch.cat([x] * self.param.tile_param.tiles, self.along)


@register
class Crop(Layer):
    """The part of bottom 0 that has bottom 1's size in the axes from `axis` on; bottom 1 gets no gradient."""

    type = "Crop"
    gradient_from_bottoms = True
    any_precision = True
    bottoms = (2, 2)
    in_place = False

    def setup(self, bottom, top):
        p, axes = self.param.crop_param, len(bottom[0].dims)
        self.first = self.axis(p.axis, axes)
        cropped = axes - self.first
        self.check(
            len(p.offset) in (0, 1, cropped),
            f"offset: none, one, or one for each of the {cropped} axes, not {len(p.offset)}",
        )

    def shapes(self, shape, like):
        given = list(self.param.crop_param.offset) or [0]
        self.check_shape(len(like) == len(shape), f"both bottoms need the same number of axes: {shape} and {like}")
        cropped = len(shape) - self.first
        self.offsets = given * cropped if len(given) == 1 else given
        for axis, offset in enumerate(self.offsets, self.first):
            self.check_shape(
                offset + like[axis] <= shape[axis],
                f"axis {axis}: {like[axis]} values from offset {offset} exceed bottom 0, {shape} cropped to {like}",
            )
        return [shape[: self.first] + like[self.first :]]

    def forward(self, x, like):
        for axis, offset in enumerate(self.offsets, self.first):
            x = x.narrow(axis, offset, like.shape[axis])
        return x


@register
class BatchReindex(Layer):
    """Items of bottom 0 in the order of bottom 1's indices, repeated or left out as they say."""

    type = "BatchReindex"
    gradient_from_bottoms = True
    bottoms = (2, 2)
    in_place = False
    refuses_gradient = (1,)

    def shapes(self, shape, index):
        self.check_shape(shape, "needs items along axis 0, got a blob without axes")
        self.check_shape(len(index) == 1, f"indices need one axis, got shape {index}")
        return [index + shape[1:]]

    def forward(self, x, index):
        index = looking.in_range(self, index.to(torch.int64), len(x), f"index {{}} is outside 0 to {len(x) - 1}")
        return x.index_select(0, index)


@register
class Filter(Layer):
    """Items of each bottom for which the last bottom, one value an item, is not zero."""

    type = "Filter"
    bottoms = (2, None)
    tops = (1, None)
    in_place = False
    refuses_gradient = (-1,)

    def setup(self, bottom, top):
        self.check(len(top) == len(bottom) - 1, f"{len(bottom)} bottoms need {len(bottom) - 1} tops, not {len(top)}")

    def shapes(self, *shapes):
        selector = shapes[-1]
        self.check_shape(math.prod(selector[1:]) == 1, f"the selector needs one value an item, got shape {selector}")
        for shape in shapes[:-1]:
            self.check_shape(shape[:1] == selector[:1], f"{shape} and the selector {selector} differ in axis 0")
        return list(shapes[:-1])  # until the first forward tells how many pass

    def forward(self, *bottoms):
        chosen = torch.nonzero(bottoms[-1].reshape(-1))[:, 0]
        return tuple(x.index_select(0, chosen) for x in bottoms[:-1])
