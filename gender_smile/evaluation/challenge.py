"""The challenge (FotW, ChaLearn Looking at People 2016, track 3): its organizers' error, and its CSV, written and scored.

A row of the CSV is image, x, y, width, height, gender (0 male, 1 female), smile (0, 1); an image without a row was not
predicted. Written with the header of FotW's own tables; read with or without one.
"""

from __future__ import annotations

import os
from typing import Any, Dict, Iterable, Mapping, Optional, Tuple

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import BOX_COLUMNS, LABEL_COLUMNS, NAME_COLUMN
from lmdb_builders.records import DataSet, read_cells
from common import files
from gender_smile.evaluation import scores
from gender_smile.evaluation.faces import Labels, Probabilities, list_missed

COLUMNS = (NAME_COLUMN, *BOX_COLUMNS, *LABEL_COLUMNS)


# ---------------------------------------------------------------------------------------------- the organizers' error
def organizers_error(labels: Mapping[str, Labels], p_positive: Mapping[str, Probabilities]) -> Dict[str, Any]:
    """The organizers' "mean square error", summed over the images that have a label in every task, or no answer.

    labels and p_positive: task -> as for scores.score. An image counts the mean of its tasks' squared 0/1 errors: 0, 1/2
    or 1; a task without an answer is wrong. Returns {"sum", "images", "mean_accuracy"} (a fraction, None without images).
    That it is a sum is our reading (docs/fidelity.md): the paper's 263.5 cannot be a mean of 0/1 errors.
    """
    images = set.intersection(*(set(truth) for truth in labels.values()))
    total = 0.0
    for image in images:
        errors = [(p := p_positive[task].get(image)) is None or (p > 0.5) != truth[image] for task, truth in labels.items()]
        total += sum(errors) / len(errors)
    return {"sum": total, "images": len(images), "mean_accuracy": 1 - total / len(images) if images else None}


def describe_error(error: Mapping[str, Any]) -> str:
    """The organizers' error as text."""
    if not error["images"]:
        return "Organizers' error: no image has a label for both tasks"
    return (f"Organizers' error: {error['sum']:.1f} over {error['images']:,} images, lower is better (an image counts 0, 1/2 "
            f"or 1),\na mean accuracy of {100 * error['mean_accuracy']:.2f} %. "
            f"The paper's {recipe.CHALLENGE_ERROR} is such a sum in our reading (docs/fidelity.md).")


# ---------------------------------------------------------------------------------------------- its CSV
def write(path: str, predictions: Iterable) -> int:
    """Write Predictions of photos as the challenge's CSV; returns the number of rows. A photo without a face has none.

    Images are named as in FotW's tables, without a folder; boxes are the detector's, in pixels of the photo.
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
    """Image -> (gender, smile), 0 or 1. Raises BuildError that names file and line of a malformed row."""
    answers: Dict[str, Tuple[int, int]] = {}
    for number, cells in read_cells(path):
        if not any(cells) or (number == 1 and cells[0].lower() in (NAME_COLUMN, "image")):
            continue
        if len(cells) != len(COLUMNS):
            raise BuildError(f"{path} line {number}: {len(cells)} values instead of {len(COLUMNS)}: {', '.join(COLUMNS)}")
        name = cells[0].rsplit("/", 1)[-1]
        if name in answers:
            raise BuildError(f"{path} line {number}: {name} again; an image has one row")
        gender, smile = ({"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cell, recipe.UNUSABLE) for cell in cells[-2:])
        if recipe.UNUSABLE in (gender, smile):
            raise BuildError(f"{path} line {number}: gender and smile are {cells[-2]!r} and {cells[-1]!r}, not 0 or 1")
        answers[name] = gender, smile
    return answers


def score(answers: Dict[str, Tuple[int, int]], dataset: DataSet) -> Dict[str, Any]:
    """Metrics of a submission against FotW's table: {"gender", "smile": scores.score, "challenge": organizers_error, "missed"}.

    An image without a row counts as wrong, and as 1 in the organizers' error, as does one that could not be read from the
    data set, row or not; "missed" lists them. Images whose label is not usable for a task are left out of that task, and of
    the error. Raises BuildError for rows of unknown images.
    """
    names = {record.image.rsplit("/", 1)[-1]: record for record in dataset.records}
    unread = list_missed((entry._asdict() for entry in dataset.skipped), names)
    unknown = sorted(set(answers) - set(names) - set(unread))
    if unknown:
        raise BuildError(f"{len(unknown)} rows are of images that the table does not list, such as {unknown[0]}")
    labels: Dict[str, Dict[str, Optional[int]]] = {}
    p_positive: Dict[str, Dict[str, Optional[float]]] = {}
    for position, task in enumerate(recipe.TASKS):
        labels[task] = {name: record.labels[position] for name, record in names.items()
                        if record.labels[position] != recipe.UNUSABLE}
        p_positive[task] = {name: float(answers[name][position]) if name in answers else None for name in labels[task]}
        labels[task].update(dict.fromkeys(unread))
        p_positive[task].update(dict.fromkeys(unread))
    metrics: Dict[str, Any] = {task: scores.score(labels[task], p_positive[task]) for task in labels if labels[task]}
    metrics["challenge"] = organizers_error(labels, p_positive)
    metrics["missed"] = sorted({*(set(names) - set(answers)), *unread})
    return metrics


def describe(metrics: Dict[str, Any]) -> str:
    """A submission's metrics as text."""
    lines = []
    for task in recipe.TASKS:
        if task in metrics:
            own = metrics[task]
            low, high = (100 * value for value in own["interval"])
            lines.append(f"{task:<7}{scores.percent(own['accuracy'])} of {own['faces']:,} faces (95 % interval {low:.2f} .. "
                         f"{high:.2f}; {scores.describe_majority(own, recipe.TASKS[task].classes)})")
    lines += [f"not predicted, counts as wrong: {name}" for name in metrics["missed"]]
    return "\n".join([*lines, describe_error(metrics["challenge"])])
