"""Nets on OpenCV answer what torchcaffe answers; what OpenCV may read in another way, torchcaffe computes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import torchcaffe as caffe
from common import engine, opencv

ROOT = Path(__file__).resolve().parents[2]
CLOSE = 5e-5  # of numbers of about 1, which Winograd's algorithm rounds otherwise than the plain convolution


def layer(kind, name, bottom="", top="", settings=""):
    bottom = f'bottom: "{bottom}"' if bottom else ""
    return f'layer {{ name: "{name}" type: "{kind}" {bottom} top: "{top or name}" {settings} }}\n'


def given(*sides, channels=3, batch=2):
    dims = " ".join(f"dim: {dim}" for dim in (batch, channels, *sides))
    return layer("Input", "input", top="data", settings=f"input_param {{ shape {{ {dims} }} }}")


def convolution(settings="num_output: 4 kernel_size: 3", bottom="data", name="conv"):
    return layer("Convolution", name, bottom, settings=f"convolution_param {{ {settings} }}")


def product(bottom, outputs=3, name="fc"):
    return layer("InnerProduct", name, bottom, settings=f"inner_product_param {{ num_output: {outputs} }}")


SOFTMAX = layer("Softmax", "prob", "fc")
NET = given(9, 8) + convolution() + product("conv") + SOFTMAX


@pytest.fixture
def made(tmp_path):
    """make(text, change): paths of a net's prototxt and random weights, which `change` may change before they are written."""
    def make(text, change=lambda net: None):
        definition, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
        definition.write_text(text)
        net = caffe.Net(str(definition), caffe.TEST)
        generator = np.random.default_rng(1)
        for blobs in net.params.values():
            for blob in blobs:
                blob.data[...] = generator.normal(0, 0.3, blob.data.shape)
        change(net)
        net.save(str(weights))
        return str(definition), str(weights)

    return make


def filled(net, shape, seed=5):
    data = net.blobs["data"]
    data.reshape(*shape)
    data.data[...] = np.random.default_rng(seed).normal(0, 1, shape)
    return {name: value.copy() for name, value in net.forward().items()}


def check_same(paths, shape):
    ours, theirs = filled(opencv.OpenCVNet(*paths), shape), filled(caffe.Net(paths[0], caffe.TEST, weights=paths[1]), shape)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        assert ours[name].shape == value.shape and ours[name].dtype == np.float32
        assert value.std() > 1e-3  # something to compare
        np.testing.assert_allclose(ours[name], value, atol=CLOSE, err_msg=name)


# ------------------------------------------------------------------------------------------ nets that OpenCV computes
@pytest.mark.parametrize("sides", [(12, 12), (13, 17), (24, 31)])
@pytest.mark.parametrize("settings", [
    "num_output: 5 kernel_size: 3", "num_output: 8 kernel_size: 3 pad: 1", "num_output: 4 kernel_size: 5 stride: 2 pad: 2",
    "num_output: 4 kernel_size: 2 stride: 3", "num_output: 7 kernel_size: 1",
    "num_output: 16 kernel_size: 3 kernel_size: 3 stride: 1 stride: 1 weight_filler { type: 'xavier' }",
])
def test_convolutions(made, settings, sides):
    check_same(made(given(*sides) + convolution(settings)), (2, 3, *sides))


@pytest.mark.parametrize("side", range(7, 13))
@pytest.mark.parametrize("kernel, stride", [(2, 2), (3, 2), (3, 3), (2, 1), (4, 3)])
def test_pooling_rounds_up(made, kernel, stride, side):
    pool = layer("Pooling", "pool", "data", settings=f"pooling_param {{ pool: MAX kernel_size: {kernel} stride: {stride} }}")
    check_same(made(given(side, 12) + pool), (2, 3, side, 12))


@pytest.mark.parametrize("text", [
    layer("ReLU", "relu", "conv", "conv") + product("conv") + SOFTMAX,
    layer("PReLU", "prelu", "conv", "conv") + product("conv") + layer("PReLU", "prelu2", "fc", "fc"),
    layer("PReLU", "prelu", "conv") + product("prelu") + layer("ReLU", "relu", "fc", "fc"),
    layer("Dropout", "drop", "conv", "conv", "dropout_param { dropout_ratio: 0.7 }") + product("conv") + SOFTMAX,
    product("conv", 5, "fc6") + layer("ReLU", "relu6", "fc6", "fc6") + product("fc6") + SOFTMAX,
    layer("Softmax", "map", "conv") + convolution("num_output: 2 kernel_size: 1", "conv", "boxes"),  # two outputs
    convolution("num_output: 2 kernel_size: 1", "conv", "first") + product("conv"),
])
def test_other_layers_and_several_outputs(made, text):
    check_same(made(given(11, 10) + convolution() + text), (3, 3, 11, 10))


@pytest.mark.parametrize("profile", ["demo", "small"])
@pytest.mark.parametrize("task", ["gender", "smile"])
def test_deploy_nets_of_the_profiles(made, profile, task):
    text = (ROOT / "prototxt" / profile / f"deploy_{task}.prototxt").read_text()
    paths = made(text, lambda net: [blobs[0].data.__imul__(0.4) for blobs in net.params.values()])
    check_same(paths, tuple(caffe.Net(paths[0], caffe.TEST).blobs["data"].data.shape))


@pytest.mark.parametrize("name, shapes", [
    ("det1", [(1, 3, 12, 12), (1, 3, 97, 64), (1, 3, 250, 301)]), ("det2", [(1, 3, 24, 24), (96, 3, 24, 24), (7, 3, 24, 24)]),
    ("det3", [(24, 3, 48, 48), (1, 3, 48, 48)])])  # fmt: skip
def test_the_detectors_nets(name, shapes):
    from detector.mtcnn import definition_path, weights_path

    paths = definition_path(name), weights_path(name)
    if not os.path.exists(paths[1]):
        pytest.skip("needs weights/mtcnn: make setup")
    for shape in shapes:
        check_same(paths, shape)


def test_digits_do_not_depend_on_earlier_inputs(made):
    net = opencv.Net(*_as_call(made(given(13, 9) + convolution("num_output: 8 kernel_size: 3 pad: 1"))))
    first = filled(net, (2, 3, 13, 9))["conv"]
    for shape in ((5, 3, 13, 9), (2, 3, 40, 31), (1, 3, 12, 12)):
        filled(net, shape)
    np.testing.assert_array_equal(filled(net, (2, 3, 13, 9))["conv"], first)
    np.testing.assert_array_equal(filled(net, (2, 3, 13, 9))["conv"], first)


def test_what_forward_returned_stays(made):
    net = opencv.Net(*_as_call(made(NET)))
    first = net.forward()["prob"]
    kept = first.copy()
    filled(net, (2, 3, 9, 8), seed=9)
    np.testing.assert_array_equal(first, kept)


def _as_call(paths):
    return paths[0], opencv.TEST, paths[1]


# ------------------------------------------------------------------------------------------ what torchcaffe computes
POOL = 'layer {{ name: "fc" type: "Pooling" bottom: "data" top: "fc" pooling_param {{ kernel_size: 2 {} }} }}'


@pytest.mark.parametrize("text, reason", [
    (given(9, 8).replace("shape {", "shape { dim: 2 dim: 3 dim: 9 dim: 8 } shape {").replace("top:", 'top: "other" top:')
     + convolution(name="fc"), "'input'"),
    (given(9, 8) + layer("LRN", "fc", "data"), "type LRN"),
    (given(9, 8) + layer("Sigmoid", "fc", "data"), "type Sigmoid"),
    (given(9, 8) + layer("ReLU", "fc", "data", settings="relu_param { negative_slope: 0.1 }"), "negative_slope"),
    (given(9, 8) + layer("Softmax", "fc", "data", settings="softmax_param { axis: 2 }"), "axis"),
    (given(9, 8) + layer("PReLU", "fc", "data", settings="prelu_param { channel_shared: true }"), "channel_shared"),
    (given(9, 8) + POOL.format("pool: AVE stride: 2"), "pool other than MAX"),
    (given(9, 8) + POOL.format("stride: 2 pad: 1"), "pad"),
    (given(9, 8) + POOL.format("stride: 3"), "stride 3, and kernel 2"),
    (given(9, 8) + convolution("num_output: 4 kernel_size: 3 dilation: 2", name="fc"), "dilation"),
    (given(9, 8) + convolution("num_output: 6 kernel_size: 3 group: 3", name="fc"), "group"),
    (given(9, 8) + convolution("num_output: 6 kernel_size: 3 bias_term: false", name="fc"), "bias_term"),
    (given(9, 8) + convolution("num_output: 6 kernel_size: 3 stride: 1 stride: 2", name="fc"), "no stride"),
    (given(9, 8) + convolution("num_output: 6 kernel_h: 3 kernel_w: 1", name="fc"), "kernel_h"),
    (given(9, 8) + convolution("num_output: 6 kernel_size: 3 kernel_size: 1", name="fc"), "'fc'"),
    (given(9, 8) + product("data").replace("} }", "axis: 2 } }"), "axis"),
    (given(9, 8) + convolution(name="fc").replace("layer {", "layer { include { phase: TEST }"), "include"),
    (given(9, 8) + convolution(name="fc").replace("layer {", 'layer { param { name: "shared" }'), "param"),
    (given(9, 8) + given(9, 8).replace("data", "fc").replace('"input"', '"input2"'), "'input2'"),
    ('input: "data" input_dim: 2 input_dim: 3 input_dim: 9 input_dim: 8 ' + convolution(name="fc"), "input"),
    ("force_backward: true " + given(9, 8) + convolution(name="fc"), "force_backward"),
])
def test_other_nets_run_on_torchcaffe(made, text, reason):
    paths = made(text)
    with pytest.raises(opencv.UnreadableError, match=reason):
        opencv.OpenCVNet(*paths)
    net = opencv.Net(*_as_call(paths))
    assert type(net).__module__.startswith("torchcaffe") and not hasattr(net, "engine")
    theirs = caffe.Net(paths[0], caffe.TEST, weights=paths[1])
    np.testing.assert_array_equal(filled(net, (2, 3, 9, 8))["fc"], filled(theirs, (2, 3, 9, 8))["fc"])


@pytest.mark.parametrize("text", [
    given(9, 8) + convolution("num_output: 6 kernel_size: 3 stride: 0"), given(9, 8) + POOL.format("stride: 0"),
    given(9, 8) + convolution() + convolution("num_output: 4 kernel_size: 1", "conv"),  # two layers and two blobs of a name
    given(9, 8) + convolution() + convolution("num_output: 3 kernel_size: 1", "conv", "other").replace('top: "other"', 'top: "data"'),
    given(9, 8) + convolution(bottom="none"), given(0, 8) + convolution(), given(-9, 8) + convolution(),
    given(900_000, 900_000) + convolution(), given(2, 2) + convolution(), convolution(), "",
])
def test_nets_that_are_none_raise_what_torchcaffe_raises(made, tmp_path, text):
    _, weights = made(NET)
    other = tmp_path / "other.prototxt"
    other.write_text(text)
    with pytest.raises(RuntimeError):
        opencv.OpenCVNet(str(other), weights)
    try:
        caffe.Net(str(other), caffe.TEST, weights=weights)
    except RuntimeError as error:
        with pytest.raises(RuntimeError, match=re.escape(str(error)[:40])):
            opencv.Net(str(other), opencv.TEST, weights)


def drop(net):
    net.params["conv"][0].data[0, 0, 0, 0] = np.nan


def test_weights_with_nan_are_left_to_torchcaffe(made):
    """OpenCV's ReLU would make 0 of them, and an answer."""
    paths = made(given(9, 8) + convolution() + layer("ReLU", "relu", "conv", "conv") + product("conv") + SOFTMAX, drop)
    with pytest.raises(opencv.UnreadableError, match="NaN"):
        opencv.OpenCVNet(*paths)
    assert np.isnan(filled(opencv.Net(*_as_call(paths)), (2, 3, 9, 8))["prob"]).any()


@pytest.mark.parametrize("text", [
    NET.replace("num_output: 4", "num_output: 5"), NET.replace("kernel_size: 3", "kernel_size: 1"), NET.replace("dim: 3", "dim: 6"),
    NET.replace("dim: 8", "dim: 7"), NET.replace('"conv"', '"other"')])  # fmt: skip
def test_weights_of_another_net(made, tmp_path, text):
    """Whether torchcaffe takes or refuses them, the same comes of it; OpenCV would take some."""
    _, weights = made(NET)
    other = tmp_path / "other.prototxt"
    other.write_text(text)
    with pytest.raises(opencv.UnreadableError, match="layer '"):
        opencv.OpenCVNet(str(other), weights)

    def outcome(make):
        try:
            return filled(make(), tuple(caffe.Net(str(other), caffe.TEST).blobs["data"].data.shape))["prob"].tolist()
        except RuntimeError as error:
            return str(error)

    assert outcome(lambda: opencv.Net(str(other), opencv.TEST, weights)) == outcome(
        lambda: caffe.Net(str(other), caffe.TEST, weights=weights))


def test_weights_of_another_shape_and_the_same_size(made, tmp_path):
    _, weights = made(given(9, 8) + convolution())
    other = tmp_path / "other.prototxt"
    other.write_text(given(9, 8, channels=27) + convolution("num_output: 4 kernel_size: 1"))
    with pytest.raises(opencv.UnreadableError, match="other weights"):
        opencv.OpenCVNet(str(other), weights)
    with pytest.raises(RuntimeError, match="conv"):
        opencv.Net(str(other), opencv.TEST, weights)


@pytest.mark.parametrize("damage", [
    lambda content: content[: len(content) // 2], lambda content: b"", lambda content: b"<html>", lambda content: content[9:],
    lambda content: content + content])  # fmt: skip
def test_damaged_weights_are_refused_in_torchcaffes_words(made, damage):
    definition, weights = made(NET)
    Path(weights).write_bytes(damage(Path(weights).read_bytes()))
    with pytest.raises(opencv.UnreadableError):
        opencv.OpenCVNet(definition, weights)
    try:
        caffe.Net(definition, caffe.TEST, weights=weights)
    except RuntimeError as error:
        with pytest.raises(type(error)) as raised:
            opencv.Net(definition, opencv.TEST, weights)
        assert str(raised.value) == str(error) and weights in str(error)


def test_files_that_are_missing_or_no_net(made, tmp_path):
    definition, weights = made(NET)
    for paths in ((definition, str(tmp_path / "none.caffemodel")), (str(tmp_path / "none.prototxt"), weights)):
        with pytest.raises(RuntimeError, match="none"):
            opencv.Net(*_as_call(paths))
    Path(definition).write_text("layer { nam: 'x' }")
    with pytest.raises(RuntimeError, match="net.prototxt, line 1"):
        opencv.Net(definition, opencv.TEST, weights)


def test_large_weights_are_left_to_torchcaffe_which_maps_them(made, monkeypatch):
    paths = made(NET)
    monkeypatch.setattr(opencv, "LARGEST_FILE", os.path.getsize(paths[1]) - 1)
    with pytest.raises(opencv.UnreadableError, match="more than"):
        opencv.OpenCVNet(*paths)
    monkeypatch.setattr(opencv, "LARGEST_FILE", os.path.getsize(paths[1]))
    assert opencv.OpenCVNet(*paths).engine == "opencv"


def test_weights_in_other_forms(made, tmp_path):
    """HDF5, and 2014's layers with four axes a blob: what OpenCV would not read, torchcaffe's readers do."""
    from torchcaffe.formats.weights import write_v1_weights

    definition, weights = made(NET)
    net = caffe.Net(definition, caffe.TEST, weights=weights)
    expected = filled(net, (2, 3, 9, 8))["prob"]
    arrays = {name: [blob.data for blob in blobs] for name, blobs in net.params.items()}
    old = [(name, kind, [arrays[name][0].reshape((1,) * (4 - arrays[name][0].ndim) + arrays[name][0].shape),
                         arrays[name][1].reshape(1, 1, 1, -1)]) for name, kind in (("conv", "CONVOLUTION"), ("fc", "INNER_PRODUCT"))]
    write_v1_weights(str(tmp_path / "old.caffemodel"), "old", old)
    net.save_hdf5(str(tmp_path / "net.caffemodel.h5"))
    for path in ("old.caffemodel", "net.caffemodel.h5"):
        found = filled(opencv.OpenCVNet(definition, str(tmp_path / path)), (2, 3, 9, 8))["prob"]
        np.testing.assert_allclose(found, expected, atol=CLOSE)


# ------------------------------------------------------------------------------------------ memory, threads, choice
def test_an_input_too_large_for_the_memory_is_an_error(made):
    net = opencv.OpenCVNet(*made(given(12, 12, batch=1) + convolution("num_output: 64 kernel_size: 3")))
    net.blobs["data"].data = np.broadcast_to(np.float32(0), (1, 3, 400_000, 40_000))  # takes no memory itself
    with pytest.raises(MemoryError, match="bytes"):
        net.forward()


def test_an_input_that_does_not_fit_is_an_error_and_the_net_goes_on(made):
    net = opencv.OpenCVNet(*made(NET))
    expected = filled(net, (2, 3, 9, 8))["prob"]
    for shape in ((2, 3, 2, 2), (2, 5, 9, 8), (2, 3, 9, 9)):
        with pytest.raises(RuntimeError):
            filled(net, shape)
    np.testing.assert_array_equal(filled(net, (2, 3, 9, 8))["prob"], expected)


@pytest.mark.parametrize("variable, threads", [("1", 1), ("1,2", 1), ("64", None), ("many", None)])
def test_threads_are_limited_as_torchs(made, variable, threads):
    code = ("import sys, cv2; from common import opencv; cv2.setNumThreads(2); opencv.OpenCVNet(*sys.argv[1:]); "
            "print(cv2.getNumThreads())")
    done = subprocess.run([sys.executable, "-c", code, *made(NET)], capture_output=True, text=True, check=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": variable})
    assert int(done.stdout) == (threads or 2)


def test_auto_is_opencv_for_answers_only(monkeypatch):
    monkeypatch.setattr(engine, "_importable", lambda name: False)
    assert engine.resolve("auto", predicting=True) is opencv is engine.resolve("opencv", predicting=True)
    assert engine.resolve("torch", predicting=True) is caffe is engine.resolve("auto")
    for refused in (engine.resolve, engine.interpreter, engine.module_name):
        with pytest.raises(engine.EngineError, match="only answers photos"):
            refused("opencv")


def test_auto_is_real_caffe_where_python_imports_it(monkeypatch):
    import types

    monkeypatch.setattr(engine, "_importable", lambda name: True)
    monkeypatch.setitem(sys.modules, "caffe", types.ModuleType("caffe"))
    assert engine.resolve("auto", predicting=True).__name__ == "caffe"


@pytest.mark.parametrize("tool", ["train", "evaluate", "tables", "calibrate", "demo", "suspects"])
def test_commands_that_train_or_score_refuse_opencv_in_a_line(tool, tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / "tools" / f"{tool}.py")], capture_output=True, text=True, cwd=tmp_path,
                          env={**os.environ, "ENGINE": "opencv"})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "'opencv', which only answers photos (choose from auto, caffe, torch)" in done.stderr


def test_a_damaged_definition_of_a_profile_has_torchcaffes_message(made, tmp_path, monkeypatch):
    import recipe
    from gender_smile.inference.classifier import PipelineError, load_net

    definition, weights = made(NET)
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    Path(weights).write_bytes(json.dumps({}).encode())
    with pytest.raises(PipelineError, match="cannot load net.caffemodel into net.prototxt: .*caffemodel"):
        load_net(opencv, "net.prototxt", "net.caffemodel", "make step4")
