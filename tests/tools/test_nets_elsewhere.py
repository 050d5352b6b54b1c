"""The generated nets in other programs' hands, and what the documentation says of them."""

import ast
import re

import numpy as np
import pytest
from google.protobuf import text_format
from reading_nets import ROOT, TEST, infer, layers_of, read_net

import recipe
from gender_smile.nets import topology
from torchcaffe.proto import caffe_pb2


# ---------------------------------------------------------------------------------------------- other readers
@pytest.fixture(scope="module")
def demo_weights(tmp_path_factory):
    """Deploy net of gender in the demo's width with random weights, as a caffemodel written here."""
    path = recipe.deploy_prototxt("demo", "gender")
    net, random = read_net(path), np.random.default_rng(1)
    _, parameters = infer(net, TEST, recipe.DEMO.crop_size)
    for layer in net.layer:
        for shape in parameters.get(layer.name, ()):
            spread = 0.1 if len(shape) == 1 else (2 / np.prod(shape[1:])) ** 0.5
            blob = layer.blobs.add()
            blob.shape.dim.extend(shape)
            blob.data.extend((random.standard_normal(shape) * spread).astype(np.float32).ravel().tolist())
    target = tmp_path_factory.mktemp("weights") / "gender.caffemodel"
    target.write_bytes(net.SerializeToString())
    return str(ROOT / path), str(target)


def test_opencv_reads_the_deploy_net_as_the_engine_does(demo_weights):
    cv2 = pytest.importorskip("cv2")
    caffe = pytest.importorskip("torchcaffe")
    definition, weights = demo_weights
    crops = np.random.default_rng(2).uniform(-128, 128, (3, 3, 64, 64)).astype(np.float32)
    other = cv2.dnn.readNetFromCaffe(definition, weights)
    other.setInput(crops)
    expected = other.forward("prob")
    caffe.set_mode_cpu()
    net = caffe.Net(definition, caffe.TEST, weights=weights)
    net.blobs["data"].reshape(*crops.shape)
    net.blobs["data"].data[...] = crops
    found = net.forward()["prob"]
    assert expected.shape == found.shape == (3, 2) and np.allclose(expected.sum(axis=1), 1, atol=1e-5)
    assert np.allclose(found, expected, atol=1e-4)


def test_step_2_counts_gender_and_smile_among_the_forty(tmp_path):
    """The TEST net's accuracy layers against counting, with scores and labels given in the place of images."""
    caffe = pytest.importorskip("torchcaffe")
    net = topology.training_net(recipe.DEMO, "gnet", 2)
    kept = [layer for layer in layers_of(net, TEST) if "accuracy" in layer.name or "slice" in layer.name]
    kept += [layer for layer in layers_of(net, TEST) if layer.name.startswith(("absent", "two_scores", "unused"))]
    order = [layer.name for layer in net.layer]
    small = caffe_pb2.NetParameter(layer=sorted(kept, key=lambda layer: order.index(layer.name)))
    text = (
        'layer { name: "s" type: "Input" top: "fc8_attributes" input_param { shape { dim: 6 dim: 40 } } }\n'
        'layer { name: "l" type: "Input" top: "labels" input_param { shape { dim: 6 dim: 40 dim: 1 dim: 1 } } }\n'
    )
    (tmp_path / "net.prototxt").write_text(text + text_format.MessageToString(small))
    random = np.random.default_rng(3)
    scores, labels = random.standard_normal((6, 40)), random.integers(0, 2, (6, 40))
    caffe.set_mode_cpu()
    engine = caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST)
    engine.blobs["fc8_attributes"].data[...] = scores
    engine.blobs["labels"].data[...] = labels.reshape(6, 40, 1, 1)
    found = engine.forward()
    assert set(found) == {"accuracy_gender", "accuracy_smile"}
    for name, column in (("gender", 20), ("smile", 31)):
        expected = np.mean((scores[:, column] > 0) == labels[:, column])
        assert float(found[f"accuracy_{name}"]) == pytest.approx(expected)
        assert 0 < expected < 1


def test_fillers_bring_pixels_to_the_scale_of_one():
    caffe = pytest.importorskip("torchcaffe")
    caffe.set_mode_cpu()
    scales = []
    for seed in range(1, 6):
        caffe.set_random_seed(seed)
        net = caffe.Net(str(ROOT / recipe.deploy_prototxt("demo", "identity")), caffe.TEST)
        pixels = np.random.default_rng(4).integers(0, 256, net.blobs["data"].data.shape)
        net.blobs["data"].data[...] = pixels - np.reshape(recipe.MEAN_BGR, (1, 3, 1, 1))
        net.forward()
        scales.append(np.sqrt(np.mean(np.square(net.blobs["fc7"].data))))
    assert 0.6 < np.median(scales) < 1.2 and max(scales) < 3 * min(scales)


# ---------------------------------------------------------------------------------------------- documentation
def test_fidelity_names_places_that_exist():
    text = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    places = set(re.findall(r"`([\w/]+\.py):(\w+)`", text))
    assert len(places) > 20
    for file, symbol in sorted(places):
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        defined = {node.name for node in tree.body if hasattr(node, "name")}
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        assert symbol in defined | {target.id for target in targets if isinstance(target, ast.Name)}, f"{file}:{symbol}"
    for name in re.findall(r"`recipe.py:Profile` `(\w+)`", text):
        assert hasattr(recipe.PAPER, name), name


def test_fidelity_arithmetic():
    text = (ROOT / "docs/fidelity.md").read_text(encoding="utf-8")
    samples = recipe.PAPER.batch_size * recipe.PAPER.max_iter[4]
    words = " ".join(text.split())
    assert f"about {samples / 162_770:.0f} epochs" in words and f"about {samples / 6_171:,.0f} epochs" in words
    share = recipe.CHALLENGE_ERROR / 3_086
    assert f"{share:.4f}" in words and f"{100 * (1 - share):.1f} %" in words
    for iteration, rate in ((27_500, "0.0075"), (55_000, "0.005"), (99_000, "0.001")):
        assert float(rate) == pytest.approx(0.01 * (1 - iteration / recipe.PAPER.max_iter[4]) ** recipe.PAPER.power)
        assert f"| {rate} |" in text
