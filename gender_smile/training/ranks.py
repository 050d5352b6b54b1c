"""A step trained by several processes: torchrun starts tools/train.py in each, and rank 0's leads the others.

    python tools/train.py --step 2 --gpus 4                                  # starts torchrun on itself
    torchrun --nproc-per-node 4 tools/train.py --step 2 --gpus 4             # the same; docs/distributed.md: machines

Rank 0's tools/train.py works as it does alone, and publishes each job in torchrun's store; every other rank follows,
with a process of solve.py for each job. Rank 0's files that a job needs travel with it, so a machine needs only the
project and the LMDBs. The first failure, of any rank, is stored there too, and ends all of them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import timedelta
from typing import Optional

import recipe
from gender_smile.training.chain import ChainError
from common.command import STOP_SIGNALS, forward_signals
from gender_smile.training.protocol import STOPPED, Failed

NO_MORE = 3  # exit status of a follower's gender_smile/training/solve.py: rank 0 has no more jobs
FAILED, ENDED = "failed", "ended"  # keys in the store
PATIENCE = 30.0  # seconds to wait for another rank's report of a failure, and for rank 0 to act on ours


def count(options) -> int:
    """Processes that the options request on this machine. Raises ChainError where torchrun has started another number."""
    requested = options.gpus or options.processes
    here = os.environ.get("LOCAL_WORLD_SIZE")
    if "RANK" not in os.environ:
        return requested or 1
    if int(os.environ["WORLD_SIZE"]) > 1 and (requested is None or requested != int(here or 0)):
        raise ChainError(f"torchrun started {here} processes on this machine: say what they compute on, --gpus {here} "
                         f"(GPUs 0 to {int(here or 1) - 1}) or --processes {here} (the CPU)")
    return int(os.environ["WORLD_SIZE"])


def launch(arguments, options) -> int:
    """Run tools/train.py with `arguments` in several processes on this machine; return the exit status."""
    import torch

    from torchcaffe.distributed.launch import launch as start

    if options.gpus and options.gpus > torch.cuda.device_count():
        raise ChainError(f"GPUS={options.gpus}: PyTorch can use {torch.cuda.device_count()} GPUs of this machine; "
                         "PROCESSES= trains on the CPU")
    return start([recipe.absolute("tools/train.py"), *arguments], options.gpus or options.processes,
                 (*STOP_SIGNALS, signal.SIGHUP))


class Leader:
    """Rank 0's jobs for the others. Closed when there is nothing more to do, with the reason if it failed."""

    def __init__(self, count: int, gpus: bool):
        self.count, self.gpus, self.turn = count, gpus, 0
        self.store = _store()

    def __str__(self):
        return f"{self.count} {'GPUs' if self.gpus else 'processes'}"

    def check(self, row, net):
        """Raise ChainError where a training batch cannot be split evenly."""
        from torchcaffe.proto import caffe_pb2
        from torchcaffe.distributed.shares import uneven

        for layer in net.layer:
            training = not layer.include or any(rule.phase == caffe_pb2.TRAIN for rule in layer.include)
            size = layer.data_param.batch_size
            if layer.type == "Data" and training and size % self.count:
                raise ChainError(f"{row.title}: {uneven(size, self.count)} (BATCH=, GPUS= or PROCESSES= of make)")

    def publish(self, job: dict, solver: str, net: str):
        """Give the others a job and the texts of its solver and net; call before rank 0 starts on it."""
        self.store.set(f"jobs/{self.turn}", json.dumps({"job": job, "solver": solver, "net": net}))
        self.turn += 1

    def close(self, reason: Optional[str] = None):
        with contextlib.suppress(RuntimeError):  # torchrun has ended
            if reason:
                report(self.store, reason)
            self.store.set(f"jobs/{self.turn}", json.dumps({}))
            self.store.set(ENDED, "")


def follow(root: str = recipe.ROOT) -> int:
    """Do rank 0's jobs as another rank, in `root`; return the exit status of tools/train.py."""
    turn = 0
    while True:
        with tempfile.TemporaryDirectory(prefix="rank-") as folder:
            status = _follow_one(turn, folder, root)
        if status in (NO_MORE, STOPPED):
            return 0
        if status:
            return _failed(status)
        turn += 1


def _follow_one(turn: int, folder: str, root: str) -> int:
    environment = {**os.environ, "GLOG_minloglevel": "1", "PYTHONPATH": os.pathsep.join(
        filter(None, (recipe.ROOT, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "gender_smile.training.solve", "--follow", str(turn), folder]
    start = functools.partial(subprocess.Popen, command, cwd=root, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, start_new_session=True)
    with forward_signals(start) as (process, stops):
        status = process.wait()
    if stops and status == -signal.SIGTERM:  # before it took part in anything: nobody else knows
        with contextlib.suppress(RuntimeError):
            report(_store(timedelta(seconds=10)), f"rank {os.environ['RANK']} was told to stop")
        return STOPPED
    return status


def _failed(status: int) -> int:
    """Report how our process ended, unless a failure is known already, and wait for rank 0 to end first."""
    from torchcaffe.distributed.launch import signal_in_words

    with contextlib.suppress(RuntimeError):  # torchrun has ended
        store = _store(timedelta(seconds=10))
        message = f"rank {os.environ['RANK']} {f'was killed ({signal_in_words(-status)})' if status < 0 else 'failed'}"
        if report(store, message) == message:
            print(f"train: {message}", file=sys.stderr, flush=True)
        _wait(store, ENDED)
    return 1


# ---------------------------------------------------------------------------------------------- in gender_smile/training/solve.py
class RankGroup:
    """The processes that solve a job together, seen from solve.py in one of them."""

    def __init__(self, on_failure):
        """on_failure(message): called before this process is ended from outside its main thread."""
        self.store, self.rank, self.on_failure = _store(), int(os.environ["RANK"]), on_failure
        self.watch(self.store.clone())

    def meet(self, name: str):
        """Come together with the other ranks, for the job of this name."""
        from torchcaffe.distributed import parallel

        self.ranks = parallel.join(name)
        self.on_rank0, self.broadcast = self.ranks.on_rank0, self.ranks.broadcast

    def leave(self, status: int):
        """End as a rank, and after a failure as a process: connections to ranks that hang must not keep it."""
        from torchcaffe.distributed import parallel

        if status == 1:
            os._exit(status)
        self.done.set()
        self.watcher.join()  # a thread that talks to the store must not outlive the interpreter
        parallel.leave()

    def agree(self, count: int, request: int):
        """(rank 0's count, the most urgent request of any rank)."""
        return tuple(self.ranks.largest([count if self.rank == 0 else 0, request]))

    def means(self, values: list) -> list:
        """The mean over the ranks of each value."""
        return self.ranks.means(values)

    def first_failure(self, error: Exception, message: str) -> str:
        """The message of the failure that came first, of any rank; ours is reported to the others."""
        from torchcaffe.distributed.parallel import LostRankError

        if isinstance(error, LostRankError) or self.rank and isinstance(error, Failed):  # of what all have agreed on
            return _wait(self.store, FAILED) or message
        message = f"rank {self.rank}: {message}" if self.rank else message
        first = report(self.store, message)
        if self.rank == 0:
            traceback.print_exception(error)
        elif first == message:
            print(f"train: {message}", file=sys.stderr, flush=True)
        return first

    def watch(self, store):
        """End this process when another rank has failed and we still wait for it, as a GPU does for minutes."""
        parent = os.getppid()

        def reason():
            try:
                return store.get(FAILED).decode() if store.check([FAILED]) else ""
            except RuntimeError:
                return "torchrun has ended"

        def look():
            message = ""
            while not message:
                if self.done.wait(1):
                    return
                message = reason() or ("tools/train.py has ended" if self.rank and os.getppid() != parent else "")
            if not self.done.wait(PATIENCE / 3):  # enough for an orderly end
                self.on_failure(message)
                os._exit(1)

        self.done = threading.Event()
        self.watcher = threading.Thread(target=look, daemon=True, name="watch")
        self.watcher.start()


def followed(turn: int, folder: str) -> Optional[dict]:
    """Job number `turn` once rank 0 has published it, its files written into `folder`; None after the last."""
    from torchcaffe.distributed import parallel
    from torchcaffe.formats import files

    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is nothing yet that a snapshot could be taken of
    given = json.loads(parallel.wait_for(_store(), f"jobs/{turn}"))
    if not given:
        return None
    paths = {name: os.path.join(folder, name + ".prototxt") for name in ("solver", "net")}
    solver = files.parse_solver(given["solver"])
    solver.net = paths["net"]
    for name, text in (("solver", str(solver)), ("net", given["net"])):
        with open(paths[name], "w", encoding="utf-8") as stream:
            stream.write(text)
    return {**given["job"], "solver": paths["solver"]}


# ---------------------------------------------------------------------------------------------- the store
def _store(*timeout):
    from torchcaffe.distributed import parallel

    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        raise ChainError("RANK is set, but not by torchrun, whose store the ranks need: start them with torchrun")
    return parallel.connect(*timeout)


def report(store, message: str) -> str:
    """Store why the training fails, unless another rank has; returns what is stored."""
    return store.compare_set(FAILED, "", message).decode()


def _wait(store, key: str) -> str:
    """Value of `key`, or "" where nobody sets it in time."""
    end = time.monotonic() + PATIENCE
    with contextlib.suppress(RuntimeError):
        while time.monotonic() < end:
            if store.check([key]):
                return store.get(key).decode()
            time.sleep(0.1)
    return ""
