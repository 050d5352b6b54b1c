"""From a photo and its landmarks to a net's input: one definition for LMDBs, prediction and evaluation.

The geometry of the five cropping schemes (section 3.3, Figure 3), the resampling, and the layout of what a net reads.

A pixel's coordinates are those of its center: the first pixel of an image is (0, 0) and covers -0.5 .. 0.5. Landmarks
of the data sets and of the detector are in these coordinates of the photo.
"""

from __future__ import annotations

import math
from typing import Optional

import numpy as np

import recipe
from lmdb_builders.errors import CropError

OVERSAMPLED_SIDE_LIMIT = 2_048  # pixels; bounds time and memory (13 MB) however large the photo or wrong the landmarks


# -------------------------------------------------------------------------------------------- geometry and resampling
def fit_face(landmarks) -> tuple:
    """Least-squares similarity from face units to photo pixels.

    `landmarks`: 5 x 2, pixels, in recipe.FACE_TEMPLATE's order. Returns (a, b): complex numbers such that a point of
    the template, read as u + iv, lies at a * (u + iv) + b in the photo; |a| is pixels a face unit, the angle of `a`
    the face's rotation, b the origin of the face frame. Complex numbers cannot express a reflection, so none is fitted.
    Raises CropError where the landmarks are not 5 x 2 finite numbers or have no extent.
    """
    points = np.asarray(landmarks, dtype=np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        raise CropError("landmarks are not five points with finite coordinates")
    template = np.asarray(recipe.FACE_TEMPLATE, dtype=np.float64)
    photo = points[:, 0] + 1j * points[:, 1]
    face = template[:, 0] + 1j * template[:, 1]
    photo_mean, face_mean = photo.mean(), face.mean()
    centered = face - face_mean
    a = np.vdot(centered, photo - photo_mean) / np.vdot(centered, centered).real
    if abs(a) < 1.0:  # a face of a pixel or two: the landmarks lie in one place, or contradict each other
        raise CropError("landmarks have no extent (they lie on one point, or contradict each other): no face can be fitted")
    return complex(a), complex(photo_mean - a * face_mean)


def crop_matrix(landmarks, crop: recipe.Crop, size: int) -> np.ndarray:
    """2 x 3 float64: maps a photo's pixel (x, y, 1) to the pixel of the size x size crop.

    An aligned crop undoes the fitted rotation; one that is not aligned keeps the photo's axes and has the same scale
    and origin, so schemes 1 and 2 show exactly the same extent of the same face.
    """
    a, origin = fit_face(landmarks)
    turn = a if crop.aligned else abs(a)
    # photo -> face units: (photo - origin) / turn; face units -> crop: window's side covers -0.5 .. size - 0.5
    linear = (size / crop.side) / turn
    center = complex(*crop.center)
    shift = -origin * linear - center * (size / crop.side) + (size - 1) / 2 * (1 + 1j)
    return np.array([[linear.real, -linear.imag, shift.real], [linear.imag, linear.real, shift.imag]])


def crop_face(image: np.ndarray, landmarks, crop: recipe.Crop, size: int, motion: Optional[np.ndarray] = None) -> np.ndarray:
    """Cut one crop: size x size x 3 uint8, BGR as the photo (H x W x 3 uint8).

    The photo is interpolated once (bilinear). Where the crop is smaller than its part of the photo, by a factor up to
    k, the interpolation samples a grid k times as fine and each k x k samples are averaged: the mean over what a crop
    pixel covers, turned with the crop, instead of aliasing. Outside the photo its edge pixels are repeated (ours,
    because the paper is silent; FotW's other users pad so). motion: 2 x 3, moves the crop's pixels (lmdb_builders/jitter.py).
    """
    import cv2

    matrix = crop_matrix(landmarks, crop, size)
    if motion is not None:
        matrix = motion[:, :2] @ matrix + np.column_stack([np.zeros((2, 2)), motion[:, 2]])
    shrink = 1.0 / math.hypot(matrix[0, 0], matrix[1, 0])  # photo pixels a crop pixel
    samples = min(max(1, math.ceil(shrink - 1e-6)), max(1, OVERSAMPLED_SIDE_LIMIT // size))
    fine = matrix * samples
    fine[:, 2] += (samples - 1) / 2  # the centers of a pixel's samples lie around the pixel's center
    warped = cv2.warpAffine(
        image, fine, (size * samples, size * samples), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    if samples == 1:
        return warped
    return cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)  # a plain mean at a whole factor


# ------------------------------------------------------------------------------------------------------ a net's input
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
