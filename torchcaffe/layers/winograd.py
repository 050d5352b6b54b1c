"""3×3 convolution by Winograd's minimal filtering F(4×4, 3×3): a quarter of the multiplications, on the CPU.

Tiles of 6×6 pixels that overlap by two, and the filters, are transformed; there a convolution is one product a point,
36 matrix products over the channels; the transform back gives 4×4 pixels a tile. Source: Lavin and Gray, "Fast
Algorithms for Convolutional Neural Networks", CVPR 2016, whose matrices for the points 0, 1, -1, 2, -2 these are.
Rounding errors are about 1e-5 of the largest output, those of the plain sum 1e-6.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from torchcaffe.core.derived import Derived

CHANNELS, SIDE = 64, 12  # of the smallest input and output that are worth it
TILES = 224  # transformed at a time: they stay in the processor's cache
POINTS = 36
ONE = 7  # the point (1, 1), whose transform back adds the same to all pixels of a tile: the bias


def _both_axes(rows):
    """The transform of rows, applied to rows and columns: of a tile's points or pixels in a row."""
    matrix = torch.tensor(rows, dtype=torch.float64)
    return torch.kron(matrix, matrix)


INPUT = _both_axes([
    [4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1],
]).float()  # fmt: skip
FILTER = (_both_axes([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24**2).float()
OUTPUT = _both_axes([[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]).float()


def suits(layer, x) -> bool:
    """True where this saves time and nobody wants a gradient: 3×3, stride 1, many channels, not too small, CPU.

    It looks at nothing that changes from one image to the next: an image's digits must not depend on those before it.
    The first image pays for the transform of the filters, about as much as ten images then save.
    """
    return bool(
        not layer.training
        and not layer.context.traceable
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

    def __init__(self):
        self.filters = Derived(transform_filters)

    def __call__(self, layer, x, bias, relu=False):
        """Convolution of x, N×C×H×W in any memory order; the result is channels-last. bias: a tensor or None; relu:
        apply a ReLU to the result.

        An image's numbers do not depend on what else is in the batch.
        """
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
            for row in range(0, rows, step):
                row = min(row, rows - step)
                tiles = _tiles(layer, image, row, step, columns)
                part = convolve_tiles(tiles, filters, offset.view(-1)).view(step, columns, 4, 4, -1)
                if relu:
                    part = part.relu_()  # as F.relu: a NaN stays one
                result[row : row + step] = part.transpose(1, 2)
        top = top.view(len(x), 4 * rows, 4 * columns, layer.outputs)[:, :height, :width]
        return top.contiguous().permute(0, 3, 1, 2)


def _tiles(layer, image, row, rows, columns):
    """`rows` rows of tiles of an image, C×H×W, from `row` on, with the padding around it: tiles×36×C."""
    (above, left), (channels, height, width) = layer.pad, image.shape
    first, last = 4 * row - above, 4 * (row + rows) + 2 - above
    lines = image[:, max(first, 0) : min(last, height)].permute(1, 2, 0)
    lines = F.pad(lines, (0, 0, left, 4 * columns + 2 - width - left, max(-first, 0), max(last - height, 0)))
    line, pixel, _ = lines.stride()
    tiles = lines.as_strided((rows, columns, 6, 6, channels), (4 * line, 4 * pixel, line, pixel, 1))
    return tiles.reshape(-1, POINTS, channels)


def convolve_tiles(tiles, filters, offset):
    """tiles×36×channels to tiles×16×outputs. The products are a 1×1 convolution in 36 groups, oneDNN's fastest form."""
    count, _, channels = tiles.shape
    points = torch.matmul(INPUT, tiles)
    points = points.view(1, 1, count, POINTS * channels).permute(0, 3, 1, 2)
    products = torch.ops.mkldnn._convolution_pointwise(
        points, filters, offset, [0, 0], [1, 1], [1, 1], POINTS, "none", [], ""
    )
    products = products.permute(0, 2, 3, 1).reshape(count, POINTS, -1)
    return torch.matmul(OUTPUT, products)


def transform_filters(weight, tiles):
    """Filters outputs×channels×3×3 as 36 groups of outputs×channels, in the order that oneDNN wants for `tiles`."""
    outputs, channels = weight.shape[:2]
    points = torch.mm(FILTER, weight.reshape(-1, 9).t()).view(POINTS * outputs, channels, 1, 1)
    size = (1, POINTS * channels, 1, tiles)
    return torch._C._nn.mkldnn_reorder_conv2d_weight(points.to_mkldnn(), [0, 0], [1, 1], [1, 1], POINTS, size)
