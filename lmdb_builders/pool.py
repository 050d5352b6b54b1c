"""A pool of processes whose answers come back in order, with few of them in memory at a time."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from typing import Callable, Iterable, Iterator, List

from lmdb_builders.errors import BuildError

MMAP_THRESHOLD, TOP_PAD, TRIM_THRESHOLD = -3, -2, -1  # glibc's numbers of mallopt's parameters
CHUNKS_AHEAD = 3  # a worker: enough that none waits, few enough that memory stays flat


def ordered_map(function: Callable, tasks: Iterable, workers: int, chunk: int = 8) -> Iterator:
    """Yield function(task) for each task, in the tasks' order.

    One worker: in this process. More: in processes that start clean (`spawn`: a fork of a process that holds threads or
    a GPU can hang), so `function` and the tasks must be picklable. An exception of `function` is raised here. Leaving
    the loop early ends the processes. Raises BuildError where a process was killed, as the system does when memory
    runs out.
    """
    if workers <= 1:
        yield from map(function, tasks)
        return
    tasks = iter(tasks)
    chunks = iter(lambda: list(islice(tasks, chunk)), [])
    executor = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting = deque(_submit(executor, function, part) for part in islice(chunks, workers * CHUNKS_AHEAD))
        while waiting:
            answers = waiting.popleft().result()
            waiting.extend(_submit(executor, function, part) for part in islice(chunks, 1))
            yield from answers
    except BrokenProcessPool:
        raise BuildError("a worker process was killed (out of memory?); run again with --workers 1") from None
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _submit(executor: ProcessPoolExecutor, function: Callable, tasks: List):
    """A future of the tasks' answers. This may start a worker, which Ctrl-C must not reach: from its first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits what is blocked
    try:
        return executor.submit(_run, function, tasks)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run(function: Callable, tasks: List) -> List:
    return [function(task) for task in tasks]


def _start_worker() -> None:
    """One thread a worker, and no life after the parent's. Ctrl-C is left to the parent (_submit)."""
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
