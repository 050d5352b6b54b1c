"""Training passes that nobody looks into, compiled: forward and backward of a net as one graph of torch.compile.

The graph is traced from the layers' own forwards and from autograd, as execution.AutogradPass runs them: one function from
the data, the random numbers, the loss weights and the parameters to the outputs, the loss and the gradients. What is no
function of tensors stays outside, in the order of the layers: data layers and random draws. The layer-by-layer way is the
reference, and runs what cannot be compiled; the log says why.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

import torch

from torchcaffe.core import determinism, execution, log, precision
from torchcaffe.core.blob import Memory
from torchcaffe.core.errors import NetError
from torchcaffe.layers import looking

MOST_SHAPES = 4  # of the data that a net is compiled for; with further ones it runs layer by layer
SMALL = 64 << 20  # bytes of activations: up to here a GPU is faster than the host that calls it; CUDA graphs make up for that


class _Settings(threading.local):
    compiles = False
    backend = "inductor"


_settings = _Settings()


def set_compile(compiles: bool = True, backend: str = "inductor") -> None:
    """True: solvers built from now on in this thread compile their training pass with torch.compile.

    The first iteration then takes seconds to minutes; torch keeps what it has compiled for the next run. Weights agree with
    those of the layer-by-layer way up to rounding. The last iteration of each step() runs layer by layer unless
    `solver.keep_diffs` is False. A net that cannot be compiled runs layer by layer; the log says why. backend: torch.compile's.
    """
    _settings.compiles, _settings.backend = bool(compiles), backend


def enabled() -> bool:
    """True after set_compile() in this thread."""
    return _settings.compiles


def for_net(net, passes: int = 1):
    """The CompiledPass of a training net, or None where it is to run layer by layer. passes: of an iteration (iter_size)."""
    if not _settings.compiles:
        return None
    reason = refused(net)
    if reason:
        log.info(f"The training pass is not compiled: {reason}.")
        return None
    return CompiledPass(net, _settings.backend, passes)


def refused(net) -> str:
    """Why a net is not compiled, as far as its layers tell; "" where it is."""
    if determinism.enabled() and net.device.type != "cpu":
        return "set_deterministic() (DETERMINISTIC=1) keeps its promise layer by layer"
    for node in net.nodes:
        layer = node.layer
        if not layer.is_source and not vars(type(layer)).get("compiles", False):
            return f'layer "{layer.name}" ({layer.type}) has no compiles = True in its class'
        if layer.is_source and any(node.loss_weights):
            return f'layer "{layer.name}" ({layer.type}) gives data with a loss weight'
    return "" if net.learnable else "the net has no parameters"


class CompiledPass:
    """The interface of execution.AutogradPass, without `keep_diffs`: forward() computes all, backward() adds the gradients.

    Afterwards the net's data, outputs and losses have their values, as after an AutogradPass; blobs between are empty.
    """

    def __init__(self, net, backend: str = "inductor", passes: int = 1):
        self.net, self.backend, self.passes = net, backend, passes
        self.outside = [node for node in net.nodes if is_data(node) or node.layer.draws]
        self.data = [blob for node in self.outside if is_data(node) for blob in node.tops]
        self.shapes = None  # of the data
        self.graphs: dict = {}  # shapes and strides of the data -> Graph
        self.graph = None  # of the last pass
        self.failed = ""  # why it is not compiled after all
        self.uncompiled = None  # the AutogradPass that runs instead
        self.gradients: list = []
        keep_cache()

    def forward(self):
        """One pass; returns the weighted loss as a tensor of shape () without graph."""
        net, self.uncompiled = self.net, None
        if self.failed or any(net.callbacks.values()) or any(blob.data_memory.externally_held() for blob in net.intermediate):
            return self._forward_uncompiled()
        precision.apply(net, training=True)
        net.assume_written()
        with torch.no_grad():
            draws = self._run_outside()
            self.graph = self._graph(draws)
            results = None if self.graph is None else self._run(self.graph, draws)
            if results is None:
                return self._forward_uncompiled(draws)
            for node in net.nodes:
                node.recorded = None
            execution.release(net)
            loss, self.gradients = results
        return loss

    def backward(self):
        """Add to parameter diffs."""
        if self.uncompiled is not None:
            return self.uncompiled.backward()
        with torch.no_grad():
            for (blob, replaces), gradient in zip(self.graph.learned, self.gradients):
                if replaces or blob.diff_memory.newer == Memory.ZERO:
                    blob.put_diff(gradient)
                else:
                    blob.put_diff(blob.diff_tensor() + gradient)
        self.gradients = []

    def _forward_uncompiled(self, draws=None):
        """Layer by layer; draws: those that were made already, and so is the data."""
        done = [node for node in self.outside if is_data(node)] if draws is not None else []
        self.uncompiled = execution.AutogradPass(self.net, keep_diffs=False)
        with giving(draws or {}), torch.enable_grad():
            return self.uncompiled.forward(done)

    def _run_outside(self):
        """Run the data layers and draw, in the order of the layers; returns {layer: its draw}."""
        draws, prepared = {}, 0
        for node in self.outside:
            if is_data(node):
                execution.run_node(self.net, node, execution.NoRecord, 0)
            if self.shapes != tuple(blob.dims for blob in self.data):  # the layers up to here may have to change theirs
                for before in self.net.nodes[prepared : node.index + 1]:
                    before.prepare()
                prepared = node.index + 1
            if node.layer.draws:
                draws[node.layer] = node.layer.draw(*(blob.dims for blob in node.bottoms))
        if prepared:
            for node in self.net.nodes[prepared:]:
                node.prepare()
        self.shapes = tuple(blob.dims for blob in self.data)
        return draws

    def _graph(self, draws):
        """The Graph for the data as it is; None where there is none."""
        key = self.shapes, tuple(blob.tensor().stride() for blob in self.data)
        if key not in self.graphs:
            if len(self.graphs) == MOST_SHAPES:
                return None
            try:
                self.graphs[key] = Graph(self.net, self.data, draws)
            except Exception as problem:  # whatever a layer does that cannot be traced: the reference still runs it
                return self._give_up(problem)
        return self.graphs[key]

    def _run(self, graph, draws):
        if graph.compiled is not None:
            return graph.run(draws)
        start = time.monotonic()
        log.info("Compiling the training pass: the first iteration takes longer.")
        try:
            graph.compile(self.backend, self.passes)
            results = graph.run(draws)
        except NetError:  # of a check, see Graph.run: it has run
            raise
        except Exception as problem:  # no compiler, one that fails, a fault of torch: it is compiled by the first run
            return self._give_up(problem)
        log.info(f"Compiled the training pass in {time.monotonic() - start:.1f} s.")
        return results

    def _give_up(self, problem):
        self.failed = reason(problem)
        log.warning(f"The training pass is not compiled, training goes on layer by layer: {self.failed}")


def reason(problem: BaseException) -> str:
    """One line on why something could not be compiled: of what torch wraps, the innermost."""
    while (inner := getattr(problem, "inner_exception", None)) is not None:
        problem = inner
    lines = [line.strip() for line in str(problem).splitlines() if line.strip() and not line.rstrip().endswith("raised:")]
    return lines[0] if lines else type(problem).__name__


def keep_cache():
    """Let torch keep what it compiles in the user's cache folder, where its own, in the temporary folder, is not named.

    Before inductor is imported, which names it.
    """
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "torchcaffe", "inductor")
    with contextlib.suppress(OSError):
        os.makedirs(folder, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", folder)


def is_data(node) -> bool:
    """True for a layer that makes its tops without bottoms; a Parameter layer's is a parameter of the net."""
    return node.layer.is_source and node.layer.type != "Parameter"


class Graph:
    """A net's forward and backward for one shape of the data, traced, as a function of tensors."""

    def __init__(self, net, data, draws):
        """Trace it. Raises what a layer raises that cannot be traced."""
        self.net, self.data, self.compiled = net, data, None
        computed = {blob for node in net.nodes if not node.layer.is_source for blob in node.tops}
        seen = [*map(net.blobs.get, net.outputs), *net.loss_blobs, *data]  # data: where a layer works in place
        self.outputs = [blob for blob in dict.fromkeys(seen) if blob in computed]
        self.weighted = [blob for node in net.nodes for blob, weight in zip(node.tops, node.loss_weights) if weight]
        self.constants = [(layer, name) for layer in net.built_layers
                          for name, value in vars(layer).items() if isinstance(value, torch.Tensor)]
        self.drawing = list(draws)
        self.learned, self.checks, self.written = [], [], []  # filled by the trace
        from torch.fx.experimental.proxy_tensor import make_fx  # takes a second to import

        with looking.nowhere(), unmoved(net):
            self.function = make_fx(self._trace, tracing_mode="fake")(*self._inputs(draws))
        if any(torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()) for node in self.function.graph.nodes):
            raise NetError("a layer draws random numbers in its forward")

    # ---- tracing
    def _inputs(self, draws):
        """What the function takes, in the order in which _trace takes it apart."""
        return [
            *(blob.tensor() for blob in self.data),
            *draws.values(),
            *(blob.diff_tensor() for blob in self.weighted),
            *(getattr(layer, name) for layer, name in self.constants),
            *(blob.tensor() for blob in self.net.learnable),
        ]

    def _trace(self, *tensors):
        """[*outputs, loss, *gradients, *checks] of the tensors of _inputs."""
        remaining = iter(tensors)
        values = {blob: next(remaining) for blob in self.data}
        draws = {layer: next(remaining) for layer in self.drawing}
        weights = [next(remaining) for _ in self.weighted]
        constants = [(layer, name, next(remaining)) for layer, name in self.constants]
        parameters = [next(remaining).detach().requires_grad_() if blob.data_memory.tensor.requires_grad else next(remaining)
                      for blob in self.net.learnable]
        with kept(self.net), giving(draws), standing_in(self.net.learnable, parameters) as self.written:
            for layer, name, tensor in constants:
                setattr(layer, name, tensor)
            self._forward(values)
            self.checks = [(node.layer, node.layer.deferred_check) for node in self.net.nodes if node.layer.deferred_check]
            largest = [check.largest for _, check in self.checks]  # of looking.RangeCheck: the others have none
        outputs, loss = [values[blob] for blob in self.outputs], torch.zeros((), device=self.net.device)
        for blob, weight in zip(self.weighted, weights):
            loss = loss + (values[blob].detach() * weight).sum()
        return [*(top.detach() for top in outputs), loss, *self._backward(values, weights, parameters), *largest]

    def _forward(self, values):
        """Run the layers; `values`: blob -> its present value."""
        for node in self.net.nodes:
            layer = node.layer
            if is_data(node):
                continue
            if layer.type == "Parameter":
                values[node.tops[0]] = layer.weight(0)
                continue
            needs = node.bottom_needs_backward if node.needs_backward else [False] * len(node.bottoms)
            bottoms = [values[blob] if needed else values[blob].detach() for blob, needed in zip(node.bottoms, needs)]
            before = dict(vars(layer))
            with torch.set_grad_enabled(node.needs_backward):
                tops = execution.run(layer, layer.forward, *precision.cast(layer, bottoms))
            values.update(zip(node.tops, tops))
            for name, value in vars(layer).items():
                if name != "deferred_check" and value is not before.get(name) and holds_tensor(value):
                    raise NetError(f'layer "{layer.name}" ({layer.type}) keeps numbers from one iteration to the next')

    def _backward(self, values, weights, parameters):
        """Gradients of those parameters that get one, which are then `learned`: (blob, whether it replaces the diff)."""
        roots = [(values[blob], weight) for blob, weight in zip(self.weighted, weights) if values[blob].requires_grad]
        leaves = [(blob, leaf) for blob, leaf in zip(self.net.learnable, parameters) if leaf.requires_grad]
        if not roots or not leaves:
            raise NetError("no loss has a gradient")
        tensors, gradients = zip(*((top, weight.reshape(top.shape).to(top.dtype, copy=True)) for top, weight in roots))
        found = torch.autograd.grad(tensors, [leaf for _, leaf in leaves], gradients, allow_unused=True)
        overwritten = {b for layer in self.net.built_layers for i, b in enumerate(layer.blobs) if layer.overwrites(i)}
        self.learned = [(blob, blob in overwritten) for (blob, _), gradient in zip(leaves, found) if gradient is not None]
        # Copies: the diffs of two parameters must not be one memory, as of two that are only added. Contiguous, as parameters
        # are: together they are updated in few calls.
        return [gradient.clone(memory_format=torch.contiguous_format) for gradient in found if gradient is not None]

    # ---- running
    def compile(self, backend: str, passes: int):
        """Compile the function; torch does so when it first runs. passes: see for_net."""
        options: dict = {"guard_filter_fn": lambda guards: [False] * len(guards)}  # there is a Graph for every shape and stride
        self.copies = self._captured(backend, passes)
        if self.copies:
            options["triton.cudagraphs"] = True
            for blob in self.net.learnable:
                torch._dynamo.mark_static_address(blob.tensor())  # else they are copied into the graph's own memory
        self.compiled = torch.compile(self.function, backend=backend, fullgraph=True, dynamic=False, options=options)

    def _captured(self, backend, passes) -> bool:
        """Whether CUDA graphs run it: for small nets, whose kernels take less time than it takes to start them."""
        size = 4 * sum(blob.count for blob in self.net.blobs.values())
        return self.net.device.type == "cuda" and backend == "inductor" and size <= SMALL and passes == 1

    def run(self, draws):
        """One pass: the outputs into their blobs; returns (weighted loss, gradients of the `learned`)."""
        if self.copies:
            torch.compiler.cudagraph_mark_step_begin()
        results = list(self.compiled(*self._inputs(draws)))
        count = len(self.outputs) + 1
        *outputs, loss = [top.clone() for top in results[:count]] if self.copies else results[:count]
        for blob, top in zip(self.outputs, outputs):
            blob.put(top)
        for memory in self.written:
            memory.written()
        gradients = results[count : count + len(self.learned)]
        for (layer, check), largest in zip(self.checks, results[count + len(self.learned) :]):
            layer.deferred_check = layer.deferred_check or looking.RangeCheck(layer, check.what)
            layer.deferred_check.add(largest)
            if not looking.waits(largest):
                layer.flush()
        return loss, gradients


def holds_tensor(value) -> bool:
    """True for a tensor, and for a list, tuple or dict of any."""
    if isinstance(value, dict):
        value = list(value.values())
    return isinstance(value, torch.Tensor) or isinstance(value, (list, tuple)) and any(map(holds_tensor, value))


@contextlib.contextmanager
def unmoved(net):
    """While a net is traced: the random numbers are those of before afterwards."""
    generator = net.built_layers[0].context.generator
    state = generator.state_dict()
    try:
        with torch.random.fork_rng([] if net.device.type == "cpu" else [net.device]):
            yield
    finally:
        generator.load_state_dict(state)


@contextlib.contextmanager
def kept(net):
    """While a net is traced: what its layers set in themselves is undone afterwards."""
    before = [(layer, dict(vars(layer))) for layer in net.built_layers]
    try:
        for layer in net.built_layers:
            layer.deferred_check = None
        yield
    finally:
        for layer, attributes in before:
            vars(layer).clear()
            vars(layer).update(attributes)


@contextlib.contextmanager
def giving(draws):
    """Layers find these random numbers, {layer: tensor}, and do not draw."""
    try:
        for layer, draw in draws.items():
            layer.given = draw
        yield
    finally:
        for layer in draws:
            layer.given = None


@contextlib.contextmanager
def standing_in(blobs, tensors):
    """Layers find these tensors as their parameters; gives a list that holds at the end which memories they have written."""
    memories, written = [blob.data_memory for blob in blobs], []
    before = [(memory.tensor, memory.host, memory.newer, memory.touched) for memory in memories]
    try:
        for memory, tensor in zip(memories, tensors):
            memory.tensor, memory.host, memory.newer = tensor, None, Memory.TENSOR
        yield written
        written += [memory for memory, (*_, touched) in zip(memories, before) if memory.touched != touched]
    finally:
        for memory, attributes in zip(memories, before):
            memory.tensor, memory.host, memory.newer, memory.touched = attributes
