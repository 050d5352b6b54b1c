"""What makes a face's answers less reliable: how the face looks, and where the released nets were measured to err more.

    from gender_smile.inference.doubts import doubts, look
    doubts(look(face, photo))          # ("blurred",), or () for a face like those that the nets were measured on

The limits are of the released nets on photographs that they were not trained on: docs/model-card.md, "Less reliable".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Tuple

if TYPE_CHECKING:
    import numpy as np

    from detector import Face

SIDE = 64  # pixels of the gray face whose sharpness is measured
SMALL, BLURRED, TURNED, CUT = 20.0, 0.03, 0.5, 0.2  # limits of Look's height, sharpness, turn and below


class Look(NamedTuple):
    """Measures of a detected face.

    height: of its box, in pixels of the photo. turn: of the nose from the middle between the eyes, in distances of the
    eyes; below 0 to the viewer's left. tilt: of the line through the eyes, in degrees. light: mean of its pixels, 0..255.
    sharpness: what of its gray variation is from pixel to pixel, at SIDE pixels (variance of the Laplacian by variance).
    below: share of its box's height that lies below the photo's lower edge, 0..1: from the mouth on where it is CUT and more.
    """

    height: float
    turn: float
    tilt: float
    light: float
    sharpness: float
    below: float


def look(face: "Face", photo: "np.ndarray") -> Look:
    """Measures of a face; photo: height x width x 3 uint8, BGR."""
    import cv2
    import numpy as np

    left, right, nose = (complex(*map(float, point)) for point in face.landmarks[:3])
    eyes = right - left
    x, y, width, height = map(float, face.box)
    x1, x2, y1, y2 = max(0.0, x), min(photo.shape[1], x + width), max(0.0, y), min(photo.shape[0], y + height)
    inside = photo[round(y1) : max(round(y1) + 1, round(y2)), round(x1) : max(round(x1) + 1, round(x2))]
    inside = inside if inside.size else photo[:1, :1]
    gray = cv2.resize(cv2.cvtColor(inside, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return Look(
        height=height,
        turn=((nose - (left + right) / 2) / eyes).real if eyes else 0.0,
        tilt=float(np.degrees(np.angle(eyes))) if eyes else 0.0,
        light=float(inside.mean()),
        sharpness=float(cv2.Laplacian(gray, cv2.CV_32F).var() / (gray.var() + 1)),
        below=min(max(0.0, (y + height - photo.shape[0]) / height), 1.0) if height > 0 else 0.0,
    )


def doubts(seen: Look) -> Tuple[str, ...]:
    """Why the answers of a face that looks like this are less reliable; () where nothing speaks against them."""
    found = {
        f"small, {seen.height:.0f} pixels high": seen.height < SMALL,
        "blurred": seen.sharpness < BLURRED,
        "turned far": abs(seen.turn) >= TURNED,
        "cut off at the mouth": seen.below >= CUT,
    }
    return tuple(text for text, holds in found.items() if holds)
