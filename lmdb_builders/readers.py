"""Read any data set of recipe.DATASETS, by the reader that its entry names.

    from lmdb_builders import readers
    faces = readers.read("fotw", "FotW", ("val",))     # records.DataSet
"""

from __future__ import annotations

import importlib
from typing import Dict, Iterable

import recipe
from lmdb_builders.errors import BuildError
from lmdb_builders.records import DataSet


def read(name: str, folder: str, splits: Iterable[str] = ("train", "val"), edition: str = "auto") -> DataSet:
    """Read the tables of a data set; of `splits`, those that it has. Photos are looked for, not opened.

    edition: of the photos, where the data set has several (recipe.DataSet.editions). Raises BuildError where the reader
    cannot be imported, what it returns does not fit recipe.DATASETS, or a file or column is missing.
    """
    entry = recipe.DATASETS[name]
    options: Dict[str, str] = {"edition": edition} if entry.editions else {}
    dataset = _reader(entry)(folder, splits=tuple(split for split in entry.splits if split in splits), **options)
    where = f"recipe.DATASETS[{name!r}]: its reader {entry.reader}"
    if not isinstance(dataset, DataSet) or dataset.name != name:
        raise BuildError(f"{where} has to return a lmdb_builders.records.DataSet named {name!r}, not "
                         f"{getattr(dataset, 'name', dataset)!r}")
    if tuple(dataset.label_names) != entry.labels:
        raise BuildError(f"{where} returns the labels {', '.join(dataset.label_names)}, not {', '.join(entry.labels)} as its "
                         "`labels` there")
    if not entry.undetermined and any(recipe.UNUSABLE in record.labels for record in dataset.records):
        raise BuildError(f"{where} returns labels that are neither 0 nor 1: leave out undetermined=False there")
    return dataset


def _reader(entry: recipe.DataSet):
    module, _, function = entry.reader.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, ValueError, AttributeError) as error:
        raise BuildError(f"recipe.DATASETS[{entry.name!r}]: reader {entry.reader!r} cannot be imported ({error}); "
                         "it is \"module:function\"") from None
