"""Box arithmetic of MTCNN, a whole set of boxes at a time.

Boxes are N x 4 float64 arrays of left, top, right, bottom in the authors' convention: numbers of the first and the last
pixel, counted from 1. A box is therefore right - left + 1 pixels wide.
"""

from __future__ import annotations

from typing import Sequence

import numpy as np

_BLOCK = 512  # boxes compared at once by suppress(); bounds its memory


def suppress(boxes: np.ndarray, scores: np.ndarray, threshold: float, by_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes that stay, best score first.

    A box goes when it shares more than `threshold` with a better one that stays. The share is the intersection over
    the union, or with `by_smaller` over the smaller of the two (which drops a face inside a face). Equal scores: the
    later box wins, as in the authors' code. The result is the greedy algorithm's, found a block at a time.
    """
    order = np.argsort(scores, kind="stable")[::-1]
    sides = boxes[order, 2:] - boxes[order, :2] + 1
    edges = np.concatenate([boxes[order], (sides[:, 0] * sides[:, 1])[:, None]], axis=1)
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(order), _BLOCK):
        block = np.arange(start, min(start + _BLOCK, len(order)))
        if len(kept):
            block = block[~(_shares(edges[kept], edges[block], by_smaller) > threshold).any(axis=0)]
        kept = np.concatenate([kept, block[_greedy(_shares(edges[block], edges[block], by_smaller) > threshold)]])
    return order[kept]


def _greedy(conflicts: np.ndarray) -> np.ndarray:
    """Which boxes, sorted best first, stay, given N x N `conflicts`: those in conflict with no better one that stays.

    Starts from "all stay" and applies that sentence to all boxes at once until nothing changes; after k rounds the
    first k boxes are final, and in practice three or four rounds settle all.
    """
    earlier = np.triu(conflicts, 1).astype(np.float32)
    stays = np.ones(len(conflicts), dtype=np.float32)
    while True:
        settled = (stays @ earlier == 0).astype(np.float32)
        if np.array_equal(settled, stays):
            return stays > 0
        stays = settled


def _shares(first: np.ndarray, second: np.ndarray, by_smaller: bool) -> np.ndarray:
    """N x M shares of N x 5 and M x 5 boxes, the fifth column being the area."""
    left, top, right, bottom, area = first.T[:, :, None]
    width = np.minimum(right, second[:, 2]) - np.maximum(left, second[:, 0]) + 1
    height = np.minimum(bottom, second[:, 3]) - np.maximum(top, second[:, 1]) + 1
    common = np.maximum(width, 0) * np.maximum(height, 0)
    whole = np.minimum(area, second[:, 4]) if by_smaller else area + second[:, 4] - common
    return common / np.maximum(whole, 1e-9)


def move(boxes: np.ndarray, moves: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Box regression: adds N x 4 `moves` of the four edges, in units of the boxes' N x 2 `sides` (width, height)."""
    return boxes + moves * np.tile(sides, 2)


def square(boxes: np.ndarray) -> np.ndarray:
    """The boxes grown to squares about their centers, cut to whole pixels (toward zero, as the authors' fix())."""
    sides = boxes[:, 2:] - boxes[:, :2]
    side = sides.max(axis=1, keepdims=True)
    corner = boxes[:, :2] + (sides - side) / 2
    return np.trunc(np.concatenate([corner, corner + side], axis=1))


def sides(boxes: np.ndarray) -> np.ndarray:
    """Widths and heights, N x 2, in pixels."""
    return boxes[:, 2:] - boxes[:, :2] + 1


def touching(boxes: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The boxes that are at least a pixel large and share a pixel with a photo of `shape` (width, height, ...)."""
    whole = boxes[:, 2:] >= boxes[:, :2]
    inside = (boxes[:, 2:] >= 1) & (boxes[:, :2] <= shape[:2])
    return boxes[(whole & inside).all(axis=1)]
