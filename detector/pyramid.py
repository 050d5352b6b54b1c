"""The image pyramid of MTCNN's stage 1, all levels drawn side by side on one canvas.

One forward of a fully convolutional net over the canvas then judges every window of every level: far cheaper than a
forward a level, since a net costs some time a call however small its input, and photos of one size keep one shape.
Levels start at multiples of the net's stride, so that its windows fall on each level as they would on the level alone.
"""

from __future__ import annotations

import math
from typing import List, Sequence, Tuple

import numpy as np

CELL = 12  # side in pixels of the window that stage 1 judges
STRIDE = 2  # distance in pixels between such windows


def scales(shape: Sequence[int], minimum_face: float, factor: float, maximum_side: float) -> List[float]:
    """Sizes of the pyramid's levels relative to a photo of `shape`, largest first; see Detector for the settings."""
    result = []
    scale = CELL / minimum_face
    while min(shape[:2]) * scale >= CELL:
        if math.ceil(max(shape[:2]) * scale) <= maximum_side:
            result.append(scale)
        scale *= factor
    return result


class Pyramid:
    """Where each level of a pyramid lies on the canvas.

    shape: width and height of the photo, whose pixels are a width x height x 3 array. levels: the levels' scales,
    largest first, at least one.
    """

    def __init__(self, shape: Sequence[int], levels: Sequence[float]):
        self.scales = np.array(levels)
        self.sizes = [tuple(math.ceil(side * scale) for side in shape[:2]) for scale in levels]
        self.corners, self.canvas_size = _arrange([(_even(width), _even(height)) for width, height in self.sizes])
        self._levels = self._level_of_windows()

    def _level_of_windows(self) -> np.ndarray:
        """Number of the level under each window of the canvas, -1 for windows that are not inside one level."""
        levels = np.full([_windows(side) for side in self.canvas_size], -1)
        for number, ((left, top), (width, height)) in enumerate(zip(self.corners, self.sizes)):
            left, top = left // STRIDE, top // STRIDE
            levels[left : left + _windows(width), top : top + _windows(height)] = number
        return levels

    def draw(self, pixels: np.ndarray) -> np.ndarray:
        """The canvas with all levels of a photo: its width x its height x 3, float32 whole gray levels, as `pixels`."""
        import cv2

        canvas = np.zeros((*self.canvas_size, 3), np.float32)
        for (left, top), (width, height) in zip(self.corners, self.sizes):
            level = canvas[left : left + width, top : top + height]
            cv2.resize(pixels, (height, width), dst=level, interpolation=cv2.INTER_AREA)
            # An odd side's last window reaches a pixel beyond it, which Caffe's pooling leaves out: repeat the border.
            if width % 2:
                canvas[left + width, top : top + height] = level[-1]
            if height % 2:
                canvas[left : left + _even(width), top + height] = canvas[left : left + _even(width), top + height - 1]
        return np.rint(canvas, out=canvas)

    def select(self, hits: np.ndarray) -> Tuple[Tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray]:
        """The windows where `hits`, a boolean map of the canvas's windows, is true: a triple of

        their two indices into the map, the number of each one's level, and their boxes in the photo, N x 4.
        """
        cells = np.nonzero(hits & (self._levels >= 0))
        levels = self._levels[cells]
        corner = np.stack(cells, axis=1) * STRIDE - np.array(self.corners)[levels]
        boxes = np.concatenate([corner + 1, corner + CELL], axis=1) / self.scales[levels, None]
        return cells, levels, np.trunc(boxes)


def _even(side: int) -> int:
    return side + side % STRIDE


def _windows(side: int) -> int:
    """Number of windows along a side: what det1 makes of it, its pooling rounding up."""
    return (side - 1) // STRIDE - 4


def _arrange(sizes: Sequence[Tuple[int, int]]) -> Tuple[List[Tuple[int, int]], Tuple[int, int]]:
    """Lays rectangles (width, height), each no larger than the one before, out in columns of shelves.

    Returns their corners and the size of the whole. Each goes to the first shelf with room beside what is there, else
    onto a new shelf in the first column with room below, else into a new column, as wide as itself.
    """
    height = sizes[0][1]
    shelves: List[List[int]] = []  # left edge of what is free, its right edge, top, bottom
    columns: List[List[int]] = []  # left edge, right edge, height used
    corners = []
    width = 0
    for side_x, side_y in sizes:
        shelf = next((one for one in shelves if one[0] + side_x <= one[1] and one[2] + side_y <= one[3]), None)
        if shelf is None:
            column = next((one for one in columns if one[2] + side_y <= height), None)
            if column is None:
                column = [width, width + side_x, 0]
                columns.append(column)
                width += side_x
            shelf = [column[0], column[1], column[2], column[2] + side_y]
            shelves.append(shelf)
            column[2] += side_y
        corners.append((shelf[0], shelf[2]))
        shelf[0] += side_x
    return corners, (width, height)
