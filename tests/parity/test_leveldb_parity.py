"""LevelDBs between the engines: each reads what the other's tools wrote."""

import cv2
import numpy as np  # noqa: E402
import pytest

import torchcaffe as caffe
from torchcaffe.commands.cli import main
from torchcaffe.data.database import records
from torchcaffe.formats.files import read_blob

pytest.importorskip("plyvel", reason="needs the package plyvel: pip install plyvel")
COUNT = 1003  # more than a commit holds
READ = """
import caffe, numpy as np, sys
net = caffe.Net(sys.argv[1], caffe.TEST)
found = []
for _ in range(6):
    net.forward()
    found.append([net.blobs["data"].data.copy().sum((1, 2, 3)), net.blobs["label"].data.copy()])
np.save(sys.argv[2], found)
"""


@pytest.fixture(scope="module")
def folder(real_tool, tmp_path_factory):
    """real/ and ours/: LevelDBs of the same images."""
    folder = tmp_path_factory.mktemp("leveldb")
    random = np.random.RandomState(4)
    for index in range(COUNT):
        cv2.imwrite(str(folder / f"{index}.png"), random.randint(0, 256, (3, 4, 3)).astype(np.uint8))
    (folder / "list.txt").write_text("".join(f"{index}.png {index % 7}\n" for index in range(COUNT)))
    arguments = ["-backend", "leveldb", f"{folder}/", f"{folder}/list.txt"]
    done = real_tool("convert_imageset", *arguments, folder / "real")
    assert done.returncode == 0, done.stderr[-2000:]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOG_minloglevel", "1")
        assert main(["convert_imageset", *arguments, str(folder / "ours")]) == 0
    return folder


def test_we_read_what_caffe_wrote(folder):
    real, ours = ([(k, bytes(d.data), d.label) for k, d in records(folder / name, "leveldb")] for name in ("real", "ours"))
    assert real == ours and len(ours) == COUNT


def test_caffe_reads_what_we_wrote(folder, real_tool, monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "1")
    done = real_tool("compute_image_mean", "-backend", "leveldb", folder / "ours", folder / "real.binaryproto")
    assert done.returncode == 0, done.stderr[-2000:]
    assert main(["compute_image_mean", "-backend", "leveldb", f"{folder}/real", f"{folder}/ours.binaryproto"]) == 0
    np.testing.assert_array_equal(read_blob(folder / "real.binaryproto"), read_blob(folder / "ours.binaryproto"))


def test_data_layers_give_the_same(folder, real_python, monkeypatch):
    """Of the default backend, over the end of the database."""
    monkeypatch.setenv("GLOG_minloglevel", "2")
    for name in ("real", "ours"):
        (folder / f"{name}.prototxt").write_text(
            f'layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{folder}/{name}" batch_size: 300 }} }}'
        )
    (folder / "read.py").write_text(READ)
    done = real_python(folder / "read.py", folder / "ours.prototxt", folder / "read.npy")
    assert done.returncode == 0, done.stderr[-2000:]
    net = caffe.Net(str(folder / "real.prototxt"), caffe.TEST)
    for sums, labels in np.load(folder / "read.npy"):
        net.forward()
        np.testing.assert_array_equal(net.blobs["data"].data.sum((1, 2, 3)), sums)
        np.testing.assert_array_equal(net.blobs["label"].data, labels)
