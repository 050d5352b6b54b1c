"""Nets for other programs: ONNX, and the weights alone as safetensors.

    net = torchcaffe.Net("deploy.prototxt", torchcaffe.TEST, weights="net.caffemodel")
    export.write_onnx("net.onnx", net)
    export.write_safetensors("net.safetensors", net)

ONNX nodes are written from the net that the engine built, so shapes and pooling windows are the engine's own. What
deploy nets of classifiers use can be written; any other layer type is refused by name. Needs the packages onnx and
safetensors (torchcaffe's extra `export`).
"""

from __future__ import annotations

import math
import os

import numpy as np

from torchcaffe.core import extras, names
from torchcaffe.formats import storage
from torchcaffe.core.errors import CaffeError

OPSET, IR_VERSION = 17, 8  # of 2022: what onnxruntime reads since 1.13
BATCH = "batch"  # ONNX's name of the first axis, which may have any size
LARGEST = 2**31 - 1  # bytes of a protobuf file
COPIES = ("Split", "Dropout")  # what they give in the TEST phase
PARTS = ("weight", "bias")  # a layer's blobs, as PyTorch names them


class ExportError(CaffeError):
    """A net that cannot be written in this format; the message names the remedy."""


def tensors(net) -> dict:
    """The net's weights by name, float32 copies: "<layer>.weight" and "<layer>.bias".

    Shapes are Caffe's, which are PyTorch's: convolutions (outputs, inputs / group, height, width), InnerProduct
    (outputs, inputs). Raises ExportError for a layer with more than two blobs, or two layers of one name.
    """
    found = {}
    for layer in net.built_layers:
        if len(layer.blobs) > len(PARTS):
            raise ExportError(f'layer "{layer.name}" ({layer.type}) has {len(layer.blobs)} blobs; 2 can be exported')
        for part, blob in zip(PARTS, layer.blobs):
            name = f"{layer.name}.{part}"
            if name in found:
                raise ExportError(f'two layers are named "{layer.name}": give each its own name in the prototxt')
            found[name] = np.array(blob.data, np.float32)
    return found


def write_safetensors(path, net, metadata=None):
    """Write `tensors(net)` as a safetensors file, atomically. metadata: {text: text}, kept in its header."""
    library = extras.load("safetensors.numpy")
    with storage.atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777  # that of new files here; safetensors' own are the user's alone
        try:
            library.save_file(tensors(net), temporary, metadata=metadata)
        except extras.load("safetensors").SafetensorError as error:
            raise ExportError(f"{path}: cannot be written: {error}") from error
        os.chmod(temporary, mode)


def write_onnx(path, net, metadata=None, check=None):
    """Write the net as an ONNX file, atomically; see `to_onnx`. At most 2 GiB, protobuf's limit.

    check: called with the path of the complete temporary file; where it raises, nothing is written.
    Returns what it returns.
    """
    model = to_onnx(net, metadata)
    if model.ByteSize() > LARGEST:
        raise ExportError(f"{path}: would have {model.ByteSize():,} bytes, over protobuf's limit: use safetensors")
    with storage.atomic_write(path) as temporary:
        with open(temporary, "wb") as file:
            file.write(model.SerializeToString())
        return check(temporary) if check else None


def to_onnx(net, metadata=None):
    """onnx.ModelProto of a net in the TEST phase: inputs and outputs have the net's blob names, float32.

    The first axis of every input is free, all others are fixed at the net's sizes. Weights are the initializers
    `tensors(net)`. metadata: {text: text} for the model's own metadata. Raises ExportError.
    """
    return _Writer(net, extras.load("onnx")).model(metadata or {})


class _Writer:
    """Converts a net's layers to ONNX nodes, in order."""

    def __init__(self, net, onnx):
        self.net, self.onnx = net, onnx
        self.nodes = []
        self.weights = tensors(net)
        self.values = {}  # blob -> name of its present value: layers that work in place give a blob several
        self.last = {}  # blob -> the last layer that computes it, whose value bears the blob's name
        for index, layer in enumerate(net.built_layers):
            if layer.type not in COPIES:
                self.last.update(dict.fromkeys(layer.param.top, index))

    def model(self, metadata):
        if self.net.phase != 1:
            raise ExportError("only a net in the TEST phase can be exported: Net(file, caffe.TEST)")
        helper, numpy_helper = self.onnx.helper, self.onnx.numpy_helper
        for index, layer in enumerate(self.net.built_layers):
            self.layer(index, layer)
        initializers = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(
            self.nodes, self.net.name or "net", [self.described(name) for name in self.net.inputs],
            [self.described(name) for name in self.net.outputs], initializers,
        )  # fmt: skip
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                                  producer_name="torchcaffe")
        helper.set_model_props(model, metadata)
        if model.ByteSize() <= LARGEST:  # the checker serializes it
            self.onnx.checker.check_model(model)
        return model

    def described(self, blob):
        shape = [BATCH, *self.net.blobs[blob].dims[1:]]
        return self.onnx.helper.make_tensor_value_info(blob, self.onnx.TensorProto.FLOAT, shape)

    def layer(self, index, layer):
        bottoms = [self.values[name] for name in layer.param.bottom]
        if layer.type in COPIES:
            for top in layer.param.top:
                shown = top in self.net.outputs and self.last.get(top, -1) < index and top != bottoms[0]
                self.values[top] = top if shown else bottoms[0]
                if shown:
                    self.add("Identity", layer, bottoms, top)
            return
        if layer.type != "Input":
            if not hasattr(self, f"write_{layer.type}"):
                raise ExportError(
                    f'layer "{layer.name}": type {layer.type} cannot be written as ONNX; supported: '
                    f"{names.listed(KNOWN)}"
                )
            if len(layer.param.top) != 1:
                raise ExportError(f'layer "{layer.name}" ({layer.type}): {len(layer.param.top)} tops; only 1 can be exported')
        for top in layer.param.top:
            self.values[top] = top if self.last[top] == index else f"{top}/{layer.name}"
        if layer.type != "Input":
            shape = self.net.blobs[layer.param.bottom[0]].dims
            getattr(self, f"write_{layer.type}")(layer, bottoms, self.values[layer.param.top[0]], shape)

    def add(self, operation, layer, inputs, output, **attributes):
        name = layer.name if output in self.values.values() else output
        self.nodes.append(self.onnx.helper.make_node(operation, inputs, [output], name=name, **attributes))

    def constant(self, name, values):
        self.weights[name] = np.asarray(values, np.float32)
        return name

    def parameters(self, layer):
        return [f"{layer.name}.{part}" for part, _ in zip(PARTS, layer.blobs)]

    def write_Convolution(self, layer, bottoms, top, shape):
        if layer.channel_axis != 1:
            raise ExportError(f'layer "{layer.name}" (Convolution): axis {layer.channel_axis}; only 1 can be exported')
        self.add("Conv", layer, bottoms + self.parameters(layer), top, kernel_shape=list(layer.kernel),
                 strides=list(layer.stride), pads=[*layer.pad, *layer.pad], dilations=list(layer.dilation),
                 group=layer.group)

    def write_InnerProduct(self, layer, bottoms, top, shape):
        """A product of rows: ONNX's Gemm, behind a Flatten where an item has several axes."""
        if layer.first != 1:
            raise ExportError(f'layer "{layer.name}" (InnerProduct): axis {layer.first}; only 1 can be exported')
        if len(shape) != 2:
            flat = f"{top}/flat"
            self.add("Flatten", layer, bottoms, flat, axis=1)
            bottoms = [flat]
        transposed = layer.param.inner_product_param.transpose
        self.add("Gemm", layer, bottoms + self.parameters(layer), top, transB=0 if transposed else 1)

    def write_Pooling(self, layer, bottoms, top, shape):
        """Caffe rounds sizes up: the far padding is what its windows need, and never counts in a mean."""
        if layer.method == layer.param.pooling_param.STOCHASTIC:
            raise ExportError(f'layer "{layer.name}" (Pooling): STOCHASTIC pooling cannot be written as ONNX')
        kernel, count = layer.window(shape), layer.shapes(shape)[0][2:]
        needed = [(count[i] - 1) * layer.stride[i] + kernel[i] - shape[2 + i] - layer.pad[i] for i in (0, 1)]
        if any(far >= kernel[i] for i, far in enumerate(needed)):
            raise ExportError(f'layer "{layer.name}" (Pooling): a window lies outside the image, which ONNX does not allow')
        window = {"kernel_shape": list(kernel), "strides": list(layer.stride),
                  "pads": [*layer.pad, *(max(0, far) for far in needed)]}
        if layer.method == layer.param.pooling_param.MAX:
            self.add("MaxPool", layer, bottoms, top, **window)
            return
        lengths = [layer_extents(layer, shape[2 + i], kernel[i], count[i], i) for i in (0, 1)]
        factors = math.prod(kernel) / (lengths[0][:, None] * lengths[1][None, :])
        if (factors == 1).all():
            self.add("AveragePool", layer, bottoms, top, count_include_pad=1, **window)
            return
        mean = f"{top}/mean"
        self.add("AveragePool", layer, bottoms, mean, count_include_pad=1, **window)
        self.add("Mul", layer, [mean, self.constant(f"{top}/factors", factors)], top)

    def write_ReLU(self, layer, bottoms, top, shape):
        slope = layer.param.relu_param.negative_slope
        if slope:
            self.add("LeakyRelu", layer, bottoms, top, alpha=slope)
        else:
            self.add("Relu", layer, bottoms, top)

    def write_Sigmoid(self, layer, bottoms, top, shape):
        self.add("Sigmoid", layer, bottoms, top)

    def write_Softmax(self, layer, bottoms, top, shape):
        self.add("Softmax", layer, bottoms, top, axis=layer.along)


KNOWN = sorted(["Input", *COPIES, *(n[len("write_"):] for n in vars(_Writer) if n.startswith("write_"))])


def layer_extents(layer, size, kernel, count, axis):
    """Lengths of a mean's windows that its divisor counts, float64."""
    import torch

    return layer.extents(size, kernel, count, axis, torch.zeros(0, dtype=torch.float64)).numpy()
