"""Corrections of the training labels of step 4's data set, FotW: section 4, "We also correct some definitely wrong
annotations in training data".

`corrections.csv`, as the page of `make suspects` exports it: header image, column, label, correction; a row a label. `image`
is as FotW's table names it, `column` is Gender or Smile, `label` what the table says, `correction` 0, 1 or 2 (undetermined:
not used for that task). The data set's own files stay as they are.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Dict, Tuple

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.records import DataSet, read_cells
from common.files import sha256_of

COLUMNS = ("image", "column", "label", "correction")
VALUES = {"0": 0, "1": 1, "2": recipe.UNUSABLE}
SPLIT = "train"  # validation labels stay as published, or accuracies could not be compared with the paper's


def read(path: str) -> Dict[Tuple[str, str], Tuple[int, int, int]]:
    """(image, column) -> (label, correction, line). Raises BuildError that names the line of what is not of the form."""
    rows = read_cells(path)
    _, header = next(rows, (0, []))
    if tuple(header) != COLUMNS:
        raise BuildError(f"{path}: the first line is not {','.join(COLUMNS)}: give the file that make suspects' page exports")
    corrections: Dict[Tuple[str, str], Tuple[int, int, int]] = {}
    for number, cells in rows:
        values = [VALUES[cell] for cell in cells[2:] if cell in VALUES]
        if len(cells) != len(COLUMNS) or len(values) != 2:
            raise BuildError(f"{path} line {number}: {','.join(cells)!r} is not image,column,label,correction with 0, 1 or 2")
        image = re.sub(r"^'('*[=+\-@\t\r])", r"\1", cells[0])  # the page puts a ' before what a spreadsheet would run
        key = (image.rsplit("/", 1)[-1], cells[1])
        if key in corrections:
            raise BuildError(f"{path} line {number}: {cells[1]} of {cells[0]} is corrected in line {corrections[key][2]} already")
        corrections[key] = (values[0], values[1], number)
    return corrections


def apply(dataset: DataSet, path: str) -> None:
    """Apply the corrections of `path` to the training records of `dataset`, and count them for its manifest.

    Raises BuildError where a row is of no training face, or the table says another label than the row: it was made for
    another table then.
    """
    corrections = read(path)
    counts: Counter = Counter()
    places = {record.image.rsplit("/", 1)[-1]: place for place, record in enumerate(dataset.records)
              if record.split == SPLIT}
    for (image, column), (label, correction, line) in corrections.items():
        if column not in dataset.label_names:
            raise BuildError(f"{path} line {line}: no label {column}; there are {', '.join(dataset.label_names)}")
        if image not in places:
            raise BuildError(f"{path} line {line}: {image} is no face of the training table")
        place, position = places[image], dataset.label_names.index(column)
        record = dataset.records[place]
        if record.labels[position] != label:
            raise BuildError(f"{path} line {line}: {column} of {image} is {record.labels[position]} in the table, not {label}; "
                             "the corrections were made for another table")
        labels = bytearray(record.labels)
        labels[position] = correction
        dataset.records[place] = replace(record, labels=bytes(labels))
        if label != correction:
            counts[f"{column} {label} to {correction}"] += 1
    dataset.corrections = {"sha256": sha256_of(path), "counts": dict(sorted(counts.items()))}
    dataset.notes.append(f"{sum(counts.values())} training labels corrected by {path}: "
                         + (", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"))
