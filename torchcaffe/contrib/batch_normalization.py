"""BN: batch normalization with its scale and shift in one layer, as segmentation nets have it."""

from __future__ import annotations

import enum

import torch

from torchcaffe.layers.base import TorchLayer, register_layer

SEGNET_EPSILON = 1e-9  # added to variances; SegNet's Caffe has no setting for it


class BNMode(enum.IntEnum):
    """SegNet's: whether a layer uses its batch's statistics, or has had them worked into its scale and shift."""

    LEARN = 0
    INFERENCE = 1


class Engine(enum.IntEnum):
    """Which code computes it in Caffe; read and ignored here."""

    DEFAULT = 0
    CAFFE = 1
    CUDNN = 2


@register_layer
class BN(TorchLayer):
    """slope (x - mean) / sqrt(variance + eps) + bias a channel (axis 1).

    Ioffe and Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift",
    2015. Two nets have a type of this name; which one it is depends on the settings.

    That of PSPNet and ICNet (Zhao et al., 2017 and 2018): slope_filler, bias_filler, momentum, eps, frozen. Parameters:
    slope, bias, and moving averages of mean and variance, each (1, channels, 1, 1); the averages, which the solver leaves
    alone, become momentum times themselves plus (1 - momentum) times the batch's. TEST and `frozen` use the averages;
    `frozen` also leaves slope and bias as they are.

    That of SegNet (Badrinarayanan et al., 2017), where scale_filler, shift_filler or bn_mode is given. Parameters: scale
    and shift, (1, channels, 1, 1). It uses the batch's statistics in every phase, and gives them as second and third top
    if there are any; with bn_mode INFERENCE it is scale x + shift alone.
    """

    type = "BN"
    tops = (1, 3)
    settings = {
        "bn_param": {
            "slope_filler": "FillerParameter",
            "bias_filler": "FillerParameter",
            "momentum": (float, 0.9),
            "eps": (float, 1e-5),
            "frozen": (bool, False),
            "engine": (Engine, Engine.DEFAULT),
            "bn_mode": (BNMode, BNMode.LEARN),
            "scale_filler": "FillerParameter",
            "shift_filler": "FillerParameter",
        }
    }

    def setup(self, bottom, top):
        p, shape = self.param.bn_param, bottom[0].dims
        self.check_shape(len(shape) >= 2, f"needs channels in axis 1, got shape {shape}")
        pspnet, segnet = (
            [name for name in names if p.HasField(name)]
            for names in (
                ("slope_filler", "bias_filler", "momentum", "eps", "frozen"),
                ("scale_filler", "shift_filler", "bn_mode"),
            )
        )
        self.check(
            not (pspnet and segnet),
            f"{', '.join(pspnet)} (PSPNet's BN) and {', '.join(segnet)} (SegNet's BN) do not go together: give one net's",
        )
        self.of_segnet, self.eps = bool(segnet), SEGNET_EPSILON if segnet else p.eps
        learns = self.of_segnet and p.bn_mode == BNMode.LEARN
        self.check(learns or len(top) == 1, "only SegNet's BN, with bn_mode LEARN, has more than one top")
        self.check(0 <= p.momentum <= 1, f"momentum is from 0 to 1, not {p.momentum}")
        self.check(p.eps >= 0, f"eps is 0 or more, not {p.eps}")
        names = ("scale_filler", "shift_filler") if segnet else ("slope_filler", "bias_filler")
        fillers = [getattr(p, name) if p.HasField(name) else start for name, start in zip(names, (1.0, 0.0))]
        if not segnet:
            self.leave_alone(0 if p.frozen else 2, 4)
            fillers += [0.0, 1.0]
        for filler in fillers:
            self.add_parameter((1, shape[1], 1, 1), filler)

    def leave_alone(self, first, end):
        """Parameters that the solver does not touch, whatever the prototxt says."""
        while len(self.param.param) < end:
            self.param.param.add()
        for spec in self.param.param[first:end]:
            spec.lr_mult = spec.decay_mult = 0

    def shapes(self, shape):
        channels = self.blobs[0].count
        self.check_shape(len(shape) >= 2 and shape[1] == channels, f"built for {channels} channels, got shape {shape}")
        return [shape, (1, channels, 1, 1), (1, channels, 1, 1)][: len(self.param.top)]

    def forward(self, x):
        p = self.param.bn_param
        slope, bias = (self.weight(index).flatten() for index in (0, 1))
        if self.of_segnet:
            return self.of_batch(x, slope, bias) if p.bn_mode == BNMode.LEARN else self.affine(x, slope, bias)
        if self.training and not p.frozen:
            y, mean, variance = self.normalized(x, slope, bias)
            self.gather(mean, variance)
            return y
        mean, variance = (self.weight(index).detach().flatten() for index in (2, 3))
        return torch.batch_norm(x, slope, bias, mean, variance, False, 0.0, self.eps, False)

    @staticmethod
    def affine(x, slope, bias):
        shape = (1, -1) + (1,) * (x.dim() - 2)
        return slope.reshape(shape) * x + bias.reshape(shape)

    def of_batch(self, x, slope, bias):
        """SegNet's: normalized by the batch; its statistics as further tops."""
        y, *statistics = self.normalized(x, slope, bias)
        return (y, *(part.reshape(1, -1, 1, 1) for part in statistics))[: len(self.param.top)]

    def normalized(self, x, slope, bias):
        """(y, mean, variance) with the statistics of the batch; the variance is that over n, not n - 1."""
        count = x.numel() // x.shape[1] if x.shape[1] else 0
        if count < 2:  # torch refuses it; the value is its mean
            return self.affine(x * 0, slope, bias), x.detach().flatten(), torch.zeros(x.shape[1]).to(x)
        mean, variance = torch.zeros((2, x.shape[1]), dtype=x.dtype, device=x.device)
        y = torch.batch_norm(x, slope, bias, mean, variance, True, 1.0, self.eps, False)  # 1.0: the batch's, over n - 1
        return y, mean, variance * ((count - 1) / count)

    @torch.no_grad()
    def gather(self, mean, variance):
        momentum = self.param.bn_param.momentum
        for index, value in ((2, mean), (3, variance)):
            blob = self.blobs[index]
            blob.tensor().mul_(momentum).add_(value.reshape(1, -1, 1, 1), alpha=1 - momentum)
            blob.data_memory.written()
