"""Several processes train one net, on one machine or many: torch.distributed under Caffe's meaning.

    parallel.join()                       # in each process that torchrun has started, before nets are built
    caffe.get_solver("solver.prototxt").solve()
    parallel.leave()

Each process (a rank) computes on its part of every batch (torchcaffe/distributed/shares.py), the gradient is the mean over ranks
(torchcaffe/distributed/reducer.py), and every rank applies the same update. Rank 0 alone tests, logs and saves. A solver asks
`current()` for its ranks when it is made; `Alone` answers where there is one process.
"""

from __future__ import annotations

import contextlib
import os
import re
from datetime import timedelta
from typing import NamedTuple, Optional

import torch
import torch.distributed as dist

from torchcaffe.core import mode, rng
from torchcaffe.solvers import resume
from torchcaffe.core.errors import CaffeError
from torchcaffe.distributed.reducer import Reducer

TIMEOUT = timedelta(minutes=10)  # for one collective; waiting for rank 0's own work has no limit
REQUESTS = (None, "snapshot", "stop")  # what a solver is asked for, the most demanding last


class LostRankError(CaffeError):
    """Another rank has ended or cannot be reached."""


class Environment(NamedTuple):
    """What torchrun tells a process about itself."""

    rank: int
    count: int
    local_rank: int

    @staticmethod
    def read() -> Optional["Environment"]:
        """None where this process was not started as one of several. Raises CaffeError for half of it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        if "RANK" not in os.environ:
            return None
        missing = [name for name in names if name not in os.environ]
        if missing:
            raise CaffeError(f"RANK is set, but not {', '.join(missing)}: start the processes with torchrun")
        return Environment(*(int(os.environ[name]) for name in names[:3]))


class Alone:
    """One process: nobody to share with or to wait for."""

    count = 1

    def reducer(self, net):
        return None

    def reaching(self):
        """Around what needs the other ranks: a lost connection becomes LostRankError."""
        return contextlib.nullcontext()

    def equalize(self, solver):
        """Give every rank rank 0's weights, history and iteration."""

    def alone(self, work):
        """Call `work` on rank 0; the others wait until it has returned."""
        if mode.solver_rank() == 0:
            work()

    def ask(self, requested):
        """Begin to agree on what the solvers of all ranks are asked for: one of REQUESTS."""

    def answer(self, requested):
        """What was agreed on; alone: what is asked for by now."""
        return requested

    def means(self, values):
        """Means over the ranks of a list of numbers."""
        return values

    def total(self, tensor):
        """Sum over the ranks."""
        return tensor


class Ranks(Alone):
    """The processes that train together, as one of them sees them."""

    def __init__(self, rank: int, count: int, store):
        """`store`: torch.distributed's, the same for all ranks and used for nothing else."""
        device = mode.device()
        self.rank, self.count, self.store = rank, count, store
        self.turns = 0  # of alone()
        group = {"store": store, "rank": rank, "world_size": count, "timeout": TIMEOUT}
        with self.reaching():
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device, **group)
                self.control = dist.new_group(backend="gloo", timeout=TIMEOUT)
            else:
                dist.init_process_group("gloo", **group)
                self.control = dist.group.WORLD

    @contextlib.contextmanager
    def reaching(self):
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

    def equalize(self, solver):
        numbers = torch.tensor([solver.iter, solver.current_step])
        with self.reaching(), torch.no_grad():
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

    def alone(self, work):
        self.turns += 1
        if self.rank == 0:
            work()
        with self.reaching():
            if self.rank == 0:
                self.store.set(f"alone/{self.turns}", "")
            else:
                wait_for(self.store, f"alone/{self.turns}")

    def ask(self, requested):
        self.question = torch.tensor(REQUESTS.index(requested))
        with self.reaching():
            self.asked = dist.all_reduce(self.question, dist.ReduceOp.MAX, group=self.control, async_op=True)

    def answer(self, requested):
        with self.reaching():
            self.asked.wait()
        return REQUESTS[int(self.question)]

    def means(self, values):
        return (self._sum(torch.tensor(values, dtype=torch.float64), self.control) / self.count).tolist()

    def largest(self, values):
        """The largest over the ranks of each of a list of integers."""
        values = torch.tensor(values)
        with self.reaching():
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self.control)
        return values.tolist()

    def total(self, tensor):
        return self._sum(tensor.clone(), None)

    def _sum(self, tensor, group):
        with self.reaching():
            dist.all_reduce(tensor, group=group)
        return tensor


_current = Alone()


def current() -> Alone:
    """The ranks that this process trains with."""
    return _current


def join(name: str = "train", split: bool = True) -> Ranks:
    """Train with the processes that torchrun started together with this one; nets built from now on take their share.

    Args:
        name: of this training among those that the same processes do one after the other.
        split: batch_size is that of all ranks together; False: each rank's own, as Caffe has it for several GPUs.
    Raises CaffeError outside torchrun, LostRankError where the others do not come.
    """
    found = Environment.read()
    if found is None:
        raise CaffeError("this process was not started as one of several: start it with torchrun")
    return start(found.rank, found.count, dist.PrefixStore(name, connect()), split)


def start(rank: int, count: int, store, split: bool) -> Ranks:
    """As `join`, with the ranks and the store given. All ranks go on from rank 0's random numbers where they split."""
    global _current
    _current = Ranks(rank, count, store)
    mode.set_solver_count(count)
    mode.set_solver_rank(rank)
    mode.set_split_batch(split)
    if split:
        numbers = [rng.generator().state_dict(), torch.initial_seed()]
        with _current.reaching():
            dist.broadcast_object_list(numbers, 0, group=_current.control)
        rng.generator().load_state_dict(numbers[0])
        torch.manual_seed(numbers[1])
    return _current


def leave():
    """Go on alone."""
    global _current
    if isinstance(_current, Ranks):
        dist.destroy_process_group()
    _current = Alone()
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
        raise LostRankError(f"nobody answers at MASTER_ADDR {host}, MASTER_PORT {port}: {problem}") from None


def wait_for(store, key: str) -> bytes:
    """Value of `key` once somebody has set it, however long that takes. Raises RuntimeError where the store is gone."""
    while True:
        try:
            store.wait([key], timedelta(seconds=10))
            return store.get(key)
        except dist.DistNetworkError:
            raise
        except dist.DistStoreError:  # not yet
            continue
