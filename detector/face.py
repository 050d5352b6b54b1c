"""A detected face, and the two ways in which the paper chooses one face of a photo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

import numpy as np

LANDMARKS = ("left eye", "right eye", "nose", "left mouth corner", "right mouth corner")  # "left" is the viewer's left
Box = Tuple[float, float, float, float]  # x, y, width, height


class DetectorError(RuntimeError):
    """The detector cannot run: its weights are missing or damaged. The message says what to do."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face, in pixels of the photo it was found in; x grows to the right, y downward, (0, 0) is the top left pixel.

    box: (x, y, width, height), floats; may reach over the border of the photo, as MTCNN says it.
    score: probability of being a face, 0..1.
    landmarks: 5 x 2 float32, a row [x, y] for each of LANDMARKS.
    """

    box: Box
    score: float
    landmarks: np.ndarray

    @property
    def center(self) -> Tuple[float, float]:
        """Center of the box, (x, y)."""
        x, y, width, height = self.box
        return x + width / 2, y + height / 2


def iou(first: Box, second: Box) -> float:
    """Intersection over union, 0..1, of two boxes (x, y, width, height)."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return shared / (first[2] * first[3] + second[2] * second[3] - shared)


def _distance(face: Face, x: float, y: float) -> float:
    return float(np.hypot(face.center[0] - x, face.center[1] - y))


def nearest_to_box(faces: Sequence[Face], box: Box) -> Optional[Face]:
    """The face nearest an annotated box (x, y, width, height): how the paper chooses while training (section 4).

    Nearest is the largest overlap with the box (intersection over union), so that a small wrong detection at the box's
    very center does not win; among faces that do not touch it, the one whose center is nearest. None without faces.
    """
    x, y = box[0] + box[2] / 2, box[1] + box[3] / 2
    return min(faces, key=lambda face: (-iou(face.box, box), _distance(face, x, y)), default=None)


def from_center(faces: Sequence[Face], image_shape: Sequence[int]) -> List[Face]:
    """Faces by the distance of their centers from the photo's center, the nearest first.

    image_shape: the photo's shape, height first.
    """
    height, width = image_shape[:2]
    return sorted(faces, key=lambda face: _distance(face, width / 2, height / 2))


def nearest_to_center(faces: Sequence[Face], image_shape: Sequence[int]) -> Optional[Face]:
    """The face whose center is nearest the photo's center: how the paper chooses while testing (section 4).

    image_shape: the photo's shape, height first. None without faces.
    """
    return next(iter(from_center(faces, image_shape)), None)
