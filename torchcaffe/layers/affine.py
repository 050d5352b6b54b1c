"""Bias and Scale: a learned (or given) blob added to or multiplied into a run of the bottom's axes."""

from __future__ import annotations

import math

from torchcaffe.layers.base import Layer, register


class Broadcast(Layer):
    """Base of Bias and Scale: aligns the second operand's axes with the bottom's."""

    bottoms = (1, 2)

    def parameter_shape(self, bottom, parameter):
        """Shape of the learned operand: the bottom's axes from `axis` on, `num_axes` of them (-1: to the end)."""
        shape = bottom.dims
        first, count = self.axis(parameter.axis, len(shape)), parameter.num_axes
        self.check(count >= -1, f"num_axes must be -1 or more, not {count}")
        self.check(count == -1 or first + count <= len(shape), f"{count} axes from axis {first} exceed shape {shape}")
        return shape[first:] if count == -1 else shape[first : first + count]

    def place(self, shape, operand, axis):
        """`operand`'s shape with ones after it, so that it broadcasts against `shape` from `axis` on."""
        first = self.axis(axis, len(shape)) if operand else 0
        self.check_shape(
            tuple(shape[first : first + len(operand)]) == tuple(operand),
            f"shape {tuple(operand)} does not fit the axes from {first} of {tuple(shape)}",
        )
        return tuple(operand) + (1,) * (len(shape) - first - len(operand))

    def shapes(self, shape, *operand):
        self.place(shape, operand[0] if operand else self.blobs[0].dims, self.parameter().axis)
        return [shape]


@register
class Bias(Broadcast):
    """x + b."""

    type = "Bias"
    parameter_names = ("bias",)
    gradient_from_bottoms = True

    def parameter(self):
        return self.param.bias_param

    def setup(self, bottom, top):
        if len(bottom) == 1:
            self.add_parameter(self.parameter_shape(bottom[0], self.parameter()), self.parameter().filler)

    def forward(self, x, operand=None):
        bias = self.weight(0) if operand is None else operand
        return x + bias.reshape(self.place(x.shape, bias.shape, self.parameter().axis))


@register
class Scale(Broadcast):
    """x * factor, plus a learned bias of the same shape with bias_term."""

    type = "Scale"

    def parameter(self):
        return self.param.scale_param

    def setup(self, bottom, top):
        p = self.parameter()
        shape = bottom[1].dims if len(bottom) > 1 else self.parameter_shape(bottom[0], p)
        if len(bottom) == 1:
            filler = p.filler if p.HasField("filler") else type(p.filler)(type="constant", value=1)
            self.add_parameter(shape, filler)
        else:
            self.parameter_names = ("bias",)
        if p.bias_term:
            self.add_parameter(shape, p.bias_filler)
        self.first = self.axis(p.axis, len(bottom[0].dims)) if shape else 0
        self.gradient_from_bottoms = bottom[0] is not top[0]

    def shapes(self, shape, *operand):
        self.items, self.count = math.prod(shape[: self.first]), math.prod(shape)
        return super().shapes(shape, *operand)

    def overwrites(self, index):
        # Caffe adds up over the axes before the factor's; where these hold one item (batch size 1), it only writes,
        # but for a single factor, unless it has a single number to scale.
        several = self.blobs[0].count > 1 or self.count == 1
        return index == 0 and len(self.param.bottom) == 1 and self.items == 1 and several

    def forward(self, x, operand=None):
        factor = self.weight(0) if operand is None else operand
        shape = self.place(x.shape, factor.shape, self.parameter().axis)
        y = x * factor.reshape(shape)
        return y + self.weight(-1).reshape(shape) if self.parameter().bias_term else y
