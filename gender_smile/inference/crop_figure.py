"""Figure 3 for any photo: the detected face with its five landmarks (a), and every crop side by side, (b) to (f)."""

from __future__ import annotations

import random
import string
import textwrap
from typing import TYPE_CHECKING, Any, Callable, List, Optional, Sequence, Tuple

import recipe
from gender_smile.inference.photos import expand, read_photo
from lmdb_builders.errors import ImageError

if TYPE_CHECKING:
    import numpy as np

    from detector import Detector, Face

CAPTION_CHARACTERS = 28  # of a caption's line at the size of the panels
AROUND = 2.6  # side of panel (a) in sides of the face's box: as much as the widest crop shows, and a little more


def find_face(path: str, detector: "Optional[Detector]" = None) -> "Tuple[np.ndarray, Face]":
    """(photo, face nearest the center): H x W x 3 uint8 BGR, and the face in its pixels. Raises ImageError without one."""
    from detector import Detector, nearest_to_center

    photo = read_photo(path)
    face = nearest_to_center((detector or Detector()).detect(photo), photo.shape)
    if face is None:
        raise ImageError("no face found")
    return photo, face


def sample_faces(
    folder: str, count: int, seed: int, skipped: Callable[[str, ImageError], None]
) -> "List[Tuple[np.ndarray, Face]]":
    """find_face() of `count` photos drawn at random from a folder; of one without a face, skipped(path, error) is called.

    Raises ImageError where no photo shows a face.
    """
    from detector import Detector

    paths = [source.path for source in expand([folder]) if not source.is_video and source.error is None]
    random.Random(seed).shuffle(paths)
    detector, faces = Detector(), []
    for path in paths:
        if len(faces) == count:
            break
        try:
            faces.append(find_face(path, detector))
        except ImageError as error:
            skipped(path, error)
    if not faces:
        raise ImageError("no photo with a face")
    return faces


def figure(faces: "Sequence[Tuple[np.ndarray, Face]]", size: int) -> Any:
    """A matplotlib figure, a row for each face: the photo around it, and each crop of size x size pixels, pixel for pixel.

    faces: (photo, face) pairs; photo: height x width x 3 uint8, BGR; face: detector.Face in pixels of the photo.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from lmdb_builders.crops import crop_face

    crops = list(recipe.CROPS.values())
    captions = [("(a) photo", f"face (score {faces[0][1].score:.3f}) and five landmarks" if len(faces) == 1
                 else "face and five landmarks")]
    captions += [(f"({letter(number)}) {crop.name}", crop.describes.split(":")[0]) for number, crop in enumerate(crops, 1)]
    gap, text, dpi = size // 16, size * 3 // 8, 100
    width, height = len(captions) * (size + gap) + gap, len(faces) * (size + gap) + gap + text
    picture = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(picture)
    for row, (photo, face) in enumerate(faces):
        bottom = gap + text + (len(faces) - 1 - row) * (size + gap)
        panels = [photo, *(crop_face(photo, face.landmarks, crop, size) for crop in crops)]
        for number, pixels in enumerate(panels):
            left = gap + number * (size + gap)
            axes = picture.add_axes((left / width, bottom / height, size / width, size / height))
            axes.imshow(pixels[:, :, ::-1], interpolation="antialiased")
            axes.set_axis_off()
            if number == 0:
                mark(axes, face, photo.shape, size)
    for number, (title, caption) in enumerate(captions):
        left = gap + number * (size + gap)
        picture.text(
            (left + size / 2) / width, text / height, title + "\n" + textwrap.fill(caption, CAPTION_CHARACTERS),
            ha="center", va="top", fontsize=size / 22, linespacing=1.4,
        )
    return picture


def letter(number: int) -> str:
    """a, b, ... z, aa, bb, ..., counted from 0."""
    return string.ascii_lowercase[number % 26] * (number // 26 + 1)


def mark(axes: Any, face: "Face", shape: Tuple[int, ...], size: int) -> None:
    """Draw the face's box and landmarks over its photo, and show the part around the face."""
    from matplotlib.patches import Rectangle

    x, y, box_width, box_height = face.box
    line = size / 224
    axes.add_patch(Rectangle((x, y), box_width, box_height, fill=False, color="#ffd34d", linewidth=1.5 * line))
    axes.scatter(*face.landmarks.T, s=16 * line**2, color="#ffd34d", edgecolors="black", linewidths=0.5 * line)
    side = AROUND * max(box_width, box_height)
    left, top = (_inside(start + length / 2 - side / 2, side, room)
                 for start, length, room in ((x, box_width, shape[1]), (y, box_height, shape[0])))
    axes.set(xlim=(left - 0.5, left + side - 0.5), ylim=(top + side - 0.5, top - 0.5))


def _inside(start: float, side: float, room: int) -> float:
    """Where a window of `side` pixels begins, moved into the photo where it fits, else centered on it."""
    return min(max(start, 0.0), room - side) if side <= room else (room - side) / 2
