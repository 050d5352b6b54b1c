"""Weights and solver states in Caffe's HDF5 layout.

Weights: /data/<layer>/<index>, a group for every layer, float32 with the blob's shape; /diff likewise where gradients
are kept; a shared parameter is stored with its owner only. Solver states: `iter`, `learned_net`, `current_step` and
the group `history` with "0", "1", ...
"""

from __future__ import annotations

import os

import numpy as np

from torchcaffe.core.names import listed
from torchcaffe.core import extras
from torchcaffe.formats import storage
from torchcaffe.core.errors import WeightsError
from torchcaffe.formats.hdf5 import member, names, open_hdf5, read_array
from torchcaffe.formats.layer_weights import LayerWeights, WeightBlob

MAXIMUM_BLOBS = 1000  # of a layer, in a file


def read_weights_hdf5(path) -> list:
    """List of LayerWeights (type empty, diff None: Caffe does not load it), in order of layer names.

    Raises:
        WeightsError: not Caffe's layout, or not numbers.
    """
    h5py = extras.load("h5py")

    path = os.fspath(path)
    with open_hdf5(path) as file:
        if "data" not in file or not isinstance(member(path, file, "data"), h5py.Group):
            what = "a solver state; give the .caffemodel.h5 beside it" if "history" in file else "not weights of Caffe"
            raise WeightsError(f"{path}: has no group 'data': it is {what}; it holds {listed(names(path, file))}")
        layers = member(path, file, "data")
        return [LayerWeights(name, "", _read_blobs(path, name, member(path, layers, name))) for name in names(path, layers)]


def _read_blobs(path, layer, group):
    if not hasattr(group, "keys") or not all(key.isdecimal() for key in names(path, group)):
        raise WeightsError(f"{path}: layer '{layer}' is not a group of numbered arrays: not weights of Caffe")
    last = max(map(int, group), default=-1)
    if last >= MAXIMUM_BLOBS:
        raise WeightsError(f"{path}: layer '{layer}' has a blob numbered {last}: not weights of Caffe")
    blobs = [None] * (last + 1)
    for key in group:
        data = read_array(path, member(path, group, key), f"layer '{layer}', blob {key}")
        blobs[int(key)] = WeightBlob(data, data.shape)
    return blobs


def write_weights_hdf5(path, layers, diffs=None):
    """Write weights in Caffe's HDF5 layout, atomically.

    Args:
        path: file to write (Caffe's name for it: <prefix>_iter_<n>.caffemodel.h5).
        layers: (name, arrays) for every layer in order; arrays is a list, where None is left out (a parameter that
            another layer owns), or a dict {index: array}.
        diffs: the same for gradients, shared ones included, or None.
    Raises:
        WeightsError: a layer name that occurs twice or has a "/", which HDF5 reads as a path.
    """
    h5py = extras.load("h5py")

    written = [name for name, _ in layers]
    for name in written:
        if "/" in name:
            raise WeightsError(f"{path}: layer '{name}': HDF5 allows no '/' in a name; rename it, or use BINARYPROTO")
        if written.count(name) > 1:
            raise WeightsError(f"{path}: two layers are called '{name}'; rename one, or use BINARYPROTO")
    with storage.atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        for group, content in (("data", layers), ("diff", diffs)):
            if content is None:
                continue
            parent = file.create_group(group)
            for name, arrays in content:
                _write_arrays(parent.create_group(name), arrays)


def _write_arrays(group, arrays):
    for index, array in arrays.items() if hasattr(arrays, "items") else enumerate(arrays):
        if array is not None:
            group.create_dataset(str(index), data=np.asarray(array, "<f4"))


def write_solver_state_hdf5(path, state):
    """Write a files.SolverState in Caffe's HDF5 layout, atomically."""
    h5py = extras.load("h5py")

    with storage.atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        file.create_dataset("iter", data=np.array([state.iter], np.int32))
        _write_c_string(file, "learned_net", state.learned_net)
        file.create_dataset("current_step", data=np.array([state.current_step], np.int32))
        _write_arrays(file.create_group("history"), state.history)


def _write_c_string(file, name, text):
    """A scalar of fixed length with a closing NUL, which is how Caffe reads and writes strings."""
    h5py = extras.load("h5py")

    content = text.encode() + b"\0"
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(len(content))
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create(h5py.h5s.SCALAR))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(content, f"S{len(content)}"), kind)
