"""What processes hold, as Linux tells: memory, file handles, children; and what of it is wrong."""

from __future__ import annotations

import os
from pathlib import Path


def resident(pid: int) -> float:
    """MB of memory that a process holds. Raises OSError once it has ended."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def handles(pid: int) -> int:
    """Number of files, sockets and pipes that a process has open. Raises OSError once it has ended."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def children(pid: int) -> list:
    """Process ids of the processes that a process has started and that still run."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def growth(sizes: list) -> float:
    """By how much the last tenth of `sizes`, in its mean, is above the second: the first is spent on getting started."""
    tenth = max(1, len(sizes) // 10)
    second, last = sizes[tenth : 2 * tenth] or sizes[:1], sizes[-tenth:]
    return sum(last) / len(last) - sum(second) / len(second)


def verdict(wrong: list) -> int:
    """Print what is wrong, a line each; the exit status: 1 where something is."""
    for line in wrong:
        print(f"WRONG: {line}")
    return 1 if wrong else 0
