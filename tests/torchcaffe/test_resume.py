"""Going on from a snapshot: bit for bit what an uninterrupted training gives, and damage found before it is used."""

import json
import os

import cv2
import h5py
import numpy as np
import pytest

import torchcaffe as caffe
from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, record_key
from torchcaffe.core.errors import SolverError

RECORDS = 11  # no multiple of the batch size: epochs end within batches
TRANSFORM = "transform_param { mirror: true crop_size: 9 mean_value: 100 }"
SOURCES = {
    "LMDB": 'layer {{ name: "data" type: "Data" top: "data" top: "label" {transform} '
    'data_param {{ source: "{folder}/lmdb" batch_size: 4 backend: LMDB }} }}',
    "shuffled list": 'layer {{ name: "data" type: "ImageData" top: "data" top: "label" {transform} '
    'image_data_param {{ source: "{folder}/list.txt" batch_size: 4 shuffle: true }} }}',
    "shuffled HDF5": 'layer {{ name: "data" type: "HDF5Data" top: "data" top: "label" '
    'hdf5_data_param {{ source: "{folder}/hdf5.txt" batch_size: 4 shuffle: true }} }}',
    "drawn": 'layer {{ name: "data" type: "DummyData" top: "data" top: "label" dummy_data_param {{ '
    "shape {{ dim: 4 dim: 3 dim: 9 dim: 9 }} shape {{ dim: 4 }} "
    'data_filler {{ type: "uniform" min: -1 max: 1 }} data_filler {{ type: "constant" value: 1 }} }} }}',
}
LAYERS = """
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 6 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "drop" }
layer { name: "ip" type: "InnerProduct" bottom: "drop" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """train_net: "{folder}/net.prototxt" base_lr: 0.001 momentum: 0.9 weight_decay: 0.01 lr_policy: "multistep" gamma: 0.5
stepvalue: 3 stepvalue: 9 max_iter: 99 snapshot_prefix: "{folder}/snapshot" {more}
"""


@pytest.fixture
def folder(tmp_path):
    random = np.random.RandomState(0)
    images = random.randint(0, 256, (RECORDS, 12, 12, 3), np.uint8)
    writer, lines = LmdbWriter(str(tmp_path / "lmdb")), []
    for index, image in enumerate(images):
        planes = np.ascontiguousarray(image.transpose(2, 0, 1))
        writer.put(record_key(index, "noise.png"), image_datum(planes.tobytes(), 12, "raw", index % 3))
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
        lines.append(f"{tmp_path}/{index}.png {index % 3}")
    writer.close()
    (tmp_path / "list.txt").write_text("\n".join(lines))
    for number in range(2):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["data"] = random.normal(0, 1, (7, 3, 9, 9)).astype(np.float32)
            file["label"] = np.arange(7, dtype=np.float32) % 3
    (tmp_path / "hdf5.txt").write_text(f"{tmp_path}/0.h5\n{tmp_path}/1.h5\n")
    return tmp_path


def solver_of(folder, source="LMDB", more="random_seed: 5"):
    (folder / "net.prototxt").write_text(SOURCES[source].format(folder=folder, transform=TRANSFORM) + LAYERS)
    (folder / "solver.prototxt").write_text(SOLVER.format(folder=folder, more=more))
    return caffe.get_solver(str(folder / "solver.prototxt"))


def weights(solver):
    return [np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("more", ["random_seed: 5", 'type: "Adam" momentum2: 0.99 snapshot_format: HDF5'])
@pytest.mark.parametrize("source", SOURCES)
def test_resumed_is_uninterrupted_bit_for_bit(folder, source, more):
    if "Adam" in more:
        caffe.set_random_seed(9)  # the solver itself names no seed
    solver = solver_of(folder, source, more)
    solver.step(6)
    solver.snapshot()
    solver.step(7)
    straight = weights(solver)
    caffe.set_random_seed(1234)  # whatever was drawn since
    resumed = solver_of(folder, source, more)
    resumed.net.forward()  # and whatever was read
    suffix = ".h5" if "HDF5" in more else ""
    resumed.restore(str(folder / f"snapshot_iter_6.solverstate{suffix}"))
    resumed.step(7)
    assert same(weights(resumed), straight)
    assert same([tensor.numpy() for tensor in resumed.history], [tensor.numpy() for tensor in solver.history])


def test_without_a_record_data_starts_anew_as_in_caffe(folder):
    solver = solver_of(folder)
    solver.step(6)
    solver.snapshot()
    solver.step(3)
    os.remove(folder / "snapshot_iter_6.json")
    resumed = solver_of(folder)
    resumed.restore(str(folder / "snapshot_iter_6.solverstate"))
    resumed.step(3)
    assert resumed.iter == 9 and not same(weights(resumed), weights(solver))


@pytest.mark.parametrize("name", ["snapshot_iter_2.caffemodel", "snapshot_iter_2.solverstate"])
@pytest.mark.parametrize("damage", ["bit", "end"])
def test_damage_is_found_before_use(folder, name, damage):
    solver = solver_of(folder)
    solver.step(2)
    solver.snapshot()
    content = bytearray((folder / name).read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 4
    else:
        del content[-10:]
    (folder / name).write_bytes(content)
    before = weights(solver)
    with pytest.raises(SolverError, match=f"{name}: is damaged: .* resume from an earlier snapshot"):
        solver.restore(str(folder / "snapshot_iter_2.solverstate"))
    assert same(weights(solver), before)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": {"snapshot_iter_2.caffemodel": {}}}'])
def test_a_broken_record_is_named(folder, text):
    solver = solver_of(folder)
    solver.step(2)
    solver.snapshot()
    (folder / "snapshot_iter_2.json").write_text(text)
    with pytest.raises(SolverError, match="snapshot_iter_2.json: not a snapshot's record"):
        solver.restore(str(folder / "snapshot_iter_2.solverstate"))


def test_a_record_of_another_net_is_refused(folder):
    solver = solver_of(folder)
    solver.step(2)
    solver.snapshot()
    path = folder / "snapshot_iter_2.json"
    record = json.loads(path.read_text())
    record["layers"]["data"] = {"elsewhere": 1}
    path.write_text(json.dumps(record))
    with pytest.raises(SolverError, match="snapshot_iter_2.json: does not fit this net"):
        solver.restore(str(folder / "snapshot_iter_2.solverstate"))
