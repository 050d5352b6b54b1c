"""The compiled training pass against the layer-by-layer way: the same weights, outputs, draws and errors; and who falls back.

torch.compile's backend "eager" runs the traced graph operation by operation, so that all bits are equal.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core import compiled
from torchcaffe.core.errors import NetError
from torchcaffe.layers import base

INPUTS = """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } } }
layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }
"""
FILL = 'weight_filler { type: "xavier" } bias_filler { type: "uniform" max: 0.1 }'
HEAD = f"""
layer {{ name: "fc" type: "InnerProduct" bottom: "h" top: "fc" inner_product_param {{ num_output: 5 {FILL} }} }}
layer {{ name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }}
"""
CONV = f"""
layer {{ name: "conv" type: "Convolution" bottom: "x" top: "h" convolution_param {{ num_output: 4 kernel_size: 3 {FILL} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "h" top: "h" }}
"""
# Draws between data that is drawn, two losses, a frozen layer, one in place on the data, statistics, shared parameters.
EVERYTHING = INPUTS + f"""
layer {{ name: "shift" type: "Power" bottom: "x" top: "x" power_param {{ scale: 0.9 shift: 0.1 }} }}
layer {{ name: "frozen" type: "Convolution" bottom: "x" top: "frozen" param {{ lr_mult: 0 }} param {{ lr_mult: 0 }}
  convolution_param {{ num_output: 6 kernel_size: 3 pad: 1 {FILL} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "frozen" top: "frozen" }}
layer {{ name: "max" type: "Pooling" bottom: "frozen" top: "max" pooling_param {{ kernel_size: 3 stride: 2 }} }}
layer {{ name: "conv" type: "Convolution" bottom: "max" top: "conv" convolution_param {{ num_output: 6 kernel_size: 1 {FILL} }} }}
layer {{ name: "drop1" type: "Dropout" bottom: "conv" top: "conv" dropout_param {{ dropout_ratio: 0.3 }} }}
layer {{ name: "noise" type: "DummyData" top: "noise" dummy_data_param {{ shape {{ dim: 4 dim: 6 dim: 4 dim: 4 }}
  data_filler {{ type: "gaussian" std: 0.1 }} }} }}
layer {{ name: "sum" type: "Eltwise" bottom: "conv" bottom: "noise" top: "sum" }}
layer {{ name: "bn" type: "BatchNorm" bottom: "sum" top: "bn" }}
layer {{ name: "scale" type: "Scale" bottom: "bn" top: "bn" scale_param {{ bias_term: true }} }}
layer {{ name: "positive" type: "Sigmoid" bottom: "bn" top: "positive" }}
layer {{ name: "stochastic" type: "Pooling" bottom: "positive" top: "s" pooling_param {{ pool: STOCHASTIC kernel_size: 2 stride: 2 }} }}
layer {{ name: "fc1" type: "InnerProduct" bottom: "s" top: "fc1" param {{ name: "w" }} param {{ name: "b" lr_mult: 2 }}
  inner_product_param {{ num_output: 24 {FILL} }} }}
layer {{ name: "drop2" type: "Dropout" bottom: "fc1" top: "fc1" }}
layer {{ name: "fc2" type: "InnerProduct" bottom: "fc1" top: "h" param {{ name: "w" }} param {{ name: "b" lr_mult: 2 }}
  inner_product_param {{ num_output: 24 {FILL} }} }}
layer {{ name: "fc3" type: "InnerProduct" bottom: "fc1" top: "fc3" inner_product_param {{ num_output: 5 {FILL} }} }}
layer {{ name: "loss3" type: "SoftmaxWithLoss" bottom: "fc3" bottom: "label" top: "loss3" loss_weight: 0.3
  loss_param {{ ignore_label: 2 }} }}
layer {{ name: "accuracy" type: "Accuracy" bottom: "fc3" bottom: "label" top: "accuracy" }}
""" + HEAD
SOLVER = 'base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "fixed" random_seed: 3 snapshot_after_train: false '


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "0")
    yield
    caffe.set_compile(False)
    caffe.set_precision("float32")


def train(make_solver, net, backend, iterations=5, more="", fill=True, solver=None):
    """Train with new data in each iteration; backend: None for layer by layer."""
    if solver is None:
        caffe.set_compile(backend is not None, backend or "inductor")
        solver = make_solver(net, SOLVER + more)
        solver.keep_diffs = False
    for _ in range(iterations):
        random = np.random.default_rng(solver.iter)
        if fill:
            solver.net.blobs["x"].data[...] = random.normal(size=solver.net.blobs["x"].data.shape)
            solver.net.blobs["label"].data[...] = random.integers(0, 5, solver.net.blobs["label"].data.shape)
        solver.step(1)
    return solver


def state(solver):
    """All that a training leaves: parameters, history, data and outputs."""
    found = {f"{name}/{i}": blob.data.copy() for name, blobs in solver.net.params.items() for i, blob in enumerate(blobs)}
    found.update({name: solver.net.blobs[name].data.copy() for name in (*solver.net.inputs, *solver.net.outputs)})
    found.update({f"history {i}": tensor.numpy().copy() for i, tensor in enumerate(solver.history)})
    return {**found, "mean": np.array(solver.mean_loss)}


def assert_equal(found, expected):
    found, expected = state(found), state(expected)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("more, precision", [("", "float32"), ("iter_size: 2 clip_gradients: 0.5", "float32"), ("", "bf16")])
def test_all_bits_are_those_of_the_layer_by_layer_way(make_solver, more, precision):
    caffe.set_precision(precision)
    found, expected = (train(make_solver, EVERYTHING, backend, more=more) for backend in ("eager", None))
    assert expected.compiled is None
    assert not found.compiled.failed and len(found.compiled.graphs) == 1
    assert_equal(found, expected)


@pytest.mark.slow
def test_inductors_weights_are_close(make_solver):
    found, expected = (state(train(make_solver, EVERYTHING, backend)) for backend in ("inductor", None))
    for name, array in expected.items():
        assert np.abs(found[name] - array).max() <= 1e-5 * max(1e-2, np.abs(array).max()), name


def test_the_last_iteration_of_a_step_keeps_what_can_be_seen(make_solver):
    solvers = []
    for backend in ("eager", None):
        solvers.append(train(make_solver, EVERYTHING, backend, 1))
        solvers[-1].keep_diffs = True
        solvers[-1].step(3)
    found, expected = solvers
    assert len(found.compiled.graphs) == 1
    for name in found.net.blobs:
        np.testing.assert_array_equal(found.net.blobs[name].data, expected.net.blobs[name].data, err_msg=name)
        np.testing.assert_array_equal(found.net.blobs[name].diff, expected.net.blobs[name].diff, err_msg=name)


def test_arrays_that_are_held_stay_live(make_solver):
    """Whoever holds a blob's array sees it change; the compiled pass does not know what is between the layers."""
    seen = []
    for backend in ("eager", None):
        solver = train(make_solver, INPUTS + CONV + HEAD, backend, 1)
        held = solver.net.blobs["h"].data
        train(make_solver, None, backend, 2, solver=solver)
        seen.append(held.copy())
    assert seen[0].any()
    np.testing.assert_array_equal(*seen)


def test_gradients_that_are_watched(make_solver):
    norms = []
    for backend in ("eager", None):
        solver = train(make_solver, INPUTS + CONV + HEAD, backend, 1)
        solver.watch_gradients = True
        norms.append(train(make_solver, None, backend, 1, solver=solver).gradient_norms)
    assert norms[0] == norms[1] and norms[0]["conv"] > 0


def test_loss_weights_that_are_written_count(make_solver):
    solvers = [train(make_solver, INPUTS + CONV + HEAD, backend, 1) for backend in ("eager", None)]
    for solver in solvers:
        solver.net.blobs["loss"].diff[...] = 3
        train(make_solver, None, None, 2, solver=solver)
    assert_equal(*solvers)
    assert solvers[0].mean_loss == pytest.approx(3 * float(solvers[0].net.blobs["loss"].data), rel=1e-6)


def test_a_stop_and_a_resume_leave_no_trace(make_solver, tmp_path):
    whole = train(make_solver, EVERYTHING, "eager", 6)
    first = train(make_solver, EVERYTHING, "eager", 3)
    first.snapshot()
    second = make_solver(EVERYTHING, SOLVER)
    second.keep_diffs = False
    second.restore(str(next(tmp_path.glob("*_iter_3.solverstate"))))
    train(make_solver, None, "eager", 3, solver=second)
    assert len(second.compiled.graphs) == 1
    assert_equal(second, whole)


def test_other_shapes_get_graphs_of_their_own_up_to_a_limit(make_solver):
    solvers = [train(make_solver, INPUTS + CONV + HEAD, backend, 1) for backend in ("eager", None)]
    for batch in (2, 3, 2, 5, 6, 4):
        for solver in solvers:
            solver.net.blobs["x"].reshape(batch, 3, 9, 9)
            solver.net.blobs["label"].reshape(batch)
            train(make_solver, None, None, 1, solver=solver)
        assert_equal(*solvers)
    assert len(solvers[0].compiled.graphs) == compiled.MOST_SHAPES and not solvers[0].compiled.failed


def test_a_label_out_of_range_is_an_error(make_solver):
    solver = train(make_solver, INPUTS + CONV + HEAD, "eager", 0)
    for _ in range(2):  # in the first pass, which compiles, and later
        solver.net.blobs["label"].data[...] = 7
        with pytest.raises(NetError, match=r'"loss" \(SoftmaxWithLoss\): label 7 is outside 0 to 4'):
            solver.step(1)
        train(make_solver, None, "eager", 1, solver=solver)  # and those after it are none
    assert len(solver.compiled.graphs) == 1 and not solver.compiled.failed


def test_data_in_another_memory_order_gets_a_graph_of_its_own(make_solver):
    solvers = [train(make_solver, INPUTS + CONV + HEAD, backend, 1) for backend in ("eager", None)]
    for solver in solvers:
        blob = solver.net.blobs["x"]
        blob.put(blob.tensor().clone(memory_format=torch.channels_last))
        solver.step(1)
    assert len(solvers[0].compiled.graphs) == 2
    assert_equal(*solvers)


def test_infinities_and_not_a_number_pass_through_a_pooling_layer(make_solver):
    net = INPUTS + CONV.replace('"x" top: "h"', '"p" top: "h"') + HEAD
    net = net.replace('layer { name: "conv"', 'layer { name: "p" type: "Pooling" bottom: "x" top: "p" pooling_param '
                      '{ kernel_size: 2 stride: 2 } }\nlayer { name: "conv"')  # fmt: skip
    solvers = [train(make_solver, net, backend, 1) for backend in ("eager", None)]
    for solver in solvers:
        solver.net.blobs["x"].data[:, 0] = -np.inf
        solver.net.blobs["x"].data[:, 1, :4] = np.nan
        solver.step(1)
    assert_equal(*solvers)


DRAWN = """layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
  shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { value: 2 } } }
""" + CONV + 'layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }' + HEAD


@pytest.mark.slow
def test_the_command_compiles_and_resumes_with_the_same_bits(tmp_path):
    """In processes of their own, with inductor; what it compiles stays in the user's cache folder."""
    (tmp_path / "net").write_text(DRAWN)
    (tmp_path / "solver").write_text(f'net: "{tmp_path}/net" {SOLVER} max_iter: 6 snapshot: 3 snapshot_prefix: "{tmp_path}/s"')
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONPATH": str(Path(caffe.__file__).parents[1])}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    command, weights = [sys.executable, "-m", "torchcaffe", "train", "-solver", str(tmp_path / "solver"), "-compile", "1"], []
    for more in ([], ["-snapshot", str(tmp_path / "s_iter_3.solverstate")]):
        done = subprocess.run([*command, *more], env=environment, text=True, capture_output=True)
        assert done.returncode == 0 and re.search(r"Compiled the training pass in \d+\.\d s", done.stderr), done.stderr
        weights.append((tmp_path / "s_iter_6.caffemodel").read_bytes())
        (tmp_path / "s_iter_6.caffemodel").unlink()
    assert weights[0] == weights[1]
    assert any((tmp_path / "cache" / "torchcaffe" / "inductor").iterdir())


# ---- what is not compiled
@pytest.fixture
def layers(monkeypatch):
    """Layers of a user, for one test."""
    monkeypatch.setattr(base, "_REGISTRY", dict(base._REGISTRY))

    @caffe.register_layer
    class Doubles(caffe.TorchLayer):
        type = "Doubles"

        def forward(self, x):
            return 2 * x

    @caffe.register_layer
    class Compiles(Doubles):
        type = "Compiles"
        compiles = True

    @caffe.register_layer
    class Looks(Doubles):
        type = "Looks"
        compiles = True

        def forward(self, x):
            return 2 * x if x.sum().item() > 0 else x

    @caffe.register_layer
    class Rolls(Doubles):
        type = "Rolls"
        compiles = True

        def forward(self, x):
            return x * torch.rand(x.shape)

    @caffe.register_layer
    class Keeps(Doubles):
        type = "Keeps"
        compiles = True
        last = None

        def forward(self, x):
            y = x if self.last is None else x + self.last
            self.last = x.detach().mean()
            return y


OWN = INPUTS + CONV + """
layer { name: "drop" type: "Dropout" bottom: "h" top: "h" }
layer { name: "own" type: "TYPE" bottom: "h" top: "own" }
""" + HEAD.replace('"h"', '"own"')


def test_a_layer_of_the_user_is_compiled_where_it_says_so(make_solver, layers, capsys):
    found, expected = (train(make_solver, OWN.replace("TYPE", "Doubles"), backend, 3) for backend in ("eager", None))
    assert found.compiled is None
    assert 'is not compiled: layer "own" (Doubles) has no compiles = True in its class.' in capsys.readouterr().err
    assert_equal(found, expected)
    found, expected = (train(make_solver, OWN.replace("TYPE", "Compiles"), backend, 3) for backend in ("eager", None))
    assert not found.compiled.failed
    assert_equal(found, expected)


@pytest.mark.parametrize("type, message", [
    ("Looks", r'layer "own" \(Looks\)'), ("Rolls", "draws random numbers"), ("Keeps", "from one iteration to the next"),
])
def test_what_cannot_be_traced_runs_layer_by_layer_with_the_same_draws(make_solver, layers, capsys, type, message):
    found, expected = (train(make_solver, OWN.replace("TYPE", type), backend, 3) for backend in ("eager", None))
    assert_equal(found, expected)
    assert re.search(message, found.compiled.failed)
    assert capsys.readouterr().err.count("training goes on layer by layer") == 1


def test_a_compiler_that_fails_leaves_no_trace(make_solver, capsys):
    def broken(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nand more")

    found, expected = (train(make_solver, EVERYTHING, backend, 3) for backend in (broken, None))
    assert_equal(found, expected)
    assert found.compiled.failed == "No working C++ compiler found"
    assert capsys.readouterr().err.count("training goes on layer by layer: No working C++ compiler found") == 1


def test_it_is_off_unless_asked_for(make_solver):
    assert make_solver(INPUTS + CONV + HEAD, SOLVER).compiled is None
    assert not compiled.enabled()
