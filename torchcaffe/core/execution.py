"""Running a net: a layer at a time where somebody may look between layers, in one sweep of autograd where nobody does.

Layer at a time, every layer records its own small graph from detached bottoms; backward() reads top diffs and writes
bottom diffs, so both can be changed in between, as in Caffe. In one sweep, layers are chained into one graph and the
gradient runs through it without a stop; blob diffs are then there only when they were asked for (`keep_diffs`).
"""

from __future__ import annotations

import torch

from torchcaffe.core import precision
from torchcaffe.core.errors import CaffeError, NetError


def forward(net, first: int, last: int) -> float:
    """Run layers first..last, each with its own graph where it will need backward. Returns the weighted loss."""
    precision.apply(net)
    net.assume_written()
    total, ahead = 0.0, False
    unwatched = not any(net.callbacks.values())
    for index in range(first, last + 1):
        for callback in net.callbacks["before_forward"]:
            callback(index)
        prepare(net, index)
        if ahead:
            net.recorded[index], ahead = None, False
        elif net.built_layers[index].works_on_blobs:
            run_on_blobs(net, index)
        else:
            ahead = run_recorded(net, index, unwatched and index < last)
        total += weighted_loss(net, index)
        for callback in net.callbacks["after_forward"]:
            callback(index)
            net.assume_written()
    flush(net)
    return float(total)


def flush(net):
    """Do the checks that layers put off, where the GPU is waited for anyway. Raises NetError."""
    for layer in net.built_layers:
        if layer.deferred_check is not None:
            layer.flush()


def run_recorded(net, index, ahead=False) -> bool:
    """Run a layer, with its own graph where it will need backward. ahead, and returns: as run_unrecorded."""
    layer, recorded = net.built_layers[index], net.layer_need_backward[index]
    if not recorded:
        net.recorded[index] = None
        return run_unrecorded(net, index, ahead)
    inputs = [tensor.detach() for tensor in bottom_tensors(net, index)]
    for tensor, needed in zip(inputs, net.bottom_need_backward[index]):
        tensor.requires_grad_(needed or layer.always_propagates)
    with torch.enable_grad():
        tops = run(layer, inputs)
    net.recorded[index] = (inputs, tops)
    for blob, tensor in zip(net.top_blobs[index], tops):
        if tensor is not None:
            blob.put(tensor.detach())
    return False


def run_unrecorded(net, index, ahead=False) -> bool:
    """Run a layer whose gradient nobody will ask for: what it overwrites in place it computes in place.

    ahead: nobody looks at the tops before the next layer has run, so that a convolution may do the work of a ReLU that
    overwrites them, while they are in the processor's cache. Returns True where it did.
    """
    layer = net.built_layers[index]
    layer.rectify = ahead and net.rectifiable[index]
    with torch.no_grad():
        inputs = [tensor.detach() for tensor in bottom_tensors(net, index)]
        if net.overwrites[index] and hasattr(layer, "forward_in_place"):
            tops = (layer.forward_in_place(*inputs),)
        else:
            tops = run(layer, inputs)
    for blob, tensor in zip(net.top_blobs[index], tops):
        if tensor is not None:
            blob.put(tensor)
    return layer.rectify and layer.rectified


def run_on_blobs(net, index):
    net.built_layers[index].forward_blobs(net.bottom_blobs[index], net.top_blobs[index])
    net.assume_written()


def forward_only(net):
    """Run the whole net without recording anything; returns the weighted loss as a tensor (testing)."""
    precision.apply(net)
    net.assume_written()
    total, ahead = torch.zeros((), device=net.device), False
    with torch.no_grad():
        for index, layer in enumerate(net.built_layers):
            prepare(net, index)
            net.recorded[index] = None
            if ahead:
                ahead = False
            elif layer.works_on_blobs:
                run_on_blobs(net, index)
            else:
                ahead = run_unrecorded(net, index, ahead=True)
            total = total + weighted_loss(net, index)
    return total


def prepare(net, index):
    """Reshape the tops of a layer whose bottoms have changed shape; a layer of the user's is always asked."""
    dims = tuple(blob.dims for blob in net.bottom_blobs[index])
    if net.seen_shapes[index] != dims or net.built_layers[index].works_on_blobs:
        net.reshape_layer(index)
    if index in net.unchecked:
        net.require_memory(index)
        net.unchecked.discard(index)


def bottom_tensors(net, index):
    """The layer's bottoms. One that will be overwritten in place is copied where an array outside is its memory."""
    tops = net.top_blobs[index]
    tensors = [
        blob.tensor().clone() if blob in tops and blob.data_memory.host is not None else blob.tensor()
        for blob in net.bottom_blobs[index]
    ]
    return precision.widened(net.built_layers[index], tensors)


def run(layer, inputs):
    """The layer's tops, as a tuple. What torch or numpy cannot do becomes a NetError that names the layer."""
    try:
        tops = layer.forward(*inputs)
    except CaffeError:
        raise
    except (RuntimeError, MemoryError, IndexError) as problem:  # IndexError: torch's, for an axis that is not there
        raise NetError(f'layer "{layer.name}" ({layer.type}): {str(problem).splitlines()[0]}') from problem
    return tops if isinstance(tops, (tuple, list)) else (tops,)


def weighted_loss(net, index):
    """Sum of top . top.diff over the layer's weighted tops, as a tensor or 0."""
    total = 0.0
    for blob, weight in zip(net.top_blobs[index], net.loss_weights[index]):
        if weight:
            total = total + (blob.tensor().detach() * blob.diff_tensor()).sum()
    return total


def backward(net, first: int, last: int):
    """Gradients of layers first..last, from the last: bottom diffs written, parameter diffs added to."""
    precision.apply(net)
    net.assume_written()
    for index in range(last, first - 1, -1):
        for callback in net.callbacks["before_backward"]:
            callback(index)
        if net.layer_need_backward[index]:
            backward_layer(net, index)
        for callback in net.callbacks["after_backward"]:
            callback(index)
            net.assume_written()


def backward_layer(net, index):
    layer = net.built_layers[index]
    layer.check_gradients(net.bottom_need_backward[index])
    if layer.works_on_blobs:
        layer.backward_blobs(net.top_blobs[index], net.bottom_need_backward[index], net.bottom_blobs[index])
        net.assume_written()
        return
    if not layer.has_backward:
        return
    if net.recorded[index] is None:
        raise NetError(f'layer "{layer.name}": backward without a forward of the same layer before it')
    inputs, tops = net.recorded[index]
    outputs, gradients = [], []
    for blob, tensor in zip(net.top_blobs[index], tops):
        if tensor is not None and tensor.requires_grad:
            outputs.append(tensor)
            gradients.append(blob.diff_tensor().reshape(tensor.shape).to(tensor.dtype))
    wanted = [tensor for tensor in inputs if tensor.requires_grad]
    parameters = [blob for blob in layer.blobs if blob.data_memory.tensor.requires_grad]
    leaves = [blob.data_memory.tensor for blob in parameters]
    found = [None] * (len(wanted) + len(leaves))
    if outputs and found:
        found = torch.autograd.grad(outputs, wanted + leaves, gradients, retain_graph=True, allow_unused=True)
    # A layer that only moves numbers hands its gradient on as it is; two blobs must not share one.
    given = {gradient.untyped_storage().data_ptr() for gradient in gradients}
    found = [g.clone() if g is not None and g.untyped_storage().data_ptr() in given else g for g in found]
    for blob, gradient in zip(parameters, found[len(wanted) :]):
        if layer.overwrites(layer.blobs.index(blob)):
            blob.diff_memory.clear()
        add_diff(blob, gradient)
    remaining = iter(found[: len(wanted)])
    for blob, tensor in zip(net.bottom_blobs[index], inputs):
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


class AutogradPass:
    """One forward and backward of the whole net as a single autograd graph (training without an onlooker)."""

    def __init__(self, net, keep_diffs: bool):
        self.net = net
        self.keep_diffs = keep_diffs
        self.first_tensor = {}  # blob -> the tensor whose gradient is the blob's diff (before in-place layers)
        self.roots = []

    def forward(self):
        """Run all layers; returns the weighted loss as a tensor without graph."""
        net = self.net
        total = torch.zeros((), device=net.device)
        precision.apply(net, training=True)
        net.assume_written()
        with torch.enable_grad():
            for index, layer in enumerate(net.built_layers):
                prepare(net, index)
                if not net.layer_need_backward[index]:
                    with torch.no_grad():
                        tops = run(layer, bottom_tensors(net, index))
                else:
                    layer.check_gradients(net.bottom_need_backward[index])
                    inputs = self.inputs(index)
                    tops = (layer.forward_in_place(*inputs),) if self.overwritable(index) else run(layer, inputs)
                self.store(index, tops)
                total = total + weighted_loss(net, index)
        return total

    def inputs(self, index):
        net, inputs = self.net, []
        flags, always = net.bottom_need_backward[index], self.keep_diffs and net.built_layers[index].always_propagates
        for blob, tensor, needed in zip(net.bottom_blobs[index], bottom_tensors(net, index), flags):
            if not needed and not always:
                tensor = tensor.detach()
            elif self.keep_diffs and not tensor.requires_grad:  # an input that force_backward wants a gradient for
                tensor = tensor.detach().requires_grad_()
                self.first_tensor.setdefault(blob, tensor)
            inputs.append(tensor)
        return inputs

    def overwritable(self, index):
        net = self.net
        return (
            not self.keep_diffs
            and net.overwrites[index]
            and hasattr(net.built_layers[index], "forward_in_place")
            and net.bottom_blobs[index][0].data_memory.tensor.requires_grad
        )

    def store(self, index, tops):
        net = self.net
        for blob, tensor, weight in zip(net.top_blobs[index], tops, net.loss_weights[index]):
            if tensor is None:
                continue
            blob.put(tensor)
            if weight and tensor.requires_grad:
                self.roots.append((tensor, blob))
            if self.keep_diffs and tensor.requires_grad and blob not in self.first_tensor:
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
            self.release()
        leaves = [blob.data_memory.tensor for blob in net.learnable]
        overwritten = {b for layer in net.built_layers for i, b in enumerate(layer.blobs) if layer.overwrites(i)}
        for blob, leaf in zip(net.learnable, leaves):
            memory = blob.diff_memory
            fresh = memory.newer == memory.ZERO or blob in overwritten
            leaf.grad = None if fresh else blob.diff_tensor()
        torch.autograd.backward(tensors, gradients)
        for blob, leaf in zip(net.learnable, leaves):
            if leaf.grad is not None:
                blob.put_diff(leaf.grad)
                leaf.grad = None
        self.finish()

    def release(self):
        """Let go of intermediate blobs, so that autograd can free each activation as soon as it is used."""
        for blob in self.net.intermediate:
            memory = blob.data_memory
            if not memory.watched():
                memory.tensor, memory.host, memory.newer = None, None, memory.ZERO

    def finish(self):
        """Hand kept gradients to their blobs and cut the blobs loose from the graph."""
        for blob, tensor in self.first_tensor.items():
            if tensor.grad is not None and not any(blob.data_memory is leaf.data_memory for leaf in self.net.learnable):
                if not self.net.weight_of.get(blob):
                    blob.put_diff(tensor.grad)
        for blob in self.net.blobs.values():
            tensor = blob.data_memory.tensor
            if tensor is not None and tensor.requires_grad and not tensor.is_leaf:  # a leaf: a parameter shown as a top
                blob.data_memory.tensor = blob.data_memory.tensor.detach()
        self.first_tensor.clear()
