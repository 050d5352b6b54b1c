"""One photo down the training path (LMDB builder, Data layer) and down the prediction path: the nets get one array."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import recipe
from detector import Detector, Face
from detector.mtcnn import NETS, weights_path
from lmdb_builders.builder import Settings, build_dataset
from lmdb_builders.fotw import read_fotw
from tools import evaluate
from gender_smile.evaluation.faces import ensembles
from gender_smile.inference.pipeline import Pipeline

CROPS = tuple(recipe.NETS[net].crop for net in recipe.PIPELINE_NETS)


class DrawnDetector:
    """Always sees one face, turned by some degrees and between the pixels."""

    def __init__(self, caffe=None):
        pass

    def detect_all(self, images):
        return map(self.detect, images)

    def detect(self, image):
        landmarks = np.array([[81.25, 92.5], [130.75, 99.125], [104.5, 122.25], [80.5, 142.75], [121.5, 148.0]])
        return [Face((60.0, 60.0, 100.0, 120.0), 0.99, landmarks.astype(np.float32))]

@pytest.fixture
def project(tmp_path, root, monkeypatch):
    """A project of its own with the demo's real nets and untrained weights."""
    import torchcaffe as caffe

    monkeypatch.setenv("GLOG_minloglevel", "2")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    shutil.copytree(root / "prototxt" / "demo", tmp_path / "prototxt" / "demo")
    (tmp_path / "weights" / "demo").mkdir(parents=True)
    caffe.set_mode_cpu()
    for net in recipe.PIPELINE_NETS:
        deploy = recipe.absolute(recipe.deploy_prototxt("demo", recipe.NETS[net].task))
        caffe.Net(deploy, caffe.TEST).save(recipe.absolute(recipe.step_weights("demo", net, 4)))
    return tmp_path


def build_lmdbs(project, source: str, detector) -> str:
    """FotW of one photo, for training and for validation, and its LMDBs; returns the photo's path."""
    for folder, table in (("smiles_trset", "gender_fex_trset.csv"), ("smiles_valset", "gender_fex_valset.csv")):
        place = project / "FotW" / folder
        place.mkdir(parents=True)
        shutil.copy(source, place / "photo.jpg")
        width, height = Image.open(source).size
        row = f"photo.jpg, {width // 4}, {height // 4}, {width // 2}, {height // 2}, 1, 1"
        (place / table).write_text(f"image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile\r\n{row}\r\n")
    output = project / "data" / "demo"
    output.mkdir(parents=True)
    settings = Settings(
        profile=recipe.DEMO, crops=CROPS, output=str(output), detector=detector, say=lambda text: None
    )
    build_dataset(read_fotw(str(project / "FotW")), settings, str(project / "staging"))
    return str(project / "FotW" / "smiles_valset" / "photo.jpg")


def training_array(project, net: str):
    """What the Data layer of a step-4 net gives in the TEST phase (no mirror): 3 x size x size float32."""
    import torchcaffe as caffe

    definition = project / recipe.net_prototxt("demo", net, 4)
    text = definition.read_text().replace('source: "', f'source: "{project}{os.sep}')
    definition.write_text(text)
    trained = caffe.Net(str(definition), caffe.TEST)
    trained.forward()
    assert (trained.blobs["label"].data == 1).all()
    return trained.blobs["data"].data[0].copy()


def check_same(project, photo: str) -> None:
    pipeline = Pipeline.load("demo", "torch")
    (prediction,) = pipeline.predict_files([photo])
    assert prediction.error is None
    for net in recipe.PIPELINE_NETS:
        predicted = pipeline.classifiers[net].net.blobs["data"].data
        expected = training_array(project, net)
        assert predicted.shape == (1, *expected.shape)
        assert predicted[0].std() > 5  # a picture, not a constant
        np.testing.assert_array_equal(predicted[0], expected, err_msg=net)


@pytest.mark.parametrize("orientation", [1, 6, 7])  # EXIF's; test_read_image.py has all eight
def test_a_drawn_photo(project, monkeypatch, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise = np.random.RandomState(2).randint(0, 256, (12, 12, 3)).astype(np.uint8)
    Image.fromarray(noise).resize((220, 240), Image.BICUBIC).save(project / "drawn.jpg", quality=90, exif=exif)
    monkeypatch.setattr("detector.Detector", DrawnDetector)
    check_same(project, build_lmdbs(project, str(project / "drawn.jpg"), DrawnDetector))


def test_evaluation_of_lmdbs_as_the_builder_writes_them(project, monkeypatch):
    """The one face, a smiling woman's, is scored as prediction answers its photo."""
    drawn = project / "drawn.jpg"
    Image.fromarray(np.full((240, 220, 3), 99, np.uint8)).save(drawn)
    monkeypatch.setattr("detector.Detector", DrawnDetector)
    (answer,) = Pipeline.load("demo", "torch").predict_files([build_lmdbs(project, str(drawn), DrawnDetector)])
    assert evaluate.main(["--profile", "demo", "--engine", "torch"]) == 0
    results = json.loads((project / "runs" / "demo" / "results.json").read_text())
    right = {"gender": answer.gender.label == "female", "smile": answer.smile.label == "smiling",
             **{net: answer.p_positive[net] > 0.5 for net in ("snet1", "snet2")}}
    assert {name: (own["accuracy"], own["faces"]) for name, own in results.items()} == {
        name: (float(right[name]), 1) for name in ensembles()}
    with open(project / "runs" / "demo" / "evaluation.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["gender_probability"] == f"{answer.p_positive['gnet']:.6f}"


@pytest.mark.parametrize("number", range(2))
def test_a_real_photo_with_the_real_detector(project, real_fotw, number):
    if not all(os.path.exists(weights_path(name)) for name in NETS):
        pytest.skip("needs weights/mtcnn: make setup")
    photos = sorted((real_fotw / "smiles_valset").glob("*.jpg"))
    check_same(project, build_lmdbs(project, str(photos[100 * number]), Detector))
