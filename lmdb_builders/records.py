"""What the readers of data sets return: one record per face, and the rows that were skipped."""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass, field
from typing import Dict, Iterator, List, NamedTuple, Optional, Tuple

import numpy as np

import recipe
from lmdb_builders.errors import BuildError
from common.files import sha256_of

SPLITS = ("train", "val", "test")
# Files in the folder of a data set, or in the folder above:
DRAWN = "drawn.json"  # its faces are drawn (gender_smile/synthetic)
TITLE = "title.txt"  # its name, where photos of another data set lie in the layout of CelebA or FotW


@dataclass(frozen=True, slots=True)  # a data set has 200,000
class FaceRecord:
    """One annotated face, as the data set's own files describe it."""

    image: str  # path relative to the data set's folder, with forward slashes
    split: str  # one of SPLITS
    box: Optional[Tuple[float, float, float, float]]  # x, y, width, height in stored pixels, as annotated; None: none
    landmarks: Optional[np.ndarray]  # 5 x 2 float32 in recipe.FACE_TEMPLATE's order, or None
    labels: bytes  # one byte a name of DataSet.label_names: 0, 1 or recipe.UNUSABLE
    line: int  # of DataSet.table[split]


class Skipped(NamedTuple):
    """A row of a table that did not get into the LMDBs, and why."""

    split: str
    image: str
    file: str  # the annotation file, relative to the data set's folder
    line: int
    reason: str


@dataclass
class DataSet:
    """All that a reader found in a data set's tables."""

    name: str  # of recipe.DATASETS
    folder: str
    label_names: Tuple[str, ...]
    records: List[FaceRecord] = field(default_factory=list)
    skipped: List[Skipped] = field(default_factory=list)
    tables: Dict[str, str] = field(default_factory=dict)  # split -> the file whose lines `FaceRecord.line` counts
    sources: Dict[str, str] = field(default_factory=dict)  # annotation file, relative -> sha256
    aligned: bool = False  # its photos are rotated upright already, so that crops that are not aligned are aligned too
    has_landmarks: bool = True  # False: this edition has none, and the detector is asked for them
    notes: List[str] = field(default_factory=list)  # remarks for the user; not errors
    corrections: Dict[str, object] = field(default_factory=dict)  # of labels: {"sha256", "counts"} (corrections.py)

    @property
    def drawn(self) -> bool:
        """True where its faces are drawn, False for photographs."""
        return is_drawn(self.folder)

    @property
    def title(self) -> str:
        """What its folder says it is (TITLE), else recipe.DATASETS' title."""
        path = _beside(self.folder, TITLE)
        text = next((line.strip() for line in read_lines(path)), "") if path else ""
        return text or recipe.DATASETS[self.name].title

    def relative(self, path: str) -> str:
        return os.path.relpath(path, self.folder).replace(os.sep, "/")

    def add_source(self, path: str) -> None:
        self.sources[self.relative(path)] = sha256_of(path)

    def skip(self, record: FaceRecord, reason: str) -> Skipped:
        """The entry of a record that failed later, in detection or cropping. It is returned, not stored."""
        return Skipped(record.split, record.image, self.tables[record.split], record.line, reason)


def is_drawn(folder: str) -> bool:
    """True where the data set in `folder` was drawn."""
    return _beside(folder, DRAWN) is not None


def _beside(folder: str, name: str) -> Optional[str]:
    """The file `name` in a folder, or in the folder above; None where it is in neither."""
    folder = os.path.abspath(folder)
    paths = (os.path.join(place, name) for place in (folder, os.path.dirname(folder)))
    return next((path for path in paths if os.path.isfile(path)), None)


def read_lines(path: str) -> Iterator[str]:
    """Lines of an annotation file without their ends (LF or CRLF, with or without byte order mark)."""
    try:
        with open(path, encoding="utf-8-sig", newline=None) as file:
            for line in file:
                yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path}: not a text file in UTF-8 ({error.reason}); unpack it again") from None
    except OSError as error:
        remedy = "check its permissions" if isinstance(error, PermissionError) else "check the path"
        raise BuildError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None


def read_cells(path: str, separator: Optional[str] = None) -> Iterator[Tuple[int, List[str]]]:
    """(line number, cells without the space around them) of each line of a CSV file that is not blank.

    separator: "," or ";", by default what the first line has more of. Each line is one row: an unclosed quote breaks
    that row only.
    """
    for number, line in enumerate(read_lines(path), 1):
        if line.strip():
            separator = separator or (";" if line.count(";") > line.count(",") else ",")
            try:
                cells = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
            except csv.Error as error:
                raise BuildError(f"{path} line {number}: not a row of a table ({error}); remove the line") from None
            yield number, [cell.strip() for cell in cells]


def require_columns(path: str, columns, needed) -> None:
    """Raise BuildError where one of `needed` is not among a table's `columns`."""
    missing = [name for name in needed if name not in columns]
    if missing:
        raise BuildError(
            f"{path}: no column {', '.join(missing)}; its header has: {', '.join(columns)}. "
            "Put the data set's own file back, or name the column as there"
        )


def unsafe_name(name: str) -> Optional[str]:
    """Why a file name from a table must not be opened, or None. A table must not reach outside its own folder.

    Links in the folder are followed wherever they lead, since data sets are often links to another disk: whoever made
    the folder made them, while a table is only text. What they lead to is read as a photo and as nothing else.
    """
    if not name or "\0" in name:
        return "no usable file name"
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or parts[0].endswith(":") or ".." in parts:
        return "file name leaves the data set's folder"
    return None


def box_problem(box, height: int, width: int) -> Optional[str]:
    """Why an annotated box (x, y, width, height) marks nothing in an image of this size, or None."""
    x, y, box_width, box_height = box
    if not all(math.isfinite(value) for value in box):
        return "box is not finite"
    if box_width <= 0 or box_height <= 0:
        return f"box is empty ({box_width:g} x {box_height:g})"
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        return f"box ({x:g}, {y:g}, {box_width:g}, {box_height:g}) lies outside the image of {width} x {height}"
    return None
