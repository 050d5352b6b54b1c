"""A pool of processes whose answers come back in order, with few of them in memory at a time."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, parent_process
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Callable, Iterable, Iterator, List, Optional

from lmdb_builders.errors import BuildError

MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD = -3, -2, -1  # glibc's numbers of mallopt's parameters
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a terminal or a cluster sends them to workers, too
CHUNKS_AHEAD = 3  # a worker: enough that none waits, few enough that memory stays flat


def ordered_map(function: Callable, tasks: Iterable, workers: int, chunk: int = 8) -> Iterator:
    """Yield function(task) for each task, in the tasks' order.

    One worker: in this process. More: in processes that start clean (`spawn`: a fork of a process that holds threads or
    a GPU can hang), so `function` and the tasks must be picklable. An exception of `function` is raised here. Leaving
    the loop kills the processes, so that none that hangs is waited for. Raises BuildError where one was killed, as the
    system does when memory runs out.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    chunks = iter(lambda: list(islice(tasks, chunk)), [])
    context, broken = _Context(), False
    with uninterrupted():  # what starts now is not to see Ctrl-C either
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        waiting = deque(_submit(executor, function, part) for part in islice(chunks, workers * CHUNKS_AHEAD))
        while waiting:
            answers = waiting.popleft().result()
            waiting.extend(_submit(executor, function, part) for part in islice(chunks, 1))
            yield from answers
    except BrokenProcessPool:
        broken = True
    finally:
        with uninterrupted():
            for process in context.started:
                if process.pid is not None:
                    process.kill()
            executor.shutdown(wait=True, cancel_futures=True)
    if broken:
        raise BuildError(f"a worker process {_end(context.started)}; run again with WORKERS=1 (--workers 1)")


class _Worker(SpawnProcess):
    """A worker that knows whether it ended by itself: when one dies, the executor and ordered_map kill the others."""

    _lock = threading.Lock()  # the executor's thread and ours may kill at the same time
    killed_here: Optional[bool] = None  # None: nobody has tried yet

    def terminate(self) -> None:
        self._note()
        super().terminate()

    def kill(self) -> None:
        self._note()
        super().kill()

    def _note(self) -> None:
        with self._lock:
            if self.killed_here is None:  # the exit code may come a moment after the sentinel
                self.killed_here = not connection.wait([self.sentinel], timeout=0)


class _Context(SpawnContext):
    """Spawns workers and remembers them, because the executor does not show its own."""

    def __init__(self):
        self.started: List[_Worker] = []

    def Process(self, *arguments, **options):
        process = _Worker(*arguments, **options)
        self.started.append(process)
        return process


def _end(workers: List[_Worker]) -> str:
    """How the worker that broke the pool ended. All of them have ended."""
    from torchcaffe.distributed.launch import signal_in_words

    codes = [worker.exitcode for worker in workers if worker.pid is not None and not worker.killed_here]
    code = next(filter(None, codes), -signal.SIGKILL)
    return f"was killed ({signal_in_words(-code)})" if code < 0 else f"has ended (exit status {code})"


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold back the signals that stop a build until the block ends: a second Ctrl-C leaves nothing half removed.

    Processes that start in the block have them blocked. Blocking alone does not protect this process: the system hands
    the signal to another thread, of OpenBLAS for instance, and Python then runs its handler in the main thread.
    """
    received: List[int] = []
    handlers = {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        if threading.current_thread() is threading.main_thread():  # no other thread runs handlers
            for number in STOPPING:
                if signal.getsignal(number) is not None:  # None: a handler that is not Python's
                    handlers[number] = signal.signal(number, lambda number, frame: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in received[:1]:
            signal.raise_signal(number)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _submit(executor: ProcessPoolExecutor, function: Callable, tasks: List):
    """A future of the tasks' answers. This may start a worker: whole, and with Ctrl-C blocked from its first moment on."""
    with uninterrupted():
        return executor.submit(_run, function, tasks)


def _run(function: Callable, tasks: List) -> List:
    return [function(task) for task in tasks]


def _start_worker() -> None:
    """One thread a worker, and no life after the parent's. Ctrl-C is left to the parent (_submit), and SIGUSR1."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # read by libraries that are loaded from now on, torch among them
    import cv2

    cv2.setNumThreads(1)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def keep_freed_memory() -> None:
    """Let glibc keep what a photo took for the next one, up to 64 MB: to ask the system anew took a tenth of the time."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return
    for parameter, size in ((MMAP_THRESHOLD, 64 << 20), (TRIM_THRESHOLD, 256 << 20), (TOP_PAD, 16 << 20)):
        mallopt(parameter, size)


def _end_with_parent() -> None:
    connection.wait([parent_process().sentinel])
    os._exit(1)
