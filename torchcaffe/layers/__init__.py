"""Caffe's layer catalogue, grouped as Caffe groups it; importing this package registers every layer."""

from torchcaffe.layers import activation, common, data, loss, utility, vision  # noqa: F401
from torchcaffe.layers.base import TEST, TRAIN, Context, Layer, layer_class, layer_types, register

__all__ = ["TEST", "TRAIN", "Context", "Layer", "layer_class", "layer_types", "register"]


def __getattr__(name):
    """`from caffe import layers as L`: any other name is a layer of the net-writing language (net_spec)."""
    from torchcaffe import net_spec

    return getattr(net_spec.layers, name)
