"""gender_smile/nets/vgg_face_ports.py: a port of VGG-Face becomes a caffemodel that answers as the port did; others are refused."""

from __future__ import annotations

import io
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import recipe
from gender_smile.nets import topology, vgg_face, vgg_face_ports, vgg_face_sources
from tools import weights
from gender_smile.nets.vgg_face_ports import STYLES
from torchcaffe.core.errors import WeightsError
from torchcaffe.formats.files import read_weights

onnx = pytest.importorskip("onnx")
WIDTH, SIZE = 1 / 32, 32
NARROW = {"width": WIDTH, "input_size": SIZE}


def layers_of(shapes: dict) -> list:
    """PyTorch's layers with random weights, one for each of VGG-Face's: variance 2 / inputs."""
    torch.manual_seed(4)
    made = []
    for weight, _ in shapes.values():
        convolution = len(weight) == 4
        layer = torch.nn.Conv2d(weight[1], weight[0], 3, padding=1) if convolution else torch.nn.Linear(*weight[::-1])
        torch.nn.init.kaiming_normal_(layer.weight)
        made.append(layer)
    return made


class Port(torch.nn.Module):
    """VGG-Face in PyTorch, narrow."""

    def __init__(self):
        super().__init__()
        self.named = dict(zip(vgg_face.expected_shapes(**NARROW), layers_of(vgg_face.expected_shapes(**NARROW))))

    def forward(self, x):
        for group, (_, count) in enumerate(recipe.CONVOLUTIONS, start=1):
            for number in range(1, count + 1):
                x = torch.relu(self.named[f"conv{group}_{number}"](x))
            x = torch.nn.functional.max_pool2d(x, 2)
        x = torch.relu(self.named["fc6"](x.flatten(1)))
        return torch.softmax(self.named["fc8"](torch.relu(self.named["fc7"](x))), 1)

    def tensors(self, style, prefix="") -> dict:
        return {
            f"{prefix}{name}.{part}": getattr(layer, part).detach().contiguous()
            for name, layer in zip(style, self.named.values()) for part in ("weight", "bias")
        }  # fmt: skip


@pytest.fixture(scope="module")
def port() -> Port:
    return Port()


def answers(caffemodel: Path, blob: np.ndarray) -> np.ndarray:
    """VGG-Face's 2,622 probabilities, by the engine."""
    import torchcaffe as caffe

    profile = replace(recipe.DEMO, width=WIDTH, crop_size=SIZE)
    definition = caffemodel.with_suffix(".prototxt")
    definition.write_text(str(topology.deploy_net(profile, "identity")))
    caffe.set_mode_cpu()
    net = caffe.Net(str(definition), caffe.TEST, weights=str(caffemodel))
    net.blobs["data"].reshape(*blob.shape)
    return net.forward(data=blob)["prob"].copy()


def check(port: Port, path: Path, channels: str) -> None:
    """What `path` becomes gives, for a picture in B G R, what the port gives for it in its own order."""
    target = path.parent / "made.caffemodel"
    vgg_face_ports.convert(str(path), str(target), channels, **NARROW)
    vgg_face.check_vgg_face(str(target), **NARROW)
    bgr = np.random.default_rng(1).normal(0, 1, (2, 3, SIZE, SIZE)).astype(np.float32)
    seen = np.ascontiguousarray(bgr[:, ::-1] if channels == "rgb" else bgr)
    with torch.no_grad():
        expected = port(torch.from_numpy(seen)).numpy()
    assert np.ptp(expected) > 1e-4
    np.testing.assert_allclose(answers(target, bgr), expected, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize("style", STYLES.values(), ids=["caffe", "pytorch", "torchvision"])
def test_safetensors(tmp_path, port, style, channels: str) -> None:
    save_file(port.tensors(style), tmp_path / "port.safetensors")
    check(port, tmp_path / "port.safetensors", channels)


def test_names_under_data_parallel_and_fc6_as_a_convolution(tmp_path, port) -> None:
    tensors = port.tensors(vgg_face_ports.LAYERS, "module.")
    tensors["module.fc6.weight"] = tensors["module.fc6.weight"].reshape(128, -1, 1, 1)  # 16 channels of 1 x 1
    tensors = {name: tensor.half().float() for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "port.safetensors")
    vgg_face_ports.convert(str(tmp_path / "port.safetensors"), str(tmp_path / "made.caffemodel"), "bgr", **NARROW)
    found = {layer.name: layer.blobs for layer in read_weights(tmp_path / "made.caffemodel")}
    np.testing.assert_array_equal(found["fc6"][0].data.reshape(-1), tensors["module.fc6.weight"].numpy().reshape(-1))


def graph(port: Port, product: str, extra=()) -> "onnx.ModelProto":
    """The port as an exporter writes it: convolutions, and fully connected layers as Gemm or as MatMul and Add."""
    helper, array = onnx.helper, onnx.numpy_helper.from_array
    nodes, tensors, x = list(extra), [], "data"
    for name, layer in port.named.items():
        weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        if weight.ndim == 4:
            nodes.append(helper.make_node("Conv", [x, f"{name}.w", f"{name}.b"], [name], pads=[1, 1, 1, 1]))
        elif product == "MatMul":
            weight = weight.T
            nodes.append(helper.make_node("MatMul", [x, f"{name}.w"], [f"{name}.product"]))
            nodes.append(helper.make_node("Add", [f"{name}.b", f"{name}.product"], [name]))
        else:
            if product == "Gemm":
                weight = weight.T
            inputs = [x, f"{name}.w", f"{name}.b"]
            nodes.append(helper.make_node("Gemm", inputs, [name], transB=int(product == "GemmT")))
        tensors += [array(np.ascontiguousarray(weight), f"{name}.w"), array(bias, f"{name}.b")]
        nodes.append(helper.make_node("Relu", [name], [f"{name}.relu"]))
        x = f"{name}.relu"
    info = helper.make_tensor_value_info
    ends = [info("data", 1, ["n", 3, SIZE, SIZE])], [info(x, 1, ["n", recipe.IDENTITIES])]
    return helper.make_model(helper.make_graph(nodes, "port", *ends, tensors))


@pytest.mark.parametrize("product", ["Gemm", "GemmT", "MatMul"])
def test_onnx(tmp_path, port, product: str) -> None:
    onnx.save(graph(port, product), tmp_path / "port.onnx")
    check(port, tmp_path / "port.onnx", "rgb")


def test_our_own_exports_come_back(tmp_path, port) -> None:
    import torchcaffe as caffe
    from torchcaffe.formats import export

    save_file(port.tensors(vgg_face_ports.LAYERS), tmp_path / "port.safetensors")
    check(port, tmp_path / "port.safetensors", "bgr")
    net = caffe.Net(str(tmp_path / "made.prototxt"), caffe.TEST, weights=str(tmp_path / "made.caffemodel"))
    export.write_onnx(tmp_path / "again.onnx", net)
    check(port, tmp_path / "again.onnx", "bgr")
    export.write_safetensors(tmp_path / "again.safetensors", net)
    check(port, tmp_path / "again.safetensors", "bgr")


def refused(path: Path, words: str, channels="rgb") -> None:
    with pytest.raises(WeightsError, match=words):
        vgg_face_ports.convert(str(path), str(path.parent / "made.caffemodel"), channels, **NARROW)
    assert not (path.parent / "made.caffemodel").exists()


class Trap:
    """Runs a program when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("it was unpickled",)


@pytest.mark.parametrize("name", ["port.pt", "port.pth", "port.safetensors", "port.onnx", "port"])
@pytest.mark.parametrize("as_zip", [True, False])
def test_nothing_is_unpickled(tmp_path, name: str, as_zip: bool) -> None:
    stream = io.BytesIO()
    torch.save({"conv1_1.weight": Trap()}, stream) if as_zip else pickle.dump(Trap(), stream)
    (tmp_path / name).write_bytes(stream.getvalue())
    refused(tmp_path / name, "a PyTorch pickle.*safetensors.torch.save_file")


def test_channel_order_has_to_be_said(tmp_path, port) -> None:
    save_file(port.tensors(vgg_face_ports.LAYERS), tmp_path / "port.safetensors")
    refused(tmp_path / "port.safetensors", "--channels rgb or --channels bgr", None)


def test_what_is_not_vgg_face(tmp_path, port) -> None:
    path = tmp_path / "port.safetensors"
    tensors = port.tensors(vgg_face_ports.LAYERS)
    save_file({name.replace("conv", "layer"): tensor for name, tensor in tensors.items()}, path)
    refused(path, "holds fc6.bias, .*known names are .*torchvision")
    save_file({name: tensor for name, tensor in tensors.items() if name != "fc7.bias"}, path)
    refused(path, "lacks fc7.bias")
    save_file({**tensors, "fc8.weight": tensors["fc8.weight"][:1000].contiguous()}, path)
    refused(path, "the weight of fc8 has shape 1000 x 128, expected 2622 x 128")
    path.write_bytes(path.read_bytes()[:-100])
    refused(path, "not a safetensors file")


def test_graphs_that_are_not_vgg_face(tmp_path, port) -> None:
    path = tmp_path / "port.onnx"
    onnx.save(graph(port, "Gemm", [onnx.helper.make_node("Sub", ["pixels", "mean"], ["data"], name="prepare")]), path)
    refused(path, "'prepare' is Sub, which VGG-Face does not have")
    turn = [onnx.helper.make_node("Cast", ["pixels"], ["as_float"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Gather", ["as_float", "order"], ["data"], name="turn", axis=1)]
    model = graph(port, "Gemm", turn)
    model.graph.input[0].name = "pixels"
    onnx.save(model, path)
    refused(path, "'turn' is Gather, which VGG-Face does not have there")
    model = graph(port, "Gemm")
    del model.graph.initializer[7]
    onnx.save(model, path)
    refused(path, "has no weights and biases of its own")
    model = graph(port, "Gemm")
    del model.graph.node[-2:]
    onnx.save(model, path)
    refused(path, "has 13 convolutions and 2 fully connected layers")
    path.write_bytes(b"\x0a\xffbroken")
    refused(path, "not a whole ONNX file")


def test_make_weights_takes_a_port(tmp_path, port, monkeypatch, capsys) -> None:
    real_check, real_convert = vgg_face.check_vgg_face, vgg_face_ports.convert
    monkeypatch.setattr(vgg_face_sources, "check_vgg_face", lambda path: real_check(path, **NARROW))
    monkeypatch.setattr(vgg_face, "check_vgg_face", lambda path, *_, **__: real_check(path, **NARROW))
    monkeypatch.setattr(vgg_face_ports, "convert", lambda *given: real_convert(*given, **NARROW))
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    save_file(port.tensors(next(iter(STYLES.values()))), tmp_path / "port.safetensors")
    assert weights.main(["--file", str(tmp_path / "port.safetensors")]) == 1
    assert "CHANNELS=rgb" in capsys.readouterr().err
    assert weights.main(["--file", str(tmp_path / "port.safetensors"), "--channels", "rgb"]) == 0
    found = {layer.name: layer.blobs for layer in read_weights(tmp_path / weights.VGG_FACE)}
    expected = port.named["conv1_1"].weight.detach().numpy()
    np.testing.assert_array_equal(found["conv1_1"][0].data[:, 0], expected[:, 2])
    (tmp_path / "mine.caffemodel").write_bytes((tmp_path / weights.VGG_FACE).read_bytes())
    assert weights.main(["--file", str(tmp_path / "mine.caffemodel"), "--channels", "rgb"]) == 1
    assert "a caffemodel reads B G R" in capsys.readouterr().err
