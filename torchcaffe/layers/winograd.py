"""3×3 convolution by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications, on the CPU.

Tiles of 6×6 pixels that overlap by two, and the filters, are transformed; there a convolution is one product a point,
36 matrix products over the channels; the transform back gives 4×4 pixels a tile. Source: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, whose matrices for the points 0, 1, -1, 2, -2 these are.
Rounding errors are about 1e-5 of the largest output, those of the plain sum 1e-6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torchcaffe.derived import Derived

CHANNELS, SIDE = 64, 12  # of the smallest input and output that are worth it
TILES = 224  # transformed at a time: they stay in the processor's cache
POINTS = 36
ONE = 7  # the point (1, 1), whose transform back adds the same to all pixels of a tile: the bias

_INPUT = torch.tensor([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
], dtype=torch.float32)  # fmt: skip
_FILTER = torch.tensor([
    [6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]
], dtype=torch.float64) / 24  # fmt: skip
_OUTPUT = torch.tensor([
    [1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]
], dtype=torch.float32)  # fmt: skip


def suits(layer, x) -> bool:
    """True where this saves time and nobody wants a gradient: 3×3, stride 1, many channels, not too small, CPU."""
    return (
        not layer.training
        and not torch.is_grad_enabled()
        and x.dim() == 4
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and (layer.kernel, layer.stride, layer.dilation, layer.group) == ([3, 3], [1, 1], [1, 1], 1)
        and min(x.shape[1], layer.outputs) >= CHANNELS
        and x.shape[1] % 16 == layer.outputs % 16 == 0
        and min(x.shape[2] + 2 * layer.pad[0], x.shape[3] + 2 * layer.pad[1]) >= SIDE + 2
        and torch.backends.mkldnn.is_available()
        and torch.backends.mkldnn.enabled
    )


class Winograd:
    """The convolution of one layer; keeps its transformed filters, four times the size of the filters themselves."""

    def __init__(self, layer):
        self.layer = layer
        self.filters = Derived(transform_filters)

    def __call__(self, x, bias):
        """Convolution of x, N×C×H×W in any memory order; the result is channels-last. bias: a tensor or None.

        An image's numbers do not depend on what else is in the batch.
        """
        layer = self.layer
        height, width = (x.shape[2 + axis] + 2 * layer.pad[axis] - 2 for axis in (0, 1))
        rows, columns = -(-height // 4), -(-width // 4)
        parts = -(-rows * columns // TILES)
        step = min(rows, -(-rows // parts))  # rows of tiles at a time, always as many: oneDNN orders filters for a size
        filters = self.filters.get(layer.blobs[0], step * columns)
        offset = x.new_zeros(POINTS, layer.outputs)
        if bias is not None:
            offset[ONE] = bias.detach()
        top = x.new_empty(len(x), rows, 4, columns, 4, layer.outputs)
        for image, result in zip(x, top):
            tiles = self._tiles(image, rows, columns)
            for row in range(0, rows, step):
                row = min(row, rows - step)
                part = tiles[row : row + step].reshape(-1, POINTS, x.shape[1])
                part = convolve_tiles(part, filters, offset.view(-1)).view(step, columns, 4, 4, -1)
                result[row : row + step] = part.transpose(1, 2)
        top = top.view(len(x), 4 * rows, 4 * columns, layer.outputs)[:, :height, :width]
        return top.contiguous().permute(0, 3, 1, 2)

    def _tiles(self, image, rows, columns):
        """View of an image, C×H×W, with its padding: rows×columns×6×6×C."""
        (above, left), (channels, height, width) = self.layer.pad, image.shape
        margins = (0, 0, left, 4 * columns + 2 - width - left, above, 4 * rows + 2 - height - above)
        padded = F.pad(image.permute(1, 2, 0), margins)
        line, pixel, _ = padded.stride()
        return padded.as_strided((rows, columns, 6, 6, channels), (4 * line, 4 * pixel, line, pixel, 1))


def convolve_tiles(tiles, filters, offset):
    """tiles×36×channels to tiles×16×outputs. The products are a 1×1 convolution in 36 groups, oneDNN's fastest form."""
    count, _, channels = tiles.shape
    points = torch.matmul(torch.kron(_INPUT, _INPUT), tiles)
    points = points.view(1, 1, count, POINTS * channels).permute(0, 3, 1, 2)
    products = torch.ops.mkldnn._convolution_pointwise(
        points, filters, offset, [0, 0], [1, 1], [1, 1], POINTS, "none", [], ""
    )
    products = products.permute(0, 2, 3, 1).reshape(count, POINTS, -1)
    return torch.matmul(torch.kron(_OUTPUT, _OUTPUT), products)


def transform_filters(weight, tiles):
    """Filters outputs×channels×3×3 as 36 groups of outputs×channels, in the order that oneDNN wants for `tiles`."""
    outputs, channels = weight.shape[:2]
    transform = torch.kron(_FILTER, _FILTER).float()
    points = torch.mm(transform, weight.reshape(-1, 9).t()).view(POINTS * outputs, channels, 1, 1)
    size = (1, POINTS * channels, 1, tiles)
    return torch._C._nn.mkldnn_reorder_conv2d_weight(points.to_mkldnn(), [0, 0], [1, 1], [1, 1], POINTS, size)
