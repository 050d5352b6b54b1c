"""Upgrade old nets and solvers as Caffe does with every net it reads: V0 and V1 layers, `input` fields, solver_type.

`upgrade_net` and `upgrade_solver` change the message they are given. The order of the steps is part of the format.
"""

from __future__ import annotations

from torchcaffe.core import log, names
from torchcaffe.core.errors import NetError, SolverError
from torchcaffe.proto import caffe_pb2
from torchcaffe.formats.upgrade_v0 import upgrade_v0

# Names that do not follow from V1's by dropping underscores and capitalizing the words.
_IRREGULAR_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "IM2COL": "Im2col",
    "LRN": "LRN",
    "MVN": "MVN",
    "RELU": "ReLU",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "TANH": "TanH",
}
V1_TYPES = {
    number: _IRREGULAR_TYPES.get(name, name.title().replace("_", ""))
    for name, number in caffe_pb2.V1LayerParameter.LayerType.items()
}  # V1 enum number -> type string of today

_SOLVER_TYPES = {
    "SGD": "SGD",
    "NESTEROV": "Nesterov",
    "ADAGRAD": "AdaGrad",
    "RMSPROP": "RMSProp",
    "ADADELTA": "AdaDelta",
    "ADAM": "Adam",
}
_TRANSFORMING_TYPES = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
_RENAMED = {"layer", "type", "param", "blob_share_mode", "blobs_lr", "weight_decay"}  # V1 fields with a new home


def upgrade_net(net, source: str = "the net"):
    """Upgrade a NetParameter to Caffe 1.0's form (V2), in place; returns it.

    Args:
        net: NetParameter in any of Caffe's historic forms.
        source: what it was read from, for messages.
    Raises:
        NetError: what Caffe refuses to upgrade; the message names `source` and the layer.
    """
    if any(entry.HasField("layer") for entry in net.layers):
        upgrade_v0(net, source)
        log.info(f"{source}: upgraded from V0LayerParameter, a form of 2013")
    if net.layers:
        for entry in net.layers:
            _move_transformation(entry)
        _upgrade_v1(net, source)
        log.info(f"{source}: upgraded from V1LayerParameter, a form of 2014 ('layers' instead of 'layer')")
    if net.input:
        _upgrade_input(net, source)
    for layer in net.layer:
        if layer.type == "BatchNorm" and len(layer.param) == 3:  # its statistics are no learned parameters
            for spec in layer.param:
                spec.lr_mult = spec.decay_mult = 0
    return net


def _move_transformation(entry):
    """Scale, mean_file, crop_size and mirror of a V1 data layer go to transform_param."""
    home = _TRANSFORMING_TYPES.get(caffe_pb2.V1LayerParameter.LayerType.Name(entry.type))
    if home is None:
        return
    settings = getattr(entry, home)
    for name in ("scale", "mean_file", "crop_size", "mirror"):
        if settings.HasField(name):
            setattr(entry.transform_param, name, getattr(settings, name))
            settings.ClearField(name)


def _upgrade_v1(net, source):
    if net.layer:
        raise NetError(
            f"{source}: both 'layer' and 'layers' are used ({net.layer[0].name}, {net.layers[0].name}); "
            "write all layers in one form, best as 'layer' with type strings"
        )
    for entry in net.layers:
        layer = net.layer.add(type=V1_TYPES[entry.type])
        for field, value in entry.ListFields():
            if field.name in _RENAMED:
                continue
            if hasattr(value, "extend"):
                getattr(layer, field.name).extend(value)
            elif field.message_type:
                getattr(layer, field.name).CopyFrom(value)
            else:
                setattr(layer, field.name, value)
        for old, new in (
            (entry.param, "name"),
            (entry.blob_share_mode, "share_mode"),
            (entry.blobs_lr, "lr_mult"),
            (entry.weight_decay, "decay_mult"),
        ):
            for index, value in enumerate(old):
                setattr(_spec(layer, index), new, value)
    net.ClearField("layers")


def _spec(layer, index):
    while len(layer.param) <= index:
        layer.param.add()
    return layer.param[index]


def _upgrade_input(net, source):
    """`input` with dims becomes an Input layer named "input"; without any (old weights files) it is dropped."""
    if net.input_shape or net.input_dim:
        layer = caffe_pb2.LayerParameter(name="input", type="Input", top=net.input)
        for index, name in enumerate(net.input):
            layer.input_param.shape.add().dim.extend(_input_dims(net, index, name, source))
        old = list(net.layer)
        net.ClearField("layer")
        net.layer.append(layer)
        net.layer.extend(old)
    for name in ("input", "input_shape", "input_dim"):
        net.ClearField(name)


def _input_dims(net, index, name, source):
    if net.input_shape:
        if index < len(net.input_shape):
            return net.input_shape[index].dim
        raise NetError(f"{source}: input '{name}' has no input_shape; give one for each of {names.listed(net.input)}")
    dims = net.input_dim[4 * index : 4 * index + 4]
    if len(dims) == 4:
        return dims
    raise NetError(
        f"{source}: input '{name}' has {len(dims)} input_dim of 4 (number, channels, height, width); "
        f"{len(net.input)} inputs need {4 * len(net.input)}, the file has {len(net.input_dim)}"
    )


def upgrade_solver(solver, source: str = "the solver"):
    """Turn the legacy enum `solver_type` into `type`, and upgrade nets written inside the solver; returns it.

    Raises:
        SolverError: both `type` and `solver_type` are set.
        NetError: a net inside the solver cannot be upgraded.
    """
    if solver.HasField("solver_type"):
        name = _SOLVER_TYPES[caffe_pb2.SolverParameter.SolverType.Name(solver.solver_type)]
        if solver.HasField("type"):
            raise SolverError(
                f"{source}: both type: \"{solver.type}\" and the old solver_type: {name.upper()} are set; "
                "remove solver_type"
            )
        solver.type = name
        solver.ClearField("solver_type")
    for field in ("net_param", "train_net_param"):
        if solver.HasField(field):
            upgrade_net(getattr(solver, field), f"{source}, {field}")
    for index, net in enumerate(solver.test_net_param):
        upgrade_net(net, f"{source}, test_net_param {index + 1}")
    return solver
