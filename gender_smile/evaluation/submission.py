"""The challenge's CSV (FotW, ChaLearn Looking at People 2016, track 3): written from predictions, and scored.

A row is image, x, y, width, height, gender (0 male, 1 female), smile (0, 1); an image that is not there was not
predicted. Written with the header of FotW's own tables; read with or without one.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, Optional, Tuple

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import BOX_COLUMNS, LABEL_COLUMNS, NAME_COLUMN
from lmdb_builders.records import UNUSABLE, DataSet, read_cells
from common import files
from gender_smile.evaluation import scores
from gender_smile.evaluation.faces import list_missed

COLUMNS = (NAME_COLUMN, *BOX_COLUMNS, *LABEL_COLUMNS)


def write(path: str, predictions: Iterable) -> int:
    """Write pipeline.Predictions; returns how many rows. Photos without a face have none: not predicted.

    Images are named as FotW's tables name them, without a folder; boxes are the detector's, in pixels of the photo.
    """
    rows = []
    for prediction in predictions:
        if prediction.error is None:
            answers = (recipe.TASKS[task].classes.index(answer.label)
                       for task, answer in (("gender", prediction.gender), ("smile", prediction.smile)))
            box = (f"{float(value):.1f}" for value in prediction.face.box)
            rows.append([prediction.image.replace(os.sep, "/").rsplit("/", 1)[-1], *box, *answers])
    files.write_csv(path, COLUMNS, rows)
    return len(rows)


def read(path: str) -> Dict[str, Tuple[int, int]]:
    """Image -> (gender, smile), 0 or 1. Raises BuildError that names file and line where a row is not of the form."""
    found: Dict[str, Tuple[int, int]] = {}
    for number, cells in read_cells(path):
        if not any(cells) or (number == 1 and cells[0].lower() in (NAME_COLUMN, "image")):
            continue
        if len(cells) != len(COLUMNS):
            raise BuildError(f"{path} line {number}: {len(cells)} values instead of {len(COLUMNS)}: {', '.join(COLUMNS)}")
        name = cells[0].rsplit("/", 1)[-1]
        if name in found:
            raise BuildError(f"{path} line {number}: {name} again; an image has one row")
        answers = tuple({"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cell, UNUSABLE) for cell in cells[-2:])
        if UNUSABLE in answers:
            raise BuildError(f"{path} line {number}: gender and smile are {cells[-2]!r} and {cells[-1]!r}, not 0 or 1")
        found[name] = answers[0], answers[1]
    return found


def score(answers: Dict[str, Tuple[int, int]], dataset: DataSet) -> Dict[str, Any]:
    """Figures of a submission against FotW's table: {"gender", "smile": scores.score, "challenge", "missed"}.

    An image without a row counts as wrong, and as 1 in the organizers' error, as does one that could not be read from the
    data set, row or not; "missed" lists them. Images whose label is not usable for a task are left out of that task, and of
    the error. Raises BuildError for rows of unknown images.
    """
    names = {record.image.rsplit("/", 1)[-1]: record for record in dataset.records}
    unread = list_missed((entry._asdict() for entry in dataset.skipped), names)
    unknown = sorted(set(answers) - set(names) - set(unread))
    if unknown:
        raise BuildError(f"{len(unknown)} rows are of images that the table does not list, {unknown[0]} for one")
    truths: Dict[str, Dict[str, Optional[int]]] = {}
    ones: Dict[str, Dict[str, Optional[float]]] = {}
    for position, task in enumerate(recipe.TASKS.values()):
        truths[task.name] = {name: record.labels[position] for name, record in names.items()
                             if record.labels[position] != UNUSABLE}
        ones[task.name] = {name: float(answers[name][position]) if name in answers else None
                           for name in truths[task.name]}
        truths[task.name].update(dict.fromkeys(unread))
        ones[task.name].update(dict.fromkeys(unread))
    figures: Dict[str, Any] = {task: scores.score(truths[task], ones[task]) for task in truths if truths[task]}
    figures["challenge"] = scores.challenge_error(tuple(truths.values()), tuple(ones.values()))
    figures["missed"] = sorted({*(set(names) - set(answers)), *unread})
    return figures


def describe(figures: Dict[str, Any]) -> str:
    """A submission's figures as text."""
    from gender_smile.evaluation.report import describe_challenge

    lines = []
    for task in recipe.TASKS:
        if task in figures:
            low, high = (100 * value for value in figures[task]["interval"])
            lines.append(f"{task:<7}{100 * figures[task]['accuracy']:.2f} % of {figures[task]['faces']:,} faces "
                         f"(95 % interval {low:.2f} .. {high:.2f})")
    lines += [f"not predicted, counts as wrong: {name}" for name in figures["missed"]]
    return "\n".join([*lines, describe_challenge(figures["challenge"])])
