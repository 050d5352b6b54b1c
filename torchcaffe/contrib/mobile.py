"""Layers of nets for phones: convolutions of each channel by itself, ReLU6, ShuffleChannel."""

from __future__ import annotations

import torch.nn.functional as F

from torchcaffe.layers.activation import Sloped, in_place
from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.layers.vision import Convolution


@register_layer
class DepthwiseConvolution(Convolution):
    """Convolution of each channel by itself: as Convolution with `group` equal to the number of channels.

    Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications", 2017. `group` and
    `num_output` may be left out; num_output may be a multiple of the channels. Parameters as Convolution's.
    """

    type = "DepthwiseConvolution"
    fuses_relu = False

    def setup(self, bottom, top):
        p, shape = self.param.convolution_param, bottom[0].dims
        channels = shape[self.axis(p.axis, len(shape))]
        p.num_output = p.num_output or channels
        if not p.HasField("group"):
            p.group = channels
        self.check(p.group == channels, f"group is the number of channels, {channels}, or left out; not {p.group}")
        self.check(
            p.num_output % channels == 0, f"num_output is a multiple of the {channels} channels, not {p.num_output}"
        )
        super().setup(bottom, top)


@register_layer
class ConvolutionDepthwise(DepthwiseConvolution):
    """DepthwiseConvolution by the name that Caffe's ShuffleNets use; it has as many outputs as channels."""

    type = "ConvolutionDepthwise"

    def setup(self, bottom, top):
        super().setup(bottom, top)
        self.check(
            self.outputs == self.inputs,
            f"num_output is the number of channels, {self.inputs}, or left out; not {self.outputs}",
        )


@register_layer
class ReLU6(TorchLayer):
    """min(max(x, 0), 6), for nets of low precision; the gradient passes between the two.

    Krizhevsky, "Convolutional Deep Belief Networks on CIFAR-10", 2010; Howard et al., "MobileNets", 2017.
    """

    type = "ReLU6"
    any_precision = True

    def setup(self, bottom, top):
        self.gradient_from_bottoms = not in_place(self)

    def forward(self, x):
        y = F.relu6(x)
        if not in_place(self):
            return y
        inside = (y > 0) & (y < 6)
        return Sloped.apply(x, y.detach(), inside.detach().to(y.dtype))


@register_layer
class ShuffleChannel(TorchLayer):
    """Channels in a new order: the first of each group, then the second of each, so that groups exchange what they know.

    Zhang et al., "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices", 2018.
    """

    type = "ShuffleChannel"
    in_place = False
    any_precision = True
    gradient_from_bottoms = True
    settings = {"shuffle_channel_param": {"group": (int, 1)}}
    settings_numbers = {"shuffle_channel_param": 164}

    def shapes(self, shape):
        group = self.param.shuffle_channel_param.group
        self.check_shape(len(shape) >= 2, f"needs channels in axis 1, got shape {shape}")
        self.check(group > 0 and shape[1] % group == 0, f"group {group} must divide {shape[1]} channels")
        return [shape]

    def forward(self, x):
        group = self.param.shuffle_channel_param.group
        return x.unflatten(1, (group, x.shape[1] // group)).transpose(1, 2).reshape(x.shape)
