"""Each engine reads what the other wrote, and goes on training from the other's snapshots as if uninterrupted."""

import sys
from pathlib import Path

import cv2
import numpy as np  # noqa: E402
import pytest

import torchcaffe as caffe
from torchcaffe.formats.files import read_net, read_solver_state, read_weights, write_v1_weights

sys.path.insert(0, str(Path(__file__).parent))
import cross_engine  # noqa: E402

KINDS = range(len(cross_engine.KINDS))
SCRIPT = Path(__file__).with_name("cross_engine.py")


def arrays(path):
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def assert_equal(left, right, relative=0.0):
    assert left.keys() == right.keys() and left
    for name in left:
        scale = max(abs(right[name]).max(), 1e-3)
        assert left[name].shape == right[name].shape
        assert abs(left[name] - right[name]).max() <= relative * scale, name


@pytest.fixture(scope="module")
def runs(real_python, real_tool, tmp_path_factory):
    """Folder with real/ and ours/, each holding what that engine wrote, and then read of the other."""
    from torchcaffe.commands.cli import main

    folder = tmp_path_factory.mktemp("cross")
    for name in ("img", "real", "ours"):
        (folder / name).mkdir()
    random = np.random.RandomState(1)
    for index in range(8):
        cv2.imwrite(str(folder / f"img/{index}.png"), random.randint(0, 256, (12, 12, 3), np.uint8))
    (folder / "list.txt").write_text("".join(f"{index}.png {index % 3}\n" for index in range(8)))
    paths = {who: [str(folder / f"{who}_lmdb"), str(folder / f"{who}.binaryproto")] for who in ("real", "ours")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOG_minloglevel", "1")
        assert main(["convert_imageset", f"{folder}/img/", f"{folder}/list.txt", paths["ours"][0]]) == 0
        assert main(["compute_image_mean", *paths["ours"]]) == 0
        real_tool("convert_imageset", f"{folder}/img/", f"{folder}/list.txt", paths["real"][0])
        real_tool("compute_image_mean", *paths["real"])
        # Each engine trains on the other's LMDB and mean.
        done = real_python(SCRIPT, "write", folder / "real", *paths["ours"])
        assert done.returncode == 0, done.stderr[-3000:]
        cross_engine.write(caffe, str(folder / "ours"), *paths["real"])
        old_weights(folder / "ours")
        done = real_python(SCRIPT, "read", folder / "real", *paths["ours"], folder / "ours")
        assert done.returncode == 0, done.stderr[-3000:]
        cross_engine.read(caffe, str(folder / "ours"), *paths["real"], str(folder / "real"))
    return folder


def old_weights(folder):
    """conv and ip of net.caffemodel once more, as Caffe wrote weights in 2014."""
    types = {"Convolution": "CONVOLUTION", "InnerProduct": "INNER_PRODUCT"}
    layers = []
    for layer in read_weights(folder / "net.caffemodel"):
        if layer.type in types:
            shapes = [(1,) * (4 - len(blob.shape)) + tuple(blob.shape) for blob in layer.blobs]
            arrays = [blob.data.reshape(shape) for blob, shape in zip(layer.blobs, shapes)]
            layers.append((layer.name, types[layer.type], arrays))
    write_v1_weights(folder / "v1.caffemodel", "old", layers)


@pytest.mark.slow
@pytest.mark.parametrize("reader, writer", [("ours", "real"), ("real", "ours")])
@pytest.mark.parametrize("kind", KINDS)
def test_restoring_and_going_on(runs, reader, writer, kind):
    assert_equal(arrays(runs / reader / f"restored{kind}.npz"), arrays(runs / writer / f"half{kind}.npz"))
    uninterrupted = arrays(runs / writer / f"whole{kind}.npz")
    assert_equal(arrays(runs / reader / f"resumed{kind}.npz"), uninterrupted, 1e-3)
    moved = max(
        abs(uninterrupted[name] - before).max() for name, before in arrays(runs / writer / f"half{kind}.npz").items()
    )
    assert moved > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_both_train_alike(runs, kind):
    assert_equal(arrays(runs / "ours" / f"whole{kind}.npz"), arrays(runs / "real" / f"whole{kind}.npz"), 1e-3)


@pytest.mark.parametrize("reader, writer", [("ours", "real"), ("real", "ours")])
@pytest.mark.parametrize("name", ["net.caffemodel", "net.caffemodel.h5"])
def test_weights(runs, reader, writer, name):
    assert_equal(arrays(runs / reader / f"{name}.npz"), arrays(runs / writer / f"{name}.npz"))


def test_caffe_reads_our_v1_weights(runs):
    old, new = arrays(runs / "real" / "v1.caffemodel.npz"), arrays(runs / "real" / "net.caffemodel.npz")
    for name in ("conv/0", "ip/0", "ip/1"):
        assert np.array_equal(old[name], new[name])


@pytest.mark.parametrize("kind", KINDS)
def test_states_say_the_same(runs, kind):
    suffix = ".h5" if cross_engine.KINDS[kind][1] == "HDF5" else ""
    name = f"kind{kind}_iter_{cross_engine.N}.solverstate{suffix}"
    real, ours = (read_solver_state(runs / who / name) for who in ("real", "ours"))
    assert (real.iter, real.current_step) == (ours.iter, ours.current_step)
    assert Path(real.learned_net).name == Path(ours.learned_net).name
    assert [array.shape for array in real.history] == [array.shape for array in ours.history]
    for left, right in zip(real.history, ours.history):
        assert np.allclose(left, right, rtol=1e-2, atol=1e-4 * max(abs(left).max(), 1e-6))


def test_snapshots_hold_the_same_definition(runs):
    """The nets inside both caffemodels: the same layers, parameters and names."""
    from torchcaffe.proto import caffe_pb2

    name = f"kind0_iter_{cross_engine.N}.caffemodel"
    real, ours = (caffe_pb2.NetParameter.FromString((runs / who / name).read_bytes()) for who in ("real", "ours"))
    for net in (real, ours):
        for layer in net.layer:
            del layer.blobs[:]
        net.layer[0].data_param.source = net.layer[0].transform_param.mean_file = ""
    assert real == ours
    assert read_net(runs / "ours" / "net.prototxt").name == ours.name
