"""Layers that look at neighborhoods: Convolution, Deconvolution, Pooling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from torchcaffe.layers.base import Layer, register

LOWEST = torch.finfo(torch.float32).min  # where Caffe's max pooling starts: -FLT_MAX


def conv_geometry(layer, parameter, spatial):
    """kernel, stride, pad, dilation as lists of `spatial` numbers from a ConvolutionParameter (Caffe's rules)."""

    def values(name, default):
        height, width = f"{name}_h", f"{name}_w"
        given = list(getattr(parameter, "kernel_size" if name == "kernel" else name))
        if name != "dilation" and (parameter.HasField(height) or parameter.HasField(width)):
            layer.check(spatial == 2, f"{height} and {width} are for two spatial axes; use the repeated field")
            layer.check(not given, f"give either {name} or {height} and {width}, not both")
            return [getattr(parameter, height), getattr(parameter, width)]
        layer.check(
            len(given) in (0, 1, spatial), f"{name} must be given once or once per spatial axis ({spatial}): {given}"
        )
        if not given:
            layer.check(default is not None, "kernel_size is missing")
            return [default] * spatial
        return given * spatial if len(given) == 1 else given

    kernel, stride = values("kernel", None), values("stride", 1)
    layer.check(all(size > 0 for size in kernel), f"kernel sizes must be positive: {kernel}")
    layer.check(all(size > 0 for size in stride), f"strides must be positive: {stride}")
    return kernel, stride, values("pad", 0), values("dilation", 1)


class ConvolutionBase(Layer):
    """What Convolution and Deconvolution share: parameters, weight shape, batch axes before the channel axis."""

    bottoms = (1, None)
    tops = (1, None)
    in_place = False

    def setup(self, bottom, top):
        parameter = self.param.convolution_param
        shape = bottom[0].dims
        self.channel_axis = self.axis(parameter.axis, len(shape))
        spatial = len(shape) - self.channel_axis - 1
        self.kernel, self.stride, self.pad, self.dilation = conv_geometry(self, parameter, spatial)
        self.group, self.outputs = parameter.group, parameter.num_output
        self.inputs = shape[self.channel_axis]
        self.check(self.outputs > 0, "num_output must be positive")
        self.check(self.group > 0 and self.inputs % self.group == 0, f"group {self.group} must divide {self.inputs} channels")
        self.check(self.outputs % self.group == 0, f"group {self.group} must divide num_output {self.outputs}")
        self.check(len(bottom) == len(top), f"{len(bottom)} bottoms need as many tops, not {len(top)}")
        self.add_parameter(self.weight_shape() + tuple(self.kernel), parameter.weight_filler)
        if parameter.bias_term:
            self.add_parameter((self.outputs,), parameter.bias_filler)

    def shapes(self, *bottom_shapes):
        first = bottom_shapes[0]
        self.check(first[self.channel_axis] == self.inputs, f"built for {self.inputs} channels, got shape {first}")
        for shape in bottom_shapes:
            self.check(shape == first, f"all bottoms must have one shape: {first} and {shape}")
        spatial = [self.output_size(size, axis) for axis, size in enumerate(first[self.channel_axis + 1 :])]
        self.check(all(size > 0 for size in spatial), f"input {first} is smaller than the kernel {self.kernel}")
        return [first[: self.channel_axis] + (self.outputs,) + tuple(spatial)] * len(bottom_shapes)

    def forward(self, *bottoms):
        bias = self.weight(1) if len(self.blobs) > 1 else None
        weight = self.weight(0)
        tops = tuple(self._apply(x, weight, bias) for x in bottoms)
        return tops

    def _apply(self, x, weight, bias):
        batch = x.shape[: self.channel_axis]
        if self.channel_axis != 1:
            x = x.reshape((-1,) + tuple(x.shape[self.channel_axis :]))
        y = self.convolve(x, weight, bias)
        return y if self.channel_axis == 1 else y.reshape(tuple(batch) + tuple(y.shape[1:]))


@register
class Convolution(ConvolutionBase):
    """Cross-correlation with learned filters (num_output, channels/group, kernel...)."""

    type = "Convolution"
    FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

    def weight_shape(self):
        return (self.outputs, self.inputs // self.group)

    def output_size(self, size, axis):
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return int((size + 2 * self.pad[axis] - extent) / self.stride[axis]) + 1  # C division: toward zero

    def convolve(self, x, weight, bias):
        if x.dim() == 4 and x.shape[1] > 1:
            x = x.contiguous(memory_format=torch.channels_last)  # the faster layout on CPUs and tensor cores
        short = [
            max(0, self.dilation[i] * (k - 1) + 1 - x.shape[2 + i] - 2 * self.pad[i]) for i, k in enumerate(self.kernel)
        ]
        if any(short):  # a kernel that sticks out by less than the stride still gives one output in Caffe
            x = F.pad(x, [amount for extra in reversed(short) for amount in (0, extra)])
        return self.FUNCTIONS[len(self.kernel)](x, weight, bias, self.stride, self.pad, self.dilation, self.group)


@register
class Deconvolution(ConvolutionBase):
    """Adjoint of Convolution; filters (channels, num_output/group, kernel...)."""

    type = "Deconvolution"
    FUNCTIONS = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

    def weight_shape(self):
        return (self.inputs, self.outputs // self.group)

    def output_size(self, size, axis):
        extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return self.stride[axis] * (size - 1) + extent - 2 * self.pad[axis]

    def convolve(self, x, weight, bias):
        function = self.FUNCTIONS[len(self.kernel)]
        return function(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@register
class Pooling(Layer):
    """MAX and AVE pooling over four axes, with Caffe's rounding up, its clipping, and its divisor."""

    type = "Pooling"
    tops = (1, 2)
    in_place = False

    def setup(self, bottom, top):
        p = self.param.pooling_param
        self.check(len(bottom[0].dims) == 4, f"pooling needs 4 axes, got shape {bottom[0].dims}")
        self.method = p.pool
        self.check(p.pool != p.STOCHASTIC, "STOCHASTIC pooling exists on Caffe's GPU only and is not offered")
        self.check(len(top) == 1 or p.pool == p.MAX, "a second top (the mask) is for MAX pooling")
        self.global_pooling, self.round_up = p.global_pooling, p.round_mode == p.CEIL
        self.stride = (p.stride_h, p.stride_w) if p.HasField("stride_h") else (p.stride, p.stride)
        self.pad = (p.pad_h, p.pad_w) if p.HasField("pad_h") or p.HasField("pad_w") else (p.pad, p.pad)
        kernel_given = p.HasField("kernel_h") or p.HasField("kernel_w")
        if p.global_pooling:
            self.check(not (p.HasField("kernel_size") or kernel_given), "global_pooling takes no kernel size")
            self.check(self.pad == (0, 0) and self.stride == (1, 1), "global_pooling takes no pad and stride 1")
            return
        self.check(p.HasField("kernel_size") != kernel_given, "give kernel_size, or kernel_h and kernel_w")
        self.kernel = (p.kernel_h, p.kernel_w) if kernel_given else (p.kernel_size, p.kernel_size)
        self.check(min(self.kernel) > 0, f"kernel sizes must be positive: {self.kernel}")
        self.check(min(self.stride) > 0, f"strides must be positive: {self.stride}")
        self.check(all(a < k for a, k in zip(self.pad, self.kernel)), f"pad {self.pad} must be below kernel {self.kernel}")

    def shapes(self, shape):
        self.check(len(shape) == 4, f"pooling needs 4 axes, got shape {shape}")
        kernel = self.window(shape)
        sizes = [self.output_size(size, kernel[i], i) for i, size in enumerate(shape[2:])]
        self.check(min(sizes) > 0, f"input {shape} is smaller than the pooling window {kernel}")
        return [shape[:2] + tuple(sizes)] * max(1, len(self.param.top))

    def window(self, shape):
        return tuple(shape[2:]) if self.global_pooling else self.kernel

    def output_size(self, size, kernel, axis):
        steps = (size + 2 * self.pad[axis] - kernel) / self.stride[axis]
        count = (math.ceil(steps) if self.round_up else math.floor(steps)) + 1
        if max(self.pad) and (count - 1) * self.stride[axis] >= size + self.pad[axis]:
            count -= 1  # the last window must start inside the image or its near padding
        return count

    def forward(self, x):
        kernel = self.window(x.shape)
        count = self.shapes(tuple(x.shape))[0][2:]
        if self.method == self.param.pooling_param.MAX:
            return self.maximum(x, kernel, count)
        return self.average(x, kernel, count)

    def padded(self, x, kernel, count, value):
        """x extended so that `count` windows fit exactly."""
        amounts = []
        for axis in (1, 0):
            needed = (count[axis] - 1) * self.stride[axis] + kernel[axis]
            amounts += [self.pad[axis], needed - x.shape[2 + axis] - self.pad[axis]]
        return F.pad(x, amounts, value=value) if any(amounts) else x

    def maximum(self, x, kernel, count):
        height, width = x.shape[2:]
        with_mask = len(self.param.top) > 1
        exact = all(
            (count[i] - 1) * self.stride[i] + kernel[i] == x.shape[2 + i] + 2 * self.pad[i] for i in (0, 1)
        ) and all(2 * a <= k for a, k in zip(self.pad, kernel))
        if exact and not with_mask:
            return F.max_pool2d(x, kernel, self.stride, self.pad)
        if not exact and not with_mask and max(self.pad) == 0:
            y = F.max_pool2d(x, kernel, self.stride, 0, ceil_mode=self.round_up)
            if tuple(y.shape[2:]) == tuple(count):
                return y
        wide = self.padded(x, kernel, count, LOWEST)
        if not with_mask:
            return F.max_pool2d(wide, kernel, self.stride)
        y, index = F.max_pool2d(wide, kernel, self.stride, return_indices=True)
        row = torch.div(index, wide.shape[3], rounding_mode="floor") - self.pad[0]
        column = index % wide.shape[3] - self.pad[1]
        return y, (row * width + column).to(x.dtype)

    def average(self, x, kernel, count):
        sums = F.avg_pool2d(self.padded(x, kernel, count, 0.0), kernel, self.stride, divisor_override=1)
        rows, columns = (self.extents(x.shape[2 + i], kernel[i], count[i], i, x) for i in (0, 1))
        return sums / (rows[:, None] * columns[None, :])

    def extents(self, size, kernel, count, axis, like):
        """Window lengths that count in the divisor: the near padding does, what lies beyond it does not."""
        start = torch.arange(count, device=like.device) * self.stride[axis] - self.pad[axis]
        return (torch.clamp(start + kernel, max=size + self.pad[axis]) - start).to(like.dtype)
