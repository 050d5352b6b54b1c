"""Atomic replacement of folders, and the lock of a build."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import Iterator

from lmdb_builders.errors import BuildError
from lmdb_builders.pool import uninterrupted


def replace_folder(source: str, target: str) -> None:
    """Move the folder `source` to `target`. An existing `target` is removed after the move, not before."""
    old = f"{source}.old"
    if os.path.isdir(target):
        os.rename(target, old)
    os.rename(source, target)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def sole_builder(folder: str) -> Iterator[str]:
    """Lock `folder` for one build and yield an empty staging folder in it, which is removed at the end.

    What a killed build left there is removed first. Raises BuildError when another build holds the lock.
    """
    os.makedirs(folder, exist_ok=True)
    staging = os.path.join(folder, ".building")
    with open(os.path.join(folder, ".lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"{folder}: another build is writing there; wait for it or stop it") from None
        shutil.rmtree(staging, ignore_errors=True)
        os.makedirs(staging)
        try:
            yield staging
        finally:
            with uninterrupted():
                shutil.rmtree(staging, ignore_errors=True)


def disk_full(path: str, error: Exception) -> BuildError:
    """The one-line error for a disk that filled while `path` was written."""
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    return BuildError(
        f"{path}: the disk is full ({free / 1e9:.1f} GB free; {error}). Incomplete files were removed; "
        "free space, or build one scheme at a time (CROP=scheme1) or compressed (ENCODE=jpg)"
    )
