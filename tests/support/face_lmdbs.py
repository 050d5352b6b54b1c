"""A data set's two LMDBs, of faces and of their labels, as its build writes them."""

from __future__ import annotations

from contextlib import closing
from typing import Iterable, Sequence, Tuple

import numpy as np

from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, labels_datum, record_key


def write(folder: str, faces: Iterable[Tuple[str, np.ndarray, Sequence[int]]], encode: str = "raw") -> None:
    """Write `folder` and `folder`_labels. faces: (file name, crop of H x W x 3 uint8 BGR, labels)."""
    with closing(LmdbWriter(folder)) as images, closing(LmdbWriter(folder + "_labels")) as labels:
        for index, (name, crop, values) in enumerate(faces):
            images.put(record_key(index, name), image_datum(encode_crop(crop, encode), len(crop), encode))
            labels.put(record_key(index, name), labels_datum(bytes(values)))
