"""Reader of CelebA's own files (Liu et al., ICCV 2015).

Layouts: the official one (Anno/, Eval/, Img/), all files in one folder, and the CSV edition (list_attr_celeba.csv ...).
CelebA's "lefteye" is the viewer's left (its x is the smaller one), as in recipe.FACE_TEMPLATE.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.records import (
    SPLITS, DataSet, FaceRecord, Skipped, image_problem, list_folder, read_lines, require_columns,
)

IMAGE_FOLDERS = {  # edition of the photos -> folders in which an unpacked one may lie
    "wild": ("Img/img_celeba", "img_celeba", "Img/img_celeba/img_celeba", "img_celeba/img_celeba"),
    "aligned": (
        "Img/img_align_celeba", "img_align_celeba", "Img/img_align_celeba/img_align_celeba",
        "img_align_celeba/img_align_celeba",
    ),
}
LANDMARK_TABLES = {"wild": "list_landmarks_celeba", "aligned": "list_landmarks_align_celeba"}
LANDMARK_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"
)
BOX_COLUMNS = ("x_1", "y_1", "width", "height")
TURNED = {"Female": "Male"}  # label -> CelebA's attribute that says the opposite


class Table(NamedTuple):
    """One annotation file: values by image."""

    path: str
    columns: Tuple[str, ...]
    rows: Dict[str, Tuple[int, str]]  # image -> (line, the rest of the line): lists of values would take a gigabyte

    def positions(self, columns) -> List[int]:
        """Where the named columns stand; BuildError where one is missing."""
        require_columns(self.path, self.columns, columns)
        return [self.columns.index(column) for column in columns]

    def values(self, image: str, positions: List[int]) -> List[float]:
        """Numbers of an image; ValueError with the reason where the row is missing or broken."""
        file = os.path.basename(self.path)
        if image not in self.rows:
            raise ValueError(f"no row in {file}")
        line, text = self.rows[image]
        cells = text.split()
        if len(cells) != len(self.columns):
            raise ValueError(f"{file} line {line}: {len(cells)} values instead of {len(self.columns)}")
        try:
            return [float(cells[position]) for position in positions]
        except ValueError:
            raise ValueError(f"{file} line {line}: a value is not a number") from None


def read_celeba(folder: str, splits=("train", "val"), edition: str = "auto") -> DataSet:
    """Read CelebA's tables; photos are looked for, not opened.

    `edition`: "wild" (img_celeba, the paper's choice by its detection stage), "aligned" (img_align_celeba) or "auto",
    the first of these that is there. Labels are recipe.LABELS. Raises BuildError for a missing file or column.
    """
    if not os.path.isdir(folder):
        raise BuildError(f"{folder}: no such folder; give CELEBA=folder with CelebA's Anno, Eval and Img")
    dataset = DataSet("celeba", folder, recipe.LABELS)
    edition, images = _find_images(folder, edition)
    attributes = _read_table(_find_table(folder, "list_attr_celeba"), dataset)
    positions = attributes.positions([TURNED.get(label, label) for label in recipe.LABELS])
    partition = _read_table(_find_table(folder, "list_eval_partition"), dataset, columns=("partition",))
    landmarks_of = _numbers(folder, LANDMARK_TABLES[edition], dataset, LANDMARK_COLUMNS)
    box_of = _numbers(folder, "list_bbox_celeba", dataset, BOX_COLUMNS) if edition == "wild" else None
    dataset.notes.append(f"photos: {dataset.relative(images)} ({edition})")
    dataset.tables = {split: dataset.relative(partition.path) for split in SPLITS}

    listing, prefix = list_folder(images), dataset.relative(images)
    for image, (line, text) in partition.rows.items():
        split = SPLITS[int(text)] if text in ("0", "1", "2") else None
        if split is not None and split not in splits:
            continue
        try:
            if split is None:
                raise ValueError(f"partition is {text!r}, expected 0, 1 or 2")
            labels = _labels(attributes, image, positions)
            problem = image_problem(image, images, listing)
            if problem:
                raise ValueError(problem)
            box = tuple(box_of(image)) if box_of else None
            landmarks = np.array(landmarks_of(image), dtype=np.float32).reshape(5, 2) if landmarks_of else None
        except ValueError as error:
            dataset.skipped.append(Skipped(split or "train", image, dataset.tables["train"], line, str(error)))
        else:
            dataset.records.append(FaceRecord(f"{prefix}/{image}", split, box, landmarks, labels, line))
    unlisted = sum(image not in partition.rows for image in attributes.rows)
    if unlisted:
        dataset.notes.append(f"{unlisted} images of list_attr_celeba are in no partition and not used")
    return dataset


def _find_images(folder: str, edition: str) -> Tuple[str, str]:
    editions = tuple(IMAGE_FOLDERS) if edition == "auto" else (edition,)
    for name in editions:
        # The innermost folder that holds files: archives unpack into img_celeba/ or into img_celeba/img_celeba/.
        for relative in sorted(IMAGE_FOLDERS[name], key=len, reverse=True):
            if os.path.isdir(os.path.join(folder, relative)):
                return name, os.path.join(folder, relative)
    looked = ", ".join(IMAGE_FOLDERS[name][0] for name in editions)
    raise BuildError(f"{folder}: no photos found ({looked}); unpack CelebA's Img archives there")


def _find_table(folder: str, stem: str) -> str:
    for extension in (".txt", ".csv"):
        for place in ("Anno", "Eval", ""):
            path = os.path.join(folder, place, stem + extension)
            if os.path.isfile(path):
                return path
    place = "Eval" if "partition" in stem else "Anno"
    raise BuildError(f"{folder}: {place}/{stem}.txt is missing; put CelebA's own file there")


def _numbers(folder: str, stem: str, dataset: DataSet, columns) -> Optional[Callable[[str], List[float]]]:
    """A function from an image to its numbers in an optional table; None where there is no such file."""
    try:
        path = _find_table(folder, stem)
    except BuildError:
        dataset.notes.append(f"no {stem} file")
        return None
    table = _read_table(path, dataset)
    positions = table.positions(columns)
    return lambda image: table.values(image, positions)


def _read_table(path: str, dataset: DataSet, columns=None) -> Table:
    """A CelebA table: an optional line with the number of rows, a header unless `columns` is given, then the rows."""
    dataset.add_source(path)
    announced, rows = None, {}
    for number, line in enumerate(read_lines(path), 1):
        image, text = (*line.replace(",", " ").split(None, 1), "", "")[:2]
        text = text.rstrip()
        if not image:
            continue
        if number == 1 and not text and image.isdigit():
            announced = int(image)
        elif image == "image_id" or columns is None:
            header = text.split() if image == "image_id" else [image, *text.split()]
            columns = columns or tuple(header)
        elif image in rows:
            dataset.notes.append(f"{dataset.relative(path)} line {number}: {image} again; the first row counts")
        else:
            rows[image] = (number, text)
    if not rows:
        raise BuildError(f"{path}: has no rows; put CelebA's own file there")
    if announced not in (None, len(rows)):
        dataset.notes.append(f"{dataset.relative(path)} announces {announced} rows and has {len(rows)}")
    return Table(path, tuple(columns), rows)


def _labels(attributes: Table, image: str, positions: List[int]) -> bytes:
    """The forty labels as bytes 0/1; ValueError where a value is neither -1 nor 1."""
    values = attributes.values(image, positions)
    for value, position in zip(values, positions):
        if value not in (-1.0, 1.0):
            file, line = os.path.basename(attributes.path), attributes.rows[image][0]
            raise ValueError(f"{file} line {line}: {attributes.columns[position]} is {value:g}, not -1 or 1")
    return bytes(int((value > 0) != (label in TURNED)) for label, value in zip(recipe.LABELS, values))
