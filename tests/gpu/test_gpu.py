"""A GPU against the CPU, in float32: `make test-gpu`; `pytest tests/gpu -m gpu --device cpu` tries the tests themselves.

Both draw the same numbers (set_exact_draws), so that Dropout and STOCHASTIC pooling compare too.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import cv2
import kill_chain
import lmdb
import numpy as np
import pytest
import repeating
import run_cases
from cases import CASES
from comparison import LIMIT, ROOT, difference
from files import prepare
from net_jobs import NETS, net_jobs

import torchcaffe
from torchcaffe.data import shuffles
from torchcaffe.data.transformer import Transformer
from torchcaffe.proto import caffe_pb2

pytestmark = pytest.mark.gpu

CURVE = WEIGHTS = 1e-3  # relative, after 20 iterations: the limits of training against real Caffe
PRECISIONS = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}  # relative norm of a gradient's error


def both(device, work):
    """What `work()` gives on the CPU and on the device, from the same state of all generators."""
    found, library = [], shuffles.library.state()
    torchcaffe.set_random_seed(1)
    found.append(work())
    shuffles.library.set_state(library)  # of HDF5Data's shuffles: one for the whole process
    torchcaffe.set_random_seed(1)
    with device.use():
        found.append(work())
    return found


# ---- layers
@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("cases")
    prepare(path)
    return path


@pytest.mark.parametrize("type", sorted({case.type for case in CASES}))
def test_layers(device, folder, type):
    """All parity cases, forward and backward: what can be seen of the nets is within LIMIT."""
    numbers = [number for number, case in enumerate(CASES) if case.type == type]

    def run():
        arrays = {}
        for number in numbers:
            run_cases.run_case(torchcaffe, "torchcaffe", folder, CASES[number], number, arrays)
        return arrays

    ours, found = both(device, run)
    assert ours.keys() == found.keys()
    apart = {f"{what} {CASES[int(what.split('/')[0])].layer}": difference(array, found[what])
             for what, array in ours.items()}  # fmt: skip
    assert not (wrong := {what: value for what, value in apart.items() if not value <= LIMIT}), json.dumps(wrong, indent=1)


DROPOUT = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 100 dim: 1000 } } }
layer { name: "d" type: "Dropout" bottom: "x" top: "y" dropout_param { dropout_ratio: 0.3 } }
layer { name: "p" type: "Reshape" bottom: "y" top: "r" reshape_param { shape { dim: 10 dim: 10 dim: 10 dim: 100 } } }
layer { name: "s" type: "Pooling" bottom: "r" top: "s" pooling_param { pool: STOCHASTIC kernel_size: 2 stride: 2 } }"""


def test_the_devices_own_draws(device, tmp_path):
    """Without exact draws: the shares are right, another pass draws others, the same seed the same."""
    (tmp_path / "net").write_text(DROPOUT)

    def passes():
        torchcaffe.set_random_seed(3)
        net = torchcaffe.Net(str(tmp_path / "net"), torchcaffe.TRAIN)
        net.blobs["x"].data[...] = np.arange(1, 100001).reshape(100, 1000) / 1e5
        return [{name: array.copy() for name, array in net.forward(blobs=["y", "s"]).items()} for _ in range(2)]

    with device.use(exact_draws=False):
        first, second = passes()
        again, _ = passes()
    for name in ("y", "s"):
        assert np.array_equal(first[name], again[name]) and not np.array_equal(first[name], second[name])
    assert abs((first["y"] == 0).mean() - 0.3) < 0.01
    kept = first["s"][first["s"] > 0]
    assert kept.size and np.isin(kept, first["y"]).all()


# ---- whole nets
@pytest.mark.parametrize("name", list(NETS))
def test_whole_nets(device, tmp_path, name):
    """20 iterations of the nets that parity trains, at the tests' size: losses and weights."""
    if NETS[name].weights and not (ROOT / NETS[name].weights).exists():
        pytest.skip(f"needs {NETS[name].weights}: python -m detector.convert makes it")
    (job,) = net_jobs(tmp_path, "small", [name])

    def train():
        solver = torchcaffe.get_solver(job["solver"])
        solver.net.copy_from(job["weights"])
        torchcaffe.set_random_seed(job["seed"])
        losses = []
        for _ in range(job["iterations"]):
            solver.step(1)
            losses.append(solver.mean_loss)
        return np.array(losses), [np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs]

    (losses, weights), (their_losses, their_weights) = both(device, train)
    assert np.isfinite(losses).all() and not (losses == losses[0]).all()
    assert (np.abs(losses - their_losses) / np.maximum(np.abs(losses), 1e-12)).max() <= CURVE
    assert max(map(difference, weights, their_weights)) <= WEIGHTS


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precisions(device, tmp_path, precision):
    """One forward and backward pass of CIFAR-10's net; the parameters' gradients too."""
    if precision == "tf32" and device.gpu is None:
        pytest.skip("tf32 is for GPUs")
    (job,) = net_jobs(tmp_path, "small", ["CIFAR-10 full"])

    def run():
        torchcaffe.set_random_seed(5)
        net = torchcaffe.Net(job["net"], torchcaffe.TRAIN)
        net.copy_from(job["weights"])
        net.forward()
        net.backward()
        return [np.array(blob.diff) for blobs in net.params.values() for blob in blobs]

    expected = run()
    with device.use(precision=precision):
        found = run()
    for ours, theirs in zip(expected, found):
        assert np.linalg.norm(ours - theirs) <= PRECISIONS[precision] * np.linalg.norm(ours)


# ---- data
def _encoded(image, encode):
    if encode == "raw":
        channels, height, width = image.shape
        return caffe_pb2.Datum(channels=channels, height=height, width=width, data=image.tobytes())
    _, data = cv2.imencode("." + encode, np.ascontiguousarray(image.transpose(1, 2, 0)))
    return caffe_pb2.Datum(encoded=True, data=data.tobytes())


@pytest.mark.parametrize("encode", ["raw", "jpg", "png"])
@pytest.mark.parametrize("transform", [
    "mirror: true mean_value: 93.594 mean_value: 104.7624 mean_value: 129.1863",
    "mirror: true crop_size: 24 scale: 0.0125 mean_value: 120",
])  # fmt: skip
def test_batches_of_the_data_layer_bit_for_bit(device, tmp_path, monkeypatch, encode, transform):
    if device.gpu is None:  # as for a GPU: the stored bytes are sent, and the device computes with them
        finishes = [False, True]
        monkeypatch.setattr(Transformer, "finishes_on", lambda self, device: finishes[0])
    images = np.random.default_rng(0).integers(0, 256, (13, 3, 32, 32), dtype=np.uint8)
    with lmdb.open(str(tmp_path / "lmdb")) as environment, environment.begin(write=True) as transaction:
        for index, image in enumerate(images):
            datum = _encoded(image, encode)
            datum.label = index
            transaction.put(b"%08d" % index, datum.SerializeToString())
    (tmp_path / "net").write_text(f"""layer {{ name: "data" type: "Data" top: "data" top: "label"
        transform_param {{ {transform} }} data_param {{ source: "{tmp_path}/lmdb" backend: LMDB batch_size: 8 }} }}""")

    def batches():
        net = torchcaffe.Net(str(tmp_path / "net"), torchcaffe.TRAIN)
        found = []
        for _ in range(12):  # more than are read ahead, so that buffers are lent again
            net.forward()
            found += [net.blobs[name].data.copy() for name in ("data", "label")]
        if device.gpu is None:
            finishes.reverse()
        return found

    expected, found = both(device, batches)
    assert all(np.array_equal(a, b) for a, b in zip(expected, found)) and len({a.tobytes() for a in found}) > 12


# ---- snapshots
def test_a_snapshot_of_either_device_is_resumed_on_the_other(device, tmp_path):
    """Weights and history are the same bits in both; the next iterations agree."""
    (job,) = net_jobs(tmp_path, "small", ["LeNet"])

    def trained(iterations, restore=None):
        solver = torchcaffe.get_solver(job["solver"])
        solver.proto.snapshot_prefix = str(tmp_path / "snapshot")
        if restore:
            solver.restore(restore)
        else:
            solver.net.copy_from(job["weights"])
        solver.step(iterations)
        return solver, [np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs]

    state = str(tmp_path / "snapshot_iter_3.solverstate")
    with device.use():
        solver, weights = trained(3)
        solver.snapshot()
        history = [tensor.cpu().numpy() for tensor in solver.history]
    restored, same = trained(0, state)
    assert all(map(np.array_equal, weights, same))
    assert all(map(np.array_equal, history, [tensor.numpy() for tensor in restored.history]))
    _, expected = trained(3, state)
    with device.use():
        _, found = trained(3, state)
    assert max(map(difference, expected, found)) <= LIMIT


# ---- the same bits
def test_set_deterministic_gives_the_same_bits_from_run_to_run_and_after_a_stop(device, tmp_path):
    command = [sys.executable, repeating.__file__, str(tmp_path), "cpu" if device.gpu is None else str(device.gpu)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_a_chain_that_is_killed_ends_with_the_same_bits(device):
    fallen, expected, found = kill_chain.run(kills=2, seed=4, iterations=12, gpu=device.gpu)
    assert sum(fallen.values()) == 2
    assert found == expected and len(found) == 3


# ---- prediction
def pipelines(device):
    """The released nets on the CPU and on the device."""
    import recipe
    from gender_smile.inference.pipeline import Pipeline

    for path in (recipe.step_weights("small", "gnet", 4), "weights/mtcnn/det1.caffemodel"):
        if not os.path.exists(recipe.absolute(path)):
            pytest.skip(f"needs {path}: make setup, or python -m detector.convert, makes it")
    try:
        return Pipeline.load("small", "torch"), Pipeline.load("small", "torch", device.gpu)
    finally:
        torchcaffe.set_mode_cpu()  # for what this thread builds next


def portrait():
    from skimage.data import astronaut

    return np.ascontiguousarray(astronaut()[:, :, ::-1])


def test_prediction(device):
    (expected,), (found,) = (pipeline.predict_faces(portrait()) for pipeline in pipelines(device))
    assert found.face.box == pytest.approx(expected.face.box, abs=0.05)
    assert found.face.landmarks == pytest.approx(expected.face.landmarks, abs=0.05)
    assert found.p_positive == pytest.approx(expected.p_positive, abs=1e-4)


def test_the_detector(device):
    """Photos of several sizes, many at a time; the same faces as on the CPU, photo by photo."""
    from detector import Detector
    from detector.batched import BatchedDetector

    pipelines(device)  # skips without weights
    one = portrait()
    photos = [one, one[::2, ::2], one[:300, 100:400], one[:251, 120:345], one[300:, 300:], one[:15]] * 4
    on_device = BatchedDetector("cpu" if device.gpu is None else f"cuda:{device.gpu}")
    for found, expected in zip(on_device.detect_all(photos), Detector().detect_all(photos), strict=True):
        assert len(found) == len(expected)
        for ours, theirs in zip(found, expected):
            assert ours.box == pytest.approx(theirs.box, abs=0.05) and ours.score == pytest.approx(theirs.score, abs=1e-3)
            assert ours.landmarks == pytest.approx(theirs.landmarks, abs=0.05)


def test_the_page(device):
    from page_client import file_of, predict, running

    expected, pipeline = pipelines(device)
    with running(pipeline) as address:
        answers = [predict(address, file_of(np.ascontiguousarray(portrait()[:, :, ::-1]))) for _ in range(2)]
    (one,) = expected.predict_faces(portrait())
    for status, answer in answers:
        assert status == 200 and answer["error"] is None
        assert answer["answers"][0]["p_positive"] == pytest.approx(one.p_positive, abs=1e-4)
