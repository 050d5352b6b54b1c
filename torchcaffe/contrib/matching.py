"""Which prior box answers for which labeled box, and which of the others are trained as background (SSD, section 2.2)."""

from __future__ import annotations

import numpy as np

from torchcaffe.contrib.boxes import overlaps, suppress

UNMATCHED, IGNORED = -1, -2
SMALLEST_OVERLAP = 1e-6


def match(truth: np.ndarray, boxes: np.ndarray, threshold: float | None, inside_only: bool):
    """Match labeled boxes with prior or predicted boxes.

    Each labeled box first gets the box that overlaps it most, the largest overlap of all first. Then each box left gets the
    labeled box that it overlaps most, from `threshold` on.

    Args:
        truth: float32 (g, 4); boxes: float32 (n, 4).
        threshold: None to leave out the second part.
        inside_only: ignore boxes that are not inside the image.
    Returns:
        matches: int64 (n,), rows of `truth`, UNMATCHED or IGNORED; best overlap of each box with any labeled box, (n,).
    """
    matches = np.full(len(boxes), UNMATCHED)
    if not len(truth):
        return matches, np.zeros(len(boxes), np.float32)
    table = overlaps(boxes, truth)
    if inside_only:
        outside = ((boxes < 0) | (boxes > 1)).any(1)
        matches[outside] = IGNORED
        table[outside] = 0
    table[table <= SMALLEST_OVERLAP] = 0
    largest = table.max(1, initial=0)
    left = table.copy()
    for _ in range(min(table.shape)):
        box, labeled = np.unravel_index(left.argmax(), left.shape)
        if left[box, labeled] <= 0:
            break
        matches[box], largest[box] = labeled, left[box, labeled]
        left[box], left[:, labeled] = 0, 0
    if threshold is not None:
        free = (matches == UNMATCHED) & (largest > 0) & (largest >= np.float32(threshold))
        matches[free] = table[free].argmax(1)
    return matches, largest


def mine(matches: np.ndarray, overlap: np.ndarray, losses: np.ndarray, p, boxes: np.ndarray):
    """Choose the boxes of one image to train on, by their losses.

    MAX_NEGATIVE: all matched boxes, and neg_pos_ratio times as many unmatched ones of the largest loss. HARD_EXAMPLE: the
    sample_size boxes of the largest loss.

    Args:
        matches, overlap: what `match` returns, (n,); losses: (n,).
        p: MultiBoxLossParameter.
        boxes: (n, 4), for non-maximum suppression by nms_param.
    Returns:
        matches without those that are not chosen; indices of the boxes chosen as background.
    """
    hard = p.mining_type == p.HARD_EXAMPLE
    candidates = (
        np.arange(len(matches))
        if hard
        else np.flatnonzero((matches == UNMATCHED) & (overlap < np.float32(p.neg_overlap)))
    )
    count = p.sample_size if hard else int((matches >= 0).sum() * p.neg_pos_ratio)
    if p.HasField("nms_param") and p.nms_param.nms_threshold > 0:
        top_k = p.nms_param.top_k if p.nms_param.HasField("top_k") else -1
        best = suppress(boxes[candidates], losses[candidates], p.nms_param.nms_threshold, top_k)
    else:
        best = np.argsort(-losses[candidates], kind="stable")
    chosen = np.zeros(len(matches), bool)
    chosen[candidates[best[:count]]] = True
    background = np.flatnonzero(chosen & (matches == UNMATCHED))
    return np.where(hard & ~chosen & (matches >= 0), UNMATCHED, matches), background
