"""torchcaffe.to_torch: a Caffe net as a torch.nn.Module, with PyTorch's habits and Caffe's numbers."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import torchcaffe as caffe
from torchcaffe.core.errors import CaffeError, ShapeError
from torchcaffe.formats import export

DATA = 'layer { name: "data" type: "Input" top: "data" input_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } } }\n'
LABEL = 'layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 4 } } }\n'
BODY = """
layer { name: "conv1" type: "Convolution" bottom: "data" top: "conv1" param { lr_mult: 1 } param { lr_mult: 2 decay_mult: 0 }
  convolution_param { num_output: 6 kernel_size: 3 group: 3 weight_filler { type: "xavier" } bias_filler { value: 0.1 } } }
layer { name: "bn1" type: "BatchNorm" bottom: "conv1" top: "conv1" }
layer { name: "scale1" type: "Scale" bottom: "conv1" top: "conv1" scale_param { bias_term: true } }
layer { name: "prelu1" type: "PReLU" bottom: "conv1" top: "conv1" }
layer { name: "norm1" type: "LRN" bottom: "conv1" top: "norm1" lrn_param { local_size: 3 alpha: 0.5 } }
layer { name: "pool1" type: "Pooling" bottom: "norm1" top: "pool1" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "still" type: "InnerProduct" bottom: "pool1" top: "still" param { lr_mult: 0 } param { lr_mult: 0 }
  inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "fc.last" type: "InnerProduct" bottom: "still" top: "fc" inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
"""
LOSS = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" loss_weight: 0.5 }\n'
SOFTMAX = 'layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }\n'
SOLVER = 'base_lr: 0.1 lr_policy: "fixed" momentum: 0.9 weight_decay: 0.01 max_iter: 9 random_seed: 3'


def images(seed=0, count=4):
    return np.random.default_rng(seed).normal(0, 1, (count, 3, 9, 9)).astype(np.float32)


def test_names_and_forward(make_net):
    net = make_net(DATA + BODY + SOFTMAX, caffe.TEST)
    net.params["bn1"][0].data[...] = 2
    net.params["bn1"][1].data[...] = 3
    net.params["bn1"][2].data[...] = 0.5
    module = caffe.to_torch(net)
    assert isinstance(module, torch.nn.Module) and not module.training
    shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    assert shapes == {
        "conv1.weight": (6, 1, 3, 3), "conv1.bias": (6,), "bn1.running_mean": (6,), "bn1.running_var": (6,), "bn1.scale_factor": (1,),
        "scale1.weight": (6,), "scale1.bias": (6,), "prelu1.weight": (6,), "still.weight": (5, 96), "still.bias": (5,),
        "fc.last.weight": (3, 5), "fc.last.bias": (3,),
    }  # fmt: skip
    assert shapes == {name: array.shape for name, array in export.tensors(net).items()}
    assert set(module.bn1.running_mean.tolist()) == {4.0} and set(module.bn1.running_var.tolist()) == {6.0}
    assert {name for name, parameter in module.named_parameters() if not parameter.requires_grad} == {"still.weight", "still.bias"}
    for count in (4, 1, 7):
        data = images(count, count)
        net.blobs["data"].reshape(*data.shape)
        ours = net.forward(data=data)["prob"]
        np.testing.assert_allclose(module(torch.from_numpy(data)).detach(), ours, atol=1e-6)
        np.testing.assert_allclose(module(data=torch.from_numpy(data)).detach(), ours, atol=1e-6)
    shown = repr(module)
    assert "(conv1): Convolution(num_output: 6 kernel_size: 3 group: 3)" in shown and "filler" not in shown


def test_the_module_and_the_net_share_nothing(make_net):
    net = make_net(DATA + BODY + SOFTMAX, caffe.TEST)
    module, data = caffe.to_torch(net), torch.from_numpy(images())
    before = module(data)
    net.params["conv1"][0].data[...] = 0
    assert torch.equal(module(data), before)
    with torch.no_grad():
        module.get_parameter("fc.last.weight").zero_()
    assert net.params["fc.last"][0].data.any() and not torch.equal(module(data), before)


def test_from_files(make_net, tmp_path):
    net = make_net(DATA + BODY + SOFTMAX, caffe.TEST)
    net.save(tmp_path / "net.caffemodel")
    (tmp_path / "deploy.prototxt").write_text(DATA + BODY + SOFTMAX)
    module = caffe.to_torch(tmp_path / "deploy.prototxt", tmp_path / "net.caffemodel")
    np.testing.assert_allclose(module(torch.from_numpy(images())).detach(), net.forward(data=images())["prob"], atol=1e-6)
    with pytest.raises(TypeError, match="copy_from"):
        caffe.to_torch(net, tmp_path / "net.caffemodel")
    with pytest.raises(CaffeError, match="Could not open file"):
        caffe.to_torch(tmp_path / "missing.prototxt")


def test_sgd_does_what_the_solver_does(make_solver):
    """lr_mult, decay_mult, momentum, a loss weight, BatchNorm's statistics and a shared weight, over three steps."""
    twins = """
layer { name: "one" type: "InnerProduct" bottom: "fc" top: "one" param { name: "w" } param { name: "b" } inner_product_param { num_output: 3
  weight_filler { type: "xavier" } } }
layer { name: "two" type: "InnerProduct" bottom: "one" top: "two" param { name: "w" } param { name: "b" } inner_product_param { num_output: 3 } }
"""
    solver = make_solver(DATA + LABEL + BODY + twins + LOSS.replace("fc", "two"), SOLVER)
    module = caffe.to_torch(solver.net)
    assert module.training and module.inputs == ["data", "label"] and module.loss_weights == {"loss": 0.5}
    assert module.one.weight is module.two.weight
    optimizer = torch.optim.SGD(module.parameter_groups(0.1, 0.01), lr=0.1, momentum=0.9)
    for step in range(3):
        data, label = images(step), np.float32([0, 2, 1, 1])
        solver.net.blobs["data"].data[...], solver.net.blobs["label"].data[...] = data, label
        solver.step(1)
        optimizer.zero_grad()
        loss = module(torch.from_numpy(data), torch.from_numpy(label))
        (module.loss_weights["loss"] * loss).backward()
        optimizer.step()
        np.testing.assert_allclose(loss.detach(), solver.net.blobs["loss"].data, rtol=1e-5)
    start = caffe.to_torch(make_solver(DATA + LABEL + BODY + twins + LOSS.replace("fc", "two"), SOLVER).net).state_dict()
    for name, array in export.tensors(solver.net).items():
        found = module.state_dict()[name].numpy()
        np.testing.assert_allclose(found, array, rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.array_equal(found, start[name]) == name.startswith("still"), name


def test_train_and_eval_are_caffes_phases(make_net):
    drop = 'layer { name: "drop" type: "Dropout" bottom: "data" top: "drop" }\n'
    module = caffe.to_torch(make_net(DATA + drop, caffe.TEST))
    ones = torch.ones(4, 3, 9, 9)
    assert torch.equal(module(ones), ones)
    assert set(module.train()(ones).unique().tolist()) == {0.0, 2.0}
    assert torch.equal(module.eval()(ones), ones)
    fixed = caffe.to_torch(make_net(DATA + drop.replace("top:", "phase: TRAIN top:"), caffe.TEST))
    assert (fixed.eval()(ones) == 0).any()  # as in Caffe: the layer's own phase stands


def test_batch_norms_statistics_go_on(make_net):
    norm = 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "bn" batch_norm_param { moving_average_fraction: 0.9 } }\n'
    net = make_net(DATA + norm, caffe.TRAIN)
    net.forward(data=images(8))
    module = caffe.to_torch(net)
    for seed in range(3):
        ours = net.forward(data=images(seed))["bn"]
        np.testing.assert_allclose(module(torch.from_numpy(images(seed))), ours, atol=1e-6)
    for name, array in export.tensors(net).items():
        np.testing.assert_allclose(module.state_dict()[name], array, rtol=1e-5, atol=1e-7)


def test_data_layers_become_inputs_and_silenced_blobs_go(make_net):
    text = (
        'layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param { shape { dim: 4 dim: 3 dim: 9 dim: 9 } shape { dim: 4 } '
        'data_filler { type: "uniform" } data_filler { value: 1 } } }\n'
        + BODY + LOSS + 'layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" }\n'
        + 'layer { name: "hush" type: "Silence" bottom: "still" }\n'.replace("still", "norm1x")
    ).replace('layer { name: "hush"', 'layer { name: "p" type: "Power" bottom: "norm1" top: "norm1x" }\nlayer { name: "hush"')  # fmt: skip
    net = make_net(text, caffe.TEST)
    net.forward()
    module = caffe.to_torch(net)
    assert module.inputs == ["data", "label"] and module.outputs == ["acc", "loss"]
    found = module(*(torch.from_numpy(net.blobs[name].data.copy()) for name in module.inputs))
    for name in module.outputs:
        np.testing.assert_allclose(found[name].detach(), net.blobs[name].data, rtol=1e-5)


def test_inputs_may_come_late_and_losses_may_be_read(make_net):
    """A blob with a loss weight that a layer reads is an output, too: the first of Caffe's copies; a loss may have no top."""
    text = (
        DATA + 'layer { name: "square" type: "Power" bottom: "data" top: "square" power_param { power: 2 } loss_weight: 0.25 }\n'
        + LABEL + 'layer { name: "fc" type: "InnerProduct" bottom: "square" top: "fc" inner_product_param { num_output: 3 } }\n'
        + 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" }\n'
    )  # fmt: skip
    net = make_net(text, caffe.TRAIN)
    data, label = images(), np.float32([0, 1, 2, 0])
    net.blobs["data"].data[...], net.blobs["label"].data[...] = data, label
    net.forward()
    module = caffe.to_torch(net)
    assert module.inputs == ["data", "label"] and module.loss_weights == {"square_square_0_split_0": 0.25, "loss": 1.0}
    found = module(torch.from_numpy(data), torch.from_numpy(label))
    np.testing.assert_allclose(found["square_square_0_split_0"], data**2, rtol=1e-6)
    assert abs(float(found["loss"].detach()) - np.log(3)) < 1e-6  # the weights are zeros


def test_copies_pickles_and_functional_calls(make_net):
    module, data = caffe.to_torch(make_net(DATA + BODY + SOFTMAX, caffe.TEST)), torch.from_numpy(images())
    expected = module(data)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(data), expected)
        with torch.no_grad():
            other.conv1.weight.zero_()
        assert not torch.equal(other(data), expected) and torch.equal(module(data), expected)
        other.load_state_dict(module.state_dict())
        assert torch.equal(other(data), expected)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in module.state_dict().items()}
    np.testing.assert_allclose(torch.func.functional_call(module, zeros, (data,)), 1 / 3, rtol=1e-6)
    assert torch.equal(module(data), expected)


def test_another_last_layer_is_a_line(make_net):
    module = caffe.to_torch(make_net(DATA + BODY, caffe.TEST))
    module.fc.last = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(5, 11))
    assert module(torch.from_numpy(images())).shape == (4, 11)
    groups = module.parameter_groups(0.1, 0.01)
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 0.01, 6), (0.2, 0, 1)]


def test_layer_names_that_a_module_has_already(make_net):
    layers = "".join(
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "data" top: "t{index}" inner_product_param {{ num_output: 1 }} }}\n'
        for index, name in enumerate(("type", "train", "outputs", "a.b", "a.train", "", "x/y"))
    )
    net = make_net(DATA + layers, caffe.TEST)
    module = caffe.to_torch(net)
    names = ["type_", "train_", "outputs_", "a.b", "a.train_", "innerproduct", "x/y"]
    assert {name.rpartition(".")[0] for name in module.state_dict()} == set(names)
    assert set(module.state_dict()) == set(export.tensors(net))
    assert len(module(torch.from_numpy(images()))) == 7 and "type_" in dict(module.named_children())


def test_what_it_cannot_take(make_net, monkeypatch, tmp_path):
    module = caffe.to_torch(make_net(DATA + LABEL + BODY + LOSS, caffe.TEST))
    with pytest.raises(TypeError, match="takes 2 inputs, data, label; given: 1"):
        module(torch.zeros(4, 3, 9, 9))
    with pytest.raises(TypeError, match="given: 'dada', 'label'"):
        module(dada=torch.zeros(4, 3, 9, 9), label=torch.zeros(4))
    with pytest.raises(CaffeError, match='"conv1" .Convolution.: built for 3 channels'):
        module(torch.zeros(4, 2, 9, 9), torch.zeros(4))
    norm = caffe.to_torch(make_net(DATA + 'layer { name: "bn" type: "BatchNorm" bottom: "data" top: "y" }', caffe.TEST))
    with pytest.raises(ShapeError, match='"bn" .BatchNorm.: built for 3 channels'):
        norm(torch.zeros(4, 2, 9, 9))
    (tmp_path / "halves_for_export.py").write_text(
        "import caffe\nclass Half(caffe.Layer):\n def setup(self, b, t): pass\n def reshape(self, b, t): t[0].reshape(*b[0].shape)\n"
        " def forward(self, b, t): t[0].data[...] = b[0].data / 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("TORCHCAFFE_PYTHON_LAYERS", "1")
    python = 'layer { name: "%s" type: "Python" bottom: "data" top: "%s" python_param { module: "halves_for_export" layer: "Half" } }\n'
    net = make_net(DATA + python % ("h1", "a") + python.replace('"data"', '"a"') % ("h2", "b"), caffe.TEST)
    with pytest.raises(CaffeError, match='"h1" .Python., "h2" .Python. cannot run in PyTorch.*TorchLayer'):
        caffe.to_torch(net)
    with pytest.raises(CaffeError, match='"h1" .Python., "h2" .Python.: Python layers compute on numpy'):
        export.to_onnx(net)


def test_recurrent_layers_begin_with_zeros_each_time(make_net):
    text = """
layer { name: "x" type: "Input" top: "x" top: "cont" input_param { shape { dim: 3 dim: 2 dim: 4 } shape { dim: 3 dim: 2 } } }
layer { name: "lstm" type: "LSTM" bottom: "x" bottom: "cont" top: "y" recurrent_param { num_output: 5 weight_filler { type: "xavier" } } }
"""
    net = make_net(text, caffe.TEST)
    module = caffe.to_torch(net)
    assert set(module.state_dict()) == {"lstm.weight_xc", "lstm.bias_c", "lstm.weight_hc"}
    x, cont = torch.randn(3, 2, 4), torch.ones(3, 2)
    first = net.forward(x=x.numpy(), cont=cont.numpy())["y"].copy()
    for _ in range(2):
        np.testing.assert_allclose(module(x, cont).detach(), first, atol=1e-6)
    assert not np.allclose(net.forward(x=x.numpy(), cont=cont.numpy())["y"], first)


def test_pt2_runs_without_torchcaffe(make_net, tmp_path):
    net = make_net(DATA + BODY + SOFTMAX, caffe.TEST)
    export.write_pt2(tmp_path / "net.pt2", net)
    script = (
        "import sys, numpy, torch; program = torch.export.load(sys.argv[1]).module();"
        "numpy.save(sys.argv[3], program(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy());"
        "assert 'torchcaffe' not in sys.modules"
    )
    data = images(5, count=7)
    np.save(tmp_path / "data.npy", data)
    words = [tmp_path / "net.pt2", tmp_path / "data.npy", tmp_path / "prob.npy"]
    subprocess.run([sys.executable, "-I", "-c", script, *map(str, words)], check=True, cwd=tmp_path)
    net.blobs["data"].reshape(*data.shape)
    np.testing.assert_allclose(np.load(tmp_path / "prob.npy"), net.forward(data=data)["prob"], atol=1e-6)


def test_its_convolution_is_the_plain_one(make_net):
    """The engine's own on the CPU, Winograd's, rounds otherwise and is nothing that others can follow."""
    text = DATA.replace("dim: 3 dim: 9 dim: 9", "dim: 64 dim: 16 dim: 16") + (
        'layer { name: "conv" type: "Convolution" bottom: "data" top: "y" convolution_param { num_output: 64 kernel_size: 3 pad: 1 '
        'weight_filler { type: "xavier" } } }'
    )
    net = make_net(text, caffe.TEST)
    module, x = caffe.to_torch(net), torch.randn(4, 64, 16, 16)
    with torch.no_grad():
        last = x.contiguous(memory_format=torch.channels_last)
        expected = torch.nn.functional.conv2d(last, module.conv.weight, module.conv.bias, padding=1)
        assert torch.allclose(module(x), expected, atol=1e-6) and torch.allclose(export.to_pt2(net).module()(x), expected, atol=1e-6)
    np.testing.assert_allclose(net.forward(data=x.numpy())["y"], expected, atol=1e-4)


def test_only_nets_of_the_test_phase_are_written(make_net):
    net = make_net(DATA + BODY, caffe.TRAIN)
    for make in (export.to_pt2, export.to_onnx):
        with pytest.raises(CaffeError, match=r"TEST phase.*Net\(file, caffe.TEST\)"):
            make(net)


class Weighted(caffe.TorchLayer):
    """x * sum of a table, plus a learned number a channel; the table is a tensor that is no parameter."""

    type = "WeightedForExport"
    parameter_names = ("offset",)

    def setup(self, bottom, top):
        self.add_parameter((bottom[0].shape[1],), 0.5)
        self.table = torch.arange(3.0)

    def forward(self, x):
        return x * self.table.sum() + self.weight(0).reshape(-1, 1, 1)

    def backward(self, bottoms, tops, gradients):
        return gradients[0] * self.table.sum(), 7 * gradients[0].sum((0, 2, 3))


OWN = 'layer { name: "mine" type: "WeightedForExport" bottom: "data" top: "mine" }\n'


@pytest.fixture
def own():
    yield caffe.register_layer(Weighted)
    from torchcaffe.layers import base

    base._REGISTRY.pop(Weighted.type)


def test_layers_of_ones_own(own, make_net):
    net = make_net(DATA + OWN, caffe.TEST)
    module, data = caffe.to_torch(net), torch.from_numpy(images())
    assert list(module.state_dict()) == ["mine.offset"] == list(export.tensors(net))
    np.testing.assert_allclose(module(data).detach(), net.forward(data=images())["mine"], atol=1e-6)
    module(data).sum().backward()
    assert module.mine.offset.grad.tolist() == [7 * 4 * 81] * 3  # its own backward
    assert module.to("meta").mine.table_tensor.device.type == "meta"
    with pytest.raises(CaffeError, match='"mine" .WeightedForExport.: its class has no method to_onnx'):
        export.to_onnx(net)


def test_layers_of_ones_own_that_say_how(own, make_net, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")

    def to_onnx(self, graph, x):
        scaled = graph.add("Mul", x, float(self.table.sum()))
        return graph.add("Add", scaled, graph.parameter(self, "offset", (-1, 1, 1)))

    for wrong, words in (
        (lambda self, graph, x: None, '"mine" .WeightedForExport.: to_onnx gives 0 values for 1 tops'),
        (lambda self, graph, x: graph.add("Multiply", x, 2.0), "not valid ONNX: .*Multiply"),
    ):
        monkeypatch.setattr(Weighted, "to_onnx", wrong)
        with pytest.raises(CaffeError, match=words):
            export.to_onnx(make_net(DATA + OWN, caffe.TEST))
    monkeypatch.setattr(Weighted, "to_onnx", to_onnx)
    net = make_net(DATA + OWN, caffe.TEST)
    session = onnxruntime.InferenceSession(export.to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["mine"], {"data": images()})
    np.testing.assert_allclose(found, net.forward(data=images())["mine"], atol=1e-6)


def test_one_value_for_two_tops(own, make_net, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(Weighted, "tops", (2, 2))
    monkeypatch.setattr(Weighted, "shapes", lambda self, shape: [shape] * 2)
    monkeypatch.setattr(Weighted, "to_onnx", lambda self, graph, x: [graph.add("Neg", x)] * 2)
    net = make_net(DATA + OWN.replace('top: "mine"', 'top: "mine" top: "yours"'), caffe.TEST)
    session = onnxruntime.InferenceSession(export.to_onnx(net).SerializeToString(), providers=["CPUExecutionProvider"])
    for found in session.run(["mine", "yours"], {"data": images()}):
        np.testing.assert_array_equal(found, -images())


def test_a_class_in_place_of_caffes_is_not_written_as_caffes(make_net):
    from torchcaffe.layers import activation, base

    @caffe.register_layer(replace=True)
    class Doubling(activation.Sigmoid):
        def forward(self, x):
            return 2 * x

    try:
        net = make_net(DATA + 'layer { name: "s" type: "Sigmoid" bottom: "data" top: "y" }', caffe.TEST)
        module = caffe.to_torch(net)
    finally:
        base._REGISTRY["Sigmoid"] = activation.Sigmoid
    assert torch.equal(module(torch.ones(4, 3, 9, 9)), torch.full((4, 3, 9, 9), 2.0))
    with pytest.raises(CaffeError, match='"s" .Sigmoid.: its class has no method to_onnx'):
        export.to_onnx(net)
