"""Heat maps: right by hand, by PyTorch alone, by numbers changed one by one, and by real Caffe."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import recipe
from gender_smile.inference.heatmaps import Explainer, enlarge, overlay

SIZE = 16
BY_HAND = f"""
name: "by_hand"
layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ dim: 1 dim: 3 dim: {SIZE} dim: {SIZE} }} }} }}
layer {{ name: "conv" type: "Convolution" bottom: "data" top: "conv"
        convolution_param {{ num_output: 4 kernel_size: 3 pad: 1 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "conv" top: "conv" }}
layer {{ name: "pool" type: "Pooling" bottom: "conv" top: "pool" pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}
layer {{ name: "score" type: "InnerProduct" bottom: "pool" top: "score"
        inner_product_param {{ num_output: 2 weight_filler {{ type: "gaussian" std: 0.1 }} }} }}
layer {{ name: "prob" type: "Softmax" bottom: "score" top: "prob" }}
"""


def classifier(caffe, definition, size=SIZE, batch=16):
    """What Explainer needs of a gender_smile.inference.classifier.Classifier."""
    return SimpleNamespace(caffe=caffe, definition=str(definition), size=size, batch=batch,
                           net=caffe.Net(str(definition), caffe.TEST))


@pytest.fixture
def caffe(monkeypatch):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    import torchcaffe

    torchcaffe.set_mode_cpu()
    torchcaffe.set_random_seed(7)
    return torchcaffe


@pytest.fixture
def by_hand(caffe, tmp_path):
    (tmp_path / "net.prototxt").write_text(BY_HAND)
    return classifier(caffe, tmp_path / "net.prototxt")


def noise(count: int, size: int = SIZE) -> np.ndarray:
    return np.random.RandomState(3).randint(0, 256, (count, size, size, 3)).astype(np.uint8)


def test_only_the_quarter_that_counts_is_warm(by_hand):
    params = by_hand.net.params
    params["conv"][0].data[...] = 0
    params["conv"][0].data[0, :, 1, 1] = 1  # channel 0: the brightness above the mean
    params["conv"][1].data[...] = 0
    weights = np.zeros((2, 4, 8, 8), np.float32)
    weights[1, 0, :4, 4:] = 1  # class 1: bright at the top right
    weights[0, 0, :4, :4] = -1  # class 0: nothing speaks for it, the top left speaks against
    params["score"][0].data[...] = weights.reshape(2, -1)
    white = np.full((2, SIZE, SIZE, 3), 255, np.uint8)
    heat = Explainer(by_hand).heat(white, [1, 0])
    assert heat.shape == (2, SIZE, SIZE) and heat.dtype == np.float32
    assert heat[0].max() == 1 and heat[0, :8, 8:].mean() > 0.2
    assert heat[0, 8:].max() == heat[0, :, :8].max() == 0
    assert heat[1].max() == 0


def test_contributions_are_those_of_each_place_changed_by_itself(by_hand):
    """activation x gradient, with the gradient from differences of the score instead of from backward."""
    explainer = Explainer(by_hand)
    crops = noise(1)
    places = explainer._places(crops, [1])[0]
    net, blob = explainer.net, explainer.net.blobs["conv"]
    features = blob.data[0].copy()
    expected = np.zeros(places.shape)
    for index in np.ndindex(features.shape):
        scores = []
        for step in (-0.01, 0.01):
            blob.data[0] = features
            blob.data[0][index] += step
            net.forward(start="pool")
            scores.append(float(net.blobs["score"].data[0, 1]))
        expected[index[1:]] += features[index] * (scores[1] - scores[0]) / 0.02
    assert np.abs(expected).max() > 1
    assert np.allclose(places, expected, atol=0.02 * np.abs(expected).max())


def test_the_demos_net_against_pytorch_alone(caffe, root):
    """The whole way from conv4_3 up in torch's own functions, from the same weights; a batch at once."""
    import torch
    from torch.nn import functional

    made = classifier(caffe, root / recipe.deploy_prototxt("demo", "smile"), recipe.DEMO.crop_size, batch=2)
    random = np.random.RandomState(5)
    for blobs in made.net.params.values():
        blobs[0].data[...] = random.randn(*blobs[0].data.shape) * np.sqrt(2 / np.prod(blobs[0].data.shape[1:]))
    explainer = Explainer(made)
    assert (explainer.features, explainer.next_layer, explainer.last_layer) == ("conv4_3", "pool4", "fc8_smile")
    classes = [1, 0, 1]
    found = explainer.heat(noise(3, recipe.DEMO.stored_size), classes)

    weights = {name: [torch.from_numpy(blob.data.copy()) for blob in blobs] for name, blobs in made.net.params.items()}
    middle = (recipe.DEMO.stored_size - recipe.DEMO.crop_size) // 2
    crops = noise(3, recipe.DEMO.stored_size)[:, middle:, middle:][:, :recipe.DEMO.crop_size, :recipe.DEMO.crop_size]
    x = torch.from_numpy((crops - np.array(recipe.MEAN_BGR)).transpose(0, 3, 1, 2).astype(np.float32))
    for block, layers in enumerate((2, 2, 3, 3, 3), start=1):
        for layer in range(1, layers + 1):
            x = functional.relu(functional.conv2d(x, *weights[f"conv{block}_{layer}"], padding=1))
        if block == 4:
            x.retain_grad() if x.requires_grad else x.requires_grad_()
            features = x
        x = functional.max_pool2d(x, 2, 2, ceil_mode=True)
    for name in ("fc6", "fc7"):
        x = functional.relu(functional.linear(x.flatten(1), *weights[name]))
    scores = functional.linear(x, *weights["fc8_smile"])
    scores[range(3), classes].sum().backward()
    expected = (features * features.grad).sum(1).detach().numpy()
    for heat, places in zip(found, expected):
        assert np.allclose(heat, enlarge(places, recipe.DEMO.crop_size), atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 0.1


def test_weights_are_shared_not_copied(by_hand):
    explainer = Explainer(by_hand)
    by_hand.net.params["score"][0].data[...] = 3
    assert (explainer.net.params["score"][0].data == 3).all()


def test_the_forward_of_the_classifier_is_left_alone(by_hand):
    from gender_smile.inference.classifier import fill

    fill(by_hand.net, np.ones((1, 3, SIZE, SIZE), np.float32))
    before = by_hand.net.forward()["prob"].copy()
    Explainer(by_hand).heat(noise(5), [0, 1, 0, 1, 0])
    assert by_hand.net.blobs["data"].data.shape[0] == 1
    assert (by_hand.net.forward()["prob"] == before).all()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_batches_give_what_each_crop_gives_alone(by_hand, count):
    by_hand.batch = 2
    explainer, classes = Explainer(by_hand), [0, 1, 1, 0, 1][:count]
    found = explainer.heat(noise(count), classes)
    assert found.shape == (count, SIZE, SIZE)
    for heat, crop, number in zip(found, noise(count), classes):
        assert heat.max() == 1 and np.allclose(heat, explainer.heat(crop[None], [number])[0], atol=1e-5)


def test_a_map_of_no_numbers_is_cold():
    assert enlarge(np.full((7, 7), np.nan), 56).max() == 0
    assert enlarge(np.full((7, 7), -1.0), 56).max() == 0
    assert enlarge(np.where(np.eye(7), np.inf, 1.0), 56).max() == 0


def test_overlay_is_gray_where_it_is_cold_and_colored_where_it_is_warm():
    crop = np.full((SIZE, SIZE, 3), (200, 100, 50), np.uint8)
    heat = np.zeros((SIZE, SIZE), np.float32)
    heat[:4, :4] = 1
    drawn = overlay(crop, heat)
    gray = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY)[0, 0]
    assert (drawn[8:, 8:] == gray).all()
    assert len(set(drawn[0, 0].tolist())) == 3


def test_real_caffe_has_the_same_heat(by_hand, root, tmp_path):
    """The same file run by real Caffe's Python, on the same weights."""
    import subprocess

    python = root / ".caffe" / "python"
    if not python.exists():
        pytest.skip("needs real Caffe in .caffe/: make caffe")
    by_hand.net.save(str(tmp_path / "net.caffemodel"))
    np.save(tmp_path / "crops.npy", noise(3))
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys, types
sys.path.insert(0, {str(root)!r})
import caffe, numpy as np
from gender_smile.inference.heatmaps import Explainer
caffe.set_mode_cpu()
net = caffe.Net({by_hand.definition!r}, caffe.TEST, weights={str(tmp_path / "net.caffemodel")!r})
made = types.SimpleNamespace(caffe=caffe, definition={by_hand.definition!r}, size={SIZE}, batch=2, net=net)
np.save({str(tmp_path / "heat.npy")!r}, Explainer(made).heat(np.load({str(tmp_path / "crops.npy")!r}), [1, 0, 1]))
""")
    done = subprocess.run([str(python), str(script)], env={**os.environ, "GLOG_minloglevel": "2", "PYTHONDONTWRITEBYTECODE": "1"},
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    ours, theirs = Explainer(by_hand).heat(noise(3), [1, 0, 1]), np.load(tmp_path / "heat.npy")
    assert theirs.max() == 1
    assert np.allclose(ours, theirs, atol=1e-4)


@pytest.fixture
def pipeline(caffe, tmp_path, monkeypatch):
    """The demo's real nets with random weights, and a detector that sees a face in the middle."""
    from pipeline_fakes import FakeDetector
    from random_nets import write_random_nets
    from gender_smile.inference.pipeline import Pipeline

    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setattr("detector.Detector", FakeDetector)
    write_random_nets()
    return Pipeline.load("demo", "torch")


def test_predictions_carry_crops_and_heat_as_asked(pipeline):
    """Crops as the nets saw them, heat for the class that was answered."""
    image = cv2.resize(noise(1)[0], (120, 120))
    plain, shown, explained = (pipeline.predict(image, crops=crops, explain=explain)
                               for crops, explain in ((False, False), (True, False), (False, True)))
    assert plain.as_dict() == shown.as_dict() == explained.as_dict()
    assert not plain.crops and not plain.heat and not shown.heat
    size = recipe.DEMO.crop_size
    for net in recipe.PIPELINE_NETS:
        assert explained.heat[net].shape == (size, size)
        mean = np.array(recipe.MEAN_BGR, np.float32).reshape(3, 1, 1)
        seen = pipeline.classifiers[net].net.blobs["data"].data[0] + mean
        assert np.allclose(seen, shown.crops[net].transpose(2, 0, 1), atol=1e-3)
        assert (explained.crops[net] == shown.crops[net]).all()
    classes = recipe.TASKS["gender"].classes
    stored = pipeline.crop(image, plain.face.landmarks, "gnet")
    expected = Explainer(pipeline.classifiers["gnet"]).heat([stored], [classes.index(plain.gender.label)])[0]
    assert np.allclose(explained.heat["gnet"], expected, atol=1e-5)
    assert json.dumps(explained.as_dict())


def test_threads_get_the_answers_and_maps_of_their_own_photos(pipeline):
    from concurrent.futures import ThreadPoolExecutor

    photos = [cv2.resize(one, (120, 120)) for one in noise(12)]
    alone = [pipeline.predict(one, explain=True) for one in photos]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: pipeline.predict(one, explain=True), photos))
    distances = np.abs(np.subtract.outer(*2 * [[one.p_positive["snet2"] for one in alone]]))
    assert np.median(distances) > 1e-3  # another photo's answer would be seen
    for first, second in zip(alone, together):
        assert first.p_positive == pytest.approx(second.p_positive, abs=1e-5)
        for net in recipe.PIPELINE_NETS:
            assert (first.crops[net] == second.crops[net]).all() and np.allclose(first.heat[net], second.heat[net], atol=1e-5)
