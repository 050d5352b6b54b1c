"""Protobuf's wire format, as far as needed to locate and write a file's arrays without copying them.

A caffemodel of 537 MB is a few hundred fields, sixteen of which are large. `walk` steps over fields by their lengths,
so a blob is a span of the file and `np.frombuffer` makes it an array; writing goes the same way back. Everything else
of a file is read and written by protobuf itself.
"""

from __future__ import annotations

import numpy as np

from torchcaffe.core import shapes

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Bytes that are not a protobuf message."""


class TruncatedError(WireError):
    """A field that extends beyond the end by `missing` bytes."""

    def __init__(self, missing):
        super().__init__(f"at least {missing:,} bytes are missing")
        self.missing = missing


def read_varint(buffer, position, end):
    """(unsigned value, position after it)"""
    value = shift = 0
    while position < end:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise WireError("a number of more than ten bytes")
    raise TruncatedError(1)


def signed(value):
    """Two's complement of 64 bits, as int32 and int64 fields store negative numbers."""
    return value - (1 << 64) if value >> 63 else value


def walk(buffer, start=0, end=None):
    """Yield (field number, wire type, value) of a message; value is a number for VARINT, else a span (start, end)."""
    position, end = start, len(buffer) if end is None else end
    while position < end:
        key, position = read_varint(buffer, position, end)
        number, wire_type = key >> 3, key & 7
        if number == 0:
            raise WireError("a field numbered 0")
        if wire_type == VARINT:
            value, position = read_varint(buffer, position, end)
            yield number, wire_type, value
            continue
        if wire_type == DELIMITED:
            length, position = read_varint(buffer, position, end)
        elif wire_type in (FIXED32, FIXED64):
            length = 4 if wire_type == FIXED32 else 8
        else:
            raise WireError(f"wire type {wire_type}")
        if position + length > end:
            raise TruncatedError(position + length - end)
        yield number, wire_type, (position, position + length)
        position += length


# ---- arrays ----

_ARRAYS = {5: ("data", "<f4"), 6: ("diff", "<f4"), 8: ("data", "<f8"), 9: ("diff", "<f8")}  # fields of BlobProto


def read_blob(buffer, start=0, end=None):
    """Read a BlobProto: (shape, legacy, data, diff).

    Returns:
        shape: tuple of int; legacy: True where it comes from num, channels, height, width.
        data, diff: 1-D float32 arrays, views of `buffer` where the file holds packed floats; empty where it holds none.
    Raises:
        WireError: not a BlobProto, or of a shape that Caffe refuses.
    """
    legacy, dims = {}, ()
    arrays = {"<f4": {"data": [], "diff": []}, "<f8": {"data": [], "diff": []}}
    for number, wire_type, value in walk(buffer, start, end):
        if number <= 4 and wire_type == VARINT:
            legacy[number] = signed(value)
        elif number == 7 and wire_type == DELIMITED:
            dims = check_shape(dims + read_dims(buffer, *value))
        elif number in _ARRAYS:
            name, dtype = _ARRAYS[number]
            if wire_type != DELIMITED:
                return _read_unpacked(bytes(memoryview(buffer)[start:end]))
            if (value[1] - value[0]) % int(dtype[2]):
                raise WireError("a list of numbers that ends inside a number")
            arrays[dtype][name].append(_view(buffer, value, dtype))
    shape = check_shape(tuple(legacy.get(number, 0) for number in (1, 2, 3, 4))) if legacy else dims
    data, diff = (_array(arrays["<f8"][name], arrays["<f4"][name]) for name in ("data", "diff"))
    return shape, bool(legacy), data, diff


def _view(buffer, span, dtype):
    return np.frombuffer(buffer, dtype, (span[1] - span[0]) // int(dtype[2]), span[0])


def _array(doubles, floats):
    """One float32 array from the pieces of packed lists (almost always a single piece); doubles win, as in Caffe."""
    pieces = [piece for piece in doubles if piece.size] or [piece for piece in floats if piece.size]
    if not pieces:
        return np.empty(0, np.float32)
    whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
    with np.errstate(over="ignore"):  # a double beyond float32 is an infinity
        return whole.astype(np.float32, copy=False)


def check_shape(shape):
    """The shape, where a blob can have it. Raises WireError."""
    problem = shapes.problem(shape)
    if problem:
        raise WireError(problem)
    return shape


def read_dims(buffer, start, end):
    """The dims of a BlobShape, packed or not; of too many, as many as it takes to see that."""
    dims = []
    for number, wire_type, value in walk(buffer, start, end):
        if len(dims) > shapes.MAXIMUM_AXES:
            break
        if number == 1 and wire_type == VARINT:
            dims.append(signed(value))
        elif number == 1 and wire_type == DELIMITED:
            position, stop = value
            while position < stop and len(dims) <= shapes.MAXIMUM_AXES:
                dim, position = read_varint(buffer, position, stop)
                dims.append(signed(dim))
    return tuple(dims)


def _read_unpacked(message):
    """A BlobProto whose floats are tagged one by one, as protobuf before 2.3 wrote them: left to protobuf."""
    from google.protobuf.message import DecodeError

    from torchcaffe.proto import caffe_pb2

    try:
        blob = caffe_pb2.BlobProto.FromString(message)
    except DecodeError:
        raise WireError("not a BlobProto") from None
    legacy = any(blob.HasField(name) for name in ("num", "channels", "height", "width"))
    shape = check_shape((blob.num, blob.channels, blob.height, blob.width) if legacy else tuple(blob.shape.dim))
    data, diff = blob.double_data or blob.data, blob.double_diff or blob.diff
    return shape, legacy, np.array(data, np.float32), np.array(diff, np.float32)


# ---- writing: a message is a list of buffers, so that arrays go to the file without being copied ----


def varint(value):
    """The bytes of an int32, int64, uint or enum value."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number_field(number, value):
    """A field of an integer, enum or bool, as buffers."""
    return [varint(number << 3 | VARINT) + varint(int(value))]


def delimited(number, buffers):
    """A field of a string, bytes or message, as buffers."""
    return [varint(number << 3 | DELIMITED) + varint(size(buffers)), *buffers]


def size(buffers):
    return sum(buffer.nbytes if isinstance(buffer, np.ndarray) else len(buffer) for buffer in buffers)


def blob_buffers(array, diff=None, legacy=False):
    """A BlobProto as buffers: data, diff and `shape`; with legacy=True the four old fields in place of `shape`.

    Raises:
        ValueError: legacy=True for an array without four axes.
    """
    buffers = []
    if legacy:
        if np.ndim(array) != 4:
            raise ValueError(f"a legacy blob has four axes (num, channels, height, width), not {np.shape(array)}")
        for number, dim in enumerate(np.shape(array), 1):
            buffers += number_field(number, dim)
    for number, values in ((5, array), (6, diff)):
        if values is not None and np.size(values):
            buffers += delimited(number, [np.ascontiguousarray(values, "<f4").reshape(-1)])
    if np.ndim(array) and not legacy:
        dims = b"".join(varint(dim) for dim in np.shape(array))
        buffers += delimited(7, delimited(1, [dims]))
    return buffers
