"""Pooling, and spatial pyramids made of it."""

from __future__ import annotations

import itertools
import math
from functools import partial

import torch
import torch.nn.functional as F

from torchcaffe.core.blob import Blob
from torchcaffe.layers import looking
from torchcaffe.layers.base import Layer, register

SMALL = 8192  # numbers: up to here one call of torch is faster than the slices of maxima_along
UNSEEN = 2**23  # numbers on a GPU: up to here it is faster to clear all of them of NaN than to wait for a look at the top
LOWEST = torch.finfo(torch.float32).min  # where Caffe's max pooling starts: -FLT_MAX


@register
class Pooling(Layer):
    """Pooling over four axes, with Caffe's rounding up, its clipping, and its divisor: MAX, AVE, or STOCHASTIC.

    STOCHASTIC (Zeiler and Fergus, 2013) is for bottoms of 0 and more: in TRAIN a window gives one of its numbers, drawn
    in proportion to them; in TEST their mean weighted by themselves. Real Caffe has it on a GPU only.
    """

    type = "Pooling"
    tops = (1, 2)
    in_place = False
    any_precision = True

    def setup(self, bottom, top):
        p = self.param.pooling_param
        self.check(len(bottom[0].dims) == 4, f"pooling needs 4 axes, got shape {bottom[0].dims}")
        self.method = p.pool
        self.gradient_from_bottoms = p.pool == p.AVE
        self.check(len(top) == 1 or p.pool == p.MAX, "a second top (the mask) is for MAX pooling")
        self.global_pooling, self.round_up = p.global_pooling, p.round_mode == p.CEIL
        self.stride, self.pad = self.pair("stride"), self.pair("pad")
        self.check(p.pool != p.STOCHASTIC or self.pad == (0, 0), "pad is for MAX and AVE pooling, not for STOCHASTIC")
        kernel_given = p.HasField("kernel_h") and p.HasField("kernel_w")
        if p.global_pooling:
            self.check(not (p.HasField("kernel_size") or kernel_given), "global_pooling takes no kernel size")
            self.check(self.pad == (0, 0) and self.stride == (1, 1), "global_pooling takes no pad and stride 1")
            return
        self.check(p.HasField("kernel_size") != kernel_given, "give kernel_size, or kernel_h and kernel_w")
        self.kernel = (p.kernel_h, p.kernel_w) if kernel_given else (p.kernel_size, p.kernel_size)
        self.check(min(self.kernel) > 0, f"kernel sizes must be positive: {self.kernel}")
        self.check(min(self.stride) > 0, f"strides must be positive: {self.stride}")
        self.check(
            all(a < k for a, k in zip(self.pad, self.kernel)), f"pad {self.pad} must be below kernel {self.kernel}"
        )

    def pair(self, name):
        """(height, width) of "stride" or "pad", which are given once, or both with _h and _w."""
        p = self.param.pooling_param
        given = [p.HasField(field) for field in (f"{name}_h", f"{name}_w")]
        self.check(
            not any(given) or all(given) and not p.HasField(name),
            f"give {name}, or both {name}_h and {name}_w, and not all three",
        )
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if all(given) else (getattr(p, name),) * 2

    def shapes(self, shape):
        self.check(len(shape) == 4, f"pooling needs 4 axes, got shape {shape}")
        kernel = self.window(shape)
        count = tuple(self.output_size(size, kernel[i], i) for i, size in enumerate(shape[2:]))
        self.check(min(count) > 0, f"input {shape} is smaller than the pooling window {kernel}")
        self.windows, self.with_mask = (kernel, count), len(self.param.top) > 1
        last = [(count[i] - 1) * self.stride[i] for i in (0, 1)]  # where the last window begins
        self.unpadded = max(self.pad) == 0 and all(last[i] < shape[2 + i] for i in (0, 1))
        self.exact = all(last[i] + kernel[i] == shape[2 + i] + 2 * self.pad[i] for i in (0, 1)) and all(
            2 * a <= k for a, k in zip(self.pad, kernel)
        )
        return [shape[:2] + count] * max(1, len(self.param.top))

    def window(self, shape):
        return tuple(shape[2:]) if self.global_pooling else self.kernel

    def output_size(self, size, kernel, axis):
        steps = (size + 2 * self.pad[axis] - kernel) / self.stride[axis]
        count = (math.ceil(steps) if self.round_up else math.floor(steps)) + 1
        if max(self.pad) and (count - 1) * self.stride[axis] >= size + self.pad[axis]:
            count -= 1  # the last window must start inside the image or its near padding
        return count

    def forward(self, x):
        kernel, count = self.windows
        if self.method == self.param.pooling_param.MAX:
            return self.maximum(x, kernel, count)
        if self.method == self.param.pooling_param.STOCHASTIC:
            return self.sampled(x, kernel, count) if self.training else self.weighted(x, kernel, count)
        return self.average(x, kernel, count)

    def padded(self, x, kernel, count, value):
        """x extended so that `count` windows fit exactly."""
        amounts = []
        for axis in (1, 0):
            needed = (count[axis] - 1) * self.stride[axis] + kernel[axis]
            amounts += [self.pad[axis], needed - x.shape[2 + axis] - self.pad[axis]]
        return F.pad(x, amounts, value=value) if any(amounts) else x

    def maximum(self, x, kernel, count):
        if not self.context.traceable:  # there, numbers above -FLT_MAX are taken for granted
            if looking.possible(x) and not (looking.waits(x) and x.numel() <= UNSEEN):
                y, index = self.first_maxima(x, kernel, count)
                # A window without one (not-a-number, -infinity, nothing at all) is rare: look at the top.
                if y.numel() == 0 or y.amin().item() > LOWEST:
                    return y if index is None else (y, index)
            x = torch.where(x > LOWEST, x, LOWEST)
        y, index = self.first_maxima(x, kernel, count)
        return y if index is None else (y, torch.where(y > LOWEST, index, -1.0))

    def first_maxima(self, x, kernel, count):
        """(largest value of each window, its index in the plane where a second top asks for it)."""
        slices = self.unpadded and not self.with_mask and not self.context.traceable
        if slices and slices_are_faster(x):
            rows = maxima_along(x, 2, kernel[0], self.stride[0], count[0])
            return maxima_along(rows, 3, kernel[1], self.stride[1], count[1]), None
        if self.exact and not self.with_mask:
            return torch.max_pool2d(x, kernel, self.stride, self.pad), None
        if self.unpadded and not self.with_mask:
            y = torch.max_pool2d(x, kernel, self.stride, ceil_mode=self.round_up)
            if y.shape[2:] == count:
                return y, None
        wide = self.padded(x, kernel, count, LOWEST)
        if not self.with_mask:
            return torch.max_pool2d(wide, kernel, self.stride), None
        y, index = F.max_pool2d(wide, kernel, self.stride, return_indices=True)
        row = torch.div(index, wide.shape[3], rounding_mode="floor") - self.pad[0]
        column = index % wide.shape[3] - self.pad[1]
        return y, (row * x.shape[3] + column).float()

    def average(self, x, kernel, count):
        sums = F.avg_pool2d(self.padded(x, kernel, count, 0.0), kernel, self.stride, divisor_override=1)
        rows, columns = (self.extents(x.shape[2 + i], kernel[i], count[i], i, x) for i in (0, 1))
        return sums / (rows[:, None] * columns[None, :])

    def sampled(self, x, kernel, count):
        """The number of each window at which the sum of those before it, row by row, reaches a drawn share of them all."""
        wide = self.padded(x, kernel, count, 0.0)
        with torch.no_grad():
            windows = wide.unfold(2, kernel[0], self.stride[0]).unfold(3, kernel[1], self.stride[1]).flatten(4)
            sums = running_sums(windows.float())
            chosen = (sums >= (sums[..., -1] * self.drawn(x))[..., None]).to(torch.uint8).argmax(-1)
            rows, columns = (torch.arange(count[i], device=x.device) * self.stride[i] for i in (0, 1))
            rows = rows[:, None] + torch.div(chosen, kernel[1], rounding_mode="floor")
            places = rows * wide.shape[3] + columns + chosen % kernel[1]
        return wide.flatten(2).gather(2, places.flatten(2)).reshape(places.shape)

    @property
    def draws(self):
        return self.method == self.param.pooling_param.STOCHASTIC and self.training

    def draw(self, shape):
        """The share of each window's sum, drawn evenly from 0 .. 1, for a bottom of this shape."""
        shape, device = (*shape[:2], *self.windows[1]), self.context.device
        if self.context.exact_random:
            draw = partial(self.context.generator.uniform, 0.0, 1.0)
            return torch.from_numpy(self.share.of_batch(draw, shape)).to(device)
        return self.share.of_batch(partial(torch.rand, device=device), shape)

    def weighted(self, x, kernel, count):
        """Sum of squares / sum of each window, 0 where the sum is not above 0."""
        wide = self.padded(x, kernel, count, 0.0)
        total, squares = (F.avg_pool2d(part, kernel, self.stride, divisor_override=1) for part in (wide, wide * wide))
        positive = total > 0
        return torch.where(positive, squares / torch.where(positive, total, 1.0), 0.0)

    def extents(self, size, kernel, count, axis, like):
        """Window lengths that count in the divisor: the near padding does, what lies beyond it does not."""
        start = torch.arange(count, device=like.device) * self.stride[axis] - self.pad[axis]
        return (torch.clamp(start + kernel, max=size + self.pad[axis]) - start).to(like.dtype)


def running_sums(windows):
    """cumsum along the last axis; on GPUs it has no deterministic kernel, single additions have."""
    if torch.are_deterministic_algorithms_enabled():
        return torch.stack(list(itertools.accumulate(windows.unbind(-1))), -1)
    return windows.cumsum(-1)


def slices_are_faster(x) -> bool:
    """True where maxima_along is faster than max_pool2d, and nothing asks for a gradient."""
    return x.device.type == "cpu" and x.numel() > SMALL and not torch.is_grad_enabled() and looking.possible(x)


def maxima_along(x, axis, kernel, stride, count):
    """Largest values of `count` windows along an axis; each begins inside x, and may end beyond it. No gradient.

    Whole slices are compared: on a CPU several times faster than max_pool2d, which tracks each maximum's place.
    """
    before = (slice(None),) * axis
    last = (count - 1) * stride + 1
    first, *others = (x[before + (slice(i, i + last, stride),)] for i in range(min(kernel, x.shape[axis])))
    if others and others[0].shape == first.shape:
        y = torch.maximum(first, others.pop(0))
    else:
        y = first.clone()
    for part in others:
        inside = y.narrow(axis, 0, part.shape[axis])
        torch.maximum(inside, part, out=inside)
    return y


@register
class SPP(Layer):
    """Spatial pyramid: level i pools into 2^i x 2^i bins; the levels' bins are joined to one row an item."""

    type = "SPP"
    in_place = False

    def setup(self, bottom, top):
        p = self.param.spp_param
        self.check(p.pyramid_height > 0, "pyramid_height must be positive")
        self.check_shape(len(bottom[0].dims) == 4, f"SPP needs 4 axes, got shape {bottom[0].dims}")

    def level(self, index, shape):
        """Pooling layer of one level: windows that cover the image with 2^index bins a side, padded evenly."""
        p = self.param.spp_param
        bins = 2**index
        parameter = type(self.param)(name=self.name, type="Pooling", bottom=["x"], top=["y"])
        kernel = [math.ceil(size / bins) for size in shape[2:]]
        pad = [(k * bins - size + 1) // 2 for k, size in zip(kernel, shape[2:])]
        pooling = parameter.pooling_param
        pooling.pool = p.pool
        pooling.kernel_h, pooling.kernel_w = pooling.stride_h, pooling.stride_w = kernel
        pooling.pad_h, pooling.pad_w = pad
        layer = Pooling(parameter, self.phase, self.context)
        layer.setup([Blob(*shape)], [Blob()])
        return layer

    def shapes(self, shape):
        image = (1, *shape[1:])  # the windows do not depend on how many there are
        self.levels = [self.level(index, image) for index in range(self.param.spp_param.pyramid_height)]
        tops = [level.shapes(shape)[0] for level in self.levels]
        if len(tops) == 1:
            return tops
        return [(shape[0], sum(math.prod(top[1:]) for top in tops))]

    def forward(self, x):
        tops = [level.forward(x) for level in self.levels]
        return tops[0] if len(tops) == 1 else torch.cat([top.flatten(1) for top in tops], 1)
