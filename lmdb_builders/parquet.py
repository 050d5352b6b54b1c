"""Hugging Face's edition of CelebA: parquet files with the aligned photos, `celeb_id` and forty booleans, no landmarks.

It is unpacked once, beside the parquet files, into a folder of photos and CelebA's CSV tables, which the reader then reads.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Dict, Iterator, List, Optional, Tuple

import recipe
from common.files import write_csv
from lmdb_builders.errors import BuildError
from lmdb_builders.layouts import Tree
from lmdb_builders.records import unsafe_name

FOLDER, PHOTOS = "celeba_from_parquet", "img_align_celeba"
PARTITIONS = {"train": 0, "valid": 1, "validation": 1, "val": 1, "test": 2}
SHARD = re.compile(r"(train|valid|validation|val|test)[-_.].*parquet$|(train|valid|validation|val|test)\.parquet$")
PRESENT = {1: 1, 0: -1, -1: -1}  # True is 1, False is 0
ROWS = 256  # held in memory at a time


def shards(tree: Tree) -> List[Tuple[str, int]]:
    """(path, CelebA's number of the partition) of each parquet file, training files first.

    Raises BuildError where they lie in several folders: these would be several editions.
    """
    found = []
    for folder in tree.folders:
        matches = {file: SHARD.match(file) for file in folder.files}
        found += [(PARTITIONS[match[1] or match[2]], os.path.join(folder.path, file)) for file, match in matches.items() if match]
    folders = sorted({tree.relative(os.path.dirname(path)) for _, path in found})
    if len(folders) > 1:
        raise BuildError(f"{tree.root}: parquet files lie in {', '.join(folders)}; give the folder of one edition")
    return [(path, partition) for partition, path in sorted(found)]


def unpack(tree: Tree) -> bool:
    """Write the photos and tables of the parquet files to FOLDER; False where there are no such files.

    Raises BuildError where pyarrow is missing or a file is not of the expected form.
    """
    files = shards(tree)
    if not files:
        return False
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise BuildError(f"{files[0][0]}: reading parquet needs pyarrow: pip install 'pyarrow>=17'") from None
    target = os.path.join(tree.root, FOLDER)
    part = os.path.join(tree.root, f".{FOLDER}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(os.path.join(part, PHOTOS))
        _write(files, part)
        os.rename(part, target)
    except OSError as error:
        raise BuildError(f"{target}: cannot be written ({error.strerror}); the photos of the parquet files are unpacked there, "
                         "so copy the files to a folder in which you can write") from None
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return True


def _write(files: List[Tuple[str, int]], target: str) -> None:
    attributes: List[list] = []
    partitions: Dict[str, int] = {}
    for path, partition in files:
        for content, name, values in _rows(path):
            if name is None or name in partitions:  # no name of its own
                name = f"{len(partitions) + 1:06d}.jpg"
                if name in partitions:
                    raise BuildError(f"{path}: two photos are named {name}; download the parquet files again")
            with open(os.path.join(target, PHOTOS, name), "wb") as file:
                file.write(content)
            attributes.append([name, *values])
            partitions[name] = partition
    write_csv(os.path.join(target, "list_attr_celeba.csv"), ["image_id", *recipe.CELEBA_ATTRIBUTES], attributes)
    write_csv(os.path.join(target, "list_eval_partition.csv"), ["image_id", "partition"], partitions.items())


def _rows(path: str) -> Iterator[Tuple[bytes, Optional[str], List[int]]]:
    """(bytes of the photo, its file name or None, forty values -1 or 1) of each row."""
    import pyarrow
    from pyarrow import parquet

    columns = ["image", *recipe.CELEBA_ATTRIBUTES]
    try:
        with parquet.ParquetFile(path) as file:
            missing = [name for name in columns if name not in file.schema_arrow.names]
            if missing:
                raise BuildError(f"{path}: no column {', '.join(missing)}; its columns are {', '.join(file.schema_arrow.names)}")
            for number, row in enumerate(row for batch in file.iter_batches(ROWS, columns=columns) for row in batch.to_pylist()):
                image = row["image"]
                content = image.get("bytes") if isinstance(image, dict) else image
                values = [PRESENT[row[name]] for name in recipe.CELEBA_ATTRIBUTES if row[name] in PRESENT]
                if not isinstance(content, bytes) or len(values) != len(recipe.CELEBA_ATTRIBUTES):
                    raise BuildError(f"{path} row {number + 1}: expected the bytes of a photo in `image` and forty booleans")
                name = os.path.basename(image.get("path") or "") if isinstance(image, dict) else ""
                yield content, None if unsafe_name(name) else name, values
    except pyarrow.ArrowException as error:
        raise BuildError(f"{path}: not a parquet file ({str(error).splitlines()[0]}); download it again") from None
