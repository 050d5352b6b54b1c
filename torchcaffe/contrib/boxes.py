"""Boxes of detectors: overlaps, codes relative to prior boxes, non-maximum suppression.

A box is (xmin, ymin, xmax, ymax) along the last axis. SSD's are fractions of the image; Fast R-CNN's are pixels, whose
last row and column belong to the box: `border` is then 1.
"""

from __future__ import annotations

import enum

import numpy as np
import torch


class CodeType(enum.IntEnum):
    """How a box is given relative to a prior box."""

    CORNER = 1  # offsets of both corners
    CENTER_SIZE = 2  # offset of the center in sizes of the prior; logarithms of the sizes' ratios
    CORNER_SIZE = 3  # offsets of both corners in sizes of the prior


NMS_FIELDS = {"nms_threshold": (float, 0.3), "top_k": int, "eta": (float, 1.0)}


def areas(boxes, border: float = 0.0):
    """Areas of boxes (..., 4). NumPy or torch."""
    sides = boxes[..., 2:] - boxes[..., :2] + border
    return sides[..., 0] * sides[..., 1]


def overlaps(boxes, others, border: float = 0.0):
    """Jaccard overlaps of boxes (n, 4) with others (m, 4): (n, m), 0 to 1. NumPy or torch, both of one kind.

    A box whose corners are in the wrong order overlaps nothing.
    """
    first = boxes[:, None, :2].clip(min=others[None, :, :2])
    last = boxes[:, None, 2:].clip(max=others[None, :, 2:])
    sides = (last - first + border).clip(min=0)
    common = sides[..., 0] * sides[..., 1]
    union = areas(boxes, border)[:, None] + areas(others, border)[None] - common
    return common / union.clip(min=1e-30)


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    top_k: int = -1,
    eta: float = 1.0,
    limit: int = -1,
    border: float = 0.0,
) -> np.ndarray:
    """Non-maximum suppression: a box is kept if it overlaps no better one that is kept by more than `threshold`.

    Args:
        boxes: float32 (n, 4).
        scores: (n,); the higher the better, equal ones in their order.
        top_k: number of best boxes to look at; -1 for all.
        eta: below 1, `threshold` is multiplied by it after each kept box, as long as it is over 0.5.
        limit: number of boxes to keep at most; -1 for all.
    Returns:
        Indices of the boxes kept, int64, the best first.
    """
    order = np.argsort(-scores, kind="stable")
    order = order[:top_k] if top_k > -1 else order
    boxes = boxes[order]
    largest = np.zeros(len(order), boxes.dtype)  # overlap with any box kept so far
    kept: list[int] = []
    for i in range(len(order)):
        if len(kept) == limit:
            break
        if largest[i] > threshold:
            continue
        kept.append(i)
        with np.errstate(over="ignore", invalid="ignore"):  # boxes of an untrained net may be infinite
            after = overlaps(boxes[i : i + 1], boxes[i + 1 :], border)[0]
        np.maximum(largest[i + 1 :], after, out=largest[i + 1 :])
        if eta < 1 and threshold > 0.5:
            threshold *= eta
    return order[kept]


def decode(codes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor | None, kind: int) -> torch.Tensor:
    """Boxes from codes (..., n, 4) relative to priors (n, 4); codes are multiplied by variances (n, 4) first, if any."""
    codes = codes if variances is None else codes * variances
    if kind == CodeType.CORNER:
        return priors + codes
    sizes = priors[..., 2:] - priors[..., :2]
    if kind == CodeType.CORNER_SIZE:
        return priors + codes * torch.cat([sizes, sizes], -1)
    centers = (priors[..., :2] + priors[..., 2:]) / 2 + codes[..., :2] * sizes
    halves = torch.exp(codes[..., 2:]) * sizes / 2
    return torch.cat([centers - halves, centers + halves], -1)


def encode(boxes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor | None, kind: int) -> torch.Tensor:
    """Codes of boxes (n, 4) relative to priors (n, 4), divided by variances (n, 4), if any: the inverse of `decode`."""
    sizes = priors[..., 2:] - priors[..., :2]
    if kind == CodeType.CORNER:
        codes = boxes - priors
    elif kind == CodeType.CORNER_SIZE:
        codes = (boxes - priors) / torch.cat([sizes, sizes], -1)
    else:
        offsets = (boxes[..., :2] + boxes[..., 2:] - priors[..., :2] - priors[..., 2:]) / 2
        codes = torch.cat([offsets / sizes, torch.log((boxes[..., 2:] - boxes[..., :2]) / sizes)], -1)
    return codes if variances is None else codes / variances
