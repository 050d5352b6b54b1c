"""Several processes train one net, on one machine or many: torch.distributed under Caffe's meaning.

    parallel.join()                       # in each process that torchrun has started, before nets are built
    caffe.get_solver("solver.prototxt").solve()
    parallel.leave()

Each process (a rank) computes on its part of every batch (torchcaffe/distributed/shares.py), the gradient is the mean over ranks
(torchcaffe/distributed/reducer.py), and every rank applies the same update. Rank 0 alone tests, logs and saves. A solver asks
`current()` for its ranks when it is made; without `join`, that is `SingleProcess`.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import timedelta
from typing import NamedTuple, Optional

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensor

from torchcaffe.core import mode, rng
from torchcaffe.solvers import resume
from torchcaffe.core.errors import CaffeError
from torchcaffe.distributed.reducer import Reducer

TIMEOUT = timedelta(minutes=10)  # of one collective; on_rank0 waits without limit
REQUESTS = (None, "snapshot", "stop")  # what a solver is asked for, the most demanding last


class LostRankError(CaffeError):
    """Another rank has ended or cannot be reached."""


class Environment(NamedTuple):
    """The variables that torchrun sets for each process."""

    rank: int
    count: int
    local_rank: int

    @staticmethod
    def read() -> Optional["Environment"]:
        """None outside torchrun. Raises CaffeError where only some of the variables are set."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if "RANK" not in os.environ:
            return None
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise CaffeError(f"RANK is set, but not {', '.join(missing)}: start the processes with torchrun")
        return Environment(*(int(os.environ[name]) for name in names[:3]))


class SingleProcess:
    """Training in one process: every operation over ranks is trivial."""

    count = 1

    def reducer(self, net):
        return None

    def collective(self):
        """Context for communication with the other ranks: a lost connection becomes LostRankError."""
        return contextlib.nullcontext()

    def broadcast(self, solver):
        """Copy rank 0's weights, history and iteration to every rank."""

    def on_rank0(self, work):
        """Call `work` on rank 0 only; the other ranks wait until it has returned."""
        if mode.solver_rank() == 0:
            work()

    def ask(self, requested):
        """Start an asynchronous all-reduce of what each rank's solver is asked for: one of REQUESTS."""

    def answer(self, requested):
        """Wait for the result of ask(): the most demanding request of any rank. One process: its own request."""
        return requested

    def means(self, values):
        """Means over the ranks of a list of numbers."""
        return values

    def total(self, tensor):
        """Sum over the ranks."""
        return tensor


class RankGroup(SingleProcess):
    """The processes that train one net together, seen from one of them."""

    def __init__(self, rank: int, count: int, store):
        """`store`: torch.distributed's, the same for all ranks and used for nothing else."""
        device = mode.device()
        self.rank, self.count, self.store = rank, count, store
        self.turns = 0  # calls of on_rank0()
        group = {"store": store, "rank": rank, "world_size": count, "timeout": TIMEOUT}
        with self.collective():
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device, **group)
                self.control = dist.new_group(backend="gloo", timeout=TIMEOUT)
            else:
                dist.init_process_group("gloo", **group)
                self.control = dist.group.WORLD

    @contextlib.contextmanager
    def collective(self):
        try:
            yield
        except RuntimeError as problem:
            if isinstance(problem, CaffeError):
                raise
            detail = re.sub(r"^\[\S+:\d+\] |\. This is typically.*", "", (str(problem).strip() or "?").splitlines()[0])
            raise LostRankError(
                f"another of the {self.count} ranks has ended or cannot be reached ({detail}); "
                "its own last line says why"
            ) from problem

    def reducer(self, net):
        return Reducer(net.learnable, self.count)

    def broadcast(self, solver):
        numbers = torch.tensor([solver.iter, solver.current_step])
        with self.collective(), torch.no_grad():
            dist.broadcast(numbers, 0, group=self.control)
            for blob in solver.net.learnable:
                self._broadcast(blob.tensor())
                blob.data_memory.written()
            for tensor in solver.history:
                self._broadcast(tensor)
            records = [solver.resumed]
            dist.broadcast_object_list(records, 0, group=self.control)
        solver.continue_at(*numbers.tolist())
        if self.rank and records[0] is not None and mode.share().split:  # all draw rank 0's numbers
            resume.apply_positions(solver.net, records[0])

    @staticmethod
    def _broadcast(tensor):
        plain = tensor.detach().contiguous()
        dist.broadcast(plain, 0)
        if plain.data_ptr() != tensor.data_ptr():
            tensor.copy_(plain)

    def on_rank0(self, work):
        self.turns += 1
        if self.rank == 0:
            work()
        with self.collective():
            if self.rank == 0:
                self.store.set(f"on_rank0/{self.turns}", "")
            else:
                wait_for(self.store, f"on_rank0/{self.turns}")

    def ask(self, requested):
        self.request = torch.tensor(REQUESTS.index(requested))
        with self.collective():
            self.pending = dist.all_reduce(self.request, dist.ReduceOp.MAX, group=self.control, async_op=True)

    def answer(self, requested):
        with self.collective():
            self.pending.wait()
        return REQUESTS[int(self.request)]

    def means(self, values):
        return (self._sum(torch.tensor(values, dtype=torch.float64), self.control) / self.count).tolist()

    def largest(self, values):
        """The largest over the ranks of each of a list of integers."""
        values = torch.tensor(values)
        with self.collective():
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        return values.tolist()

    def total(self, tensor):
        if isinstance(tensor, FakeTensor):  # in a pass that is being compiled (core/compiled.py): as an operation of its graph
            from torch.distributed import _functional_collectives as functional

            return functional.wait_tensor(functional.all_reduce(tensor, "sum", dist.group.WORLD))
        return self._sum(tensor.clone(), None)

    def _sum(self, tensor, group):
        with self.collective():
            dist.all_reduce(tensor, group=group)
        return tensor


_current = SingleProcess()


def current() -> SingleProcess:
    """The group of ranks that this process trains in."""
    return _current


def join(name: str = "train", split: bool = True) -> RankGroup:
    """Join the processes that torchrun started; nets built from now on train on this rank's part of each batch.

    Args:
        name: unique per training, where the same processes run several in sequence.
        split: batch_size counts the items of all ranks; False: of each rank, as with Caffe's several GPUs.
    Raises CaffeError outside torchrun, LostRankError where other ranks do not join in time.
    """
    found = Environment.read()
    if found is None:
        raise CaffeError("this process was not started as one of several: start it with torchrun")
    return start(found.rank, found.count, dist.PrefixStore(name, connect()), split)


def start(rank: int, count: int, store, split: bool) -> RankGroup:
    """As `join`, with the ranks and the store given. With `split`, all ranks continue rank 0's random numbers."""
    global _current
    _current = RankGroup(rank, count, store)
    mode.set_solver_count(count)
    mode.set_solver_rank(rank)
    mode.set_split_batch(split)
    if split:
        numbers = [rng.generator().state_dict(), torch.initial_seed()]
        with _current.collective():
            dist.broadcast_object_list(numbers, 0, group=_current.control)
        rng.generator().load_state_dict(numbers[0])
        torch.manual_seed(numbers[1])
    return _current


def leave():
    """Leave the group: this process trains by itself again."""
    global _current
    if isinstance(_current, RankGroup):
        dist.destroy_process_group()
    _current = SingleProcess()
    mode.set_solver_count(1)
    mode.set_solver_rank(0)
    mode.set_split_batch(False)


def connect(timeout: timedelta = TIMEOUT):
    """A connection to the store at MASTER_ADDR:MASTER_PORT: torchrun's own, or else rank 0's. Raises LostRankError."""
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    ours = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" and int(os.environ["RANK"]) == 0
    try:
        return dist.TCPStore(host, port, is_master=ours, timeout=timeout)
    except RuntimeError as problem:
        raise LostRankError(f"cannot connect to MASTER_ADDR {host}, MASTER_PORT {port}: {problem}") from None


def wait_for(store, key: str) -> bytes:
    """Wait without limit until `key` is set; return its value. Raises RuntimeError where the store is gone."""
    while True:
        try:
            store.wait([key], timedelta(seconds=10))
            return store.get(key)
        except dist.DistNetworkError:
            raise
        except dist.DistStoreError:  # not yet
            continue
