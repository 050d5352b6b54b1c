"""Weights files: .caffemodel (binary NetParameter) of any version, and HDF5 through `weights_hdf5`.

A legacy blob (num, channels, height, width) is always 4-D here: whether (1, 1, O, K) fits a parameter of shape (O, K)
is the net's decision.
"""

from __future__ import annotations

import math
import os

import numpy as np

from torchcaffe.core import names
from torchcaffe.formats import storage, wire
from torchcaffe.core.errors import NetError, WeightsError
from torchcaffe.formats.layer_weights import LayerWeights, WeightBlob
from torchcaffe.proto import caffe_pb2
from torchcaffe.formats.weights_hdf5 import read_weights_hdf5

_LIMIT = 2**31 - 1  # bytes; protobuf, and so Caffe, reads no more
_LAYER_BLOBS, _V1_BLOBS, _V0_BLOBS = 7, 6, 50  # field numbers
_V1, _LAYER = 2, 100  # fields of NetParameter


def read_weights(path) -> list:
    """Read all layers of a weights file, binary (V0, V1 or V2) or HDF5 according to its content.

    Returns:
        list of LayerWeights in the file's order, layers without parameters included.
    Raises:
        WeightsError: missing, truncated, another kind of file, or not consistent; names the layer and the remedy.
    """
    path = os.fspath(path)
    if storage.is_hdf5(path):
        return read_weights_hdf5(path)
    content = storage.read_bytes(path, WeightsError, "weights file", mapped=True)
    storage.refuse_other_kind(path, content, "caffemodel", WeightsError)
    layers, forms = [], set()
    try:
        for number, wire_type, span in wire.walk(content):
            if number in (_V1, _LAYER) and wire_type == wire.DELIMITED:
                forms.add(number)
                layers.append(_read_layer(path, content, span, number))
    except wire.TruncatedError as problem:
        after = f" after layer '{layers[-1].name}'" if layers else ""
        raise WeightsError(
            f"{path}: is truncated{after}: {len(content):,} bytes are there, {problem}; fetch or copy it again"
        ) from None
    except wire.WireError as problem:
        raise WeightsError(f"{path}: is not a .caffemodel ({problem}); give a weights file of Caffe") from None
    if not layers:
        raise WeightsError(f"{path}: holds no layers; give a weights file of Caffe (.caffemodel or .caffemodel.h5)")
    if len(forms) > 1:
        raise NetError(f"{path}: holds both 'layer' and 'layers' entries; write all layers in one form")
    return layers


def _read_layer(path, content, span, form):
    layer, blobs = LayerWeights(""), []
    for number, wire_type, value in _whole_walk(content, span):
        if form == _V1 and number == 1 and wire_type == wire.DELIMITED:  # a V0 layer inside
            for inner, inner_type, inner_value in _whole_walk(content, value):
                if inner == 1 and inner_type == wire.DELIMITED:
                    layer.name = _text(content, inner_value)
                elif inner == 2 and inner_type == wire.DELIMITED:
                    layer.type = _type_today("V0", _text(content, inner_value))
                elif inner == _V0_BLOBS and inner_type == wire.DELIMITED:
                    blobs.append(inner_value)
        elif form == _V1 and number == 5 and wire_type == wire.VARINT:
            layer.type = _type_today("V1", value)
        elif number == (4 if form == _V1 else 1) and wire_type == wire.DELIMITED:
            layer.name = _text(content, value)
        elif form == _LAYER and number == 2 and wire_type == wire.DELIMITED:
            layer.type = _text(content, value)
        elif number == (_V1_BLOBS if form == _V1 else _LAYER_BLOBS) and wire_type == wire.DELIMITED:
            blobs.append(value)
    layer.blobs = [_read_blob(path, content, span, layer.name, index) for index, span in enumerate(blobs)]
    return layer


def _whole_walk(content, span):
    """Walk a message that is complete in the file: a field that does not fit is an error, not a truncated file."""
    try:
        yield from wire.walk(content, *span)
    except wire.TruncatedError as problem:
        raise wire.WireError(f"a message that ends early: {problem}") from None


def _text(content, span):
    return content[span[0] : span[1]].decode("utf-8", "replace")


def _type_today(form, value):
    from torchcaffe.formats.upgrade import V1_TYPES
    from torchcaffe.formats.upgrade_v0 import V0_TYPES

    return V1_TYPES.get(V0_TYPES.get(value) if form == "V0" else value, "")


def _read_blob(path, content, span, layer, index):
    try:
        shape, legacy, data, diff = wire.read_blob(content, *span)
    except wire.WireError as problem:
        raise wire.WireError(f"layer '{layer}', blob {index}: {problem}") from None
    count = math.prod(shape)
    for values, what in ((data, "numbers"), (diff, "gradient numbers")):
        if values.size != count and (what == "numbers" or values.size):
            raise WeightsError(
                f"{path}: layer '{layer}', blob {index}: {values.size:,} {what} for shape {shape}, which has "
                f"{count:,}; the file is damaged: fetch or write it again"
            )
    return WeightBlob(data.reshape(shape), shape, legacy, diff.reshape(shape) if diff.size else None)


# ---- writing ----


def write_weights(path, net, blobs, diffs=None):
    """Write a .caffemodel byte for byte as protobuf would, without copying the arrays, atomically.

    Args:
        path: file to write.
        net: NetParameter (V2). Blobs in it are ignored.
        blobs: one entry per layer of `net`, in order: list of float32 arrays (N-d, converted where they are not).
        diffs: the same for the gradients, or None.
    Raises:
        WeightsError: the counts or shapes do not fit, or the file would have 2 GiB, more than Caffe can read.
    """
    diffs = [[None] * len(arrays) for arrays in blobs] if diffs is None else diffs
    if not len(net.layer) == len(blobs) == len(diffs):
        raise WeightsError(f"{path}: {len(net.layer)} layers, but blobs of {len(blobs)} and diffs of {len(diffs)}")
    message = caffe_pb2.NetParameter()
    message.CopyFrom(net)
    message.ClearField("layer")
    buffers = [message.SerializeToString()]  # all fields of NetParameter have smaller numbers than `layer`
    for layer, arrays, gradients in zip(net.layer, blobs, diffs):
        if len(arrays) != len(gradients):
            raise WeightsError(f"{path}: layer '{layer.name}': {len(arrays)} blobs and {len(gradients)} diffs")
        fields = []
        for array, gradient in zip(arrays, gradients):
            if gradient is not None and np.shape(gradient) != np.shape(array):
                raise WeightsError(
                    f"{path}: layer '{layer.name}': a blob of shape {np.shape(array)} and its diff of "
                    f"{np.shape(gradient)}"
                )
            fields += wire.delimited(_LAYER_BLOBS, wire.blob_buffers(array, gradient))
        before, after = _around(layer, _LAYER_BLOBS)
        buffers += wire.delimited(_LAYER, [before, *fields, after])
    write_buffers(path, buffers)


def _around(message, number):
    """The serialized fields of a message before and after field `number`, which is left out.

    Fields that the schema does not have, as those of a fork of Caffe, are kept: protobuf writes them last.
    """
    rest = type(message)()
    rest.CopyFrom(message)
    rest.ClearField(message.DESCRIPTOR.fields_by_number[number].name)
    content, before = rest.SerializePartialToString(), 0
    for found, wire_type, value in wire.walk(content):
        if found > number:
            break
        before = before + wire.size(wire.number_field(found, value)) if wire_type == wire.VARINT else value[1]
    return content[:before], content[before:]


def write_buffers(path, buffers, error=WeightsError):
    """Write a message given as buffers (see `wire`) to a file, atomically."""
    if wire.size(buffers) > _LIMIT:
        raise error(f"{path}: would have {wire.size(buffers):,} bytes, more than protobuf reads; use HDF5 (.h5)")
    with storage.atomic_write(path) as temporary, open(temporary, "wb") as file:
        for buffer in buffers:
            file.write(buffer)


def write_v1_weights(path, name, layers, inputs=()):
    """Write a .caffemodel of 2014 (V1 layers, 4-D blobs), as VGG_FACE.caffemodel is one.

    Args:
        path: file to write.
        name: the net's name.
        layers: (layer name, V1 type such as "INNER_PRODUCT", list of 4-D arrays) each. A convolution has (O, I, h, w)
            and (1, 1, 1, O); an inner product (1, 1, O, K) and (1, 1, 1, O).
        inputs: (name, (number, channels, height, width)) of each net input.
    Raises:
        WeightsError: an unknown type or an array without four axes.
    """
    types = caffe_pb2.V1LayerParameter.LayerType
    buffers = wire.delimited(1, [name.encode()])
    for layer, kind, arrays in layers:
        if kind not in types.keys():
            raise WeightsError(f"layer '{layer}': no V1 type '{kind}'; {names.suggestion(kind, types.keys(), 'known types:')}")
        fields = wire.delimited(4, [layer.encode()]) + wire.number_field(5, types.Value(kind))
        for array in arrays:
            try:
                fields += wire.delimited(_V1_BLOBS, wire.blob_buffers(array, legacy=True))
            except ValueError as problem:
                raise WeightsError(f"layer '{layer}': {problem}") from None
        buffers += wire.delimited(_V1, fields)
    for label, _ in inputs:
        buffers += wire.delimited(3, [label.encode()])
    for _, shape in inputs:
        for dim in shape:
            buffers += wire.number_field(4, dim)
    write_buffers(path, buffers)
