"""Running a net: one loop over its layers, with a recorder that says what backward will need of them.

    PerLayer        each layer has a small graph of its own, from detached bottoms: backward() reads top diffs and writes
                    bottom diffs layer by layer, so both can be changed in between, as in Caffe
    NoRecord        nothing: testing
    AutogradPass    one graph of the whole net: training where nothing looks at single layers. The gradient runs through it
                    in one go, and blobs get their diffs only on request (`keep_diffs`)

A recorder has
    training                                    whether it is for training, see precision.apply
    records(node)                               whether the node's forward is recorded for backward
    may_overwrite(node)                         whether a node with `may_overwrite` may really work in place
and for the nodes that it records
    inputs(node)                                the tensors that the layer gets
    store(node, inputs, tops)                   put the tops into their blobs, and keep what backward needs
"""

from __future__ import annotations

import torch

from torchcaffe.core import determinism, precision
from torchcaffe.core.errors import CaffeError, NetError


# ---- forward
def forward(net, first: int, last: int):
    """Run layers first..last for a backward layer by layer. Returns the weighted loss as a tensor of shape ()."""
    return run_layers(net, first, last, PerLayer)


def forward_only(net):
    """Run the whole net without recording anything; returns the weighted loss as a tensor of shape () (testing)."""
    return run_layers(net, 0, len(net.nodes) - 1, NoRecord)


def run_layers(net, first: int, last: int, recorder, done=()):
    """Run layers first..last, reshaping where needed; returns the weighted loss as a tensor of shape () on the device.

    done: nodes that are left out, whose tops are there already.
    """
    precision.apply(net, recorder.training)
    net.assume_written()
    watched = any(net.callbacks.values())
    fusible = 0 if watched else last + 1  # callbacks see what is between a layer and its ReLU
    total, fused_relu = torch.zeros((), device=net.device), None
    callers_mode, recording = torch.is_grad_enabled(), False  # the user's functions and layers run in the former
    with torch.no_grad():  # entered once: that takes longer than a small layer
        for node in net.nodes[first : last + 1]:
            if node in done:
                continue
            if watched:
                with torch.set_grad_enabled(callers_mode):
                    call(net, "before_forward", node)
            if node.layer.works_on_blobs:
                with torch.set_grad_enabled(callers_mode):
                    node.prepare()
                    node.layer.forward_blobs(node.bottoms, node.tops)
                net.assume_written()
            else:
                node.prepare()
                if recorder.records(node) is not recording:
                    recording = not recording
                    torch.set_grad_enabled(recording)
                if node.index == fused_relu:
                    node.recorded = None
                elif recording:
                    record_node(node, recorder)
                else:
                    fused_relu = run_node(net, node, recorder, fusible)
            if any(node.loss_weights):
                total = total + weighted_loss(node)
            if watched:
                with torch.set_grad_enabled(callers_mode):
                    call(net, "after_forward", node)
    return total


def record_node(node, recorder):
    """Run one layer with a graph for its backward."""
    inputs = recorder.inputs(node)
    tops = run(node.layer, function_of(node, recorder), *inputs)
    recorder.store(node, inputs, tops)


def run_node(net, node, recorder, fusible: int):
    """Run one layer without a graph. Returns the index of the ReLU that was computed with it, below `fusible`, or None."""
    layer, relu = node.layer, node.fused_relu
    inputs = [tensor.detach() if tensor.requires_grad else tensor for tensor in bottom_tensors(node)]
    if relu is not None and relu < fusible and not recorder.records(net.nodes[relu]) and layer.will_fuse(*inputs):
        tops = run(layer, layer.forward, *inputs, relu=True)
    else:
        relu = None
        tops = run(layer, function_of(node, recorder), *inputs)
    node.recorded = None
    put(node, tops)
    return relu


def function_of(node, recorder):
    """The layer's forward, or the one that overwrites its bottom where that does no harm."""
    return node.layer.forward_in_place if node.may_overwrite and recorder.may_overwrite(node) else node.layer.forward


def run(layer, function, *inputs, **options):
    """The layer's tops, as a tuple. What torch or numpy cannot do becomes a NetError that names the layer."""
    try:
        tops = function(*inputs, **options)
    except CaffeError:
        raise
    except (RuntimeError, MemoryError, IndexError) as problem:  # IndexError: torch's, for an axis that is not there
        if determinism.LACKING in str(problem):
            raise determinism.lacking(layer, problem) from problem
        raise NetError(f'layer "{layer.name}" ({layer.type}): {str(problem).splitlines()[0]}') from problem
    return tops if isinstance(tops, (tuple, list)) else (tops,)


def call(net, when: str, node):
    """Call the user's functions, which may write any array that they hold."""
    for callback in net.callbacks[when]:
        callback(node.index)
        net.assume_written()


def weighted_loss(node):
    """Sum of top . top.diff over the layer's weighted tops, as a tensor."""
    total = 0.0
    for blob, weight in zip(node.tops, node.loss_weights):
        if weight:
            total = total + (blob.tensor().detach() * blob.diff_tensor()).sum()
    return total


def output_values(net, shapes: dict):
    """All outputs of a net as one tensor, for averages over batches; `shapes` keeps their shapes from batch to batch.

    Raises NetError where an output has another shape than before, as detections have.
    """
    for name in net.outputs:
        dims = net.blobs[name].dims
        if shapes.setdefault(name, dims) != dims:
            raise NetError(
                f'output "{name}" has the shape {dims} after {shapes[name]}, so that it has no mean over batches: give it to a '
                "Silence layer in the test net, and read it from Python"
            )
    values = [net.blobs[name].tensor().reshape(-1) for name in net.outputs]
    return torch.cat(values) if values else torch.zeros(0, device=net.device)


def flush(net):
    """Do the checks that layers have deferred, where the GPU is waited for anyway. Raises NetError."""
    for layer in net.built_layers:
        if layer.deferred_check is not None:
            layer.flush()


def bottom_tensors(node):
    """The layer's bottoms. One that will be overwritten in place is copied where an array outside is its memory."""
    tensors = [
        blob.tensor() if blob.data_memory.host is None or blob not in node.tops else blob.tensor().clone()
        for blob in node.bottoms
    ]
    return precision.cast(node.layer, tensors)


def put(node, tops):
    for blob, tensor in zip(node.tops, tops):
        if tensor is not None:
            blob.put(tensor)


# ---- recorders
class NoRecord:
    """Nothing is recorded: layers work in place where they can."""

    training = False

    @staticmethod
    def records(node):
        return False

    @staticmethod
    def may_overwrite(node):
        return True


class PerLayer:
    """Each layer that needs backward gets a graph of its own, in `node.recorded`."""

    training = False

    @staticmethod
    def records(node):
        return node.needs_backward

    @staticmethod
    def may_overwrite(node):
        return not node.needs_backward

    @staticmethod
    def inputs(node):
        inputs = [tensor.detach() for tensor in bottom_tensors(node)]
        for tensor, needed in zip(inputs, node.bottom_needs_backward):
            tensor.requires_grad_(needed or node.layer.always_propagates)
        return inputs

    @staticmethod
    def store(node, inputs, tops):
        node.recorded = (inputs, tops)
        put(node, [None if tensor is None else tensor.detach() for tensor in tops])


class AutogradPass:
    """One forward and backward of the whole net as a single autograd graph (training without callbacks)."""

    training = True

    def __init__(self, net, keep_diffs: bool):
        self.net = net
        self.keep_diffs = keep_diffs
        self.first_tensor = {}  # blob -> the tensor whose gradient is the blob's diff (before in-place layers)
        self.roots = []
        self.progress = determinism.Backward()

    def forward(self, done=()):
        """Run all layers but those that are done; returns the weighted loss as a tensor without graph."""
        return run_layers(self.net, 0, len(self.net.nodes) - 1, self, done)

    @staticmethod
    def records(node):
        return node.needs_backward

    def may_overwrite(self, node):
        return not self.keep_diffs and node.needs_backward and node.bottoms[0].data_memory.tensor.requires_grad

    def inputs(self, node):
        node.check_gradients()
        inputs, always = [], self.keep_diffs and node.layer.always_propagates
        for blob, tensor, needed in zip(node.bottoms, bottom_tensors(node), node.bottom_needs_backward):
            if not needed and not always:
                tensor = tensor.detach()
            elif self.keep_diffs and not tensor.requires_grad:  # an input that force_backward wants a gradient for
                tensor = tensor.detach().requires_grad_()
                self.first_tensor.setdefault(blob, tensor)
            inputs.append(tensor)
        return inputs

    def store(self, node, inputs, tops):
        node.recorded = None  # of an earlier forward, whose blobs are gone
        put(node, tops)
        self.progress.watch(node, tops)
        if not self.keep_diffs and not any(node.loss_weights):
            return
        for blob, tensor, weight in zip(node.tops, tops, node.loss_weights):
            if tensor is None or not tensor.requires_grad:
                continue
            if weight:
                self.roots.append((tensor, blob))
            if self.keep_diffs and blob not in self.first_tensor:
                tensor.retain_grad()
                self.first_tensor[blob] = tensor

    def backward(self):
        """Add to parameter diffs; blob diffs only with keep_diffs."""
        net = self.net
        if not self.roots:
            return
        tensors = [tensor for tensor, _ in self.roots]
        # Copies: a layer that only moves numbers would make a parameter's gradient of the very memory it starts from.
        gradients = [blob.diff_tensor().reshape(t.shape).to(t.dtype, copy=True) for t, blob in self.roots]
        self.roots.clear()
        if not self.keep_diffs:
            release(net)
        leaves = [blob.data_memory.tensor for blob in net.learnable]
        overwritten = {b for layer in net.built_layers for i, b in enumerate(layer.blobs) if layer.overwrites(i)}
        for blob, leaf in zip(net.learnable, leaves):
            memory = blob.diff_memory
            fresh = memory.newer == memory.ZERO or blob in overwritten
            leaf.grad = None if fresh else blob.diff_tensor()
        with self.progress.named():
            torch.autograd.backward(tensors, gradients)
        for blob, leaf in zip(net.learnable, leaves):
            if leaf.grad is not None:
                blob.put_diff(leaf.grad)
                leaf.grad = None
        self.finish()

    def finish(self):
        """Hand kept gradients to their blobs and cut the blobs loose from the graph."""
        parameters = {id(leaf.data_memory) for leaf in self.net.learnable} if self.first_tensor else ()
        for blob, tensor in self.first_tensor.items():
            if tensor.grad is not None and id(blob.data_memory) not in parameters and blob not in self.net.loss_blobs:
                blob.put_diff(tensor.grad)
        for blob in self.net.blobs.values():
            tensor = blob.data_memory.tensor
            if tensor is not None and tensor.requires_grad and not tensor.is_leaf:  # a leaf: a parameter shown as a top
                blob.data_memory.tensor = blob.data_memory.tensor.detach()
        self.first_tensor.clear()


def release(net):
    """Let go of intermediate blobs, so that autograd can free each activation as soon as it is used."""
    for blob in net.intermediate:
        memory = blob.data_memory
        if not memory.externally_held():
            memory.tensor, memory.host, memory.newer = None, None, memory.ZERO


# ---- backward, layer by layer
def backward(net, first: int, last: int):
    """Gradients of layers first..last, from the last: bottom diffs written, parameter diffs added to."""
    precision.apply(net)
    net.assume_written()
    for node in reversed(net.nodes[first : last + 1]):
        call(net, "before_backward", node)
        if node.needs_backward:
            backward_node(net, node)
        call(net, "after_backward", node)


def backward_node(net, node):
    layer = node.layer
    node.check_gradients()
    if layer.works_on_blobs:
        layer.backward_blobs(node.tops, node.bottom_needs_backward, node.bottoms)
        net.assume_written()
    elif layer.has_backward:
        inputs, tops = node.recorded or record_again(node)
        propagate(node, inputs, tops)


def record_again(node):
    """(inputs, tops) of a layer without a forward of its own, from what its bottoms hold now. The blobs stay as they are."""
    if not node.layer.gradient_from_bottoms:
        raise NetError(
            f'layer "{node.layer.name}" ({node.layer.type}): its backward needs what its forward left; call forward first'
        )
    node.prepare()
    with torch.enable_grad():
        inputs = PerLayer.inputs(node)
        return inputs, run(node.layer, node.layer.forward, *inputs)


def propagate(node, inputs, tops):
    """From the diffs of the tops to those of the bottoms and parameters, through a graph from `inputs` to `tops`."""
    layer, outputs, gradients = node.layer, [], []
    for blob, tensor in zip(node.tops, tops):
        if tensor is not None and tensor.requires_grad:
            outputs.append(tensor)
            gradients.append(blob.diff_tensor().reshape(tensor.shape).to(tensor.dtype))
    sources = [tensor for tensor in inputs if tensor.requires_grad]
    parameters = [blob for blob in layer.blobs if blob.data_memory.tensor.requires_grad]
    leaves = [blob.data_memory.tensor for blob in parameters]
    results = [None] * (len(sources) + len(leaves))
    if outputs and results:
        results = run(layer, torch.autograd.grad, outputs, sources + leaves, gradients, retain_graph=True, allow_unused=True)
    # A layer that only moves numbers hands its gradient on as it is; two blobs must not share one.
    given = {gradient.untyped_storage().data_ptr() for gradient in gradients}
    results = [g.clone() if g is not None and g.untyped_storage().data_ptr() in given else g for g in results]
    for blob, gradient in zip(parameters, results[len(sources) :]):
        if layer.overwrites(layer.blobs.index(blob)):
            blob.diff_memory.clear()
        add_diff(blob, gradient)
    remaining = iter(results[: len(sources)])
    for blob, tensor in zip(node.bottoms, inputs):
        if tensor.requires_grad:
            gradient = next(remaining)
            blob.put_diff(torch.zeros_like(tensor) if gradient is None else gradient)


def add_diff(blob, gradient):
    if gradient is None:
        return
    memory = blob.diff_memory
    if memory.newer == memory.ZERO:
        memory.put(gradient)
    else:
        memory.put(blob.diff_tensor() + gradient.reshape(blob.dims))
