"""From crops to a net's input: one definition for LMDBs, prediction and evaluation."""

from __future__ import annotations

from typing import Optional

import numpy as np

import recipe


def to_planes(crops: np.ndarray) -> np.ndarray:
    """N x H x W x 3 uint8 BGR as N x 3 x H x W uint8, contiguous; one crop, H x W x 3, as 3 x H x W: Datum's layout."""
    crops = np.asarray(crops)
    if crops.dtype != np.uint8 or crops.ndim not in (3, 4) or crops.shape[-1] != 3:
        raise ValueError(f"expected uint8 crops of shape (N, H, W, 3), got {crops.dtype} {crops.shape}")
    return np.ascontiguousarray(np.moveaxis(crops, -1, -3))


def to_blob(crops: np.ndarray, size: Optional[int] = None) -> np.ndarray:
    """N x H x W x 3 uint8 BGR crops as the net's input: N x 3 x size x size float32, BGR, recipe.MEAN_BGR subtracted.

    What Caffe's Data layer makes of the LMDB in the TEST phase with mean_value and, where `size` is given, crop_size:
    the middle of each crop.
    """
    crops = np.asarray(crops)
    if crops.ndim != 4:
        raise ValueError(f"expected crops of shape (N, H, W, 3), got {crops.shape}; one crop is crops[None]")
    if size is not None:
        top, left = (crops.shape[1] - size) // 2, (crops.shape[2] - size) // 2
        crops = crops[:, top : top + size, left : left + size]
    mean = np.array(recipe.MEAN_BGR, dtype=np.float32).reshape(1, 3, 1, 1)
    return to_planes(crops).astype(np.float32) - mean
