"""Reads the weights out of an ONNX file, without the onnx package.

The few messages of the format that weights need are declared here (field numbers from the ONNX specification);
protobuf skips all others. Only float32 tensors are understood: MTCNN's files hold no others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, List

import numpy as np

_OPTIONAL, _REPEATED = 1, 3  # protobuf's labels
_INT, _TEXT, _BYTES, _FLOAT = 5, 9, 12, 2  # protobuf's types int32, string, bytes, float
_INT64 = 3
_FLOAT32 = 1  # ONNX's TensorProto.DataType
# message -> field -> (number, label, type or message)
_SCHEMA = {
    "Tensor": {
        "dims": (1, _REPEATED, _INT64),
        "data_type": (2, _OPTIONAL, _INT),
        "float_data": (4, _REPEATED, _FLOAT),
        "name": (8, _OPTIONAL, _TEXT),
        "raw_data": (9, _OPTIONAL, _BYTES),
    },
    "Node": {
        "input": (1, _REPEATED, _TEXT),
        "output": (2, _REPEATED, _TEXT),
        "name": (3, _OPTIONAL, _TEXT),
        "op_type": (4, _OPTIONAL, _TEXT),
    },
    "Graph": {"node": (1, _REPEATED, "Node"), "initializer": (5, _REPEATED, "Tensor")},
    "Model": {"graph": (7, _OPTIONAL, "Graph")},
}


@dataclass(frozen=True)
class Node:
    """One operation of a graph: its name and type, and the names of the tensors that it reads and writes."""

    name: str
    type: str
    inputs: List[str]
    outputs: List[str]


@dataclass(frozen=True)
class Graph:
    """nodes in the order of computation; tensors: the weights by name, float32."""

    nodes: List[Node]
    tensors: Dict[str, np.ndarray]


def read_onnx(path: str) -> Graph:
    """The graph of an ONNX file. Raises ValueError when it is not one, OSError when it cannot be read."""
    from google.protobuf.message import DecodeError

    model = _message_class()()
    with open(path, "rb") as file:
        content = file.read()
    try:
        model.ParseFromString(content)
        tensors = {tensor.name: _array(tensor) for tensor in model.graph.initializer}
    except (DecodeError, ValueError) as error:
        raise ValueError(f"not an ONNX file of float32 weights: {error}") from None
    nodes = [Node(node.name, node.op_type, list(node.input), list(node.output)) for node in model.graph.node]
    return Graph(nodes, tensors)


def _array(tensor) -> np.ndarray:
    if tensor.data_type != _FLOAT32:
        raise ValueError(f"tensor {tensor.name!r} has ONNX data type {tensor.data_type}, expected {_FLOAT32} (float32)")
    values = np.frombuffer(tensor.raw_data, "<f4") if tensor.raw_data else np.array(tensor.float_data, np.float32)
    return values.reshape(tuple(tensor.dims))


def _message_class():
    """The class of ONNX's outermost message, made from _SCHEMA in a pool of its own."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    package = "detector.onnx"
    file = descriptor_pb2.FileDescriptorProto(name="detector/onnx.proto", package=package)
    for message_name, fields in _SCHEMA.items():
        message = file.message_type.add(name=message_name)
        for field_name, (number, label, kind) in fields.items():
            field = message.field.add(name=field_name, number=number, label=label)
            if isinstance(kind, str):
                field.type, field.type_name = field.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                field.type = kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.Model"))
