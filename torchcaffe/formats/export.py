"""Nets for other programs: ONNX, PyTorch's .pt2, and the weights alone as safetensors.

    net = torchcaffe.Net("deploy.prototxt", torchcaffe.TEST, weights="net.caffemodel")
    export.write_onnx("net.onnx", net)
    export.write_safetensors("net.safetensors", net)
    export.write_pt2("net.pt2", net)

Needs the packages onnx and safetensors (torchcaffe's extra `export`); .pt2 needs torch alone.
"""

from __future__ import annotations

import os

import numpy as np

from torchcaffe.core import extras, torch_module
from torchcaffe.core.errors import CaffeError, ExportError
from torchcaffe.formats import storage
from torchcaffe.formats.free_shapes import BATCH, Shapes
from torchcaffe.formats.onnx_graph import Graph, NeedsFixedBatch, Unsupported, Value
from torchcaffe.layers import TEST

OPSET, IR_VERSION = 17, 8  # of 2022: what onnxruntime reads since 1.13
LARGEST = 2**31 - 1  # bytes of a protobuf file
COPIES = ("Split", "Dropout")  # give their bottom on; they have no value of their own


# ---- safetensors
def tensors(net) -> dict:
    """The net's numbers as float32 arrays (copies), by the names of `to_torch`'s state_dict: "<layer>.weight" ...

    Shapes are Caffe's, which are PyTorch's: convolutions (outputs, inputs / group, height, width), InnerProduct
    (outputs, inputs). Raises ExportError for two layers of one name.
    """
    return {name: np.array(tensor.cpu().numpy(), np.float32) for name, tensor in torch_module.named_tensors(net).items()}


def write_safetensors(path, net, metadata=None):
    """Write `tensors(net)` as a safetensors file, atomically. metadata: {text: text}, kept in its header."""
    save_safetensors(path, tensors(net), metadata)


def save_safetensors(path, arrays, metadata=None):
    """Write {name: array}, see `write_safetensors`."""
    library = extras.load("safetensors.numpy")
    with storage.atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777  # that of new files here; safetensors' own are the user's alone
        try:
            library.save_file(arrays, temporary, metadata=metadata)
        except extras.load("safetensors").SafetensorError as error:
            raise ExportError(f"{path}: cannot be written: {error}") from error
        os.chmod(temporary, mode)


# ---- PyTorch
def to_pt2(net):
    """torch.export.ExportedProgram of a net in the TEST phase; the first axis of its inputs is free where the net allows it.

    Raises ExportError for what PyTorch cannot run, and where torch.export cannot follow a layer.
    """
    import torch

    _need_test_phase(net)
    module, shapes = torch_module.to_torch(net), Shapes(net)
    for free in (True, False) if shapes.free else (False,):
        sizes = shapes.larger_inputs() if free else shapes.inputs
        axes = {name: torch.export.Dim(axis) for name, axis in shapes.free.items()} if free else {}
        one = {axis.__name__: axis for axis in axes.values()}  # inputs of one size share it
        dynamic = tuple({0: one[axes[name].__name__]} if name in axes else None for name in sizes)
        try:
            with torch.no_grad():
                arguments = tuple(torch.zeros(shape, device=net.device) for shape in sizes.values())
                return torch.export.export(module, arguments, dynamic_shapes=(dynamic,) if axes else None)
        except CaffeError:
            raise
        except Exception as problem:  # torch.export has many kinds
            if not free:
                raise ExportError(f"torch.export cannot follow the net: {str(problem).splitlines()[0]}") from problem


def write_pt2(path, net):
    """Write `to_pt2(net)` as torch.export.save does, atomically: torch.export.load(path).module() runs without torchcaffe."""
    save_pt2(path, to_pt2(net))


def save_pt2(path, program):
    """Write a torch.export.ExportedProgram, see `write_pt2`."""
    import torch

    with storage.atomic_write(path) as temporary, open(temporary, "wb") as file:
        torch.export.save(program, file)


# ---- ONNX
def write_onnx(path, net, metadata=None, check=None):
    """Write the net as an ONNX file, atomically; see `to_onnx`. At most 2 GiB, protobuf's limit.

    check: called with the path of the complete temporary file; where it raises, nothing is written.
    Returns what it returns.
    """
    return save_onnx(path, to_onnx(net, metadata), check)


def save_onnx(path, model, check=None):
    """Write an onnx.ModelProto, see `write_onnx`."""
    if model.ByteSize() > LARGEST:
        raise ExportError(f"{path}: would have {model.ByteSize():,} bytes, over protobuf's limit: use safetensors")
    with storage.atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(model.SerializeToString())
        return check(temporary) if check else None


def to_onnx(net, metadata=None):
    """onnx.ModelProto of a net in the TEST phase, opset OPSET: inputs and outputs have the net's blob names, float32.

    The first axis of the inputs is free, "batch", where the net's layers allow it; all other sizes are the net's. Weights
    are initializers with the names of `tensors(net)`. What a layer computes in place of an input has the input's name, a
    slash and its own; an input that no layer reads is no output. metadata: {text: text} for the model's own metadata.

    Raises ExportError for a net in the TRAIN phase, and one that names every layer that ONNX cannot say.
    """
    onnx = extras.load("onnx")
    _need_test_phase(net)
    try:
        model = _Writer(net, onnx, Shapes(net)).model()
    except NeedsFixedBatch:
        model = _Writer(net, onnx, Shapes(net, fixed=True)).model()
    onnx.helper.set_model_props(model, metadata or {})
    if model.ByteSize() <= LARGEST:  # the checker serializes it
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as problem:  # of a layer of one's own
            raise ExportError(f"the nodes are not valid ONNX: {str(problem).strip().splitlines()[0]}") from problem
    return model


def _need_test_phase(net):
    if net.phase != TEST:
        raise ExportError("only a net in the TEST phase can be exported: Net(file, caffe.TEST)")


class _Writer:
    """Converts a net's layers to ONNX nodes, in order."""

    def __init__(self, net, onnx, shapes):
        self.net, self.onnx, self.shapes = net, onnx, shapes
        self.graph = Graph(onnx, net.blobs)
        self.values = {name: Value(name, self.input_shape(name)) for name in net.inputs}  # blob -> its present value
        self.last = {}  # blob -> the last layer that computes it, whose value bears the blob's name
        self.refused = {}  # reason -> layers
        self.items = None  # size of the axis BATCH in the net, where outputs may bear its name
        for node in net.nodes:
            if node.layer.type not in COPIES:
                self.last.update(dict.fromkeys(node.top_names, node.index))

    def input_shape(self, name):
        own = self.net.blobs[name].dims
        return (None, *own[1:]) if name in self.shapes.free else own

    def model(self):
        helper, graph = self.onnx.helper, self.graph
        for node, tops in zip(self.net.nodes, self.shapes.tops):
            if node.layer.type != "Input":
                self.layer(node, tops)
        if self.refused:
            raise ExportError("ONNX cannot say " + "; ".join(
                f"{', '.join(layers)}: {reason}" for reason, layers in self.refused.items()))
        inputs = [self.described(name, self.values_shape(name)) for name in self.net.inputs]
        free = list(self.shapes.free)
        if free and not any(layer.type == "Filter" for layer in self.net.built_layers):
            self.items = self.net.blobs[free[0]].dims[0]
        outputs = [self.output(name) for name in self.net.outputs if self.values[name] != name or name not in self.net.inputs]
        if not outputs:
            raise ExportError("the net computes nothing: it has inputs only")
        graph.prune(value.name for value in outputs)
        initializers = [self.onnx.numpy_helper.from_array(array, name) for name, array in graph.initializers.items()]
        made = helper.make_graph(graph.nodes, self.net.name or "net", inputs, outputs, initializers)
        return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                 producer_name="torchcaffe")

    def values_shape(self, name):
        axis = self.shapes.free.get(name)
        own = self.net.blobs[name].dims
        return own if axis is None else (axis, *own[1:])

    def output(self, blob):
        """The value of an output, under the blob's name unless that is an input's; of two blobs with one value, a copy."""
        value = self.values[blob]
        if blob not in self.net.inputs and value != blob:
            self.graph.nodes.append(self.onnx.helper.make_node("Identity", [value], [blob], name=blob))
            value = Value(blob, value.shape)
        shape = list(value.shape)
        if shape and shape[0] is None and self.net.blobs[blob].dims[0] == self.items:
            shape[0] = BATCH
        return self.described(value, shape)

    def described(self, name, shape):
        return self.onnx.helper.make_tensor_value_info(name, self.onnx.TensorProto.FLOAT, shape)

    def layer(self, node, tops):
        layer = node.layer
        self.graph.begin(layer, tops)
        try:
            made = self.write(layer, [self.values[name] for name in layer.param.bottom])
        except Unsupported as problem:
            self.refused.setdefault(str(problem), []).append(f'"{layer.name}" ({layer.type})')
            made = [Value(name) for name in node.top_names]
        made = [made] if isinstance(made, str) else list(made or ())
        layer.check(len(made) == len(tops), f"to_onnx gives {len(made)} values for {len(tops)} tops")
        for name, value, shape in zip(node.top_names, made, tops):
            self.values[name] = self.named(node, name, value, shape)

    def named(self, node, blob, value, shape):
        """The value with its shape, under the blob's name where no later layer computes that blob."""
        final = self.last.get(blob) == node.index and blob not in self.net.inputs
        name = blob if final else f"{blob}/{node.layer.name}"
        present = self.graph.present(value)
        if present != value:  # the layer gives it for an earlier top, too
            return Value(present, shape)
        if self.graph.made(value):
            name = name if final else self.graph.unique(name)
            self.graph.rename(value, name)
            value = name
        return Value(value, shape)

    def write(self, layer, bottoms):
        from torchcaffe.formats.onnx_layers import WRITERS

        if layer.to_onnx is not None:
            return layer.to_onnx(self.graph, *bottoms)
        function = WRITERS.get(type(layer))
        if function is None:
            raise Unsupported(_reason(layer))
        return function(self.graph, layer, *bottoms)


def _reason(layer):
    if layer.works_on_blobs:
        return "Python layers compute on numpy arrays; write it as torchcaffe.TorchLayer with a method to_onnx"
    if layer.is_loss or layer.is_source or layer.type in ("Accuracy", "HDF5Output"):
        return "reads data, measures or writes files; export the deploy prototxt, which begins with Input layers"
    return "its class has no method to_onnx(graph, *inputs), see docs/export.md"
