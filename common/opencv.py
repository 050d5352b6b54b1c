"""Trained nets on OpenCV's DNN module: the part of pycaffe that answering photos needs, without loading torch.

    from common import opencv
    net = opencv.Net("deploy.prototxt", opencv.TEST, weights="trained.caffemodel")
    net.blobs["data"].data[...] = crops
    print(net.forward()["prob"])

OpenCV takes a file that it misunderstands without a word. So files are read and checked by torchcaffe's readers; OpenCV
gets only nets made of READABLE layers and settings, with weights that fit, and torchcaffe computes all others.
"""

from __future__ import annotations

import math
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple, Type

import numpy as np

TEST = 1  # pycaffe's number
# Layer type -> its parameters' field and the settings that OpenCV computes as Caffe does (compared in
# tests/common/test_opencv.py).
READABLE = {
    "Convolution": ("convolution_param", {"num_output", "pad", "kernel_size", "stride", "weight_filler", "bias_filler"}),
    "Dropout": ("dropout_param", {"dropout_ratio"}),
    "InnerProduct": ("inner_product_param", {"num_output", "weight_filler", "bias_filler"}),
    "Input": ("input_param", {"shape"}),
    "PReLU": ("prelu_param", {"filler"}),
    "Pooling": ("pooling_param", {"pool", "kernel_size", "stride"}),
    "ReLU": ("relu_param", set()),
    "Softmax": ("softmax_param", set()),
}
LARGEST_FILE = 64 << 20  # bytes of weights; torchcaffe maps a larger file into memory, OpenCV copies it
LAYER, LAYER_BLOBS = 100, 7  # field numbers of NetParameter and LayerParameter
NO_MEMORY = -4  # OpenCV's error code
Shape = Tuple[int, ...]


class UnreadableError(RuntimeError):
    """OpenCV is not given this net: the message says why."""


def Net(definition: str, phase: int, weights: str) -> Any:  # pycaffe's name
    """A trained net on OpenCV where it can compute it, else on torchcaffe. Wrong files raise what torchcaffe raises."""
    try:
        return OpenCVNet(definition, weights)
    except UnreadableError:
        import torchcaffe

        return torchcaffe.Net(definition, phase, weights=weights)


def set_mode_cpu() -> None:
    """OpenCV's nets compute on the CPU; torchcaffe's do so unless told otherwise."""


class Blob:
    """A net's input: `data` is float32, of the shape that `reshape` sets."""

    def __init__(self, shape: Shape):
        self.data = np.zeros(shape, np.float32)

    def reshape(self, *shape: int) -> None:
        self.data = np.zeros(shape, np.float32)


class Step(NamedTuple):
    """A layer for an input of some shape: the shape of its output, and those of its weights."""

    layer: Any  # LayerParameter
    shape: Shape
    weights: List[Shape]


class OpenCVNet:
    """A net with one input, forward only. As many threads as OpenCV's, and no more than OMP_NUM_THREADS allows torch.

    Raises UnreadableError for a file that torchcaffe would refuse, and for a net that OpenCV may compute in another way.
    """

    engine = "opencv"

    def __init__(self, definition: str, weights: str):
        import cv2

        self._message = _read_definition(definition)
        first = self._message.layer[0]
        if len(first.input_param.shape) != 1:
            raise UnreadableError(f"{definition}: layer '{first.name}' has not one shape")
        shape = tuple(first.input_param.shape[0].dim)
        self._check_memory(shape, UnreadableError)
        content = _with_weights(list(_steps(self._message, shape)), weights)
        try:
            self._net = cv2.dnn.readNetFromCaffe(np.frombuffer(_text(self._message), np.uint8), content)
        except cv2.error as error:
            raise UnreadableError(f"{weights}: {error}") from None
        _limit_threads()
        self.blobs = {first.top[0]: Blob(shape)}
        self._outputs = _outputs(self._message)
        self._shape = shape

    def forward(self) -> Dict[str, np.ndarray]:
        """The net's outputs, name -> float32 array of its own. Raises MemoryError, RuntimeError."""
        import cv2

        ((_, blob),) = self.blobs.items()
        if blob.data.shape != self._shape:
            self._check_memory(blob.data.shape, MemoryError)
            self._shape = blob.data.shape
        try:
            self._net.setInput(np.ascontiguousarray(blob.data, np.float32))
            results = self._net.forward(list(self._outputs.values()))
        except cv2.error as error:
            if error.code == NO_MEMORY:
                raise MemoryError(f"OpenCV has no memory for an input of shape {blob.data.shape}") from None
            raise RuntimeError(f"OpenCV cannot compute an input of shape {blob.data.shape}: {error}") from None
        return dict(zip(self._outputs, results))

    def _check_memory(self, shape: Shape, error: Type[Exception]) -> None:
        """Raises `error`. Linux overcommits memory: without this check a process with too large an input is killed."""
        from torchcaffe.core import memory

        largest = max(math.prod(step.shape) for step in _steps(self._message, shape))
        needed = 2 * 4 * largest  # a layer's bottom and top: OpenCV reuses the memory of the others
        memory.require(needed, f"an input of shape {shape}", error)


# --------------------------------------------------------------------------------------- what OpenCV is given
def _read_definition(path: str) -> Any:
    """NetParameter of a prototxt. Raises UnreadableError unless all is READABLE and comes from one input."""
    from torchcaffe.core.errors import PrototxtError
    from torchcaffe.formats import prototxt
    from torchcaffe.proto import caffe_pb2

    try:
        with open(path, encoding="utf-8") as file:
            message = prototxt.parse(file.read(), caffe_pb2.NetParameter(), path)
    except (OSError, UnicodeDecodeError, PrototxtError) as error:
        raise UnreadableError(str(error)) from None
    if _unknown(message, {"name", "layer"}) or not message.layer:
        raise UnreadableError(f"{path}: {_unknown(message, {'name', 'layer'}) or 'no layer'}")
    if len({layer.name for layer in message.layer}) < len(message.layer):
        raise UnreadableError(f"{path}: two layers of one name")
    tops: set = set()
    for layer in message.layer:
        _check_layer(path, layer, tops)
        tops.update(layer.top)
    return message


def _check_layer(path: str, layer: Any, tops: set) -> None:
    """Raise UnreadableError for a layer, or a setting, that is not in READABLE, or that does not read one blob of `tops`."""
    field, settings = READABLE.get(layer.type, ("", set()))
    unknown = f"type {layer.type}" if not field else (
        _unknown(layer, {"name", "type", "bottom", "top", field}) or _unknown(getattr(layer, field), settings))
    if unknown or layer.type == "Pooling" and layer.pooling_param.pool != layer.pooling_param.MAX:
        raise UnreadableError(f"{path}: layer '{layer.name}': {unknown or 'pool other than MAX'}")
    is_input, bottoms = layer.type == "Input", set(layer.bottom)
    if is_input == bool(tops) or len(layer.bottom) != (not is_input) or not bottoms <= tops:
        raise UnreadableError(f"{path}: layer '{layer.name}' does not read one blob of the layers before it")
    if len(layer.top) != 1 or not (tops - bottoms).isdisjoint(layer.top):
        raise UnreadableError(f"{path}: layer '{layer.name}' does not make one blob of its own")


def _unknown(message: Any, known: set) -> str:
    return ", ".join(field.name for field, _ in message.ListFields() if field.name not in known)


def _steps(message: Any, shape: Shape) -> Iterator[Step]:
    """The layers of a net of _read_definition for an input of `shape`. Raises UnreadableError where they do not fit."""
    shapes: Dict[str, Shape] = {}
    for layer in message.layer:
        bottom = shapes[layer.bottom[0]] if layer.bottom else shape
        top, weights = bottom, []
        if layer.type == "Convolution":
            settings = layer.convolution_param
            kernel, pad, stride = (_one(values, missing) for values, missing in (
                (settings.kernel_size, 0), (settings.pad, 0), (settings.stride, 1)))
            if stride < 1:
                raise UnreadableError(f"layer '{layer.name}' has no stride for both axes")
            top = (*bottom[:1], settings.num_output, *((side + 2 * pad - kernel) // stride + 1 for side in bottom[2:]))
            weights = [(settings.num_output, *bottom[1:2], kernel, kernel), (settings.num_output,)]
        elif layer.type == "Pooling":
            kernel, stride = layer.pooling_param.kernel_size, layer.pooling_param.stride
            if not 1 <= stride <= kernel:  # above: windows that begin beyond the input
                raise UnreadableError(f"layer '{layer.name}' has stride {stride}, and kernel {kernel}")
            top = (*bottom[:2], *(-(-(side - kernel) // stride) + 1 for side in bottom[2:]))
        elif layer.type == "InnerProduct":
            top = (*bottom[:1], layer.inner_product_param.num_output)
            weights = [(top[1], math.prod(bottom[1:])), (top[1],)]
        elif layer.type == "PReLU":
            weights = [bottom[1:2]]
        spatial = layer.type in ("Input", "Convolution", "Pooling")
        if len(bottom) != 4 and (spatial or len(bottom) != 2) or min(top) < 1:
            raise UnreadableError(f"layer '{layer.name}' has an input of shape {bottom}")
        shapes[layer.top[0]] = top
        yield Step(layer, top, weights)


def _one(values: Any, missing: int) -> int:
    """The number of a repeated setting of two axes, 0 (which no layer can have) where they differ."""
    return missing if not values else values[0] if len(set(values)) == 1 else 0


def _with_weights(steps: List[Step], path: str) -> np.ndarray:
    """A caffemodel's bytes: the layers of `steps` with their weights from the file.

    OpenCV parses only this: old forms and HDF5 are read too, and a damaged file never reaches it. Raises UnreadableError
    where the weights do not fit.
    """
    from torchcaffe.core.errors import CaffeError
    from torchcaffe.formats import weights as formats
    from torchcaffe.formats import wire

    try:
        if os.path.getsize(path) > LARGEST_FILE:
            raise UnreadableError(f"{path} has more than {LARGEST_FILE:,} bytes")
        layers = formats.read_weights(path)
    except (OSError, CaffeError) as error:
        raise UnreadableError(str(error)) from None
    found = {layer.name: layer.blobs for layer in layers if layer.blobs}
    if len(found) < sum(bool(layer.blobs) for layer in layers):
        raise UnreadableError(f"{path}: a layer is there twice")
    buffers: list = []
    for layer, _, shapes in steps:
        blobs = found.get(layer.name, [])
        if [blob and _fitted(blob.shape, shape) for blob, shape in zip(blobs, shapes)] != shapes or len(blobs) != len(shapes):
            raise UnreadableError(f"{path}: layer '{layer.name}' has other weights than the net")
        if not all(np.isfinite(blob.data).all() for blob in blobs):  # OpenCV's ReLU makes 0 of NaN
            raise UnreadableError(f"{path}: layer '{layer.name}' holds NaN or Inf")
        arrays = [wire.blob_buffers(blob.data.reshape(shape)) for blob, shape in zip(blobs, shapes)]
        fields = [buffer for array in arrays for buffer in wire.delimited(LAYER_BLOBS, array)]
        buffers += wire.delimited(LAYER, [layer.SerializeToString(), *fields])
    return np.frombuffer(b"".join(buffers), np.uint8)


def _fitted(shape: Shape, wanted: Shape) -> Shape:
    """`wanted` where a blob of `shape` is one: files of 2014 have four axes, the first of them 1."""
    return wanted if shape in (wanted, (1,) * (4 - len(wanted)) + wanted) else shape


def _outputs(message: Any) -> Dict[str, str]:
    """Blob -> the layer that makes it last, of blobs that no other layer reads: a net's outputs, as pycaffe has them."""
    makers: Dict[str, str] = {}
    for layer in message.layer:
        for bottom in layer.bottom:
            makers.pop(bottom, None)
        makers[layer.top[0]] = layer.name
    return makers


def _text(message: Any) -> bytes:
    from google.protobuf import text_format

    return text_format.MessageToString(message).encode()


def _limit_threads() -> None:
    """OMP_NUM_THREADS, which torch obeys, for OpenCV's own threads."""
    import cv2

    limit = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if limit.isdecimal() and 0 < int(limit) < cv2.getNumThreads():
        cv2.setNumThreads(int(limit))
