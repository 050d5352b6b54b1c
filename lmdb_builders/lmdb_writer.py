"""LMDBs for Caffe's Data layer: Datums under keys `%08d_name`, in ascending order."""

from __future__ import annotations

import os
from typing import Sequence, Union

import numpy as np

from lmdb_builders.errors import BuildError
from lmdb_builders.files import disk_full
from lmdb_builders.crops import to_planes
from torchcaffe.data.database import DiskFullError, Writer

JPEG_QUALITY = 95  # OpenCV's default, which Caffe's converter uses
FIRST_MAP_SIZE = 64 << 20  # bytes
PAGE = 4096  # of LMDB's file
# Bytes of an image as a share of its raw bytes, above what crops of real faces took: at 64 pixels jpg 0.23 and png
# 0.71 in the largest scheme, less at 224 pixels (0.11 and 0.5).
COMPRESSED_SHARE = {"raw": 1.0, "jpg": 0.35, "png": 0.9}


def record_key(index: int, image: str) -> bytes:
    """Caffe's key: position in the shuffled list and the file's name, so that byte order is list order."""
    return f"{index:08d}_{image.rsplit('/', 1)[-1]}".encode("utf-8", "surrogateescape")


def encode_crop(crop: np.ndarray, encode: str) -> bytes:
    """A crop (H x W x 3 uint8 BGR) as a Datum holds it: raw planes (CHW, BGR), or the bytes of a jpg or png file."""
    if encode == "raw":
        return to_planes(crop).tobytes()
    import cv2

    parameters = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if encode == "jpg" else []
    done, data = cv2.imencode("." + encode, crop, parameters)
    if not done:
        raise BuildError(f"OpenCV cannot write {encode}; take ENCODE=raw (--encode raw)")
    return data.tobytes()


def image_datum(data: bytes, size: int, encode: str, label: int = 0) -> bytes:
    """Serialized Datum of encode_crop's bytes, with the fields that Caffe's own converter sets."""
    from torchcaffe.proto import caffe_pb2

    if encode != "raw":
        return caffe_pb2.Datum(data=data, label=label, encoded=True).SerializeToString()
    datum = caffe_pb2.Datum(channels=3, height=size, width=size, data=data, label=label, encoded=False)
    return datum.SerializeToString()


def labels_datum(labels: Union[Sequence[float], np.ndarray]) -> bytes:
    """Serialized Datum of many labels, such as a record's bytes: float_data, channels = how many, height = width = 1."""
    from torchcaffe.proto import caffe_pb2

    datum = caffe_pb2.Datum(channels=len(labels), height=1, width=1)
    datum.float_data.extend(labels)
    return datum.SerializeToString()


def stored_bytes(value_bytes: float) -> int:
    """Bytes of LMDB's file that a record takes: small ones share a page, large ones take whole pages of their own."""
    overhead = 64  # key, record header, their share of the tree's inner pages
    if value_bytes + overhead < PAGE // 2:
        return int(value_bytes) + overhead
    return -(-(int(value_bytes) + 16) // PAGE) * PAGE + overhead


class LmdbWriter(Writer):
    """Writes a new LMDB folder, and the folders it lies in, records in ascending order of keys. Raises BuildError."""

    ascending = True

    def __init__(self, folder: str, map_size: int = FIRST_MAP_SIZE):
        os.makedirs(os.path.dirname(os.path.abspath(folder)), exist_ok=True)
        self._open(folder, 0o777, map_size, mode=0o644)

    def _error(self, problem):
        error = super()._error(problem)
        return disk_full(self.path, problem) if isinstance(error, DiskFullError) else error
