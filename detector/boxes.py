"""Box arithmetic of MTCNN, a whole set of boxes at a time.

Boxes are N x 4 float64 arrays of left, top, right, bottom in the authors' convention: numbers of the first and the last
pixel, counted from 1. A box is therefore right - left + 1 pixels wide.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np


def sides(boxes: np.ndarray) -> np.ndarray:
    """Widths and heights, N x 2, in pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Greedy non-maximum suppression: indices of the boxes that stay, best score first.

    A box goes when its intersection over union with a better one that stays is above `threshold`. Of equal scores the
    later box wins, as in the authors' code. Scores are above 0.
    """
    if len(boxes) < 2:
        return np.arange(len(boxes))
    import cv2

    rectangles = np.concatenate([boxes[::-1, :2], sides(boxes[::-1])], axis=1)
    # OpenCV holds the threshold as float32; the next one above keeps a share that equals it, as float64 does.
    limit = np.nextafter(np.float32(threshold), np.float32(np.inf))
    kept = cv2.dnn.NMSBoxes(list(map(tuple, rectangles.tolist())), scores[::-1].tolist(), 0.0, float(limit))
    return len(boxes) - 1 - np.reshape(kept, -1).astype(np.int64)


def nms_by_smaller(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """As nms, by the intersection over the smaller of the two boxes: drops a face inside a face. For few boxes."""
    order = np.argsort(scores, kind="stable")[::-1]
    areas = sides(boxes).prod(axis=1)
    kept = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        first = np.maximum(boxes[best, :2], boxes[order, :2])
        last = np.minimum(boxes[best, 2:], boxes[order, 2:])
        common = np.maximum(last - first + 1, 0).prod(axis=1)
        order = order[common <= threshold * np.minimum(areas[best], areas[order])]
    return np.array(kept, dtype=np.int64)


def apply_deltas(boxes: np.ndarray, deltas: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Box regression: adds N x 4 `deltas` of the four edges, in units of the boxes' N x 2 `sides` (width, height)."""
    return boxes + deltas * np.tile(sides, 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """The boxes grown to squares about their centers, cut to whole pixels (toward zero, as the authors' fix())."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sides - side) / 2
    return np.trunc(np.concatenate([corner, corner + side], axis=1))


def touching(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The boxes that are at least a pixel large and share a pixel with a photo of `shape` (width, height, ...)."""
    whole = boxes[:, 2:] >= boxes[:, :2]
    inside = (boxes[:, 2:] >= 1) & (boxes[:, :2] <= shape[:2])
    return boxes[(whole & inside).all(axis=1)]
