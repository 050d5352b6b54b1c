"""`train`: Caffe's training command with its flags, log lines and signals."""

from __future__ import annotations

import contextlib
import signal

from torchcaffe import log
from torchcaffe.commands import devices
from torchcaffe.commands.flags import UsageError

_EFFECTS = ("stop", "snapshot", "none")


def train(flags):
    """Train as a solver says, from scratch, from weights or from a snapshot."""
    if not flags.solver:
        raise UsageError("Need a solver definition to train: -solver FILE")
    if flags.snapshot and flags.weights:
        raise UsageError("Give a snapshot to resume training or weights to finetune but not both.")
    effects = {signal.SIGINT: flags.sigint_effect, getattr(signal, "SIGHUP", None): flags.sighup_effect}
    for effect in effects.values():
        if effect not in _EFFECTS:
            raise UsageError(f'Invalid signal effect "{effect}" was specified; it is one of {", ".join(_EFFECTS)}')
    from torchcaffe.files import read_solver
    from torchcaffe.solver import create_solver

    param = read_solver(flags.solver)
    param.train_state.level = flags.level
    param.train_state.stage.extend(devices.stages(flags.stage))
    gpus = devices.numbers(flags.gpu)
    if not flags.gpu and param.HasField("solver_mode") and param.solver_mode == param.GPU:
        gpus = [param.device_id if param.HasField("device_id") else 0]
    devices.use(gpus, training=True)
    if flags.snapshot or flags.weights:
        del param.weights[:]
    param.weights.extend([flags.weights] if flags.weights else [])
    solver = create_solver(param, flags.solver)
    solver.keep_diffs = False  # nobody can look at them here
    with _signals(solver, effects):
        if flags.snapshot:
            log.info(f"Resuming from {flags.snapshot}")
            solver.restore(flags.snapshot)
        log.info("Starting Optimization")
        solver.solve()
    log.info("Optimization Done.")


@contextlib.contextmanager
def _signals(solver, effects):
    """While training, signals ask the solver for their effect; it looks after each update and each test batch."""

    def ask(number, frame):
        if effects[number] != "none" and solver.requested != "stop":
            solver.requested = effects[number]

    before = {number: signal.signal(number, ask) for number in effects if number is not None}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
