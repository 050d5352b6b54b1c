"""Predictions as text, JSON lines and CSV; and the paths of their annotated pictures."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from typing import Callable, Dict, List, Optional, Sequence, TextIO, Tuple

import recipe
from common.files import safe_cell
from gender_smile.inference.photos import PICTURE_SUFFIXES, STANDARD_INPUT, Photo, Source, is_own_picture
from gender_smile.inference.model import Model
from gender_smile.inference.pipeline import COLUMNS, Answer, Prediction, percent

BAR = 20  # characters of a bar where a terminal shows the text
BLOCKS = " ▏▎▍▌▋▊▉█"

Say = Callable[[str, TextIO], None]  # writes a line, past a progress bar where there is one


def plain_say(line: str, stream: TextIO) -> None:
    print(line, file=stream, flush=True)


class JsonLines:
    """One JSON object per line: of a face, or of a photo without an answer."""

    quiet = True  # pictures are not announced

    def __init__(self, say: Say = plain_say):
        self.say = say

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            self.say(json.dumps(prediction.as_dict()), sys.stdout)

    def close(self) -> None:
        """Every object has told which nets answered."""


class CsvRows:
    """A header of COLUMNS and a row per face; a photo without an answer has its reason in the last column.

    safe: cells that a spreadsheet would read as formulas are escaped (common.files.safe_cell).
    """

    quiet = True

    def __init__(self, say: Say = plain_say, safe: bool = False):
        self.say, self.safe = say, safe
        self._row(COLUMNS)

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            self._row([printable(value) if isinstance(value, str) else value for value in prediction.as_row()])

    def close(self) -> None:
        """Every row has told which nets answered."""

    def _row(self, values: Sequence) -> None:
        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(map(safe_cell, values) if self.safe else values)
        self.say(line.getvalue(), sys.stdout)


class Text:
    """A few lines per face on stdout, errors on stderr; with bars where stdout is a terminal."""

    quiet = False

    def __init__(self, say: Say = plain_say):
        self.say = say
        self.model: Optional[Model] = None  # the nets that have answered
        self.bars = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")

    def write(self, predictions: Sequence[Prediction]) -> None:
        lines: List[str] = []
        for prediction in predictions:
            if prediction.error is not None:
                self.say(f"predict.py: {title(prediction)}: {prediction.error}", sys.stderr)
            else:
                self.model = prediction.model
                lines += ([] if lines else [title(prediction)]) + describe(prediction, len(predictions) > 1, self.bars)
        if lines:
            self.say("\n".join(lines), sys.stdout)

    def close(self) -> None:
        """Tell which nets answered, if any did."""
        if self.model:
            self.say(self.model.describe(), sys.stdout)


def title(prediction: Prediction) -> str:
    """The photo's name; of a video or a camera also the time and the frame."""
    if prediction.frame is None:
        return printable(prediction.image)
    minutes, seconds = divmod(prediction.seconds or 0.0, 60)
    return f"{printable(prediction.image)}  {int(minutes)}:{seconds:04.1f} (frame {prediction.frame})"


def describe(prediction: Prediction, all_faces: bool = False, bars: bool = False) -> List[str]:
    """A prediction without error as lines of text."""
    assert prediction.face is not None and prediction.gender is not None and prediction.smile is not None
    x, y, width, height = prediction.face.box
    where = f"{width:.0f} x {height:.0f} pixels at ({x:.0f}, {y:.0f}), score {prediction.face.score:.3f}"
    if all_faces:
        where += f"   ({prediction.number} of {prediction.faces})"
    elif prediction.faces > 1:
        where += f", nearest the center of {prediction.faces} (--all-faces: every one)"
    nets = ", ".join(f"{recipe.NETS[net].title} {percent(prediction.p_positive[net])}" for net in recipe.ENSEMBLES["smile"])
    return [
        f"  face    {where}",
        f"  gender  {_answer(prediction.gender, bars)}",
        f"  smile   {_answer(prediction.smile, bars)}   (smiling: {nets})",
        *([f"  note    less reliable: {', '.join(prediction.doubts)}"] if prediction.doubts else []),
    ]


def _answer(answer: Answer, bars: bool) -> str:
    label, share = answer.label, percent(answer.probability)
    text = f"{label}, uncertain ({share})" if answer.uncertain else f"{label:<12} {share:>7}"
    return text + (f"  {bar(answer.probability)}" if bars else "")


def bar(probability: float, width: int = BAR) -> str:
    """A bar of `width` characters, full at 1, to an eighth of a character."""
    eighths = round(probability * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(width)


def printable(path: str) -> str:
    """A file's name on one line, safe for any terminal: control characters and bytes that are not UTF-8 are escaped."""
    return "".join(character if character.isprintable() else _escaped(character) for character in path)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(character) - 0xdc00:02x}"
    return character.encode("unicode_escape").decode()


def writer(
    as_json: bool, as_csv: bool, say: Optional[Say] = None, spreadsheet: bool = False
) -> "JsonLines | CsvRows | Text":
    """The printer of predictions for --json, --csv or text; spreadsheet: CsvRows' safe."""
    if as_csv:
        return CsvRows(say or plain_say, spreadsheet)
    return (JsonLines if as_json else Text)(say or plain_say)


# ------------------------------------------------------------------------------------------ pictures
class PlaceError(ValueError):
    """--draw is not a path for a picture; the message says why."""


class Pictures:
    """The pictures of a run of predict.py: `draw` is a folder, or a file.

    An existing folder, or a path without suffix, is a folder of <photo>_prediction.png; a file is used as it is for one
    photo and numbered (out_1.png, out_2.png, ...) for several. Frames of videos add their number. No input is ever
    overwritten, and where we choose the name, only our own earlier pictures are. Raises PlaceError where `draw` is no
    place for a picture.
    """

    def __init__(self, draw: str, sources: Sequence[Source]):
        self.draw = draw
        names = [source.path for source in sources] or ["camera"]
        self.inputs = {os.path.realpath(source.path) for source in sources}
        self.paths: Dict[str, List[str]] = {}  # of a name given twice: twice
        for name, path in zip(names, picture_paths(draw, names)):
            self._refuse_input(path)
            self.paths.setdefault(name, []).append(path)

    def path(self, photo: Photo) -> str:
        """Path of this photo's picture; call it once for each photo, in the order of the sources."""
        paths = self.paths.get(photo.name) or next(iter(self.paths.values()))  # a camera has only one
        if photo.frame is None:
            return paths.pop(0) if len(paths) > 1 else paths[0]
        stem, suffix = os.path.splitext(paths[0])
        path = f"{stem}_{photo.frame:06d}{suffix}"
        self._refuse_input(path)
        return path

    def write(self, photo: Photo, predictions: Sequence[Prediction]) -> Tuple[Optional[str], str]:
        """Draw a photo's predictions, none with an error: (error or None, the picture's path)."""
        from gender_smile.inference.draw import draw

        assert photo.pixels is not None
        path = ""
        try:
            path = self.path(photo)
            draw(photo.pixels, predictions, path)
        except PlaceError as error:  # of one frame: the others have their places
            return str(error), path
        except OSError as error:
            return f"{printable(path)}: cannot write the picture: {error.strerror or error}", path
        return None, path

    def _refuse_input(self, path: str) -> None:
        if os.path.realpath(path) in self.inputs:
            raise PlaceError(f"--draw: {path} would overwrite an input image; name another place")
        if path != self.draw and os.path.isfile(path) and not is_own_picture(path):
            raise PlaceError(f"--draw: {path} is there and was not drawn by predict.py; move it, or name another place")


def picture_paths(draw: str, images: Sequence[str]) -> List[str]:
    """A path for each image. Raises PlaceError where `draw` is no place for a picture."""
    if not draw:
        raise PlaceError("--draw: '' names no place; name a folder or a file")
    stem, suffix = os.path.splitext(draw)
    if os.path.isdir(draw) or draw.endswith(os.sep) or not suffix:
        if os.path.isfile(draw):
            raise PlaceError(f"--draw: {draw} is a file without suffix; name a folder or a file with {PICTURE_SUFFIXES[0]}")
        return _folder_paths(draw, images)
    if suffix.lower() not in PICTURE_SUFFIXES:
        raise PlaceError(f"--draw: {draw}: a picture is {', '.join(PICTURE_SUFFIXES)}; a path without suffix is a folder")
    if len(images) == 1:
        return [draw]
    digits = len(str(len(images)))
    return [f"{stem}_{number:0{digits}d}{suffix}" for number in range(1, len(images) + 1)]


def _folder_paths(folder: str, images: Sequence[str]) -> List[str]:
    paths, used = [], set()
    numbers: Dict[str, int] = {}  # of the names that are equal, in several folders: the next one
    for image in images:
        stem = "stdin" if image == STANDARD_INPUT else os.path.splitext(os.path.basename(image))[0]
        name, number = f"{stem}_prediction.png", numbers.get(stem, 2)
        while name in used:
            name, number = f"{stem}_prediction_{number}.png", number + 1
        used.add(name)
        numbers[stem] = number
        paths.append(os.path.join(folder, name))
    return paths
