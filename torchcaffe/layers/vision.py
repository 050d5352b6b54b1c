"""Layers that look at neighborhoods: Convolution, Deconvolution, Im2col (Pooling has its own module)."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F

from torchcaffe.layers import winograd
from torchcaffe.layers.base import Layer, register

# Products of numbers: up to here Caffe's own way, the patches of one image as a matrix that is multiplied once, is faster on
# a CPU than oneDNN, whose calls cost 50 microseconds each. PyTorch does the same with small kernels of up to 3 x 3.
SMALL = 2_000_000


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


def output_size(layer, size, axis):
    """Places where the kernel of a layer with conv_geometry's numbers is applied along one spatial axis."""
    extent = layer.dilation[axis] * (layer.kernel[axis] - 1) + 1
    return int((size + 2 * layer.pad[axis] - extent) / layer.stride[axis]) + 1  # C division: toward zero


class ConvolutionBase(Layer):
    """Base of Convolution and Deconvolution: parameters, weight shape, batch axes before the channel axis."""

    bottoms = (1, None)
    tops = (1, None)
    in_place = False
    any_precision = True
    gradient_from_bottoms = True

    def setup(self, bottom, top):
        parameter = self.param.convolution_param
        shape = bottom[0].dims
        self.channel_axis = self.axis(parameter.axis, len(shape))
        spatial = len(shape) - self.channel_axis - 1
        self.check_shape(
            spatial in self.FUNCTIONS, f"{spatial} axes after the channels of {shape}: it can be applied along 1 to 3"
        )
        self.function = self.FUNCTIONS[spatial]
        self.kernel, self.stride, self.pad, self.dilation = conv_geometry(self, parameter, spatial)
        self.group, self.outputs = parameter.group, parameter.num_output
        self.inputs = shape[self.channel_axis]
        self.check(self.outputs > 0, "num_output must be positive")
        self.check(
            self.group > 0 and self.inputs % self.group == 0, f"group {self.group} must divide {self.inputs} channels"
        )
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

    def forward(self, *bottoms, **options):
        bias = self.weight(1) if len(self.blobs) > 1 else None
        weight, bias, *bottoms = self.narrow(self.weight(0), bias, *bottoms)
        return [self._apply(x, weight, bias, **options) for x in bottoms]

    def _apply(self, x, weight, bias, **options):
        if self.channel_axis == 1:
            return self.convolve(x, weight, bias, **options)
        batch, item = x.shape[: self.channel_axis], x.shape[self.channel_axis :]
        y = self.convolve(x.reshape(-1, *item), weight, bias, **options)
        return y.reshape(*batch, *y.shape[1:])


@register
class Convolution(ConvolutionBase):
    """Cross-correlation with learned filters (num_output, channels/group, kernel...)."""

    type = "Convolution"
    fuses_relu = True
    FUNCTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.winograd = winograd.Winograd()

    def weight_shape(self):
        return (self.outputs, self.inputs // self.group)

    def output_size(self, size, axis):
        return output_size(self, size, axis)

    def will_fuse(self, x):
        """True where forward(x, relu=True) gives the ReLU of the convolution."""
        return self.channel_axis == 1 and self.context.precision != "bf16" and winograd.suits(self, x)

    def shapes(self, *bottom_shapes):
        tops, spatial = super().shapes(*bottom_shapes), bottom_shapes[0][self.channel_axis + 1 :]
        missing = [
            max(0, self.dilation[i] * (k - 1) + 1 - spatial[i] - 2 * self.pad[i]) for i, k in enumerate(self.kernel)
        ]
        # A kernel that sticks out by less than the stride still gives one output in Caffe.
        self.wider = [amount for extra in reversed(missing) for amount in (0, extra)] if any(missing) else None
        products = math.prod(tops[0][self.channel_axis + 1 :]) * self.blobs[0].count
        self.small = (
            products <= SMALL and min(self.kernel) > 3 and len(self.kernel) == 2 and not any(missing) and self.group == 1
            and not self.context.traceable
            and self.dilation == [1, 1] and self.context.device.type == "cpu" and self.context.precision == "float32"
        )  # fmt: skip
        return tops

    def convolve(self, x, weight, bias, relu=False):
        if winograd.suits(self, x):
            return self.winograd(self, x, bias, relu)
        if self.small and len(x) == 1 and not torch.is_grad_enabled():
            return torch.ops.aten.thnn_conv2d(x, weight, self.kernel, bias, self.stride, self.pad)
        if x.dim() == 4 and x.shape[1] > 1:
            x = x.contiguous(memory_format=torch.channels_last)  # the faster layout on CPUs and tensor cores
        if self.wider:
            x = F.pad(x, self.wider)
        return self.function(x, weight, bias, self.stride, self.pad, self.dilation, self.group)


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
        return self.function(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@register
class Im2col(Layer):
    """The patches that a convolution would multiply: (channels * kernel) rows for each place of the output."""

    type = "Im2col"
    gradient_from_bottoms = True
    in_place = False

    def setup(self, bottom, top):
        p, shape = self.param.convolution_param, bottom[0].dims
        self.channel_axis = self.axis(p.axis, len(shape))
        spatial = len(shape) - self.channel_axis - 1
        self.check_shape(spatial >= 1, f"no spatial axes after axis {self.channel_axis} in shape {shape}")
        self.kernel, self.stride, self.pad, self.dilation = conv_geometry(self, p, spatial)

    def output_sizes(self, sizes):
        return [output_size(self, size, axis) for axis, size in enumerate(sizes)]

    def shapes(self, shape):
        sizes = self.output_sizes(shape[self.channel_axis + 1 :])
        self.check_shape(min(sizes) > 0, f"input {shape} is smaller than the kernel {self.kernel}")
        channels = shape[self.channel_axis] * math.prod(self.kernel)
        return [shape[: self.channel_axis] + (channels,) + tuple(sizes)]

    def forward(self, x):
        sizes = self.output_sizes(x.shape[self.channel_axis + 1 :])
        needed = [
            (count - 1) * stride + dilation * (kernel - 1) + 1
            for count, stride, dilation, kernel in zip(sizes, self.stride, self.dilation, self.kernel)
        ]
        after = [n - size - pad for n, size, pad in zip(needed, x.shape[self.channel_axis + 1 :], self.pad)]
        wide = F.pad(x, [amount for pair in reversed(list(zip(self.pad, after))) for amount in pair])
        patches = []
        for offset in itertools.product(*(range(size) for size in self.kernel)):
            patch = wide
            for axis, (place, count) in enumerate(zip(offset, sizes)):
                first, stride = place * self.dilation[axis], self.stride[axis]
                at = (slice(None),) * (self.channel_axis + 1 + axis)
                patch = patch[at + (slice(first, first + (count - 1) * stride + 1, stride),)]
            patches.append(patch)
        return torch.stack(patches, self.channel_axis + 1).reshape(self.shapes(tuple(x.shape))[0])
