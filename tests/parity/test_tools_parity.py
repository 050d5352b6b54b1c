"""Caffe's tools and ours on the same input: the same files."""

import cv2
import lmdb
import numpy as np  # noqa: E402
import pytest

import torchcaffe as caffe
from torchcaffe.formats.files import read_blob, read_net, read_solver
from torchcaffe.proto import caffe_pb2

LIST = "a.png 3\nb b.jpg -2\nmissing.png 4\ngray.png abc\nc.JPEG 7\nnolabel.png\n\na.png 9"
FLAGS = [
    "",
    "-gray",
    "-resize_width 20 -resize_height=11",
    "--encoded",
    "-encode_type PNG",
    "-encode_type jpeg",
    "-encode_type jpg -resize_width 9 --resize_height 10",
    "-noshuffle --encoded=true -gray=1 -resize_width=5",
]


def records(path):
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), bytes(value)) for key, value in transaction.cursor()]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Folder with img/ and list.txt: color and gray, PNG and JPEG, a name with a space, a file that is missing."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "img").mkdir()
    small = np.random.RandomState(0).randint(0, 256, (6, 6, 3), np.uint8)
    image = cv2.resize(small, (37, 29), interpolation=cv2.INTER_CUBIC)
    shapes = {"a.png": image, "b b.jpg": image[:, ::-1], "gray.png": image[:, :, 0], "c.JPEG": image[::-1]}
    for name, pixels in shapes.items():
        cv2.imwrite(str(folder / "img" / name), np.ascontiguousarray(pixels))
    (folder / "list.txt").write_text(LIST)
    return folder


@pytest.fixture
def ours(monkeypatch):
    """ours(verb, *words) in this process, in the folder given as `cwd`; the exit status."""
    from torchcaffe.commands.cli import main

    def run(*words, cwd):
        monkeypatch.chdir(cwd)
        return main([str(word) for word in words])

    return run


@pytest.mark.parametrize("flags", FLAGS)
def test_convert_imageset(flags, images, tmp_path, real_tool, ours):
    words = [*flags.split(), "img/", "list.txt"]
    real = real_tool("convert_imageset", *words, tmp_path / "real", cwd=images)
    assert real.returncode == 0, real.stderr
    assert ours("convert_imageset", *words, tmp_path / "ours", cwd=images) == 0
    found = records(tmp_path / "ours")
    assert len(found) == 5
    assert found == records(tmp_path / "real")


def test_mean_and_features(images, tmp_path, real_tool, ours):
    """compute_image_mean's and extract_features's outputs, both from the other engine's LMDB."""
    assert real_tool("convert_imageset", "img/", "list.txt", tmp_path / "db", cwd=images).returncode == 0
    ours("convert_imageset", "img/", "list.txt", tmp_path / "our_db", cwd=images)
    real_tool("compute_image_mean", tmp_path / "our_db", tmp_path / "real.binaryproto")
    assert ours("compute_image_mean", tmp_path / "db", tmp_path / "ours.binaryproto", cwd=tmp_path) == 0
    assert (tmp_path / "ours.binaryproto").read_bytes() == (tmp_path / "real.binaryproto").read_bytes()
    assert read_blob(tmp_path / "ours.binaryproto").shape == (1, 3, 29, 37)
    for name, database in (("real", "our_db"), ("ours", "db")):
        (tmp_path / f"{name}.prototxt").write_text(
            f"""layer {{ name: "d" type: "Data" top: "data" top: "label" data_param {{ source: "{tmp_path / database}"
            batch_size: 2 backend: LMDB }}
            transform_param {{ mean_file: "{tmp_path / "ours.binaryproto"}" crop_size: 9 }} }}
            layer {{ name: "ip" type: "InnerProduct" bottom: "data" top: "ip" inner_product_param {{ num_output: 3
            weight_filler {{ type: "xavier" }} }} }}"""
        )
    caffe.Net(str(tmp_path / "ours.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    words = lambda name: ["w.caffemodel", f"{name}.prototxt", "data,ip", f"{name}1,{name}2", "3", "lmdb"]  # noqa: E731
    real = real_tool("extract_features", *words("real"), cwd=tmp_path)
    assert real.returncode == 0, real.stderr
    assert ours("extract_features", *words("ours"), cwd=tmp_path) == 0
    for number in (1, 2):
        pairs = list(zip(records(tmp_path / f"real{number}"), records(tmp_path / f"ours{number}"), strict=True))
        assert [real[0] for real, _ in pairs] == [b"%010d" % index for index in range(6)]
        for (key, real), (our_key, mine) in pairs:
            real, mine = (caffe_pb2.Datum.FromString(value) for value in (real, mine))
            assert key == our_key and np.allclose(real.float_data, mine.float_data, rtol=1e-4, atol=1e-4)
            real.ClearField("float_data"), mine.ClearField("float_data")
            assert real == mine


V1 = """name: "v1" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "c" type: CONVOLUTION bottom: "data" top: "c" blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0
  convolution_param { num_output: 2 kernel_size: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layers { name: "r" type: RELU bottom: "c" top: "c" }"""


def test_upgrades(tmp_path, real_tool, ours):
    (tmp_path / "net").write_text(V1)
    (tmp_path / "solver").write_text('net: "x" base_lr: 0.01 solver_type: ADAGRAD lr_policy: "fixed"')
    blob = caffe_pb2.BlobProto(num=1, channels=1, height=1, width=2, data=[1, 2])
    old = caffe_pb2.NetParameter(name="old")
    old.layers.add(name="ip", type="INNER_PRODUCT", blobs_lr=[1]).blobs.append(blob)
    (tmp_path / "weights").write_bytes(old.SerializeToString())
    for verb, source in (
        ("upgrade_net_proto_text", "net"),
        ("upgrade_solver_proto_text", "solver"),
        ("upgrade_net_proto_binary", "weights"),
    ):
        assert real_tool(verb, source, f"{source}.real", cwd=tmp_path).returncode == 0
        assert ours(verb, source, f"{source}.ours", cwd=tmp_path) == 0
    assert read_net(tmp_path / "net.ours") == read_net(tmp_path / "net.real")
    assert read_solver(tmp_path / "solver.ours").type == "AdaGrad"
    assert "solver_type" not in (tmp_path / "solver.ours").read_text()
    found = [caffe_pb2.NetParameter.FromString((tmp_path / f"weights.{who}").read_bytes()) for who in ("ours", "real")]
    assert found[0] == found[1] and found[0].layer[0].type == "InnerProduct"
