"""What a layer is: shapes from shapes, tops from bottoms in torch; gradients come from autograd."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, List, Type

import numpy as np
import torch

from torchcaffe.core import fillers, memory, names, shapes
from torchcaffe.core.blob import Blob, BlobVec, parameter
from torchcaffe.core.errors import NetError, ShapeError
from torchcaffe.distributed.shares import WHOLE, Share

TRAIN, TEST = 0, 1


@dataclass
class Context:
    """What a net lends its layers: device, random generator, and the folder that relative sources start from."""

    device: torch.device
    generator: object
    exact_random: bool = True  # Caffe's CPU draws; False: torch's generator on the GPU
    share: Share = WHOLE  # of each training batch
    precision: str = "float32"


class Layer:
    """Base of all layers. Subclasses set `type`, the allowed blob counts, and write `setup`, `shapes` and `forward`.

    `bottoms`/`tops`: (minimum, maximum) number of blobs, None for no limit.
    """

    type = ""
    bottoms = (1, 1)
    tops = (1, 1)
    is_loss = False  # first top has loss_weight 1 unless the prototxt says otherwise; a top may be left out
    is_source = False  # makes its tops itself (data, input, dummy): no shapes follow from bottoms
    is_view = False  # tops are the bottom's memory, seen otherwise
    in_place = True  # top may be the same blob as bottom
    has_backward = True
    gradient_to = None  # None: every bottom; else indices of the bottoms that get a gradient when forced
    refuses_gradient = ()  # bottoms that cannot have a gradient: an error where one is asked for; -1 is the last
    always_propagates = False  # writes bottom diffs whenever it runs backward, asked for or not
    always_learns = False  # parameters of lr_mult 0 get gradients, too: clip_gradients counts them
    any_precision = False  # computes in the type of its bottoms; the others are given float32 in every precision
    works_on_blobs = False  # runs on Blobs (forward_blobs, backward_blobs) instead of tensors
    fuses_relu = False  # has will_fuse(*bottoms), and where that is true a forward(*bottoms, relu=True)
    forward_in_place = None  # as forward, overwriting the bottom
    gradient_from_bottoms = False  # backward needs only bottoms and parameters: in Caffe it runs without a forward before
    deferred_check = None  # a function: a check that would have made the host wait for the GPU, see `flush`

    def __init__(self, param, phase: int, context: Context):
        self.param = param
        self.phase = phase
        self.context = context
        self.blobs: List[Blob] = BlobVec(context.device)
        self.shown = self  # what Net.layers shows

    # ---- what subclasses write
    def setup(self, bottom: List[Blob], top: List[Blob]):
        """Read and check parameters, create self.blobs. Called once, before the first `shapes`."""

    def shapes(self, *bottom_shapes):
        """List of top shapes for the given bottom shapes. Default: the bottom's."""
        return [bottom_shapes[0]]

    def forward(self, *bottoms: torch.Tensor):
        """Tops (a tensor, or a tuple of them) from bottoms, in torch operations that autograd can follow."""
        raise NotImplementedError

    def reshape(self, bottom: List[Blob], top: List[Blob]):
        """Give the tops their shapes; called at setup and whenever a bottom has changed its shape."""
        if not self.is_source:
            for blob, shape in zip(top, self.shapes(*(blob.dims for blob in bottom))):
                problem = shapes.problem(tuple(shape))
                self.check_shape(not problem, f"top: {problem}")
                blob.set_shape(tuple(shape))

    def overwrites(self, index: int) -> bool:
        """True where each backward replaces the diff of parameter `index` instead of adding to it, as Caffe's does."""
        return False

    def flush(self):
        """Do the check that was deferred, if any. Raises what the check raises."""
        check, self.deferred_check = self.deferred_check, None
        if check is not None:
            check()

    def data_state(self):
        """Where a data layer stands after the batches it has given, as plain data for JSON; None: there is nothing."""
        return None

    def set_data_state(self, state):
        """Give next what came after `data_state()`. Raises LookupError, TypeError or ValueError for what is none."""

    # ---- help for them
    @property
    def name(self) -> str:
        return self.param.name

    @property
    def training(self) -> bool:
        return self.phase == TRAIN

    @property
    def share(self) -> Share:
        """What this process takes of each batch: all of it when testing."""
        return self.context.share if self.training else WHOLE

    def weight(self, index: int) -> torch.Tensor:
        """Parameter `index` as the tensor to compute with."""
        return self.blobs[index].tensor()

    def narrow(self, *tensors):
        """The factors of a product as the net's precision has them: bfloat16 in "bf16", else as they are."""
        if self.context.precision != "bf16":
            return tensors
        return [tensor if tensor is None else tensor.to(torch.bfloat16) for tensor in tensors]

    def add_parameter(self, shape, filler):
        """Append a learnable blob of `shape`, taken from the layer definition's own blobs or from `filler`."""
        index = len(self.blobs)
        problem = shapes.problem(tuple(shape))
        self.check_shape(not problem, f"parameter {index}: {problem}")
        self.require(fillers.memory_needed(filler, shape), f"parameter {index} of shape {tuple(shape)}, filled,")
        if index < len(self.param.blobs):
            values = _given(self.param.blobs[index], shape, self, index)
        else:
            values = fillers.fill(filler, shape, self.context.generator)
        self.blobs.append(parameter(values, self.context.device))

    def axis(self, axis: int, axes: int, end: bool = False) -> int:
        """`axis` counted from the front; `end` allows the position after the last one."""
        limit = axes + 1 if end else axes
        if not -limit <= axis < limit:
            raise ShapeError(f'layer "{self.name}": axis {axis} is out of range for a blob of {axes} axes')
        return axis + limit if axis < 0 else axis

    def check(self, condition, message: str):
        """Caffe's CHECK: raise NetError with the layer's name and type unless `condition`."""
        if not condition:
            raise NetError(f'layer "{self.name}" ({self.type}): {message}')

    def check_shape(self, condition, message: str):
        """As `check`, for blobs whose shapes do not fit: ShapeError."""
        if not condition:
            raise ShapeError(f'layer "{self.name}" ({self.type}): {message}')

    def require(self, needed: int, what: str, there=None):
        """NetError with the sum where `what` of this layer needs more bytes than the device has, or than `there`."""
        memory.require(needed, f'layer "{self.name}" ({self.type}): {what}', NetError, self.context.device, there)

    def check_gradients(self, wanted):
        """NetError where a gradient is wanted (a flag a bottom) that this type does not have."""
        refused = range(len(wanted)) if not self.has_backward else [i % len(wanted) for i in self.refuses_gradient]
        for index in refused:
            self.check(
                not wanted[index],
                f'has no gradient for its bottom "{self.param.bottom[index]}": stop it there with '
                "propagate_down: false, or leave out force_backward",
            )

    def check_counts(self, bottoms: int, tops: int):
        for what, count, (low, high) in (("bottom", bottoms, self.bottoms), ("top", tops, self.tops)):
            if count < low or (high is not None and count > high):
                wanted = str(low) if low == high else f"{low} or more" if high is None else f"{low} to {high}"
                raise NetError(f'layer "{self.name}" ({self.type}) takes {wanted} {what} blobs, not {count}')


def _given(proto, shape, layer, index):
    legacy = any(proto.HasField(name) for name in ("num", "channels", "height", "width"))
    found = (proto.num, proto.channels, proto.height, proto.width) if legacy else tuple(proto.shape.dim)
    values = np.array(proto.double_data or proto.data, np.float32)
    if found != tuple(shape) or values.size != math.prod(shape):
        raise ShapeError(f'layer "{layer.name}": blob {index} in the definition is {found}, needed {tuple(shape)}')
    return values.reshape(shape)


_REGISTRY: Dict[str, Type[Layer]] = {}


def register(cls: Type[Layer]) -> Type[Layer]:
    """Class decorator: make the layer known under its `type`."""
    _REGISTRY[cls.type] = cls
    return cls


def layer_class(type_name: str, layer_name: str) -> Type[Layer]:
    """Class of a layer type; NetError lists what exists."""
    if type_name in _REGISTRY:
        return _REGISTRY[type_name]
    known = names.nearest(type_name, sorted(_REGISTRY))
    raise NetError(f'layer "{layer_name}": unknown layer type "{type_name}"; known types: {known}')


def layer_types() -> List[str]:
    return sorted(_REGISTRY)
