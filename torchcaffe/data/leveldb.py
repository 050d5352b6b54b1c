"""LevelDB, Caffe's other database: Datums under keys, in key order. Reads and writes need the package plyvel."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref

from torchcaffe.core import extras, log
from torchcaffe.data.datum import Records
from torchcaffe.core.errors import DataError

_MARK = "CURRENT"  # the file that every LevelDB has
_OPTIONS = dict(block_size=1 << 16, write_buffer_size=1 << 28, max_open_files=100)  # Caffe's
RECORDS_PER_BATCH = 1000
_open = weakref.WeakValueDictionary()
_open_lock = threading.Lock()


def is_leveldb(path) -> bool:
    """True for a folder that holds a LevelDB."""
    return os.path.isfile(os.path.join(path, _MARK))


class LevelDB(Records):
    """A LevelDB for reading, opened once per process and shared by all layers: LevelDB allows one process at a time.

    Opening one writes into its folder, as LevelDB does. Raises DataError, also where it is damaged.
    """

    def __init__(self, path: str):
        plyvel = extras.load("plyvel")
        self.path = path
        try:
            # By its whole path: LevelDB knows what this process has open by name.
            self.database = plyvel.DB(os.path.realpath(path), create_if_missing=False, paranoid_checks=True, **_OPTIONS)
            with contextlib.closing(self.database.raw_iterator(verify_checksums=True)) as records:
                records.seek_to_first()
                empty = not records.valid()
        except plyvel.Error as error:
            raise DataError(f"{path}: not a readable LevelDB ({_reason(error)})") from error
        if empty:
            raise DataError(f"{path}: the LevelDB is empty; build it again")

    @staticmethod
    def open(path: str) -> LevelDB:
        if not is_leveldb(path):
            lmdb = os.path.isfile(os.path.join(path, "data.mdb"))
            remedy = "it is an LMDB: give backend: LMDB" if lmdb else "build it first, or give backend: LMDB for an LMDB"
            raise DataError(f"{path}: no LevelDB there (expected {os.path.join(path, _MARK)}); {remedy}")
        key = os.path.realpath(path)
        with _open_lock:
            found = _open.get(key)
            if found is None:
                found = _open[key] = LevelDB(path)
            return found

    def records_from(self, position: int, log_restart: bool, owns=None, endless: bool = True):
        """Iterate over (key, value) in key order, epoch after epoch, as bytes. Arguments: as of an LMDB's Environment."""
        plyvel = extras.load("plyvel")
        try:
            with contextlib.closing(self.database.raw_iterator(verify_checksums=True, fill_cache=False)) as records:
                self.skip(records, position)
                while True:
                    while records.valid():
                        if owns is None or owns(position):
                            yield records.key(), records.value()
                        position += 1
                        records.next()
                    if not endless:
                        return
                    if log_restart:
                        log.info("Restarting data prefetching from start.")
                    records.seek_to_first()
        except plyvel.Error as error:
            raise DataError(f"{self.path}: damaged LevelDB ({_reason(error)})") from error

    @staticmethod
    def skip(records, count):
        """Move to record `count`, counted through all epochs; the number of records is known after one pass only."""
        records.seek_to_first()
        passed = 0
        while passed < count:
            records.next()
            passed += 1
            if not records.valid():
                count, passed = count % passed, 0
                records.seek_to_first()


class LevelDBWriter:
    """A new LevelDB, with the methods of database.Writer. Raises DataError where the folder exists or cannot be written."""

    def __init__(self, path):
        plyvel = extras.load("plyvel")
        try:
            self.database = plyvel.DB(os.path.realpath(path), create_if_missing=True, error_if_exists=True, **_OPTIONS)
        except plyvel.Error as error:
            raise DataError(f"{path}: cannot be created: {_reason(error)}") from None
        self.path, self.count, self._pending = path, 0, []

    def put(self, key, value: bytes):
        self._pending.append((os.fsencode(key), value))
        self.count += 1
        if len(self._pending) == RECORDS_PER_BATCH:
            self._write()

    def close(self):
        """Write what is pending."""
        try:
            self._write()
        finally:
            self.abandon()

    def abandon(self):
        """Close the files without writing what is pending."""
        self.database.close()

    def _write(self):
        plyvel = extras.load("plyvel")
        try:
            with self.database.write_batch() as batch:
                for key, value in self._pending:
                    batch.put(key, value)
            self._pending = []
        except plyvel.Error as error:
            raise DataError(f"{self.path}: cannot be written: {_reason(error)}; is the disk full?") from None

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.close() if kind is None else self.abandon()


def _reason(error) -> str:
    text = error.args[0].decode(errors="replace") if error.args and isinstance(error.args[0], bytes) else str(error)
    if "lock" in text.lower():
        return f"{text}: LevelDB lets one process in at a time; end the other one, or convert to LMDB"
    return f"{text}; build or copy it again"
