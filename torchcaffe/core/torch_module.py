"""to_torch: a net as a torch.nn.Module, for training and serving in PyTorch without Caffe's blobs and solvers.

Its layers are built anew and run on the module's own parameters, so nothing is shared with the net it comes from.
"""

from __future__ import annotations

import os

import torch

from torchcaffe.core import log, rng
from torchcaffe.core.build import build_net
from torchcaffe.core.errors import ExportError
from torchcaffe.core.fillers import fill_with_zeros
from torchcaffe.core.net import Net
from torchcaffe.layers import TEST, TRAIN, Context
from torchcaffe.layers.normalization import BatchNorm
from torchcaffe.proto import caffe_pb2, extensions

AUTOMATIC = "(automatic)"  # the top of a loss layer that names none


def to_torch(net, weights=None) -> "TorchNet":
    """The net as a torch.nn.Module with parameters of its own, on the net's device.

    The state_dict has Caffe's layer names and shapes: "conv1.weight", "conv1.bias"; of BatchNorm "bn1.running_mean",
    "bn1.running_var" (as PyTorch has them) and "bn1.scale_factor". A dot in a layer's name makes a submodule.

    Args:
        net: a Net, or the path of a prototxt, which is built in the TEST phase.
        weights: for a prototxt: the path of its caffemodel or HDF5 weights.
    Returns:
        A TorchNet; in eval mode for a TEST net, in train mode for a TRAIN net.
    Raises:
        ExportError: Python layers, which compute on numpy arrays (all are named); two layers of one name with parameters.
        What Net raises, for a prototxt.
    """
    if isinstance(net, (str, os.PathLike)):
        net = Net(net, TEST, weights=weights)
    elif weights is not None:
        raise TypeError("to_torch takes weights with a prototxt only: call net.copy_from(weights) first")
    return TorchNet(net).to(net.device)


class TorchNet(torch.nn.Module):
    """A Caffe net in PyTorch; made by `to_torch`.

    module(data) takes the net's inputs in their order, or by name: module(data=x). The tops of data layers are inputs. It
    returns the output, or a dict of all outputs by name where there are several. An input's first axis may have another
    size than in the net wherever the layers allow it.

    train() and eval() switch Dropout and BatchNorm as Caffe's phases do. Recurrent layers start each call with a state of
    zeros, unless they expose it.

    inputs, outputs: names. loss_weights: output -> its weight in the loss, for those that have one.
    """

    def __init__(self, net):
        super().__init__()
        self.inputs, self.loss_weights = [], {}
        self._given = []  # the values of the inputs: by number, as blobs change in place
        self._steps = []  # (name of the layer's module, the values of its bottoms, those of its tops)
        self._multipliers = {}  # name of a parameter -> (lr_mult, decay_mult)
        built, originals = built_anew(net)
        present, parameters = {}, {}  # blob -> the number of its present value; memory of a blob -> its Parameter
        specs = {id(blob.data_memory): spec for blob, spec in zip(built.learnable, built.learnable_specs)}
        for node, original in zip(built.nodes, originals):
            self._add(node, original, net.phase, present, parameters, specs)
        self.outputs = [*net.outputs, *(name for name in self.loss_weights if name not in net.blobs)]
        self.loss_weights = {name: weight for name, weight in self.loss_weights.items() if name in self.outputs}
        self._results = [present[name] for name in self.outputs]
        self._finished = self._last_uses()
        self.train(net.phase == TRAIN)

    def _add(self, node, original, phase, present, parameters, specs):
        layer = node.layer
        bottoms = [present[name] for name in layer.param.bottom]
        tops = [layer.name if name == AUTOMATIC else name for name in node.top_names]
        self.loss_weights.update((name, weight) for name, weight in zip(tops, node.loss_weights) if weight)
        if layer.type == "Split":  # the values are its bottom's
            present.update(dict.fromkeys(tops, bottoms[0]))
            return
        first = 1 + max(present.values(), default=-1)
        numbers = list(range(first, first + len(tops)))
        present.update(zip(tops, numbers))
        if layer.type == "Input":
            self.inputs += tops
            self._given += numbers
            return
        memories = [id(blob.data_memory) for blob in layer.blobs]
        module = layer_module(layer, original, parameters, specs)
        module.fixed_phase = original.phase != phase
        path = self._place(module, state_name(layer))
        self._steps.append((path, bottoms, numbers))
        for name, memory in zip(module._parameters, memories):
            self._multipliers[f"{path}.{name}"] = specs[memory].lr_mult, specs[memory].decay_mult

    def _place(self, module, path):
        """Add a layer's module under a path; returns the path: with an underscore where one without parameters is there."""
        *parents, name = path.split(".")
        place = self
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, torch.nn.Module())
            place = place._modules[parent]
        found = name
        while found in place._modules:
            if module.state_dict():
                raise ExportError(two_of_one_name(module.layer))
            found += "_"
        place.add_module(found, module)
        return ".".join([*parents, found])

    def _last_uses(self):
        """For each step the values that nobody reads after it, so that their memory is free."""
        finished, read = [], set(self._results)
        for _, bottoms, tops in reversed(self._steps):
            done = {*bottoms, *tops} - read
            read |= done
            finished.append(sorted(done))
        return finished[::-1]

    def forward(self, *inputs, **named):
        values = dict(zip(self._given, self._in_order(inputs, named)))
        for (name, bottoms, tops), finished in zip(self._steps, self._finished):
            results = self.get_submodule(name)(*[values[bottom] for bottom in bottoms])
            values.update(zip(tops, results if isinstance(results, (tuple, list)) else (results,)))
            for number in finished:
                del values[number]
        if len(self.outputs) == 1:
            return values[self._results[0]]
        return {name: values[number] for name, number in zip(self.outputs, self._results)}

    def _in_order(self, inputs, named):
        if named and not inputs and set(named) == set(self.inputs):
            return [named[name] for name in self.inputs]
        if named or len(inputs) != len(self.inputs):
            given = ", ".join(map(repr, named)) if named else f"{len(inputs)}"
            raise TypeError(f"the net takes {len(self.inputs)} inputs, {', '.join(self.inputs)}; given: {given}")
        return inputs

    def parameter_groups(self, base_lr: float, weight_decay: float = 0.0) -> list:
        """The learned parameters for a torch.optim optimizer, each with its lr_mult and decay_mult.

        torch.optim.SGD(module.parameter_groups(0.01, 0.0005), lr=0.01, momentum=0.9) then does what Caffe's SGD does.
        """
        groups = {}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                groups.setdefault(self._multipliers.get(name, (1.0, 1.0)), []).append(parameter)
        return [
            {"params": parameters, "lr": base_lr * lr_mult, "weight_decay": weight_decay * decay_mult}
            for (lr_mult, decay_mult), parameters in groups.items()
        ]


class LayerModule(torch.nn.Module):
    """One layer, with its parameters: learned ones as Parameter; those of lr_mult 0 do not require a gradient."""

    def __init__(self, layer, parameters):
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)
        self._take_tensors(layer)
        layer.blobs = [_Held(self, name, blob.dims) for name, blob in zip(parameters, layer.blobs)]
        self.layer = layer
        self.fixed_phase = False  # the prototxt gives the layer a phase of its own
        self.propagate_down = list(layer.param.propagate_down)  # whether a bottom gets a gradient; empty: each does

    def _take_tensors(self, layer):
        """Tensors that a layer has beside its parameters become buffers, so that they follow to another device."""
        self._tensors = [name for name, value in vars(layer).items() if isinstance(value, torch.Tensor)]
        for name in self._tensors:
            self.register_buffer(f"{name}_tensor", getattr(layer, name), persistent=False)

    def forward(self, *bottoms):
        for name in self._tensors:
            setattr(self.layer, name, getattr(self, f"{name}_tensor"))
        self.layer.shapes(*(tuple(bottom.shape) for bottom in bottoms))  # checks them, and prepares the layer for them
        return self.layer.forward(*self._stopped(bottoms))

    def _stopped(self, bottoms):
        flags = self.propagate_down or [True] * len(bottoms)
        return [bottom if flag else bottom.detach() for bottom, flag in zip(bottoms, flags)]

    def train(self, mode: bool = True):
        if not self.fixed_phase:
            self.layer.phase = TRAIN if mode else TEST
        return super().train(mode)

    def _get_name(self):
        return self.layer.type

    def extra_repr(self):
        return settings(self.layer)


class ParameterModule(LayerModule):
    """A Parameter layer: its top is the parameter itself."""

    def forward(self):
        return self.layer.weight(0)


class BatchNormModule(LayerModule):
    """BatchNorm, whose statistics are buffers; in train mode a forward adds the batch's, as in Caffe."""

    def __init__(self, layer, statistics):
        super().__init__(layer, {})
        for name, value in statistics.items():
            self.register_buffer(name, value.clone())

    def forward(self, x):
        (x,) = self._stopped([x])
        self.layer.check_shape(
            x.dim() > 1 and x.shape[1] == len(self.running_mean),
            f"built for {len(self.running_mean)} channels, got shape {tuple(x.shape)}",
        )
        if self.layer.global_statistics:
            return self.layer.by_statistics(x, self.running_mean, self.running_var)
        y, mean, variance = self.layer.by_batch(x)
        self._gather(mean, variance)
        return y

    @torch.no_grad()
    def _gather(self, mean, variance):
        """Caffe keeps sums, weighted by a moving average, and the sum of weights; these are the sums divided by it."""
        kept = self.scale_factor * self.layer.param.batch_norm_param.moving_average_fraction
        total = kept + 1
        self.running_mean.copy_((self.running_mean * kept + mean) / total)
        self.running_var.copy_((self.running_var * kept + variance) / total)
        self.scale_factor.copy_(total)


class _Held:
    """What a layer finds in its `blobs`: a parameter of the module, whichever tensor that is at the time."""

    def __init__(self, module, name, dims):
        self.module, self.name, self.dims = module, name, tuple(dims)
        self.data_memory = self

    def tensor(self):
        tensor = getattr(self.module, self.name)
        return tensor if tensor.shape == self.dims else tensor.view(self.dims)  # shared by name, in another shape

    def written(self):
        pass

    @property
    def shape(self):
        return self.dims

    @property
    def count(self):
        return self.tensor().numel()

    @property
    def data(self):
        return self.tensor().detach().cpu().numpy()


def layer_module(layer, original, parameters, specs):
    """The module of a layer that was built anew, with the numbers of the original.

    parameters: id of a blob's memory -> its Parameter, added to: what layers share by name is one. specs: id -> ParamSpec.
    """
    if isinstance(layer, BatchNorm):
        return BatchNormModule(layer, original.named_tensors())
    found = {}
    for name, blob, given in zip(layer.named_tensors(), layer.blobs, original.blobs):
        memory = blob.data_memory
        if id(memory) not in parameters:
            tensor = memory.tensor.detach().copy_(given.tensor().detach().view(memory.tensor.shape))
            parameters[id(memory)] = torch.nn.Parameter(tensor, requires_grad=specs[id(memory)].lr_mult != 0)
        found[name] = parameters[id(memory)]
    return (ParameterModule if layer.type == "Parameter" else LayerModule)(layer, found)


def built_anew(net):
    """(BuiltNet with inputs in place of data layers, the net's own layers in the same order); layers without tops left out.

    Raises ExportError for layers that cannot run on tensors.
    """
    refused = [f'"{layer.name}" ({layer.type})' for layer in net.built_layers if layer.works_on_blobs]
    if refused:
        raise ExportError(
            f"to_torch: {', '.join(refused)} cannot run in PyTorch, as Python layers compute on numpy arrays: write them as "
            "torchcaffe.TorchLayer (docs/extending.md)"
        )
    definition = caffe_pb2.NetParameter(name=net.name)
    definition.state.CopyFrom(net.param.state)
    kept = [node for node in net.nodes if node.tops]
    for node in kept:
        layer = definition.layer.add()
        if node.layer.is_source and node.layer.type != "Parameter":
            layer.name, layer.type = node.layer.name, "Input"
            layer.top.extend(node.top_names)
            layer.input_param.shape.extend(caffe_pb2.BlobShape(dim=blob.dims) for blob in node.tops)
        else:
            layer.CopyFrom(node.layer.param)
            del layer.blobs[:]
            if net.param.force_backward:
                del layer.propagate_down[:]
    fill_with_zeros(definition)
    context = Context(torch.device("cpu"), rng.Generator(0), exact_random=False, traceable=True)
    level, log.Settings.minloglevel = log.Settings.minloglevel, log.ERROR
    try:
        return build_net(definition, context), [node.layer for node in kept]
    finally:
        log.Settings.minloglevel = level


def state_name(layer) -> str:
    """What stands before the names of a layer's parameters in a state_dict: its name, with an underscore behind each part
    that a torch.nn.Module has as an attribute (train, type ...)."""
    name = layer.name or layer.type.lower()
    return ".".join(f"{part}_" if not part or part in _TAKEN else part for part in name.split("."))


_TAKEN = {*dir(TorchNet), *vars(torch.nn.Module()), "inputs", "outputs", "loss_weights"}


def two_of_one_name(layer) -> str:
    return f'two layers are named "{layer.name}": give each its own name in the prototxt and in the caffemodel'


def named_tensors(net) -> dict:
    """All numbers of a net as float32 tensors, by the names of `to_torch`'s state_dict. Raises ExportError."""
    found = {}
    for layer in net.built_layers:
        for name, tensor in layer.named_tensors().items():
            name = f"{state_name(layer)}.{name}"
            if name in found:
                raise ExportError(two_of_one_name(layer))
            found[name] = tensor
    return found


def settings(layer) -> str:
    """The layer's settings in one line, without fillers: "num_output: 96 kernel_size: 11 stride: 4"."""
    found = []
    for field, value in layer.param.ListFields():
        if field.message_type is None or not field.name.endswith("_param") or hasattr(value, "append"):
            continue
        shown = type(value)()
        shown.CopyFrom(value)
        for inner, _ in value.ListFields():
            if inner.name.endswith("_filler") or inner.name == "filler":
                shown.ClearField(inner.name)
        found.append(extensions.text(shown))
    return " ".join(" ".join(found).split())
