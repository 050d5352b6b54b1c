"""Caffe's learning-rate policies; all are evaluated with the number of updates done so far."""

from __future__ import annotations

import math

from torchcaffe.core import log, mode
from torchcaffe.core.errors import SolverError
from torchcaffe.core.names import suggestion


def _power(base, exponent):
    """C's pow, which Caffe calls: it gives infinity or NaN where Python's raises."""
    try:
        return math.pow(base, exponent)
    except ValueError:
        return math.nan if base else math.inf
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf


def fixed(p, iteration, state):
    return p.base_lr


def step(p, iteration, state):
    _need(p.stepsize > 0, p, "stepsize > 0")
    return p.base_lr * _power(p.gamma, iteration // p.stepsize)


def exp(p, iteration, state):
    return p.base_lr * _power(p.gamma, iteration)


def inv(p, iteration, state):
    return p.base_lr * _power(1 + p.gamma * iteration, -p.power)


def multistep(p, iteration, state):
    if state.current_step < len(p.stepvalue) and iteration >= p.stepvalue[state.current_step]:
        state.current_step += 1
        log.info(f"MultiStep Status: Iteration {iteration}, step = {state.current_step}")
    return p.base_lr * _power(p.gamma, state.current_step)


def poly(p, iteration, state):
    _need(p.max_iter > 0, p, "max_iter > 0")
    return p.base_lr * _power(1 - iteration / p.max_iter, p.power)


def sigmoid(p, iteration, state):
    _need(p.stepsize > 0, p, "stepsize > 0")
    return p.base_lr * (1 / (1 + math.exp(min(700.0, -p.gamma * (iteration - p.stepsize)))))


def _need(condition, p, what):
    if not condition:
        raise SolverError(f'lr_policy "{p.lr_policy}" needs {what}')


POLICIES = {function.__name__: function for function in (fixed, step, exp, inv, multistep, poly, sigmoid)}


def check(param):
    """Raise SolverError for settings that cannot work; warn of those that the policy ignores."""
    if param.lr_policy not in POLICIES:
        raise SolverError(f'unknown lr_policy "{param.lr_policy}"; {suggestion(param.lr_policy, POLICIES, "known:")}')
    if param.lr_policy in ("step", "exp", "sigmoid") and param.gamma < 0:
        raise SolverError(f'lr_policy "{param.lr_policy}" needs gamma >= 0, not {param.gamma}')
    if param.lr_policy == "poly" and param.HasField("gamma") and mode.solver_rank() == 0:
        log.warning(f"lr_policy poly reads power ({param.power:g}) and ignores gamma ({param.gamma:g})")


def rate(param, iteration, state) -> float:
    """Learning rate at `iteration`; `state.current_step` is moved by multistep."""
    return POLICIES[param.lr_policy](param, iteration, state)
