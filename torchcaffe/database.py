"""LMDBs as Caffe's tools write and read them: Datums under keys, in key order."""

from __future__ import annotations

import os

from torchcaffe import log
from torchcaffe.errors import DataError

RECORDS_A_COMMIT = 1000
_FIRST_SIZE = 10 << 20  # of the map, doubled when it is full


class Writer:
    """A new LMDB, written as a context manager: put(key, value) in any order.

    Raises DataError where the folder exists already or cannot be written.
    """

    def __init__(self, path, backend: str = "lmdb"):
        import lmdb

        if backend != "lmdb":
            raise DataError(f"backend {backend} is not offered, only lmdb")
        if os.path.exists(path):
            raise DataError(f"{path}: exists already; remove it or give another name")
        try:
            os.mkdir(path, 0o744)
            self.lmdb = lmdb.open(os.fspath(path), map_size=_FIRST_SIZE)
        except (OSError, lmdb.Error) as problem:
            raise DataError(f"{path}: cannot be made: {getattr(problem, 'strerror', None) or problem}") from None
        log.info(f"Opened lmdb {path}")
        self.path, self.waiting, self.count = path, [], 0

    def put(self, key: str, value: bytes):
        self.waiting.append((os.fsencode(key), value))
        self.count += 1
        if len(self.waiting) == RECORDS_A_COMMIT:
            self.commit()

    def commit(self):
        """Write what is waiting; a full map is doubled and all of it written again."""
        import lmdb

        while self.waiting:
            try:
                with self.lmdb.begin(write=True) as transaction:
                    for key, value in self.waiting:
                        transaction.put(key, value)
                self.waiting = []
            except lmdb.MapFullError:
                self.lmdb.set_mapsize(2 * self.lmdb.info()["map_size"])
            except lmdb.Error as problem:
                raise DataError(f"{self.path}: cannot be written: {problem}; is the disk full?") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.commit()
        self.lmdb.close()


def records(path, backend: str = "lmdb"):
    """(key, Datum) of every record, in key order. Raises DataError."""
    from torchcaffe.datasource import Environment

    if backend != "lmdb":
        raise DataError(f"backend {backend} is not offered, only lmdb")
    environment = Environment.open(os.fspath(path))
    log.info(f"Opened lmdb {path}")
    for key, value in environment.records_from(0, False, endless=False):
        yield bytes(key).decode(errors="replace"), environment.datum(key, value)
