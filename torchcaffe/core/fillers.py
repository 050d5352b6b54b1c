"""Initial values of parameters: Caffe's fillers (filler.hpp's rules), drawn from Caffe's generator."""

from __future__ import annotations

import math

import numpy as np
import torch

from torchcaffe.core.errors import NetError
from torchcaffe.core.names import suggestion
from torchcaffe.proto.caffe_pb2 import FillerParameter


def fill(filler, shape, generator) -> np.ndarray:
    """Values for a parameter of `shape`, float32. `filler` is a FillerParameter; raises NetError for an unknown type."""
    if filler.type not in FILLERS:
        raise NetError(f'unknown filler type "{filler.type}"; {suggestion(filler.type, sorted(FILLERS), "known:")}')
    if 0 in shape:
        raise NetError(f"cannot fill an empty blob of shape {tuple(shape)}")
    if filler.sparse != -1 and filler.type != "gaussian":
        raise NetError(f'sparse is supported by the "gaussian" filler only, not by "{filler.type}"')
    return FILLERS[filler.type](filler, tuple(shape), generator).astype(np.float32, copy=False)


def memory_needed(filler, shape) -> int:
    """Bytes that `fill` takes while it works: float32 values, and what they are drawn from."""
    return (8 if filler.type == "positive_unitball" else 4) * math.prod(shape)


def _fan(filler, shape) -> float:
    count = math.prod(shape)
    fan_in = count / shape[0]
    fan_out = count / shape[1] if len(shape) > 1 else count
    return {filler.FAN_IN: fan_in, filler.FAN_OUT: fan_out}.get(filler.variance_norm, (fan_in + fan_out) / 2)


def constant(filler, shape, generator):
    # torch's memory comes in huge pages (torchcaffe/__init__.py), numpy's zeros do not: copying there takes longer.
    return torch.full(shape, filler.value).numpy() if filler.value else torch.zeros(shape).numpy()


def uniform(filler, shape, generator):
    return generator.uniform(filler.min, filler.max, shape)


def gaussian(filler, shape, generator):
    if filler.std <= 0:
        raise NetError(f"a gaussian filler needs std > 0, not {filler.std}")
    values = generator.normal(filler.mean, filler.std, shape)
    if filler.sparse >= 0:
        values *= generator.bernoulli(filler.sparse / shape[0], shape)
    return values


def xavier(filler, shape, generator):
    bound = math.sqrt(3.0 / _fan(filler, shape))
    return generator.uniform(-bound, bound, shape)


def msra(filler, shape, generator):
    return generator.normal(0.0, math.sqrt(2.0 / _fan(filler, shape)), shape)


def positive_unitball(filler, shape, generator):
    values = generator.uniform(0.0, 1.0, shape).reshape(shape[0], -1)
    return (values / values.sum(axis=1, keepdims=True)).reshape(shape)


def bilinear(filler, shape, generator):
    if len(shape) != 4 or shape[2] != shape[3]:
        raise NetError(f"a bilinear filler needs 4 axes and a square kernel, not {shape}")
    kernel = shape[2]
    factor = math.ceil(kernel / 2)
    center = (kernel - 1) / (2.0 * factor)
    line = 1 - np.abs(np.arange(kernel) / factor - center)
    return np.broadcast_to(np.outer(line, line), shape).astype(np.float32)


FILLERS = {
    function.__name__: function for function in (constant, uniform, gaussian, xavier, msra, positive_unitball, bilinear)
}


def fill_with_zeros(message):
    """Turn every filler in a message into a constant one: drawing numbers that nobody reads takes most of the time."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for inner in [value] if hasattr(value, "ListFields") else value:
            if field.message_type.full_name != FillerParameter.DESCRIPTOR.full_name:
                fill_with_zeros(inner)
            elif inner.type in FILLERS:  # an unknown one is an error, as in training
                inner.CopyFrom(FillerParameter(type="constant"))
