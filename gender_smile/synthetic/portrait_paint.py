"""The brush for drawn faces: soft shapes in face units on a canvas.

Not a command of its own; `gender_smile/synthetic/portrait_parts.py` uses it. Face units are those of recipe.Crop: origin
between eyes and mouth, y down, 1 = middle of the eyes to middle of the mouth.
"""

from __future__ import annotations

from typing import Sequence, Tuple

import cv2
import numpy as np

CANVAS = 384  # pixels, square; the origin of the face frame is its center
UNIT = 48  # pixels of one face unit on the canvas
SHIFT = 4  # binary digits after the point in OpenCV's drawing coordinates
DEPTH = 0.95  # how far the face's middle lies before its outline, in face units
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

Points = Sequence[Tuple[float, float]]


def curve(points: Points, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Smooth line (Catmull-Rom) through `points`; n x 2 float64."""
    points = np.asarray(points, np.float64)
    ends = (points[-1:], points[:2]) if closed else (2 * points[:1] - points[1:2], 2 * points[-1:] - points[-2:-1])
    p = np.concatenate([ends[0], points, ends[1]])
    t = np.arange(steps)[None, :, None] / steps
    a, b, c, d = (p[i:len(p) - 3 + i, None] for i in range(4))
    line = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t ** 2 + (3 * b - a - 3 * c + d) * t ** 3)
    line = line.reshape(-1, 2)
    return line if closed else np.concatenate([line, points[-1:]])


def mirrored(points: Points) -> list:
    """Closed outline from its right half, top to bottom: down the right side, up the left."""
    return list(points) + [(-x, y) for x, y in reversed(points) if abs(x) > 1e-6]


def ellipse(center: Tuple[float, float], radii: Tuple[float, float], tilt: float = 0.0) -> np.ndarray:
    """Outline of an ellipse, 32 x 2; `tilt` in radians."""
    angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
    x, y = radii[0] * np.cos(angle), radii[1] * np.sin(angle)
    turned = np.stack([x * np.cos(tilt) - y * np.sin(tilt), x * np.sin(tilt) + y * np.cos(tilt)], axis=1)
    return turned + center


def mix(color, other, share: float) -> tuple:
    """`color` with `share` (0..1) of `other`."""
    return tuple((1 - share) * a + share * b for a, b in zip(color, other))


class Painter:
    """A canvas of color (B, G, R, 0..255) and coverage (0..1), painted with soft-edged shapes in face units.

    `yaw` (radians) turns what is painted with `turned=True` as if it lay on a rounded head.
    """

    def __init__(self, yaw: float = 0.0) -> None:
        self.color = np.zeros((CANVAS, CANVAS, 3), np.float32)
        self.alpha = np.zeros((CANVAS, CANVAS), np.float32)
        self.yaw = yaw

    def turn(self, points: Points, above: float = 0.0) -> np.ndarray:
        """`points` of a frontal face where they are seen on a turned one; `above` the skin, in face units."""
        points = np.array(points, np.float64)
        x, y = points[:, 0], points[:, 1]
        depth = DEPTH * np.sqrt(np.clip(1 - (x / 1.05) ** 2 - (y / 1.9) ** 2, 0, 1)) + above
        points[:, 0] = x * np.cos(self.yaw) + depth * np.sin(self.yaw)
        return points

    def fill(self, points: Points, color, soft: float = 0.02, opacity: float = 1.0, turned: bool = True,
             inside: bool = False) -> None:
        """Paint an area; `soft` is the blur of its edge in face units, `inside` keeps to what is already painted."""
        def draw(mask, pixels):
            cv2.fillPoly(mask, [pixels], 255, cv2.LINE_AA, SHIFT)
        self._blend(self.turn(points) if turned else np.asarray(points), draw, 0.0, color, soft, opacity, inside)

    def line(self, points: Points, color, width: float, soft: float = 0.01, opacity: float = 1.0, turned: bool = True,
             inside: bool = False) -> None:
        """Paint a line of a width in face units."""
        def draw(mask, pixels):
            cv2.polylines(mask, [pixels], False, 255, max(1, round(width * UNIT)), cv2.LINE_AA, SHIFT)
        opacity *= min(1.0, width * UNIT)  # OpenCV draws no line narrower than a pixel: a fainter one looks like it
        self._blend(self.turn(points) if turned else np.asarray(points), draw, width, color, soft, opacity, inside)

    def lines(self, many: Sequence[Points], color, width: float, opacity: float, inside: bool = False) -> None:
        """Paint many lines of one color at once, hair for instance."""
        def draw(mask, _):
            shift = CANVAS / 2 - origin
            for points in many:
                pixels = np.round((np.asarray(points) * UNIT + shift) * (1 << SHIFT)).astype(np.int32)
                cv2.polylines(mask, [pixels], False, 255, max(1, round(width * UNIT)), cv2.LINE_AA, SHIFT)
        everything = np.concatenate([np.asarray(points) for points in many])
        origin = self._region(everything, width, 0.0)[0]
        self._blend(everything, draw, width, color, 0.0, opacity, inside)

    def _region(self, points: np.ndarray, width: float, soft: float) -> Tuple[np.ndarray, np.ndarray]:
        margin = (3 * soft + width) * UNIT + 2
        low = np.floor(points.min(axis=0) * UNIT + CANVAS / 2 - margin)
        high = np.ceil(points.max(axis=0) * UNIT + CANVAS / 2 + margin)
        return np.clip(low, 0, CANVAS).astype(int), np.clip(high, 0, CANVAS).astype(int)

    def _blend(self, points, draw, width, color, soft, opacity, inside) -> None:
        low, high = self._region(points, width, soft)
        if (high <= low).any():
            return
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        draw(mask, np.round((points * UNIT + CANVAS / 2 - low) * (1 << SHIFT)).astype(np.int32))
        share = mask.astype(np.float32) * np.float32(opacity / 255)
        if soft * UNIT > 0.3:
            share = cv2.GaussianBlur(share, (0, 0), soft * UNIT)
        area = (slice(low[1], high[1]), slice(low[0], high[0]))
        alpha, pixels = self.alpha[area], self.color[area]
        if inside:
            share = share * alpha
            after = alpha
        else:
            after = share + alpha * (1 - share)
        # Where nothing was painted before, the color is taken whole, so that soft edges do not darken.
        part = (share / np.maximum(after, 1e-6))[..., None]
        pixels += (np.asarray(color, np.float32) - pixels) * np.minimum(part, 1)
        self.alpha[area] = after

    def finish(self, light: float, blur: float) -> np.ndarray:
        """The picture, CANVAS x CANVAS x 4 float32: color times coverage, coverage.

        `light` (-1..1) brightens the right side and darkens the left; `blur` in canvas pixels, before it is shrunk.
        """
        slope = 1 + light * np.clip((np.arange(CANVAS) - CANVAS / 2) / (1.2 * UNIT), -1, 1)
        layer = np.empty((CANVAS, CANVAS, 4), np.float32)
        layer[..., :3] = self.color * (slope.astype(np.float32) * self.alpha)[..., None]
        layer[..., 3] = self.alpha
        return cv2.GaussianBlur(layer, (0, 0), blur) if blur > 0.2 else layer
