"""Databases as Caffe's tools write and read them: Datums under keys, in key order."""

from __future__ import annotations

import errno
import os
from typing import Union

from torchcaffe.core import log
from torchcaffe.core.errors import DataError
from torchcaffe.data.datasource import open_database
from torchcaffe.data.leveldb import LevelDBWriter

COMMIT_BYTES = 1 << 20  # small: memory for more is asked of the system anew each time, which takes three times as long
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)  # EIO: what LMDB makes of a write that was cut
_FIRST_SIZE = 10 << 20  # of the map, doubled when it is full


class DiskFullError(DataError):
    """The disk filled while an LMDB was written."""


class Writer:
    """A new LMDB, written as a context manager, or by put() and close(). Records may come in any order of their keys.

    The LMDB is synced once, in close(), as nothing reads it before. Raises DataError where the folder already exists or
    cannot be written (DiskFullError: the caller then removes the folder).
    """

    ascending = False  # True: keys must ascend, which is faster to write

    def __init__(self, path):
        self._open(path, 0o744, _FIRST_SIZE)

    def _open(self, path, folder_mode: int, map_size: int, **options):
        import lmdb

        try:
            os.mkdir(path, folder_mode)
            self._lmdb = lmdb.open(os.fspath(path), map_size=map_size, sync=False, **options)
        except (OSError, lmdb.Error) as problem:
            raise DataError(f"{path}: cannot be created: {getattr(problem, 'strerror', None) or problem}") from None
        self.path, self.count, self._pending, self._pending_bytes = path, 0, [], 0

    def put(self, key: Union[str, bytes], value: bytes):
        self._pending.append((os.fsencode(key), value))
        self._pending_bytes += len(value)
        self.count += 1
        if self._pending_bytes >= COMMIT_BYTES:
            self._commit()

    def close(self):
        """Write pending records and sync to disk."""
        import lmdb

        try:
            self._commit()
            self._lmdb.sync(True)
        except lmdb.Error as problem:
            raise self._error(problem) from None
        finally:
            self.abandon()

    def abandon(self):
        """Close the files without writing pending records."""
        if self._lmdb is not None:
            self._lmdb.close()
            self._lmdb = None

    def _commit(self):
        """Write pending records; if the map is full, double it and write them again."""
        import lmdb

        while self._pending:
            try:
                with self._lmdb.begin(write=True) as transaction:
                    for key, value in self._pending:
                        if not transaction.put(key, value, append=self.ascending):
                            raise DataError(f"{self.path}: key {key!r} is not greater than the one before it")
                self._pending, self._pending_bytes = [], 0
            except lmdb.MapFullError:
                self._lmdb.set_mapsize(2 * self._lmdb.info()["map_size"])
            except lmdb.Error as problem:
                raise self._error(problem) from None

    def _error(self, problem) -> DataError:
        if any(os.strerror(number) in str(problem) for number in DISK_FULL):  # LMDB passes it on as text only
            return DiskFullError(f"{self.path}: the disk is full ({problem}); free space, and remove what was written")
        return DataError(f"{self.path}: cannot be written: {problem}")

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close() if kind is None else self.abandon()


def create(path, backend: str = "lmdb"):
    """A writer of a new database, "lmdb" or "leveldb". Raises DataError where `path` exists or cannot be written."""
    writers = {"lmdb": Writer, "leveldb": LevelDBWriter}
    if backend not in writers:
        raise DataError(f"unknown backend {backend}: {' or '.join(writers)}")
    if os.path.exists(path):
        raise DataError(f"{path}: already exists; remove it or give another name")
    writer = writers[backend](path)
    log.info(f"Opened {backend} {path}")
    return writer


def records(path, backend: str = "lmdb"):
    """(key, Datum) of every record, in key order. Raises DataError."""
    database = open_database(os.fspath(path), backend)
    log.info(f"Opened {backend} {path}")
    for key, value in database.records_from(0, False, endless=False):
        yield bytes(key).decode(errors="replace"), database.datum(key, value)
