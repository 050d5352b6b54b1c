"""VGG-Face from elsewhere: a port's weights in safetensors or ONNX become the caffemodel of the release's form.

Not a command of its own: `python tools/weights.py --file port.safetensors --channels rgb` uses it. The port must take
pixels of 0..255 with the mean subtracted, as VGG-Face does; its first layer may read RGB or BGR, which no file says, so
the user does. Nothing is unpickled: a .pt or .pth file is a program, and PyTorch's reader for untrusted ones
(weights_only) has been broken before (CVE-2025-32434), while safetensors and ONNX hold nothing but numbers.
"""

from __future__ import annotations

import os
from typing import Dict, Iterator, List, Tuple

import recipe
from gender_smile.nets.vgg_face import expected_shapes, write_vgg_face

CHANNELS = ("rgb", "bgr")
PICKLES = (b"PK\x03\x04", b"\x80")  # how PyTorch's files begin: a zip with a pickle, or the pickle itself
PICKLE_SUFFIXES = (".pt", ".pth", ".pkl", ".pickle")
LAYERS = tuple(expected_shapes())
CONVOLUTIONS = tuple(name for name in LAYERS if name.startswith("conv"))
# torchvision's vgg16 counts convolutions, ReLUs and poolings in one row.
TORCHVISION = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
STYLES = {
    "Caffe's: conv1_1.weight ... fc8.weight": LAYERS,
    "VGG-Face in PyTorch: conv_1_1.weight ... fc8.weight": tuple(name.replace("conv", "conv_") for name in LAYERS),
    "torchvision's vgg16: features.0.weight ... classifier.6.weight": (
        *(f"features.{index}" for index in TORCHVISION), *(f"classifier.{index}" for index in (0, 3, 6))
    ),
}  # fmt: skip
WRAPPER = "module."  # put before every name by torch.nn.DataParallel
# ONNX operations that may stand between the layers: what VGG-Face does, and how exporters spell a flattening.
HARMLESS = {"Relu", "MaxPool", "Dropout", "Flatten", "Reshape", "Softmax", "LogSoftmax", "Identity", "Constant",
            "Shape", "Gather", "Concat", "Unsqueeze", "Squeeze", "Slice", "Cast"}
UNCHANGED = {"Identity", "Cast", "Shape"}  # those of them that may read the input: others could turn its channels


def kind(path: str) -> str:
    """"safetensors", "onnx", "pickle", or "" for anything else, by content where it tells. Raises OSError."""
    with open(path, "rb") as stream:
        head = stream.read(9)
    suffix = os.path.splitext(path)[1].lower()
    if head.startswith(PICKLES) or suffix in PICKLE_SUFFIXES:
        return "pickle"
    if len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < os.path.getsize(path):
        return "safetensors"
    return "onnx" if suffix == ".onnx" else ""


def convert(path: str, target: str, channels: str | None, width: float = 1.0,
            input_size: int = recipe.PAPER.crop_size) -> None:
    """Write the port at `path` to `target` as a V1 caffemodel (BGR, as Caffe's), its 16 layers named as the release's.

    channels: "rgb" or "bgr", the order that the port's first layer reads. `width` and `input_size` as in
    vgg_face.expected_shapes. Raises torchcaffe.core.errors.WeightsError for a pickle, a file that is no port of VGG-Face,
    and where `channels` is not said; vgg_face.check_vgg_face is for the values.
    """
    from torchcaffe.core.errors import WeightsError

    found = kind(path)
    if found == "pickle":
        raise WeightsError(f"{path}: a PyTorch pickle can run any program when it is read, so it is not read; where "
                           "you trust it, write its state_dict with safetensors.torch.save_file (docs/export.md)")
    if channels not in CHANNELS:
        raise WeightsError(f"{path}: say which channel order its first layer reads, --channels rgb or --channels bgr "
                           "(make: CHANNELS=rgb): a wrong one works, badly")
    read = {"safetensors": _read_safetensors, "onnx": _read_onnx}[found]
    arrays = dict(zip(LAYERS, read(path)))
    for name, shapes in expected_shapes(width, input_size).items():
        for array, shape, part in zip(arrays[name], shapes, ("weight", "bias")):
            if array.shape != shape and not (name == "fc6" and array.ndim == 4 and array.size == shape[0] * shape[1]):
                raise WeightsError(f"{path}: the {part} of {name} has shape {_listed(array.shape)}, expected "
                                   f"{_listed(shape)}: it is not VGG-Face")
        weights, bias = arrays[name]
        arrays[name] = [weights.reshape(shapes[0]), bias]  # fc6 may come as the 7 x 7 convolution that it is
    if channels == "rgb":
        arrays["conv1_1"][0] = arrays["conv1_1"][0][:, ::-1]
    write_vgg_face(target, "VGG_FACE", arrays, input_size)


def _read_safetensors(path: str) -> Iterator[List]:
    """[weights, bias] of each of LAYERS, float32."""
    import numpy as np
    from torchcaffe.core.errors import WeightsError
    from torchcaffe.core import extras

    library = extras.load("safetensors")
    try:
        with library.safe_open(path, framework="numpy") as file:
            names = {name.removeprefix(WRAPPER): name for name in file.keys()}
            style = next((style for style in STYLES.values() if all(f"{name}.weight" in names for name in style)), None)
            if style is None:
                listed = ", ".join(list(names)[:4]) or "nothing"
                raise WeightsError(f"{path}: holds {listed} ...; known names are {'; '.join(STYLES)}")
            for name in style:
                missing = [part for part in ("weight", "bias") if f"{name}.{part}" not in names]
                if missing:
                    raise WeightsError(f"{path}: lacks {name}.{missing[0]}")
                yield [np.asarray(file.get_tensor(names[f"{name}.{part}"]), np.float32) for part in ("weight", "bias")]
    except (library.SafetensorError, TypeError, ValueError, AttributeError) as error:  # damaged; a type numpy lacks
        raise WeightsError(f"{path}: not a safetensors file of numbers that numpy has ({error}); save it as float32 "
                           "anew") from None


def _read_onnx(path: str) -> List[List]:
    """[weights, bias] of each of LAYERS, float32: the graph's convolutions and products in their order."""
    from torchcaffe.core.errors import WeightsError
    from torchcaffe.core import extras

    onnx = extras.load("onnx")
    numpy_helper = onnx.numpy_helper
    try:
        graph = onnx.load(path).graph
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    except Exception as error:  # protobuf's, the file system's and onnx's own: a damaged file or lost external data
        raise WeightsError(f"{path}: not a whole ONNX file ({error}); export it anew") from None
    layers, products = [], {}
    pixels = {value.name for value in graph.input} - {*constants}  # the input, and what has its values still
    for node in graph.node:
        attributes = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        try:
            if node.op_type == "Conv":
                layers.append(("conv", _pair(constants, node.input[1], node.input[2])))
            elif node.op_type == "Gemm":
                weights, bias = _pair(constants, node.input[1], node.input[2])
                layers.append(("fc", [weights if attributes.get("transB") else weights.T, bias]))
                if any(attributes.get(name, 1) != 1 for name in ("alpha", "beta")) or attributes.get("transA"):
                    raise WeightsError(f"{path}: node {node.name!r}: a Gemm with alpha, beta or transA is none of "
                                       "VGG-Face's")
            elif node.op_type == "MatMul":
                products[node.output[0]] = constants[node.input[1]]
            elif node.op_type == "Add":
                weights, bias = _bias_of(node, products, constants)
                layers.append(("fc", [_float(weights.T), _float(bias)]))
            elif node.op_type not in HARMLESS or (pixels & {*node.input} and node.op_type not in UNCHANGED):
                raise WeightsError(f"{path}: node {node.name!r} is {node.op_type}, which VGG-Face does not have"
                                   f"{' there' if node.op_type in HARMLESS else ''}: a port that prepares its input or "
                                   "turns its channels in the graph is not understood")
            elif pixels & {*node.input} and node.op_type != "Shape":
                pixels |= {*node.output}
        except (KeyError, IndexError):
            raise WeightsError(f"{path}: node {node.name!r} ({node.op_type}) has no weights and biases of its own in "
                               "the file") from None
    kinds = ["conv" if name in CONVOLUTIONS else "fc" for name in LAYERS]
    found = [kind for kind, _ in layers]
    if found != kinds and found != ["conv"] * 14 + ["fc"] * 2:  # fc6 as a convolution
        raise WeightsError(f"{path}: has {found.count('conv')} convolutions and {found.count('fc')} fully connected "
                           f"layers, VGG-Face {len(CONVOLUTIONS)} and {len(LAYERS) - len(CONVOLUTIONS)}")
    return [arrays for _, arrays in layers]


def _bias_of(node, products: Dict, constants: Dict) -> Tuple:
    """(weights, bias) of an Add behind a MatMul, in either order. Raises KeyError for another Add."""
    first, second = node.input
    if first not in products:
        first, second = second, first
    return products[first], constants[second]


def _pair(constants: Dict, weights: str, bias: str) -> List:
    return [_float(constants[weights]), _float(constants[bias])]


def _float(array):
    import numpy as np

    return np.asarray(array, np.float32)


def _listed(shape) -> str:
    return " x ".join(str(size) for size in shape)
