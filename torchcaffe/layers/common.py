"""Fully connected layers: InnerProduct, and Embed for one-hot inputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from torchcaffe.layers import looking
from torchcaffe.layers.base import Layer, register


@register
class InnerProduct(Layer):
    """y = x W^T + b over everything from `axis` on; W is (num_output, K), or (K, num_output) where transposed."""

    type = "InnerProduct"
    gradient_from_bottoms = True
    in_place = False
    any_precision = True

    def setup(self, bottom, top):
        p = self.param.inner_product_param
        shape = bottom[0].dims
        self.first = self.axis(p.axis, len(shape))
        self.inputs, self.outputs = math.prod(shape[self.first :]), p.num_output
        self.check(self.outputs > 0, "num_output must be positive")
        self.transpose = p.transpose
        weight = (self.inputs, self.outputs) if p.transpose else (self.outputs, self.inputs)
        self.add_parameter(weight, p.weight_filler)
        if p.bias_term:
            self.add_parameter((self.outputs,), p.bias_filler)

    def shapes(self, shape):
        found = math.prod(shape[self.first :])
        self.check(found == self.inputs, f"built for {self.inputs} inputs an item, got {found} from shape {shape}")
        return [shape[: self.first] + (self.outputs,)]

    def forward(self, x):
        weight = self.weight(0)
        if self.transpose:
            weight = weight.t()
        bias = self.weight(1) if len(self.blobs) > 1 else None
        x, weight, bias = self.narrow(x, weight, bias)
        return F.linear(x.flatten(self.first), weight, bias)


@register
class Embed(Layer):
    """Row x of a learned table (input_dim, num_output), plus a bias; x holds indices and gets no gradient."""

    type = "Embed"
    gradient_from_bottoms = True
    in_place = False
    refuses_gradient = (0,)

    def setup(self, bottom, top):
        p = self.param.embed_param
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(p.input_dim > 0, "input_dim must be positive")
        self.add_parameter((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_parameter((p.num_output,), p.bias_filler)

    def shapes(self, shape):
        return [shape + (self.param.embed_param.num_output,)]

    def forward(self, x):
        rows = self.param.embed_param.input_dim
        index = looking.in_range(self, x.to(torch.int64), rows, f"index {{}} is outside 0 to {rows - 1} (input_dim)")
        y = F.embedding(index, self.weight(0))
        return y + self.weight(1) if len(self.blobs) > 1 else y
