"""The part of a solver that turns gradients into updates, and tells how large they are."""

from __future__ import annotations

import math
from typing import Any

import torch

from torchcaffe.core import log
from torchcaffe.solvers import updates
from torchcaffe.core.log import number


class SolverUpdates:
    """Mixin of the solvers, which have these."""

    net: Any
    proto: Any
    lr: Any  # properties
    type: str
    history: list
    _iter: int
    iter: Any
    _norms: Any

    def apply_update(self, display: bool = False, keep_diffs: bool = True):
        """Clip, normalise, regularise, update: Caffe's ApplyUpdate, iter += 1 included.

        The diffs are the updates afterwards; without keep_diffs they are undefined, which saves a pass over memory.
        """
        self.net.assume_written()
        with torch.no_grad():
            rate = self.lr
            if display:
                log.info(f"Iteration {self.iter}, lr = {number(rate)}")
            self.clip_gradients()
            rule, states = updates.RULES[self.type]
            count = len(self.net.learnable)
            for index, (blob, spec) in enumerate(zip(self.net.learnable, self.net.learnable_specs)):
                history = [self.history[index + count * k] for k in range(states)]
                self.update_one(blob, spec, history, rate, rule, keep_diffs)
        self._iter += 1

    def update_one(self, blob, spec, history, rate, rule, keep_diffs):
        p = self.proto
        weight = blob.tensor()
        decay = p.weight_decay * spec.decay_mult
        memory = blob.diff_memory
        gradient = blob.diff_tensor()
        if p.iter_size > 1:
            gradient = gradient.div_(p.iter_size)
        if decay:
            if p.regularization_type == "L1":
                gradient = gradient.add_(torch.sign(weight), alpha=decay)
            else:
                gradient = gradient.add_(weight, alpha=decay)
        step = rule(gradient, history, rate * spec.lr_mult, self)
        weight.sub_(step)
        blob.data_memory.written()
        if step is history[0] and keep_diffs:
            gradient.copy_(step)
            step = gradient
        if keep_diffs:
            memory.put(step)

    def clip_gradients(self):
        """Scale all gradients down when their common L2 norm exceeds clip_gradients."""
        limit = self.proto.clip_gradients
        if limit < 0:
            return
        norm = float(torch.linalg.vector_norm(self.diff_norms()))
        if norm > limit:
            factor = limit / norm
            log.info(
                f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > {number(limit)}) "
                f"by scale factor {number(factor)}"
            )
            torch._foreach_mul_([blob.diff_tensor() for blob in self.net.learnable], factor)

    def diff_norms(self):
        """L2 norm of each learnable parameter's diff, on its device."""
        norms = [torch.linalg.vector_norm(blob.diff_tensor()) for blob in self.net.learnable]
        return torch.stack(norms) if norms else torch.zeros(0)

    @property
    def gradient_norms(self) -> dict:
        """{layer: L2 norm of its parameters' gradients} of the last iteration that step() did; {} unless watched.

        As backward left them: before clipping, division by iter_size, and weight decay. Not in pycaffe.
        """
        if self._norms is None:
            return {}
        squares = dict(zip(self.net.learnable, self._norms.double().square().tolist()))
        return {
            name: math.sqrt(sum(squares.get(blob, 0.0) for blob in blobs)) for name, blobs in self.net.params.items()
        }
