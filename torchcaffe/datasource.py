"""Where Data layers get their batches: LMDB records in key order, and Caffe's transformations."""

from __future__ import annotations

import os
import threading
import weakref

import numpy as np
import torch

from torchcaffe import log, rng
from torchcaffe.errors import DataError
from torchcaffe.proto import caffe_pb2

_environments = weakref.WeakValueDictionary()
_environments_lock = threading.Lock()


class Environment:
    """A read-only LMDB, opened once a process however many layers read it. Raises DataError."""

    def __init__(self, path: str):
        import lmdb

        if not os.path.exists(os.path.join(path, "data.mdb")):
            raise DataError(f"{path}: no LMDB there (expected {os.path.join(path, 'data.mdb')}); build it first")
        try:
            self.lmdb = lmdb.open(path, readonly=True, lock=False, readahead=True, meminit=False, max_spare_txns=4)
            self.records = self.lmdb.stat()["entries"]
        except lmdb.Error as error:
            raise DataError(f"{path}: not a readable LMDB ({error}); build it again") from error
        if not self.records:
            raise DataError(f"{path}: the LMDB is empty; build it again")
        self.path = path

    @staticmethod
    def open(path: str) -> "Environment":
        key = os.path.realpath(path)
        with _environments_lock:
            found = _environments.get(key)
            if found is None:
                found = _environments[key] = Environment(path)
            return found

    def records_from_start(self, log_restart: bool, takes=None):
        """Endless (key, Datum) in key order; `takes(position)`: which to read, of positions counted on for ever.

        What is not taken is stepped over by its key alone: its pages are never touched.
        """
        position = 0
        while True:
            with self.lmdb.begin(buffers=True) as transaction, transaction.cursor() as cursor:
                for key in cursor.iternext(values=False):
                    if takes is None or takes(position):
                        yield key, self.datum(key, cursor.value())
                    position += 1
            if log_restart:
                log.info("Restarting data prefetching from start.")

    def datum(self, key, value):
        datum = caffe_pb2.Datum()
        try:
            datum.ParseFromString(bytes(value))
        except Exception as error:
            raise DataError(f"{self.path}: record {bytes(key).decode(errors='replace')} is not a Datum") from error
        return datum


def lmdb_batches(layer):
    """(endless iterator of (data tensor on the CPU, labels tensor), shape of the data) of a Data layer."""
    parameter = layer.param.data_param
    environment = Environment.open(parameter.source)
    transformer = Transformer(layer)
    transformer.seed(layer.context.generator)
    transformer.seed(layer.context.generator)  # Caffe seeds twice, and uses the second
    seed_thread(layer.context.generator)
    _, first = next(environment.records_from_start(False))
    shape = transformer.output_shape(to_array(first, transformer, environment.path).shape)
    share, whole = layer.share, parameter.batch_size
    size = share.size(whole, layer)

    def batches():
        records = environment.records_from_start(share.rank == 0, lambda position: share.takes(position, whole))
        while True:
            arrays, labels = [], np.empty(size, np.float32)
            while len(arrays) < size:
                key, datum = next(records)
                labels[len(arrays)] = datum.label
                arrays.append(to_array(datum, transformer, environment.path, key))
            yield transformer.batch(arrays, environment.path), torch.from_numpy(labels)

    return batches(), (size, *shape)


def seed_thread(generator):
    """Caffe seeds each prefetching thread from the net's generator, even where nothing random follows."""
    generator.draw()


def to_array(datum, transformer, path, key=b"the first"):
    """Datum -> C×H×W array, uint8 or float32."""
    where = f"{path}: record {bytes(key).decode(errors='replace')}"
    if datum.encoded:
        return decode(datum.data, transformer, where)
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        array = np.frombuffer(datum.data, np.uint8)
    else:
        array = np.array(datum.float_data, np.float32)
    if array.size != int(np.prod(shape)) or not array.size:
        raise DataError(f"{where} holds {array.size} values but says {shape}; build the LMDB again")
    return array.reshape(shape)


def decode(data, transformer, where):
    """Encoded image -> C×H×W uint8, B, G, R (one plane for a gray image unless force_color)."""
    import cv2

    flag = {"color": cv2.IMREAD_COLOR, "gray": cv2.IMREAD_GRAYSCALE, "": cv2.IMREAD_UNCHANGED}[transformer.force]
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    if image is None:
        raise DataError(f"{where} is not an image that OpenCV can decode; build the LMDB again")
    image = image[:, :, None] if image.ndim == 2 else image
    return np.ascontiguousarray(image.transpose(2, 0, 1))


class Transformer:
    """transform_param: mirror, crop, mean, scale; random numbers drawn as Caffe draws them, item by item."""

    def __init__(self, layer):
        p = self.param = layer.param.transform_param
        self.layer = layer
        layer.check(not (p.mean_file and len(p.mean_value)), "give mean_file or mean_value, not both")
        layer.check(not (p.force_color and p.force_gray), "give force_color or force_gray, not both")
        self.force = "color" if p.force_color else "gray" if p.force_gray else ""
        self.random_crop = bool(p.crop_size) and layer.training
        self.generator = None
        self.mean_image = None
        if p.mean_file:
            from torchcaffe.files import read_blob

            mean = read_blob(p.mean_file)
            self.mean_image = torch.from_numpy(np.array(mean, np.float32).reshape(mean.shape[-3:]))

    def seed(self, generator):
        """Take a seed from the net's generator, where anything here is random."""
        if self.param.mirror or self.random_crop:
            self.generator = rng.Generator(generator.draw())

    def output_shape(self, shape):
        size = self.param.crop_size
        self.layer.check(
            not size or min(shape[1:]) >= size, f"crop_size {size} is larger than the records' {shape[1]}x{shape[2]}"
        )
        self.layer.check(
            len(self.param.mean_value) in (0, 1, shape[0]),
            f"{len(self.param.mean_value)} mean values do not fit {shape[0]} channels",
        )
        if self.mean_image is not None:
            self.layer.check(
                tuple(self.mean_image.shape) == tuple(shape),
                f"{self.param.mean_file} is {tuple(self.mean_image.shape)}, the records are {tuple(shape)}",
            )
        return (shape[0], size, size) if size else tuple(shape)

    def batch(self, arrays, path):
        """N arrays C×H×W -> N×C×H×W float32 tensor, channels-last in memory, transformed."""
        shape = arrays[0].shape
        for array in arrays:
            if array.shape != shape and not (self.param.crop_size and array.shape[0] == shape[0]):
                raise DataError(f"{path}: records differ in shape, {shape} and {array.shape}; build the LMDB again")
        mirrored, rows, columns = self.choices(arrays)
        size = self.param.crop_size
        if size:
            arrays = [a[:, r : r + size, c : c + size] for a, r, c in zip(arrays, rows, columns)]
        batch = torch.from_numpy(np.stack(arrays))
        layout = torch.channels_last if batch.shape[1] > 1 else torch.contiguous_format
        batch = batch.to(torch.float32, memory_format=layout)
        self.subtract_mean(batch, rows, columns)
        if mirrored is not None and mirrored.any():
            index = torch.from_numpy(np.flatnonzero(mirrored))
            batch[index] = batch[index].flip(3)
        return batch.mul_(self.param.scale) if self.param.scale != 1 else batch

    def choices(self, arrays):
        """(mirror flags or None, row offsets, column offsets) of a batch."""
        size, count = self.param.crop_size, len(arrays)
        free = np.array([(a.shape[1] - size, a.shape[2] - size) for a in arrays]) if size else np.zeros((count, 2), int)
        draws = None
        if self.generator is not None:
            shape = (count, bool(self.param.mirror) + 2 * self.random_crop)
            draws = self.layer.share.of_batch(self.generator.draws, shape)
        mirrored = draws[:, 0] % 2 == 1 if self.param.mirror else None
        offsets = draws[:, -2:] % (free + 1) if self.random_crop else free // 2
        return mirrored, offsets[:, 0], offsets[:, 1]

    def subtract_mean(self, batch, rows, columns):
        values = list(self.param.mean_value)
        if values:
            batch -= torch.tensor(values).reshape(1, -1, 1, 1)
        elif self.mean_image is not None:
            size = self.param.crop_size
            if not size:
                batch -= self.mean_image
                return
            for item, row, column in zip(batch, rows, columns):
                item -= self.mean_image[:, row : row + size, column : column + size]
