"""Layers that normalize: LRN, BatchNorm, MVN."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torchcaffe.layers.base import Layer, apply, register
from torchcaffe.proto import caffe_pb2


def window_sum(x, size):
    """Sums over `size` neighboring channels (axis 1), zeros beyond the first and last."""
    half = min((size - 1) // 2, x.shape[1])  # a wider window only sums more zeros
    size = 2 * half + 1
    wide = F.pad(x, (0, 0, 0, 0, half, half))
    total = wide[:, : x.shape[1]].clone()
    for shift in range(1, size):
        total += wide[:, shift : shift + x.shape[1]]
    return total


class AcrossChannels(torch.autograd.Function):
    """x * s^-beta with s = k + alpha / n * (sum of x^2 over n channels); keeps x and s only for the gradient."""

    @staticmethod
    def forward(context, x, size, alpha, beta, k):
        scale = window_sum(x * x, size).mul_(alpha / size).add_(k)
        context.save_for_backward(x, scale)
        context.settings = size, alpha, beta
        return x * scale.pow(-beta)

    @staticmethod
    def backward(context, gradient):
        x, scale = context.saved_tensors
        size, alpha, beta = context.settings
        power = scale.pow(-beta)
        crossed = window_sum(gradient * x * power / scale, size)
        return gradient * power - (2.0 * alpha * beta / size) * x * crossed, None, None, None, None


@register
class LRN(Layer):
    """Local response normalization, across neighboring channels or within each channel's neighborhood."""

    type = "LRN"
    in_place = False

    def setup(self, bottom, top):
        self.check(self.param.lrn_param.local_size % 2 == 1, "local_size must be odd")

    def shapes(self, shape):
        self.check_shape(len(shape) == 4, f"LRN needs 4 axes, got shape {shape}")
        return [shape]

    def forward(self, x):
        p = self.param.lrn_param
        if p.norm_region == p.ACROSS_CHANNELS:
            return apply(AcrossChannels, x, p.local_size, p.alpha, p.beta, p.k)
        mean = F.avg_pool2d(x * x, p.local_size, 1, (p.local_size - 1) // 2)  # zeros around count; k has no part here
        return x * (1 + p.alpha * mean).pow(-p.beta)


@register
class BatchNorm(Layer):
    """(x - mean) / sqrt(variance + eps) a channel (axis 1), of the batch or of the statistics gathered so far.

    Blobs: sums of means and of unbiased variances, both weighted by a moving average, and the sum of weights. They
    are written at every forward that uses the batch's statistics, TEST included.
    """

    type = "BatchNorm"
    always_propagates = True
    parameter_names = ("running_mean", "running_var", "scale_factor")

    def setup(self, bottom, top):
        shape = bottom[0].dims
        self.check_shape(len(shape) > 1, f"BatchNorm needs channels in axis 1, got shape {shape}")
        zero = caffe_pb2.FillerParameter()
        for blob_shape in ((shape[1],), (shape[1],), (1,)):
            self.add_parameter(blob_shape, zero)
        for index in range(3):
            if index == len(self.param.param):
                self.param.param.add(lr_mult=0)
            self.check(
                self.param.param[index].lr_mult == 0,
                "its three blobs are statistics, not learned: give each param lr_mult: 0, or leave param out",
            )

    def shapes(self, shape):
        channels = self.blobs[0].count
        self.check_shape(len(shape) > 1 and shape[1] == channels, f"built for {channels} channels, got shape {shape}")
        return [shape]

    @property
    def global_statistics(self) -> bool:
        p = self.param.batch_norm_param
        return p.use_global_stats if p.HasField("use_global_stats") else not self.training

    def named_tensors(self):
        """The statistics as PyTorch has them, divided by the sum of weights, and that sum."""
        total = self.weight(2).detach()
        share = torch.where(total == 0, 0.0, 1.0 / total)
        mean, variance = (self.weight(index).detach() * share for index in (0, 1))
        return dict(zip(self.parameter_names, (mean, variance, total)))

    def forward(self, x):
        if self.global_statistics:
            mean, variance, _ = self.named_tensors().values()
            return self.by_statistics(x, mean, variance)
        y, mean, variance = self.by_batch(x)
        self.gather(mean, variance)
        return y

    def by_statistics(self, x, mean, variance):
        return torch.batch_norm(x, None, None, mean, variance, False, 0.0, self.param.batch_norm_param.eps, False)

    def by_batch(self, x):
        """(x normalized by its own statistics, their mean, their unbiased variance)."""
        eps = self.param.batch_norm_param.eps
        mean, variance = torch.zeros((2, x.shape[1]), dtype=x.dtype, device=x.device)
        y = torch.batch_norm(x, None, None, mean, variance, True, 1.0, eps, False)  # 1.0: the batch's, unbiased
        if x.numel() == x.shape[1]:  # one value a channel
            y, variance = y * 0, torch.zeros_like(mean)
        return y, mean, variance

    @torch.no_grad()
    def gather(self, mean, variance):
        decay = self.param.batch_norm_param.moving_average_fraction
        for blob, value in zip(self.blobs, (mean, variance, 1.0)):
            blob.tensor().mul_(decay).add_(value)
            blob.data_memory.written()


class Standardize(torch.autograd.Function):
    """Rows minus their mean, over (standard deviation + eps) where `scaled`, with Caffe's gradient."""

    @staticmethod
    def forward(context, x, scaled, eps):
        y = x - x.mean(1, keepdim=True)
        deviation = (y * y).mean(1, keepdim=True).sqrt() + eps if scaled else None
        y = y / deviation if scaled else y
        context.save_for_backward(y, deviation)
        return y

    @staticmethod
    def backward(context, gradient):
        y, deviation = context.saved_tensors
        result = gradient - gradient.mean(1, keepdim=True)
        if deviation is not None:  # the derivative but for eps, which Caffe leaves out in the second term
            result = (result - y * (gradient * y).mean(1, keepdim=True)) / deviation
        return result, None, None


@register
class MVN(Layer):
    """Mean subtracted and, by default, variance normalized: each channel of each item, or each item as a whole."""

    type = "MVN"

    def shapes(self, shape):
        self.check_shape(len(shape) <= 4, f"MVN takes at most 4 axes, got shape {shape}")
        return [shape + (1,) * (4 - len(shape))]

    def forward(self, x):
        p = self.param.mvn_param
        shape = self.shapes(tuple(x.shape))[0]
        rows = shape[0] if p.across_channels else shape[0] * shape[1]
        return apply(Standardize, x.reshape(rows, -1), p.normalize_variance, p.eps).reshape(shape)
