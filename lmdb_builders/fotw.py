"""Reader of FotW's own files (ChaLearn Looking at People 2016, track 3: smile and gender).

`smiles_trset/gender_fex_trset.csv` and so on: header `image_name, bbox_x, ...` with leading spaces, CRLF line ends, the
photos beside it. `Gender` is 0 male, 1 female, `Smile` 0 or 1; any other value (2 = undetermined occurs) makes the face
unusable for that task only.
"""

from __future__ import annotations

import os
from typing import Dict, Optional, Tuple

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.records import (
    UNUSABLE, DataSet, FaceRecord, Skipped, image_problem, list_folder, read_cells, require_columns,
)

BOX_COLUMNS = ("bbox_x", "bbox_y", "bbox_width", "bbox_height")
NAME_COLUMN = "image_name"
LABEL_COLUMNS = tuple(recipe.DATASETS["fotw"].columns.values())
PLACES = {  # split -> (folder, table); the table may lie in the folder, beside it, or in the folder that holds it
    "train": ("smiles_trset", "gender_fex_trset.csv"),
    "val": ("smiles_valset", "gender_fex_valset.csv"),
    "test": ("track3_testing/track3_all", "test_gt.csv"),
}


def read_fotw(folder: str, splits=("train", "val")) -> DataSet:
    """Read FotW's tables; photos are looked for, not opened. Labels are LABEL_COLUMNS.

    Raises BuildError for a missing file or column.
    """
    if not os.path.isdir(folder):
        raise BuildError(f"{folder}: no such folder; give FOTW=folder with FotW's smiles_trset and smiles_valset")
    dataset = DataSet("fotw", folder, LABEL_COLUMNS)
    for split in splits:
        _read_split(dataset, split)
    return dataset


def find_split(folder: str, split: str) -> Tuple[str, str]:
    """(table, folder of the photos) of a split; zip files unpack to names with a prefix, datasets_None_..._."""
    place, name = PLACES[split]
    last = place.rsplit("/", 1)[-1]
    photos = [os.path.join(folder, *place.split("/")), os.path.join(folder, last)]
    photos += [os.path.join(folder, entry) for entry in sorted(os.listdir(folder)) if entry.endswith("_" + last)]
    photos = [path for path in photos if os.path.isdir(path)] or [folder]
    for path in (*photos, os.path.dirname(photos[0]), folder):
        if os.path.isfile(os.path.join(path, name)):
            return os.path.join(path, name), photos[0]
    raise BuildError(f"{folder}: {place}/{name} is missing; unpack FotW's {last} archive there")


def _read_split(dataset: DataSet, split: str) -> None:
    table, photos = find_split(dataset.folder, split)
    dataset.add_source(table)
    dataset.tables[split] = dataset.relative(table)
    rows = read_cells(table)
    _, header = next(rows, (0, []))
    require_columns(table, header, (NAME_COLUMN, *BOX_COLUMNS, *LABEL_COLUMNS))
    listing, prefix, seen = list_folder(photos), dataset.relative(photos), {}
    for number, cells in rows:
        row = dict(zip(header, cells))
        name = row.get(NAME_COLUMN, "")
        problem = _row_problem(row, cells, header, seen) or image_problem(name, photos, listing)
        if problem:
            dataset.skipped.append(Skipped(split, name, dataset.tables[split], number, problem))
            continue
        seen[name] = number
        image = name if prefix == "." else f"{prefix}/{name}"
        box = tuple(float(row[column]) for column in BOX_COLUMNS)
        labels = bytes(_label(row[column]) for column in LABEL_COLUMNS)
        dataset.records.append(FaceRecord(image, split, box, None, labels, number))


def _row_problem(row: Dict[str, str], cells, header, seen: Dict[str, int]) -> Optional[str]:
    if len(cells) != len(header):
        return f"{len(cells)} values instead of {len(header)}"
    for column in BOX_COLUMNS:
        try:
            float(row[column])
        except ValueError:
            return f"{column} is {row[column]!r}, not a number"
    if row[NAME_COLUMN] in seen:
        return f"the image was named in line {seen[row[NAME_COLUMN]]} already"
    return None


def _label(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        return UNUSABLE
    return int(value) if value in (0.0, 1.0) else UNUSABLE
