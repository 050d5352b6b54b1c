"""Deal two data sets' faces into folds, and lay each fold out as CelebA and FotW are: its faces as those of validation."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

from lmdb_builders.errors import BuildError
from lmdb_builders.records import SPLITS  # in the order of CelebA's list_eval_partition

if TYPE_CHECKING:
    from lmdb_builders.records import DataSet, FaceRecord


def deal(records: "Sequence[FaceRecord]", columns: Sequence[int], folds: int, seed: int) -> Dict[str, int]:
    """Photo -> its fold, 0 and on: at random, and evenly by the labels in `columns` (of gender and smile)."""
    import numpy as np

    order = np.random.default_rng(seed).permutation(len(records))
    groups = sorted(order, key=lambda place: [records[place].labels[column] for column in columns])  # sorted() is stable
    return {records[place].image: number % folds for number, place in enumerate(groups)}


def write_celeba(data_set: "DataSet", fold_of: Dict[str, int], fold: int, folder: Path) -> None:
    """CelebA in `folder`, by links, with a partition of its own."""
    train, val = SPLITS.index("train"), SPLITS.index("val")
    lines = [f"{os.path.basename(image)} {val if number == fold else train}" for image, number in fold_of.items()]
    beside(Path(data_set.folder), folder, data_set.tables["train"], "\n".join(sorted(lines)) + "\n")


def beside(source: Path, target: Path, path: str, text: str) -> None:
    """Links in `target` to all that `source` holds, but for the file `path`, which holds `text` there."""
    first, _, rest = path.partition("/")
    target.mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir():
        if entry.name != first:
            (target / entry.name).symlink_to(entry.resolve())
    if rest:
        beside(source / first, target / first, rest, text)
    else:
        (target / first).write_text(text)


def write_fotw(data_set: "DataSet", fold_of: Dict[str, int], fold: int, folder: Path) -> None:
    """FotW in `folder`: its tables, and links to its photos. Raises BuildError for two photos of one name."""
    from lmdb_builders.fotw import BOX_COLUMNS, LABEL_COLUMNS, NAME_COLUMN, PLACES

    twice = [name for name, number in Counter(map(os.path.basename, fold_of)).items() if number > 1]
    if twice:
        raise BuildError(f"{data_set.folder} has two photos named {twice[0]}: folds need names of their own")
    for split in ("train", "val"):
        names, table = PLACES[split]
        place = folder / names[0]
        place.mkdir(parents=True)
        lines = [",".join((NAME_COLUMN, *BOX_COLUMNS, *LABEL_COLUMNS))]
        for record in data_set.records:
            if (fold_of[record.image] == fold) == (split == "val"):
                name = os.path.basename(record.image)
                (place / name).symlink_to(os.path.abspath(os.path.join(data_set.folder, record.image)))
                lines.append(",".join([name, *map("{:g}".format, record.box or (0, 0, 0, 0)), *map(str, record.labels)]))
        (place / table).write_text("\n".join(lines) + "\n")


def read_all(celeba: str, fotw: str) -> "Tuple[DataSet, DataSet, List[List[int]]]":
    """Both data sets with all their splits, and in which columns their labels of gender and smile are."""
    import recipe
    from lmdb_builders.celeba import read_celeba
    from lmdb_builders.fotw import find_split, read_fotw
    from lmdb_builders.layouts import Tree

    splits = []
    for split in SPLITS:  # FotW's test split is seldom there
        try:
            find_split(Tree(fotw, ""), split)
            splits.append(split)
        except BuildError:
            if split != "test":
                raise
    data_sets = read_celeba(celeba, SPLITS), read_fotw(fotw, splits)
    columns = [[data_set.label_names.index(recipe.DATASETS[data_set.name].columns[task]) for task in ("gender", "smile")]
               for data_set in data_sets]
    return (*data_sets, columns)
