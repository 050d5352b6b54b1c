"""A temperature from validation faces: its value, and what it does to weights and answers."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit

import recipe
from gender_smile.evaluation import calibration, faces
from gender_smile.evaluation.calibration import temperature


def drawn(true_temperature, nets=1, count=40_000):
    """Scores that are too certain by `true_temperature`, and labels drawn at their probabilities."""
    random = np.random.default_rng(11)
    honest = random.normal(0, 2, count)
    labels = (random.random(count) < expit(honest)).astype(int)
    return np.repeat(honest[None] * true_temperature, nets, axis=0), labels


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("nets", [1, 3])
def test_it_is_found(true_temperature, nets):
    assert temperature(*drawn(true_temperature, nets)) == pytest.approx(true_temperature, rel=0.03)


def test_it_is_the_means_where_nets_differ():
    """Against a search that computes the mean probability's likelihood as it is written."""
    random = np.random.default_rng(3)
    scores, labels = random.normal(0, 3, (2, 2000)), random.integers(0, 2, 2000)
    scores += 1.5 * (2 * labels - 1)

    def loss(value):
        mean = expit(scores / value).mean(axis=0)
        return -np.log(np.where(labels == 1, mean, 1 - mean)).mean()

    grid = np.geomspace(0.3, 10, 3000)
    assert temperature(scores, labels) == pytest.approx(min(grid, key=loss), rel=2e-3)


@pytest.mark.parametrize("scores, labels", [
    ([3.0, -2.0, 1.0], [1, 0, 1]),  # all right: the colder, the better
    ([3.0, -2.0, 1.0], [0, 1, 0]),  # all wrong: the hotter, the better
])
def test_no_temperature_is_an_error(scores, labels):
    with pytest.raises(faces.EvaluationError, match="no temperature"):
        temperature(np.array([scores]), np.array(labels))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The tiny project after its steps, with SNet2 and SNet1 standing in by GNet's crop."""
    from tiny_project import TINY, make_project

    from common import engine
    from gender_smile.training import chain
    from tools import train

    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setitem(recipe.PROFILES, "tiny", TINY)
    make_project(str(tmp_path), TINY)
    for step in (1, 2, 3, 4):
        train.run(chain.rows(TINY, ["gnet"], [step], root=str(tmp_path)), engine.interpreter("torch"), say=lambda text: None)
    monkeypatch.setattr(faces, "check_count", lambda folder, count: None)  # the project has no manifest
    return tmp_path


@pytest.mark.slow
def test_mirrored_answers_are_the_mean_of_both_views_and_calibrated_so(project, monkeypatch):
    import torchcaffe
    from gender_smile.inference.classifier import Classifier

    one = Classifier(torchcaffe, "tiny", "gnet")
    size = one.profile.stored_size
    crops = np.random.default_rng(1).integers(0, 256, (3, size, size, 3), np.uint8)
    straight, mirrored = one.probabilities(crops), one.probabilities(crops[:, :, ::-1])
    assert np.abs(straight - mirrored).max() > 1e-6
    monkeypatch.setitem(recipe.PROFILES, "tiny", replace(recipe.PROFILES["tiny"], mirrored_answers=True))
    both = Classifier(torchcaffe, "tiny", "gnet")
    assert both.probabilities(crops) == pytest.approx((straight + mirrored) / 2, abs=1e-7)
    assert both.probabilities(list(crops[:, :, ::-1])) == pytest.approx(both.probabilities(crops), abs=1e-7)
    seen = []
    monkeypatch.setattr(calibration, "temperature", lambda scores, labels: seen.append(scores) or 1.0)
    calibration.calibrate("tiny", "gender", "torch")
    labels, answers = faces.answer_lmdb(both, faces.validation_lmdb("tiny", "gnet"))
    assert seen[0].shape == (2, len(labels))  # one net, two views
    assert expit(seen[0]).mean(axis=0) == pytest.approx([answers[name] for name in labels], abs=1e-6)


@pytest.mark.slow
def test_weights_are_scaled_and_answers_stay(project, monkeypatch):
    import torchcaffe
    from gender_smile.inference.classifier import Classifier

    monkeypatch.setattr(calibration, "temperature", lambda scores, labels: 2.0)
    path = project / recipe.step_weights("tiny", "gnet", 4)
    before = Classifier(torchcaffe, "tiny", "gnet")
    crops = np.random.default_rng(1).integers(0, 256, (1, before.profile.stored_size, before.profile.stored_size, 3), np.uint8)
    old = before.probabilities(crops)
    found = json.loads(open(f"{path}.json").read())
    assert calibration.calibrate("tiny", "gender", "torch")[0] == 2.0
    after = Classifier(torchcaffe, "tiny", "gnet")
    for name, blobs in before.net.params.items():
        share = 2 if name == "fc8_gender" else 1
        assert all(np.allclose(a.data, b.data / share, rtol=1e-6) for a, b in zip(after.net.params[name], blobs))
    logit = np.log(old / (1 - old))
    assert after.probabilities(crops) == pytest.approx(expit(logit / 2), abs=1e-6)
    record = json.loads(open(f"{path}.json").read())
    assert record["temperature"] == 2.0 and record["sha256"] != found["sha256"]
    assert {**found, "sha256": 0} == {**{key: value for key, value in record.items() if key != "temperature"}, "sha256": 0}
    calibration.calibrate("tiny", "gender", "torch")
    assert json.loads(open(f"{path}.json").read())["temperature"] == 4.0
    os.remove(f"{path}.json")
    with pytest.raises(faces.EvaluationError, match="step4_gnet.caffemodel.json, the record of its training, is missing"):
        calibration.calibrate("tiny", "gender", "torch")
