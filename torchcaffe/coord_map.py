"""How coordinates of one blob lie in another, from a net written with net_spec; and the Crop that aligns the two.

A map is (axis, a, b): position x of the one is position a * x + b of the other, from spatial axis `axis` on (counted
without the batch axis's neighbor as in Crop; None where any fits). `a` and `b` are arrays where axes differ.
"""

from __future__ import annotations

import numpy as np

from torchcaffe import net_spec

_WINDOWED = ("Convolution", "Pooling", "Im2col", "Deconvolution")
_UNMOVED = frozenset(
    "AbsVal BNLL BatchNorm Bias Dropout ELU Eltwise Exp LRN Log MVN PReLU Power ReLU Scale Sigmoid Split TanH "
    "Threshold Clip Swish".split()
)


class UndefinedMapException(Exception):
    """A layer whose outputs have no place in its inputs, such as InnerProduct."""


class AxisMismatchException(Exception):
    """Maps that start at different axes."""


def coord_map(fn):
    """Map from a layer's top to its (first) bottom. Raises UndefinedMapException."""
    settings = fn.params.get(net_spec.OWN_SETTINGS.get(fn.type_name, ""), fn.params)
    if fn.type_name in _WINDOWED:
        axis, stride, size, pad = conv_params(fn)
        scale, shift = stride, (size - 1) / 2 - pad
        return (axis, 1 / scale, -shift / scale) if fn.type_name == "Deconvolution" else (axis, scale, shift)
    if fn.type_name in _UNMOVED:
        return None, 1.0, 0.0
    if fn.type_name == "Crop":
        return settings.get("axis", 2) - 1, 1.0, np.array(settings.get("offset", 0), float, ndmin=1)
    raise UndefinedMapException(f"{fn.type_name} has no coordinate map")


def conv_params(fn):
    """(axis, stride, size of the dilated kernel, pad) of a layer with a sliding window, the last three as arrays."""
    own = "convolution_param" if fn.type_name in ("Deconvolution", "Im2col") else net_spec.OWN_SETTINGS[fn.type_name]
    settings = fn.params.get(own, fn.params)
    size = _pair(settings, "kernel_size", "kernel_h", "kernel_w", None)
    stride = _pair(settings, "stride", "stride_h", "stride_w", 1)
    pad = _pair(settings, "pad", "pad_h", "pad_w", 0)
    dilation = np.array(settings.get("dilation", 1), float, ndmin=1)
    return settings.get("axis", 1), stride, (size - 1) * dilation + 1, pad


def _pair(settings, both, first, second, default):
    if first in settings and second in settings:
        return np.array([settings[first], settings[second]], float)
    if both not in settings and default is None:
        raise UndefinedMapException(f"{both} is not given")
    return np.array(settings.get(both, default), float, ndmin=1)


def compose(first, second):
    """The map that does `first`, then `second`. Raises AxisMismatchException."""
    (axis, a, b), (other, c, d) = first, second
    if axis is None:
        axis = other
    elif other is not None and axis != other:
        raise AxisMismatchException(f"maps from axis {axis} and from axis {other} cannot be composed")
    return axis, a * c, b * c + d


def inverse(mapping):
    """The map back."""
    axis, a, b = mapping
    return axis, 1 / a, -b / a


def _ancestors(top):
    """{top: map from the given top to it} of all tops it is computed from, itself included."""
    maps = {top: (None, 1.0, 0.0)}
    frontier = [top]
    while frontier:
        here = frontier.pop(0)
        inputs = here.fn.inputs[:1] if here.fn.type_name == "Crop" else here.fn.inputs
        for below in inputs:
            if below in maps:
                continue
            try:
                maps[below] = compose(maps[here], coord_map(here.fn))
            except UndefinedMapException:
                continue
            frontier.append(below)
    return maps


def coord_map_from_to(top_from, top_to):
    """Map from coordinates of `top_from` to those of `top_to`, through the nearest top both are computed from.

    Raises:
        RuntimeError: no layers with coordinate maps connect them.
    """
    there, back = _ancestors(top_from), _ancestors(top_to)
    for shared in back:
        if shared in there:
            return compose(there[shared], inverse(back[shared]))
    raise RuntimeError("Could not compute map between tops; are they connected by spatial layers?")


def crop(top_from, top_to):
    """A Crop layer's top: `top_from` cut to the size and place of `top_to`.

    Raises:
        AssertionError: the two differ in scale, or by a negative or fractional offset.
    """
    axis, a, b = coord_map_from_to(top_from, top_to)
    a, b = np.array(a, ndmin=1), np.array(b, ndmin=1)
    if (a != 1).any():
        raise AssertionError(f"scale mismatch on crop (a = {a})")
    if (b > 0).any():
        raise AssertionError(f"cannot crop negative offset (b = {b})")
    if (np.round(b) != b).any():
        raise AssertionError(f"cannot crop noninteger offset (b = {b})")
    return net_spec.layers.Crop(top_from, top_to, axis=axis + 1, offset=[int(-shift) for shift in b])
