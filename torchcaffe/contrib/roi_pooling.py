"""ROIPooling (Fast R-CNN, Girshick 2015): the maximum in each cell of a grid laid over regions of a feature map."""

from __future__ import annotations

import torch

from torchcaffe.layers.base import TorchLayer, register_layer


@register_layer
class ROIPooling(TorchLayer):
    """Features of a fixed size from regions of any size.

    Bottoms: features (n, c, h, w); regions (r, 5): image of the batch, then x1, y1, x2, y2 in the image's pixels.
    Top: (r, c, pooled_h, pooled_w). A cell that lies outside the features is 0. Regions get no gradient.
    """

    type = "ROIPooling"
    bottoms = (2, 2)
    in_place = False
    gradient_to = (0,)
    settings = {"roi_pooling_param": {"pooled_h": (int, 0), "pooled_w": (int, 0), "spatial_scale": (float, 1.0)}}
    settings_numbers = {"roi_pooling_param": 8266711}

    def setup(self, bottom, top):
        p = self.param.roi_pooling_param
        self.check(p.pooled_h > 0 and p.pooled_w > 0, "pooled_h and pooled_w must be positive")
        self.check(p.spatial_scale > 0, "spatial_scale must be positive")

    def shapes(self, features, regions):
        p = self.param.roi_pooling_param
        self.check_shape(len(features) == 4, f"features have 4 axes (n, c, h, w), not the shape {features}")
        wide = len(regions) > 1 and regions[1] == 5 and all(dim == 1 for dim in regions[2:])
        self.check_shape(wide, f"regions are (r, 5): image, x1, y1, x2, y2; their shape is {regions}")
        return [(regions[0], features[1], p.pooled_h, p.pooled_w)]

    def forward(self, features, regions):
        p = self.param.roi_pooling_param
        items, channels, height, width = features.shape
        regions = regions.detach().reshape(-1, 5)
        images = regions[:, 0].long()
        if len(regions):
            low, high = int(images.min()), int(images.max())
            self.check(
                0 <= low and high < items, f"regions name image {low if low < 0 else high} of a batch of {items}"
            )
        pixels = features.permute(0, 2, 3, 1).reshape(-1, channels)  # (n * h * w, c)
        rows = cells(regions[:, [2, 4]] * p.spatial_scale, p.pooled_h, height)
        columns = cells(regions[:, [1, 3]] * p.spatial_scale, p.pooled_w, width)
        where, empty = best_pixels(pixels.detach(), images, rows, columns, height, width)
        top = torch.where(empty[:, None], 0.0, pixels.gather(0, where))
        return top.reshape(len(regions), p.pooled_h, p.pooled_w, channels).permute(0, 3, 1, 2).contiguous()


def cells(ends: torch.Tensor, count: int, length: int):
    """First pixel and the one after the last of `count` cells: int64 (r, count) each, for ends (r, 2), within `length`.

    Ends are rounded to pixels, halves away from 0, and a region has at least one pixel. Cells may share pixels.
    """
    whole = ends.trunc()
    ends = whole + torch.where((ends - whole).abs() >= 0.5, ends.sign(), 0.0)
    sizes = (ends[:, 1] - ends[:, 0] + 1).clamp(min=1) / count
    numbers = torch.arange(count, device=ends.device, dtype=ends.dtype)
    first = torch.floor(numbers * sizes[:, None]) + ends[:, :1]
    after = torch.ceil((numbers + 1) * sizes[:, None]) + ends[:, :1]
    return first.clamp(0, length).long(), after.clamp(0, length).long()


def best_pixels(pixels, images, rows, columns, height: int, width: int):
    """Which pixel is the largest, for each cell and channel: (row of `pixels` (r * cells, c), whether the cell is empty).

    Of equal ones it is the first, row by row. Pixels are looked at by their position in the cell, all cells together.
    """
    (top, bottom), (left, right) = rows, columns
    shape = (len(images), top.shape[1], left.shape[1])

    def each(values, axis):
        return values.unsqueeze(axis).expand(shape).reshape(-1)

    heights, widths = each(bottom - top, 2), each(right - left, 1)
    start = (images[:, None, None] * height + top[:, :, None]) * width + left[:, None, :]
    start = start.reshape(-1)
    empty = (heights <= 0) | (widths <= 0)
    start = torch.where(empty, 0, start)  # a pixel that exists
    where = start[:, None].expand(-1, pixels.shape[1]).contiguous()
    if not len(start) or not pixels.numel():
        return where, empty
    best = pixels[start]
    for y in range(int(heights.max())):
        for x in range(int(widths.max())):
            inside = torch.nonzero((y < heights) & (x < widths))[:, 0]
            if not len(inside) or x == y == 0:
                continue
            position = start[inside] + (y * width + x)
            candidates, now = pixels[position], best[inside]
            larger = candidates > now
            best[inside] = torch.where(larger, candidates, now)
            where[inside] = torch.where(larger, position[:, None], where[inside])
    return where, empty
