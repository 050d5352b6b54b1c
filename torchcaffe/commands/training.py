"""`train`: Caffe's training command with its flags, log lines and signals.

    python -m torchcaffe train -solver FILE -gpu 0,1                          # as Caffe: batch_size a GPU
    torchrun --nproc-per-node 2 -m torchcaffe train -solver FILE -gpu 0,1     # batch_size is that of both together
"""

from __future__ import annotations

import contextlib
import os
import signal

from torchcaffe.core import determinism, log, mode
from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError

_EFFECTS = ("stop", "snapshot", "none")
_COMPILE = {"auto": None, "1": True, "0": False}
_PER_GPU = "TORCHCAFFE_BATCH_PER_GPU"  # set for the ranks that -gpu 0,1 starts


def train(flags):
    """Train a solver from scratch, from weights or from a snapshot."""
    if not flags.solver:
        raise UsageError("Need a solver definition to train: -solver FILE")
    if flags.snapshot and flags.weights:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    effects = {signal.SIGINT: flags.sigint_effect, getattr(signal, "SIGHUP", None): flags.sighup_effect}
    for effect in effects.values():
        if effect not in _EFFECTS:
            raise UsageError(f'Invalid signal effect "{effect}" was specified; it is one of {", ".join(_EFFECTS)}')
    if flags.precision not in mode.PRECISIONS:
        raise UsageError(f'-precision is one of {", ".join(mode.PRECISIONS)}, not "{flags.precision}"')
    if flags.compile not in _COMPILE:
        raise UsageError(f'-compile is one of {", ".join(_COMPILE)}, not "{flags.compile}"')
    from torchcaffe.core import compiled
    from torchcaffe.formats.files import read_solver
    from torchcaffe.solvers.solver import create_solver

    param = read_solver(flags.solver)
    param.train_state.level = flags.level
    param.train_state.stage.extend(devices.stages(flags.stage))
    gpus, flag = devices.numbers(flags.gpu), ""
    if not flags.gpu and param.HasField("solver_mode") and param.solver_mode == param.GPU:
        gpus, flag = [param.device_id if param.HasField("device_id") else 0], devices.IN_SOLVER
    from torchcaffe.distributed import parallel

    if flags.deterministic:
        determinism.set_deterministic()
    found = parallel.Environment.read()
    if found is None and len(gpus) > 1:
        return _one_process_each(flags, gpus, [number for number in effects if number is not None])
    devices.use(gpus, training=True, rank=found.local_rank if found else 0, flag=flag)
    if found and found.count > 1:
        parallel.join(split=_PER_GPU not in os.environ)
    if flags.snapshot or flags.weights:
        del param.weights[:]
    param.weights.extend([flags.weights] if flags.weights else [])
    mode.set_precision(flags.precision)
    compiled.set_compile(_COMPILE[flags.compile] if flags.compile != "auto" else bool(gpus))
    solver = create_solver(param, flags.solver)
    solver.keep_diffs = False  # nobody can look at them here
    with _signals(solver, effects):
        if flags.snapshot:
            log.info(f"Resuming from {flags.snapshot}")
            solver.restore(flags.snapshot)
        log.info("Starting Optimization")
        solver.solve()
    log.info("Optimization Done.")
    parallel.leave()


def _one_process_each(flags, gpus, signals) -> int:
    """Train as Caffe does on several GPUs, each with batches of batch_size; returns the exit status."""
    from torchcaffe.distributed.launch import launch

    for number in gpus:
        devices.check(number)
    given = [f"-{name}={value}" for name, value in vars(flags).items() if value]  # what is left out is the default
    return launch(["-m", "torchcaffe", "train", *given], len(gpus), signals, {_PER_GPU: "1"})


@contextlib.contextmanager
def _signals(solver, effects):
    """While training, signals set the solver's request, which it checks after each update and each test batch."""

    def ask(number, frame):
        if effects[number] != "none" and solver.requested != "stop":
            solver.requested = effects[number]

    before = {number: signal.signal(number, ask) for number in effects if number is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
