"""Elementwise layers: one bottom, one top of the same shape."""

from __future__ import annotations

import math
from functools import partial

import torch
import torch.nn.functional as F

from torchcaffe.layers.base import Layer, apply, register


class Sloped(torch.autograd.Function):
    """y with the gradient dy * slope to x: for in-place layers whose backward, in Caffe, sees y where x was."""

    @staticmethod
    def forward(context, x, y, slope):
        context.save_for_backward(slope)
        return y.view_as(y)

    @staticmethod
    def backward(context, gradient):
        return gradient * context.saved_tensors[0], None, None


def in_place(layer):
    return list(layer.param.bottom[:1]) == list(layer.param.top[:1])


@register
class ReLU(Layer):
    """max(x, 0) + negative_slope * min(x, 0)."""

    type = "ReLU"
    gradient_from_bottoms = True
    any_precision = True

    def forward(self, x):
        slope = self.param.relu_param.negative_slope
        return F.leaky_relu(x, slope) if slope else F.relu(x)

    def forward_in_place(self, x):
        """Same, overwriting x: allowed where nothing needs x any more."""
        slope = self.param.relu_param.negative_slope
        return F.leaky_relu_(x, slope) if slope else F.relu_(x)


@register
class PReLU(Layer):
    """x where positive, else a learned slope times x: one slope a channel (axis 1), or one for all."""

    type = "PReLU"

    def setup(self, bottom, top):
        p = self.param.prelu_param
        shape = bottom[0].dims
        self.check(len(shape) >= 2, f"PReLU needs at least 2 axes, got shape {shape}")
        filler = p.filler
        if not p.HasField("filler"):
            filler = type(p.filler)(type="constant", value=0.25)
        self.add_parameter(() if p.channel_shared else (shape[1],), filler)
        self.gradient_from_bottoms = not in_place(self)

    def forward(self, x):
        slope = self.weight(0)
        plain = self.context.traceable or not slope.dim()
        if not plain and x.dim() == 4 and x.shape[1] < 16 and x.is_contiguous(memory_format=torch.channels_last):
            # Fewer channels than a vector register holds: whole rows of the image are the faster channels.
            rows = x.permute(0, 2, 3, 1)
            y = F.prelu(rows.reshape(len(x) * x.shape[2], -1), slope.repeat(x.shape[3]))
            return y.reshape(rows.shape).permute(0, 3, 1, 2)
        return F.prelu(x, slope)


@register
class Sigmoid(Layer):
    type = "Sigmoid"

    def forward(self, x):
        return torch.sigmoid(x)


@register
class TanH(Layer):
    type = "TanH"

    def forward(self, x):
        return torch.tanh(x)


@register
class ELU(Layer):
    """x where positive, else alpha * (exp(x) - 1)."""

    type = "ELU"

    def forward(self, x):
        return F.elu(x, self.param.elu_param.alpha)


@register
class BNLL(Layer):
    """Binomial normal log likelihood: log(1 + exp(x))."""

    type = "BNLL"

    def forward(self, x):
        y = F.softplus(x, threshold=50)
        return apply(Sloped, x, y.detach(), torch.sigmoid(y.detach())) if in_place(self) else y


@register
class AbsVal(Layer):
    type = "AbsVal"
    gradient_from_bottoms = True
    in_place = False

    def forward(self, x):
        return x.abs()


@register
class Power(Layer):
    """(shift + scale * x) ^ power."""

    type = "Power"

    def forward(self, x):
        p = self.param.power_param
        if p.power * p.scale == 0:
            return torch.full_like(x, 1.0 if p.power == 0 else p.shift**p.power)
        y = x * p.scale + p.shift
        return y if p.power == 1 else y**p.power


@register
class Dropout(Layer):
    """In TRAIN: x * mask / (1 - ratio), mask kept with probability 1 - ratio; in TEST the identity."""

    type = "Dropout"
    any_precision = True

    def setup(self, bottom, top):
        self.ratio = self.param.dropout_param.dropout_ratio
        self.check(0 <= self.ratio <= 1, f"dropout_ratio must be between 0 and 1, not {self.ratio}")

    @property
    def draws(self):
        return self.training

    def draw(self, shape):
        """Which numbers of a bottom of this shape are kept, as bool."""
        keep, device = 1.0 - self.ratio, self.context.device
        if self.context.exact_random:
            draw = partial(self.context.generator.bernoulli, keep)
            return torch.from_numpy(self.share.of_batch(draw, shape)).to(device)
        return self.share.of_batch(partial(torch.rand, device=device), shape) < keep

    def forward(self, x):
        if not self.training:
            return x.view_as(x)
        keep = 1.0 - self.ratio
        return x * (self.drawn(x) * (1.0 / keep if keep else float("inf"))).to(x.dtype)


@register
class Exp(Layer):
    """base ^ (shift + scale * x); a base of -1 stands for e."""

    type = "Exp"

    def setup(self, bottom, top):
        p = self.param.exp_param
        self.check(p.base == -1 or p.base > 0, f"base must be positive (or -1 for e), not {p.base}")
        self.logarithm = 1.0 if p.base == -1 else math.log(p.base)

    def forward(self, x):
        p = self.param.exp_param
        return torch.exp((x * p.scale + p.shift) * self.logarithm)


@register
class Log(Layer):
    """Logarithm to `base` of (shift + scale * x); a base of -1 stands for e."""

    type = "Log"

    def setup(self, bottom, top):
        p = self.param.log_param
        self.check(p.base == -1 or p.base > 0, f"base must be positive (or -1 for e), not {p.base}")
        self.check(p.base != 1, "base 1 has no logarithm")
        self.factor = 1.0 if p.base == -1 else 1.0 / math.log(p.base)

    def forward(self, x):
        p = self.param.log_param
        return torch.log(x * p.scale + p.shift) * self.factor


@register
class Threshold(Layer):
    """1 where x exceeds the threshold, else 0; no gradient."""

    type = "Threshold"
    has_backward = False

    def forward(self, x):
        return (x > self.param.threshold_param.threshold).to(x.dtype)


@register
class Clip(Layer):
    """x limited to min..max; the gradient passes inside, both ends included."""

    type = "Clip"

    def setup(self, bottom, top):
        self.gradient_from_bottoms = not in_place(self)

    def forward(self, x):
        y = x.clamp(self.param.clip_param.min, self.param.clip_param.max)
        return apply(Sloped, x, y.detach(), torch.ones_like(y)) if in_place(self) else y


@register
class Swish(Layer):
    """x * sigmoid(beta * x)."""

    type = "Swish"

    def forward(self, x):
        return x * torch.sigmoid(x * self.param.swish_param.beta)
