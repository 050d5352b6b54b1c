"""Packages that only some parts of torchcaffe need: imported on first use, with the pip command where one is missing."""

from __future__ import annotations

import functools
import importlib

from torchcaffe.core.errors import CaffeError

# Name to import -> (its name on PyPI, the extra of torchcaffe that installs it, what needs it).
PACKAGES = {
    "cv2": ("opencv-python-headless", "images", "reading and resizing images"),
    "PIL": ("pillow", "images", "reading images"),
    "pillow_heif": ("pillow-heif", "heic", "reading HEIC photos"),
    "h5py": ("h5py", "hdf5", "reading and writing HDF5"),
    "skimage": ("scikit-image", "io", "loading and resizing images with caffe.io"),
    "scipy": ("scipy", "io", "resizing arrays of more than 3 channels"),
    "onnx": ("onnx", "export", "reading and writing ONNX"),
    "onnxruntime": ("onnxruntime", "export", "running ONNX files"),
    "safetensors": ("safetensors", "export", "reading and writing safetensors"),
    "pydot": ("pydot", "draw", "drawing nets, besides Graphviz's program dot,"),
    "plyvel": ("plyvel", "leveldb", "reading and writing LevelDB"),
}


class MissingPackageError(CaffeError, ImportError):
    """An optional package that is not installed; names the pip command."""


def load(name: str):
    """The module `name` of one of PACKAGES. Raises MissingPackageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        top = name.partition(".")[0]
        if problem.name != top:
            raise
        package, extra, use = PACKAGES[top]
        raise MissingPackageError(
            f"{use} needs the package {package}, which is not installed; type: pip install {package} "
            f"(torchcaffe's extra '{extra}')"
        ) from None


@functools.cache
def load_or_none(name: str):
    """As load, with None where the package is not installed."""
    try:
        return load(name)
    except MissingPackageError:
        return None
