"""Suspect labels: injected noise is found, the page carries them, and what it exports is what make lmdb takes."""

from __future__ import annotations

import csv
import json
import os
import re

import numpy as np
import pytest

import face_lmdbs
import recipe
from lmdb_builders import corrections
from pipeline_fakes import fake_caffe
from common import engine
from gender_smile.evaluation import suspects
from gender_smile.pages import suspects_page
from tools import suspects as command

pytest.importorskip("sklearn", reason="the extra labels is not installed")
FACES = os.path.join(os.path.dirname(recipe.ROOT), "shared", "faces", "FotW")
SIZE = recipe.DEMO.stored_size


def test_injected_noise_in_separable_labels_comes_first():
    generator = np.random.default_rng(1)
    labels = {f"{index}.jpg": index % 2 for index in range(400)}
    faces = generator.normal(size=(400, 30)).astype(np.float32)
    faces[:, :20] += 3 * np.array(list(labels.values()))[:, None]
    results = suspects.recall_of_injected_noise({"gender": labels}, {"gender": [(faces, faces)]}, share=0.03, top=0.03, seed=2)
    assert results == [{"all": 1.0, "gender": 1.0}] * 3
    noisy = {image: label ^ (image == "7.jpg") for image, label in labels.items()}
    ranked = suspects.rank({"gender": noisy}, {"gender": [(faces, faces)]}, seed=3)
    assert ranked[0].image == "7.jpg"
    assert all(noisy[suspect.image] == suspect.label for suspect in ranked) and len(ranked) == 400
    probabilities = [suspect.probability for suspect in ranked]
    assert probabilities == sorted(probabilities) and probabilities[0] < 0.5 < probabilities[-1]


def test_a_face_is_judged_by_models_that_did_not_see_it():
    """Features that only name the face: whoever saw it would know its label by heart; out of fold it is a guess."""
    labels = np.arange(200) % 2
    faces = np.eye(200, dtype=np.float32) * 50
    found = suspects.out_of_fold(labels, [(faces, faces)], seed=1)
    assert abs(found[np.arange(200), labels].mean() - 0.5) < 0.1 and found.sum(1) == pytest.approx(np.ones(200))


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir(FACES), reason="needs real photographs in FotW's layout (../shared/faces/FotW)")
def test_injected_noise_in_real_labels():
    """3 % of the gender labels of 1,206 photographs: most are in the top 6 %, with gradients of boxes alone.

    docs/results.md has the figures with aligned crops and trained nets, which need minutes.
    """
    import cv2

    from lmdb_builders.fotw import read_fotw
    from lmdb_builders.images import read_image

    records = read_fotw(FACES, ("train",)).records
    windows = {1.15: [], 1.5: []}  # side of the window, in sides of the annotated box
    for record in records:
        pixels, (x, y, width, height) = read_image(os.path.join(FACES, record.image)), record.box
        for share, crops in windows.items():
            side = share * max(width, height)
            matrix = np.float32([[1, 0, side / 2 - x - width / 2], [0, 1, side / 2 - y - height / 2]]) * SIZE / side
            crops.append(cv2.warpAffine(pixels, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REPLICATE))
    blocks = [(suspects.gradients(np.stack(crops)), suspects.gradients(np.stack(crops)[:, :, ::-1]))
              for crops in windows.values()]
    labels = {record.image: record.labels[0] for record in records}
    found = [result["gender"] for result in suspects.recall_of_injected_noise({"gender": labels}, {"gender": blocks}, 0.03, 0.06, seed=0)]
    assert np.mean(found) >= 0.6, found  # by chance: 0.06


# ------------------------------------------------------------------------------------------ the command
@pytest.fixture
def project(tmp_path, monkeypatch):
    """Training LMDBs of scheme 3: stripes lie for class 0 and stand for class 1; two labels of each task are wrong."""
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": fake_caffe())
    monkeypatch.setenv("GLOG_minloglevel", "1")
    generator = np.random.default_rng(6)
    found = []
    for index in range(60):
        stripes = np.indices((SIZE, SIZE))[index % 2] // 6 % 2 * 150
        crop = (stripes[..., None] + generator.integers(0, 60, (SIZE, SIZE, 3))).astype(np.uint8)
        found.append((f"{index:02d}.jpg", crop, [index % 2 ^ (index in wrong) for wrong in ((3, 8), (5, 20))]))
    found += [(f"{index}.jpg", found[0][1], [recipe.UNUSABLE] * 2) for index in range(60, 65)]  # nothing to suspect there
    face_lmdbs.write(str(tmp_path / "data" / "demo" / "scheme3" / "fotw_train"), found)
    return tmp_path


def entries(path) -> list:
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.S).group(1))


def test_page_and_table(project, capsys):
    assert command.main(["--profile", "demo", "--top", "0.05"]) == 0
    with open(project / "runs" / "demo" / "suspects.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 120 and [row["rank"] for row in rows] == [str(number) for number in range(1, 121)]
    assert {(row["image"], row["task"]) for row in rows[:4]} == {
        ("03.jpg", "gender"), ("08.jpg", "gender"), ("05.jpg", "smile"), ("20.jpg", "smile")}
    shown = entries(project / "runs" / "demo" / "suspects.html")
    assert len(shown) == 6 and [entry["image"] for entry in shown[:4]] == [row["image"] for row in rows[:4]]
    assert {entry["column"] for entry in shown} <= {"Gender", "Smile"}
    assert all(entry["photo"].startswith("data:image/jpeg;base64,") for entry in shown)
    text = (project / "runs" / "demo" / "suspects.html").read_text()
    assert not re.search(r'(src|href)\s*=\s*"(https?:)?//', text)  # opens without network
    assert ",".join(corrections.COLUMNS) in text  # what the page exports is what the builder reads


def test_two_faces_of_one_name_cannot_be_told_apart(project, capsys):
    face_lmdbs.write(str(project / "data" / "demo" / "scheme4" / "fotw_train"),
                     [("a.jpg", np.zeros((SIZE, SIZE, 3), np.uint8), [index, index]) for index in range(2)])
    assert command.main(["--profile", "demo"]) == 2
    assert "scheme4/fotw_train holds two faces of one name" in capsys.readouterr().err


def test_the_measurement_writes_nothing_and_tells_the_share_found(project, capsys):
    from benchmarks import label_noise

    assert label_noise.main(["--profile", "demo", "--share", "0.05", "--top", "0.1"]) == 0
    text = capsys.readouterr().out
    assert "5 % of the labels flipped at random; found among the first 10 %" in text
    assert float(text.split("  all")[1].split("%")[0]) > 80
    assert not os.path.exists(project / "runs")


def test_a_name_cannot_leave_the_pages_data(tmp_path, monkeypatch):
    monkeypatch.setattr(suspects_page, "_photos", lambda profile, images: dict.fromkeys(images, "data:,"))
    name = "<!--<script>alert(1).jpg"  # after which an HTML parser would not see the data's end
    path = tmp_path / "page.html"
    suspects_page.write(str(path), recipe.DEMO, [suspects.Suspect(name, "smile", 1, 0.1)], 1)
    assert entries(path)[0]["image"] == name and "<!--" not in path.read_text()


def test_real_caffe_that_cannot_be_imported_is_refused_first(project, capsys, monkeypatch):
    def resolve(name="auto"):
        raise engine.EngineError("real Caffe has a Python of its own: use ENGINE=torch here")

    monkeypatch.setattr(engine, "resolve", resolve)
    assert command.main(["--profile", "demo", "--engine", "caffe"]) == 2
    found = capsys.readouterr()
    assert "use ENGINE=torch" in found.err and "training labels" not in found.out


def test_what_is_missing_is_named(project, capsys, monkeypatch):
    assert command.main(["--profile", "paper"]) == 2
    assert "make lmdb PROFILE=paper" in capsys.readouterr().err
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None)
    assert command.main(["--profile", "demo"]) == 2
    assert "scikit-learn is not installed" in capsys.readouterr().err
