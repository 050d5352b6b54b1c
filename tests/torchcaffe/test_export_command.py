"""`torchcaffe export`: what it writes, and that it writes nothing where something is wrong."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import torchcaffe as caffe
from torchcaffe.commands.cli import main

onnxruntime = pytest.importorskip("onnxruntime")
NET = """name: "small"
input: "data" input_shape { dim: 2 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 4 kernel_size: 3
  weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 5 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "fc" top: "prob" }
"""
LOSS = """layer { name: "label" type: "Input" top: "label" input_param { shape { dim: 2 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "acc" }
"""


@pytest.fixture
def net(tmp_path, monkeypatch):
    """The net whose files deploy.prototxt and net.caffemodel are in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy.prototxt").write_text(NET)
    (tmp_path / "loss.prototxt").write_text(NET.replace('"prob"', '"probabilities"', 1) + LOSS)
    (tmp_path / "train.prototxt").write_text(
        'layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "gone" batch_size: 2 } include { phase: TRAIN } }\n'
        'layer { name: "e" type: "Data" top: "data" top: "label" data_param { source: "gone" batch_size: 2 } include { phase: TEST } }\n'
        + NET.partition("}\n")[2]
    )
    (tmp_path / "strange.prototxt").write_text(NET.replace('"Softmax"', '"Softmaxx"').replace('"BatchNorm"', '"BatchNorn"'))
    (tmp_path / "more.prototxt").write_text(NET.replace('"fc" type', '"other" type'))
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    net.params["bn"][1].data[...] = 2
    net.params["bn"][2].data[...] = 1
    net.save("net.caffemodel")
    return net


def test_all_three_files(net, capsys, tmp_path):
    assert main("export deploy.prototxt net.caffemodel --onnx a.onnx --safetensors a.safetensors --pt2 a.pt2".split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "a.onnx: opset 17, 5 nodes; data (batch, 3, 8, 8) -> prob (batch, 5)"
    assert lines[1] == "a.safetensors: 7 tensors, 846 numbers" and lines[2].endswith("inputs (batch, 3, 8, 8)")
    data = np.random.default_rng(0).normal(0, 1, (5, 3, 8, 8)).astype(np.float32)
    net.blobs["data"].reshape(*data.shape)
    ours = net.forward(data=data)["prob"]
    session = onnxruntime.InferenceSession("a.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["prob"], {"data": data})[0], ours, atol=1e-5)
    np.testing.assert_allclose(torch.export.load("a.pt2").module()(torch.from_numpy(data)).detach(), ours, atol=1e-6)
    module = caffe.to_torch("deploy.prototxt")
    module.load_state_dict({name: torch.from_numpy(array) for name, array in load_file("a.safetensors").items()})
    np.testing.assert_allclose(module(torch.from_numpy(data)).detach(), ours, atol=1e-6)


@pytest.mark.parametrize("line, words", [
    ("deploy.prototxt net.caffemodel", "name at least one file to write: -onnx out.onnx"),
    ("deploy.prototxt --onnx a.onnx", "usage: .* export .FLAGS. DEPLOY_PROTOTXT WEIGHTS"),
    ("missing.prototxt net.caffemodel --onnx a.onnx", "missing.prototxt"),
    ("deploy.prototxt missing.caffemodel --onnx a.onnx", "missing.caffemodel"),
    ("deploy.prototxt net.caffemodel --onxx a.onnx", "did you mean onnx"),
    ("more.prototxt net.caffemodel --onnx a.onnx", "net.caffemodel: has no weights for other; export the weights"),
    ("deploy.prototxt net.caffemodel --safetensors a.safetensors --onnx folder/a.onnx", "folder/a.onnx: cannot be written: the folder"),
    ("train.prototxt net.caffemodel --pt2 a.pt2", 'train.prototxt: "e" .Data.: reads data; export the deploy prototxt'),
    ("train.prototxt net.caffemodel --safetensors a.safetensors", "gone"),
    ("strange.prototxt net.caffemodel --onnx a.onnx", 'unknown types: "bn" .BatchNorn., "prob" .Softmaxx.; register them'),
    ("loss.prototxt net.caffemodel --safetensors a.safetensors --onnx a.onnx", '"loss" .SoftmaxWithLoss., "acc" .Accuracy.: '),
])  # fmt: skip
def test_mistakes_are_one_line_and_nothing_is_written(net, capsys, tmp_path, line, words):
    before = sorted(tmp_path.iterdir())
    assert main(["export", *line.split()]) == 1
    error = capsys.readouterr().err
    assert error.startswith("torchcaffe export: ") and error.count("\n") == 1
    assert re.search(words, error)
    assert sorted(tmp_path.iterdir()) == before


def test_help_does_not_load_torch():
    script = "import sys; from torchcaffe.commands.cli import main; main(['export', '--help']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "-pt2" in done.stdout and "DEPLOY_PROTOTXT WEIGHTS" in done.stdout
