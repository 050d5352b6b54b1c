"""L2 normalization: SSD's with a learned scale, and NormFace's without."""

from __future__ import annotations

import torch

from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.proto import extensions

EPSILON = 1e-10  # added to NormFace's sum of squares, as the paper does to avoid a division by 0


@register_layer
class Normalize(TorchLayer):
    """x divided by its norm. Two nets have a type of this name; which one it is depends on the settings.

    With `norm_param`, that of SSD (Liu et al., "SSD: Single Shot MultiBox Detector", 2016; before it ParseNet): x over
    the L2 norm of the whole item (across_spatial) or of each place's channels, times a learned scale: one number
    (channel_shared), else one a channel. Shape of the parameter: () or (channels,).

    Without it, that of NormFace (Wang et al., "NormFace: L2 Hypersphere Embedding for Face Verification", 2017): x over
    the norm of each place's channels, without a parameter. `normalize_param { normalize_type: "L1" }` divides by the
    sum of absolute values.
    """

    type = "Normalize"
    in_place = False
    settings = {
        "norm_param": {
            "across_spatial": (bool, True),
            "scale_filler": "FillerParameter",
            "channel_shared": (bool, True),
            "eps": (float, 1e-10),
        },
        "normalize_param": {"normalize_type": (str, "L2")},
    }
    settings_numbers = {"norm_param": 206}

    def setup(self, bottom, top):
        shape, p = bottom[0].dims, self.param.norm_param
        self.check_shape(len(shape) >= 2, f"needs channels in axis 1, got shape {shape}")
        self.scaled = extensions.given(self.param, "norm_param")
        if not self.scaled:
            kind = self.param.normalize_param.normalize_type
            self.check(kind in ("L1", "L2"), f'normalize_type is "L1" or "L2", not "{kind}"')
            return
        other = extensions.given(self.param, "normalize_param")
        self.check(not other, "give norm_param (SSD) or normalize_param (NormFace), not both")
        filler = p.scale_filler if p.HasField("scale_filler") else 1.0
        self.add_parameter(() if p.channel_shared else (shape[1],), filler)

    def shapes(self, shape):
        channels = self.blobs[0].count if self.scaled and self.blobs[0].dims else shape[1]
        self.check_shape(shape[1] == channels, f"built for {channels} channels, got shape {shape}")
        return [shape]

    def forward(self, x):
        if not self.scaled:
            if self.param.normalize_param.normalize_type == "L1":
                return x / (x.abs().sum(1, keepdim=True) + EPSILON)
            return x / torch.sqrt((x * x).sum(1, keepdim=True) + EPSILON)
        p = self.param.norm_param
        axes = tuple(range(1, x.dim())) if p.across_spatial else (1,)
        scale = self.weight(0).reshape(1, -1, *[1] * (x.dim() - 2))
        return x / torch.sqrt((x * x).sum(axes, keepdim=True) + p.eps) * scale
