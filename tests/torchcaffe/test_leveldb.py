"""LevelDB as a backend: what Data layers and tools read and write, and what is said where it cannot be."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.commands.cli import main
from torchcaffe.data.database import create, records
from torchcaffe.core.errors import CaffeError, DataError
from torchcaffe.data.leveldb import LevelDB
from torchcaffe.proto import caffe_pb2

PLYVEL = "needs the package plyvel: pip install plyvel"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def plyvel():
    return pytest.importorskip("plyvel", reason=PLYVEL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(path, count=5, backend="leveldb"):
    random = np.random.RandomState(1)
    with create(path, backend) as writer:
        for index in random.permutation(count):  # a database orders by key
            pixels = random.randint(0, 256, 2 * 3 * 4).astype(np.uint8).tobytes()
            datum = caffe_pb2.Datum(channels=2, height=3, width=4, data=pixels, label=int(index))
            writer.put(f"{index:08d}", datum.SerializeToString())


def data_layer(source, backend="LEVELDB", batch=3):
    return (
        f'layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{source}" batch_size: {batch} '
        f"{f'backend: {backend}' if backend else ''} }} }}"
    )


def test_a_data_layer_reads_in_key_order_over_and_over(folder, plyvel, make_net):
    build("db"), build("lmdb", backend="lmdb")
    ours, lmdb = make_net(data_layer("db", backend="")), make_net(data_layer("lmdb", "LMDB"))  # LEVELDB is the default
    for _ in range(4):
        ours.forward(), lmdb.forward()
        for name in ("data", "label"):
            np.testing.assert_array_equal(ours.blobs[name].data, lmdb.blobs[name].data)


def test_two_layers_of_a_process_share_one(folder, plyvel, make_net):
    build("db")
    nets = [make_net(data_layer("db")) for _ in range(2)]
    for net in nets:
        assert net.forward()["label"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("position", [0, 3, 4, 5, 12, 14])
def test_positions_count_on_over_the_end(folder, plyvel, position):
    build("db")
    keys = [int(key) for key, _ in LevelDB.open("db").records_from(position, False, endless=False)]
    assert keys == list(range(position % 5, 5))


def test_what_is_not_taken_is_passed_over(folder, plyvel):
    build("db")
    found = LevelDB.open("db").records_from(0, False, owns=lambda position: position % 2 == 1)
    assert [int(next(found)[0]) for _ in range(5)] == [1, 3, 0, 2, 4]


def test_a_snapshot_goes_on_with_the_next_records(folder, plyvel, make_net):
    build("db")
    net = make_net(data_layer("db"))
    for _ in range(4):
        net.forward()
    again = make_net(data_layer("db"))
    again.built_layers[0].set_data_state(net.built_layers[0].data_state())
    assert again.forward()["label"].tolist() == net.forward()["label"].tolist() == [2, 3, 4]


def test_tools_write_and_read(folder, plyvel, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    random = np.random.RandomState(3)
    for index in range(4):
        cv2.imwrite(f"{index}.png", random.randint(0, 256, (5, 6, 3)).astype(np.uint8))
    Path("list.txt").write_text("".join(f"{index}.png {index}\n" for index in range(4)))
    for backend in ("lmdb", "leveldb"):
        assert main(["convert_imageset", "-backend", backend, "./", "list.txt", backend]) == 0
        assert main(["compute_image_mean", "-backend", backend, backend, f"{backend}.binaryproto"]) == 0
    assert Path("lmdb.binaryproto").read_bytes() == Path("leveldb.binaryproto").read_bytes()
    lmdb, leveldb = ([(k, bytes(d.data), d.label) for k, d in records(name, name)] for name in ("lmdb", "leveldb"))
    assert lmdb == leveldb and len(lmdb) == 4
    Path("net.prototxt").write_text(data_layer("leveldb", batch=2))
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    assert main(["extract_features", "net.caffemodel", "net.prototxt", "data", "features", "2", "leveldb"]) == 0
    assert [key for key, _ in records("features", "leveldb")] == [f"{index:010d}" for index in range(4)]


def test_what_cannot_be_read_is_named(folder, plyvel, make_net):
    build("db")
    for name in os.listdir("db"):
        if name.endswith((".log", ".ldb")):
            content = bytearray(Path("db", name).read_bytes())
            content[len(content) // 2] ^= 255
            Path("db", name).write_bytes(content)
    with pytest.raises(DataError, match="db: .*LevelDB .*(corrupt|Corrupt|checksum).*build or copy it again"):
        make_net(data_layer("db", batch=10)).forward()
    build("none", count=0)
    with pytest.raises(DataError, match="none: the LevelDB is empty"):
        make_net(data_layer("none"))
    with create("odd", "leveldb") as writer:
        writer.put("k", b"\xff\xff no datum")
    with pytest.raises(DataError, match="odd: record k is not a Datum"):
        make_net(data_layer("odd"))
    with pytest.raises(DataError, match="odd: already exists"):
        create("odd", "leveldb")
    with pytest.raises(DataError, match="odd: no LMDB there .*it is a LevelDB: give backend: LEVELDB"):
        make_net(data_layer("odd", "LMDB"))


def test_another_process_may_hold_it(folder, plyvel, make_net):
    build("db")
    script = "import plyvel, sys; held = plyvel.DB('db'); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(DataError, match="db: .*LevelDB lets one process in at a time; end the other one"):
            make_net(data_layer("db"))
        other.stdin.close()


def test_the_missing_package_is_named(folder, monkeypatch, make_net):
    monkeypatch.setitem(sys.modules, "plyvel", None)
    Path("db").mkdir()
    Path("db/CURRENT").write_text("MANIFEST-000001\n")
    for attempt in (lambda: make_net(data_layer("db")), lambda: create("new", "leveldb")):
        with pytest.raises(CaffeError, match="LevelDB needs the package plyvel, which is not installed; type: pip install plyvel"):
            attempt()


def test_nothing_else_needs_the_package():
    code = "import sys; sys.modules['plyvel'] = None; import torchcaffe, torchcaffe.data.database, torchcaffe.data.datasource"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
