"""What a layer is: shapes from shapes, tops from bottoms in torch; gradients come from autograd."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Type, TypeVar, overload

import numpy as np
import torch

from torchcaffe.core import fillers, memory, names, plugins, shapes
from torchcaffe.core.blob import Blob, BlobVec, parameter
from torchcaffe.core.errors import NetError, ShapeError
from torchcaffe.distributed.shares import WHOLE, Share
from torchcaffe.proto import caffe_pb2, extensions

TRAIN, TEST = 0, 1


@dataclass
class Context:
    """What a net lends its layers: device, random generator, and the folder that relative sources start from."""

    device: torch.device
    generator: object
    exact_random: bool = True  # Caffe's CPU draws on every device; False: torch's generator on the device
    share: Share = WHOLE  # of each training batch
    precision: str = "float32"
    traceable: bool = False  # for torch.export: what a layer runs depends on shapes only, and a forward leaves nothing behind


class TorchLayer:
    """Base of all layers, Caffe's and your own: see docs/extending.md, "Add a layer", and `register_layer`.

    A subclass sets `type` and the allowed blob counts, and writes `setup`, `shapes` and `forward`. Tensors are float32 on
    the net's device, in the shapes of the prototxt. What it finds in itself: `param` (LayerParameter: its settings are
    `self.param.norm_param`), `phase`, `blobs` (its parameters), and the methods under "help".

    `bottoms`/`tops`: (minimum, maximum) number of blobs, None for no limit. `settings`: messages of LayerParameter that Caffe
    does not have, name -> fields (proto/extensions.py: `declare` says how a field is given); `settings_numbers`: their
    numbers in LayerParameter, where files of a fork of Caffe have them. `stands_for`: (module, class) of a Python layer that
    the class takes the place of where that module is not installed.
    """

    type = ""
    settings: Mapping[str, Mapping] = {}
    settings_numbers: Mapping[str, int] = {}
    stands_for = ("", "")
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
    parameter_names = ("weight", "bias")  # in state_dicts and exported files; further ones are parameter2, parameter3 ...
    fuses_relu = False  # has will_fuse(*bottoms), and where that is true a forward(*bottoms, relu=True)
    forward_in_place = None  # as forward, overwriting the bottom
    gradient_from_bottoms = False  # backward needs only bottoms and parameters: in Caffe it runs without a forward before
    compiles = False  # forward is torch operations that depend on shapes only: core/compiled.py may trace it; not inherited
    draws = False  # forward takes random numbers, from `drawn`
    given = None  # what `drawn` returns in a pass that has drawn before
    deferred_check = None  # a function: a check that would have made the host wait for the GPU, see `flush`
    # Instead of autograd: backward(bottoms, tops, gradients of the tops) gives a gradient (or None) for each bottom, then for
    # each parameter; all are tensors.
    backward = None
    to_onnx = None  # to_onnx(graph, *inputs): its tops as ONNX values, see formats/onnx_graph.py; None: ONNX cannot say it

    def __init__(self, param: Any, phase: int, context: Context) -> None:
        self.param = param
        self.phase = phase
        self.context = context
        self.blobs: List[Blob] = BlobVec(context.device)
        if self.backward is not None:
            self.forward = self._forward_with_own_backward

    # ---- what subclasses write
    def setup(self, bottom: List[Blob], top: List[Blob]) -> None:
        """Read and check parameters, create self.blobs. Called once, before the first `shapes`."""

    def shapes(self, *bottom_shapes):
        """List of top shapes for the given bottom shapes. Default: the bottom's."""
        return [bottom_shapes[0]]

    def _unwritten(self, *bottoms: torch.Tensor):
        """Tops (a tensor, or a tuple of them) from bottoms, in torch operations that autograd can follow."""
        raise NotImplementedError

    forward: Callable[..., Any] = _unwritten  # so typed, a subclass's may name its bottoms

    def reshape(self, bottom: List[Blob], top: List[Blob]) -> None:
        """Give the tops their shapes; called at setup and whenever a bottom has changed its shape."""
        if not self.is_source:
            for blob, shape in zip(top, self.shapes(*(blob.dims for blob in bottom))):
                problem = shapes.problem(tuple(shape))
                self.check_shape(not problem, f"top: {problem}")
                blob.set_shape(tuple(shape))

    def overwrites(self, index: int) -> bool:
        """True where each backward replaces the diff of parameter `index` instead of adding to it, as Caffe's does."""
        return False

    def draw(self, *bottom_shapes) -> torch.Tensor:
        """The random numbers of one forward."""
        raise NotImplementedError

    def drawn(self, *bottoms: torch.Tensor) -> torch.Tensor:
        """The random numbers of this forward."""
        return self.draw(*(tuple(bottom.shape) for bottom in bottoms)) if self.given is None else self.given

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

    def __repr__(self):
        numbers = ", ".join(str(blob.dims) for blob in self.blobs) or "no parameters"
        return f'<{self.type} layer "{names.one_line(self.name)}": {numbers}>'

    @property
    def shown(self) -> Any:
        """What Net.layers shows."""
        return self

    # ---- help for them
    @classmethod
    def chosen(cls, param):
        """The class that runs the layer `param`."""
        return cls

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

    def named_tensors(self) -> Dict[str, torch.Tensor]:
        """The layer's numbers by the names that they have in state_dicts and exported files."""
        given = list(self.parameter_names)[: len(self.blobs)]
        names = given + [f"parameter{index}" for index in range(len(given), len(self.blobs))]
        return {name: blob.tensor().detach() for name, blob in zip(names, self.blobs)}

    def add_parameter(self, shape, filler=0.0, lr_mult=None, decay_mult=None):
        """Append a learnable blob of `shape`, taken from the layer definition's own blobs or from `filler`.

        Args:
            filler: FillerParameter, a dict of its fields, or a number.
            lr_mult, decay_mult: what they are where the prototxt has no `param { }` for this blob; 1 as in Caffe.
        """
        index = len(self.blobs)
        filler = _filler(filler)
        if index >= len(self.param.param) and (lr_mult, decay_mult) != (None, None):
            while len(self.param.param) <= index:
                self.param.param.add()
            for name, value in (("lr_mult", lr_mult), ("decay_mult", decay_mult)):
                if value is not None:
                    setattr(self.param.param[index], name, value)
        problem = shapes.problem(tuple(shape))
        self.check_shape(not problem, f"parameter {index}: {problem}")
        self.require(fillers.memory_needed(filler, shape), f"parameter {index} of shape {tuple(shape)}, filled,")
        if index < len(self.param.blobs):
            values = _given(self.param.blobs[index], shape, self, index)
        else:
            values = fillers.fill(filler, shape, self.context.generator)
        self.blobs.append(parameter(values, self.context.device))

    def _forward_with_own_backward(self, *bottoms):
        tops = apply(_OwnBackward, self, len(bottoms), *bottoms, *(blob.tensor() for blob in self.blobs))
        return tops if len(tops) > 1 else tops[0]

    def axis(self, axis: int, axes: int, end: bool = False) -> int:
        """`axis` counted from the front; `end` allows the position after the last one."""
        limit = axes + 1 if end else axes
        if not -limit <= axis < limit:
            raise ShapeError(f'layer "{self.name}": axis {axis} is out of range for a blob of {axes} axes')
        return axis + limit if axis < 0 else axis

    def check(self, condition: object, message: str) -> None:
        """Caffe's CHECK: raise NetError with the layer's name and type unless `condition`."""
        if not condition:
            raise NetError(f'layer "{self.name}" ({self.type}): {message}')

    def check_shape(self, condition: object, message: str) -> None:
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


def _filler(filler):
    if isinstance(filler, (int, float)):
        return caffe_pb2.FillerParameter(type="constant", value=filler)
    return caffe_pb2.FillerParameter(**filler) if isinstance(filler, Mapping) else filler


def apply(function, *arguments):
    """function.apply(*arguments). While torch.jit.trace records, its forward alone: TorchScript cannot save Python code."""
    return function.forward(_NoContext(), *arguments) if torch.jit.is_tracing() else function.apply(*arguments)


class _NoContext:
    """Takes what an autograd function keeps for its backward, where there will be none."""

    def save_for_backward(self, *tensors):
        pass


class _OwnBackward(torch.autograd.Function):
    """A layer's forward, whose gradient is the layer's own `backward`."""

    @staticmethod
    def forward(context, layer, count, *tensors):
        tops = type(layer).forward(layer, *tensors[:count])
        tops = tuple(tops) if isinstance(tops, (tuple, list)) else (tops,)
        context.layer, context.count, context.sources = layer, count, len(tensors)
        context.save_for_backward(*tensors[:count], *tops)
        return tops

    @staticmethod
    def backward(context, *gradients):
        layer, count, saved = context.layer, context.count, context.saved_tensors
        given = layer.backward(saved[:count], saved[count:], gradients)
        given = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        layer.check(
            count <= len(given) <= context.sources,
            f"backward gives {len(given)} gradients; one is needed for each of {count} bottoms, then one a parameter "
            f"({context.sources - count})",
        )
        return (None, None, *given, *[None] * (context.sources - len(given)))


Layer = TorchLayer  # as the catalogue's modules call it

_REGISTRY: Dict[str, Type[TorchLayer]] = {}
_CATALOGUE: set = set()  # the types that Caffe has
STAND_INS: Dict[tuple, Type[TorchLayer]] = {}  # (module, class) of a Python layer -> the registered layer that does its work


def register(cls: Type[TorchLayer]) -> Type[TorchLayer]:
    """Class decorator for Caffe's own layers: make the layer known under its `type`."""
    _REGISTRY[cls.type] = cls
    _CATALOGUE.add(cls.type)
    cls.compiles = not cls.works_on_blobs
    return cls


LayerClass = TypeVar("LayerClass", bound=Type[TorchLayer])


@overload
def register_layer(cls: LayerClass, *, replace: bool = False) -> LayerClass: ...


@overload
def register_layer(cls: None = None, *, replace: bool = False) -> Callable[[LayerClass], LayerClass]: ...


def register_layer(cls=None, *, replace=False):
    """Class decorator for a layer of your own: nets may then name its `type`, and prototxts may hold its `settings`.

    Args:
        cls: a class that derives from torchcaffe.TorchLayer.
        replace: take the place of a layer type that is there, Caffe's own or registered before.
    Raises:
        TypeError: not such a class, or one without what it needs.
        ValueError: a type or settings that are there already.
    """
    if cls is None:
        return lambda decorated: register_layer(decorated, replace=replace)
    _check_class(cls)
    there = _REGISTRY.get(cls.type)
    # A module that is loaded again, or a notebook's cell that is run again, defines the same class anew.
    same = there is not None and (there.__module__, there.__qualname__) == (cls.__module__, cls.__qualname__)
    if there is not None and not same and not replace:
        whose = "is Caffe's own" if cls.type in _CATALOGUE else f"is registered by {there.__module__}.{there.__qualname__}"
        raise ValueError(
            f'layer type "{cls.type}" {whose}: give {cls.__name__} another type, or write '
            "@torchcaffe.register_layer(replace=True) to put it in that place"
        )
    for name, fields in cls.settings.items():
        extensions.declare(name, fields, cls.settings_numbers.get(name))
    extensions.OWNERS.pop(cls.type, None)
    if cls.settings:
        extensions.OWNERS[cls.type] = next(iter(cls.settings))
    _REGISTRY[cls.type] = cls
    if any(cls.stands_for):
        STAND_INS[cls.stands_for] = cls
    return cls


def _check_class(cls):
    if not isinstance(cls, type) or not issubclass(cls, TorchLayer):
        python = isinstance(cls, type) and any(base.__module__ == "torchcaffe.layers.python" for base in cls.__mro__)
        raise TypeError(
            f"register_layer takes a class that derives from torchcaffe.TorchLayer, not {getattr(cls, '__name__', repr(cls))}"
            + (': classes of caffe.Layer need no registering, nets name them in python_param (type: "Python")' if python else "")
        )
    name = cls.__name__
    if not isinstance(cls.type, str) or not cls.type.isidentifier():
        raise TypeError(f'{name} needs a type, the name that nets call it by: type = "{name}"; it has {cls.type!r}')
    if cls.works_on_blobs:
        if not hasattr(cls, "forward_blobs"):
            raise TypeError(f"{name} works_on_blobs, so it needs a method forward_blobs(bottoms, tops)")
    elif cls.forward is TorchLayer.forward:
        raise TypeError(f"{name} needs a method forward(self, *bottoms) that returns its tops as tensors")
    for what in ("bottoms", "tops"):
        counts = getattr(cls, what)
        if not (isinstance(counts, tuple) and len(counts) == 2 and all(n is None or isinstance(n, int) for n in counts)):
            raise TypeError(f"{name}.{what} is (minimum, maximum) of blobs, None for no limit; not {counts!r}")
    if not isinstance(cls.settings, Mapping):
        raise TypeError(f'{name}.settings is a dict such as {{"norm_param": {{"eps": (float, 1e-10)}}}}, not {cls.settings!r}')
    strange = set(cls.settings_numbers) - set(cls.settings)
    if strange:
        raise TypeError(f"{name}.settings_numbers names {names.listed(sorted(strange))}, which {name}.settings does not have")


def layer_class(type_name: str, layer_name: str) -> Type[TorchLayer]:
    """Class of a layer type, perhaps of an installed package; NetError lists what exists."""
    if type_name not in _REGISTRY:
        plugins.load()
    if type_name in _REGISTRY:
        return _REGISTRY[type_name]
    known = "" if plugins.contributed(type_name) else f'; {names.suggestion(type_name, sorted(_REGISTRY), "known types:")}'
    raise NetError(
        f'layer "{layer_name}": unknown layer type "{type_name}"{known}{plugins.how_to_register(type_name)}'
    )


def layer_types() -> List[str]:
    return sorted(_REGISTRY)
