"""caffe.NCCL's names, so that pycaffe training scripts run with one process; more need torchrun."""

from __future__ import annotations

from torchcaffe import mode
from torchcaffe.errors import SolverError


class NCCL:
    """NCCL(solver, uid): averages gradients over solver_count() processes; with one, there is nothing to do."""

    def __init__(self, solver, uid):
        if mode.solver_count() > 1:
            raise SolverError(
                f"this engine does not reduce over the {mode.solver_count()} solvers of set_solver_count; "
                "leave it at 1 to train on one GPU"
            )
        self.solver, self.uid = solver, uid

    @staticmethod
    def new_uid() -> str:
        """A name for a group of processes."""
        import secrets

        return secrets.token_hex(64)

    def bcast(self):
        """Give every process the first one's weights."""

    def on_start(self):
        """Called by the solver before each iteration."""

    def on_gradients_ready(self):
        """Called by the solver between backward and update."""
