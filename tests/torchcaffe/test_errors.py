"""What Caffe kills the process for is an exception here, which says what and where, and what to do."""

import os
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.data.database import create
from torchcaffe.core.errors import CaffeError, DataError, NetError, PrototxtError, ShapeError, SolverError, WeightsError
from torchcaffe.formats.files import parse_net, write_blob
from torchcaffe.proto import caffe_pb2

INPUT = 'layer { name: "d" type: "Input" top: "data" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 4 } } }\n'
OTHER = 'layer { name: "e" type: "Input" top: "other" input_param { shape { dim: 2 dim: 3 dim: 4 dim: 5 } } }\n'
TRAIN = """layer { name: "d" type: "DummyData" top: "d" dummy_data_param { shape { dim: 1 dim: 2 } } }
layer { name: "i" type: "InnerProduct" bottom: "d" top: "i" inner_product_param { num_output: 1 } }
layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "i" top: "l" }"""


def layer(text, name="x"):
    return f'{INPUT}layer {{ name: "{name}" bottom: "data" top: "{name}" {text} }}'


def product(outputs):
    return layer(f'type: "InnerProduct" inner_product_param {{ num_output: {outputs} }}')


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with databases of which each has one fault."""
    monkeypatch.chdir(tmp_path)
    image = lambda height: caffe_pb2.Datum(channels=3, height=height, width=6, data=bytes(18 * height))  # noqa: E731
    for name, records in {
        "good": [image(6), image(6)],
        "mixed": [image(6), image(5)],
        "undecodable": [caffe_pb2.Datum(data=b"nonsense", encoded=True)],
        "short": [caffe_pb2.Datum(channels=3, height=6, width=6, data=b"12")],
    }.items():
        with create(name) as writer:
            for index, record in enumerate(records):
                writer.put(str(index), record.SerializeToString())
    (tmp_path / "empty").mkdir()
    write_blob("mean5.binaryproto", np.zeros((1, 3, 5, 5)))
    return tmp_path


@pytest.mark.parametrize(
    "source, transform, backend, kind, words",
    [
        ("missing", "", "LMDB", DataError, 'layer "d".*missing.*no LMDB there.*build it'),
        ("empty", "", "LMDB", DataError, "empty: no LMDB there"),
        ("good", "", "LEVELDB", NetError, '"d" .Data.: good is an LMDB: backend: LMDB must be given'),
        ("missing", "", "LEVELDB", DataError, "missing: no LevelDB there .expected missing/CURRENT.; build it first, or give"),
        ("good", 'mean_file: "gone"', "LMDB", DataError, "gone: no such array file"),
        ("good", 'mean_file: "mean5.binaryproto"', "LMDB", NetError, r"\(3, 5, 5\).*\(3, 6, 6\)"),
        ("good", "mean_value: 1 mean_value: 2", "LMDB", NetError, "2 mean values do not fit 3 channels"),
        ("good", 'mean_value: 1 mean_file: "mean5.binaryproto"', "LMDB", NetError, "not both"),
        ("good", "crop_size: 7", "LMDB", NetError, "crop_size 7 is larger than .*6x6"),
        ("mixed", "", "LMDB", DataError, r"mixed: record \S+ has shape \(3, 5, 6\), the first of its batch has \(3, 6, 6\)"),
        ("undecodable", "", "LMDB", DataError, "undecodable: .*not an image"),
        ("short", "", "LMDB", DataError, r"short: .*2 values for shape \(3, 6, 6\)"),
    ],
)
def test_data(folder, make_net, source, transform, backend, kind, words):
    with pytest.raises(kind, match=words):
        make_net(
            f'layer {{ name: "d" type: "Data" top: "data" data_param {{ source: "{source}" batch_size: 2 '
            f"backend: {backend} }} transform_param {{ {transform} }} }}"
        ).forward()


@pytest.mark.parametrize(
    "text, kind, words",
    [
        (
            INPUT + 'layer { name: "r" type: "ReLU" bottom: "nope" top: "x" }',
            NetError,
            '"r": unknown bottom blob "nope".*data',
        ),
        (
            layer('type: "ReLU"') + 'layer { name: "q" type: "ReLU" bottom: "data" top: "x" }',
            NetError,
            '"q": .*multiple sources',
        ),
        (layer('type: "Nope"'), NetError, 'unknown layer type "Nope".*known'),
        (layer('type: "ReLU" loss_weight: 1 loss_weight: 2'), NetError, '"x": loss_weight needs'),
        (layer('type: "ReLU" param { lr_mult: 1 }'), NetError, "1 param entries for 0"),
        (layer('type: "ReLU" bottom: "data"'), NetError, "takes 1 bottom blobs, not 2"),
        (layer('type: "ReLU" include { phase: TEST } exclude { phase: TEST }'), NetError, "include or exclude"),
        (
            INPUT + OTHER + 'layer { name: "c" type: "Concat" bottom: "data" bottom: "other" top: "c" }',
            NetError,
            r'"c".*\(2, 3, 4, 4\).*\(2, 3, 4, 5\)',
        ),
        (
            layer('type: "InnerProduct" param { name: "w" } inner_product_param { num_output: 2 }')
            + 'layer { name: "y" type: "InnerProduct" bottom: "data" top: "y" param { name: "w" } '
            "inner_product_param { num_output: 3 } }",
            ShapeError,
            r'"y": parameter "w" has shape \(3, 48\).*"x", has \(2, 48\)',
        ),
    ],
)
def test_nets(make_net, text, kind, words):
    with pytest.raises(kind, match=words):
        make_net(text)


@pytest.mark.parametrize(
    "text, words",
    [
        (
            "layer {\n  name: 'a # b' # name: \"c\" {\n  convolution_param { kernel_sise: 3 } }",
            r'net, line 3: ConvolutionParameter has no field .kernel_sise.*\(in layer "a # b", convolution_param\)$',
        ),
        (
            'layer { name: "a" }\nlayer { name: "b" include {} kernel: 3 }',
            r'net, line 2: LayerParameter .*\(in layer "b"\)$',
        ),
        ("name: 'x'\nfoo: 3", r"net, line 2: NetParameter has no field 'foo'[^(]*$"),
        ('layer { name: "b" data_param < backend: LMBD > }', r'LMBD.*LMDB.*\(in layer "b", data_param\)$'),
    ],
)
def test_a_fields_path_is_shown(text, words):
    with pytest.raises(PrototxtError, match=words):
        parse_net(text, "net")


def test_weights(folder, make_net):
    net, wider = make_net(product(2)), make_net(product(3))
    net.save("w.caffemodel")
    for call, kind, words in (
        (lambda: net.copy_from("gone.caffemodel"), WeightsError, "gone.caffemodel: no such weights file"),
        (
            lambda: wider.copy_from("w.caffemodel"),
            WeightsError,
            r'"x", blob 0: .*\(2, 48\), this net \(3, 48\); rename',
        ),
        (lambda: wider.share_with(net), WeightsError, r"\(3, 48\).*\(2, 48\)"),
        (lambda: net.save("gone/x.caffemodel"), CaffeError, "folder .*gone does not exist"),
        (lambda: net._forward(0, 9), NetError, "layers 0 to 9"),
        (lambda: net.blobs["data"].reshape(100000, 100000), ShapeError, "2147483647"),
        (lambda: (net.blobs["data"].reshape(2, 3, 4, 5), net.forward()), NetError, '"x".*48.*60'),
    ):
        with pytest.raises(kind, match=words):
            call()


@pytest.mark.parametrize(
    "text, kind, words",
    [
        ('lr_policy: "fixed"', SolverError, "exactly one of net, .* none"),
        ('net: "gone" lr_policy: "fixed"', PrototxtError, "gone: no such net definition"),
        ('net: "t" train_net: "t" lr_policy: "fixed"', SolverError, "found: net, train_net"),
        ('net: "t" lr_policy: "fixed" type: "Lion"', SolverError, 's: unknown solver type "Lion"; known: SGD'),
        ('net: "t" lr_policy: "cosine"', SolverError, 's: unknown lr_policy "cosine"; known: fixed'),
        ('net: "t" lr_policy: "fixed" type: "AdaGrad" momentum: 0.9', SolverError, "s: .*remove momentum: 0.9"),
        ('net: "t" lr_policy: "fixed" test_iter: 1', SolverError, "test_interval"),
        ('net: "t" lr_policy: "fixed" test_net: "t" test_interval: 1', SolverError, "0 test_iter entries do not fit 1"),
        ('net: "t" lr_policy: "fixed" snapshot: 1 snapshot_prefix: "gone/a"', SolverError,
         "snapshot gone/a_iter_0.caffemodel: .*folder .*gone does not exist; create it first, or change snapshot_prefix"),
        ('net: "t" lr_policy: "fixed" regularization_type: "L3" weight_decay: 1', SolverError, 's: .*"L3"; known'),
        (TRAIN, PrototxtError, "is this a net's definition"),
    ],
)
def test_solvers(tmp_path, monkeypatch, text, kind, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text(TRAIN)
    (tmp_path / "s").write_text(text)
    with pytest.raises(kind, match=words):
        caffe.get_solver("s")


NUL = r"a\0z"


@pytest.mark.parametrize(
    "text, place",
    [
        (f'net: "t" lr_policy: "fixed" snapshot_prefix: "{NUL}"', "snapshot_prefix"),
        (f'net: "{NUL}" lr_policy: "fixed"', "net"),
        (f'train_net: "{NUL}" lr_policy: "fixed"', "train_net"),
        (f'net: "t" test_net: "t" test_net: "{NUL}" lr_policy: "fixed"', "test_net"),
        (f'net: "t" weights: "{NUL}" lr_policy: "fixed"', "weights"),
        (f'net_param {{ layer {{ name: "d" type: "Data" data_param {{ source: "{NUL}" }} }} }}',
         "net_param, layer 'd', data_param, source"),
        (f'net_param {{ layer {{ name: "d" image_data_param {{ root_folder: "{NUL}" }} }} }}',
         "net_param, layer 'd', image_data_param, root_folder"),
        (f'net_param {{ layer {{ name: "d" transform_param {{ mean_file: "{NUL}" }} }} }}',
         "net_param, layer 'd', transform_param, mean_file"),
        ('net: "a\0z" lr_policy: "fixed"', "net"),
    ],
)
def test_a_path_with_a_nul_is_refused_at_load(tmp_path, monkeypatch, text, place):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").write_text(TRAIN)
    (tmp_path / "s").write_text(text)
    with pytest.raises(PrototxtError) as error:
        caffe.get_solver("s")
    assert str(error.value) == (
        f"s: {place} 'a\\x00z' holds a NUL character, which no path can hold; write the path without it"
    )


def test_a_nul_where_no_path_stands_is_taken(tmp_path):
    (tmp_path / "net").write_text(TRAIN.replace('name: "i"', r'name: "i\0p"'))
    assert "i\0p" in caffe.Net(str(tmp_path / "net"), caffe.TRAIN).params


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_a_solver_state_that_names_a_nul(tmp_path, suffix):
    from torchcaffe.formats.files import SolverState, read_solver_state, write_solver_state

    path = str(tmp_path / f"a.solverstate{suffix}")
    write_solver_state(path, SolverState(3, "model" if suffix else "a\0z", 0, []))
    if suffix:
        import h5py

        with h5py.File(path, "r+") as file:
            del file["learned_net"]
            file["learned_net"] = np.bytes_(b"a\0z")
    with pytest.raises(SolverError, match=r"learned_net 'a.x00z' holds a NUL character; resume from another snapshot"):
        read_solver_state(path)


def test_a_list_of_images_in_utf_16(tmp_path):
    from torchcaffe.data.image_list import read_list

    (tmp_path / "list").write_bytes("a.jpg 1\n".encode("utf-16"))
    with pytest.raises(DataError, match="list, line 1 holds a NUL character; save the list as UTF-8 text"):
        read_list(str(tmp_path / "list"))


@pytest.mark.parametrize("hdf5", ["", "snapshot_format: HDF5"])
def test_weights_that_would_be_lost_at_the_end_are_told_at_the_start(make_solver, tmp_path, hdf5):
    """snapshot_after_train is on unless said: a training whose last snapshot has no place does not begin."""
    solver = make_solver(TRAIN, f"base_lr: 0.1 lr_policy: 'fixed' max_iter: 3 {hdf5}")
    solver.proto.snapshot_prefix = str(tmp_path / "gone/a")
    with pytest.raises(SolverError, match=r"snapshot .*gone/a_iter_3.caffemodel.* create it first, or change"):
        solver.solve()
    assert solver.iter == 0
    solver.step(1)  # which writes nothing
    solver.proto.snapshot_after_train = False
    solver.solve()
    assert solver.iter == 3


def test_restoring(make_solver, tmp_path):
    solver = make_solver(TRAIN, "base_lr: 0.1 lr_policy: 'fixed'")
    adam = make_solver(TRAIN, "base_lr: 0.1 lr_policy: 'fixed' type: 'Adam' momentum: 0.9")
    solver.step(1)
    solver.snapshot()
    state = str(tmp_path / "snapshot0_iter_1.solverstate")
    with pytest.raises(SolverError, match="gone.solverstate: no such solver state"):
        solver.restore("gone.solverstate")
    with pytest.raises(SolverError, match="is weights .* not a solver state"):
        solver.restore(state.replace("solverstate", "caffemodel"))
    with pytest.raises(WeightsError, match="holds 2 history blobs, this Adam solver needs 4"):
        adam.restore(state)
    os.remove(state.replace("solverstate", "caffemodel"))
    with pytest.raises(WeightsError, match="its weights, .* do not exist"):
        solver.restore(state)


def test_gpus_that_are_not_there():
    with pytest.raises(CaffeError, match="GPU"):
        caffe.set_device(1000)


def test_every_error_is_a_caffe_error_and_so_a_runtime_error():
    """pycaffe raises RuntimeError where it raises at all; scripts catch that."""
    kinds = (DataError, NetError, PrototxtError, ShapeError, SolverError, WeightsError)
    assert issubclass(CaffeError, RuntimeError) and all(issubclass(kind, CaffeError) for kind in kinds)


def test_an_hdf5_file_given_for_the_list_of_them(make_net, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with h5py.File("v.h5", "w") as file:
        file["data"] = np.zeros((2, 3), "f")
    text = 'layer { name: "d" type: "HDF5Data" top: "data" hdf5_data_param { source: "v.h5" batch_size: 2 } }'
    with pytest.raises(DataError, match='layer "d" .*v.h5 is an HDF5 file itself.*a text file that lists .h5 files, one a line'):
        make_net(text)
    Path("list").write_bytes(b"\x89\x01gone.h5")
    with pytest.raises(DataError) as raised:
        make_net(text.replace("v.h5", "list"))
    assert str(raised.value).encode("utf-8").decode().isprintable() and r"\udc89\x01gone.h5" in str(raised.value)


def test_photos_of_two_sizes_are_named(make_net, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("p.png", np.zeros((8, 8, 3), np.uint8))
    cv2.imwrite("q.png", np.zeros((8, 9, 3), np.uint8))
    Path("list.txt").write_text("p.png 0\nq.png 1\n")
    text = ('layer { name: "d" type: "ImageData" top: "x" top: "y" image_data_param { source: "list.txt" batch_size: 2 %s } }')
    with pytest.raises(DataError, match=r'layer "d" .*q.png has shape \(3, 8, 9\).* \(3, 8, 8\); set new_height and new_width'):
        make_net(text % "").forward()
    assert make_net(text % "new_height: 8 new_width: 8").forward()["x"].shape == (2, 3, 8, 8)
