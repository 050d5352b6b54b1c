"""How much memory is available, checked before a layer or a file allocates more.

Linux overcommits memory: without this check an oversized net is killed when it touches what it was given.
"""

from __future__ import annotations

import resource
from pathlib import Path

from torchcaffe.core.errors import NetError

LARGE = 64 << 20  # bytes; smaller requests are not checked

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
