"""The LMDBs' faces, whole photos, and everything that must stop an evaluation."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import shutil

import pytest

import face_lmdbs
import recipe
from evaluation_project import GENDER, SIZE, SMILE, evaluation, results, run, write_lmdb, write_photos
from lmdb_builders.lmdb_writer import LmdbWriter, image_datum, labels_datum, record_key
from gender_smile.evaluation import faces
from pipeline_fakes import photo
from tools import evaluate


def test_results(scored_project, capsys):
    """smile = (brightness + 0.4) / 2: above one half for a and c only."""
    assert run() == 0
    assert results() == {"gender": (0.75, 4, 0), "smile": (0.75, 4, 0), "snet1": (0.75, 4, 0), "snet2": (0.25, 4, 0)}
    text = capsys.readouterr().out
    assert "SNet1 + SNet2" in text and "91.66 %" in text and "89.34 %" in text
    assert "Organizers' error: 1.0 over 4 images" in text


def test_the_majority_stands_beside_each_accuracy_and_a_row_that_equals_it_is_warned_of(scored_project, capsys):
    """Three of four are men, and three smile; both nets get three right, SNet2 says "not smiling" to all."""
    assert run() == 0
    text = capsys.readouterr().out
    rows = {line.split()[0]: line for line in text.splitlines() if line.count("%") >= 3 and " .. " in line}
    assert list(rows) == ["gender", "smile", "snet1", "snet2"]
    assert all("75.00 %" in row for row in rows.values()) and "83.33 %" in rows["gender"] and "50.00 %" in rows["snet2"]
    assert "Warning: gender: no more accurate than always answering \"male\"" in text
    assert "Warning: snet2: answers \"not smiling\" for every face" in text
    content = evaluation()
    assert content["warnings"].keys() == {"gender", "smile", "snet1", "snet2"}
    gender, snet2 = (content["metrics"][name] for name in ("gender", "snet2"))
    assert (gender["majority_class"], gender["majority_accuracy"], snet2["majority_class"]) == (0, 0.75, 1)
    assert gender["balanced_accuracy"] == pytest.approx((1 + 2 / 3) / 2) and snet2["balanced_accuracy"] == 0.5
    with open(recipe.absolute("runs/demo/results.json")) as file:
        assert json.load(file)["gender"].items() >= {"majority_accuracy": 0.75, "accuracy": 0.75}.items()
    write_lmdb("gnet", {**GENDER, "c.jpg": 1})  # as it is answered: all right
    assert run() == 0
    assert "gender" not in evaluation()["warnings"]


def test_table_of_faces_and_evaluation(scored_project, capsys):
    """e.jpg is listed but gave no face: it is named beside the accuracy of the faces, and not counted."""
    write_lmdb("gnet", GENDER, skipped=["e.jpg"])
    assert run() == 0
    text = capsys.readouterr().out
    assert "e.jpg: no face found" in text and "1 photo without an answer, not counted" in text
    assert results()["gender"] == (0.75, 4, 1) and results()["smile"] == (0.75, 4, 1)
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
    assert content["metrics"]["gender"]["confusion"] == [[2, 1], [0, 1]] and content["metrics"]["gender"]["missed"] == 1
    assert content["metrics"]["gender"]["auc"] == pytest.approx(2 / 3) and content["missed"] == {"e.jpg": "no face found"}
    assert content["challenge"]["sum"] == 1.0 and content["challenge"]["images"] == 4


def test_rows_that_name_a_photo_again_or_none(scored_project, capsys):
    """a.jpg is answered, whatever its second row; e.jpg lies in a folder of the data set; a nameless row is one more."""
    write_lmdb("gnet", GENDER, skipped=["a.jpg", "smiles_valset/e.jpg", ""])
    assert run() == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("Without an answer:")
    assert lines[place + 1 : place + 3] == ["  e.jpg: no face found", "  t.csv line 9: no face found"] and not lines[place + 3]
    assert results()["gender"] == (0.75, 4, 2)


def test_a_variant_is_scored_beside_the_chains_own(scored_project, capsys):
    assert run("--variant", "seed7") == 2
    assert "step4_gnet-seed7.caffemodel is missing" in capsys.readouterr().err
    for net, answer in {"gnet": 0.9, "snet1": 0.9, "snet2": 0.9}.items():
        with open(recipe.absolute(recipe.step_weights("demo", net, 4)).replace(".caffemodel", "-seed7.caffemodel"), "w") as file:
            file.write(str(answer))
    photos = write_photos(scored_project)
    for arguments in ((), ("--photos", photos)):
        assert run(*arguments, "--variant", "seed7") == 0
    assert results("-seed7")["gender"][0] == 0.25 and results("_photos-seed7")["snet1"][0] == 2 / 3
    with open(recipe.absolute("runs/demo/evaluation-seed7.json")) as file:
        assert json.load(file)["weights"]["gnet"] == "weights/demo/step4_gnet-seed7.caffemodel"
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


def test_a_label_for_one_task_only(scored_project):
    for net in ("snet1", "snet2"):
        write_lmdb(net, {**SMILE, "a.jpg": recipe.UNUSABLE})
    assert run() == 0
    assert results()["gender"][1] == 4 and results()["smile"][1] == 3


@pytest.mark.parametrize("listed", [3, 5])
def test_an_lmdb_that_does_not_hold_what_its_manifest_lists(scored_project, capsys, listed):
    write_lmdb("snet1", SMILE, listed=listed)
    assert run() == 1
    error = capsys.readouterr().err
    assert f"4 faces scored, but {listed} in the manifest" in error and "make lmdb FORCE=1" in error
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


def test_no_manifest(scored_project, capsys):
    os.remove(os.path.join(os.path.dirname(write_lmdb("gnet", GENDER)), "manifest.json"))
    assert run() == 1
    assert "no number in the manifest.json" in capsys.readouterr().err


def test_smile_nets_that_saw_other_faces_or_labels(scored_project, capsys):
    write_lmdb("snet2", {**{name: SMILE[name] for name in ("a.jpg", "b.jpg", "c.jpg")}})
    assert run() == 1
    assert "differ in 1 images, such as d.jpg" in capsys.readouterr().err
    write_lmdb("snet2", {**SMILE, "b.jpg": 0})
    assert run() == 1
    assert "b.jpg has the label 1 for snet1 but 0 for snet2" in capsys.readouterr().err


def test_a_damaged_lmdb_is_named_before_it_is_read(scored_project, capsys):
    """A file that ends before its pages: LMDB itself would end the process."""
    folder = write_lmdb("snet1", SMILE)
    path = os.path.join(folder, "data.mdb")
    os.truncate(path, os.path.getsize(path) // 2)
    assert run() == 1
    assert "scheme1/fotw_val: " in (error := capsys.readouterr().err) and "build or copy it again" in error


def test_a_record_that_is_no_image_is_named(scored_project, capsys):
    folder = write_lmdb("snet1", SMILE)
    shutil.rmtree(folder)
    writer = LmdbWriter(folder)
    writer.put(record_key(0, "a.jpg"), image_datum(b"no image", SIZE, "png"))
    writer.close()
    assert run() == 1
    assert "scheme1/fotw_val: a.jpg" in capsys.readouterr().err


def test_missing_inputs_are_named_with_their_command(scored_project, capsys):
    shutil.rmtree(write_lmdb("snet2", SMILE))
    assert run() == 2
    assert "data/demo/scheme5/fotw_val is missing: make lmdb CROP=scheme5 PROFILE=demo FOTW=path" in capsys.readouterr().err
    write_lmdb("snet2", SMILE)
    os.remove(recipe.absolute(recipe.step_weights("demo", "snet1", 4)))
    assert run() == 2
    assert "make step4 NET=snet1 PROFILE=demo" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--score", "a.csv"], ["--photos", "F", "--submission", "a", "--score", "a"],
                                       ["--attributes", "scheme9"], ["--batch", "4"], ["--profile", "toy"], ["--epochs", "3"]])
def test_wrong_use(scored_project, arguments):
    with pytest.raises(SystemExit) as stop:
        evaluate.main(arguments)
    assert stop.value.code == 2


# ------------------------------------------------------------------------------------------ whole photos
def test_photos(scored_project, capsys):
    """d's face is not found: wrong in both tasks, and named."""
    assert run("--photos", write_photos(scored_project)) == 0
    captured = capsys.readouterr()
    assert results("_photos")["gender"] == (0.5, 4, 1)
    assert results("_photos")["smile"] == (pytest.approx(2 / 3), 3, 1)
    assert "  d.jpg: no face found" in captured.out
    assert "1 photo without an answer, counted as wrong" in captured.out
    assert not os.path.exists(recipe.absolute("runs/demo/results.json"))


@pytest.mark.parametrize("drawn_nets", [True, False])
@pytest.mark.parametrize("drawn_photos", [True, False])
def test_nets_of_drawn_faces_on_photographs_are_warned_of(scored_project, capsys, drawn_nets, drawn_photos):
    folder = write_photos(scored_project)
    for net in recipe.PIPELINE_NETS:
        with open(recipe.absolute(recipe.step_weights("demo", net, 4)) + ".json", "w") as file:
            json.dump({"trained_on": [recipe.DRAWN_FACES if drawn_nets else "FotW"], "drawn": drawn_nets}, file)
    if drawn_photos:
        open(os.path.join(folder, "drawn.json"), "w").close()
    assert run("--photos", folder) == 0
    warned = "Warning: these nets were trained on drawn faces; their accuracy on photographs" in capsys.readouterr().out
    assert warned == (drawn_nets and not drawn_photos)


def test_photos_without_data_set(scored_project, capsys):
    assert run("--photos", str(scored_project / "nowhere")) == 2
    assert "no such folder" in capsys.readouterr().err


def test_a_photo_that_is_listed_but_missing_counts_as_wrong(scored_project, capsys):
    folder = write_photos(scored_project)
    os.remove(os.path.join(folder, "smiles_valset", "a.jpg"))
    assert run("--photos", folder) == 0
    assert "a.jpg: image file is missing" in capsys.readouterr().out
    assert results("_photos")["gender"] == (0.25, 4, 2)
    with open(recipe.absolute("runs/demo/evaluation_photos.json")) as file:
        assert json.load(file)["challenge"]["sum"] == 1 + 0.5 + 1  # a and d are not answered, c's gender is wrong


def test_photos_of_a_table_that_names_one_twice(scored_project, capsys):
    folder = write_photos(scored_project)
    with open(os.path.join(folder, "smiles_valset", "gender_fex_valset.csv"), "a") as file:
        file.write("a.jpg, 30, 30, 40, 50, 0, 0\r\n")
    assert run("--photos", folder) == 0
    assert "a.jpg:" not in capsys.readouterr().out
    assert results("_photos")["gender"] == (0.5, 4, 1)


@pytest.mark.parametrize("words, message", [
    (["--attributes", "--photos", "FotW"], "--photos is of another evaluation"),
    (["--attributes", "scheme3", "--photos", "FotW", "--score", "x.csv"], "one at a time"),
    (["--attributes", "--submission", "x.csv"], "--submission is of another evaluation"),
    (["--score", "x.csv"], "--score needs --photos FOTW"),
    (["--photos", "FotW", "--score", "x.csv", "--submission", "y.csv"], "one at a time"),
    (["--photos", "FotW", "--score", "x.csv", "--variant", "seed7"], "--score runs no net: leave out --variant"),
])
def test_an_option_that_would_be_ignored_is_refused(words, message, capsys):
    with pytest.raises(SystemExit) as stop:
        run(*words)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_a_face_without_labels_is_named(scored_project, capsys):
    folder = write_lmdb("gnet", GENDER)
    shutil.rmtree(folder + "_labels")
    with contextlib.closing(LmdbWriter(folder + "_labels")) as labels:
        for index, name in enumerate(list(GENDER)[:-1]):
            labels.put(record_key(index, name), labels_datum(bytes([GENDER[name], 0])))
    assert run() == 1
    assert "scheme3/fotw_val_labels has no labels of d.jpg; build both again" in capsys.readouterr().err
    shutil.rmtree(folder + "_labels")
    assert run() == 1
    assert "scheme3/fotw_val_labels" in capsys.readouterr().err


def test_the_forty_labels_in_step_4(scored_project):
    """As of a data set like CelebA: each task's label is found among them."""
    row = {name: bytearray(len(recipe.LABELS)) for name in GENDER}
    for name in GENDER:
        row[name][recipe.LABELS.index("Female")], row[name][recipe.LABELS.index("Smiling")] = GENDER[name], SMILE[name]
    folder = recipe.absolute("data/demo/scheme3/celeba_val")
    face_lmdbs.write(folder, ((name, photo(9, SIZE, SIZE), row[name]) for name in GENDER))
    for task, expected in (("gender", GENDER), ("smile", SMILE)):
        assert {name: label for name, label, _ in faces.read_lmdb(folder, task=task)} == expected
