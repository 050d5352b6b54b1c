"""Safe reading of untrusted HDF5 files: only plain arrays, stored in the file itself, of a plausible size.

HDF5 allows links to other files, datasets in other files, and huge declared sizes. Caffe's files use none of these, so
they are rejected.
"""

from __future__ import annotations

import contextlib
import math
import os

import numpy as np

from torchcaffe.core import extras, memory, shapes
from torchcaffe.core.errors import CaffeError, WeightsError

PACKED = 1100  # bytes that one stored byte can stand for: deflate, the closest packing in use, reaches 1032
LONGEST_TEXT = 1 << 16  # bytes of a path


@contextlib.contextmanager
def open_hdf5(path, error=WeightsError):
    """Open a file for reading; raises `error`, one line, where HDF5 cannot read it or something in it."""
    h5py = extras.load("h5py")

    if not os.path.isfile(path):
        raise error(f"{path}: no such file, or not a regular file; check the path")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except CaffeError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError) as problem:
        said = " ".join(str(problem.args[0] if problem.args else problem).split())
        raise error(f"{path}: HDF5 cannot read it (truncated or damaged?): {said}; fetch or copy it again") from None


def names(path, group, error=WeightsError) -> list:
    """The names in a group, str; raises `error` for a name that is not UTF-8 (h5py returns bytes then)."""
    found = list(group)
    odd = next((name for name in found if not isinstance(name, str)), None)
    if odd is not None:
        raise error(f"{path}: the name {odd!r} in {group.name} is not UTF-8 text; the file is damaged or not Caffe's")
    return found


def member(path, group, name, error=WeightsError):
    """The h5py.Group or Dataset `name` of a group, in this file. KeyError where there is none."""
    h5py = extras.load("h5py")

    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise error(f"{path}: {name} is a link, and links are not followed; write the file without links")
    return group[name]


def read_numbers(path, dataset, what, error=WeightsError) -> np.ndarray:
    """The array of a dataset of floats or integers, in its stored dtype.

    Raises:
        error: not numbers, stored in another file, or a shape too large for the file or for the memory.
    """
    h5py = extras.load("h5py")

    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu" or dataset.shape is None:
        raise error(f"{path}: {what} is not an array of numbers")
    if dataset.is_virtual or dataset.external:
        raise error(f"{path}: {what} is stored in another file, which is not read; copy the array into this file")
    problem = shapes.problem(dataset.shape)
    if problem:
        raise error(f"{path}: {what}: {problem}")
    declared = dataset.dtype.itemsize * max(dataset.size, math.prod(dataset.chunks or ()))
    stored = dataset.id.get_storage_size()
    if declared > PACKED * stored + memory.LARGE:
        raise error(
            f"{path}: {what} has the shape {dataset.shape}, {declared:,} bytes, of which the file holds {stored:,}; "
            "it is damaged: fetch or write it again"
        )
    memory.require(declared + 4 * dataset.size, f"{path}: {what} of shape {dataset.shape}", error)
    return dataset[()]


def read_array(path, dataset, what, error=WeightsError) -> np.ndarray:
    """As read_numbers, converted to float32."""
    return np.asarray(read_numbers(path, dataset, what, error), np.float32)


def read_text(path, dataset, what, error=WeightsError) -> str:
    """A single string."""
    h5py = extras.load("h5py")

    fits = isinstance(dataset, h5py.Dataset) and dataset.shape == () and dataset.dtype.kind in "SO"
    if not fits or dataset.external or dataset.is_virtual or dataset.dtype.itemsize > LONGEST_TEXT:
        raise error(f"{path}: {what} is not a string")
    value = dataset[()]
    if not isinstance(value, (bytes, str)):
        raise error(f"{path}: {what} is not a string")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
