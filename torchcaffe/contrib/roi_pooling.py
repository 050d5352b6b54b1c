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
        pixels = features.permute(0, 2, 3, 1)
        rows = cells(regions[:, [2, 4]] * p.spatial_scale, p.pooled_h, height)
        columns = cells(regions[:, [1, 3]] * p.spatial_scale, p.pooled_w, width)
        if pixels.requires_grad:  # look for the pixel, which gets the gradient
            order, ranks = ranked(pixels.detach())
            best, empty = largest(ranks, images, rows, columns)
            best = pixels.reshape(-1, channels).gather(0, order.gather(0, best.long()))
        else:
            best, empty = largest(pixels, images, rows, columns)
        best = torch.where(empty[:, None], 0.0, best)
        return best.reshape(len(regions), p.pooled_h, p.pooled_w, channels).permute(0, 3, 1, 2).contiguous()


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


def ranked(pixels: torch.Tensor):
    """(order, ranks) of pixels (n, h, w, c) within each channel: the largest has the highest rank, of equal ones the first.

    order: (n * h * w, c), the pixel of each rank; ranks: as `pixels`, int32.
    """
    flat = pixels.reshape(-1, pixels.shape[-1])
    order = flat.flip(0).sort(dim=0, stable=True).indices
    order = len(flat) - 1 - order
    numbers = torch.arange(len(flat), device=pixels.device, dtype=torch.int32)[:, None].expand_as(order)
    ranks = torch.empty_like(order, dtype=torch.int32).scatter_(0, order, numbers)
    return order, ranks.reshape(pixels.shape)


def largest(pixels: torch.Tensor, images: torch.Tensor, rows, columns):
    """The largest of pixels (n, h, w, c) in each cell, for each channel: (cells, c), and whether the cell is empty: (cells,).

    images: (r,); rows, columns: the ends of cells, from `cells`. A table of the largest in all windows of 2^i by 2^j pixels
    answers for a cell of any size: four windows, which may overlap, cover it.
    """
    height, width, channels = pixels.shape[1:]
    (top, bottom), (left, right) = rows, columns
    shape = (len(images), top.shape[1], left.shape[1])
    heights = (bottom - top)[:, :, None].expand(shape).reshape(-1)
    widths = (right - left)[:, None, :].expand(shape).reshape(-1)
    first = ((images[:, None, None] * height + top[:, :, None]) * width + left[:, None, :]).reshape(-1)
    empty = (heights <= 0) | (widths <= 0)
    best = pixels.new_zeros((len(first), channels))
    if not len(first) or not pixels.numel():
        return best, empty
    table = pixels.contiguous()
    for high in powers(int(heights.max())):
        wide_table = table
        for wide in powers(int(widths.max())):
            fits = (heights >= high) & (heights < 2 * high) & (widths >= wide) & (widths < 2 * wide)
            here = torch.nonzero(fits)[:, 0]
            if len(here):
                start, flat = first[here], wide_table.reshape(-1, channels)
                down, across = (heights[here] - high) * width, widths[here] - wide
                found = flat[start]
                for shift in (down, across, down + across):
                    torch.maximum(found, flat[start + shift], out=found)
                best[here] = found
            wide_table = doubled(wide_table, 2, wide)
        table = doubled(table, 1, high)
    return best, empty


def powers(limit: int) -> list[int]:
    """1, 2, 4 … up to `limit`."""
    return [2**i for i in range(limit.bit_length())]


def doubled(table: torch.Tensor, axis: int, size: int) -> torch.Tensor:
    """The largest in windows twice as long along `axis`, where they fit: from those of `size` at each pixel."""
    length = table.shape[axis] - size
    if length <= 0:
        return table
    wide = table.clone()
    wide.narrow(axis, 0, length).copy_(torch.maximum(table.narrow(axis, 0, length), table.narrow(axis, size, length)))
    return wide
