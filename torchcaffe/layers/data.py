"""Layers that make their tops: Input, DummyData, Data (LMDB)."""

from __future__ import annotations

import torch

from torchcaffe import fillers
from torchcaffe.layers.base import Layer, register


class Source(Layer):
    """A layer without bottoms."""

    bottoms = (0, 0)
    tops = (1, None)
    is_source = True
    has_backward = False


@register
class Input(Source):
    """Blobs that the user fills; shapes from input_param (none, one for all, or one a top)."""

    type = "Input"

    def setup(self, bottom, top):
        shapes = [tuple(shape.dim) for shape in self.param.input_param.shape]
        tops = len(self.param.top)
        self.check(len(shapes) in (0, 1, tops), f"input_param needs no shape, one, or one a top, not {len(shapes)}")
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
        legacy = list(zip(p.num, p.channels, p.height, p.width))
        shapes = [tuple(shape.dim) for shape in p.shape] or legacy
        self.check(len(shapes) in (1, tops), f"dummy_data_param needs one shape, or one a top ({tops}), not {len(shapes)}")
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
        return torch.from_numpy(fillers.fill(filler, shape, self.context.generator)).to(self.context.device)

    def forward(self):
        return tuple(
            None if filler.type == "constant" else self.filled(filler, shape)
            for filler, shape in zip(self.filler_of, self.shape_of)
        )


@register
class Data(Source):
    """Datums of an LMDB in key order, transformed in the background; a second top gives the labels."""

    type = "Data"
    tops = (1, 2)

    def setup(self, bottom, top):
        from torchcaffe.datasource import Prefetcher, lmdb_batches

        p = self.param.data_param
        self.check(p.backend == p.LMDB, "backend: LMDB must be given (Caffe's default, LEVELDB, is not offered)")
        self.check(p.source, "data_param.source is missing")
        self.check(p.batch_size > 0, "data_param.batch_size must be positive")
        batches, shape = lmdb_batches(self)
        top[0].reshape(p.batch_size, *shape)
        if len(top) > 1:
            top[1].reshape(p.batch_size)
        self.prefetcher = Prefetcher(batches, p.prefetch, self.context.device)

    def forward(self):
        data, labels = self.prefetcher.next()
        return (data, labels)[: len(self.param.top)]
