"""Photos answered by OpenCV and by torchcaffe: the same faces and the same answers, without torch."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import recipe
from detector.mtcnn import NETS, weights_path
from gender_smile import Pipeline
from gender_smile.inference.output import CsvRows
from gender_smile.inference.pipeline import COLUMNS, PipelineError, read_photo

SAME_CROP = 1e-4  # of a probability, for the same crop
WHOLE = 1e-2  # with each engine's own landmarks, by whose last digits some pixels of a crop differ by one of 256 levels
PIXELS = 1e-2  # of boxes and landmarks
PHOTOS = 300

pytestmark = pytest.mark.skipif(not all(os.path.exists(weights_path(name)) for name in NETS), reason="needs weights/mtcnn: make setup")


@pytest.fixture(scope="module")
def pipelines():
    return Pipeline.load("small"), Pipeline.load("small", "torch")


@pytest.fixture(scope="module")
def astronaut():
    import skimage.data

    return skimage.data.astronaut()[..., ::-1].copy()


def compare(pipelines, photo):
    """Check that a photo has the same faces, and that they have the same answers for the same crops.

    Returns for each face the largest differences of its box (pixels) and, with each engine's own landmarks, of a probability.
    """
    ours, theirs = (pipeline.predict_faces(photo) for pipeline in pipelines)
    assert [one.error for one in ours] == [one.error for one in theirs]
    differences = []
    for one, other in zip(ours, theirs):
        if one.face is None:
            continue
        assert one.face.score == pytest.approx(other.face.score, abs=0.01)
        for net, classifier in pipelines[0].classifiers.items():
            crop = pipelines[1].crop(photo, other.face.landmarks, net)
            assert classifier.probabilities([crop])[0] == pytest.approx(other.p_positive[net], abs=SAME_CROP)
        moved = max(np.abs(np.subtract(one.face.box, other.face.box)).max(),
                    np.abs(one.face.landmarks - other.face.landmarks).max())
        differences.append((moved, max(abs(one.p_positive[net] - other.p_positive[net]) for net in one.p_positive)))
    return differences


def check_same(pipelines, photo, faces):
    differences = compare(pipelines, photo)
    assert len(differences) == faces
    assert all(moved < PIXELS and changed < WHOLE for moved, changed in differences)


def test_a_photograph(pipelines, astronaut):
    assert [pipeline.model.engine for pipeline in pipelines] == ["opencv", "torch"]
    check_same(pipelines, astronaut, 1)
    check_same(pipelines, np.concatenate([astronaut, astronaut[:, ::-1]], axis=1), 2)
    check_same(pipelines, np.zeros_like(astronaut), 0)
    check_same(pipelines, astronaut[:10, :10].copy(), 0)


@pytest.mark.slow
def test_many_photographs(pipelines, real_fotw, real_celeba):
    """The last digits of a box may cut it to other whole pixels, as the authors do between the stages: of one face in hundreds."""
    paths = sorted([*real_fotw.rglob("*.jpg"), *real_celeba.rglob("*.jpg")])
    photos = [compare(pipelines, read_photo(str(path))) for path in paths[:: max(1, len(paths) // PHOTOS)][:PHOTOS]]
    assert len(photos) == PHOTOS
    moved, changed = np.array([face for faces in photos for face in faces]).T
    assert len(moved) >= PHOTOS and np.mean(moved < PIXELS) > 0.99 and moved.max() < 2
    assert np.mean(changed[moved < PIXELS] < SAME_CROP) > 0.8 and changed[moved < PIXELS].max() < WHOLE


def test_json_and_csv_differ_in_the_last_digits_and_the_engine_only(pipelines, astronaut, capsys):
    ours, theirs = (pipeline.predict(astronaut, "a.png") for pipeline in pipelines)

    def plain(value):
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items() if name != "engine"}
        if isinstance(value, list):
            return [plain(part) for part in value]
        return pytest.approx(value, abs=WHOLE) if isinstance(value, float) else value

    assert json.loads(json.dumps(ours.as_dict())) != theirs.as_dict()
    assert {**ours.as_dict(), "model": None} == plain({**theirs.as_dict(), "model": None})
    assert plain(ours.as_dict()["model"]) == plain(theirs.as_dict()["model"])
    rows = CsvRows()
    rows.write([ours])
    rows.write([theirs])
    first, second = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(first) == list(COLUMNS)
    for name in COLUMNS:
        number = first[name].replace(".", "", 1).isdigit()
        assert (float(first[name]) == pytest.approx(float(second[name]), abs=WHOLE)) if number else first[name] == second[name]


def test_an_answer_loads_neither_torch_nor_other_large_packages(root, tmp_path, astronaut):
    import cv2

    cv2.imwrite(str(tmp_path / "astronaut.png"), astronaut)
    code = ("import sys; from tools import predict; predict.main(['astronaut.png', '--profile', 'small']); print([name for name in "
            "('torch', 'skimage', 'scipy', 'lmdb', 'h5py', 'matplotlib', 'sklearn', 'pandas', 'jinja2') if name in sys.modules])")
    environment = {name: value for name, value in os.environ.items() if name != "ENGINE"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, text=True, capture_output=True,
                          env={**environment, "PYTHONPATH": str(root)})
    assert done.stdout.splitlines()[-1] == "[]" and "smiling" in done.stdout, done.stdout + done.stderr
    assert done.stderr == ""


def test_heat_maps_are_torchcaffes(pipelines, astronaut):
    ours = pipelines[0].predict(astronaut, explain=True)
    assert pipelines[0].model.engine == "opencv" and set(ours.heat) == set(recipe.PIPELINE_NETS)
    for net, heat in ours.heat.items():
        label = (ours.gender if recipe.NETS[net].task == "gender" else ours.smile).label
        crop = pipelines[0].crop(astronaut, ours.face.landmarks, net)
        assert heat.max() == 1
        np.testing.assert_array_equal(heat, pipelines[1]._heat(net, crop, label))


# ------------------------------------------------------------------------------------------ nets that OpenCV does not get
@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of random nets of profile demo."""
    from random_nets import write_random_nets

    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    write_random_nets("demo")
    return tmp_path


def change(project, task, old, new):
    path = project / recipe.deploy_prototxt("demo", task)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_net_that_opencv_does_not_get_is_computed_by_torchcaffe(project, astronaut):
    change(project, "gender", 'type: "ReLU"', 'type: "ReLU" relu_param { negative_slope: 0.25 }')
    loaded, torch = Pipeline.load("demo"), Pipeline.load("demo", "torch")
    assert {net: one.engine for net, one in loaded.classifiers.items()} == {"gnet": "torch", "snet1": "opencv", "snet2": "opencv"}
    assert loaded.predict(astronaut).as_dict()["model"]["engine"] == "torch, opencv"
    check_same((loaded, torch), astronaut, 1)
    assert set(loaded.predict(astronaut, explain=True).heat) == set(recipe.PIPELINE_NETS)


@pytest.mark.parametrize("engine", ["auto", "opencv", "torch"])
def test_weights_without_numbers_and_damaged_ones_have_the_same_message(project, astronaut, engine):
    import torchcaffe as caffe

    definition, weights = project / recipe.deploy_prototxt("demo", "gender"), project / recipe.step_weights("demo", "gnet", 4)
    net = caffe.Net(str(definition), caffe.TEST, weights=str(weights))
    net.params["conv3_1"][0].data[0, 0, 0, 0] = np.nan
    net.save(str(weights))
    with pytest.raises(PipelineError, match="step4_gnet.caffemodel outputs NaN or Inf"):
        Pipeline.load("demo", engine).predict(astronaut)
    weights.write_bytes(weights.read_bytes()[:-5000])
    with pytest.raises(PipelineError, match="cannot load weights/demo/step4_gnet.caffemodel.*truncated"):
        Pipeline.load("demo", engine)
    weights.unlink()
    with pytest.raises(PipelineError, match="step4_gnet.caffemodel is missing"):
        Pipeline.load("demo", engine)


def test_scores_are_never_opencvs(project, tmp_path, monkeypatch):
    from common import engine
    from gender_smile.evaluation import faces
    from gender_smile.inference import classifier

    resolve, asked = engine.resolve, []

    def note(name="auto", predicting=False):
        asked.append(predicting)
        return resolve(name, predicting)

    monkeypatch.setattr(engine, "resolve", note)
    Pipeline.load("demo")
    assert asked == [True] and Pipeline.load("demo", scoring=True).model.engine == "torch"
    asked.clear()
    monkeypatch.setattr("lmdb_builders.readers.read", lambda *arguments: SimpleNamespace(
        records=[], skipped=[], drawn=False, label_names=list(recipe.target().columns.values())))
    with pytest.raises(faces.EvaluationError, match="no validation photo"):
        faces.evaluate_photos("demo", str(tmp_path))
    classifier.load_engine("auto")  # what the other scores use
    assert asked == [False, False]
