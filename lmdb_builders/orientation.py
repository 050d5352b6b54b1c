"""EXIF orientation: how a stored photo is turned to be upright, and the same turn for points and boxes.

Annotations and detections.csv count pixels as they are stored in the file; nets and detector see upright photos.
"""

from __future__ import annotations

from typing import NamedTuple, Tuple

import numpy as np

FLIPPED_X, FLIPPED_Y, SWAPPED = (2, 3, 7, 8), (3, 4, 6, 7), (5, 6, 7, 8)  # EXIF tags; flips come before the swap
Box = Tuple[float, float, float, float]  # x, y, width, height: covers x to x + width - 1


class Orientation(NamedTuple):
    """The turn of one photo. (0, 0) is the center of the top left pixel, stored or upright."""

    tag: int = 1  # EXIF's, 1 to 8; 1: stored upright
    width: int = 0  # stored pixels
    height: int = 0

    @property
    def is_upright(self) -> bool:
        return self.tag == 1

    def upright_points(self, points) -> np.ndarray:
        """N x 2 stored (x, y) as N x 2 float64 upright (x, y)."""
        points = self._flip(np.array(points, dtype=np.float64))
        return points[:, ::-1] if self.tag in SWAPPED else points

    def stored_points(self, points) -> np.ndarray:
        """The inverse of upright_points. Exact for float32 values: float64 holds their differences from a side."""
        points = np.array(points, dtype=np.float64)
        return self._flip(points[:, ::-1].copy() if self.tag in SWAPPED else points)

    def upright_box(self, box: Box) -> Box:
        """A stored box (x, y, width, height) in upright pixels. Values that are not finite stay so."""
        return self._box(box, self.upright_points)

    def stored_box(self, box: Box) -> Box:
        """The inverse of upright_box."""
        return self._box(box, self.stored_points)

    def _flip(self, points: np.ndarray) -> np.ndarray:
        if self.tag in FLIPPED_X:
            points[:, 0] = self.width - 1 - points[:, 0]
        if self.tag in FLIPPED_Y:
            points[:, 1] = self.height - 1 - points[:, 1]
        return points

    def _box(self, box: Box, turn) -> Box:
        if self.is_upright:
            return box
        x, y, width, height = box
        x, y = turn([[x, y], [x + width - 1, y + height - 1]]).min(axis=0)
        return (float(x), float(y), *((height, width) if self.tag in SWAPPED else (width, height)))
