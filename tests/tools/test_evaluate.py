"""Scores: the figures by hand, the LMDBs' faces, whole photos, and everything that must stop an evaluation."""

from __future__ import annotations

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

import recipe
from lmdb_builders.lmdb_writer import LmdbWriter, encode_crop, image_datum, labels_datum, record_key
from pipeline_fakes import FakeBlob, FakeDetector, fake_caffe, install, photo
from tools import engine, evaluate, evaluation_report, scores

SIZE = recipe.DEMO.stored_size
BRIGHTNESS = {"a.jpg": 200, "b.jpg": 60, "c.jpg": 220, "d.jpg": 30}  # the fake nets answer 1 above 127
GENDER = {"a.jpg": 1, "b.jpg": 0, "c.jpg": 0, "d.jpg": 0}  # c is answered wrongly
SMILE = {"a.jpg": 1, "b.jpg": 1, "c.jpg": 1, "d.jpg": 0}  # b is


# ------------------------------------------------------------------------------------------ figures
def test_wilson_interval_against_published_values():
    assert scores.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)  # Newcombe 1998, table I
    assert scores.wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert scores.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)


def test_score_counts_a_face_that_was_not_found_as_wrong():
    figure = scores.score({"a": 1, "b": 0, "c": 0, "d": 1}, {"a": 0.9, "b": 0.8, "c": 0.1, "d": None})
    assert (figure["accuracy"], figure["faces"], figure["missed"]) == (0.5, 4, 1)
    assert figure["confusion"] == [[1, 1], [0, 1]]
    with pytest.raises(ValueError, match="other images"):
        scores.score({"a": 1}, {"b": 0.5})


def test_organizers_error_is_0_a_half_or_1_an_image():
    truths = ({"both": 1, "one": 1, "none": 1, "lost": 1, "unlabeled": 1}, {"both": 0, "one": 0, "none": 0, "lost": 0})
    answers = (
        {"both": 0.9, "one": 0.9, "none": 0.1, "lost": None, "unlabeled": 0.1},
        {"both": 0.1, "one": 0.9, "none": 0.9, "lost": None},
    )
    assert scores.challenge_error(truths, answers)["sum"] == 0 + 0.5 + 1 + 1
    for name in ("unlisted", "unread"):  # no answer, and no label that is known
        for values in (*truths, *answers):
            values[name] = None
    assert scores.challenge_error(truths, answers) == {"sum": 4.5, "images": 6, "mean_accuracy": 0.25}


def test_auc_by_hand_and_by_counting_pairs():
    assert scores.roc_auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75  # scikit-learn's own example
    assert scores.roc_auc([0, 1, 1], [0.5, 0.5, 0.9]) == 0.75  # a tie counts half
    assert scores.roc_auc([1, 1], [0.2, 0.7]) is None
    generator = np.random.default_rng(3)
    labels, ones = generator.integers(0, 2, 60), generator.integers(0, 8, 60) / 8
    pairs = [(a > b) + 0.5 * (a == b) for a in ones[labels == 1] for b in ones[labels == 0]]
    assert scores.roc_auc(list(labels), list(ones)) == pytest.approx(np.mean(pairs))


def test_calibration_by_hand():
    """Confidences 0.9, 0.9 (one right) and 0.6, right: |0.5 - 0.9| * 2/3 + |1 - 0.6| / 3."""
    found = scores.calibration([1, 1, 0], [0.9, 0.1, 0.4])
    assert found["ece"] == pytest.approx(0.4 * 2 / 3 + 0.4 / 3)
    assert [entry["faces"] for entry in found["bins"]] == [1, 2]
    assert scores.calibration([1, 0], [1.0, 0.0])["ece"] == 0.0
    assert scores.calibration([], [])["ece"] is None
    generator = np.random.default_rng(4)
    ones = generator.random(20_000)
    assert scores.calibration(list(generator.random(20_000) < ones), list(ones))["ece"] < 0.02  # calibrated by making


def test_the_papers_figures_are_found():
    assert [evaluation_report.paper_accuracy(name) for name in evaluate.FIGURES] == [91.66, 89.34, 88.79, 88.89]


# ------------------------------------------------------------------------------------------ faces of the LMDBs
@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with trained nets that answer how bright a crop is, and the three validation LMDBs."""
    caffe = fake_caffe()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": caffe)
    monkeypatch.setattr("detector.Detector", FakeDetector)
    install(recipe.ROOT, {"gnet": "bright", "snet1": "bright", "snet2": 0.4})
    write_lmdb("gnet", GENDER)
    write_lmdb("snet1", SMILE)
    write_lmdb("snet2", dict(reversed(SMILE.items())), encode="png")
    return tmp_path


def write_lmdb(net: str, labels: dict, listed=None, encode: str = "raw", skipped=()) -> str:
    folder = recipe.absolute(recipe.lmdb_paths("demo", net, 4)["val"])
    shutil.rmtree(folder, ignore_errors=True)
    writer = LmdbWriter(folder)
    for index, (name, label) in enumerate(labels.items()):
        data = encode_crop(photo(BRIGHTNESS[name], SIZE, SIZE), encode)
        writer.put(record_key(index, name), image_datum(data, SIZE, encode, label))
    writer.close()
    listed = len(labels) if listed is None else listed
    entry = {"images": {os.path.basename(folder): listed}, "skipped": [{"split": "val", "image": name, "file": "t.csv", "line": 9, "reason": "no face found"} for name in skipped]}
    with open(os.path.join(os.path.dirname(folder), "manifest.json"), "w") as file:
        json.dump({"fotw": entry}, file)
    return folder


def run(*arguments) -> int:
    return evaluate.main(["--profile", "demo", *arguments])


def results(suffix: str = "") -> dict:
    with open(recipe.absolute(f"runs/demo/results{suffix}.json")) as file:
        return json.load(file)


@pytest.mark.parametrize("batch", ["1", "3", "4", "50"])
def test_results(project, capsys, batch):
    """smile = (brightness + 0.4) / 2: above one half for a and c only."""
    assert run("--batch", batch) == 0
    assert results() == {
        "gender": {"accuracy": 0.75, "faces": 4},
        "smile": {"accuracy": 0.75, "faces": 4},
        "snet1": {"accuracy": 0.75, "faces": 4},
        "snet2": {"accuracy": 0.25, "faces": 4},
    }
    text = capsys.readouterr().out
    assert "SNet1 + SNet2" in text and "91.66 %" in text and "89.34 %" in text
    assert "Organizers' error: 1.0 over 4 images" in text


def test_table_of_faces_and_evaluation(project, capsys):
    """e.jpg is listed but never became a face: wrong in both tasks, and said so."""
    write_lmdb("gnet", GENDER, skipped=["e.jpg"])
    assert run() == 0
    assert "e.jpg: no face found" in capsys.readouterr().out
    assert results()["gender"] == {"accuracy": 0.6, "faces": 5} and results()["smile"]["faces"] == 5
    with open(recipe.absolute("runs/demo/evaluation.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == [*sorted(GENDER), "e.jpg"]
    assert rows[4] == {"image": "e.jpg", "gender_label": "", "smile_label": "", "gender_probability": "",
                       "smile_probability": "", "snet1_probability": "", "snet2_probability": "", "missed": "no face found"}
    assert all(row["missed"] == "" for row in rows[:4])
    assert rows[1]["gender_label"] == "0" and rows[1]["smile_label"] == "1"
    assert float(rows[1]["gender_probability"]) == pytest.approx(60 / 255, abs=1e-5)
    assert float(rows[1]["smile_probability"]) == pytest.approx((60 / 255 + 0.4) / 2, abs=1e-5)
    with open(recipe.absolute("runs/demo/evaluation.json")) as file:
        content = json.load(file)
    assert content["figures"]["gender"]["confusion"] == [[2, 1], [0, 1]]
    assert content["figures"]["gender"]["auc"] == pytest.approx(2 / 3) and content["missed"] == {"e.jpg": "no face found"}
    assert content["challenge"]["sum"] == 2.0 and content["challenge"]["images"] == 5  # e.jpg: no face, scores 1


def test_rows_that_name_a_photo_again_or_none(project, capsys):
    """a.jpg is answered, whatever its second row; e.jpg lies in a folder of the data set; a nameless row is one more."""
    write_lmdb("gnet", GENDER, skipped=["a.jpg", "smiles_valset/e.jpg", ""])
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Without an answer:")
    assert lines[place + 1 : place + 3] == ["  e.jpg: no face found", "  t.csv line 9: no face found"] and not lines[place + 3]
    assert results()["gender"] == {"accuracy": 0.5, "faces": 6} and results()["smile"]["faces"] == 6


def test_a_variant_is_scored_beside_the_chains_own(project, capsys):
    assert run("--variant", "seed7") == 2
    assert "step4_gnet-seed7.caffemodel is missing" in capsys.readouterr().err
    for net, answer in {"gnet": 0.9, "snet1": 0.9, "snet2": 0.9}.items():
        with open(recipe.absolute(recipe.step_weights("demo", net, 4)).replace(".caffemodel", "-seed7.caffemodel"), "w") as file:
            file.write(str(answer))
    photos = write_photos(project)
    for arguments in ((), ("--photos", photos)):
        assert run(*arguments, "--variant", "seed7") == 0
    assert results("-seed7")["gender"]["accuracy"] == 0.25 and results("_photos-seed7")["snet1"]["accuracy"] == 2 / 3
    with open(recipe.absolute("runs/demo/evaluation-seed7.json")) as file:
        assert json.load(file)["weights"]["gnet"] == "weights/demo/step4_gnet-seed7.caffemodel"
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


def test_a_label_for_one_task_only(project):
    del_smile = {name: label for name, label in SMILE.items() if name != "a.jpg"}
    write_lmdb("snet1", del_smile)
    write_lmdb("snet2", del_smile)
    assert run() == 0
    assert results()["gender"]["faces"] == 4 and results()["smile"]["faces"] == 3


@pytest.mark.parametrize("listed", [3, 5])
def test_an_lmdb_that_does_not_hold_what_its_manifest_lists(project, capsys, listed):
    write_lmdb("snet1", SMILE, listed=listed)
    assert run() == 1
    error = capsys.readouterr().err
    assert f"4 faces scored, but {listed} in the manifest" in error and "make lmdb FORCE=1" in error
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


def test_no_manifest(project, capsys):
    os.remove(os.path.join(os.path.dirname(write_lmdb("gnet", GENDER)), "manifest.json"))
    assert run() == 1
    assert "no number in the manifest.json" in capsys.readouterr().err


def test_smile_nets_that_saw_other_faces_or_labels(project, capsys):
    write_lmdb("snet2", {**{name: SMILE[name] for name in ("a.jpg", "b.jpg", "c.jpg")}})
    assert run() == 1
    assert "differ in 1 images, d.jpg for one" in capsys.readouterr().err
    write_lmdb("snet2", {**SMILE, "b.jpg": 0})
    assert run() == 1
    assert "b.jpg has the label 1 for snet1 but 0 for snet2" in capsys.readouterr().err


def test_a_damaged_lmdb_is_named_before_it_is_read(project, capsys):
    """A file that ends before its pages: LMDB itself would end the process."""
    folder = write_lmdb("snet1", SMILE)
    path = os.path.join(folder, "data.mdb")
    os.truncate(path, os.path.getsize(path) // 2)
    assert run() == 1
    assert "scheme1/fotw_smile_val: " in (error := capsys.readouterr().err) and "build or copy it again" in error


def test_a_record_that_is_no_image_is_named(project, capsys):
    folder = recipe.absolute(recipe.lmdb_paths("demo", "snet1", 4)["val"])
    shutil.rmtree(folder)
    writer = LmdbWriter(folder)
    writer.put(record_key(0, "a.jpg"), image_datum(b"no image", SIZE, "png", 1))
    writer.close()
    assert run() == 1
    assert "scheme1/fotw_smile_val: a.jpg" in capsys.readouterr().err


def test_missing_inputs_are_named_with_their_command(project, capsys):
    shutil.rmtree(write_lmdb("snet2", SMILE))
    assert run() == 2
    assert "data/demo/scheme5/fotw_smile_val is missing: make lmdb PROFILE=demo" in capsys.readouterr().err
    write_lmdb("snet2", SMILE)
    os.remove(recipe.absolute(recipe.step_weights("demo", "snet1", 4)))
    assert run() == 2
    assert "make step4 NET=snet1 PROFILE=demo" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--score", "a.csv"], ["--photos", "F", "--submission", "a", "--score", "a"],
                                       ["--attributes", "scheme9"], ["--batch", "0"], ["--profile", "toy"], ["--epochs", "3"]])
def test_wrong_use(project, arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2


# ------------------------------------------------------------------------------------------ whole photos
def write_photos(project) -> str:
    """FotW's validation photos: b has no usable smile label, d is black, so its face is not found."""
    folder = project / "FotW" / "smiles_valset"
    folder.mkdir(parents=True)
    lines = ["image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile"]
    for name, brightness in {**BRIGHTNESS, "d.jpg": 0}.items():
        Image.fromarray(photo(brightness)).save(folder / name, quality=95)
        lines.append(f"{name}, 30, 30, 40, 50, {GENDER[name]}, {2 if name == 'b.jpg' else SMILE[name]}")
    (folder / "gender_fex_valset.csv").write_text("\r\n".join(lines) + "\r\n")
    return str(project / "FotW")


def test_photos(project, capsys):
    """d's face is not found: wrong in both tasks, and named."""
    assert run("--photos", write_photos(project)) == 0
    captured = capsys.readouterr()
    assert results("_photos")["gender"] == {"accuracy": 0.5, "faces": 4}
    assert results("_photos")["smile"] == {"accuracy": pytest.approx(2 / 3), "faces": 3}
    assert "  d.jpg: no face found" in captured.out
    assert "1 without an answer count as wrong" in captured.out
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


def test_photos_without_data_set(project, capsys):
    assert run("--photos", str(project / "nowhere")) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_photo_that_is_listed_but_missing_counts_as_wrong(project, capsys):
    folder = write_photos(project)
    os.remove(os.path.join(folder, "smiles_valset", "a.jpg"))
    assert run("--photos", folder) == 0
    assert "a.jpg: image file is missing" in capsys.readouterr().out
    assert results("_photos")["gender"] == {"accuracy": 0.25, "faces": 4}
    with open(recipe.absolute("runs/demo/evaluation_photos.json")) as file:
        assert json.load(file)["challenge"]["sum"] == 1 + 0.5 + 1  # a and d are not answered, c's gender is wrong


def test_photos_of_a_table_that_names_one_twice(project, capsys):
    folder = write_photos(project)
    with open(os.path.join(folder, "smiles_valset", "gender_fex_valset.csv"), "a") as file:
        file.write("a.jpg, 30, 30, 40, 50, 0, 0\r\n")
    assert run("--photos", folder) == 0
    assert "a.jpg:" not in capsys.readouterr().out
    assert results("_photos")["gender"] == {"accuracy": 0.5, "faces": 4}


# ------------------------------------------------------------------------------------------ the challenge's file
def test_submission_is_written_and_scored(project, capsys):
    """smile = (brightness + 0.4) / 2: a and c smile; gender is wrong for c; d has no row, and so counts as wrong."""
    folder, path = write_photos(project), str(project / "mine.csv")
    assert run("--photos", folder, "--submission", path) == 0
    assert "mine.csv: 3 of 4 photos" in capsys.readouterr().out
    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["image_name", "bbox_x", "bbox_y", "bbox_width", "bbox_height", "Gender", "Smile"]
    assert rows[1:] == [["a.jpg", "30.0", "30.0", "40.0", "50.0", "1", "1"], ["b.jpg", "30.0", "30.0", "40.0", "50.0", "0", "0"],
                        ["c.jpg", "30.0", "30.0", "40.0", "50.0", "1", "1"]]
    assert run("--photos", folder, "--score", path) == 0
    text = capsys.readouterr().out
    assert "gender 50.00 % of 4 faces" in text and "smile  66.67 % of 3 faces" in text
    assert "not predicted, counts as wrong: d.jpg" in text
    assert "Organizers' error: 1.5 over 3 images" in text


def test_a_submission_is_scored_on_the_photos_it_was_written_for(project, capsys):
    """a.jpg is listed, but gone: both ways it counts as wrong, also where a submission has a row for it."""
    folder, path = write_photos(project), project / "mine.csv"
    os.remove(os.path.join(folder, "smiles_valset", "a.jpg"))
    assert run("--photos", folder, "--submission", str(path)) == 0
    assert results("_photos")["gender"] == {"accuracy": 0.25, "faces": 4}
    capsys.readouterr()
    for extra in ("", "a.jpg,1,2,3,4,1,1\n"):
        path.write_text(path.read_text() + extra)
        assert run("--photos", folder, "--score", str(path)) == 0
        text = capsys.readouterr().out
        assert "gender 25.00 % of 4 faces" in text and "Organizers' error: 2.5 over 3 images" in text
        assert "counts as wrong: a.jpg" in text and "counts as wrong: d.jpg" in text


@pytest.mark.parametrize("line, message", [
    ("x" * 200_000 + ",1,2,3,4,1,0", "line 2: no row of a table (field larger"),
    ("a.jpg,1,2,3,4,1", "line 2: 6 values instead of 7"), ("a.jpg,1,2,3,4,1,0.7", "line 2: gender and smile are '1' and '0.7'"),
    ("z.jpg,1,2,3,4,1,0", "1 rows are of images that the table does not list, z.jpg"),
    ("b.jpg,1,2,3,4,0,0", "line 2: b.jpg again")])
def test_a_submission_that_is_not_of_the_form(project, capsys, line, message):
    path = project / "mine.csv"
    path.write_text(f"b.jpg, 1, 2, 3, 4, 0, 1\n{line}\n")
    assert run("--photos", write_photos(project), "--score", str(path)) == 2
    assert message in capsys.readouterr().err


# ------------------------------------------------------------------------------------------ forty attributes
class FortyNet:
    """Answers 0.9 for every attribute of a bright crop, 0.1 for a dark one's."""

    def __init__(self, definition, phase, weights):
        self.blobs = {"data": FakeBlob(recipe.DEMO.crop_size)}

    def forward(self):
        bright = self.blobs["data"].data.mean(axis=(1, 2, 3)) > 0
        return {"prob": np.repeat(np.where(bright, 0.9, 0.1)[:, None], 40, axis=1)}


@pytest.fixture
def celeba(project, monkeypatch):
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
    assert run("--attributes", "--batch", "3") == 0
    text = capsys.readouterr().out
    assert "4 faces of CelebA's test partition" in text and "mean" in text and "50.00 %" in text.splitlines()[-3]
    with open(recipe.absolute("runs/demo/attributes_scheme3.csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in rows] == [0.0] * 8 + [0.25] * 8 + [0.5] * 8 + [0.75] * 8 + [1.0] * 8
    assert {row["attribute"] for row in rows} == set(recipe.LABELS) and rows[0]["attribute"] == recipe.LABELS[0]


def test_attributes_of_a_net_that_answers_no_numbers_or_without_labels(celeba, capsys, monkeypatch):
    monkeypatch.setattr(FortyNet, "forward", lambda net: {"prob": np.full((len(net.blobs["data"].data), 40), np.nan)})
    assert run("--attributes", "scheme3") == 2
    assert "step2_scheme3.caffemodel gives probabilities that are no numbers" in capsys.readouterr().err
    monkeypatch.undo()


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
