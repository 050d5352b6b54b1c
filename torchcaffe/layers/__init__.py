"""Caffe's layer catalogue, grouped as Caffe groups it; importing this package registers every layer."""

from torchcaffe.layers import (  # noqa: F401
    accuracy,
    activation,
    affine,
    common,
    data,
    hdf5,
    loss,
    margin_loss,
    normalization,
    pooling,
    python,
    recurrent,
    reduction,
    utility,
    vision,
    window_data,
)
from torchcaffe.layers.base import TEST, TRAIN, Context, TorchLayer, layer_class, layer_types, register, register_layer
from torchcaffe.layers.python import Layer

__all__ = [
    "TEST", "TRAIN", "Context", "Layer", "TorchLayer", "layer_class", "layer_types", "register", "register_layer",
]  # fmt: skip


def __getattr__(name):
    """`from caffe import layers as L`: any other name is a layer of the net-writing language (net_spec)."""
    from torchcaffe import net_spec

    return getattr(net_spec.layers, name)
