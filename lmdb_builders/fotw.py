"""Reader of FotW's own files (ChaLearn Looking at People 2016, track 3: smile and gender).

`smiles_trset/gender_fex_trset.csv` and so on: header `image_name, bbox_x, ...` with leading spaces, CRLF line ends, the
photos beside it. `Gender` is 0 male, 1 female, `Smile` 0 or 1; any other value (2 = undetermined occurs) makes the face
unusable for that task only.
"""

from __future__ import annotations

import os
from typing import Dict, Tuple

import recipe
from lmdb_builders.layouts import Folder, Photos, Tree
from lmdb_builders.records import DataSet, FaceRecord, Skipped, read_cells, require_columns

BOX_COLUMNS = ("bbox_x", "bbox_y", "bbox_width", "bbox_height")
NAME_COLUMN = "image_name"
LABEL_COLUMNS = recipe.DATASETS["fotw"].labels
PLACES = {  # split -> (names of its folder, table); the table lies in the folder or in one above it
    "train": (("smiles_trset",), "gender_fex_trset.csv"),
    "val": (("smiles_valset",), "gender_fex_valset.csv"),
    "test": (("track3_all", "track3_testing"), "test_gt.csv"),
}


def read_fotw(folder: str, splits=("train", "val")) -> DataSet:
    """Read FotW's tables; photos are looked for, not opened. Labels are LABEL_COLUMNS.

    Raises BuildError for a missing file or column, or where two folders or tables could be meant.
    """
    tree = Tree(folder, "give FOTW=folder with FotW's smiles_trset and smiles_valset")
    dataset = DataSet("fotw", folder, LABEL_COLUMNS)
    for split in splits:
        _read_split(dataset, split, tree)
    return dataset


def find_split(tree: Tree, split: str) -> Tuple[str, Folder]:
    """(table, folder of the photos) of a split."""
    names, table_name = PLACES[split]
    photos = tree.photos(names)
    table = tree.table([table_name], photos.path if photos else None)
    if table is None:
        raise tree.missing(f"{names[0]}/{table_name} is missing", [table_name, *names])
    if photos is None:
        photos = next(folder for folder in tree.folders if folder.path == os.path.dirname(table))
        if not photos.has_photos:
            raise tree.missing(f"no photos for {tree.relative(table)}", names)
    return table, photos


def _read_split(dataset: DataSet, split: str, tree: Tree) -> None:
    table, folder = find_split(tree, split)
    dataset.add_source(table)
    dataset.tables[split] = dataset.relative(table)
    dataset.notes.append(f"{split}: {dataset.tables[split]}, photos in {tree.relative(folder.path)}")
    rows = read_cells(table)
    _, header = next(rows, (0, []))
    require_columns(table, header, (NAME_COLUMN, *BOX_COLUMNS, *LABEL_COLUMNS))
    photos, seen = Photos(folder, tree), {}
    for number, cells in rows:
        row = dict(zip(header, cells))
        name = row.get(NAME_COLUMN, "")
        try:
            _check_row(row, cells, header, seen)
            image = photos.find(name)
        except ValueError as error:
            dataset.skipped.append(Skipped(split, name, dataset.tables[split], number, str(error)))
            continue
        seen[name] = number
        box = tuple(float(row[column]) for column in BOX_COLUMNS)
        labels = bytes(_label(row[column]) for column in LABEL_COLUMNS)
        dataset.records.append(FaceRecord(image, split, box, None, labels, number))


def _check_row(row: Dict[str, str], cells, header, seen: Dict[str, int]) -> None:
    """Raise ValueError with the reason why a row cannot be used."""
    if len(cells) != len(header):
        raise ValueError(f"{len(cells)} values instead of {len(header)}")
    for column in BOX_COLUMNS:
        try:
            float(row[column])
        except ValueError:
            raise ValueError(f"{column} is {row[column]!r}, not a number") from None
    if row[NAME_COLUMN] in seen:
        raise ValueError(f"the image was named in line {seen[row[NAME_COLUMN]]} already")


def _label(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        return recipe.UNUSABLE
    return int(value) if value in (0.0, 1.0) else recipe.UNUSABLE
