"""Nets written as Python expressions (pycaffe's `net_spec`): layers are calls, blobs are their values.

    from torchcaffe.net_spec import NetSpec, layers as L, params as P
    net = NetSpec()
    net.data = L.Input(input_param=dict(shape=dict(dim=[1, 3, 224, 224])))
    net.conv1 = L.Convolution(net.data, num_output=64, kernel_size=3, weight_filler=dict(type="xavier"))
    net.relu1 = L.ReLU(net.conv1, in_place=True)
    net.pool1 = L.Pooling(net.relu1, pool=P.Pooling.MAX, kernel_size=2, stride=2)
    print(net.to_proto())

The names given on the NetSpec become the names of blobs and layers. Without a NetSpec, `to_proto(net)` names them
Convolution1, ReLU1, ... Keyword arguments are the fields of the layer's own settings (`convolution_param`), then those
of LayerParameter (`name`, `loss_weight`, `include`, ...); arguments ending in "param" are LayerParameter's always.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

from google.protobuf import message_factory

from torchcaffe.core import names, plugins
from torchcaffe.proto import caffe_pb2, extensions


def _own_settings():
    """Layer type -> its field of LayerParameter, from the schema: type X has its settings in a message XParameter."""
    fields = caffe_pb2.LayerParameter.DESCRIPTOR.fields
    return {
        field.message_type.name[: -len("Parameter")]: field.name
        for field in fields
        if field.name.endswith("_param") and field.message_type.name.endswith("Parameter")
    }


OWN_SETTINGS = _own_settings()


def to_proto(*tops: Top) -> caffe_pb2.NetParameter:
    """NetParameter (without a name) that computes `tops`; each is named after its type: Data1, Pooling1, ..."""
    layers, names, counts = OrderedDict(), {}, Counter()
    for top in tops:
        if not isinstance(top, Top):
            raise TypeError(
                f"to_proto takes tops, not {type(top).__name__}; a layer without tops must be an attribute of a NetSpec"
            )
        top.fn._to_proto(layers, names, counts)
    return _net(layers)


def _net(layers):
    net = caffe_pb2.NetParameter()
    net.layer.extend(layers.values())
    return net


def assign_proto(message: Any, name: str, value: Any) -> None:
    """Set the field `name` of a message from plain Python.

    Lists (tuples, arrays) fill repeated fields, dicts fill messages, a single value for a repeated field becomes its
    one element, enum values are given by number or by name. AttributeError when the message has no such field.
    """
    field = extensions.field_of(message.DESCRIPTOR, name)
    if field is None:
        raise AttributeError(f"{message.DESCRIPTOR.name} has no field '{name}'")
    if hasattr(value, "tolist"):  # numpy
        value = value.tolist()
    repeated = hasattr(getattr(message, name), "extend")
    if not repeated:
        _assign_one(message, field, value)
        return
    for item in value if isinstance(value, (list, tuple, range)) else [value]:
        if field.message_type:
            _fill(getattr(message, name).add(), item)
        else:
            getattr(message, name).append(_plain(field, item))


def _assign_one(message, field, value):
    if field.message_type:
        _fill(getattr(message, field.name), value)
    else:
        setattr(message, field.name, _plain(field, value))


def _fill(message, value):
    if isinstance(value, dict):
        for key, item in value.items():
            assign_proto(message, key, item)
    elif isinstance(value, type(message)):
        message.CopyFrom(value)
    else:
        raise TypeError(f"{message.DESCRIPTOR.name} is given as a dict, not as {value!r}")


def _plain(field, value):
    if hasattr(value, "tolist"):
        value = value.tolist()
    if field.enum_type and isinstance(value, str):
        if value not in field.enum_type.values_by_name:
            raise ValueError(f"{field.name} has no value {value}; it has {names.listed(field.enum_type.values_by_name)}")
        return field.enum_type.values_by_name[value].number
    return value


class Top:
    """One output of a layer: number `n` of the Function `fn`. What layer calls return and take."""

    def __init__(self, fn: Function, n: int) -> None:
        self.fn = fn
        self.n = n

    def to_proto(self) -> caffe_pb2.NetParameter:
        """NetParameter that computes this top alone."""
        return to_proto(self)

    def _to_proto(self, layers, names, counts):
        self.fn._to_proto(layers, names, counts)


class Function:
    """One layer: its type, the tops it reads, its parameters and the tops it makes."""

    def __init__(self, type_name, inputs, params):
        self.type_name = type_name
        for index, top in enumerate(inputs):
            if not isinstance(top, Top):
                raise TypeError(
                    f"{type_name} input {index} is not a Top (type is {type(top)}); "  # pycaffe's words
                    "give parameters by keyword, and pass the tops of a layer with several one by one"
                )
        self.inputs = inputs
        self.params = dict(params)
        self.ntop = self.params.pop("ntop", 1)
        self.in_place = self.params.pop("in_place", False)
        self.tops = tuple(Top(self, n) for n in range(self.ntop))

    def _name_of_top(self, top, names, counts):
        if top not in names:
            counts[self.type_name] += 1
            names[top] = f"{self.type_name}{counts[self.type_name]}"
        return names[top]

    def _name(self, names, counts):
        """The first top's name; a layer without tops has its own."""
        return self._name_of_top(self.tops[0] if self.tops else self, names, counts)

    def _to_proto(self, layers, names, counts):
        if self in layers:
            return
        bottoms = []
        for top in self.inputs:
            top.fn._to_proto(layers, names, counts)
            bottoms.append(layers[top.fn].top[top.n])
        layer = caffe_pb2.LayerParameter(type=self.type_name, bottom=bottoms)
        if self.in_place:
            layer.top.extend(bottoms)
        else:
            layer.top.extend(self._name_of_top(top, names, counts) for top in self.tops)
        layer.name = self._name(names, counts)
        for key, value in self.params.items():
            self._assign(layer, key, value)
        layers[self] = layer

    def _assign(self, layer, key, value):
        holder = self._holder(layer, key)
        if holder is None and plugins.load():
            holder = self._holder(layer, key)
        if holder is None:
            raise AttributeError(self._unknown(layer, key))
        assign_proto(holder, key, value)

    def _own(self):
        """The name of the type's own settings in LayerParameter, or None."""
        return extensions.OWNERS.get(self.type_name) or OWN_SETTINGS.get(self.type_name)

    def _holder(self, layer, key):
        """The message that has the field `key`: the layer's own settings, or the layer; None where neither has it."""
        own, common = self._own(), extensions.field_of(layer.DESCRIPTOR, key)
        if own and not (key.endswith("param") and common) and key in getattr(layer, own).DESCRIPTOR.fields_by_name:
            return getattr(layer, own)
        return layer if common else None

    def _unknown(self, layer, key):
        own = self._own()
        places = f"{own} nor LayerParameter" if own else "LayerParameter (it has no settings message of its own)"
        message = f"{layer.name} ({self.type_name}): no field '{key}' in {places}"
        holders = [
            field.name
            for field in layer.DESCRIPTOR.fields
            if field.name.endswith("_param") and key in field.message_type.fields_by_name
        ]
        if holders:
            return f"{message}; {', '.join(holders)} has it: write {holders[0]}=dict({key}=...)"
        if not own and plugins.contributed(self.type_name):
            return message + plugins.how_to_register(self.type_name)
        return message + (plugins.how_to_register(key) if key.endswith("_param") else "")


class NetSpec:
    """A net under construction: each attribute (or item) is a top, or a layer without tops, and gives it its name."""

    tops: OrderedDict[str, Any]

    def __init__(self) -> None:
        super().__setattr__("tops", OrderedDict())

    def __setattr__(self, name: str, value: Any) -> None:
        self.tops[name] = value

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattribute__("tops")[name]
        except KeyError:
            raise AttributeError(f"the net has no blob '{name}'; {names.suggestion(name, self.tops)}") from None

    def __setitem__(self, key: str, value: Any) -> None:
        self.tops[key] = value

    def __getitem__(self, item: str) -> Any:
        return self.tops[item]

    def __delitem__(self, name: str) -> None:
        del self.tops[name]

    def __delattr__(self, name: str) -> None:
        del self.tops[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tops

    def to_proto(self) -> caffe_pb2.NetParameter:
        """NetParameter (without a name) of all that was assigned and what it is computed from, in that order."""
        named = {top: name for name, top in self.tops.items()}
        layers, counts = OrderedDict(), Counter()
        for name, top in self.tops.items():
            if not isinstance(top, (Top, Function)):
                raise TypeError(f"'{name}' is a {type(top).__name__}, not a top or a layer; one name per top, please")
            top._to_proto(layers, named, counts)
        return _net(layers)


class Layers:
    """`L.Type(*bottoms, ntop=1, in_place=False, **params)`: a Top, a tuple of them, or with ntop=0 the Function."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def layer_fn(*args, **kwargs):
            fn = Function(name, args, kwargs)
            if fn.ntop == 0:
                return fn
            return fn.tops[0] if fn.ntop == 1 else fn.tops

        return layer_fn


class Parameters:
    """`P.Pooling.AVE`: the values of the enums of PoolingParameter, and so for every message XParameter.

    Of a registered layer type: those of its first settings, `P.MultiBoxLoss.SOFTMAX` for multibox_loss_param.
    """

    def __getattr__(self, name: str) -> Any:
        message = None if name.startswith("__") else getattr(caffe_pb2, f"{name}Parameter", None)
        if message is None and name in extensions.OWNERS:
            message = message_factory.GetMessageClass(extensions.DECLARED[extensions.OWNERS[name]].message_type)
        if message is None:
            how = plugins.how_to_register(name) if plugins.contributed(name) else ""
            raise AttributeError(f"no message {name}Parameter in caffe.proto{how}")
        return message


layers = Layers()
params = Parameters()
