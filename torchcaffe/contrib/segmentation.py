"""Resizing in nets that label each pixel: Interp (bilinear), and Upsample by the places of a max pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.layers.looking import waits


@register_layer
class Interp(TorchLayer):
    """Bilinear resizing whose corner pixels stay corner pixels.

    Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous Convolution, and Fully
    Connected CRFs", 2017; Zhao et al., "Pyramid Scene Parsing Network", 2017. The size is `height` and `width`, or
    (size - 1) / shrink_factor + 1, then (size - 1) * zoom_factor + 1. pad_beg and pad_end, 0 or less, first cut that many
    rows and columns off at the start and at the end.
    """

    type = "Interp"
    in_place = False
    gradient_from_bottoms = True
    settings = {
        "interp_param": {
            "height": (int, 0),
            "width": (int, 0),
            "zoom_factor": (int, 1),
            "shrink_factor": (int, 1),
            "pad_beg": (int, 0),
            "pad_end": (int, 0),
        }
    }
    settings_numbers = {"interp_param": 163}

    def setup(self, bottom, top):
        p = self.param.interp_param
        self.fixed = p.HasField("height") or p.HasField("width")
        factors = [name for name in ("zoom_factor", "shrink_factor") if p.HasField(name)]
        self.check(self.fixed or factors, "give height and width, or zoom_factor or shrink_factor or both")
        self.check(not (self.fixed and factors), f"give height and width or {' and '.join(factors)}, not both")
        for name in ("height", "width") if self.fixed else factors:
            self.check(getattr(p, name) > 0, f"{name} must be positive, not {getattr(p, name)}")
        for name in ("pad_beg", "pad_end"):
            self.check(getattr(p, name) <= 0, f"{name} is 0, or negative to crop; not {getattr(p, name)}")

    def shapes(self, shape):
        p = self.param.interp_param
        self.check_shape(len(shape) == 4, f"needs 4 axes, got shape {shape}")
        sizes = [size + p.pad_beg + p.pad_end for size in shape[2:]]
        cropped = -(p.pad_beg + p.pad_end)
        self.check_shape(min(sizes) > 0, f"pad_beg and pad_end crop {cropped} rows and columns of shape {shape}")
        if self.fixed:
            return [shape[:2] + (p.height, p.width)]
        return [shape[:2] + tuple((size - 1) // p.shrink_factor * p.zoom_factor + 1 for size in sizes)]

    def forward(self, x):
        p = self.param.interp_param
        inside = slice(-p.pad_beg, p.pad_end or None)
        size = self.shapes(tuple(x.shape))[0][2:]
        return F.interpolate(x[:, :, inside, inside], size, mode="bilinear", align_corners=True)


@register_layer
class Upsample(TorchLayer):
    """Values put where a max pooling found its maxima, zeros elsewhere; or, without the places, pixels repeated.

    Badrinarayanan et al., "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation", 2017.
    Bottoms: values and, of the same shape, the mask: the second top of the Pooling layer whose size is restored. The size
    is upsample_h × upsample_w, or the bottom's times `scale` (or scale_h and scale_w), less 1 with pad_out_h or pad_out_w
    (where the pooled size was odd). Of values with one place, the last is kept; no mask gets a gradient.

    With one bottom, each pixel becomes `scale` × `scale` pixels, as in the Caffe ports of Redmon and Farhadi, "YOLOv3",
    2018.
    """

    type = "Upsample"
    bottoms = (1, 2)
    in_place = False
    gradient_to = (0,)
    settings = {
        "upsample_param": {
            "scale": (int, 2),
            "scale_h": int,
            "scale_w": int,
            "pad_out_h": (bool, False),
            "pad_out_w": (bool, False),
            "upsample_h": int,
            "upsample_w": int,
        }
    }

    def setup(self, bottom, top):
        p = self.param.upsample_param
        given = [name for name in ("scale_h", "scale_w", "upsample_h", "upsample_w") if p.HasField(name)]
        if len(bottom) == 1:
            self.check(
                not (given or p.pad_out_h or p.pad_out_w), "without a mask (a second bottom) it takes scale alone"
            )
            self.check(
                p.HasField("scale") and p.scale > 0, "without a mask (a second bottom) it needs a positive scale"
            )
        for name in ("scale", "upsample"):
            both = [f"{name}_h" in given, f"{name}_w" in given]
            self.check(all(both) or not any(both), f"give both {name}_h and {name}_w, or none of them")
        self.check(not (p.HasField("scale") and "scale_h" in given), "give scale, or scale_h and scale_w, not both")
        self.size = (p.upsample_h, p.upsample_w) if "upsample_h" in given else None
        self.scale = (p.scale_h, p.scale_w) if "scale_h" in given else (p.scale, p.scale)
        self.less = (int(p.pad_out_h), int(p.pad_out_w))
        self.check(min(self.size or self.scale) > 0, f"sizes and scales must be positive: {self.size or self.scale}")
        for axis, less, scale in zip("hw", self.less, self.scale):
            fits = self.size or not less or scale == 2
            self.check(fits, f"pad_out_{axis} is for a scale of 2: give upsample_h and upsample_w instead")

    def shapes(self, shape, mask=None):
        self.check_shape(len(shape) == 4, f"needs 4 axes, got shape {shape}")
        self.check_shape(mask in (None, shape), f"the mask needs the values' shape, {shape}, not {mask}")
        sizes = self.size or tuple(size * scale - less for size, scale, less in zip(shape[2:], self.scale, self.less))
        return [shape[:2] + sizes]

    def forward(self, x, mask=None):
        shape = self.shapes(tuple(x.shape))[0]
        if mask is None:
            return F.interpolate(x, shape[2:], mode="nearest")
        places = self.checked(mask.detach().to(torch.int64), shape[2] * shape[3])
        return x.new_zeros(shape).flatten(2).scatter(2, places.flatten(2), x.flatten(2)).reshape(shape)

    def checked(self, places, pixels):
        """The places, all inside the plane. On a GPU the check is deferred (`flush`), and others become 0 until then."""
        wrong = (places < 0) | (places >= pixels)
        largest = torch.where(wrong, places.abs(), -1).amax() if places.numel() else places.new_tensor(-1)
        self.deferred_check = _PlaceCheck(self, largest, pixels, self.deferred_check)
        if not waits(places):
            self.flush()
        return places.masked_fill(wrong, 0)


class _PlaceCheck:
    """The check of one batch's mask, and of those before it that were not looked at."""

    def __init__(self, layer, largest, pixels, before):
        self.layer, self.pixels = layer, pixels
        self.largest = largest if before is None else torch.maximum(largest, before.largest)

    def __call__(self):
        self.layer.check(
            int(self.largest) < 0,
            f"the mask has the place {int(self.largest)}, but the top has {self.pixels} pixels: set its size to that of "
            "the pooling layer's bottom, with upsample_h and upsample_w",
        )
