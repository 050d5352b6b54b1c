"""Solvers with pycaffe's interface: one iteration is Caffe's, in Caffe's order, with Caffe's log lines."""

from __future__ import annotations

import math
import operator
import os
from typing import Any, Callable, Union

import numpy as np
import torch

from torchcaffe.core import compiled, execution, log, memory, mode, names, rng
from torchcaffe.core.errors import CaffeError, SolverError
from torchcaffe.core.log import number
from torchcaffe.core.net import Net
from torchcaffe.core.vectors import NetVec, PublicNames, SetOnce
from torchcaffe.distributed import parallel
from torchcaffe.distributed.nccl import NCCL
from torchcaffe.solvers import policies, reports, resume, updates
from torchcaffe.solvers.nets import build_nets

Path = Union[str, os.PathLike]


class SolverParam:
    """What pycaffe shows as `solver.param`."""

    def __init__(self, proto):
        self._proto = proto

    @property
    def max_iter(self) -> int:
        return self._proto.max_iter

    @property
    def display(self) -> int:
        return self._proto.display

    @property
    def layer_wise_reduce(self) -> bool:
        return self._proto.layer_wise_reduce

    @property
    def base_lr(self) -> float:
        return self._proto.base_lr

    @base_lr.setter
    def base_lr(self, value: float) -> None:
        self._proto.base_lr = value


class SGDSolver(PublicNames, SetOnce):
    """SGDSolver(solver_file). Raises RuntimeError for a missing file, SolverError/NetError for what Caffe refuses.

    `net`, `test_nets`, `iter`, `lr`, `step(n)`, `solve()`, `snapshot()`, `restore()` as in pycaffe.
    """

    type = "SGD"
    _set_once = frozenset(("net", "test_nets", "param"))
    _internal = frozenset((
        "background", "callbacks", "compiled", "continue_at", "current_step", "equal", "forward_backward", "ranks", "reducer",
        "requested", "resume_from", "resumed", "snapshot_behind", "train_with",
    ))  # fmt: skip

    net: Net
    test_nets: list[Net]
    param: SolverParam

    def __init__(self, solver_file: Path, parsed: Any = None) -> None:
        from torchcaffe.formats.files import read_solver

        if parsed is None:
            if not os.path.isfile(solver_file):
                raise CaffeError(f"Could not open file {solver_file}")
            parsed = read_solver(solver_file)
        self.proto = parsed
        self.param = SolverParam(parsed)
        self._iter = self._first = 0  # updates done, and done before the last step()
        self.current_step = 0  # of lr_policy multistep
        self.callbacks = []
        self.keep_diffs = True  # after step(), blobs hold their gradients as in Caffe; False saves time and memory
        self.watch_gradients = False  # True: `gradient_norms` are taken in the last iteration of each step()
        self._norms = None  # of the parameters' gradients
        self.background = resume.Background()
        self.resumed = None  # record of the snapshot that training resumes from (see resume)
        self.requested = None  # "stop" or "snapshot", asked for by a signal
        self.stopped = False  # the last step() ended early
        self._loss_sum = 0.0  # of the iterations of the last step(); on a GPU a tensor there
        self._smoothed = reports.SmoothedLoss(parsed.average_loss)
        self._speed = reports.Speed()
        self._check_settings(solver_file)
        with log.details():
            log.info(f"Initializing solver from parameters: \n{str(parsed).rstrip()}")
        if parsed.random_seed >= 0:
            rng.set_random_seed(parsed.random_seed + (0 if mode.share().split else mode.solver_rank()))
        if mode.solver_rank() == 0 and parsed.snapshot:
            resume.check_writable(self)
        self.net, test_nets = build_nets(parsed, Net)
        if self.net.device.type == "cpu":
            memory.keep_freed()
        self.compiled = compiled.for_net(self.net, max(1, parsed.iter_size))
        self.test_nets = NetVec(test_nets)
        for path in (path for listed in parsed.weights for path in listed.split(",")):
            self.load_weights(path.strip())
        self.history = self._empty_history(solver_file)
        self._groups = updates.groups(self.net.learnable, self.net.learnable_specs)
        self.train_with(parallel.current())
        log.info("Solver scaffolding done.")

    def __repr__(self) -> str:
        tests = f", {names.counted(len(self.test_nets), 'test net')}" if self.test_nets else ""
        done = f"iteration {self.iter:,} of {self.proto.max_iter:,}"
        return f'<{type(self).__name__} on {self.net.device}: {done}, net "{names.one_line(self.net.name)}"{tests}>'

    def _check_settings(self, solver_file):
        try:
            updates.check(self.type, self.proto)
            policies.check(self.proto)
        except SolverError as problem:
            raise SolverError(f"{solver_file}: {problem}") from None

    def _empty_history(self, solver_file):
        """State tensors of the update rule, zero: the first of every parameter, then the second."""
        count, learnable = updates.RULES[self.type][1], self.net.learnable
        needed = 4 * count * sum(blob.count for blob in learnable)
        memory.require(needed, f"{solver_file}: the history of {self.type}", SolverError, self.net.device)
        return [torch.zeros(b.dims, device=self.net.device) for _ in range(count) for b in learnable]

    def train_with(self, ranks):
        """Average gradients over `ranks` (of parallel), and share with them what only one of them does."""
        self.ranks, self.reducer, self.equal = ranks, ranks.reducer(self.net), False

    def load_weights(self, path: str) -> None:
        """Copy a caffemodel into the training net and the test nets."""
        self.equal = False
        log.info(f"Finetuning from {path}")
        for net in [self.net] + self.test_nets:
            net.copy_from(path)

    def share_weights(self, net: Net) -> None:
        """Let `net` use the memory of the training net's parameters."""
        net.share_with(self.net)

    @property
    def iter(self) -> int:
        """Number of updates done."""
        return self._iter

    @property
    def lr(self) -> float:
        """Learning rate of the next update."""
        return policies.rate(self.proto, self.iter, self)

    @property
    def smoothed_loss(self):
        """Mean loss of the last average_loss iterations; on a GPU a tensor. Not in pycaffe."""
        return self._smoothed.value

    @property
    def mean_loss(self) -> float:
        """Mean loss over the iterations that the last step() did; NaN where it did none. Not in pycaffe."""
        done = self.iter - self._first
        return float(self._loss_sum) / done if done else float("nan")

    @property
    def gradient_norms(self) -> dict[str, float]:
        """{layer: L2 norm of its parameters' gradients} of the last iteration that step() did; {} without watch_gradients.

        As backward left them: before clipping, division by iter_size, and weight decay. Not in pycaffe.
        """
        if self._norms is None:
            return {}
        squares = dict(zip(self.net.learnable, self._norms.double().square().tolist()))
        return {
            name: math.sqrt(sum(squares.get(blob, 0.0) for blob in blobs)) for name, blobs in self.net.params.items()
        }

    @property
    def not_finite(self) -> str:
        """Name of the first layer whose parameters hold NaN or infinity; "" where none does. Not in pycaffe.

        They are looked at where they are: a GPU sends one number for each, not the weights.
        """
        found = [(name, torch.isfinite(blob.tensor().detach()).all())
                 for name, blobs in self.net.params.items() for blob in blobs]  # fmt: skip
        finite = torch.stack([whole for _, whole in found]).tolist() if found else []
        return next((name for (name, _), whole in zip(found, finite) if not whole), "")

    def add_callback(self, on_start: Any, on_gradients_ready: Callable[[], object] | None = None) -> None:
        """Call on_start() before each iteration and on_gradients_ready() between backward and update.

        One argument: an NCCL, or another object with these two methods. Raises TypeError for anything else.
        """
        if isinstance(on_start, NCCL):  # averages while backward runs, not after it
            self.train_with(on_start.ranks)
            return
        if on_gradients_ready is None and hasattr(on_start, "on_gradients_ready"):
            on_start, on_gradients_ready = on_start.on_start, on_start.on_gradients_ready
        if not (callable(on_start) and callable(on_gradients_ready)):
            raise TypeError("add_callback takes two functions, on_start and on_gradients_ready, or an NCCL")
        self.callbacks.append((on_start, on_gradients_ready))

    # ------------------------------------------------------------------------------------ training
    def step(self, iterations: int) -> None:
        """Train `iterations` iterations, whatever max_iter says; no snapshot at the end."""
        self._smoothed, self._loss_sum, self.stopped = reports.SmoothedLoss(self.proto.average_loss), 0.0, False
        if not self.equal:  # whatever was loaded before, each rank starts from rank 0's numbers
            self.ranks.broadcast(self)
            self.equal = True
        self._first = self.iter
        stop = self.iter + operator.index(iterations)
        while self.iter < stop:
            last = self.iter == stop - 1
            if not self._iteration(last):
                self.stopped = True
                break
        execution.flush(self.net)

    def _iteration(self, last: bool) -> bool:
        """One iteration; False when a stop was asked for."""
        p = self.proto
        self.net.clear_param_diffs()
        if p.test_interval and self.iter % p.test_interval == 0 and (self.iter > 0 or p.test_initialization):
            self.ranks.on_rank0(self.test_all)
            self.ranks.ask(self.requested)
            if self.ranks.answer(self.requested) == "stop":
                return False
        self.ranks.ask(self.requested)
        for on_start, _ in self.callbacks:
            on_start()
        display = bool(p.display) and self.iter % p.display == 0
        loss = self.forward_backward(keep_diffs=last and self.keep_diffs or bool(self.callbacks))
        self._loss_sum = self._loss_sum + loss
        self._smoothed.add(loss, self.iter - self._first)
        if display:
            reports.log_iteration(self.net, self.iter, p.display, self._speed, self.smoothed_loss, self.ranks)
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        if last and self.watch_gradients:
            self._norms = updates.diff_norms(self.net.learnable)
        # Between here and the next clearing of the diffs, they are seen only at the end of a call and in snapshots.
        seen = last and self.keep_diffs or bool(self.callbacks) or p.snapshot_diff or self.net.works_layerwise()
        self.apply_update(display, keep_diffs=seen)
        agreed = self.ranks.answer(self.requested)
        if p.snapshot and self.iter % p.snapshot == 0 or agreed == "snapshot":
            self.requested = None if self.requested == "snapshot" else self.requested
            self.ranks.on_rank0(self.snapshot)
        return agreed != "stop"

    def forward_backward(self, keep_diffs: bool):
        """iter_size sub-passes; gradients summed into the parameter diffs. Returns the mean weighted loss.

        On a GPU it is a tensor: reading the number would wait for the GPU in every iteration.
        """
        net, passes = self.net, max(1, self.proto.iter_size)
        total = 0.0
        for turn in range(passes):
            if net.works_layerwise():
                total += net._forward(0, len(net.built_layers) - 1)
                net._backward(len(net.built_layers) - 1, 0)
                continue
            whole = execution.AutogradPass(net, keep_diffs) if keep_diffs or self.compiled is None else self.compiled
            loss = whole.forward()
            if self.reducer and turn == passes - 1:
                self.reducer.arm()
            with self.ranks.collective():
                whole.backward()
            total += loss.double() if loss.is_cuda else float(loss)
        if self.reducer:
            with self.ranks.collective():
                self.reducer.finish()
        return total / passes

    def apply_update(self, display: bool = False, keep_diffs: bool = True) -> None:
        """Clip, normalize, regularize, update: Caffe's ApplyUpdate, iter += 1 included.

        The diffs are the updates afterwards; without keep_diffs they are undefined, which saves a pass over memory.
        """
        self.net.assume_written()
        with torch.no_grad():
            rate = self.lr
            if display:
                log.info(f"Iteration {self.iter}, lr = {number(rate)}")
            learnable, states = self.net.learnable, updates.RULES[self.type][1]
            updates.clip_gradients(learnable, self.proto.clip_gradients)
            for lr_mult, decay_mult, indices in self._groups:
                history = [[self.history[index + len(learnable) * k] for index in indices] for k in range(states)]
                blobs, decay = [learnable[index] for index in indices], self.proto.weight_decay * decay_mult
                updates.update_group(self, blobs, history, rate * lr_mult, decay, keep_diffs)
        self._iter += 1

    def solve(self, resume_file: Path | None = None) -> None:
        """Train to max_iter, testing, logging and saving as the solver says.

        Raises SolverError before the first iteration where the snapshot at the end (snapshot_after_train) has no place.
        """
        p = self.proto
        log.info(f"Solving {self.net.name}")
        log.info(f"Learning Rate Policy: {p.lr_policy}")
        self.requested = None
        if resume_file:
            log.info(f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        if mode.solver_rank() == 0 and p.snapshot_after_train:
            resume.check_writable(self)
        self.step(max(0, p.max_iter - self.iter))
        if p.snapshot_after_train and not (p.snapshot and self.iter % p.snapshot == 0):
            self.ranks.on_rank0(self.snapshot)
        if self.stopped:
            log.info("Optimization stopped early.")
            return
        if p.display and self.iter % p.display == 0:
            loss = self.net._forward(0, len(self.net.built_layers) - 1)
            self._smoothed.add(loss, self.iter - self._first)
            log.info(f"Iteration {self.iter}, loss = {number(*self.ranks.means([float(self.smoothed_loss)]))}")
        if p.test_interval and self.iter % p.test_interval == 0:
            self.ranks.on_rank0(self.test_all)
        log.info("Optimization Done.")

    # ------------------------------------------------------------------------------------ testing
    def test_all(self) -> None:
        """Test every test net; a requested stop ends it between batches."""
        for index in range(len(self.test_nets)):
            if self.requested == "stop":
                return
            self.test(index)

    def test(self, index: int) -> None:
        """Average the outputs of test net `index` over test_iter batches and log them."""
        p, net = self.proto, self.test_nets[index]
        log.info(f"Iteration {self.iter}, Testing net (#{index})")
        net.share_with(self.net)
        count, loss, sums = p.test_iter[index], 0.0, None
        shapes: dict = {}
        for _ in range(count):
            if self.requested == "snapshot":
                self.requested = None
                self.snapshot()
            if self.requested == "stop":
                log.info("Test interrupted.")
                return
            batch_loss = execution.forward_only(net)
            loss += float(batch_loss) if p.test_compute_loss else 0.0
            values = execution.output_values(net, shapes)
            sums = values if sums is None else sums + values
        if p.test_compute_loss:
            log.info(f"Test loss: {number(loss / count)}")
        values = (sums / count).tolist()
        execution.flush(net)
        reports.log_outputs(net, values, "Test")

    # ------------------------------------------------------------------------------------ snapshots
    def snapshot(self) -> None:
        """Write the weights and the solver state of this iteration under snapshot_prefix, and their record (see resume)."""
        self.background.wait()
        resume.write_snapshot(self)

    def snapshot_behind(self) -> None:
        """As snapshot(), but written while training continues, from a copy in the host's memory. Not in pycaffe.

        `background.busy` tells whether it is still being written, `background.wait()` returns when it is whole, and raises
        what went wrong, as the next snapshot does. Where the host has no room for the copy, it is written at once.
        """
        self.background.wait()
        copies = 1 + updates.RULES[self.type][1] + bool(self.proto.snapshot_diff)
        there = memory.available()
        if there is not None and 4 * copies * sum(blob.count for blob in self.net.learnable) > there:
            self.snapshot()
        else:
            self.background.start(resume.taken(self, copied=True))

    def restore(self, path: Path) -> None:
        """Resume from a .solverstate (or .solverstate.h5). Raises WeightsError, SolverError where it does not fit."""
        resume.restore(self, os.fspath(path))

    def resume_from(self, state, record):
        """Take iteration, weights and history of a SolverState that is known to fit, and its record or None."""
        self.equal = False
        self.net.copy_from(state.learned_net)
        log.info("SGDSolver: restoring history")
        for array, tensor in zip(state.history, self.history):
            tensor.copy_(torch.from_numpy(np.array(array, np.float32).reshape(tensor.shape)))
        self.continue_at(state.iter, state.current_step, record)

    def continue_at(self, iteration: int, current_step: int, record=None):
        """Set the number of updates done, and of the steps of lr_policy multistep."""
        self._iter, self.current_step, self.resumed = iteration, current_step, record


class NesterovSolver(SGDSolver):
    type = "Nesterov"


class AdaGradSolver(SGDSolver):
    type = "AdaGrad"


class RMSPropSolver(SGDSolver):
    type = "RMSProp"


class AdaDeltaSolver(SGDSolver):
    type = "AdaDelta"


class AdamSolver(SGDSolver):
    type = "Adam"


_CLASSES = (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
SOLVERS = {cls.type: cls for cls in _CLASSES}


def get_solver(solver_file: Path) -> SGDSolver:
    """Solver of the class that the file's `type` names. Raises SolverError for an unknown type."""
    from torchcaffe.formats.files import read_solver

    if not os.path.isfile(solver_file):
        raise CaffeError(f"Could not open file {solver_file}")
    return create_solver(read_solver(solver_file), solver_file)


def create_solver(param: Any, solver_file: Path) -> SGDSolver:
    """Solver of a SolverParameter that was read from `solver_file`. Raises SolverError for an unknown type."""
    if param.type not in SOLVERS:
        raise SolverError(f'{solver_file}: unknown solver type "{param.type}"; {names.suggestion(param.type, SOLVERS, "known:")}')
    return SOLVERS[param.type](solver_file, param)
