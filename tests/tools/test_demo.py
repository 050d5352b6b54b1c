"""tools/demo.py: the stages are commands that exist, in the chain's order, and failures end in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import recipe
from common import environment
from gender_smile.synthetic import data_sets as drawn_data_sets
from tools import demo


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder; its results are those of a finished demo."""
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    results = tmp_path / demo.RESULTS
    results.parent.mkdir(parents=True)
    results.write_text(json.dumps({name: {"accuracy": share, "faces": 200, "majority_accuracy": 0.55} for name, share in
                                   (("gender", 0.915), ("smile", 0.86), ("snet1", 0.85), ("snet2", 0.84))}))
    return tmp_path


@pytest.fixture
def fotw(tmp_path: Path) -> Path:
    """FotW's validation table with one photo."""
    folder = tmp_path / "FotW" / "smiles_valset"
    folder.mkdir(parents=True)
    (folder / "gender_fex_valset.csv").write_bytes(
        b"image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile\r\nim_1.jpg,1,2,3,4,1,0\r\n")
    return folder.parent


def test_stages_are_commands_of_the_project(capsys: pytest.CaptureFixture) -> None:
    """Each stage's arguments are accepted by its tool's own parser."""
    import importlib

    options = demo.get_parser().parse_args(["--engine", "torch", "--gpu", "0", "--max-iter", "5", "--force"])
    found = demo.stages("c", "f", "photo.jpg", options)
    assert [title.split(":")[0] for title, _ in found] == [
        "LMDBs", "step 1", "step 2", "step 3", "step 4", "evaluation", "prediction"]
    for _, arguments in found:
        module = arguments[1] if arguments[0] == "-m" else arguments[0][:-3].replace("/", ".")
        given = arguments[2:] if arguments[0] == "-m" else arguments[1:]
        parsed = importlib.import_module(module).get_parser().parse_args(given)
        assert parsed.profile == "demo" and parsed.gpu == 0
        if module == "tools.train" and parsed.step != [1]:  # other iterations, under the names that evaluation takes
            assert parsed.variant == "" and parsed.max_iter == 5


def test_one_data_set_alone_is_wrong_use(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stop:
        demo.main(["--celeba", "somewhere"])
    assert stop.value.code == 2
    assert "CELEBA=path FOTW=path" in capsys.readouterr().err


def test_order_and_summary(project: Path, fotw: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    ran = []

    def run(stage, seconds):
        ran.append(stage[0])
        seconds[stage[0]] = 90.0
    monkeypatch.setattr(demo, "run", run)
    assert demo.main(["--celeba", str(project), "--fotw", str(fotw)]) == 0
    assert ran[0] == "LMDBs" and ran[-1] == "prediction" and len(ran) == 7
    text = capsys.readouterr().out
    assert f"{fotw / 'smiles_valset' / 'im_1.jpg'}: FotW says Gender 1, Smile 0; not trained on" in text
    assert "91.50%  of 200 faces" in text and "86.00%  of 200 faces" in text
    assert any(line.split() == ["all", "10.5"] for line in text.splitlines())
    assert "drawn" not in text


def test_a_demo_on_drawn_faces_ends_with_what_to_type_for_photographs(project: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(demo, "run", lambda stage, seconds: seconds.update({stage[0]: 1.0}))
    assert demo.main([]) == 0
    *_, what, remedy = capsys.readouterr().out.splitlines()
    assert "drawn faces" in what and remedy.endswith(environment.as_typed(["tools/predict.py", "photo.jpg"]))


def test_failing_stage_ends_the_demo_with_its_name(project: Path, fotw: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(demo, "stages", lambda *_: [("stage", ["-c", "import sys; print('ran'); sys.exit(3)"]),
                                                    ("next", ["-c", "print('must not run')"])])
    assert demo.main(["--celeba", str(project), "--fotw", str(fotw)]) == 1
    out, err = capfd.readouterr()
    assert "ran" in out and "must not run" not in out
    assert "$ " + environment.as_typed(["-c"]) in out
    assert err == "demo: stage failed (status 3); fix the cause and type the same command again: it resumes there\n"


def test_stopped_stage_stops_the_demo(project: Path, fotw: Path, monkeypatch, capfd) -> None:
    monkeypatch.setattr(demo, "stages", lambda *_: [("stage", ["-c", "import sys; sys.exit(130)"])])
    assert demo.main(["--celeba", str(project), "--fotw", str(fotw)]) == 130
    assert capfd.readouterr().err.strip() == "demo: stopped; the same command resumes from here"


def test_missing_table(project: Path, capsys) -> None:
    assert demo.main(["--celeba", str(project), "--fotw", str(project / "nowhere")]) == 1
    assert "FOTW is a folder with smiles_trset and smiles_valset" in capsys.readouterr().err


def test_drawn_photo_for_the_prediction_is_a_smiling_woman(project: Path, capsys) -> None:
    """So that the README can say what the answer should be."""
    assert demo.draw_unseen() == demo.UNSEEN
    person = drawn_data_sets.draw_one(("FotW", demo.UNSEEN_SEED, 1, str(project / "again.jpg")))["attributes"]
    assert person["Smiling"] and not person["Male"]
    assert (project / demo.UNSEEN).read_bytes() == (project / "again.jpg").read_bytes()
    assert "drawn to be female, smiling" in capsys.readouterr().out
