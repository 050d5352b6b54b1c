"""Where Data layers get their batches: records of an LMDB or a LevelDB in key order."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
import weakref

import numpy as np

from torchcaffe.core import log
from torchcaffe.data import workers
from torchcaffe.data.datum import Records, to_array
from torchcaffe.core.errors import DataError
from torchcaffe.data.leveldb import LevelDB, is_leveldb
from torchcaffe.data.lmdb_pages import PageError, Pages
from torchcaffe.data.transformer import Transformer, UnequalShapes

PATIENCE = 2.0  # seconds
_environments = weakref.WeakValueDictionary()
_environments_lock = threading.Lock()


class Environment(Records):
    """A read-only LMDB, opened once per process and shared by all layers. Raises DataError, also where it is damaged.

    It reads the file that it has opened; a file that replaces it later gets an Environment of its own.
    """

    def __init__(self, path: str):
        import lmdb

        self.path = path
        try:
            self.file = os.open(os.path.join(path, "data.mdb"), os.O_RDONLY)  # the pages that are checked are its
            weakref.finalize(self, os.close, self.file)
            Pages(self.file).close()
            self.lmdb = _opened(path)
            if _identity(path) != _identity(self.file):
                raise PageError("it was replaced while it was being opened")
            empty = not self.lmdb.stat()["entries"]
        except (lmdb.Error, PageError, OSError) as error:
            raise DataError(f"{path}: not a readable LMDB ({error}); build or copy it again") from error
        if empty:
            raise DataError(f"{path}: the LMDB is empty; build it again")

    @staticmethod
    def open(path: str) -> "Environment":
        try:
            key = _identity(path)
        except (OSError, ValueError):  # ValueError: a path with a zero byte
            file = os.path.join(path, "data.mdb")
            remedy = "it is a LevelDB: give backend: LEVELDB" if is_leveldb(path) else "build it first"
            raise DataError(f"{path}: no LMDB there (expected {file}); {remedy}") from None
        with _environments_lock:
            found = _environments.get(key)
            if found is None:
                found = _environments[key] = Environment(path)
            return found

    def records_from(self, position: int, log_restart: bool, owns=None, endless: bool = True):
        """Iterate over (key, value) in key order, epoch after epoch: views of the file, valid until the generator closes.

        `position`: of the first record, counted through all epochs.
        `owns(position)`: which positions to read. Other records are skipped by key; their pages are never read.
        """
        import lmdb

        try:
            with Pages(self.file) as pages, self.lmdb.begin(buffers=True) as transaction, transaction.cursor() as cursor:
                keys = _checked_keys(cursor, pages.leaves(transaction.id()))
                keys = itertools.islice(keys, position % max(1, transaction.stat()["entries"]), None)
                while True:
                    before = position
                    for key in keys:
                        if owns is None or owns(position):
                            yield key, cursor.value()
                        position += 1
                    if position == before:
                        raise PageError("it holds fewer records than its header says")
                    if not endless:
                        return
                    if log_restart:
                        log.info("Restarting data prefetching from start.")
                    cursor.first()
                    keys = cursor.iternext(values=False)
        except (lmdb.Error, PageError, OSError) as error:
            raise DataError(f"{self.path}: damaged LMDB ({error}); build or copy it again") from error


def _opened(path):
    """lmdb.open(), which refuses what is open in this process: of an Environment that another thread is just giving up."""
    import lmdb

    given_up = time.monotonic() + PATIENCE
    while True:
        try:
            return lmdb.open(path, readonly=True, lock=False, readahead=True, meminit=False, max_spare_txns=4)
        except lmdb.Error as error:
            if "already open" not in str(error) or time.monotonic() > given_up:
                raise
        time.sleep(0.01)


def _identity(opened):
    """(device, inode) of the file of an LMDB: of a folder's path, or of the file's own descriptor."""
    found = os.stat(opened if isinstance(opened, int) else os.path.join(opened, "data.mdb"))
    return found.st_dev, found.st_ino


def _checked_keys(cursor, leaves):
    """The keys in order, once; the cursor goes to a page only when `leaves` has checked it and said what it holds."""
    keys = None
    for count in leaves:
        keys = cursor.iternext(values=False) if keys is None else keys
        yield from itertools.islice(keys, count)


_OPENERS = {"lmdb": Environment.open, "leveldb": LevelDB.open}


def open_database(path: str, backend: str):
    """The Environment or LevelDB for reading. Raises DataError, also for a backend that is unknown."""
    if backend not in _OPENERS:
        raise DataError(f"unknown backend {backend}: {' or '.join(_OPENERS)}")
    return _OPENERS[backend](path)


def record_batches(layer):
    """(batches for a Prefetcher, shape of the data) of a Data layer; draws the same random numbers as Caffe."""
    p = layer.param.data_param
    whole, environment = p.batch_size, open_database(p.source, p.DB.Name(p.backend).lower())
    transformer = Transformer(layer)
    transformer.seed(layer.context.generator)
    transformer.seed(layer.context.generator)  # Caffe seeds twice, and uses the second
    seed_thread(layer.context.generator)
    with contextlib.closing(environment.records_from(0, False)) as records:
        key, value = next(records)
        first = to_array(environment.datum(key, value), environment.where(key), transformer.force)
    shape = transformer.output_shape(layer, first.shape)
    share = layer.share
    size = share.size(whole, layer)

    def load(record):
        (key, _), datum = record
        return to_array(datum, environment.where(key), transformer.force)

    def batches(state=None):
        position = int(state["position"]) if state else 0
        transformer.set_state(state)
        owns = None if share.count == 1 else lambda position: share.owns(position, whole)
        with contextlib.closing(environment.records_from(position, share.rank == 0, owns)) as records:
            while True:
                chosen = list(itertools.islice(records, size))
                datums = [environment.datum(*record) for record in chosen]
                apply = workers.thread_map if datums[0].encoded else map
                arrays = list(apply(load, list(zip(chosen, datums))))
                labels = np.array([datum.label for datum in datums], np.float32)
                try:
                    batch = transformer.batch(arrays, labels, apply)
                except UnequalShapes as odd:
                    raise DataError(f"{environment.where(chosen[odd.index][0])} has {odd}; build the database again") from None
                position += whole if share.split else whole * share.count
                yield batch._replace(state={"position": position, **transformer.state()})

    return batches, (size, *shape)


def seed_thread(generator):
    """Draw the seed that Caffe draws for each prefetching thread, even where it uses no random numbers."""
    generator.draw()
