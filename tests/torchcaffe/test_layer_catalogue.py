"""What the comparison with real Caffe does not reach: mistakes in Python layers, arrays from memory, training steps."""

import os
import subprocess
import sys
import types

import numpy as np
import pytest

import torchcaffe as caffe
from torchcaffe.commands import cli
from torchcaffe.core import permission
from torchcaffe.core.errors import CaffeError, DataError, NetError

DATA = 'layer { name: "d" type: "Input" top: "d" input_param { shape { dim: 4 dim: 3 } } }\n'


@pytest.fixture
def module(monkeypatch):
    """An empty module "users_layers" that a prototxt can name, and may."""
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "1")
    module = types.ModuleType("users_layers")
    monkeypatch.setitem(sys.modules, "users_layers", module)
    return module


def python_layer(name):
    parameter = f'python_param {{ module: "users_layers" layer: "{name}" }}'
    return f'layer {{ name: "p" type: "Python" bottom: "d" top: "y" {parameter} }}'


class Half(caffe.Layer):
    def setup(self, bottom, top):
        self.reshaped = 0

    def reshape(self, bottom, top):
        self.reshaped += 1
        top[0].reshape(*bottom[0].shape)

    def forward(self, bottom, top):
        top[0].data[...] = bottom[0].data / 2

    def backward(self, top, propagate_down, bottom):
        bottom[0].diff[...] = top[0].diff / 2


def test_python_layer_is_the_users_object_and_is_reshaped_before_every_forward(make_net, module):
    module.Half = Half
    net = make_net(DATA + python_layer("Half"), phase=caffe.TEST)
    assert type(net.layers[1]) is Half and net.layer_dict["p"] is net.layers[1] and net.layers[1].type == "Python"
    assert net.layers[1].phase == caffe.TEST
    net.blobs["d"].data[...] = 3
    net.forward()
    net.forward()
    assert net.layers[1].reshaped == 3
    np.testing.assert_array_equal(net.blobs["y"].data, 1.5)


def test_a_solver_trains_through_a_python_layer(make_solver, module):
    module.Half = Half
    solver = make_solver(
        DATA.replace("Input", "DummyData")
        .replace("input_param", "dummy_data_param")
        .replace("} } }", "} data_filler { value: 1 } } }")
        + python_layer("Half")
        + 'layer { name: "i" type: "InnerProduct" bottom: "y" top: "i" inner_product_param { num_output: 1 } }\n'
        + 'layer { name: "l" type: "Reduction" bottom: "i" top: "l" loss_weight: 1 }',
        'base_lr: 0.1 lr_policy: "fixed" max_iter: 2',
    )
    solver.step(2)
    np.testing.assert_allclose(solver.net.params["i"][0].data, -0.1 * 2 * 4 * 0.5)


def test_a_python_layers_own_exception_comes_out(make_net, module):
    class Broken(Half):
        def forward(self, bottom, top):
            raise ValueError("the user's own")

    module.Broken = Broken
    with pytest.raises(ValueError, match="the user's own"):
        make_net(DATA + python_layer("Broken")).forward()


def test_wrong_python_layers_are_named(make_net, module):
    module.NoLayer = object
    module.NoForward = type("NoForward", (caffe.Layer,), {"setup": print, "reshape": print})
    for text, message in (
        (python_layer("Missing"), '"p" .*no class "Missing"'),
        (python_layer("NoLayer"), '"p" .*must derive from caffe.Layer'),
        (python_layer("NoForward"), '"p" .*needs a method forward'),
        (python_layer("Half").replace("users_layers", "no_such_module"), '"p" .*no module "no_such_module".*sys.path'),
    ):
        with pytest.raises(NetError, match=message):
            make_net(DATA + text)


def test_a_layer_without_backward_runs_until_one_is_needed(make_net, module):
    module.Forward = type("Forward", (caffe.Layer,), {
        "setup": lambda self, bottom, top: None, "reshape": lambda self, bottom, top: top[0].reshape(*bottom[0].shape),
        "forward": lambda self, bottom, top: np.copyto(top[0].data, 3 * bottom[0].data)})  # fmt: skip
    net = make_net(DATA + python_layer("Forward"))
    net.blobs["d"].data[...] = 2
    assert (net.forward()["y"] == 6).all()
    net = make_net("force_backward: true " + DATA + python_layer("Forward"))
    net.forward()
    with pytest.raises(NetError, match='layer "p" .*Forward needs a method backward'):
        net.backward(y=np.ones_like(net.blobs["y"].data))


@pytest.mark.parametrize("how", [["-m", "torchcaffe", "time", "-model", "net.prototxt", "-iterations", "1", "--python_layers"],
                                 ["-c", "import torchcaffe as caffe; caffe.allow_python_layers(); "
                                        "print(caffe.Net('net.prototxt', caffe.TEST).forward())"]], ids=["command", "library"])
def test_a_layers_own_import_of_caffe_finds_torchcaffe(how, tmp_path, root):
    (tmp_path / "doubler.py").write_text("import caffe\n\n\nclass Doubler(caffe.Layer):\n"
                                         "    def setup(self, bottom, top): pass\n"
                                         "    def reshape(self, bottom, top): top[0].reshape(*bottom[0].data.shape)\n"
                                         "    def forward(self, bottom, top): top[0].data[...] = 2 * bottom[0].data\n"
                                         "    def backward(self, top, propagate_down, bottom): pass\n")
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } data_filler { value: 21 } } }\n'
        'layer { name: "p" type: "Python" bottom: "x" top: "y" python_param { module: "doubler" layer: "Doubler" } }')
    done = subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(tmp_path)])})
    assert done.returncode == 0, done.stderr
    assert how[0] == "-m" or "42" in done.stdout


def test_a_module_that_cannot_be_imported_says_why(make_net, module, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    with pytest.raises(NetError, match='layer "p" .*module "needs_more" failed: ModuleNotFoundError: .*no_such_package'):
        make_net(DATA + python_layer("Half").replace("users_layers", "needs_more"))


@pytest.fixture
def foreign(make_net, tmp_path, monkeypatch):
    """A net's path and a function that tells whether loading it ran the module that it names; nothing is allowed yet."""
    monkeypatch.delenv("TORCHCAFFE_PYTHON_LAYERS", raising=False)
    monkeypatch.setattr(permission, "_said", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "foreign_layers.py").write_text("Foreign = object\n")
    parameter = 'python_param { module: "foreign_layers" layer: "Foreign" }'
    path = tmp_path / "foreign.prototxt"
    path.write_text(DATA + f'layer {{ name: "p" type: "Python" bottom: "d" top: "y" {parameter} }}')
    monkeypatch.delitem(sys.modules, "foreign_layers", raising=False)
    yield path, lambda: sys.modules.pop("foreign_layers", None) is not None


def test_a_prototxt_alone_runs_no_python(foreign, monkeypatch):
    path, ran = foreign
    monkeypatch.delitem(sys.modules, "caffe", raising=False)

    def loads():
        with pytest.raises(NetError) as raised:
            caffe.Net(str(path), caffe.TEST)
        said = str(raised.value)
        assert 'layer "p" (Python)' in said and ran() == ("torchcaffe.allow_python_layers()" not in said)
        return "must derive from caffe.Layer" in said  # the module was imported, and has no layer

    assert not loads()
    caffe.install()
    assert not loads()
    caffe.install(python_layers=True)
    assert loads()
    caffe.allow_python_layers(False)
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "1")
    assert not loads()
    monkeypatch.setattr(permission, "_said", None)
    assert loads()
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "0")
    assert not loads()
    caffe.allow_python_layers()
    assert loads()


def test_the_command_line_runs_python_layers_where_the_flag_says_so(foreign, capsys):
    path, ran = foreign
    command = ["time", "-model", str(path), "-iterations", "1"]
    assert cli.main(command) == 1 and not ran()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith('torchcaffe time: layer "p" (Python)') and "--python_layers" in said
    assert cli.main([*command, "--python_layers"]) == 1 and ran()


def test_memory_data_refuses_arrays_that_do_not_fit(make_net):
    net = make_net(
        'layer { name: "m" type: "MemoryData" top: "a" top: "b" '
        "memory_data_param { batch_size: 2 channels: 1 height: 2 width: 2 } }"
    )
    good, labels = np.zeros((4, 1, 2, 2), np.float32), np.arange(4, dtype=np.float32)
    with pytest.raises(DataError, match='"m".*set_input_arrays'):
        net.forward()
    for data, label, message in (
        (good.astype(float), labels, "float32"),
        (good[:3], labels[:3], "multiple of the batch size, 2"),
        (good, labels[:2], "same number"),
        (good[:, :, :1].copy(), labels, "shape Nx1x2x2"),
    ):
        with pytest.raises(CaffeError, match=message):
            net.set_input_arrays(data, label)
    net.set_input_arrays(good, labels)
    good[2:] = 7  # the arrays are used where they are, not copied
    net.forward()
    np.testing.assert_array_equal(net.blobs["b"].data.reshape(-1), [0, 1])
    net.forward()
    np.testing.assert_array_equal(net.blobs["a"].data, 7)


NORMALIZED = (
    'layer { name: "d" type: "DummyData" top: "d" '
    'dummy_data_param { shape { dim: 8 dim: 3 } data_filler { type: "uniform" } } }\n'
    'layer { name: "n" type: "BatchNorm" bottom: "d" top: "n" batch_norm_param { moving_average_fraction: 0.5 } }\n'
    'layer { name: "s" type: "Scale" bottom: "n" top: "n" scale_param { bias_term: true } }\n'
    'layer { name: "l" type: "Reduction" bottom: "n" top: "l" loss_weight: 1 reduction_param { operation: SUMSQ } }'
)


def test_batch_statistics_are_gathered_and_not_trained(make_solver):
    solver = make_solver(NORMALIZED, 'base_lr: 0.1 lr_policy: "fixed" max_iter: 3 weight_decay: 0.1 random_seed: 3')
    held = solver.net.params["n"][0].data
    solver.step(3)
    statistics = [blob.data.copy() for blob in solver.net.params["n"]]
    # weight decay reaches lr_mult 0 blobs as a gradient, but a rate of 0 leaves them
    assert statistics[2] == pytest.approx(1 + 0.5 * (1 + 0.5))
    np.testing.assert_array_equal(held, statistics[0])
    np.testing.assert_allclose(statistics[0] / statistics[2], 0.5, atol=0.25)
    assert not np.allclose(solver.net.params["s"][0].data, 1)


def test_a_parameter_is_its_layers_top(make_solver):
    text = 'layer { name: "p" type: "Parameter" top: "p" parameter_param { shape { dim: 3 } } }\n' + (
        'layer { name: "l" type: "Reduction" bottom: "p" top: "l" loss_weight: 1 }'
    )
    solver = make_solver(text, 'base_lr: 0.5 lr_policy: "fixed" max_iter: 2 iter_size: 2')
    solver.step(2)
    # Caffe replaces this gradient in each of the two passes, and then divides by two
    np.testing.assert_allclose(solver.net.params["p"][0].data, -2 * 0.5 / 2)
    np.testing.assert_array_equal(solver.net.blobs["p"].data, solver.net.params["p"][0].data)
