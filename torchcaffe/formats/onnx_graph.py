"""An ONNX graph under construction: what the functions of onnx_layers, and `to_onnx` of layers of one's own, write into.

    def to_onnx(self, graph, x):
        return graph.add("Mul", x, graph.parameter(self, "weight", (-1, 1, 1)))
"""

from __future__ import annotations

import math

import numpy as np


class Unsupported(Exception):
    """A layer that ONNX cannot say as it is set; the text is the reason."""


class NeedsFixedBatch(Exception):
    """The graph needs the size of an axis that varies with the number of inputs."""


class Value(str):
    """Name of a value in the graph. shape: a tuple, None for an axis whose size is free; None where it was not asked for."""

    shape: tuple | None

    def __new__(cls, name, shape=None):
        value = super().__new__(cls, name)
        value.shape = None if shape is None else tuple(shape)
        return value


class Graph:
    """Nodes and initializers, written a layer at a time.

    tops: shapes of the present layer's tops, None for an axis whose size is free.
    """

    def __init__(self, onnx, names):
        self.onnx = onnx
        self.taken = set(names)  # names of values; `names` are kept for blobs
        self.nodes, self.initializers = [], {}  # name -> array
        self.tops = []
        self.prefix = ""
        self._shared = {}  # id of a parameter's memory, its name and shape -> initializer

    def begin(self, layer, tops):
        """What is written next belongs to `layer`."""
        self.prefix, self.tops, self._first, self._renamed = layer.name or layer.type, tops, len(self.nodes), {}

    def unique(self, name: str) -> str:
        """`name`, numbered where the graph has it already; taken from now on."""
        found, count = name, 1
        while found in self.taken:
            found, count = f"{name}_{count}", count + 1
        self.taken.add(found)
        return found

    def add(self, operation: str, *inputs, outputs: int = 1, **attributes):
        """Write a node; returns its output as a Value, or a tuple of them where `outputs` is not 1.

        inputs: Values; numbers and arrays become constants: float (arrays: float32) and int or list of int (int64).
        """
        names = [value if isinstance(value, str) else self.constant(value) for value in inputs]
        made = [Value(self.unique(f"{self.prefix}/{operation}")) for _ in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(operation, names, made, name=made[0], **attributes))
        return made[0] if outputs == 1 else tuple(made)

    def constant(self, value, name: str = "constant") -> Value:
        """An initializer with these numbers."""
        array = np.asarray(value)
        array = array.astype(np.float32 if array.dtype.kind == "f" else np.int64 if array.dtype.kind == "i" else array.dtype)
        found = Value(self.unique(f"{self.prefix}/{name}"), array.shape)
        self.initializers[found] = array
        return found

    def parameter(self, layer, name: str, shape=None) -> Value:
        """A parameter of the layer as an initializer "<layer>.<name>", in another shape where one is given."""
        tensors = layer.named_tensors()
        array = tensors[name].cpu().numpy()
        array = array if shape is None else array.reshape(shape)
        key = id(layer.blobs[list(tensors).index(name)].data_memory), name, array.shape
        if key not in self._shared:
            self._shared[key] = found = Value(self.unique(f"{layer.name}.{name}"), array.shape)
            self.initializers[found] = array.astype(np.float32, copy=False)
        return self._shared[key]

    def reshape(self, x: Value, shape) -> Value:
        """x in a shape, of which one axis may be None: the one whose size is free."""
        if x.shape == tuple(shape):
            return x
        if list(shape).count(None) > 1:
            raise NeedsFixedBatch
        target = self.constant([-1 if size is None else size for size in shape] or np.zeros(0, np.int64), "shape")
        return Value(self.add("Reshape", x, target), shape)

    def size(self, length: int | None) -> int:
        """A length that the graph needs as a number."""
        if length is None:
            raise NeedsFixedBatch
        return length

    def present(self, value: str) -> str:
        """The name that a value of the present layer has by now."""
        return self._renamed.get(value, value)

    def made(self, value: str) -> bool:
        """Whether a node of the present layer gives this value."""
        return any(value in node.output for node in self.nodes[self._first :])

    def rename(self, value: str, name: str):
        """Give a value of the present layer another name; `present` then tells it."""
        self._renamed[value] = name
        for node in self.nodes[self._first :]:
            for names in (node.output, node.input):
                for index, found in enumerate(names):
                    if found == value:
                        names[index] = name

    def prune(self, outputs):
        """Leave out what no output needs."""
        needed, kept = set(outputs), []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed.update(node.input)
                kept.append(node)
        self.nodes = kept[::-1]
        self.initializers = {name: array for name, array in self.initializers.items() if name in needed}


def product(sizes):
    """The product of sizes, None where one of them is free."""
    return None if None in sizes else math.prod(sizes)
