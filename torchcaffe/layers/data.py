"""Layers without bottoms: Input, DummyData, Parameter, Data (LMDB, LevelDB), ImageData, MemoryData."""

from __future__ import annotations

import math
import os

import numpy as np
import torch

from torchcaffe.core import fillers, log, memory
from torchcaffe.core.errors import CaffeError, DataError
from torchcaffe.layers.base import Layer, register
from torchcaffe.proto import caffe_pb2


class Source(Layer):
    """A layer without bottoms."""

    bottoms = (0, 0)
    tops = (1, None)
    is_source = True
    has_backward = False

    def not_split(self):
        """Warn that a layer without batch_size gives all ranks the same items where batches are split."""
        if self.share.split and self.share.rank == 0:
            log.warning(
                f'layer "{self.name}" ({self.type}) has no batch_size that could be split: '
                f"each of the {self.share.count} ranks has all of it"
            )


@register
class Input(Source):
    """Blobs that the user fills; shapes from input_param (none, one for all, or one a top)."""

    type = "Input"

    def setup(self, bottom, top):
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        tops = len(self.param.top)
        self.check(len(shapes) in (0, 1, tops), f"input_param needs no shape, one, or one a top, not {len(shapes)}")
        self.not_split()
        for index, blob in enumerate(top):
            blob.reshape(*(shapes[index % len(shapes)] if shapes else (0,)))

    def forward(self):
        return None  # what the user wrote stays


@register
class DummyData(Source):
    """Blobs from fillers: constant ones are filled once, others anew at each forward."""

    type = "DummyData"

    def setup(self, bottom, top):
        p, tops = self.param.dummy_data_param, len(top)
        self.not_split()
        legacy = list(zip(p.num, p.channels, p.height, p.width))
        shapes = [tuple(shape.dim) for shape in p.shape] or legacy
        self.check(
            len(shapes) in (1, tops), f"dummy_data_param needs one shape, or one a top ({tops}), not {len(shapes)}"
        )
        self.check(len(p.data_filler) in (0, 1, tops), f"data_filler: none, one, or one a top ({tops})")
        default = type(self.param.convolution_param.weight_filler)(type="constant", value=0)
        given = list(p.data_filler) or [default]
        self.shape_of = [shapes[index % len(shapes)] for index in range(tops)]
        self.filler_of = [given[index % len(given)] for index in range(tops)]
        for blob, shape, filler in zip(top, self.shape_of, self.filler_of):
            blob.reshape(*shape)
            if filler.type == "constant":
                blob.put(self.filled(filler, shape))

    def filled(self, filler, shape):
        self.require(fillers.memory_needed(filler, shape), f"a top of shape {shape}, filled,")
        return torch.from_numpy(fillers.fill(filler, shape, self.context.generator)).to(self.context.device)

    def forward(self):
        return tuple(
            None if filler.type == "constant" else self.filled(filler, shape)
            for filler, shape in zip(self.filler_of, self.shape_of)
        )


class Prefetched(Source):
    """A source with prefetching."""

    def read_ahead(self, top, batches, depth, shape):
        """Prefetch `depth` batches of data of this shape, and shape the tops. Raises NetError where memory is too small."""
        from torchcaffe.data.prefetch import Prefetcher

        memory.require(
            4 * (depth + 1) * math.prod(shape),
            f'layer "{self.name}" ({self.type}): reading {depth} batches of shape {shape} ahead',
        )
        top[0].reshape(*shape)
        if len(top) > 1:
            top[1].reshape(shape[0])
        self.prefetcher = Prefetcher(batches, depth, self.context.device)

    def forward(self):
        return self.prefetcher.next()[: len(self.param.top)]

    def data_state(self):
        return self.prefetcher.state

    def set_data_state(self, state):
        int(state["position"])  # a KeyError or ValueError here, not in the thread
        self.prefetcher.restore(state)


@register
class Data(Prefetched):
    """Datums of an LMDB or LevelDB in key order, transformed in the background; a second top gives the labels."""

    type = "Data"
    tops = (1, 2)

    def setup(self, bottom, top):
        from torchcaffe.data.datasource import record_batches

        p = self.param.data_param
        self.check(p.source, "data_param.source is missing")
        self.check(
            p.backend == p.LMDB or not os.path.isfile(os.path.join(p.source, "data.mdb")),
            f"{p.source} is an LMDB: backend: LMDB must be given (Caffe's default is LEVELDB)",
        )
        self.check(p.batch_size > 0, "data_param.batch_size must be positive")
        batches, shape = record_batches(self)
        self.read_ahead(top, batches, p.prefetch, shape)


@register
class ImageData(Prefetched):
    """Images that a text file lists with their labels, read, resized and transformed in the background."""

    type = "ImageData"
    tops = (2, 2)

    def setup(self, bottom, top):
        from torchcaffe.data.image_list import image_batches

        p = self.param.image_data_param
        self.check(bool(p.new_height) == bool(p.new_width), "give both new_height and new_width, or neither")
        self.check(p.source, "image_data_param.source is missing")
        self.check(p.batch_size > 0, "image_data_param.batch_size must be positive")
        batches, shape = image_batches(self)
        self.read_ahead(top, batches, self.param.data_param.prefetch, shape)


@register
class MemoryData(Source):
    """Arrays that Net.set_input_arrays gives, a batch at each forward, from the start again at their end."""

    type = "MemoryData"
    tops = (2, 2)

    def setup(self, bottom, top):
        p = self.param.memory_data_param
        self.shape = (p.batch_size, p.channels, p.height, p.width)
        self.check(min(self.shape) > 0, f"batch_size, channels, height and width must be positive, not {self.shape}")
        self.data = self.labels = None
        self.size = self.share.size(p.batch_size, self)
        top[0].reshape(self.size, *self.shape[1:])
        top[1].reshape(self.size)

    def set_arrays(self, data, labels):
        """Take float32 arrays, data N×C×H×W and N labels (N×1×1×1 too), without copying them. Raises RuntimeError."""
        labels = labels[:, None, None, None] if isinstance(labels, np.ndarray) and labels.ndim == 1 else labels
        for what, array, shape in (("data", data, self.shape[1:]), ("labels", labels, (1, 1, 1))):
            if not (isinstance(array, np.ndarray) and array.dtype == np.float32 and array.flags["C_CONTIGUOUS"]):
                raise CaffeError(f"{what} must be a C-contiguous float32 array; numpy.ascontiguousarray makes one")
            if array.ndim != 4 or array.shape[1:] != shape:
                wanted = "x".join(map(str, ("N",) + shape))
                raise CaffeError(f'layer "{self.name}" takes {what} of shape {wanted}, not {array.shape}')
        if len(data) != len(labels):
            raise CaffeError(f"data and labels must have the same number of items, not {len(data)} and {len(labels)}")
        if not len(data) or len(data) % self.shape[0]:
            raise CaffeError(f"{len(data)} items are not a multiple of the batch size, {self.shape[0]}")
        self.data, self.labels, self.position = data, labels, 0

    def data_state(self):
        return {"position": self.position} if self.data is not None else None

    def set_data_state(self, state):
        self.position = int(state["position"])

    def forward(self):
        if self.data is None:
            raise DataError(f'layer "{self.name}" (MemoryData) has no data yet: call set_input_arrays before forward')
        first = self.position + (self.share.rank * self.size if self.share.split else 0)
        chosen = slice(first, first + self.size)
        self.position = (self.position + self.shape[0]) % len(self.data)
        return tuple(torch.from_numpy(array[chosen]).to(self.context.device) for array in (self.data, self.labels))


@register
class Parameter(Source):
    """A learned blob as a top; the two share data and gradient, which each backward therefore replaces."""

    type = "Parameter"
    tops = (1, 1)

    def setup(self, bottom, top):
        self.add_parameter(tuple(self.param.parameter_param.shape.dim), caffe_pb2.FillerParameter())
        top[0].reshape(*self.blobs[0].dims)
        top[0].share_data(self.blobs[0])
        top[0].share_diff(self.blobs[0])

    def overwrites(self, index):
        return True

    def forward(self):
        return None  # the top is the parameter
