"""A picture of a prediction: the photo with box and landmarks, and below it the answers with their probabilities."""

from __future__ import annotations

import os
from typing import Tuple

SUFFIXES = (".png", ".jpg", ".jpeg")
LONG_SIDE = (720, 1600)  # pixels of the photo's longer side in the picture: small photos grow, large ones shrink
NARROWEST = 640  # pixels; a narrow photo stands in the middle of a picture of this width
DPI = 100

BACKGROUND, TRACK, TEXT, FAINT = "#15181d", "#2c323b", "#f5f6f8", "#9aa3b0"
FACE, GENDER, SMILE = "#ffd34d", "#59b4ff", "#5fd38d"


def draw(image, prediction, path: str) -> None:
    """Write the picture of `prediction` (tools.pipeline.Prediction without an error) to `path` (.png or .jpg).

    image: the photo that was predicted, height x width x 3 uint8, BGR. Raises OSError where `path` cannot be written.
    """
    figure = render(image, prediction)
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    figure.savefig(path, dpi=DPI, facecolor=BACKGROUND)


def render(image, prediction):
    """The picture as a matplotlib figure; its size depends on the photo's, and all parts scale with it."""
    import cv2
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height, scale = photo_size(image.shape)
    photo = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    total = max(width, NARROWEST)
    unit = min(total / 900, max(0.8, height / 400))  # a panorama's panel must not outgrow the photo
    panel = round(168 * unit)
    figure = Figure(figsize=(total / DPI, (height + panel) / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    left = (total - width) / 2
    axes.imshow(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), extent=(left, left + width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, total), ylim=(height + panel, 0))
    axes.set_axis_off()
    _draw_face(axes, prediction, scale, left, unit)
    gutter = 36 * unit
    column = (total - 3 * gutter) / 2
    _draw_answer(axes, "GENDER", prediction.gender, "GNet", (gutter, height, column), GENDER, unit)
    snet1, snet2 = (_percent(prediction.ones[net]) for net in ("snet1", "snet2"))
    details = f"smiling: SNet1 {snet1}, SNet2 {snet2}"
    _draw_answer(axes, "SMILE", prediction.smile, details, (2 * gutter + column, height, column), SMILE, unit)
    return figure


def photo_size(shape: Tuple[int, ...]) -> Tuple[int, int, float]:
    """Width and height of the photo in the picture, and picture pixels a photo pixel; `shape` is height first."""
    long_side = max(shape[:2])
    scale = min(max(long_side, LONG_SIDE[0]), LONG_SIDE[1]) / long_side
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)), scale


def _percent(probability: float) -> str:
    """As a percentage that never claims certainty: 99.97 % stays below 100."""
    return f"{min(probability * 100, 99.9):.1f} %"


def _draw_face(axes, prediction, scale: float, left: float, unit: float) -> None:
    from matplotlib.patches import Circle, Rectangle

    x, y, width, height = (float(value) * scale for value in prediction.face.box)
    x += left
    line = _points(max(2.0, 2.6 * unit))
    for color, extra in (("black", 1.9), (FACE, 1.0)):  # the dark line below keeps the box visible on any photo
        alpha = 0.45 if color == "black" else 1.0
        style = {"edgecolor": color, "linewidth": line * extra, "alpha": alpha}
        axes.add_patch(Rectangle((x, y), width, height, fill=False, **style))
    radius = min(max(0.022 * width, 1.8 * unit), 6 * unit)
    for landmark_x, landmark_y in prediction.face.landmarks:
        center = (float(landmark_x) * scale + left, float(landmark_y) * scale)
        axes.add_patch(Circle(center, radius, facecolor=FACE, edgecolor="black", linewidth=_points(0.35 * radius)))
    words = f"{prediction.gender.label}, {prediction.smile.label}"
    _draw_tag(axes, words, (x, y, width, height), left, unit)


def _draw_tag(axes, words: str, box: Tuple[float, float, float, float], left: float, unit: float) -> None:
    """Words above the box, below it where the photo's top is near, or nowhere: never over the face."""
    x, y, width, height = box
    right, bottom = axes.images[0].get_extent()[1:3]
    room = 32 * unit
    if y > room:
        place, align = y - 5 * unit, "bottom"
    elif y + height < bottom - room:
        place, align = y + height + 6 * unit, "top"
    else:
        return
    in_left_half = x + width / 2 < (left + right) / 2  # grow toward the photo's middle, where there is room
    axes.text(
        max(x, left) + 4 * unit if in_left_half else min(x + width, right) - 4 * unit, place, words,
        fontsize=_points(17 * unit), color="black", weight="bold", va=align, ha="left" if in_left_half else "right",
        bbox={"facecolor": FACE, "edgecolor": "none", "pad": _points(3 * unit)},
    )


def _draw_answer(axes, title: str, answer, details: str, place: Tuple[float, float, float], color: str, unit: float):
    """One column of the panel; `place` is its left edge, its top and its width in pixels."""
    from matplotlib.patches import Rectangle

    left, top, width = place
    axes.text(left, top + 34 * unit, title, fontsize=_points(15 * unit), color=FAINT, va="baseline", weight="bold")
    axes.text(left, top + 76 * unit, answer.label, fontsize=_points(33 * unit), color=TEXT, va="baseline")
    axes.text(
        left + width, top + 76 * unit, _percent(answer.probability), fontsize=_points(33 * unit), color=color,
        va="baseline", ha="right", weight="bold",
    )
    axes.add_patch(Rectangle((left, top + 94 * unit), width, 16 * unit, facecolor=TRACK))
    axes.add_patch(Rectangle((left, top + 94 * unit), width * answer.probability, 16 * unit, facecolor=color))
    axes.text(left, top + 140 * unit, details, fontsize=_points(17 * unit), color=FAINT, va="baseline")


def _points(pixels: float) -> float:
    return pixels * 72 / DPI
