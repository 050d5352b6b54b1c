"""Reader of CelebA's own files (Liu et al., ICCV 2015).

The official text tables (Anno/, Eval/) and the CSV edition (list_attr_celeba.csv ...); layouts.py finds them.
CelebA's "lefteye" is the viewer's left (its x is the smaller one), as in recipe.FACE_TEMPLATE.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

import recipe
from lmdb_builders import parquet
from lmdb_builders.errors import BuildError
from lmdb_builders.layouts import Folder, Photos, Tree
from lmdb_builders.records import SPLITS, DataSet, FaceRecord, Skipped, read_cells, read_lines, require_columns

IMAGE_FOLDERS = {  # edition of the photos -> names of their folder
    "wild": ("img_celeba",),
    "aligned": ("img_align_celeba", "img_align_celeba_png"),
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
    tree = Tree(folder, "give CELEBA=folder with CelebA's Anno, Eval and Img")
    dataset = DataSet("celeba", folder, recipe.LABELS)
    edition, images, tree = _find_images(tree, edition)
    attributes = _read_table(_find_table(tree, "list_attr_celeba"), dataset)
    positions = attributes.positions([TURNED.get(label, label) for label in recipe.LABELS])
    absent = _absent(attributes, dataset)
    partition = _read_table(_find_table(tree, "list_eval_partition"), dataset, columns=("partition",))
    landmarks_of = _numbers(tree, LANDMARK_TABLES[edition], dataset, LANDMARK_COLUMNS)
    box_of = _numbers(tree, "list_bbox_celeba", dataset, BOX_COLUMNS) if edition == "wild" else None
    dataset.aligned = edition == "aligned"
    dataset.has_landmarks = os.path.basename(os.path.dirname(images.path)) != parquet.FOLDER
    dataset.notes.append(f"{edition} photos in {dataset.relative(images.path)}, tables {', '.join(dataset.sources)}")
    dataset.tables = {split: dataset.relative(partition.path) for split in SPLITS}

    photos = Photos(images, tree)
    for image, (line, text) in partition.rows.items():
        split = SPLITS[int(text)] if text in ("0", "1", "2") else None
        if split is not None and split not in splits:
            continue
        try:
            if split is None:
                raise ValueError(f"partition is {text!r}, expected 0, 1 or 2")
            labels = _labels(attributes, image, positions, absent)
            path = photos.find(image)
            box = tuple(box_of(image)) if box_of else None
            landmarks = np.array(landmarks_of(image), dtype=np.float32).reshape(5, 2) if landmarks_of else None
        except ValueError as error:
            dataset.skipped.append(Skipped(split or "train", image, dataset.tables["train"], line, str(error)))
        else:
            dataset.records.append(FaceRecord(path, split, box, landmarks, labels, line))
    unlisted = sum(image not in partition.rows for image in attributes.rows)
    if unlisted:
        dataset.notes.append(f"{unlisted} images of list_attr_celeba are in no partition and not used")
    return dataset


def _find_images(tree: Tree, edition: str) -> Tuple[str, Folder, Tree]:
    """(edition, folder of its photos, tree): parquet files are unpacked where there is nothing else, and the tree grows."""
    editions = tuple(IMAGE_FOLDERS) if edition == "auto" else (edition,)
    for name in editions:
        folder = tree.photos(IMAGE_FOLDERS[name])
        if folder is not None:
            return name, folder, tree
    if "aligned" in editions and parquet.unpack(tree):
        return _find_images(Tree(tree.root, ""), edition)
    raise tree.missing("no photos found", [folder for name in editions for folder in IMAGE_FOLDERS[name]])


def _find_table(tree: Tree, stem: str) -> str:
    path = tree.table([stem + ".txt", stem + ".csv"])
    if path is None:
        place = "Eval" if "partition" in stem else "Anno"
        raise tree.missing(f"{place}/{stem}.txt is missing", [stem + ".txt", stem + ".csv"])
    return path


def _numbers(tree: Tree, stem: str, dataset: DataSet, columns) -> Optional[Callable[[str], List[float]]]:
    """A function from an image to its numbers in an optional table; None where there is no such file."""
    path = tree.table([stem + ".txt", stem + ".csv"])
    if path is None:
        dataset.notes.append(f"no {stem} file")
        return None
    table = _read_table(path, dataset)
    positions = table.positions(columns)
    return lambda image: table.values(image, positions)


def _read_table(path: str, dataset: DataSet, columns=None) -> Table:
    """A CelebA table: an optional line with the number of rows, a header unless `columns` is given, then the rows."""
    dataset.add_source(path)
    announced, rows = None, {}
    for number, (image, *cells) in _split_rows(path):
        if number == 1 and not cells and image.isdigit():
            announced = int(image)
        elif image == "image_id" or columns is None:
            columns = columns or tuple(cells if image == "image_id" or path.endswith(".csv") else [image, *cells])
        elif image in rows:
            dataset.notes.append(f"{dataset.relative(path)} line {number}: {image} again; the first row counts")
        else:
            rows[image] = (number, " ".join(cells))
    if not rows:
        raise BuildError(f"{path}: has no rows; put CelebA's own file there")
    if announced not in (None, len(rows)):
        dataset.notes.append(f"{dataset.relative(path)} announces {announced} rows and has {len(rows)}")
    return Table(path, tuple(columns), rows)


def _split_rows(path: str) -> Iterator[Tuple[int, List[str]]]:
    """(line number, cells) of each row: of CSV, quoted or not, or separated by spaces."""
    if path.endswith(".csv"):
        yield from read_cells(path)
    else:
        for number, line in enumerate(read_lines(path), 1):
            if line.strip():
                yield number, line.replace(",", " ").split()


def _absent(attributes: Table, dataset: DataSet) -> float:
    """What says that an attribute is absent: -1, or 0 in an edition whose table has 0 and 1 only."""
    if any("-1" in text for _, text in attributes.rows.values()):
        return -1.0
    dataset.notes.append(f"{dataset.relative(attributes.path)} has no -1: 0 is read as absent")
    return 0.0


def _labels(attributes: Table, image: str, positions: List[int], absent: float) -> bytes:
    """The forty labels as bytes 0/1; ValueError where a value is neither `absent` nor 1."""
    values = attributes.values(image, positions)
    for value, position in zip(values, positions):
        if value not in (absent, 1.0):
            file, line = os.path.basename(attributes.path), attributes.rows[image][0]
            raise ValueError(f"{file} line {line}: {attributes.columns[position]} is {value:g}, not {absent:g} or 1")
    return bytes(int((value > 0) != (label in TURNED)) for label, value in zip(recipe.LABELS, values))
