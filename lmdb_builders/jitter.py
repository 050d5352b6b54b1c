"""Random changes of a stored training crop, for profiles whose faces are few (recipe.Profile.copies).

Caffe's Data layer mirrors and shifts; what it cannot do is done here, once, when the LMDB is built: small turns, sizes
and shifts, other light and color, gray and blurred photos. The extents are ours.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Tuple

import numpy as np

TURN, SIZE, SHIFT = 12.0, 0.12, 0.05  # degrees; log of the factor; share of the crop's side: each the most, either way
GAIN, TINT, OFFSET = 0.25, 0.08, 20.0  # log of the contrast, and of a channel's; brightness in levels of 0..255
GRAY, BLUR, SHRINK = 0.15, 0.2, 2.5  # probability of a gray copy, of a blurred one; the most it is shrunk by


@dataclass(frozen=True)
class Jitter:
    """What happens to all crops of one copy of a face."""

    turn: float  # degrees
    factor: float  # > 1: the face becomes larger
    shift: Tuple[float, float]  # x, y, share of the crop's side
    gains: Tuple[float, float, float]  # of B, G, R
    offset: float  # levels of 0..255
    gray: bool
    shrink: float  # 1: not blurred

    @classmethod
    def draw(cls, image: str, copy: int, seed: int) -> "Jitter":
        """The jitter of copy number `copy` (1, 2, ...) of a photo: the same for the same arguments, on any machine."""
        random = np.random.default_rng([seed, copy, zlib.crc32(image.encode("utf-8", "surrogateescape"))])
        turn, size, x, y, gain, offset = random.uniform(-1, 1, 6)
        tints = random.uniform(-TINT, TINT, 3)
        gray, blur, shrink = random.uniform(size=3)
        blue, green, red = (float(value) for value in np.exp(GAIN * gain + tints))
        return cls(float(TURN * turn), float(np.exp(SIZE * size)), (float(SHIFT * x), float(SHIFT * y)), (blue, green, red),
                   float(OFFSET * offset), bool(gray < GRAY), float(1 + (SHRINK - 1) * shrink) if blur < BLUR else 1.0)

    def motion(self, size: int) -> np.ndarray:
        """2 x 3 float64: maps a pixel of the size x size crop to its place after turn, size and shift, about the center."""
        angle, center = np.deg2rad(self.turn), (size - 1) / 2
        linear = self.factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array([center, center])
        return np.column_stack([linear, middle - linear @ middle + np.array(self.shift) * size])

    def develop(self, crop: np.ndarray) -> np.ndarray:
        """`crop`, size x size x 3 uint8, BGR, in another light, gray or blurred; a new array of the same form."""
        import cv2

        size = crop.shape[0]
        if self.shrink > 1:
            side = max(8, round(size / self.shrink))
            small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
            crop = cv2.resize(small, (size, size), interpolation=cv2.INTER_LINEAR)
        pixels = crop.astype(np.float32)
        if self.gray:
            pixels = np.repeat(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[:, :, None], 3, axis=2).astype(np.float32)
        gains = np.float32(np.mean(self.gains)) if self.gray else np.array(self.gains, np.float32)
        return np.clip(np.rint((pixels - 128) * gains + 128 + np.float32(self.offset)), 0, 255).astype(np.uint8)
