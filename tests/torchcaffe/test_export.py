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


@pytest.mark.parametrize("layers, words", [
    (layer("LRN", "norm1", "data", "norm1"), 'layer "norm1": type LRN cannot be written as ONNX; supported: '),
    (layer("InnerProduct", "fc", "data", "fc", "inner_product_param { num_output: 2 axis: 2 }"), '"fc".*axis 2'),
    (layer("Pooling", "p", "data", "p", "pooling_param { kernel_size: 2 stride: 3 }"), '"p".* outside the image'),
    (layer("Pooling", "p", "data", "p", "pooling_param { kernel_size: 2 pool: STOCHASTIC }"), '"p" .*STOCHASTIC'),
    (layer("Pooling", "p", "data", 'p" top: "mask', "pooling_param { kernel_size: 2 }"), '"p" .* 2 tops'),
    (layer("Convolution", "c", "data", "a", "convolution_param { num_output: 3 kernel_size: 1 }")
     + layer("Convolution", "c", "a", "b", "convolution_param { num_output: 3 kernel_size: 1 }"), "two layers .*c"),
])  # fmt: skip
def test_what_cannot_be_written_is_named(tmp_path, layers: str, words: str) -> None:
    with pytest.raises(CaffeError, match=words):
        export.write_onnx(tmp_path / "net.onnx", build(tmp_path, layers))
    assert not (tmp_path / "net.onnx").exists()


def test_missing_package(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CaffeError, match="ONNX needs the package onnx, which is not installed; type: pip install onnx "):
        export.write_onnx(tmp_path / "net.onnx", build(tmp_path, layer("ReLU", "r", "data", "r")))
