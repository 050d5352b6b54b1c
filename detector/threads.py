"""Work on pixels in as many threads as OpenCV may use, which resizes small pictures in one only."""

from __future__ import annotations

import concurrent.futures
import functools
import os
from typing import Callable, Iterable, List


def in_threads(function: Callable, items: Iterable) -> List:
    """[function(item) for item in items], several at a time. Raises what `function` raises."""
    import cv2

    threads = cv2.getNumThreads()
    if threads < 2:
        return [function(item) for item in items]
    return list(_pool(os.getpid(), threads).map(function, items))


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> concurrent.futures.ThreadPoolExecutor:
    """The threads of this process: none survives a fork."""
    return concurrent.futures.ThreadPoolExecutor(threads, "detector")
