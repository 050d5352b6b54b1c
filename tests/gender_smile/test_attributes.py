"""Step 2 on the forty attributes of CelebA's test partition."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest

import recipe
from evaluation_project import SIZE, run
from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, labels_datum, record_key
from pipeline_fakes import FakeBlob, photo
from common import engine


class FortyNet:
    """Answers 0.9 for every attribute of a bright crop, 0.1 for a dark one's."""

    def __init__(self, definition, phase, weights):
        self.blobs = {"data": FakeBlob(recipe.DEMO.crop_size)}

    def forward(self):
        bright = self.blobs["data"].data.mean(axis=(1, 2, 3)) > 0
        return {"prob": np.repeat(np.where(bright, 0.9, 0.1)[:, None], 40, axis=1)}


@pytest.fixture
def celeba(scored_project, monkeypatch):
    """Four test faces: attribute number n is right for the first n % 5 of them."""
    engine.resolve().Net = FortyNet
    folder = recipe.absolute("data/demo/scheme3/celeba_test")
    images, labels = LmdbWriter(folder), LmdbWriter(folder + "_labels")
    for index, brightness in enumerate([250, 20, 250, 20]):
        key = record_key(index, f"{index}.jpg")
        images.put(key, image_datum(encode_crop(photo(brightness, SIZE, SIZE), "raw"), SIZE, "raw", 0))
        labels.put(key, labels_datum(bytes(int((brightness > 127) == (index < n % 5)) for n in range(40))))
    images.close()
    labels.close()
    path = recipe.absolute("data/demo/scheme3/manifest.json")
    content = json.load(open(path))
    content["celeba"] = {"images": {"celeba_test": 4, "celeba_test_labels": 4}}
    with open(path, "w") as file:
        json.dump(content, file)
    for path in (recipe.deploy_prototxt("demo", "attributes"), recipe.step_weights("demo", "gnet", 2)):
        with open(recipe.absolute(path), "w"):
            pass
    return path


def test_attributes_of_the_test_partition(celeba, capsys):
    assert run("--attributes") == 0
    text = capsys.readouterr().out
    assert "4 faces of CelebA's test partition" in text and "32 of 40 attributes: no more accurate" in text
    (mean,) = (line.split() for line in text.splitlines() if line.startswith("mean"))
    assert mean == ["mean", "50.00", "%", "60.00", "%", "50.00", "%"]
    with open(recipe.absolute("runs/demo/attributes_scheme3.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [0.0] * 8 + [0.25] * 8 + [0.5] * 8 + [0.75] * 8 + [1.0] * 8
    assert {row["attribute"] for row in rows} == set(recipe.LABELS) and rows[0]["attribute"] == recipe.LABELS[0]


def test_attributes_of_a_net_that_answers_no_numbers(celeba, capsys, monkeypatch):
    monkeypatch.setattr(FortyNet, "forward", lambda net: {"prob": np.full((len(net.blobs["data"].data), 40), np.nan)})
    assert run("--attributes", "scheme3") == 2
    assert "step2_scheme3.caffemodel outputs NaN or Inf" in capsys.readouterr().err


def test_attributes_of_a_face_without_labels(celeba, capsys):
    folder = recipe.absolute("data/demo/scheme3/celeba_test_labels")
    shutil.rmtree(folder)
    labels = LmdbWriter(folder)
    labels.put(record_key(0, "0.jpg"), labels_datum(bytes(40)))
    labels.close()
    assert run("--attributes", "scheme3") == 1
    assert "celeba_test_labels has no labels of 1.jpg" in capsys.readouterr().err


def test_attributes_without_partition_or_with_another(celeba, capsys):
    path = recipe.absolute("data/demo/scheme3/manifest.json")
    content = json.load(open(path))
    content["celeba"]["images"]["celeba_test"] = 5
    with open(path, "w") as file:
        json.dump(content, file)
    assert run("--attributes", "scheme3") == 1
    assert "4 faces scored, but 5 in the manifest" in capsys.readouterr().err
    shutil.rmtree(recipe.absolute("data/demo/scheme3/celeba_test"))
    assert run("--attributes", "scheme3") == 2
    assert "make lmdb TEST_SPLIT=1 CROP=scheme3 PROFILE=demo" in capsys.readouterr().err
    assert run("--attributes", "scheme5") == 2
    assert "make step2 NET=snet2 PROFILE=demo" in capsys.readouterr().err
