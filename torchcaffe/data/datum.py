"""Datums: parse a record without copying its pixels, and get them as C×H×W arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from torchcaffe.data import image_file
from torchcaffe.formats import wire
from torchcaffe.core.errors import DataError
from torchcaffe.proto import caffe_pb2

_NUMBERS = {1: "channels", 2: "height", 3: "width", 5: "label"}  # fields of Datum
_DATA, _ENCODED = 4, 7


class StoredDatum(NamedTuple):
    """A Datum whose `data` is a span of the record itself, under protobuf's names."""

    data: memoryview
    channels: int = 0
    height: int = 0
    width: int = 0
    label: int = 0
    encoded: bool = False
    float_data: tuple = ()


class Records:
    """Base of databases of Datums: `path`, parsing a record, and its name in errors."""

    path: str

    def datum(self, key, value):
        """The record as a Datum. Raises DataError."""
        try:
            return read_datum(value)
        except Exception as error:
            raise DataError(f"{self.where(key)} is not a Datum") from error

    def where(self, key):
        """A record's name in an error."""
        return f"{self.path}: record {bytes(key).decode(errors='replace')}"


def read_datum(value):
    """Datum of a record (bytes or a memoryview): its data uncopied where it has the fields that images have.

    Everything else, float_data, negative numbers and bytes that are no Datum among it, is left to protobuf.
    Raises protobuf's DecodeError.
    """
    fields = {"data": value[:0]}
    try:
        for number, wire_type, found in wire.walk(value):
            if number == _DATA and wire_type == wire.DELIMITED:
                fields["data"] = value[found[0] : found[1]]
            elif number in _NUMBERS and wire_type == wire.VARINT and found < 1 << 31:
                fields[_NUMBERS[number]] = found
            elif number == _ENCODED and wire_type == wire.VARINT:
                fields["encoded"] = found != 0
            else:
                break
        else:
            return StoredDatum(**fields)
    except wire.WireError:
        pass
    return caffe_pb2.Datum.FromString(bytes(value))


def to_array(datum, where, force=""):
    """A Datum's pixels, or its floats, as a C×H×W array, uint8 (a view of raw data) or float32.

    Args:
        where: the record, for an error.
        force: "color" or "gray" decodes encoded images so; "": as they are stored.
    Raises:
        DataError: the values do not fill the shape, or the image cannot be decoded.
    """
    if datum.encoded:
        return decode(datum.data, where, force)
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        array = np.frombuffer(datum.data, np.uint8)
    else:
        array = np.array(datum.float_data, np.float32)
    if array.size != math.prod(shape) or not array.size or min(shape) < 0:
        raise DataError(f"{where} has {array.size} values for shape {shape}; build the database again")
    return array.reshape(shape)


def decode(data, where, force=""):
    """Encoded image -> C×H×W uint8, B, G, R (one plane for a gray image unless `force` is "color"). Raises DataError."""
    try:
        image = image_file.decode(data, force)
    except image_file.ImageFileError as problem:
        raise DataError(f"{where} is {problem}; build the database again") from None
    return image.transpose(2, 0, 1) if image.ndim == 3 else image[None]
