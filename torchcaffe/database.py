"""Databases as Caffe's tools write and read them: Datums under keys, in key order."""

from __future__ import annotations

import os

from torchcaffe import log
from torchcaffe.datasource import open_database
from torchcaffe.errors import DataError
from torchcaffe.leveldb import LevelDBFile

RECORDS_A_COMMIT = 1000
_FIRST_SIZE = 10 << 20  # of the map, doubled when it is full


class Writer:
    """A new database, written as a context manager: put(key, value) in any order.

    backend: lmdb or leveldb.
    Raises DataError where the folder exists already or cannot be written.
    """

    def __init__(self, path, backend: str = "lmdb"):
        if backend not in _FILES:
            raise DataError(f"unknown backend {backend}: {' or '.join(_FILES)}")
        if os.path.exists(path):
            raise DataError(f"{path}: exists already; remove it or give another name")
        self.file = _FILES[backend](path)
        log.info(f"Opened {backend} {path}")
        self.waiting, self.count = [], 0

    def put(self, key: str, value: bytes):
        self.waiting.append((os.fsencode(key), value))
        self.count += 1
        if len(self.waiting) == RECORDS_A_COMMIT:
            self.commit()

    def commit(self):
        """Write what is waiting."""
        if self.waiting:
            self.file.write(self.waiting)
            self.waiting = []

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if kind is None:
            self.commit()
        self.close()


class LmdbFile:
    """A new LMDB to write into. Raises DataError where it cannot be made or written."""

    def __init__(self, path):
        import lmdb

        try:
            os.mkdir(path, 0o744)
            self.lmdb = lmdb.open(os.fspath(path), map_size=_FIRST_SIZE)
        except (OSError, lmdb.Error) as problem:
            raise DataError(f"{path}: cannot be made: {getattr(problem, 'strerror', None) or problem}") from None
        self.path = path

    def write(self, records):
        """Write (key, value) pairs of bytes; a full map is doubled and all of them written again."""
        import lmdb

        while True:
            try:
                with self.lmdb.begin(write=True) as transaction:
                    for key, value in records:
                        transaction.put(key, value)
                return
            except lmdb.MapFullError:
                self.lmdb.set_mapsize(2 * self.lmdb.info()["map_size"])
            except lmdb.Error as problem:
                raise DataError(f"{self.path}: cannot be written: {problem}; is the disk full?") from None

    def close(self):
        self.lmdb.close()


_FILES = {"lmdb": LmdbFile, "leveldb": LevelDBFile}


def records(path, backend: str = "lmdb"):
    """(key, Datum) of every record, in key order. Raises DataError."""
    database = open_database(os.fspath(path), backend)
    log.info(f"Opened {backend} {path}")
    for key, value in database.records_from(0, False, endless=False):
        yield bytes(key).decode(errors="replace"), database.datum(key, value)
