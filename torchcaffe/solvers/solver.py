"""Solvers with pycaffe's interface: one iteration is Caffe's, in Caffe's order, with Caffe's log lines."""

from __future__ import annotations

import operator
import os

import torch

from torchcaffe.core import execution, log, memory, mode, rng
from torchcaffe.distributed import parallel
from torchcaffe.solvers import policies, updates
from torchcaffe.core.errors import CaffeError, SolverError
from torchcaffe.core.log import number
from torchcaffe.distributed.nccl import NCCL
from torchcaffe.core.net import Net
from torchcaffe.solvers.snapshots import SolverFiles
from torchcaffe.solvers.nets import build_nets
from torchcaffe.solvers.reports import SolverReports
from torchcaffe.solvers.gradients import SolverUpdates
from torchcaffe.core.vectors import NetVec, SetOnce


class SolverParam:
    """What pycaffe shows as `solver.param`."""

    def __init__(self, proto):
        self._proto = proto

    max_iter = property(lambda self: self._proto.max_iter)
    display = property(lambda self: self._proto.display)
    layer_wise_reduce = property(lambda self: self._proto.layer_wise_reduce)

    @property
    def base_lr(self):
        return self._proto.base_lr

    @base_lr.setter
    def base_lr(self, value):
        self._proto.base_lr = value


class SGDSolver(SetOnce, SolverFiles, SolverReports, SolverUpdates):
    """SGDSolver(solver_file). Raises RuntimeError for a missing file, SolverError/NetError for what Caffe refuses.

    `net`, `test_nets`, `iter`, `lr`, `step(n)`, `solve()`, `snapshot()`, `restore()` as in pycaffe.
    """

    type = "SGD"
    _set_once = frozenset(("net", "test_nets", "param"))

    def __init__(self, solver_file, parsed=None):
        from torchcaffe.formats.files import read_solver

        if parsed is None:
            if not os.path.isfile(solver_file):
                raise CaffeError(f"Could not open file {solver_file}")
            parsed = read_solver(solver_file)
        self.proto = parsed
        self.param = SolverParam(parsed)
        self._iter = self._first = 0  # updates done, and done before the last step()
        self.current_step = 0
        self.callbacks = []
        self.keep_diffs = True  # after step(), blobs hold their gradients as in Caffe; False saves time and memory
        self.watch_gradients = False  # True: `gradient_norms` are taken in the last iteration of each step()
        self._norms = None  # of the parameters' gradients
        self.resumed = None  # record of the snapshot that training goes on from (see resume)
        self.requested = None  # "stop" or "snapshot", asked for by a signal
        try:
            updates.check(self.type, parsed)
            policies.check(parsed)
        except SolverError as problem:
            raise SolverError(f"{solver_file}: {problem}") from None
        log.info(f"Initializing solver from parameters: \n{str(parsed).rstrip()}")
        if parsed.random_seed >= 0:
            rng.set_random_seed(parsed.random_seed + (0 if mode.share().split else mode.solver_rank()))
        if mode.solver_rank() == 0 and parsed.snapshot:
            self.check_snapshots()
        self.net, test_nets = build_nets(parsed, Net)
        self.test_nets = NetVec(test_nets)
        for path in (name for names in parsed.weights for name in names.split(",")):
            self.load_weights(path.strip())
        count = updates.RULES[self.type][1]
        learnable = self.net.learnable
        needed = 4 * count * sum(blob.count for blob in learnable)
        memory.require(needed, f"{solver_file}: what {self.type} remembers of each parameter", SolverError, self.net.device)
        self.history = [torch.zeros(b.dims, device=self.net.device) for _ in range(count) for b in learnable]
        self.losses = []
        self.smoothed_loss = 0.0
        self._loss_sum = 0.0  # of the iterations of the last step(); on a GPU a tensor there
        self._last_display = None
        self.train_with(parallel.current())
        log.info("Solver scaffolding done.")

    def train_with(self, ranks):
        """Average gradients over `ranks` (of parallel), and share with them what only one of them does."""
        self.ranks, self.reducer, self.equal = ranks, ranks.reducer(self.net), False

    def load_weights(self, path):
        """Copy a caffemodel into the training net and the test nets."""
        self.equal = False
        log.info(f"Finetuning from {path}")
        for net in [self.net] + self.test_nets:
            net.copy_from(path)

    @property
    def iter(self) -> int:
        """Number of updates done."""
        return self._iter

    @property
    def mean_loss(self) -> float:
        """Mean loss over the iterations that the last step() did; NaN where it did none. Not in pycaffe."""
        done = self.iter - self._first
        return float(self._loss_sum) / done if done else float("nan")

    # ------------------------------------------------------------------------------------ learning rate
    @property
    def lr(self) -> float:
        return policies.rate(self.proto, self.iter, self)

    # ------------------------------------------------------------------------------------ training
    def step(self, iterations: int):
        """Train `iterations` iterations, whatever max_iter says; no snapshot at the end."""
        self.losses, self.smoothed_loss, self._loss_sum, self.stopped = [], 0.0, 0.0, False
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
        execution.settle(self.net)

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
        self.smooth(loss)
        if display:
            self.log_iteration()
        for _, on_gradients_ready in self.callbacks:
            on_gradients_ready()
        if last and self.watch_gradients:
            self._norms = self.diff_norms()
        # Between here and the next clearing of the diffs, only the end of a call and snapshots let anyone see them.
        seen = last and self.keep_diffs or bool(self.callbacks) or p.snapshot_diff or self.net.works_layerwise()
        self.apply_update(display, keep_diffs=seen)
        agreed = self.ranks.answer(self.requested)
        if p.snapshot and self.iter % p.snapshot == 0 or agreed == "snapshot":
            self.requested = None if self.requested == "snapshot" else self.requested
            self.ranks.on_rank0(self.snapshot)
        return agreed != "stop"

    def forward_backward(self, keep_diffs: bool):
        """iter_size sub-passes; gradients summed into the parameter diffs. Returns the mean weighted loss.

        On a GPU it is a tensor: to ask for the number would be to wait for it in every iteration.
        """
        net, passes = self.net, max(1, self.proto.iter_size)
        total = 0.0
        for turn in range(passes):
            if net.works_layerwise():
                total += net._forward(0, len(net.built_layers) - 1)
                net._backward(len(net.built_layers) - 1, 0)
                continue
            sweep = execution.Sweep(net, keep_diffs)
            loss = sweep.forward()
            if self.reducer and turn == passes - 1:
                self.reducer.arm()
            with self.ranks.collective():
                sweep.backward()
            total += loss.double() if loss.is_cuda else float(loss)
        if self.reducer:
            with self.ranks.collective():
                self.reducer.finish()
        return total / passes

    def smooth(self, loss):
        """Mean of the last average_loss losses, as Caffe keeps it."""
        size = max(1, self.proto.average_loss)
        if len(self.losses) < size:
            self.losses.append(loss)
            count = len(self.losses)
            self.smoothed_loss = (self.smoothed_loss * (count - 1) + loss) / count
        else:
            slot = (self.iter - self._first) % size
            self.smoothed_loss = self.smoothed_loss + (loss - self.losses[slot]) / size
            self.losses[slot] = loss

    def add_callback(self, on_start, on_gradients_ready=None):
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

    def solve(self, resume_file=None):
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
            self.check_snapshots()
        self.step(max(0, p.max_iter - self.iter))
        if p.snapshot_after_train and not (p.snapshot and self.iter % p.snapshot == 0):
            self.ranks.on_rank0(self.snapshot)
        if self.stopped:
            log.info("Optimization stopped early.")
            return
        if p.display and self.iter % p.display == 0:
            loss = self.net._forward(0, len(self.net.built_layers) - 1)
            self.smooth(loss)
            log.info(f"Iteration {self.iter}, loss = {number(*self.ranks.means([float(self.smoothed_loss)]))}")
        if p.test_interval and self.iter % p.test_interval == 0:
            self.ranks.on_rank0(self.test_all)
        log.info("Optimization Done.")


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


def get_solver(solver_file):
    """Solver of the class that the file's `type` names. Raises SolverError for an unknown type."""
    from torchcaffe.formats.files import read_solver

    if not os.path.isfile(solver_file):
        raise CaffeError(f"Could not open file {solver_file}")
    return create_solver(read_solver(solver_file), solver_file)


def create_solver(param, solver_file):
    """Solver of a SolverParameter that was read from `solver_file`. Raises SolverError for an unknown type."""
    if param.type not in SOLVERS:
        raise SolverError(f'{solver_file}: unknown solver type "{param.type}"; known: {", ".join(SOLVERS)}')
    return SOLVERS[param.type](solver_file, param)
