"""Threads for C code that releases the GIL: decoding, converting, copying."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor, wait

THREADS_LIMIT = 8  # ours: beyond it the interpreter's lock, not the cores, sets the pace
CHUNKS_A_THREAD = 8  # so that one late chunk does not keep the others waiting long

_pool = None
_pool_lock = threading.Lock()


def threads() -> int:
    """Number of threads: the cores of this process, at most THREADS_LIMIT."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(), THREADS_LIMIT)


def thread_map(function, items, limit: int = THREADS_LIMIT) -> list:
    """[function(item) for item in items], computed by all threads, or `limit` of them, including the caller's.

    The first failing item's exception is raised. All calls have ended when this returns or raises, so the items' memory can
    be freed.
    """
    count, answers, errors = len(items), [None] * len(items), {}
    chunk = max(1, count // (CHUNKS_A_THREAD * threads()))
    starts = iter(range(0, count, chunk))

    def work():
        for start in starts:  # each thread takes the next chunk that none has taken
            for index in range(start, min(start + chunk, count)):
                try:
                    answers[index] = function(items[index])
                except BaseException as error:
                    errors[index] = error

    helpers = [_executor().submit(work) for _ in range(min(limit, threads(), -(-count // chunk)) - 1)]
    work()
    wait([helper for helper in helpers if not helper.cancel()])
    if errors:
        raise errors[min(errors)]
    return answers


def _executor():
    global _pool
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(1, threads() - 1), thread_name_prefix="worker")
        return _pool


def _forget():
    """Reset after a fork: the child has none of the threads."""
    global _pool, _pool_lock
    _pool, _pool_lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
