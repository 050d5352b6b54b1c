"""Reading a whole file, telling its kind by its content, hashing, and atomic writing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import mmap
import os
import re
import secrets

import numpy as np

from torchcaffe.formats import wire
from torchcaffe.core.errors import CaffeError

POPULATE_READ = 22  # MADV_POPULATE_READ of Linux 5.14, which Python does not define
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1f]")  # no tab, line feed, return or form feed: bytes that no text has
_NAMES = {
    "caffemodel": "weights (a .caffemodel)",
    "solverstate": "a solver state (a .solverstate)",
    "blob": "a single array, such as a mean (a .binaryproto)",
    "text": "text, such as a net's or solver's definition (a .prototxt)",
    "hdf5": "HDF5",
}
# Top-level fields that tell the binary messages apart: field number -> wire types seen there.
_FIELDS = {
    "caffemodel": {1: {2}, 2: {2}, 3: {2}, 4: {0, 2}, 5: {0}, 6: {2}, 7: {0}, 8: {2}, 100: {2}},
    "solverstate": {1: {0}, 2: {2}, 3: {2}, 4: {0}},
    "blob": {1: {0}, 2: {0}, 3: {0}, 4: {0}, 5: {2, 5}, 6: {2, 5}, 7: {2}, 8: {1, 2}, 9: {1, 2}},
}


def read_bytes(path, error=CaffeError, what="file", mapped=False):
    """The file's content; `error` with one line where there is none.

    Args:
        mapped: return an mmap instead of bytes: pages are read on first use and not copied. Only for files that are
            replaced (atomic_write), not rewritten in place.
    Raises:
        error: missing, a folder, a device or pipe (/dev/zero has no end), unreadable, empty, or plainly something else
            (a git-lfs pointer, a web page, an archive); the message names the file and the remedy.
    """
    try:
        if not (os.path.isfile(path) or os.path.isdir(path)) and os.path.exists(path):
            raise error(f"{path}: is a device or a pipe, not a regular file; give a {what}")
        with open(path, "rb") as file:
            content = _map(file) if mapped else file.read()
    except FileNotFoundError:
        where = "" if os.path.isabs(path) else f" in {os.getcwd()}"
        raise error(f"{path}: no such {what}{where}; check the path") from None
    except IsADirectoryError:
        raise error(f"{path}: is a folder, not a {what}") from None
    except (OSError, ValueError) as problem:  # ValueError: a NUL in the name
        raise error(f"{path}: cannot be read: {getattr(problem, 'strerror', None) or problem}") from None
    reason = foreign(content[:512])
    if reason:
        raise error(f"{path}: {reason}")
    return content


def _map(file):
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # empty, or on a file system that cannot map
        return file.read()


def fetch(array):
    """Load all pages of a numpy view of a mapped file at once; a copy that faults page by page takes eight times as long."""
    with contextlib.suppress(OSError, ValueError):  # Linux before 5.14 does not know it
        _advise(array, POPULATE_READ)


def forget(array):
    """Release the memory of a numpy view of a mapped file; the next access reads the file again."""
    _advise(array, getattr(mmap, "MADV_DONTNEED", None))


def _advise(array, advice):
    """madvise the whole pages under a view of a mapped file; no effect on other arrays."""
    base = array
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if not isinstance(base, mmap.mmap) or not hasattr(base, "madvise") or advice is None:
        return
    start = array.ctypes.data - np.frombuffer(base, np.uint8, 1).ctypes.data
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        base.madvise(advice, first, end - first)


def sha256(path) -> str:
    """SHA-256 of a file, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def foreign(start: bytes) -> str:
    """Why a file with this beginning cannot be one of Caffe's, with the remedy; "" where it can."""
    head = start.lstrip().lower()
    if not start:
        return "is empty (0 bytes); fetch or copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the file itself; run `git lfs pull` in its repository"
    if head.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not the file itself: the download failed; fetch it again"
    if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00")):
        return "is a compressed archive (or a PyTorch file); unpack it and give the file inside"
    return ""


def kind(content) -> str:
    """What a file is, by content: "hdf5", "caffemodel", "solverstate", "blob", "text" or "" (unknown)."""
    if _has_hdf5_signature(content):
        return "hdf5"
    if _is_text(content[:4096]) and any(mark in content[:4096] for mark in (b"{", b":")):
        return "text"  # first, since a line feed at the start is also the tag of a message's field 1
    fields = []
    try:
        for number, wire_type, _ in wire.walk(content):
            fields.append((number, wire_type))
            if len(fields) == 64:
                break
    except wire.TruncatedError:
        pass  # what was seen before the end still tells
    except wire.WireError:
        fields = []
    for name, known in _FIELDS.items():
        if fields and all(wire_type in known.get(number, ()) for number, wire_type in fields):
            return name
    return "text" if _is_text(content[:4096]) else ""


def is_hdf5(path) -> bool:
    """True for an HDF5 file, whatever its name; False too where there is none."""
    if not os.path.isfile(path):  # a pipe may never begin
        return False
    try:
        with open(path, "rb") as file:
            return _has_hdf5_signature(file.read(2056))
    except OSError:
        return False


def _has_hdf5_signature(content):
    return any(content[start : start + 8] == HDF5_SIGNATURE for start in (0, 512, 1024, 2048))


def _is_text(head):
    return not _CONTROL.search(head)


def refuse_other_kind(path, content, wanted: str, error):
    """Raise `error` where a file is clearly another of Caffe's kinds than `wanted` (a key of `kind`'s answers)."""
    found = kind(content)
    if found not in ("", wanted):
        raise error(f"{path}: is {_NAMES[found]}, not {_NAMES[wanted]}; give the right file")


@contextlib.contextmanager
def atomic_write(path):
    """Atomic file write: yields a temporary path in the same folder, which is then renamed to `path`.

    The temporary name keeps the suffix. On success the content is synced to disk (fsync of file and folder) before the
    rename; on failure the temporary file is removed and the file at `path` is unchanged.

    Raises:
        CaffeError: the folder is missing, `path` is not a regular file, or the disk is full.
    """
    target, temporary = _places(path)
    folder = os.path.dirname(target)
    try:
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(folder)
    except OSError as problem:
        if problem.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EROFS):
            raise CaffeError(
                f"{path}: cannot be written: {problem.strerror}; an existing file is unchanged"
            ) from problem
        raise
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def check_writable(path):
    """Check before long work that atomic_write(path) can succeed: create and remove a temporary file.

    Raises:
        CaffeError: the folder is missing or not writable, or `path` is not a regular file; names the remedy.
    """
    _, temporary = _places(path)
    try:
        with open(temporary, "xb"):
            pass
        os.remove(temporary)
    except OSError as problem:
        raise CaffeError(f"{path}: cannot be written: {problem.strerror}; give another path") from problem


def _places(path):
    """(the file that `path` names, the temporary one beside it). Raises CaffeError where no file can be."""
    path = os.fspath(path)
    if "\0" in path:
        raise CaffeError(f"{path!r}: cannot be written: a path cannot hold a NUL character; give another path")
    target = os.path.realpath(path)  # a link stays a link
    folder, name = os.path.split(target)
    if not os.path.isdir(folder):
        raise CaffeError(f"{path}: cannot be written: the folder {folder} does not exist; create it first")
    if os.path.exists(target) and not os.path.isfile(target):
        raise CaffeError(f"{path}: cannot be written: it exists and is not a regular file")
    stem, suffix = os.path.splitext(name)
    return target, os.path.join(folder, f".{stem}.{secrets.token_hex(4)}.tmp{suffix}")


def _flush(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
