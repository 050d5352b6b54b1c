"""PriorBox (SSD, Liu et al. 2016): the default boxes of a feature map."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch

from torchcaffe.layers.base import TorchLayer, register_layer
from torchcaffe.contrib.boxes import CodeType
from torchcaffe.proto import caffe_pb2


@register_layer
class PriorBox(TorchLayer):
    """Boxes of several sizes and aspect ratios around the center of each cell of the first bottom.

    Bottoms: a feature map (n, c, h, w), and the image (n, c, height, width) unless img_size is given.
    Top: (1, 2, 4 * boxes): boxes as fractions of the image, cell by cell along the rows, then their variances.
    """

    type = "PriorBox"
    bottoms = (1, 2)
    in_place = False
    gradient_to = ()
    settings = {
        "prior_box_param": {
            "min_size": [float],  # in pixels of the image
            "max_size": [float],
            "aspect_ratio": [float],
            "flip": (bool, True),
            "clip": (bool, False),
            "variance": [float],
            "img_size": int,
            "img_h": int,
            "img_w": int,
            "step": float,
            "step_h": float,
            "step_w": float,
            "offset": (float, 0.5),
        }
    }
    settings_numbers = {"prior_box_param": 203}

    def setup(self, bottom, top):
        p = self.param.prior_box_param
        self.check(p.min_size and min(p.min_size) > 0, "min_size is missing; it is in pixels and positive")
        self.check(
            not p.max_size or len(p.max_size) == len(p.min_size), "give as many max_size as min_size, or no max_size"
        )
        for low, high in zip(p.min_size, p.max_size):
            self.check(high > low, f"max_size {high:g} is not larger than its min_size {low:g}")
        self.check(all(ratio > 0 for ratio in p.aspect_ratio), "aspect_ratio must be positive")
        self.check(len(p.variance) in (0, 1, 4), f"variance is given once or four times, not {len(p.variance)} times")
        self.check(all(value > 0 for value in p.variance), "variance must be positive")
        self.image_size = self.pair("img_size", "img_h", "img_w")
        self.check(self.image_size or len(bottom) > 1, "needs the image as its second bottom, or img_size")
        self.step = self.pair("step", "step_h", "step_w")
        self.sizes = self.box_sizes()
        self.made: tuple = ()  # shapes of the bottoms and the boxes for them

    def pair(self, both: str, height: str, width: str):
        """(height, width) of two settings or of one for both; None where none is given."""
        p = self.param.prior_box_param
        given = [name for name in (both, height, width) if p.HasField(name)]
        if not given:
            return None
        self.check(given in ([both], [height, width]), f"give either {both}, or {height} and {width}")
        values = (getattr(p, given[0]), getattr(p, given[-1]))
        self.check(min(values) > 0, f"{' and '.join(given)} must be positive")
        return values

    def box_sizes(self) -> list[tuple[float, float]]:
        """(width, height) in pixels of the boxes of one cell."""
        p = self.param.prior_box_param
        ratios = [1.0]
        for ratio in p.aspect_ratio:
            if all(abs(ratio - other) >= 1e-6 for other in ratios):
                ratios += [ratio, 1 / ratio] if p.flip else [ratio]
        sizes = []
        for low, high in itertools.zip_longest(p.min_size, p.max_size):
            sizes.append((low, low))
            if high is not None:
                sizes.append((math.sqrt(low * high), math.sqrt(low * high)))
            sizes += [(low * math.sqrt(ratio), low / math.sqrt(ratio)) for ratio in ratios[1:]]
        return sizes

    def shapes(self, *bottoms):
        for shape in bottoms:
            self.check_shape(len(shape) == 4, f"bottoms have 4 axes (n, c, h, w), not the shape {shape}")
        return [(1, 2, 4 * len(self.sizes) * math.prod(bottoms[0][2:]))]

    def forward(self, *bottoms):
        shapes = tuple(bottom.shape[2:] for bottom in bottoms)
        if not self.made or self.made[0] != shapes:
            self.made = shapes, torch.from_numpy(self.boxes(*shapes)).to(bottoms[0].device)
        return self.made[1].clone()

    def boxes(self, cells, image=None) -> np.ndarray:
        """float32 (1, 2, 4 * boxes) for feature maps of `cells` (rows, columns), images of `image` (height, width)."""
        p = self.param.prior_box_param
        height, width = self.image_size or image
        step_y, step_x = self.step or (height / cells[0], width / cells[1])
        centers_y = (np.arange(cells[0]) + p.offset) * step_y
        centers_x = (np.arange(cells[1]) + p.offset) * step_x
        half = np.array(self.sizes) / 2
        x, y = np.meshgrid(centers_x, centers_y)
        corners = [
            x[..., None] - half[:, 0],
            y[..., None] - half[:, 1],
            x[..., None] + half[:, 0],
            y[..., None] + half[:, 1],
        ]
        boxes = np.stack(corners, -1) / np.array([width, height, width, height])
        if p.clip:
            boxes = boxes.clip(0, 1)
        variances = np.broadcast_to(np.array(p.variance or [0.1]), 4)
        both = [boxes.reshape(-1), np.tile(variances, boxes.size // 4)]
        return np.stack(both)[None].astype(np.float32)


for code in CodeType:  # nets of SSD's scripts are written with P.PriorBox.CENTER_SIZE
    setattr(caffe_pb2.PriorBoxParameter, code.name, int(code))  # type: ignore[attr-defined]  # declared above
