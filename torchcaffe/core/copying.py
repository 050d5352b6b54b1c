"""Reading, sharing and writing the weights of a net: by layer name, as Caffe does it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import List

import numpy as np
import torch

from torchcaffe.core import log, names
from torchcaffe.formats import storage
from torchcaffe.core.errors import WeightsError
from torchcaffe.proto import caffe_pb2

BLOCK = 2**21  # numbers copied at a time


@dataclass
class CopyReport:
    """What copy_from did, by layer name."""

    source: str
    copied: List[str] = field(default_factory=list)
    ignored: List[str] = field(default_factory=list)  # in the file, not in the net
    left: List[str] = field(default_factory=list)  # in the net, not in the file: still at their fillers

    def __str__(self):
        parts = [f"{self.source}: copied {len(self.copied)} layers"]
        if self.left:
            parts.append(f"left at their initial values: {names.listed(self.left)}")
        if self.ignored:
            parts.append(f"not in this net: {names.listed(self.ignored)}")
        return "; ".join(parts)


def legacy_dims(dims):
    """Shape left-padded with ones to four axes, as files before BlobShape state it."""
    return (1,) * (4 - len(dims)) + tuple(dims)


def copy_weights(net, path) -> CopyReport:
    """Copy the parameters of layers that have the file's names (caffemodel or HDF5) into a net.

    Raises WeightsError, before anything is changed, where a layer's blobs do not fit.
    """
    from torchcaffe.formats.files import read_weights

    target = {}
    for layer in net.built_layers:
        target.setdefault(layer.name, layer)
    report, pairs, filled = CopyReport(str(path)), [], set()
    owned = {id(blob) for blob in net.learnable}
    for source in read_weights(path):
        layer = target.get(source.name)
        if layer is None:
            log.info(f"Ignoring source layer {source.name}")
            if source.blobs:
                report.ignored.append(source.name)
            continue
        _check_fit(path, source, layer, owned)
        pairs += [(layer.blobs[index], blob) for index, blob in enumerate(source.blobs) if blob is not None]
        if layer.blobs:
            report.copied.append(source.name)
        filled.update(id(blob.data_memory) for blob in layer.blobs)
    for blob, given in pairs:
        _copy(given.data, blob)
        if given.diff is not None:
            blob.put_diff(_tensor(given.diff, blob))
    report.left = [
        name for name, blobs in net.params.items() if any(id(blob.data_memory) not in filled for blob in blobs)
    ]
    log.info(str(report))
    return report


def _check_fit(path, source, layer, owned):
    blobs = source.blobs + [None] * (len(layer.blobs) - len(source.blobs))
    # HDF5 stores a shared parameter with its owner only; every other blob has to be there.
    missing = any(given is None and id(blob) in owned for given, blob in zip(blobs, layer.blobs))
    if missing or len(blobs) != len(layer.blobs):
        raise WeightsError(
            f'{path}: layer "{source.name}" has {len(source.blobs)} blobs there and {len(layer.blobs)} in this net; '
            "rename the layer to start it from its fillers"
        )
    for index, (given, blob) in enumerate(zip(source.blobs, layer.blobs)):
        if given is None:
            continue
        if given.legacy:
            fits = len(blob.dims) <= 4 and legacy_dims(blob.dims) == tuple(given.shape)
        else:
            fits = blob.dims == tuple(given.shape)
        if not fits:
            raise WeightsError(
                f'{path}: layer "{source.name}", blob {index}: the file has shape {tuple(given.shape)}, this net '
                f"{blob.dims}; rename the layer to start it from its fillers"
            )


def share_weights(net, other):
    """Let `net` use the memory of `other`'s parameters, by layer name. Raises WeightsError for other shapes."""
    source = {layer.name: layer for layer in reversed(other.built_layers)}
    for layer in net.built_layers:
        owner = source.get(layer.name)
        if owner is None:
            if layer.blobs:
                log.info(f"Layer {layer.name} is not in the net it should share with")
            continue
        shapes, others = ([blob.dims for blob in which.blobs] for which in (layer, owner))
        if shapes != others:
            raise WeightsError(f'layer "{layer.name}" cannot share weights: shapes {shapes} and {others}')
        for blob, owned in zip(layer.blobs, owner.blobs):
            blob.share_data(owned)


def save_weights(net, path, with_diffs: bool):
    """Write a caffemodel (V2, as Caffe 1.0 writes it): every layer with its effective parameters, and its blobs."""
    writer(net, with_diffs)(path)


def save_weights_hdf5(net, path, with_diffs: bool):
    """Write weights in Caffe's HDF5 layout. Raises WeightsError where two layers have one name."""
    writer_hdf5(net, with_diffs)(path)


def writer(net, with_diffs: bool, copied: bool = False):
    """A function that writes a caffemodel to the path it is given; `copied`: of the weights as they are now."""
    from torchcaffe.formats.files import write_weights

    definition = caffe_pb2.NetParameter(name=net.param.name)
    for layer in net.built_layers:
        copy = definition.layer.add()
        copy.CopyFrom(layer.param)
        del copy.blobs[:]
    diffs = [[_diff(blob, copied) for blob in layer.blobs] for layer in net.built_layers] if with_diffs else None
    arrays = [[_array(blob, copied) for blob in layer.blobs] for layer in net.built_layers]
    return lambda path: write_weights(path, definition, arrays, diffs)


def writer_hdf5(net, with_diffs: bool, copied: bool = False):
    """As `writer`, for Caffe's HDF5 layout. Raises WeightsError where two layers have one name."""
    from torchcaffe.formats.files import write_weights_hdf5

    layer_names = [layer.name for layer in net.built_layers]
    repeated = {name for name in layer_names if layer_names.count(name) > 1}
    if repeated:
        raise WeightsError(f"HDF5 weights need unique layer names; repeated: {names.listed(sorted(repeated))}")
    owned = {id(blob) for blob in net.learnable}
    layers = [
        (layer.name, {i: _array(blob, copied) for i, blob in enumerate(layer.blobs) if id(blob) in owned})
        for layer in net.built_layers
    ]
    diffs = None
    if with_diffs:
        diffs = [
            (layer.name, {i: _diff(blob, copied) for i, blob in enumerate(layer.blobs)}) for layer in net.built_layers
        ]
    return lambda path: write_weights_hdf5(path, layers, diffs)


def _array(blob, copied: bool):
    """Host array of a parameter for writing, without marking it as written; on a CPU its own memory unless `copied`."""
    return host_array(blob.tensor(), copied)


def host_array(tensor, copied: bool):
    """The tensor's numbers on the host; on a CPU its own memory unless `copied`."""
    array = tensor.detach().cpu().numpy()
    return array.copy() if copied and tensor.device.type == "cpu" else array


def _diff(blob, copied: bool):
    return blob.diff.copy() if copied else blob.diff


def _copy(array, blob):
    """Copy `array` into a parameter, a block at a time; what was copied from a mapped file leaves our memory again."""
    memory = blob.data_memory
    source, target = _tensor(array, blob).reshape(-1), memory.tensor.detach().reshape(-1)
    plain = memory.tensor.is_contiguous() and source.data_ptr() == array.ctypes.data
    if not plain or source.numel() <= BLOCK:
        storage.fetch(array)
        memory.put(source)
        return
    flat = array.reshape(-1)
    for start in range(0, len(flat), BLOCK):
        storage.fetch(flat[start : start + BLOCK])
        target[start : start + BLOCK].copy_(source[start : start + BLOCK])
        storage.forget(flat[start : start + BLOCK])
    memory.written()


def _tensor(array, blob):
    """`array` (often a read-only view on the file) as a tensor to copy from."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writ")
        return torch.from_numpy(np.asarray(array, np.float32).reshape(blob.dims))
