"""LMDBs are read as lmdb itself reads them, and damaged ones are refused: LMDB alone would end the process."""

import contextlib
import itertools
import struct
import subprocess
import sys

import lmdb
import numpy as np
import pytest

from torchcaffe.data.database import records
from torchcaffe.data.datasource import Environment
from torchcaffe.core.errors import DataError
from torchcaffe.data.lmdb_pages import Pages
from torchcaffe.proto import caffe_pb2

PAGE = 4096
READ = """
import os, sys
os.environ["GLOG_minloglevel"] = "3"
from torchcaffe.data.database import records
from torchcaffe.core.errors import DataError
for line in sys.stdin:
    try:
        print(sum(1 for _ in records(line.strip())), flush=True)
    except DataError as error:
        print(error, flush=True)
"""


def write(path, sizes, step=1, map_size=1 << 28):
    """An LMDB of Datums of the given sizes, in several transactions."""
    with lmdb.open(str(path), map_size=map_size) as environment:
        for start in range(0, len(sizes), 500):
            with environment.begin(write=True) as transaction:
                for index in range(start, min(start + 500, len(sizes))):
                    datum = caffe_pb2.Datum(channels=1, height=1, width=sizes[index], data=bytes(sizes[index]))
                    transaction.put(b"%08d" % (index * step), datum.SerializeToString())
    return path


def read(path):
    """[(key, value)] by way of torchcaffe."""
    with contextlib.closing(Environment.open(str(path)).records_from(0, False, endless=False)) as found:
        return [(bytes(key), bytes(value)) for key, value in found]


@pytest.mark.parametrize(
    "sizes",
    [[1], [10] * 3, [900] * 3000, [5000] * 40, [1, 3000, 1, 8000, 70000] * 20, [2] * 20_000],
    ids=["one", "few", "three levels", "large", "mixed", "many"],
)
def test_read_as_lmdb_reads(tmp_path, sizes):
    path = write(tmp_path / "db", sizes)
    with lmdb.open(str(path), readonly=True) as environment, environment.begin() as transaction:
        expected = list(transaction.cursor())
    assert read(path) == expected
    with open(path / "data.mdb", "rb") as file, Pages(file.fileno()) as pages:
        assert sum(pages.leaves(max(meta[5] for meta in pages.metas))) == len(sizes)


def test_read_after_records_were_removed_and_replaced(tmp_path):
    path = write(tmp_path / "db", [700] * 2000)
    with lmdb.open(str(path), map_size=1 << 28) as environment, environment.begin(write=True) as transaction:
        for index in range(0, 2000, 3):
            transaction.delete(b"%08d" % index)
        for index in range(1, 2000, 3):
            transaction.put(b"%08d" % index, bytes(9000))
        expected = list(transaction.cursor())
    assert read(path) == expected


def word(data, at, form, value):
    struct.pack_into(form, data, at, value)


def main_tree(data):
    """Position in the file of the newest snapshot's root page, and of the page that says so."""
    metas = [(struct.unpack_from("<Q", data, page * PAGE + 144)[0], page * PAGE) for page in (0, 1)]
    meta = max(metas)[1]
    return struct.unpack_from("<Q", data, meta + 128)[0] * PAGE, meta


def node(data, page, index):
    return page + struct.unpack_from("<H", data, page + 16 + 2 * index)[0]


def first_leaf(data):
    page, _ = main_tree(data)
    while struct.unpack_from("<H", data, page + 10)[0] & 1:
        low, high, highest, _ = struct.unpack_from("<HHHH", data, node(data, page, 0))
        page = (low | high << 16 | highest << 32) * PAGE
    return page


DAMAGE = {  # on a database of three levels
    "no magic": lambda d: word(d, 16, "<I", 0),
    "page size 0": lambda d: (word(d, 40, "<I", 0), word(d, PAGE + 40, "<I", 0)),
    "page size of its own": lambda d: word(d, PAGE + 40, "<I", 512),
    "fixed map": lambda d: word(d, 44, "<H", 9),
    "several values a key": lambda d: word(d, main_tree(d)[1] + 92, "<H", 4),
    "deeper than it says": lambda d: word(d, main_tree(d)[1] + 94, "<H", 2),
    "root outside": lambda d: word(d, main_tree(d)[1] + 128, "<Q", 1 << 40),
    "more pages than the file": lambda d: word(d, main_tree(d)[1] + 136, "<Q", 1 << 30),
    "a branch that is its own child": lambda d: word(d, node(d, main_tree(d)[0], 0), "<H", main_tree(d)[0] // PAGE),
    "a branch of one": lambda d: word(d, main_tree(d)[0] + 12, "<H", 18),
    "a child outside": lambda d: word(d, node(d, main_tree(d)[0], 1) + 4, "<H", 9),
    "an overflow page as root": lambda d: word(d, main_tree(d)[0] + 10, "<H", 4),
    "an empty leaf": lambda d: word(d, first_leaf(d) + 12, "<H", 16),
    "an entry behind its page": lambda d: word(d, first_leaf(d) + 16, "<H", PAGE - 1),
    "a value behind its page": lambda d: word(d, node(d, first_leaf(d), 1) + 2, "<H", 0x7FFF),
    "a key behind its page": lambda d: word(d, node(d, first_leaf(d), 1) + 6, "<H", 0xFFFF),
    "a value in pages that are not there": lambda d: word(d, node(d, first_leaf(d), 1) + 4, "<H", 1),
    "a table as value": lambda d: word(d, node(d, first_leaf(d), 1) + 4, "<H", 2),
    "values of one key": lambda d: word(d, node(d, first_leaf(d), 1) + 4, "<H", 4),
}


def test_damaged_files_end_in_an_error_not_the_process(tmp_path, root):
    whole = (write(tmp_path / "whole", [900] * 3000) / "data.mdb").read_bytes()
    large = (write(tmp_path / "large", [5000] * 40) / "data.mdb").read_bytes()
    damaged = {}
    for name, damage in DAMAGE.items():
        damaged[name] = bytearray(whole)
        damage(damaged[name])
        assert damaged[name] != whole
    for size in (0, 1, 300, PAGE, 2 * PAGE, 3 * PAGE, len(whole) // 2, len(whole) - PAGE, len(whole) - 1):
        damaged[f"cut at {size}"] = whole[:size]
    damaged["large, cut"] = large[: -3 * PAGE]
    damaged["zeros"] = bytes(len(whole))
    damaged["text"] = b"not an LMDB\n" * 1000
    for name, content in damaged.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "data.mdb").write_bytes(content)
    names = ["whole", "large", *damaged]
    done = subprocess.run(
        [sys.executable, "-c", READ], input="\n".join(str(tmp_path / name) for name in names), text=True,
        capture_output=True, cwd=root,
    )  # fmt: skip
    said = dict(itertools.zip_longest(names, done.stdout.splitlines(), fillvalue=f"died: {done.stderr}"))
    assert (said.pop("whole"), said.pop("large")) == ("3000", "40")
    wrong = {name: text for name, text in said.items() if "build or copy it again" not in text or name not in text}
    assert not wrong
    assert "truncated" in said[f"cut at {len(whole) - 1}"]


def test_random_damage_gives_records_or_an_error(tmp_path):
    """Bits turned in the tree's pages; in this process, so a crash ends the tests."""
    whole = bytearray((write(tmp_path / "whole", [300] * 500) / "data.mdb").read_bytes())
    draw = np.random.RandomState(0)
    (tmp_path / "bad").mkdir()
    refused = 0
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            page = draw.randint(0, len(data) // PAGE) * PAGE
            at = page + draw.randint(0, 160 if draw.rand() < 0.7 else PAGE)
            data[at] ^= 1 << draw.randint(8)
        (tmp_path / "bad" / "data.mdb").write_bytes(data)
        try:
            assert all(record.label >= 0 for _, record in records(tmp_path / "bad"))
        except DataError:
            refused += 1
    assert refused > 20


def test_a_database_that_is_rebuilt_while_it_is_open_is_another(tmp_path):
    """Who opened the old one reads it to its end; who opens the path afterwards gets the new one."""
    path = tmp_path / "lmdb"
    write(path, [3] * 700)
    old = Environment.open(str(path))
    assert Environment.open(str(path)) is old
    records = old.records_from(0, False, endless=False)
    next(records)
    write(tmp_path / "other", [5] * 40)
    path.rename(tmp_path / "away")
    (tmp_path / "other").rename(path)
    new = Environment.open(str(path))
    assert sum(1 for _ in new.records_from(0, False, endless=False)) == 40
    assert 1 + sum(1 for _ in records) == 700
    assert sum(1 for _ in old.records_from(0, False, endless=False)) == 700
    assert Environment.open(str(path)) is new and Environment.open(str(tmp_path / "away")) is old


def test_an_lmdb_that_another_thread_is_about_to_close(tmp_path, monkeypatch):
    """lmdb opens a file once a process: the next solver may come before the last one's thread has let go."""
    import threading

    write(tmp_path / "a", [1, 2])
    held = lmdb.open(str(tmp_path / "a"), readonly=True, lock=False)
    closing = threading.Timer(0.2, held.close)
    closing.start()
    assert Environment.open(str(tmp_path / "a")).lmdb.stat()["entries"] == 2
    closing.join()
    monkeypatch.setattr("torchcaffe.data.datasource.PATIENCE", 0.05)
    write(tmp_path / "b", [1, 2])
    with lmdb.open(str(tmp_path / "b"), readonly=True, lock=False):  # the user's own
        with pytest.raises(DataError, match="already open"):
            Environment.open(str(tmp_path / "b"))
