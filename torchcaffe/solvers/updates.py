"""From gradients to new weights: clipping, weight decay, and Caffe's update rules.

A rule turns a gradient and its history into the step that is subtracted from the weights. `rule(g, history, r, solver)`:
g the gradient (divided by iter_size, decay added), history the state tensors of one parameter, r = learning rate *
lr_mult. Returns the step; history is updated in place. SGD keeps the learning rate inside its history, unlike
torch.optim.SGD.
"""

from __future__ import annotations

import math

import torch

from torchcaffe.core import log
from torchcaffe.core.errors import SolverError
from torchcaffe.core.names import suggestion
from torchcaffe.core.log import number


def sgd(g, history, r, solver):
    return history[0].mul_(solver.proto.momentum).add_(g, alpha=r)


def nesterov(g, history, r, solver):
    momentum = solver.proto.momentum
    previous = history[0].clone()
    history[0].mul_(momentum).add_(g, alpha=r)
    return history[0].mul(1 + momentum).sub_(previous, alpha=momentum)


def adagrad(g, history, r, solver):
    history[0].addcmul_(g, g)
    return g.div(history[0].sqrt().add_(solver.proto.delta)).mul_(r)


def rmsprop(g, history, r, solver):
    decay = solver.proto.rms_decay
    history[0].mul_(decay).addcmul_(g, g, value=1 - decay)
    return g.div(history[0].sqrt().add_(solver.proto.delta)).mul_(r)


def adadelta(g, history, r, solver):
    momentum, delta = solver.proto.momentum, solver.proto.delta
    history[0].mul_(momentum).addcmul_(g, g, value=1 - momentum)
    step = g.mul(((history[1] + delta) / (history[0] + delta)).sqrt_())
    history[1].mul_(momentum).addcmul_(step, step, value=1 - momentum)
    return step.mul_(r)


def adam(g, history, r, solver):
    beta1, beta2 = solver.proto.momentum, solver.proto.momentum2
    count = solver.iter + 1
    history[0].mul_(beta1).add_(g, alpha=1 - beta1)
    history[1].mul_(beta2).addcmul_(g, g, value=1 - beta2)
    correction = math.sqrt(1 - beta2**count) / (1 - beta1**count)
    return history[0].div(history[1].sqrt().add_(solver.proto.delta)).mul_(r * correction)


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


def update_parameter(solver, blob, spec, history, rate: float, keep_diffs: bool):
    """Divide the gradient by iter_size, add the decay, and take the step of the solver's rule.

    Args:
        blob, spec, history: a learnable parameter, its ParamSpec, and its state tensors.
        rate: the learning rate, before lr_mult.
        keep_diffs: leave the step in the diff, as Caffe does; else the diff is undefined afterwards.
    """
    param, (rule, _) = solver.proto, RULES[solver.type]
    weight, gradient = blob.tensor(), blob.diff_tensor()
    decay = param.weight_decay * spec.decay_mult
    if param.iter_size > 1:
        gradient = gradient.div_(param.iter_size)
    if decay:
        if param.regularization_type == "L1":
            gradient = gradient.add_(torch.sign(weight), alpha=decay)
        else:
            gradient = gradient.add_(weight, alpha=decay)
    step = rule(gradient, history, rate * spec.lr_mult, solver)
    weight.sub_(step)
    blob.data_memory.written()
    if keep_diffs:
        blob.diff_memory.put(gradient.copy_(step) if step is history[0] else step)
