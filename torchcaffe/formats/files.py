"""Read and write Caffe's files: nets and solvers (text), weights, solver states and arrays (binary, HDF5).

Nets and solvers are upgraded to Caffe 1.0's form when read (`upgrade`); files are written as Caffe 1.0 writes them. The
content decides what a file is, not its name. Every error is one line with the file, the place in it and the remedy.
"""

from __future__ import annotations

import math
import os

import numpy as np

from torchcaffe.formats import storage, wire
from torchcaffe.core.errors import DataError, PrototxtError
from torchcaffe.formats.layer_weights import LayerWeights, WeightBlob
from torchcaffe.proto import caffe_pb2
from torchcaffe.formats.solver_state import SolverState, read_solver_state, write_solver_state
from torchcaffe.formats.storage import atomic_write
from torchcaffe.formats.prototxt import parse
from torchcaffe.formats.upgrade import upgrade_net, upgrade_solver
from torchcaffe.formats.weights import read_weights, write_buffers, write_v1_weights, write_weights
from torchcaffe.formats.weights_hdf5 import write_weights_hdf5

__all__ = [
    "LayerWeights", "SolverState", "WeightBlob", "atomic_write", "parse_net", "parse_solver", "read_blob", "read_net",
    "read_solver", "read_solver_state", "read_weights", "write_blob", "write_solver_state", "write_v1_weights",
    "write_weights", "write_weights_hdf5",
]  # fmt: skip


def read_net(path):
    """NetParameter of a net's definition (.prototxt), upgraded to V2.

    Raises:
        PrototxtError: missing, binary, or not a net; names the line.
        NetError: a legacy net that cannot be upgraded.
    """
    return parse_net(_read_text(path, "net definition"), os.fspath(path))


def parse_net(text: str, name: str = "<string>"):
    """NetParameter of a net's definition given as text, upgraded to V2; `name` is used in messages.

    Raises: as read_net.
    """
    return upgrade_net(parse(text, caffe_pb2.NetParameter(), name), name)


def read_solver(path):
    """SolverParameter of a solver's definition (.prototxt), upgraded.

    An unset snapshot_prefix becomes the solver's path without its extension; one that names a folder gets the
    solver's name appended, as in Caffe.

    Raises:
        PrototxtError: missing, binary, or not a solver; names the line.
        SolverError: both `type` and `solver_type` are set.
    """
    path = os.fspath(path)
    solver = parse_solver(_read_text(path, "solver definition"), path)
    stem = os.path.splitext(path)[0]
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = stem
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, os.path.basename(stem))
    return solver


def parse_solver(text: str, name: str = "<string>"):
    """SolverParameter of a solver's definition given as text, upgraded; snapshot_prefix gets no default."""
    return upgrade_solver(parse(text, caffe_pb2.SolverParameter(), name), name)


def _read_text(path, what):
    content = storage.read_bytes(path, PrototxtError, what)
    storage.refuse_other_kind(path, content, "text", PrototxtError)
    return content.decode("utf-8-sig", "replace")


def read_blob(path) -> np.ndarray:
    """Array of a .binaryproto file, float32 with the file's shape; a mean image is (1, C, H, W), BGR.

    Raises:
        DataError: missing, truncated, or another kind of file.
    """
    content = storage.read_bytes(path, DataError, "array file (.binaryproto)")
    storage.refuse_other_kind(path, content, "blob", DataError)
    try:
        shape, _, data, _ = wire.read_blob(content)
    except wire.WireError as problem:
        raise DataError(f"{path}: is truncated or not a .binaryproto ({problem}); write or fetch it again") from None
    if data.size != math.prod(shape):
        raise DataError(f"{path}: {data.size:,} numbers for shape {shape}; write or fetch it again")
    return data.reshape(shape)


def write_blob(path, array, legacy: bool = False):
    """Write a .binaryproto file, atomically.

    Args:
        array: any shape; stored as float32.
        legacy: state the shape as num, channels, height, width, as compute_image_mean does (four axes only).
    """
    try:
        buffers = wire.blob_buffers(np.asarray(array, np.float32), legacy=legacy)
    except ValueError as problem:
        raise DataError(f"{path}: {problem}") from None
    write_buffers(path, buffers, DataError)
