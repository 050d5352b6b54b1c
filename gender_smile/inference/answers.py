"""Predictions as text for people, JSON lines and CSV for programs."""

from __future__ import annotations

import csv
import json
import sys
from typing import Callable, List, Optional, Sequence, TextIO

import recipe
from common.files import safe_cell
from gender_smile.inference.prediction import COLUMNS, Answer, Prediction

BAR = 20  # characters of a bar where a terminal shows the text
BLOCKS = " ▏▎▍▌▋▊▉█"

Say = Callable[[str, TextIO], None]  # writes a line, past a progress bar where there is one


def plain_say(line: str, stream: TextIO) -> None:
    print(line, file=stream, flush=True)


class JsonLines:
    """One JSON object a face, or a photo without an answer, a line each."""

    quiet = True  # pictures are not announced

    def __init__(self, say: Say = plain_say):
        self.say = say

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            self.say(json.dumps(prediction.as_dict()), sys.stdout)


class CsvRows:
    """A row a face, below a row of COLUMNS; a photo without an answer has its reason in the last one.

    safe: no cell is one that a spreadsheet reads as a formula, whatever a photo is called.
    """

    quiet = True

    def __init__(self, say: Say = plain_say, safe: bool = False):
        self.say, self.safe = say, safe
        self._row(COLUMNS)

    def write(self, predictions: Sequence[Prediction]) -> None:
        for prediction in predictions:
            self._row([printable(value) if isinstance(value, str) else value for value in prediction.as_row()])

    def _row(self, values: Sequence) -> None:
        import io

        line = io.StringIO()
        csv.writer(line, lineterminator="").writerow(map(safe_cell, values) if self.safe else values)
        self.say(line.getvalue(), sys.stdout)


class Text:
    """A few lines a face on stdout, reasons on stderr; with bars where stdout is a terminal."""

    quiet = False

    def __init__(self, say: Say = plain_say):
        self.say = say
        self.bars = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().startswith("utf")

    def write(self, predictions: Sequence[Prediction]) -> None:
        lines: List[str] = []
        for prediction in predictions:
            if prediction.error is not None:
                self.say(f"predict.py: {title(prediction)}: {prediction.error}", sys.stderr)
            else:
                lines += ([] if lines else [title(prediction)]) + describe(prediction, len(predictions) > 1, self.bars)
        if lines:
            self.say("\n".join(lines), sys.stdout)


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
        where += f", nearest the middle of {prediction.faces} (--all-faces: every one)"
    nets = ", ".join(f"{recipe.NETS[net].title} {percent(prediction.ones[net]).strip()}" for net in recipe.ENSEMBLES["smile"])
    return [
        f"  face    {where}",
        f"  gender  {_answer(prediction.gender, bars)}",
        f"  smile   {_answer(prediction.smile, bars)}   (smiling: {nets})",
    ]


def _answer(answer: Answer, bars: bool) -> str:
    return f"{answer.label:<12} {percent(answer.probability)}" + (f"  {bar(answer.probability)}" if bars else "")


def bar(probability: float, width: int = BAR) -> str:
    """A bar of `width` characters, full at 1, to an eighth of a character."""
    eighths = round(probability * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (BLOCKS[rest] if rest else "")).ljust(width)


def percent(probability: float) -> str:
    """As a percentage that never claims certainty."""
    return f"{min(100 * probability, 99.9):5.1f} %"


def printable(path: str) -> str:
    """A file's name as one line that any terminal takes, however odd: bytes and controls that show nothing are escaped."""
    return "".join(character if character.isprintable() else _escaped(character) for character in path)


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(character) - 0xdc00:02x}"
    return character.encode("unicode_escape").decode()


def writer(
    as_json: bool, as_csv: bool, say: Optional[Say] = None, spreadsheet: bool = False
) -> "JsonLines | CsvRows | Text":
    """What prints predictions in the form asked for; spreadsheet: see CsvRows."""
    if as_csv:
        return CsvRows(say or plain_say, spreadsheet)
    return (JsonLines if as_json else Text)(say or plain_say)
