"""torchcaffe.formats.export: onnxruntime and the safetensors package read what it writes, and answer as the engine does."""

from __future__ import annotations

import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors import safe_open

import torchcaffe as caffe
from torchcaffe.formats import export
from torchcaffe.core.errors import CaffeError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def build(tmp_path: Path, layers: str, shape=(2, 3, 9, 11)) -> caffe.Net:
    """A net on blob "data" with random weights, phase TEST."""
    dims = " ".join(f"dim: {size}" for size in shape)
    path = tmp_path / "net.prototxt"
    data = f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {dims} }} }} }}\n'
    path.write_text(data + layers)
    caffe.set_mode_cpu()
    net = caffe.Net(str(path), caffe.TEST)
    generator = np.random.default_rng(1)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = generator.normal(0, 0.5, blob.data.shape)
    return net


def check(net, tmp_path: Path, batches=(2, 1, 5)) -> dict:
    """Both engines on batches of several sizes; returns the last answers of onnxruntime."""
    path = str(tmp_path / "net.onnx")
    export.write_onnx(path, net, {"word": "kept"})
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"word": "kept"}
    assert [output.name for output in session.get_outputs()] == list(net.outputs)
    for count in batches:
        blob = np.random.default_rng(count).normal(0, 1, (count, *net.blobs["data"].shape[1:])).astype(np.float32)
        net.blobs["data"].reshape(*blob.shape)
        ours = {name: array.copy() for name, array in net.forward(data=blob).items()}
        theirs = dict(zip(net.outputs, session.run(None, {"data": blob})))
        for name in net.outputs:
            assert theirs[name].shape == ours[name].shape
            assert np.ptp(ours[name]) > 1e-3, name
            np.testing.assert_allclose(theirs[name], ours[name], atol=1e-5, rtol=1e-5, err_msg=name)
    return theirs


def layer(kind: str, name: str, bottom: str, top: str, rest: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}" {rest} }}\n'


@pytest.mark.parametrize("pool", ["MAX", "AVE"])
@pytest.mark.parametrize("numbers", [
    "kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2", "kernel_size: 3 stride: 2 pad: 1",
    "kernel_size: 4 stride: 3 pad: 2", "kernel_h: 2 kernel_w: 5 stride_h: 3 stride_w: 2 pad_h: 1 pad_w: 0",
    "kernel_size: 3 stride: 2 round_mode: FLOOR", "kernel_size: 3 stride: 5 pad: 2", "global_pooling: true",
])  # fmt: skip
def test_pooling_rounds_as_caffe(tmp_path, pool: str, numbers: str) -> None:
    check(build(tmp_path, layer("Pooling", "pool", "data", "pool", f"pooling_param {{ pool: {pool} {numbers} }}")),
          tmp_path)


@pytest.mark.parametrize("numbers", [
    "kernel_size: 3 pad: 1", "kernel_size: 3 stride: 2 dilation: 2 pad: 2 bias_term: false",
    "kernel_h: 1 kernel_w: 4 pad_h: 0 pad_w: 2 stride_h: 2 stride_w: 1 group: 3",
])  # fmt: skip
def test_convolution(tmp_path, numbers: str) -> None:
    check(build(tmp_path, layer("Convolution", "c", "data", "c", f"convolution_param {{ num_output: 6 {numbers} }}")),
          tmp_path)


def test_layers_in_place_and_blobs_that_several_read(tmp_path) -> None:
    net = build(
        tmp_path,
        layer("Convolution", "conv", "data", "conv", "convolution_param { num_output: 4 kernel_size: 3 }")
        + layer("ReLU", "relu", "conv", "conv", "relu_param { negative_slope: 0.25 }")
        + layer("InnerProduct", "fc", "conv", "fc", "inner_product_param { num_output: 7 }")
        + layer("ReLU", "relu2", "fc", "fc", "relu_param { negative_slope: 0.1 }")
        + layer("Dropout", "drop", "fc", "fc")
        + layer("InnerProduct", "turned", "fc", "scores", "inner_product_param { num_output: 5 transpose: true }")
        + layer("Softmax", "prob", "scores", "prob")
        + layer("Sigmoid", "each", "conv", "each")
        + layer("Softmax", "channels", "conv", "channels")
        + layer("Dropout", "copy", "fc", "copied"),
    )
    answers = check(net, tmp_path)
    assert set(answers) == {"prob", "each", "channels", "copied"}
    np.testing.assert_allclose(answers["prob"].sum(1), 1, rtol=1e-6)


def test_weights_as_safetensors(tmp_path) -> None:
    net = build(
        tmp_path,
        layer("Convolution", "conv", "data", "conv", "convolution_param { num_output: 4 kernel_size: 3 }")
        + layer("InnerProduct", "fc", "conv", "fc", "inner_product_param { num_output: 7 bias_term: false }"),
    )
    path = tmp_path / "net.safetensors"
    export.write_safetensors(path, net, {"word": "kept"})
    found = load_file(path)
    assert {name: array.shape for name, array in found.items()} == {
        "conv.weight": (4, 3, 3, 3), "conv.bias": (4,), "fc.weight": (7, 4 * 7 * 9)
    }
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, net.params[name.split(".")[0]][name.endswith("bias")].data)
    with safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"word": "kept"}
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode  # who may read new files here may read this one


@pytest.mark.parametrize("write, name", [(export.write_safetensors, "net.safetensors"), (export.write_onnx, "net.onnx")])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, write, name) -> None:
    net = build(tmp_path, layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 900 }"))
    (tmp_path / name).write_text("before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
        with pytest.raises(CaffeError, match=f"/{name}: cannot be written: .*File too large"):
            write(tmp_path / name, net)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert (tmp_path / name).read_text() == "before" and len(list(tmp_path.iterdir())) == 2


def test_an_onnx_file_that_fails_its_check_gets_no_name(tmp_path) -> None:
    net = build(tmp_path, layer("ReLU", "r", "data", "r"))
    assert export.write_onnx(tmp_path / "net.onnx", net, check=lambda path: onnx.load(path).graph.node[0].op_type) == "Relu"

    def refuse(path) -> None:
        raise ValueError(path)

    with pytest.raises(ValueError):
        export.write_onnx(tmp_path / "other.onnx", net, check=refuse)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.prototxt"]


def test_stochastic_pooling_is_a_weighted_mean_in_the_test_phase(tmp_path) -> None:
    for size in ("kernel_size: 2 stride: 2", "kernel_size: 3 stride: 2", "kernel_size: 1 stride: 3"):
        check(build(tmp_path, layer("ReLU", "r", "data", "r") + layer("Pooling", "p", "r", "p", f"pooling_param {{ pool: STOCHASTIC {size} }}")),
              tmp_path)


def test_items_that_a_filter_lets_pass(tmp_path) -> None:
    """How many, only the run says: with the batch free, ONNX can have it so."""
    net = build(
        tmp_path,
        'layer { name: "s" type: "Input" top: "chosen" input_param { shape { dim: 2 } } }\n'
        + layer("Filter", "f", "data\" bottom: \"chosen", "kept")
        + layer("InnerProduct", "fc", "kept", "fc", "inner_product_param { num_output: 4 }"),
    )
    model = export.to_onnx(net)
    assert not model.graph.output[0].type.tensor_type.shape.dim[0].dim_param  # it is not the batch
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for chosen in ([1, 0, 1, 1, 0], [0, 2, 0, 0, 0]):
        data = np.random.default_rng(3).normal(0, 1, (5, 3, 9, 11)).astype(np.float32)
        net.blobs["data"].reshape(*data.shape)
        net.blobs["chosen"].reshape(5)
        ours = net.forward(data=data, chosen=np.float32(chosen))["fc"].copy()
        (theirs,) = session.run(None, {"data": data, "chosen": np.float32(chosen)})
        assert theirs.shape == ours.shape == (np.count_nonzero(chosen), 4)
        np.testing.assert_allclose(theirs, ours, atol=1e-5, rtol=1e-5)


def test_names_of_values(tmp_path) -> None:
    """Inputs, outputs and what is between have the blobs' names; what changes in place, at its end."""
    net = build(
        tmp_path,
        layer("ReLU", "first", "data", "data")
        + layer("Convolution", "conv", "data", "conv", "convolution_param { num_output: 4 kernel_size: 3 }")
        + layer("ReLU", "relu", "conv", "conv")
        + layer("Sigmoid", "top", "conv", "top")
        + layer("Dropout", "drop", "top", "dropped"),
    )
    graph = export.to_onnx(net).graph
    assert [value.name for value in graph.input] == ["data"] and [value.name for value in graph.output] == ["dropped"]
    made = [output for node in graph.node for output in node.output]
    assert made == ["data/first", "conv/conv", "conv", "top", "dropped"]
    assert {value.name for value in graph.initializer} == {"conv.weight", "conv.bias"}
    assert [dim.dim_param or dim.dim_value for dim in graph.output[0].type.tensor_type.shape.dim] == ["batch", 4, 7, 9]


def test_a_net_that_wants_its_own_batch_keeps_it(tmp_path) -> None:
    net = build(tmp_path, layer("Reshape", "r", "data", "r", "reshape_param { shape { dim: 2 dim: 3 dim: 99 } }"))
    assert export.to_onnx(net).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
    check(net, tmp_path, batches=(2,))
    program = export.to_pt2(net)
    assert not program.range_constraints


def test_all_layers_that_onnx_cannot_say_are_named(tmp_path) -> None:
    dummy = 'layer { name: "d" type: "DummyData" top: "t" dummy_data_param { shape { dim: 2 dim: 3 dim: 9 dim: 11 } } }\n'
    layers = dummy + layer("Dropout", "drop", "data", "x", "phase: TRAIN") + layer("EuclideanLoss", "loss", "x\" bottom: \"t", "loss")
    with pytest.raises(CaffeError) as raised:
        export.write_onnx(tmp_path / "net.onnx", build(tmp_path, layers))
    message = str(raised.value)
    assert '"d" (DummyData), "loss" (EuclideanLoss): ' in message and "deploy prototxt" in message
    assert '"drop" (Dropout): phase: TRAIN' in message and not (tmp_path / "net.onnx").exists()


def test_two_layers_of_one_name(tmp_path) -> None:
    numbers = "convolution_param { num_output: 3 kernel_size: 1 }"
    net = build(tmp_path, layer("Convolution", "c", "data", "a", numbers) + layer("Convolution", "c", "a", "b", numbers))
    for make in (export.tensors, caffe.to_torch):
        with pytest.raises(CaffeError, match='two layers are named "c": give each its own name'):
            make(net)
    check(net, tmp_path)


def test_shared_weights_are_written_once(tmp_path) -> None:
    shared = 'param { name: "w" } param { name: "b" } convolution_param { num_output: 3 kernel_size: 1 }'
    net = build(tmp_path, layer("Convolution", "one", "data", "a", shared) + layer("Convolution", "two", "a", "b", shared))
    assert [value.name for value in export.to_onnx(net).graph.initializer] == ["one.weight", "one.bias"]
    check(net, tmp_path)
    assert set(export.tensors(net)) == {"one.weight", "one.bias", "two.weight", "two.bias"}


def test_safetensors_of_a_net_with_batch_norm_fit_pytorch(tmp_path) -> None:
    import torch

    net = build(tmp_path, layer("BatchNorm", "bn", "data", "bn") + layer("Scale", "scale", "bn", "top", "scale_param { bias_term: true }"))
    net.params["bn"][1].data[...] = 1, 2, 3
    net.params["bn"][2].data[...] = 0.5
    export.write_safetensors(tmp_path / "net.safetensors", net)
    found = load_file(tmp_path / "net.safetensors")
    theirs = torch.nn.BatchNorm2d(3).eval()
    renamed = {"running_mean": "bn.running_mean", "running_var": "bn.running_var", "weight": "scale.weight", "bias": "scale.bias"}
    theirs.load_state_dict({name: torch.from_numpy(found[key]) for name, key in renamed.items()}, strict=False)
    data = np.random.default_rng(3).normal(0, 1, (2, 3, 9, 11)).astype(np.float32)
    np.testing.assert_allclose(theirs(torch.from_numpy(data)).detach(), net.forward(data=data)["top"], atol=1e-5)
    check(net, tmp_path)


def test_missing_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CaffeError, match="ONNX needs the package onnx, which is not installed; type: pip install onnx "):
        export.write_onnx(tmp_path / "net.onnx", build(tmp_path, layer("ReLU", "r", "data", "r")))
