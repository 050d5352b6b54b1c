"""How much memory is available, checked before a layer or a file allocates more; and whether what is freed is kept.

Linux overcommits memory: without this check an oversized net is killed when it touches what it was given.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
from pathlib import Path

from torchcaffe.core.errors import NetError

LARGE = 64 << 20  # bytes; smaller requests are not checked
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's, <malloc.h>
KEPT = 1 << 30  # bytes of one piece, and of what lies free; glibc gives what is larger back to the system
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")  # glibc's own, of the user

# (limit, used, part of what is used that is given back on demand) of a container's memory: cgroup 2, cgroup 1
_CONTAINERS = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_ROOT = Path("/sys/fs/cgroup")


def total(device=None):
    """The most bytes that this process can have: a GPU's memory, or the least of the machine's, container's and own limit."""
    if device is not None and device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[1]
    limits = [_meminfo().get("MemTotal"), *(limit for limit, _ in _containers())]
    limits.append(_own_limit())
    return min((limit for limit in limits if limit is not None), default=None)


def available(device=None):
    """Bytes that are free on a torch.device (None: the CPU), or None where the system does not tell."""
    if device is not None and device.type == "cuda":
        import torch

        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reusable
    free = [_meminfo().get("MemAvailable"), *(limit - used for limit, used in _containers())]
    if _own_limit() is not None and _meminfo():
        free.append(_own_limit() - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return min((max(0, amount) for amount in free if amount is not None), default=None)


def require(needed: int, what: str, error=NetError, device=None, there=None):
    """Raise `error` where `needed` bytes for `what` are more than are available.

    Args:
        device: torch.device of the memory; None: the CPU's.
        there: a function from device to the limit in bytes, such as `total`; None: `available`.
    """
    if needed < LARGE:
        return
    limit = (there or available)(device)
    if limit is not None and needed > limit:
        place = " on the GPU" if device is not None and device.type == "cuda" else ""
        raise error(
            f"{what} needs {needed:,} bytes ({needed / 1e9:,.1f} GB), and there are {limit:,} ({limit / 1e9:,.1f} GB){place}"
        )


@functools.cache
def keep_freed():
    """Let glibc keep the CPU's freed memory for the process's next request; True where it does.

    Each iteration of a training asks for the same again, and a page of new memory is cleared before it is used
    (docs/benchmarks.md). Nothing happens where one of VARIABLES is set, or with another C library.
    """
    if any(name in os.environ for name in VARIABLES):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return all([mallopt(MMAP_THRESHOLD, KEPT), mallopt(TRIM_THRESHOLD, KEPT)])


def _own_limit():
    """Bytes of address space that this process may have (ulimit -v), or None."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def _meminfo():
    """Linux's figures in bytes; empty elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}


def _containers():
    """(limit, used) in bytes of each limit that a container sets."""
    limits = []
    for limit, used, reusable in _CONTAINERS:
        try:
            bytes_limit = int((_ROOT / limit).read_text())  # "max": none
            statistics = dict(line.split() for line in (_ROOT / used).with_name("memory.stat").read_text().splitlines())
            limits.append((bytes_limit, int((_ROOT / used).read_text()) - int(statistics.get(reusable, 0))))
        except (OSError, ValueError):
            continue
    return limits
