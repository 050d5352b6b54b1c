"""A picture of predictions: the photo with boxes and landmarks, and below it the answers with their probabilities."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

import recipe
from common import files
from gender_smile.inference.photos import MARK
from gender_smile.inference.pipeline import percent

if TYPE_CHECKING:
    import numpy as np

    from gender_smile.inference.pipeline import Answer, Prediction

LONG_SIDE = (720, 1600)  # pixels of the photo's longer side in the picture: small photos grow, large ones shrink
NARROWEST = 640  # pixels; a narrow photo stands in the middle of a picture of this width
MOST_ROWS = 30  # faces with their answers below the photo
TILE, SMALL_TILE = 224, 120  # pixels of a crop's side in the picture, at most; the second where several faces have some
DPI = 100
CAPTION, CAPTION_LINE, LETTER = 17, 24, 0.58  # of small text, in units: its size, a line's height; and a letter's width in sizes
ANSWERS_SHARE = 0.37  # of the picture's width, where crops stand beside the answers of several faces

BACKGROUND, TRACK, TEXT, FAINT = "#15181d", "#2c323b", "#f5f6f8", "#9aa3b0"
FACE, GENDER, SMILE = "#ffd34d", "#59b4ff", "#5fd38d"


def draw(image: "np.ndarray", predictions: Sequence["Prediction"], path: str) -> None:
    """Write the picture of a photo's predictions (without an error) to `path` (.png or .jpg).

    image: the photo that was predicted, height x width x 3 uint8, BGR. Crops and heat maps are drawn where the
    predictions have them. What was at `path` stays until the picture is whole. Raises OSError.
    """
    figure = render(image, predictions)
    form = os.path.splitext(path)[1][1:].lower()
    mark: Any = {"metadata": {"Comment": MARK}} if form == "png" else {"pil_kwargs": {"comment": MARK.encode()}}
    with files.whole_file(path) as part:
        figure.savefig(part, dpi=DPI, facecolor=BACKGROUND, format=form, **mark)


def render(image: "np.ndarray", predictions: Sequence["Prediction"]) -> Any:
    """The picture as a matplotlib figure; its size depends on the photo's, and all parts scale with it."""
    import cv2
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width, height, scale = photo_size(image.shape)
    photo = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    total = max(width, NARROWEST)
    unit = min(total / 900, max(0.8, height / 400))  # a panorama's panel must not outgrow the photo
    shown = list(predictions[:MOST_ROWS])
    source = [*_doubts(shown, total, unit), *(_source(predictions[0], total, unit) if predictions else [])]
    panels = [_panel_height(prediction, len(shown), total, unit) for prediction in shown]
    bottom = height + sum(panels) + round((CAPTION_LINE * len(source) + 22) * unit if source else 0)
    figure = Figure(figsize=(total / DPI, bottom / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    left = (total - width) / 2
    axes.imshow(cv2.cvtColor(photo, cv2.COLOR_BGR2RGB), extent=(left, left + width, height, 0), interpolation="nearest")
    axes.set(xlim=(0, total), ylim=(bottom, 0))
    axes.set_axis_off()
    for prediction in predictions:
        _draw_face(axes, prediction, len(predictions), (left, width, height), scale, unit)
    top = float(height)
    for prediction, panel in zip(shown, panels):
        _draw_panel(axes, prediction, len(shown), top, total, unit)
        top += panel
    for line, text in enumerate(source):
        axes.text(36 * unit, top + (CAPTION + 6 + CAPTION_LINE * line) * unit, text, fontsize=_points(CAPTION * unit),
                  color=FAINT, va="baseline")
    return figure


def photo_size(shape: Tuple[int, ...]) -> Tuple[int, int, float]:
    """Width and height of the photo in the picture, and picture pixels a photo pixel; `shape` is height first."""
    long_side = max(shape[:2])
    scale = min(max(long_side, LONG_SIDE[0]), LONG_SIDE[1]) / long_side
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale)), scale


# ------------------------------------------------------------------------------------------ on the photo
def _draw_face(
    axes: Any, prediction: "Prediction", faces: int, photo: Tuple[float, int, int], scale: float, unit: float
) -> None:
    """Box, landmarks and tag of one of `faces` faces; `photo` is the photo's left edge, width and height."""
    from matplotlib.patches import Circle, Rectangle

    assert prediction.face is not None and prediction.gender is not None and prediction.smile is not None
    x, y, width, height = (float(value) * scale for value in prediction.face.box)
    x += photo[0]
    line = _points(max(2.0, min(2.6 * unit, 0.03 * width)))
    for color, extra in (("black", 1.9), (FACE, 1.0)):  # the dark line below keeps the box visible on any photo
        alpha = 0.45 if color == "black" else 1.0
        axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=color, linewidth=line * extra, alpha=alpha))
    radius = min(max(0.022 * width, 1.8 * unit), 6 * unit)
    for landmark_x, landmark_y in prediction.face.landmarks:
        center = (float(landmark_x) * scale + photo[0], float(landmark_y) * scale)
        axes.add_patch(Circle(center, radius, facecolor=FACE, edgecolor="black", linewidth=_points(0.35 * radius)))
    answers = (prediction.gender, prediction.smile)
    words = ", ".join(answer.label + "?" * answer.uncertain for answer in answers) if faces == 1 else str(prediction.number)
    _draw_tag(axes, words, (x, y, width, height), photo, unit)


def _draw_tag(
    axes: Any, words: str, box: Tuple[float, float, float, float], photo: Tuple[float, int, int], unit: float
) -> None:
    """Words above the box, below it where the photo's top is near, or nowhere: never over the face."""
    x, y, width, height = box
    left, right, bottom = photo[0], photo[0] + photo[1], photo[2]
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


# ------------------------------------------------------------------------------------------ below it
def _panel_height(prediction: "Prediction", faces: int, total: int, unit: float) -> int:
    """Pixels that a face's answers take, and what the nets saw where that is shown."""
    if not prediction.crops:
        return round((168 if faces == 1 else 92) * unit)
    _, width = _crops_place(faces, total, unit)
    crops = _tile(prediction, faces, width, unit) + _captions_height(prediction, width, unit)
    return round(crops + 168 * unit if faces == 1 else max(160 * unit, crops + 24 * unit))


def _draw_panel(axes: Any, prediction: "Prediction", faces: int, top: float, total: int, unit: float) -> None:
    """The answers of a face: one beside the other with the crops below, or of one of several, with the crops beside them."""
    assert prediction.gender is not None and prediction.smile is not None
    gutter = 36 * unit
    crops_left, crops_width = _crops_place(faces, total, unit)
    stacked = faces > 1 and bool(prediction.crops)
    column = crops_left - 2 * gutter if stacked else (total - 3 * gutter) / 2
    gender = " and ".join(recipe.NETS[net].title for net in recipe.ENSEMBLES["gender"])
    smile = ", ".join(f"{recipe.NETS[net].title} {percent(prediction.p_positive[net])}" for net in recipe.ENSEMBLES["smile"])
    tasks = (("GENDER", prediction.gender, gender, GENDER), ("SMILE", prediction.smile, f"smiling: {smile}", SMILE))
    for index, (title, answer, details, color) in enumerate(tasks):
        left = gutter if stacked else gutter + index * (gutter + column)
        if faces == 1:
            _draw_answer(axes, title + ", UNCERTAIN" * answer.uncertain, answer, details, (left, top, column), color, unit)
        else:
            number = f"{prediction.number}   " if index == 0 else ""
            place = (left, top + 62 * unit * index * stacked, column)
            _draw_short_answer(axes, number, answer, place, color, unit, indented=stacked)
    if prediction.crops:
        crops_top = top + (168 * unit if faces == 1 else 16 * unit)
        _draw_crops(axes, prediction, _tile(prediction, faces, crops_width, unit), (crops_left, crops_top, crops_width), unit)


def _crops_place(faces: int, total: int, unit: float) -> Tuple[float, float]:
    """Left edge and width of what the nets saw."""
    return (0.0, float(total)) if faces == 1 else (ANSWERS_SHARE * total, (1 - ANSWERS_SHARE) * total - 12 * unit)


def _draw_answer(
    axes: Any, title: str, answer: "Answer", details: str, place: Tuple[float, float, float], color: str, unit: float
) -> None:
    """One column of the panel; `place` is its left edge, its top and its width in pixels."""
    left, top, width = place
    axes.text(left, top + 34 * unit, title, fontsize=_points(CAPTION * unit), color=FAINT, va="baseline", weight="bold")
    axes.text(left, top + 76 * unit, answer.label, fontsize=_points(33 * unit), color=TEXT, va="baseline")
    axes.text(
        left + width, top + 76 * unit, percent(answer.probability), fontsize=_points(33 * unit), color=color,
        va="baseline", ha="right", weight="bold",
    )
    _draw_bar(axes, answer.probability, (left, top + 94 * unit, width, 16 * unit), color)
    axes.text(left, top + 140 * unit, details, fontsize=_points(CAPTION * unit), color=FAINT, va="baseline")


def _draw_short_answer(
    axes: Any, number: str, answer: "Answer", place: Tuple[float, float, float], color: str, unit: float,
    indented: bool = False,
) -> None:
    """The same in two thirds of the height, for one face of several; `indented`: as the one with the number above it."""
    left, top, width = place
    size = _points(22 * unit)
    if number:
        axes.text(left, top + 46 * unit, number.strip(), fontsize=size, color=FACE, va="baseline", weight="bold")
    indent = 40 * unit if number or indented else 0
    words = answer.label + ("?" if indented else ", uncertain") * answer.uncertain
    axes.text(left + indent, top + 46 * unit, words, fontsize=size, color=TEXT, va="baseline")
    axes.text(left + width, top + 46 * unit, percent(answer.probability), fontsize=size, color=color, va="baseline",
              ha="right", weight="bold")
    _draw_bar(axes, answer.probability, (left + indent, top + 60 * unit, width - indent, 9 * unit), color)


def _draw_bar(axes: Any, probability: float, place: Tuple[float, float, float, float], color: str) -> None:
    from matplotlib.patches import Rectangle

    left, top, width, height = place
    axes.add_patch(Rectangle((left, top), width, height, facecolor=TRACK))
    axes.add_patch(Rectangle((left, top), width * probability, height, facecolor=color))


def _draw_crops(
    axes: Any, prediction: "Prediction", side: float, place: Tuple[float, float, float], unit: float
) -> None:
    """What each net saw, and beside it, where it is known, where the net looked for its answer; `place`: left, top, width."""
    gap, (left_edge, top, width) = 12 * unit, place
    for index, (net, tiles) in enumerate(_tiles(prediction).items()):
        wide = len(tiles) * side + (len(tiles) - 1) * gap
        middle = left_edge + width * (2 * index + 1) / (2 * len(prediction.crops))
        for number, tile in enumerate(tiles):
            left = middle - wide / 2 + number * (side + gap)
            axes.imshow(tile[:, :, ::-1], extent=(left, left + side, top + side, top), interpolation="bilinear")
        for line, text in enumerate(_caption(prediction, net, width, unit)):
            axes.text(middle, top + side + (26 + CAPTION_LINE * line) * unit, text, fontsize=_points(CAPTION * unit),
                      color=TEXT if line == 0 else FAINT, va="baseline", ha="center")


def _caption(prediction: "Prediction", net: str, width: float, unit: float) -> List[str]:
    """Lines below a net's crop, in the page's words: its name, and what it sees or what its answer is."""
    answer = getattr(prediction, recipe.NETS[net].task)
    seen = f"for \u201c{answer.label}\u201d" if prediction.heat else recipe.CROPS[recipe.NETS[net].crop].describes.split(":")[0]
    return [recipe.NETS[net].title, *_wrapped(seen, width / len(prediction.crops) - 8 * unit, CAPTION * unit)]


def _captions_height(prediction: "Prediction", width: float, unit: float) -> float:
    return (20 + CAPTION_LINE * max(len(_caption(prediction, net, width, unit)) for net in prediction.crops)) * unit


def _wrapped(text: str, width: float, size: float) -> List[str]:
    """The text in lines of at most `width` pixels, about, in letters of `size` pixels."""
    return textwrap.wrap(text, max(8, int(width / (LETTER * size))), break_on_hyphens=False)


def _doubts(predictions: Sequence["Prediction"], total: int, unit: float) -> List[str]:
    """Lines that tell which faces' answers are less reliable, and what a question mark is."""
    found = [", ".join(prediction.doubts) + (f" (face {prediction.number})" if len(predictions) > 1 else "")
             for prediction in predictions if prediction.doubts]
    text = f"Less reliable: {'; '.join(found)}. " if found else ""
    if len(predictions) > 1 and predictions[0].crops and any(answer.uncertain for prediction in predictions
                                                              for answer in (prediction.gender, prediction.smile) if answer):
        text += "?: uncertain."
    return _wrapped(text, total - 72 * unit, CAPTION * unit)


def _source(prediction: "Prediction", total: int, unit: float) -> List[str]:
    """Lines that tell what the answers are and how good: pictures are passed on without their page."""
    model = prediction.model
    if model is None:
        return []
    text = f"Perceived gender and smile, by nets {model.training} (profile {model.name}); "
    text += model.accuracy_in_words() or "their accuracy was not measured"
    return _wrapped(text + ".", total - 72 * unit, CAPTION * unit)


def _tiles(prediction: "Prediction") -> "dict[str, List[np.ndarray]]":
    """net -> its crop and, where there is a heat map, the crop under it."""
    tiles = {net: [crop] for net, crop in prediction.crops.items()}
    if prediction.heat:
        from gender_smile.inference.heatmaps import overlay

        for net, heat in prediction.heat.items():
            tiles[net].append(overlay(prediction.crops[net], heat))
    return tiles


def _tile(prediction: "Prediction", faces: int, width: float, unit: float) -> float:
    """Side of a crop in the picture, in pixels, where all have `width`."""
    tiles = len(prediction.crops) * (2 if prediction.heat else 1)
    return min((TILE if faces == 1 else SMALL_TILE) * max(1.0, unit), (width - (tiles + 1) * 14 * unit) / tiles)


def _points(pixels: float) -> float:
    return pixels * 72 / DPI
