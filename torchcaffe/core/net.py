"""Net: Caffe's network, built from a prototxt, with pycaffe's interface."""

from __future__ import annotations

import os
from itertools import zip_longest
from numbers import Integral
from typing import TYPE_CHECKING, Any, Callable, Iterable, Sequence, Union, overload

import numpy as np

from torchcaffe.core import copying, execution, log, mode, precision, rng, summary
from torchcaffe.core.build import build_net
from torchcaffe.core.errors import CaffeError, NetError
from torchcaffe.core.graph import filter_layers, insert_splits
from torchcaffe.core.named import Blobs, Named, NamedByBlob, Params
from torchcaffe.core.names import suggestion
from torchcaffe.core.vectors import DtypeVec, LayerVec, PublicNames, SetOnce, StringVec
from torchcaffe.distributed.nccl import NCCL
from torchcaffe.layers import Context

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray


    Arrays = dict[str, NDArray[np.float32]]
    Items = Union[NDArray[Any], Sequence[NDArray[Any]]]

Path = Union[str, os.PathLike]


class Net(PublicNames, SetOnce):
    """Net(network_file, phase, level=0, stages=None, weights=None), or the older Net(network_file, weights, phase).

    `network_file`: prototxt. `phase`: caffe.TRAIN or caffe.TEST. Blobs are float32, N×C×H×W.
    Raises RuntimeError for a missing file, NetError/ShapeError for what Caffe would stop the process for.
    """

    _set_once = frozenset(("blobs", "inputs", "outputs", "_blob_loss_weights"))
    _internal = frozenset((
        "all_blobs", "assume_written", "built_layers", "callbacks", "intermediate", "learnable", "learnable_specs",
        "loss_blobs", "nodes", "works_layerwise",
    ))  # fmt: skip

    name: str
    phase: int
    device: torch.device
    precision: str
    blobs: Blobs
    inputs: list[str]
    outputs: list[str]
    param: Any  # NetParameter, filtered and with its splits

    @overload
    def __init__(self, network_file: Path, phase: int, level: int = 0, stages: Sequence[str] | None = None,
                 weights: Path | None = None) -> None: ...  # fmt: skip

    @overload
    def __init__(self, network_file: Path, weights: Path, phase: int) -> None: ...

    def __init__(self, network_file, *arguments, phase=None, level=0, stages=None, weights=None):
        if len(arguments) == 2 and isinstance(arguments[0], (str, os.PathLike)):
            weights, phase = arguments
        elif arguments:
            if len(arguments) > 4:
                raise TypeError("Net() takes a file, phase, level, stages and weights; no more")
            names = dict(zip(("phase", "level", "stages", "weights"), arguments))
            phase, level = names.get("phase", phase), names.get("level", level)
            stages, weights = names.get("stages", stages), names.get("weights", weights)
        if not isinstance(phase, Integral):
            raise TypeError("Net() needs a phase: caffe.TRAIN or caffe.TEST")
        from torchcaffe.formats.files import read_net

        for path in (network_file, weights):
            if path is not None and not os.path.isfile(path):
                raise CaffeError(f"Could not open file {path}")
        param = read_net(network_file)
        param.state.phase, param.state.level = phase, level
        param.state.stage.extend(stages or [])
        self._initialize(param)
        if weights is not None:
            self.copy_from(weights)

    @classmethod
    def from_proto(cls, param: Any, shared_from: Net | None = None) -> Net:
        """Net of a NetParameter whose `state` is set; `shared_from`: a net whose weights it shares."""
        net = cls.__new__(cls)
        net._initialize(param)
        if shared_from is not None:
            net.share_with(shared_from)
        return net

    def _initialize(self, param):
        with log.details():
            self._build(param)
        if log.is_short():
            log.info(summary.title(self))

    def _build(self, param):
        self.device = mode.device()
        self.precision = mode.precision()
        self.callbacks = {
            name: [] for name in ("before_forward", "after_forward", "before_backward", "after_backward")
        }
        param = filter_layers(param)
        log.info(f"Initializing net from parameters: \n{str(param).rstrip()}")
        self.param = insert_splits(param)
        self.name = self.param.name
        self.phase = self.param.state.phase
        context = Context(
            self.device, rng.generator(), mode.exact_draws(), mode.share(),
            precision.checked(mode.precision(), self.device),
        )
        built = build_net(self.param, context)
        self.nodes = built.nodes
        self.built_layers = [node.layer for node in built.nodes]
        self.blobs, self.inputs, self.outputs = built.blobs, built.inputs, built.outputs
        self.learnable, self.learnable_specs = built.learnable, built.learnable_specs
        self.loss_blobs, self.intermediate, self.all_blobs = built.loss_blobs, built.intermediate, built.all_blobs
        weights = dict.fromkeys(self.blobs, 0.0)
        for node in self.nodes:  # of several layers in place, the last counts
            weights.update(zip(node.top_names, node.loss_weights))
        self._blob_loss_weights = DtypeVec(weights.values())
        self.copy_report = None
        log.info("Network initialization done.")

    # ------------------------------------------------------------------------------------ what it is
    def __repr__(self) -> str:
        return f"<{summary.title(self)}>"

    def __str__(self) -> str:
        """A table: layer, type, output shapes, parameters; at most 120 characters wide."""
        return summary.text(self)

    def _repr_html_(self) -> str:
        return summary.as_html(self)

    # ------------------------------------------------------------------------------------ names, as pycaffe
    @property
    def _layer_names(self):
        return StringVec(layer.name for layer in self.built_layers)

    @property
    def layers(self) -> LayerVec:
        """The layers as users see them: for a Python layer the object of the user's class."""
        return LayerVec(layer.shown for layer in self.built_layers)

    @property
    def layer_dict(self) -> Named[Any]:
        return Named(zip(self._layer_names, self.layers))

    @property
    def params(self) -> Params:
        """Layer name -> list of its learnable blobs; only layers that have any."""
        if "_params" not in self.__dict__:
            self._params = Params((layer.name, layer.blobs) for layer in self.built_layers if layer.blobs)
        return self._params

    @property
    def bottom_names(self) -> Named[list[str]]:
        return Named((layer.name, list(layer.param.bottom)) for layer in self.built_layers)

    @property
    def top_names(self) -> Named[list[str]]:
        return Named((node.layer.name, list(node.top_names)) for node in self.nodes)

    @property
    def blob_loss_weights(self) -> NamedByBlob[float]:
        """Blob name -> its weight in the loss. A weight written into `_blob_loss_weights` is shown, as in Caffe."""
        return NamedByBlob(zip(self.blobs, self._blob_loss_weights))

    # ------------------------------------------------------------------------------------ weights
    def copy_from(self, path: Path) -> None:
        """Copy parameters of layers that have the file's names (caffemodel or HDF5); the rest is left and reported.

        `self.copy_report` then tells what was copied, ignored and left. Raises WeightsError, before anything is
        changed, where a layer's blobs do not fit.
        """
        self.copy_report = copying.copy_weights(self, path)

    load_hdf5 = copy_from

    def share_with(self, other: Net) -> None:
        """Use the memory of `other`'s parameters, by layer name; both nets then see every change. Raises WeightsError."""
        copying.share_weights(self, other)

    def save(self, path: Path, with_diffs: bool = False) -> None:
        """Write a caffemodel (V2, as Caffe 1.0 writes it), atomically."""
        copying.save_weights(self, path, with_diffs)

    def save_hdf5(self, path: Path, with_diffs: bool = False) -> None:
        """Write weights in Caffe's HDF5 layout, atomically; shared parameters are stored with their owner only."""
        copying.save_weights_hdf5(self, path, with_diffs)

    # ------------------------------------------------------------------------------------ running
    def _forward(self, start: int, end: int) -> float:
        """Run layers by index, both included; returns the total weighted loss."""
        self._check_range(start, end)
        loss = execution.forward(self, start, end)
        execution.flush(self)
        return float(loss)

    def _backward(self, start: int, end: int) -> None:
        """Backward from layer `start` down to layer `end`, both included."""
        self._check_range(end, start)
        execution.backward(self, end, start)

    def _check_range(self, low, high):
        if not 0 <= low <= high < len(self.built_layers):
            raise NetError(f"layers {low} to {high} are not a range within 0 to {len(self.built_layers) - 1}")

    def _layer_index(self, name):
        layers = self._layer_names
        if name not in layers:
            raise ValueError(f'the net has no layer "{name}"; {suggestion(str(name), layers)}')
        return layers.index(name)

    def forward(self, blobs: Iterable[str] | None = None, start: str | None = None, end: str | None = None,
                **kwargs: NDArray[Any]) -> Arrays:  # fmt: skip
        """Run the net (or layers `start`..`end`, by name); keyword arguments fill the inputs, all of them.

        Returns {name: array} of the outputs (or of `end`'s tops) and of `blobs`; the arrays are live views.
        """
        first = self._layer_index(start) if start is not None else 0
        last = self._layer_index(end) if end is not None else len(self.built_layers) - 1
        names = set(self.top_names[end] if end is not None else self.outputs) | set(blobs or [])
        if kwargs:
            if set(kwargs) != set(self.inputs):
                raise Exception(f"Input blob arguments do not match net inputs. {sorted(kwargs)}, {self.inputs}")
            self._check_batches("Input", kwargs)
            for name, array in kwargs.items():
                self.blobs[name].data[...] = array
        self._forward(first, last)
        return {name: self.blobs[name].data for name in names}

    def backward(self, diffs: Iterable[str] | None = None, start: str | None = None, end: str | None = None,
                 **kwargs: NDArray[Any]) -> Arrays:  # fmt: skip
        """Backward from layer `start` (default the last) to `end`; keyword arguments fill output diffs, all of them."""
        first = self._layer_index(start) if start is not None else len(self.built_layers) - 1
        last = self._layer_index(end) if end is not None else 0
        names = set(self.bottom_names[end] if end is not None else self.inputs) | set(diffs or [])
        if kwargs:
            if set(kwargs) != set(self.outputs):
                raise Exception(f"Top diff arguments do not match net outputs. {sorted(kwargs)}, {self.outputs}")
            self._check_batches("Diff", kwargs)
            for name, array in kwargs.items():
                self.blobs[name].diff[...] = array
        self._backward(first, last)
        return {name: self.blobs[name].diff for name in names}

    def _check_batches(self, what, arrays):
        for name, array in arrays.items():
            size = self.blobs[name].dims[0]
            if array.shape[0] != size:
                raise Exception(f"{what} is not batch sized: {name} takes {size} items, not {array.shape[0]}")

    def forward_all(self, blobs: Iterable[str] | None = None, **kwargs: Items) -> Arrays:
        """Run any number of items in batches; returns {name: array} copies without the padding of the last batch."""
        self._need_arrays(kwargs)
        collected = {name: [] for name in set(self.outputs) | set(blobs or [])}
        count = len(next(iter(kwargs.values())))
        for batch in self._batch(kwargs):
            for name, array in self.forward(blobs=blobs, **batch).items():
                collected[name].extend(array.copy())
        return {name: np.asarray(items)[:count] for name, items in collected.items()}

    def forward_backward_all(self, blobs: Iterable[str] | None = None, diffs: Iterable[str] | None = None,
                             **kwargs: Items) -> tuple[Arrays, Arrays]:  # fmt: skip
        """Forward and backward in batches; returns ({blob: array}, {diff: array}), padding removed."""
        forward_names = {name: [] for name in set(self.outputs) | set(blobs or [])}
        backward_names = {name: [] for name in set(self.inputs) | set(diffs or [])}
        tops = {name: kwargs.pop(name) for name in list(kwargs) if name in self.outputs}
        self._need_arrays(kwargs)
        count = len(next(iter(kwargs.values())))
        for inputs, top_diffs in zip_longest(self._batch(kwargs), self._batch(tops), fillvalue={}):
            for name, array in self.forward(blobs=blobs, **inputs).items():
                forward_names[name].extend(array.copy())
            for name, array in self.backward(diffs=diffs, **top_diffs).items():
                backward_names[name].extend(array.copy())
        blobs_of, diffs_of = (
            {name: np.asarray(items)[:count] for name, items in collected.items()}
            for collected in (forward_names, backward_names)
        )
        return blobs_of, diffs_of

    def _need_arrays(self, arrays):
        if not arrays:
            raise CaffeError(f"give the arrays to run as keyword arguments, one for each of {', '.join(self.inputs)}")

    def _batch(self, arrays):
        """Dictionaries of arrays cut to the net's batch size, the last one padded with zeros."""
        if not arrays:
            return
        count = len(next(iter(arrays.values())))
        size = next(iter(self.blobs.values())).dims[0]
        for start in range(0, count, size):
            batch = {name: np.asarray(array[start : start + size]) for name, array in arrays.items()}
            for name, array in batch.items():
                if len(array) < size:
                    padding = np.zeros((size - len(array),) + array.shape[1:], array.dtype)
                    batch[name] = np.concatenate([array, padding])
            yield batch

    def reshape(self) -> None:
        """Propagate shapes from the inputs through all layers."""
        for node in self.nodes:
            node.reshape()

    def works_layerwise(self) -> bool:
        """True when somebody looks between layers, so that they have to run one at a time."""
        return any(self.callbacks.values()) or any(layer.works_on_blobs for layer in self.built_layers)

    def clear_param_diffs(self) -> None:
        for blob in self.learnable:
            blob.diff_memory.clear()

    def assume_written(self):
        """User code may have run: arrays that it holds may have been written."""
        for blob in self.all_blobs:
            for memory in (blob.data_memory, blob.diff_memory):
                if memory.host is not None:
                    memory.assume_written()

    def set_input_arrays(self, data: NDArray[np.float32], labels: NDArray[np.float32]) -> None:
        """Feed a MemoryData net: float32 arrays N×C×H×W and N labels; N a multiple of the batch size."""
        layer = self.built_layers[0]
        if not hasattr(layer, "set_arrays"):
            raise RuntimeError("set_input_arrays may only be called if the first layer is a MemoryDataLayer")
        layer.set_arrays(data, labels)

    def before_forward(self, function: Callable[[int], object]) -> None:
        self.callbacks["before_forward"].append(function)

    def after_forward(self, function: Callable[[int], object]) -> None:
        self.callbacks["after_forward"].append(function)

    def before_backward(self, function: Callable[[int], object]) -> None:
        self.callbacks["before_backward"].append(function)

    def after_backward(self, function: Callable[[int], object] | NCCL) -> None:
        """function(layer index), or an NCCL, which needs no call: it averages each layer while backward runs anyway."""
        if isinstance(function, NCCL):
            return
        self.callbacks["after_backward"].append(function)

    # ------------------------------------------------------------------------------------ internals scripts use
    @property
    def _blobs(self):
        return list(self.blobs.values())

    @property
    def _blob_names(self):
        return StringVec(self.blobs)

    @property
    def _inputs(self):
        return [self._blob_names.index(name) for name in self.inputs]

    @property
    def _outputs(self):
        return [self._blob_names.index(name) for name in self.outputs]

    def _bottom_ids(self, index):
        return [self._blob_names.index(name) for name in self.built_layers[index].param.bottom]

    def _top_ids(self, index):
        return [self._blob_names.index(name) for name in self.nodes[index].top_names]

    _set_input_arrays = set_input_arrays
