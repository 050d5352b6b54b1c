"""The report: what it finds, what it says is missing, and that it is one page that needs nothing else."""

from __future__ import annotations

import csv
import json
import os
import re

import face_lmdbs
import numpy as np
import pytest

import recipe
from gender_smile.pages import report as report_page
from gender_smile.training import metrics
from tools import report

SIZE = recipe.DEMO.stored_size


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    return tmp_path


def write(path, content) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(content if isinstance(content, str) else json.dumps(content))


def add_training(project, stem: str, seed: int = 2016, iterations: int = 40) -> None:
    write(project / f"weights/demo/{stem}.caffemodel", "x")
    write(project / f"weights/demo/{stem}.caffemodel.json", {
        "iteration": iterations, "loss": 0.31, "accuracy": 0.875, "seconds": 95, "seed": seed, "engine": "torchcaffe 1.2",
        "precision": "float32", "run": stem, "inputs": {"solver's base_lr": "0.0007000000216066837"}, "sha256": "ab" * 32,
        "trained_on": ["CelebA", "drawn faces"], "drawn": True, "versions": {"python": "3.11.2", "numpy": "2.4"}})
    write(project / f"runs/demo/{stem}/run.json", {"run": stem, "finished": True})
    numbers = metrics.Metrics(str(project / f"runs/demo/{stem}/metrics.csv"))
    for iteration in (0, 20, 40):
        numbers.add(iteration, iteration, train_loss=0.7 - iteration / 100, val_loss=0.7 - iteration / 90, val_accuracy=0.6)
    numbers.close()


def add_faces(project) -> None:
    for scheme in ("scheme3", "scheme4"):
        face_lmdbs.write(str(project / f"data/demo/{scheme}/fotw_val"), (
            (f"{name}.jpg", np.full((SIZE, SIZE, 3), 60 * index, np.uint8), [index % 2] * 2)
            for index, name in enumerate("abcd")))
        write(project / f"data/demo/{scheme}/manifest.json", {"fotw": {
            "images": {"fotw_val": 4}, "skipped_reasons": {"no face found": 2}, "notes": ["a note"],
            "corrected_labels": {"Smile 1 to 0": 3}}})


def add_evaluation(project) -> None:
    """Of gender a is wrong with 0.9, c with 0.7, b is right, d has no answer; <i> tests that names are escaped."""
    columns = ["image", "gender_label", "smile_label", "gender_probability", "smile_probability", "missed"]
    with open(project / "runs/demo/evaluation.csv", "w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(columns)
        table.writerows([["c.jpg", 0, 1, 0.7, 0.9, ""], ["a.jpg", 1, 1, 0.1, 0.8, ""], ["b.jpg", 1, 1, 0.99, 0.9, ""],
                         ["d.jpg", 1, "", "", "", "no face found"], ["<i>.jpg", 0, 1, 0.6, 0.6, ""]])
    metrics = {"accuracy": 0.4, "interval": [0.2, 0.6], "faces": 5, "missed": 1, "confusion": [[0, 2], [1, 1]], "auc": 0.5,
               "majority_class": 1, "majority_accuracy": 0.55, "balanced_accuracy": 0.25, "ece": None, "paper": 91.66}
    write(project / "runs/demo/evaluation.json", {
        "protocol": "training phase", "metrics": dict.fromkeys(("gender", "smile", "snet1", "snet2"), metrics),
        "warnings": {"snet2": "answers \"smiling\" for every face"},
        "challenge": {"sum": 2.5, "images": 4, "mean_accuracy": 0.4}})


def add_table(project) -> None:
    row = {"name": "with all steps", "task": "gender", "paper": 91.66, "accuracy": 88.0, "interval": [85.0, 90.5],
           "difference": -3.66, "faces": 5, "missed": 3, "accuracies": [88.0], "majority": 73.75, "balanced_accuracy": 80.25,
           "warning": "no more accurate than always answering \"male\""}
    ordering = {"task": "gender", "better": "with all steps", "worse": "without step 3", "paper": 0.36, "difference": 1.5,
                "interval": [-0.5, 3.0], "tests": [{"first": 9, "second": 4, "p": 0.27}], "wins": 1,
                "verdict": "as the paper, within chance"}
    write(project / "runs/demo/table2.json", {"table": 2, "share": 1.0, "precision": "float32", "seeds": [2016],
                                              "rows": [row], "orderings": [ordering]})


def page(project) -> str:
    return (project / "runs/demo/report.html").read_text(encoding="utf-8")


def curve_lines(axes) -> list:
    """(iterations, values) of each line that is drawn."""
    return [(list(line.get_xdata()), pytest.approx(list(line.get_ydata()))) for line in axes.lines]


def test_curves_are_the_trainings_numbers(project, saved_figures):
    """Two panels a training: losses above (thin: training, and its running mean), accuracy in percent below; a legend."""
    for stem in ("step3_gnet", "step3_snet1", "step3_snet1-seed7"):
        add_training(project, stem, seed=7 if "seed7" in stem else 2016)
    assert report.main(["--profile", "demo"]) == 0
    (figure,) = saved_figures
    losses, accuracies = figure.axes[:3], figure.axes[3:]
    training, validation = ([0, 20, 40], [0.7, 0.5, 0.3]), ([0, 20, 40], [0.7, 0.7 - 20 / 90, 0.7 - 40 / 90])
    for above, below in zip(losses, accuracies, strict=True):
        assert curve_lines(above) == [training, training, validation]  # three points: each is its own running mean
        assert curve_lines(below) == [([0, 20, 40], [60, 60, 60])]
        assert above.lines[0].get_linewidth() < above.lines[1].get_linewidth()
    assert [axes.get_title(loc="left") for axes in losses] == ["GNet", "SNet1", "SNet1, seed7"]
    (legend,) = figure.legends
    colors = {line.get_label(): line.get_color() for axes in figure.axes for line in axes.lines if line.get_label()[0] != "_"}
    assert [text.get_text() for text in legend.get_texts()] == list(colors) and len(set(colors.values())) == 3


def test_everything(project, capsys):
    add_training(project, "step1", iterations=0)  # one that adopts weights has no curve
    add_training(project, "step2_scheme3")
    add_training(project, "step4_gnet")
    add_training(project, "step4_gnet-seed7", seed=7)
    add_faces(project)
    add_evaluation(project)
    add_table(project)
    assert report.main(["--profile", "demo"]) == 0
    text = page(project)
    for expected in ("40.00 %", "paper 91.66 %", "2 no face found", "0.0007<", "Smile 1 to 0: 3", "1 min 35 s", "87.50 %", "seed7",
                     "ab" * 32, "numpy 2.4, python 3.11.2", "as the paper, within chance", "85.00 .. 90.50",
                     "2.5 over 4 images", "73.75 %", "80.25 %", "55.00 %", "snet2: answers &#34;smiling&#34; for every face",
                     "always &#34;female&#34; 55.00 %, balanced accuracy 25.00 %", "not counted: 3", "Warning: gender, with all steps", "forty attributes on CelebA",
                     "CelebA, drawn faces", "Right answers: gender 40.00 % (paper 91.66 %), smile 40.00 %",
                     "Of 1 orderings that the paper found, on the same faces: 1 \u201cas the paper, within chance\u201d: with all "
                     "steps &gt; without step 3 (Table 2, gender)."):
        assert expected in text, expected
    assert "make table3 PROFILE=demo" in text and "make table2 PROFILE" not in text
    assert text.count('class="curves"') == 2 and text.count('<img src="data:image/jpeg') == 4 * 2 + 2  # the sheet; two mistakes with crops
    for item in ("crop_size", "max_iter", "lr_mult"):  # each departure of the demo is there
        assert f"<td>{item}</td>" in text


def test_the_page_needs_nothing_else(project):
    add_training(project, "step4_gnet")
    add_faces(project)
    assert report.main(["--profile", "demo"]) == 0
    text = page(project)
    assert not re.search(r"<(script|link|iframe)", text)
    assert all(address.startswith(("data:", "#")) for address in re.findall(r'(?:src|href)="([^"]*)"', text))
    assert "url(" not in text and str(project) not in text


def test_mistakes_are_the_most_confident_first_and_escaped(project):
    add_training(project, "step4_gnet")
    add_evaluation(project)
    found = report_page.mistakes("demo")
    assert [(row["image"], row["answer"], row["label"]) for row in found["gender"]] == [
        ("a.jpg", 0, 1), ("c.jpg", 1, 0), ("<i>.jpg", 1, 0)]
    assert found["smile"] == [] and len(report_page.mistakes("demo", 2)["gender"]) == 2
    assert report.main(["--profile", "demo"]) == 0
    assert "&lt;i&gt;.jpg" in page(project) and "<i>" not in page(project)


def test_a_step_1_that_was_trained_has_a_curve(project, saved_figures):
    add_training(project, "step1")
    add_training(project, "step4_gnet")
    add_faces(project)
    assert report.main(["--profile", "demo"]) == 0
    assert page(project).count('class="curves"') == 2


def test_losses_that_are_no_numbers_leave_a_page(project, saved_figures):
    add_training(project, "step4_gnet")
    path = project / "runs/demo/step4_gnet/metrics.csv"
    path.write_text(path.read_text().replace("0.3", "inf") + "60,0.01,nan,nan,0.5,61,\n")
    assert np.isinf([row["train_loss"] for row in metrics.read(str(path))]).any()
    assert report.main(["--profile", "demo"]) == 0
    assert 'class="curves"' in page(project)
    above, below = saved_figures[0].axes
    assert np.isinf(above.lines[0].get_ydata()).any() and 0.7 < above.get_ylim()[1] < 1
    assert list(below.lines[0].get_ydata()) == pytest.approx([60, 60, 60, 50])


def test_only_the_faces_that_are_shown_are_decoded(project, monkeypatch):
    add_faces(project)
    add_training(project, "step4_gnet")
    add_evaluation(project)
    monkeypatch.setattr(report_page.draw_names, "__defaults__", (2,))
    found = report_page.collect(recipe.DEMO)
    assert len(found["faces"]) == 2 and all(set(crops) == {"scheme3", "scheme4"} for crops in found["faces"].values())
    assert set(found["mistaken"]) == {"a.jpg", "c.jpg", *found["faces"]}


def test_departures_are_the_profiles_fields():
    assert report_page.departures(recipe.PAPER) == []
    found = {item["name"]: (item["paper"], item["ours"]) for item in report_page.departures(recipe.DEMO)}
    assert found["crop_size"] == (224, 56) and "momentum" not in found and "name" not in found


def test_nothing_to_report(project, capsys):
    assert report.main(["--profile", "demo"]) == 2
    assert "nothing of profile demo is there yet" in capsys.readouterr().err
