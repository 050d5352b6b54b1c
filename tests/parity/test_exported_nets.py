"""The whole nets of the parity tests on their way out: to_torch, torch.export, ONNX in onnxruntime and in OpenCV."""

import cv2
import numpy as np
import pytest
import torch
from net_jobs import NETS

import torchcaffe as caffe
from torchcaffe.formats import export
from torchcaffe.formats.files import read_net
from torchcaffe.layers import winograd
from torchcaffe.proto import caffe_pb2

onnxruntime = pytest.importorskip("onnxruntime")
SIZES = [pytest.param("small"), pytest.param("paper", marks=pytest.mark.slow)]


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No log, and the plain convolution: Winograd's rounds otherwise."""
    monkeypatch.setenv("GLOG_minloglevel", "3")
    monkeypatch.setattr(winograd, "CHANNELS", 10**9)


def deploy(name, size, folder):
    """The net as it is deployed, with random numbers: Input in place of Data layers, without losses."""
    whole = NETS[name]
    path = folder / "train.prototxt"
    path.write_text(str(whole.build(getattr(whole, size)._replace(folder=folder))))
    caffe.set_random_seed(3)
    train = caffe.Net(str(path), caffe.TEST)
    text = caffe_pb2.NetParameter(name=name.replace(" ", ""))
    kept = [layer for layer in read_net(path).layer if not layer.type.endswith("Loss")]
    read = {bottom for layer in kept for bottom in layer.bottom}
    for layer in kept:
        if layer.bottom:
            text.layer.add().CopyFrom(layer)
        for top in layer.top:
            if top in read and not layer.bottom:
                text.layer.add(name=top, type="Input", top=[top]).input_param.shape.add(dim=train.blobs[top].dims)
    (folder / "deploy.prototxt").write_text(str(text))
    caffe.set_random_seed(3)
    net = caffe.Net(str(folder / "deploy.prototxt"), caffe.TEST)
    if whole.prepare:
        whole.prepare(net)
    random = np.random.RandomState(4)
    for layer in net.built_layers:
        if layer.type == "BatchNorm":
            channels = layer.blobs[0].count
            for blob, numbers in zip(layer.blobs, (random.normal(0, 2, channels), random.uniform(1, 3, channels), 2)):
                blob.data[...] = numbers
        for blob in layer.blobs:
            if not blob.data.any():  # biases, and the nets without fillers
                fan_in = max(1, blob.count // blob.shape[0])
                blob.data[...] = random.normal(0, np.sqrt(2 / fan_in) if fan_in > 1 else 0.1, blob.shape)
    return net


def inputs(net, random):
    """Numbers that each input takes: below 2 where they choose a row (Embed), 0 and 1 for what goes on, else any."""
    words = {bottom for layer in net.built_layers if layer.type in ("Embed", "Reshape") for bottom in layer.param.bottom}
    return {
        name: (random.randint(0, 2, blob.data.shape) if name in words else random.normal(0, 50, blob.data.shape)).astype(np.float32)
        for name, blob in ((name, net.blobs[name]) for name in net.inputs)
    }


def apart(found, ours):
    """Largest difference, relative to the largest number."""
    assert found.shape == ours.shape and np.isfinite(ours).all() and np.ptp(ours) > 0
    return float(np.abs(found.astype(np.float64) - ours).max() / np.abs(ours).max())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", NETS)
def test_net(name, size, tmp_path):
    net = deploy(name, size, tmp_path)
    random = np.random.RandomState(5)
    path = tmp_path / "net.onnx"
    export.write_onnx(path, net)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    module, program = caffe.to_torch(net), export.to_pt2(net).module()
    free = export.Shapes(net).free
    assert bool(free) == (name != "LRCN")
    for items in (1, 2):  # times the net's own batch
        given = inputs(net, random)
        if items > 1 and free:
            given = {key: np.concatenate([array, array[::-1]]) for key, array in given.items()}
        for key, array in given.items():
            net.blobs[key].reshape(*array.shape)
        for layer in net.built_layers:
            layer.state = None  # of a recurrent layer: what is exported begins with zeros
        ours = {key: array.copy() for key, array in net.forward(**given).items()}
        theirs = dict(zip([output.name for output in session.get_outputs()], session.run(None, given)))
        assert set(theirs) == set(ours)
        tensors = [torch.from_numpy(given[key]) for key in net.inputs]
        with torch.no_grad():
            modules = [result if isinstance(result, dict) else {net.outputs[0]: result}
                       for result in (module(*tensors), program(*tensors))]
        for key, array in ours.items():
            assert apart(theirs[key], array) < 1e-5, key
            for found in modules:
                assert apart(found[key].numpy(), array) < 1e-6, key
        print(name, size, items, {key: f"{apart(theirs[key], array):.1e} {apart(modules[0][key].numpy(), array):.1e}" for key, array in ours.items()})


@pytest.mark.parametrize("name", ["AlexNet", "GoogLeNet", "SqueezeNet", "ResNet-50", "MTCNN O-Net"])
def test_opencv_reads_it(name, tmp_path):
    """Its importer takes one batch size, the one that is set."""
    net = deploy(name, "small", tmp_path)
    export.write_onnx(tmp_path / "net.onnx", net)
    theirs = cv2.dnn.readNetFromONNX(str(tmp_path / "net.onnx"))
    given = inputs(net, np.random.RandomState(6))
    ours = net.forward(**given)
    for key, array in given.items():
        theirs.setInput(array, key)
    for key, found in zip(net.outputs, theirs.forward(list(net.outputs))):
        assert apart(found, ours[key]) < 1e-5, key
