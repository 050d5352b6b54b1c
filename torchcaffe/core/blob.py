"""Blob: N-dimensional float32 array with a gradient, seen as numpy on the host and as a torch tensor where it computes.

The two are synchronized on demand: `.data` and `.diff` copy to the host, and the engine takes over what was written
there when it next reads the blob. An array that a user holds stays live, as in Caffe on the CPU: the engine refreshes it
after writing the blob, and assumes it was written whenever it is called again.
"""

from __future__ import annotations

import math
import operator
import sys
from typing import TYPE_CHECKING, Union

import numpy as np
import torch

from torchcaffe.core import shapes
from torchcaffe.core.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Device = Union[str, torch.device]


class Memory:
    """One array of a blob (data or diff): a host array, a tensor, or neither (all zero), and which of them is newer."""

    ZERO, HOST, TENSOR, BOTH = range(4)
    __slots__ = ("host", "tensor", "newer")

    def __init__(self):
        self.host = None
        self.tensor = None
        self.newer = Memory.ZERO

    def externally_held(self) -> bool:
        """True when user code holds the host array (or a view on it)."""
        return self.host is not None and sys.getrefcount(self.host) > 2

    def clear(self):
        """Set to zero, without touching memory unless the array is held outside."""
        self.tensor = None
        self.newer = Memory.ZERO
        if self.externally_held():
            self.host.fill(0)
        else:
            self.host = None

    def look(self, shape):
        """Host array, C-contiguous float32 of `shape`; counts as written from now on."""
        if self.newer == Memory.TENSOR and _is_host_layout(self.tensor, shape):
            # A plain CPU tensor and a numpy array can be the same memory: writing to one is writing to the other.
            self.host = self.tensor.detach().numpy() if self.host is None else self.host
        if self.host is None or self.host.shape != shape:
            old = self.host if self.newer in (Memory.HOST, Memory.BOTH) else None
            self.host = np.zeros(shape, np.float32)
            if old is not None:
                count = min(old.size, self.host.size)
                self.host.reshape(-1)[:count] = old.reshape(-1)[:count]
        if self.newer == Memory.TENSOR:
            self._refresh_host()
        self.newer = Memory.HOST
        return self.host

    def _refresh_host(self):
        tensor = self.tensor.detach()
        if tensor.data_ptr() != self.host.ctypes.data or tensor.device.type != "cpu":
            np.copyto(self.host, tensor.reshape(self.host.shape).float().cpu().numpy())

    def assume_written(self):
        """Called where user code may have run: a host array that it holds counts as newer than the tensor."""
        if self.newer == Memory.BOTH and self.externally_held():
            self.newer = Memory.HOST

    def put(self, tensor):
        """Take over what the engine computed; refresh the host array where it is held outside."""
        self.tensor = tensor
        self.newer = Memory.TENSOR
        if self.host is None:
            return
        if self.externally_held() and self.host.size == tensor.numel():
            self._refresh_host()
            self.newer = Memory.BOTH
        else:
            self.host = None

    def get(self, shape, device):
        """Tensor of `shape` on `device`, with what the host side wrote."""
        if self.newer == Memory.ZERO:
            self.tensor = torch.zeros(shape, device=device)
            self.newer = Memory.TENSOR
        elif self.newer == Memory.HOST:
            count = int(np.prod(shape, dtype=np.int64))
            host = self.host if self.host.size == count else self.host.reshape(-1)[:count]  # the blob has shrunk
            self.tensor = torch.from_numpy(host).reshape(shape).to(device)  # on the CPU: the same memory
            self.newer = Memory.BOTH
        if self.tensor.shape != shape:
            self.tensor = self.tensor.reshape(shape)
        return self.tensor


def _is_host_layout(tensor, shape) -> bool:
    plain = tensor.device.type == "cpu" and tensor.dtype == torch.float32 and tensor.is_contiguous()
    return plain and tuple(tensor.shape) == shape


class Persistent(Memory):
    """Memory of a parameter: one tensor for life, updated in place; on the CPU the host array is the tensor itself."""

    __slots__ = ("touched",)

    def __init__(self, tensor):
        super().__init__()
        self.tensor = tensor
        self.newer = Memory.TENSOR
        self.touched = 0  # possible writes that the tensor's own version does not count

    def look(self, shape):
        self.touched += 1
        if self.tensor.device.type == "cpu":
            if self.host is None:
                self.host = self.tensor.detach().numpy()
            return self.host if self.host.shape == shape else self.host.reshape(shape)
        return super().look(shape)

    def stamp(self):
        """A value that changes with each write; None while user code holds the array and may write at any time."""
        if self.tensor.device.type == "cpu" and self.externally_held():
            return None
        return self.tensor._version, self.touched

    def assume_written(self):
        if self.tensor.device.type != "cpu":
            super().assume_written()

    def clear(self):
        with torch.no_grad():
            self.tensor.zero_()

    def put(self, tensor):
        with torch.no_grad():
            self.tensor.copy_(tensor.reshape(self.tensor.shape))
        self.written()

    def written(self):
        """The tensor was updated in place."""
        self.touched += 1
        if self.tensor.device.type != "cpu" and self.host is not None:
            self._refresh_host()
            self.newer = Memory.BOTH

    def get(self, shape, device):
        if self.newer == Memory.HOST and self.tensor.device.type != "cpu":
            with torch.no_grad():
                self.tensor.copy_(torch.from_numpy(self.host).reshape(self.tensor.shape))
            self.newer = Memory.BOTH
        return self.tensor if self.tensor.shape == shape else self.tensor.view(shape)


class Blob:
    """Caffe's blob. `.data` and `.diff` are live float32 numpy arrays of `.shape` (a 0-d array for shape ())."""

    def __init__(self, *shape: int, device: Device = "cpu") -> None:
        self._shape = _checked(shape)
        self._device = torch.device(device)
        self.data_memory = Memory()
        self.diff_memory = Memory()

    def __repr__(self):
        return f"<Blob {self._shape} float32 on {self._device}>"

    @property
    def data(self) -> NDArray[np.float32]:
        return self.data_memory.look(self._shape)

    @property
    def diff(self) -> NDArray[np.float32]:
        return self.diff_memory.look(self._shape)

    @property
    def shape(self) -> IntVec:
        return IntVec(self._shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """Shape as a plain tuple, for the engine."""
        return self._shape

    @property
    def count(self) -> int:
        return math.prod(self._shape)

    @property
    def num(self) -> int:
        return self._legacy(0)

    @property
    def channels(self) -> int:
        return self._legacy(1)

    @property
    def height(self) -> int:
        return self._legacy(2)

    @property
    def width(self) -> int:
        return self._legacy(3)

    def _legacy(self, axis: int) -> int:
        if len(self._shape) > 4:
            raise ShapeError(f"num, channels, height and width need at most 4 axes; this blob has {self._shape}")
        return self._shape[axis] if axis < len(self._shape) else 1

    def reshape(self, *shape: int, **keywords) -> None:
        """Change the shape; contents stay where the count does not grow. Not propagated until Net.reshape/forward.

        Raises RuntimeError for keyword arguments, TypeError for dimensions that are no integers, ShapeError for others.
        """
        if keywords:
            raise RuntimeError("Blob.reshape takes no kwargs")
        self.set_shape(_checked(shape), keep=True)

    def set_shape(self, shape, keep=False):
        """Change the shape of a blob that is about to be written, for the engine; `keep`: keep the contents that fit."""
        if shape == self._shape:
            return
        count, old = math.prod(shape), math.prod(self._shape)
        self._shape = shape
        for memory in (self.data_memory, self.diff_memory):
            if isinstance(memory, Persistent) or memory.newer == Memory.HOST and count <= old:
                continue
            kept = keep or memory is self.diff_memory  # a loss weight lives in the diff, and survives shrinking
            if kept and count <= old and memory.newer in (Memory.TENSOR, Memory.BOTH):
                memory.put(memory.tensor.detach().reshape(-1)[:count].reshape(shape))
            else:
                memory.tensor, memory.host, memory.newer = None, None, Memory.ZERO

    # ---- the engine's side
    def tensor(self):
        return self.data_memory.get(self._shape, self._device)

    def diff_tensor(self):
        return self.diff_memory.get(self._shape, self._device)

    def put(self, tensor):
        if tensor.shape != self._shape:
            self.set_shape(tuple(tensor.shape))
        self.data_memory.put(tensor)

    def put_diff(self, tensor):
        self.diff_memory.put(tensor)

    def share_data(self, other):
        self.data_memory = other.data_memory

    def share_diff(self, other):
        self.diff_memory = other.diff_memory


class IntVec(tuple[int, ...]):
    """Shape as pycaffe shows it: indexable, list()-able, equal to a tuple."""

    __slots__ = ()


class BlobVec(list[Blob]):
    """A layer's learnable blobs: a list to which a Python layer adds with add_blob(*shape), zero-filled."""

    def __init__(self, device: Device = "cpu") -> None:
        super().__init__()
        self.device = device

    def add_blob(self, *shape: int) -> None:
        self.append(parameter(np.zeros(_checked(shape), np.float32), self.device))

    def __setitem__(self, index, value):
        if not isinstance(value, Blob):
            raise TypeError(f"Invalid assignment: a blob stays where it is; write into its numbers, [{index}].data[...]")
        super().__setitem__(index, value)


def _checked(shape) -> tuple[int, ...]:
    shape = tuple(operator.index(dim) for dim in shape)
    problem = shapes.problem(shape)
    if problem:
        raise ShapeError(problem)
    return shape


def parameter(array, device: Device = "cpu") -> Blob:
    """Blob of a learnable parameter filled with `array` (float32)."""
    blob = Blob(*array.shape, device=device)
    tensor = torch.from_numpy(np.ascontiguousarray(array, np.float32)).reshape(array.shape)
    tensor = tensor.to(blob._device) if blob._device.type != "cpu" else tensor
    blob.data_memory = Persistent(tensor)
    return blob
