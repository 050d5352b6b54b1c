"""set_deterministic: what it switches, when it is too late, and the layer that has no deterministic kernel."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core import determinism, execution, precision
from torchcaffe.core.errors import CaffeError, NetError
from torchcaffe.layers import base, pooling


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """The switch is for the whole process."""
    monkeypatch.delenv(determinism.WORKSPACE, raising=False)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    caffe.set_deterministic(False)
    os.environ.pop(determinism.WORKSPACE, None)


def test_what_is_switched():
    caffe.set_deterministic()
    assert os.environ[determinism.WORKSPACE] == ":4096:8"
    assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
    assert not torch.utils.deterministic.fill_uninitialized_memory
    caffe.set_deterministic(False)
    assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnn_chooses_by_measuring_only_where_it_may(monkeypatch, deterministic):
    """precision.apply runs before every pass of a net on a GPU."""
    caffe.set_deterministic(deterministic)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)

    class Net:
        device, precision = torch.device("cuda", 0), "float32"

    precision.apply(Net, training=True)
    assert torch.backends.cudnn.benchmark is (not deterministic)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    torch.export.export(torch.nn.Linear(2, 2), (torch.zeros(1, 2),))  # reads these flags, and fails where they disagree


def test_too_late(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    with pytest.raises(CaffeError, match=r"too late, CUDA has started: call it before set_mode_gpu\(\)"):
        caffe.set_deterministic()
    assert not determinism.enabled()
    caffe.set_deterministic(False)


def test_another_workspace_is_refused_and_a_good_one_kept(monkeypatch):
    monkeypatch.setenv(determinism.WORKSPACE, ":16:8")
    caffe.set_deterministic()
    assert os.environ[determinism.WORKSPACE] == ":16:8"
    monkeypatch.setenv(determinism.WORKSPACE, ":0:0")
    with pytest.raises(CaffeError, match="CUBLAS_WORKSPACE_CONFIG=:0:0 is not deterministic: unset it"):
        caffe.set_deterministic()


def test_running_sums_need_no_kernel_that_gpus_lack():
    windows = torch.rand(2, 3, 9)
    usual = pooling.running_sums(windows)
    caffe.set_deterministic()
    torch.testing.assert_close(pooling.running_sums(windows), usual)


class Put(torch.autograd.Function):
    """An operation whose forward or backward PyTorch has no deterministic kernel for, on a CPU either."""

    @staticmethod
    def forward(context, x, where):
        context.where = where
        return put(x) if where == "forward" else x.clone()

    @staticmethod
    def backward(context, gradient):
        return put(gradient) if context.where == "backward" else gradient, None


def put(x):
    return x.clone().put_(torch.tensor([0, 1]), torch.tensor([1.0, 1.0]))


@pytest.fixture
def putting():
    """A layer type "Puts" with such an operation."""

    @caffe.register_layer
    class Puts(caffe.TorchLayer):
        type = "Puts"
        settings = {"puts_param": {"where": (str, "")}}

        def forward(self, x):
            return Put.apply(x, self.param.puts_param.where)

    yield
    del base._REGISTRY["Puts"]


NET = """force_backward: true layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ dim: 2 dim: 3 }} }} }}
layer {{ name: "first" type: "InnerProduct" bottom: "x" top: "a" inner_product_param {{ num_output: 2 }} }}
layer {{ name: "mine" type: "Puts" bottom: "a" top: "b" puts_param {{ where: "{}" }} }}
layer {{ name: "last" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }}"""
MESSAGE = r'layer "mine" \(Puts\): put_ does not have a deterministic implementation on this device; leave out set_determin'


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_layer_without_a_deterministic_kernel_is_named(make_net, putting, where):
    caffe.set_deterministic()
    net = make_net(NET.format(where))
    with pytest.raises(NetError, match=MESSAGE):  # layer by layer
        net.forward()
        net.backward()
    with pytest.raises(NetError, match=MESSAGE):  # as one graph
        autograd_pass = execution.AutogradPass(net, keep_diffs=False)
        autograd_pass.forward()
        autograd_pass.backward()
    caffe.set_deterministic(False)
    net.forward()
    net.backward()


def test_the_numbers_of_a_cpu_stay(make_solver):
    """Where all is deterministic anyway the switch changes nothing."""
    net = """layer { name: "data" type: "DummyData" top: "x" top: "label" dummy_data_param {
        shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 } data_filler { type: "gaussian" } data_filler { value: 1 } } }
      layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { num_output: 4 kernel_size: 3
        weight_filler { type: "xavier" } } }
      layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: STOCHASTIC kernel_size: 3 stride: 2 } }
      layer { name: "ip" type: "InnerProduct" bottom: "p" top: "ip" inner_product_param { num_output: 3
        weight_filler { type: "xavier" } } }
      layer { name: "l" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "y" }"""

    def weights():
        solver = make_solver(net, "base_lr: 0.1 lr_policy: 'fixed' random_seed: 3")
        solver.step(5)
        return [np.array(blob.data) for blobs in solver.net.params.values() for blob in blobs]

    usual = weights()
    caffe.set_deterministic()
    assert all(map(np.array_equal, usual, weights()))


def test_the_command(tmp_path):
    """`torchcaffe train -deterministic` switches before it chooses the device."""
    (tmp_path / "net").write_text("""layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 1 } } }
        layer { name: "s" type: "Silence" bottom: "x" }""")
    (tmp_path / "solver").write_text(f"""net: "{tmp_path}/net" base_lr: 1 lr_policy: "fixed" max_iter: 1
        snapshot_after_train: false""")
    code = """import sys, torch
from torchcaffe.commands import cli, devices
use = devices.use
devices.use = lambda *given, **named: print(torch.are_deterministic_algorithms_enabled()) or use(*given, **named)
sys.exit(cli.main(sys.argv[1:]))"""
    for flags, expected in (([], "False"), (["-deterministic"], "True")):
        done = subprocess.run([sys.executable, "-c", code, "train", "-solver", str(tmp_path / "solver"), *flags],
                              capture_output=True, text=True, cwd=tmp_path.parents[0],
                              env={**os.environ, "PYTHONPATH": str(base.__file__).rsplit("/torchcaffe/", 1)[0]})
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == expected
