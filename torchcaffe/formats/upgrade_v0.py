"""Upgrade nets of 2013 (V0LayerParameter: all settings in one flat message) to V1LayerParameter."""

from __future__ import annotations

from torchcaffe.core import log, names
from torchcaffe.core.errors import NetError
from torchcaffe.proto import caffe_pb2

_SPELLED_OTHERWISE = {"conv": "CONVOLUTION", "images": "IMAGE_DATA", "innerproduct": "INNER_PRODUCT", "pool": "POOLING"}
_TYPES = (
    "accuracy bnll concat conv data dropout euclidean_loss flatten hdf5_data hdf5_output im2col images infogain_loss "
    "innerproduct lrn multinomial_logistic_loss pool relu sigmoid softmax softmax_loss split tanh window_data"
).split()
_V1 = caffe_pb2.V1LayerParameter.LayerType
V0_TYPES = {name: _V1.Value(_SPELLED_OTHERWISE.get(name, name.upper())) for name in _TYPES}  # string -> V1 enum number

_HOME = {
    "conv": "convolution_param",
    "data": "data_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
    "concat": "concat_param",
    "dropout": "dropout_param",
}
# V0 field -> (types that have it, its name in their settings)
_FIELDS = {
    "num_output": ("conv innerproduct", "num_output"),
    "biasterm": ("conv innerproduct", "bias_term"),
    "weight_filler": ("conv innerproduct", "weight_filler"),
    "bias_filler": ("conv innerproduct", "bias_filler"),
    "pad": ("conv pool", "pad"),
    "kernelsize": ("conv pool", "kernel_size"),
    "group": ("conv", "group"),
    "stride": ("conv pool", "stride"),
    "pool": ("pool", "pool"),
    "dropout_ratio": ("dropout", "dropout_ratio"),
    "local_size": ("lrn", "local_size"),
    "alpha": ("lrn", "alpha"),
    "beta": ("lrn", "beta"),
    "k": ("lrn", "k"),
    "source": ("data hdf5_data images window_data infogain_loss", "source"),
    "batchsize": ("data hdf5_data images window_data", "batch_size"),
    "rand_skip": ("data images", "rand_skip"),
    "shuffle_images": ("images", "shuffle"),
    "new_height": ("images", "new_height"),
    "new_width": ("images", "new_width"),
    "concat_dim": ("concat", "concat_dim"),
    "det_fg_threshold": ("window_data", "fg_threshold"),
    "det_bg_threshold": ("window_data", "bg_threshold"),
    "det_fg_fraction": ("window_data", "fg_fraction"),
    "det_context_pad": ("window_data", "context_pad"),
    "det_crop_mode": ("window_data", "crop_mode"),
}
_TRANSFORMATION = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}  # any type
_KEPT = ("blobs", "blobs_lr", "weight_decay")


def upgrade_v0(net, source: str):
    """Replace the V0 entries of `net.layers` by V1 ones, in place; other fields are dropped, as in Caffe.

    Raises:
        NetError: an unknown V0 type, an unknown bottom, or padding before anything but a conv or pool of one bottom.
    """
    upgraded = caffe_pb2.NetParameter(input=net.input, input_dim=net.input_dim)
    for name in ("name", "force_backward"):
        if net.HasField(name):
            setattr(upgraded, name, getattr(net, name))
    for entry in _without_padding(net, source):
        upgraded.layers.append(_upgrade_entry(entry, source))
    if net.layer:  # a mixture; refused by the next step, which sees both
        upgraded.layer.extend(net.layer)
    net.CopyFrom(upgraded)


def _without_padding(net, source):
    """The entries but "padding", whose pad goes into the conv or pool that reads it; so does its bottom."""
    producers = dict.fromkeys(net.input)
    kept = []
    for original in net.layers:
        entry = caffe_pb2.V1LayerParameter()
        entry.CopyFrom(original)
        for index, bottom in enumerate(entry.bottom):
            if bottom not in producers:
                raise NetError(f"{source}: layer '{entry.layer.name}' reads '{bottom}', which no earlier layer writes")
            producer = producers[bottom]
            if producer is not None and producer.layer.type == "padding":
                _absorb(entry, index, producer, source)
        producers.update(dict.fromkeys(entry.top, entry))
        if entry.layer.type != "padding":
            kept.append(entry)
    return kept


def _absorb(entry, index, padding, source):
    if entry.layer.type not in ("conv", "pool") or len(entry.bottom) != 1 or len(padding.bottom) != 1:
        raise NetError(
            f"{source}: layer '{entry.layer.name}' ({entry.layer.type}) reads the padding layer "
            f"'{padding.layer.name}'; only a conv or pool with one bottom can"
        )
    entry.layer.pad = padding.layer.pad
    entry.bottom[index] = padding.bottom[0]


def _upgrade_entry(entry, source):
    old = entry.layer
    new = caffe_pb2.V1LayerParameter(bottom=entry.bottom, top=entry.top)
    for field, value in old.ListFields():
        name = field.name
        if name == "name":
            new.name = value
        elif name == "type":
            if value not in V0_TYPES:
                known = names.suggestion(value, _TYPES, "known types:")
                raise NetError(f"{source}: layer '{old.name}': no V0 type '{value}'; {known}")
            new.type = V0_TYPES[value]
        elif name in _KEPT:
            getattr(new, name).extend(value)
        elif name in _TRANSFORMATION:
            setattr(new.transform_param, _TRANSFORMATION[name], value)
        elif name == "hdf5_output_param" and old.type == "hdf5_output":
            new.hdf5_output_param.CopyFrom(value)
        else:
            _move(old, new, name, value, source)
    return new


def _move(old, new, name, value, source):
    types, target = _FIELDS.get(name, ("", name))
    if old.type not in types.split():
        log.error(f"{source}: layer '{old.name}': '{name}' means nothing to the type '{old.type}' and is left out")
        return
    settings = getattr(new, _HOME[old.type])
    if hasattr(getattr(settings, target), "append"):
        getattr(settings, target).append(value)
    elif hasattr(value, "CopyFrom"):
        getattr(settings, target).CopyFrom(value)
    else:
        setattr(settings, target, value)
