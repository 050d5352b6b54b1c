"""From gradients to new weights: clipping, weight decay, and Caffe's update rules.

A rule turns gradients and their history into the steps that are subtracted from the weights, for many parameters at once: a
GPU is called a few times instead of a few times a parameter. `rule(g, history, r, solver)`: g the gradients (divided by
iter_size, decay added), history a list of state tensors for each state of the rule, r = learning rate * lr_mult. Returns the
steps; history is updated in place. SGD keeps the learning rate inside its history, unlike torch.optim.SGD.
"""

from __future__ import annotations

import math

import torch

from torchcaffe.core import log
from torchcaffe.core.errors import SolverError
from torchcaffe.core.names import suggestion
from torchcaffe.core.log import number


PART = 2**24  # numbers that are updated together: some rules need as much memory again


def sgd(g, history, r, solver):
    torch._foreach_mul_(history[0], solver.proto.momentum)
    torch._foreach_add_(history[0], g, alpha=r)
    return history[0]


def nesterov(g, history, r, solver):
    momentum, previous = solver.proto.momentum, [tensor.clone() for tensor in history[0]]
    sgd(g, history, r, solver)
    steps = torch._foreach_mul(history[0], 1 + momentum)
    torch._foreach_sub_(steps, previous, alpha=momentum)
    return steps


def adagrad(g, history, r, solver):
    torch._foreach_addcmul_(history[0], g, g)
    return _over_root(g, history[0], r, solver)


def rmsprop(g, history, r, solver):
    _average_squares(history[0], g, solver.proto.rms_decay)
    return _over_root(g, history[0], r, solver)


def adadelta(g, history, r, solver):
    momentum, delta = solver.proto.momentum, solver.proto.delta
    _average_squares(history[0], g, momentum)
    steps = torch._foreach_add(history[1], delta)
    torch._foreach_div_(steps, torch._foreach_add(history[0], delta))
    torch._foreach_sqrt_(steps)
    steps = torch._foreach_mul(g, steps)
    _average_squares(history[1], steps, momentum)
    torch._foreach_mul_(steps, r)
    return steps


def adam(g, history, r, solver):
    beta1, beta2 = solver.proto.momentum, solver.proto.momentum2
    count = solver.iter + 1
    torch._foreach_mul_(history[0], beta1)
    torch._foreach_add_(history[0], g, alpha=1 - beta1)
    _average_squares(history[1], g, beta2)
    return _over_root(history[0], history[1], r * (math.sqrt(1 - beta2**count) / (1 - beta1**count)), solver)


def _average_squares(averages, numbers, decay):
    torch._foreach_mul_(averages, decay)
    torch._foreach_addcmul_(averages, numbers, numbers, value=1 - decay)


def _over_root(numbers, squares, r, solver):
    """numbers / (root of squares + delta) * r"""
    roots = torch._foreach_sqrt(squares)
    torch._foreach_add_(roots, solver.proto.delta)
    steps = torch._foreach_div(numbers, roots)
    torch._foreach_mul_(steps, r)
    return steps


# type -> (rule, state tensors a parameter)
RULES = {
    "SGD": (sgd, 1),
    "Nesterov": (nesterov, 1),
    "AdaGrad": (adagrad, 1),
    "RMSProp": (rmsprop, 1),
    "AdaDelta": (adadelta, 2),
    "Adam": (adam, 2),
}


def check(type_name, param):
    """Refuse settings that Caffe refuses. Raises SolverError."""
    if type_name not in RULES:
        raise SolverError(f'unknown solver type "{type_name}"; {suggestion(type_name, RULES, "known:")}')
    if type_name in ("AdaGrad", "RMSProp") and param.momentum:
        raise SolverError(f"{type_name} works without momentum; remove momentum: {param.momentum:g}")
    if type_name == "RMSProp" and not 0 <= param.rms_decay < 1:
        raise SolverError(f"RMSProp needs 0 <= rms_decay < 1, not {param.rms_decay:g}")
    if param.regularization_type not in ("L1", "L2") and param.weight_decay:
        raise SolverError(f'unknown regularization_type "{param.regularization_type}"; known: L1, L2')


def diff_norms(blobs):
    """L2 norm of the diff of each blob, as one tensor on their device."""
    norms = [torch.linalg.vector_norm(blob.diff_tensor()) for blob in blobs]
    return torch.stack(norms) if norms else torch.zeros(0)


def clip_gradients(blobs, limit: float):
    """Scale the diffs of all blobs down when their common L2 norm exceeds `limit`; a negative limit is none."""
    if limit < 0:
        return
    norm = float(torch.linalg.vector_norm(diff_norms(blobs)))
    if norm > limit:
        factor = limit / norm
        log.info(
            f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > {number(limit)}) "
            f"by scale factor {number(factor)}"
        )
        torch._foreach_mul_([blob.diff_tensor() for blob in blobs], factor)


def groups(learnable, specs):
    """[(lr_mult, decay_mult, indices of parameters)]: parameters that can be updated together, of at most PART numbers or one."""
    found, open_groups = [], {}
    for index, (blob, spec) in enumerate(zip(learnable, specs)):
        key = spec.lr_mult, spec.decay_mult
        indices, size = open_groups.get(key, (None, 0))
        if indices is None or size + blob.count > PART:
            indices, size = [], 0
            found.append((*key, indices))
        indices.append(index)
        open_groups[key] = indices, size + blob.count
    return found


def update_group(solver, blobs, history, rate: float, decay: float, keep_diffs: bool):
    """Divide the gradients by iter_size, add the decay, and take the steps of the solver's rule.

    Args:
        blobs, history: learnable parameters, and a list of their state tensors for each state of the rule.
        rate, decay: the learning rate and weight decay, multiplied by the parameters' own.
        keep_diffs: leave the step in the diff, as Caffe does; else the diff is undefined afterwards.
    """
    param, (rule, _) = solver.proto, RULES[solver.type]
    weights, gradients = [blob.tensor() for blob in blobs], [blob.diff_tensor() for blob in blobs]
    if param.iter_size > 1:
        torch._foreach_div_(gradients, param.iter_size)
    if decay:
        signed = param.regularization_type == "L1"
        torch._foreach_add_(gradients, torch._foreach_sign(weights) if signed else weights, alpha=decay)
    steps = rule(gradients, history, rate, solver)
    torch._foreach_sub_(weights, steps)
    for blob in blobs:
        blob.data_memory.written()
    if keep_diffs:
        for blob, gradient, step in zip(blobs, gradients, steps):
            blob.diff_memory.put(gradient.copy_(step) if steps is history[0] else step)
