"""caffe.NCCL: pycaffe's way to train with several processes, one a GPU, over torch.distributed.

As in Caffe's own example, every process sets solver_count and solver_rank, makes its solver and an NCCL of the `uid`
that all share, and calls `bcast` and `solver.add_callback(nccl)`. Each trains on batches of the net's batch_size; the
gradients are averaged, over NCCL on GPUs and over gloo on the CPU.
"""

from __future__ import annotations

from typing import Any

import torch.distributed as dist

from torchcaffe.core import mode
from torchcaffe.distributed import parallel
from torchcaffe.core.errors import SolverError

_stores = []  # of the uids that this process has given out; the training ends with them
ENVIRONMENT = "env://"  # the uid where torchrun has started the processes


class NCCL:
    """NCCL(solver, uid): averages gradients over solver_count() processes; no effect with one process."""

    def __init__(self, solver: Any, uid: str) -> None:
        self.solver, self.uid, self.ranks = solver, uid, parallel.SingleProcess()
        if mode.solver_count() > 1:
            self.ranks = parallel.start(mode.solver_rank(), mode.solver_count(), _store(uid), split=False)

    @staticmethod
    def new_uid() -> str:
        """A name for a group of processes. Call it once, in the process that starts the others, which must stay alive.

        Under torchrun it is the same in all processes, on all machines.
        """
        if parallel.Environment.read() is not None:
            return ENVIRONMENT
        _stores.append(dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
        return f"127.0.0.1:{_stores[-1].port}/{len(_stores)}"

    def bcast(self) -> None:
        """Copy the first process's weights to all processes."""
        self.ranks.broadcast(self.solver)

    def on_start(self) -> None:
        """Called by Caffe's solver before each iteration; nothing is left to do here."""

    def on_gradients_ready(self) -> None:
        """Called by Caffe's solver between backward and update; ours has the averages then."""


def _store(uid):
    if uid == ENVIRONMENT:
        return dist.PrefixStore("nccl", parallel.connect())
    address, _, name = str(uid).partition("/")
    host, _, port = address.partition(":")
    if not (name and port.isdigit()):
        raise SolverError(f"{uid!r} is not a uid: call caffe.NCCL.new_uid() once, and pass its result to all processes")
    try:
        store = dist.TCPStore(host, int(port), is_master=False, timeout=parallel.TIMEOUT)
    except RuntimeError as problem:
        raise SolverError(
            f"cannot connect to uid {uid}: the process that called new_uid() has ended ({problem})"
        ) from None
    return dist.PrefixStore(name, store)
