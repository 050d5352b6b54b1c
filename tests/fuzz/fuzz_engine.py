"""Targets of torchcaffe: nets, solvers, weights, solver states, arrays, records and LMDBs, each read as a user's is."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys

import numpy as np
from google.protobuf.message import DecodeError
from fuzz_target import ROOT, target

import torchcaffe as caffe
from torchcaffe.core import rng
from torchcaffe.formats import files, solver_state
from torchcaffe.solvers import policies, resume, updates
from torchcaffe.data.database import Writer, records
from torchcaffe.data.datum import StoredDatum, read_datum, to_array
from torchcaffe.core.errors import CaffeError
from torchcaffe.data.image_list import read_list
from torchcaffe.layers.window_data import read_windows
from torchcaffe.core.net import Net
from torchcaffe.proto import caffe_pb2

SMALL = """name: "small"
layer { name: "d" type: "DummyData" top: "d" top: "t" dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 4 } } }
layer { name: "i" type: "InnerProduct" bottom: "d" top: "i" inner_product_param { num_output: 4
  weight_filler { type: "xavier" } } }
layer { name: "l" type: "EuclideanLoss" bottom: "i" bottom: "t" top: "l" }
"""
V1 = """name: "old" input: "data" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { name: "conv" type: CONVOLUTION bottom: "data" top: "conv" param: "w" param: "b" blob_share_mode: PERMISSIVE
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 weight_decay: 0 convolution_param { num_output: 3 kernel_size: 5 } }
layers { name: "relu" type: RELU bottom: "conv" top: "conv" }
"""
V0 = """name: "older" input: "image" input_dim: 1 input_dim: 3 input_dim: 8 input_dim: 8
layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "image" top: "padded" }
layers { layer { name: "conv" type: "conv" num_output: 3 kernelsize: 5 stride: 2 weight_filler { type: "gaussian" std: 1 }
  blobs_lr: 1 blobs_lr: 2 weight_decay: 1 } bottom: "padded" top: "conv" }
layers { layer { name: "drop" type: "dropout" dropout_ratio: 0.2 } bottom: "conv" top: "conv" }
"""
SOLVER = """net_param { layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 1 } } } }
base_lr: 0.01 lr_policy: "%s" gamma: 0.1 power: 0.75 stepsize: 2 stepvalue: 1 stepvalue: 3 max_iter: 9 momentum: 0.9
weight_decay: 0.0005 regularization_type: "L1" clip_gradients: 5 iter_size: 2 type: "%s" snapshot_prefix: "p"
"""
FIELDS = [f.name.encode() for m in caffe_pb2.DESCRIPTOR.message_types_by_name.values() for f in m.fields]


def read_through(read, data, folder, name):
    path = folder / name
    path.write_bytes(data)
    return read(str(path))


def net_seeds(folder):
    for name in ("demo/deploy_gender", "demo/step2_scheme1", "mtcnn/det1"):
        yield (ROOT / "prototxt" / f"{name}.prototxt").read_bytes()
    yield from (text.encode() for text in (SMALL, V1, V0))


@target(net_seeds, [CaffeError], FIELDS)
def net_definition(data, folder):
    net = read_through(files.read_net, data, folder, "net.prototxt")
    assert not net.layers and not net.input


def solver_seeds(folder):
    yield (ROOT / "solvers" / "demo" / "step4_gnet.prototxt").read_bytes()
    for policy, kind in (("step", "SGD"), ("poly", "Adam"), ("multistep", "AdaDelta"), ("sigmoid", "Nesterov")):
        yield (SOLVER % (policy, kind)).encode()
    yield b'train_net: "a" test_net: "b" test_iter: 1 test_interval: 2 base_lr: 1 lr_policy: "inv" solver_type: ADAGRAD'


class _Position:
    """What a policy asks of a solver."""

    current_step = 0


@target(solver_seeds, [CaffeError], [f.name.encode() for f in caffe_pb2.SolverParameter.DESCRIPTOR.fields])
def solver_definition(data, folder):
    solver = read_through(files.read_solver, data, folder, "solver.prototxt")
    if solver.type in updates.RULES:
        updates.check(solver.type, solver)
    policies.check(solver)
    for iteration in (0, 1, 7, 10**6):
        assert isinstance(policies.rate(solver, iteration, _Position()), float)


def layer_seeds(folder):
    """A net of each of the parity tests' cases: all types of layers, with their settings."""
    sys.path.append(str(ROOT / "tests" / "parity"))
    import files as parity_files
    from cases import CASES

    parity_files.prepare(folder)
    for case in CASES:
        yield case.text(folder=folder, engine="none").encode()


@target(layer_seeds, [CaffeError], FIELDS)
def net(data, folder):
    """Built in both phases; run, forward and backward, where it is small."""
    for phase in (caffe.TRAIN, caffe.TEST):
        param = files.parse_net(data.decode("utf-8", "replace"))
        for layer in param.layer:
            # What a net writes, and what it reads, have targets of their own; sizes are bounded by the memory there is.
            if layer.type in ("HDF5Output", "Python"):
                return
        param.state.phase = phase
        built = Net.from_proto(param)
        if sum(blob.count for blob in built.all_blobs) < 20_000:
            built._forward(0, len(built.built_layers) - 1)
            built._backward(len(built.built_layers) - 1, 0)


def make_solver(folder):
    """A solver of the net SMALL that has made two steps."""
    (folder / "small.prototxt").write_text(SMALL)
    (folder / "small_solver.prototxt").write_text(
        f'net: "{folder}/small.prototxt" base_lr: 0.1 momentum: 0.9 lr_policy: "fixed" max_iter: 9 '
        f'snapshot_prefix: "{folder}/small"'
    )
    caffe.set_random_seed(1)
    solver = caffe.get_solver(str(folder / "small_solver.prototxt"))
    solver.step(2)
    return solver


@functools.lru_cache
def one_solver(folder):
    """The solver into which a target loads what it has read."""
    return make_solver(folder)


def snapshot(folder, kind):
    """Bytes of the snapshot file that ends in `kind`."""
    solver = make_solver(folder)
    solver.proto.snapshot_format = solver.proto.HDF5 if kind.endswith(".h5") else solver.proto.BINARYPROTO
    solver.snapshot()
    return (folder / f"small_iter_2.{kind}").read_bytes()


def weights_seeds(folder):
    yield snapshot(folder, "caffemodel")
    yield (ROOT / "weights" / "mtcnn" / "det1.caffemodel").read_bytes()
    array = np.ones((1, 1, 4, 3), np.float32)
    files.write_v1_weights(folder / "v1", "old", [("i", "INNER_PRODUCT", [array, array[:, :, :1]])], [("d", (1, 3, 8, 8))])
    yield (folder / "v1").read_bytes()
    unpacked = caffe_pb2.NetParameter()
    blob = unpacked.layer.add(name="i").blobs.add(double_data=[1, 2], double_diff=[3, 4])
    blob.shape.dim.extend([2])
    yield unpacked.SerializeToString()
    v0 = caffe_pb2.NetParameter()
    v0.layers.add().layer.blobs.add(num=1, channels=1, height=1, width=1, data=[7])
    yield v0.SerializeToString()
    # Layer "i" with a blob 1 x 1 x 1 x 2 whose floats are tagged one by one, as protobuf before 2.3 wrote them.
    yield bytes.fromhex("a206170a01693a120801100118012002" "2d0000803f" "2d00000040")


def check_weights(data, folder, name):
    for layer in read_through(files.read_weights, data, folder, name):
        for blob in layer.blobs:
            if blob is not None:
                assert blob.data.shape == tuple(blob.shape) and blob.data.dtype == np.float32
                blob.data.sum()
    one_solver(folder).net.copy_from(str(folder / name))


@target(weights_seeds, [CaffeError])
def weights(data, folder):
    check_weights(data, folder, "net.caffemodel")


@target(lambda folder: [snapshot(folder, "caffemodel.h5")], [CaffeError])
def weights_hdf5(data, folder):
    check_weights(data, folder, "net.caffemodel.h5")


def check_state(data, folder, name):
    state = read_through(solver_state.read_solver_state, data, folder, name)
    assert isinstance(state.iter, int) and isinstance(state.learned_net, str)
    for array in state.history:
        assert array.dtype == np.float32
        array.sum()
    one_solver(folder).restore(str(folder / name))


@target(lambda folder: [snapshot(folder, "solverstate")], [CaffeError])
def state(data, folder):
    check_state(data, folder, "net.solverstate")


@target(lambda folder: [snapshot(folder, "solverstate.h5")], [CaffeError])
def state_hdf5(data, folder):
    check_state(data, folder, "net.solverstate.h5")


def record_seeds(folder):
    """A snapshot's record, and one that says nothing of its files, so that mutations reach the rest."""
    whole = snapshot(folder, "json")
    yield whole
    yield json.dumps({**json.loads(whole), "files": {}}).encode()


@target(record_seeds, [CaffeError], [b'"files"', b'"random"', b'"generator"', b'"position"', b'"layers"'])
def snapshot_record(data, folder):
    solver = one_solver(folder)
    for kind in ("caffemodel", "solverstate"):
        (folder / f"small_iter_2.{kind}").touch()
    (folder / "small_iter_2.json").write_bytes(data)
    state = str(folder / "small_iter_2.solverstate")
    resume.restore_positions(solver.net, state, resume.read_record(state))
    rng.generator().draws(700)


def array_seeds(folder):
    for legacy in (False, True):
        files.write_blob(folder / "mean.binaryproto", np.ones((1, 3, 2, 2)), legacy)
        yield (folder / "mean.binaryproto").read_bytes()


@target(array_seeds, [CaffeError])
def array(data, folder):
    assert read_through(files.read_blob, data, folder, "mean.binaryproto").dtype == np.float32


def datum_seeds(folder):
    import cv2

    photo = np.arange(36 * 36 * 3, dtype=np.uint32).astype(np.uint8).reshape(36, 36, 3)
    for kind in (".png", ".jpg", ".bmp", ".tiff", ".webp", ".gif", ".ppm", ".jp2"):
        yield caffe_pb2.Datum(data=cv2.imencode(kind, photo)[1].tobytes(), encoded=True, label=1).SerializeToString()
    yield caffe_pb2.Datum(channels=3, height=36, width=36, data=photo.tobytes(), label=2).SerializeToString()
    yield caffe_pb2.Datum(channels=1, height=1, width=2, float_data=[1, 2]).SerializeToString()


@target(datum_seeds, [CaffeError])
def datum(data, folder):
    try:
        message = read_datum(memoryview(data))
    except DecodeError:  # what this one is documented to raise
        return
    for force in ("", "color", "gray"):
        array = to_array(message, "the record", force)
        assert array.ndim == 3 and array.size and array.dtype in (np.uint8, np.float32)


def lmdb_seeds(folder):
    for name, count, size in (("few", 3, 30), ("large", 3, 9000), ("many", 400, 30)):
        with Writer(folder / name) as writer:
            for index in range(count):
                record = caffe_pb2.Datum(channels=1, height=1, width=size, data=bytes(size), label=index)
                writer.put(f"{index:08d}", record.SerializeToString())
        yield (folder / name / "data.mdb").read_bytes()


@target(lmdb_seeds, [CaffeError])
def lmdb(data, folder):
    path = folder / "lmdb"
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path)
    (path / "data.mdb").write_bytes(data)
    for count, (key, record) in enumerate(records(path)):
        assert isinstance(key, str) and isinstance(record, (StoredDatum, caffe_pb2.Datum))
        if count > 500:
            break


@target(lambda folder: [b"a b.png 3\nc.png -1\r\nlink 0\n", b"/absolute.png\n\n", b"../up.png 7 x"], [CaffeError])
def image_list(data, folder):
    for name, label in read_through(read_list, data, folder, "list.txt"):
        assert isinstance(name, str) and isinstance(label, int)


@target(lambda folder: [b"# 0 a.png 3 9 9 2\n1 0.9 0 0 4 4\n2 0.1 1 1 8 8\n# 1 b.png 3 5 5 0\n"], [CaffeError])
def window_list(data, folder):
    for windows in read_through(read_windows, data, folder, "windows.txt"):
        for window in windows:
            assert isinstance(window.path, str) and all(abs(number) <= 2**31 for number in window[1:])


def table_seeds(folder):
    import h5py

    with h5py.File(folder / "seed.h5", "w") as file:
        file["data"] = np.ones((3, 2, 2), np.float32)
        file["label"] = np.arange(3)
        file.create_dataset("packed", data=np.ones((3, 4)), chunks=(1, 4), compression="gzip")
    yield (folder / "seed.h5").read_bytes()


@target(table_seeds, [CaffeError])
def hdf5_data(data, folder):
    (folder / "list.txt").write_text(str(folder / "table.h5"))
    (folder / "table.h5").write_bytes(data)
    for tops in ('top: "data" top: "label"', 'top: "packed"'):
        built = files.parse_net(
            f'layer {{ name: "h" type: "HDF5Data" {tops} '
            f'hdf5_data_param {{ source: "{folder}/list.txt" batch_size: 2 }} }}'
        )
        Net.from_proto(built)._forward(0, 0)
