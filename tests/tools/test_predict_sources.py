"""The command on folders, videos, cameras and standard input, and all faces of a photo."""

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
from predict_project import answers, save
from pipeline_fakes import FakeDetector, photo
from lmdb_builders import corrections
from tools import predict
from gender_smile.inference.output import bar
from gender_smile.inference.pipeline import COLUMNS


def video(name: str, count: int = 12) -> str:
    """A video of 10 frames a second, one face in each."""
    import cv2

    writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*"MJPG"), 10, (100, 100))
    for _ in range(count):
        writer.write(photo())
    writer.release()
    return name


def test_all_faces_as_text(photos_folder, capsys):
    assert predict.main([save("group.png", photo(255)), "--all-faces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "group.png" and len(lines) == 10
    assert lines[1].endswith("(30, 30), score 0.900   (1 of 2)") and lines[5].endswith("(0, 0), score 0.990   (2 of 2)")
    assert predict.main(["group.png"]) == 0
    assert "score 0.900, nearest the center of 2 (--all-faces: every one)" in capsys.readouterr().out


def test_all_faces_of_a_folder_as_json_and_csv(photos_folder, capsys):
    os.mkdir("folder")
    save("folder/group.png", photo(255))
    save("folder/nobody.png", photo(0))
    assert predict.main(["folder", "--all-faces", "--json"]) == 1
    found = answers(capsys)
    assert [(answer["image"], answer.get("number"), answer.get("error")) for answer in found] == [
        ("folder/group.png", 1, None), ("folder/group.png", 2, None), ("folder/nobody.png", None, "no face found")]
    assert predict.main(["folder", "--all-faces", "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["number"], row["gender"], row["error"]) for row in rows] == [
        ("1", "female", ""), ("2", "female", ""), ("", "", "no face found")]
    assert [row["model"] for row in rows] == ["demo", "demo", ""]


def test_csv_of_names_with_commas_and_odd_bytes(photos_folder, capsys):
    name = save('a, "b".png')
    assert predict.main([name, "--csv"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2
    (row,) = csv.DictReader(io.StringIO(printed))
    assert row["image"] == name and row["gender_probability"] == "0.93"


@pytest.mark.parametrize("name", ["=cmd|'x'!A0.jpg", "@a.jpg", "+1.jpg", "-1.jpg", "'=a.jpg", "'a.jpg", "a=.jpg"])
def test_names_that_are_formulas(photos_folder, capsys, name):
    path = save("plain.jpg")
    os.rename(path, name)
    assert predict.main(["--csv", "--", name]) == 0
    assert [row["image"] for row in csv.DictReader(io.StringIO(capsys.readouterr().out))] == [name]
    assert predict.main(["--csv", "--spreadsheet", "--", name]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["image"] == (name if name in ("'a.jpg", "a=.jpg") else "'" + name)
    assert row["gender_probability"] == "0.93"
    with open("corrections.csv", "w", newline="") as stream:  # what is put in front is taken away again
        csv.writer(stream).writerows([corrections.COLUMNS, [row["image"], "Gender", "0", "1"]])
    assert list(corrections.read("corrections.csv")) == [(name, "Gender")]


def test_spreadsheet_without_csv(photos_folder, capsys):
    with pytest.raises(SystemExit):
        predict.main([save("a.jpg"), "--spreadsheet"])
    assert "add --csv" in capsys.readouterr().err


def test_one_face_of_several_without_an_answer(photos_folder, capsys, monkeypatch):
    """Its landmarks lie in one place: it is named, the other is answered and drawn, and the status says 1."""
    detect = FakeDetector.detect

    def flat(self, image):
        corner, central = detect(self, image)
        return [corner, type(central)(central.box, central.score, np.zeros((5, 2), np.float32))]

    monkeypatch.setattr(FakeDetector, "detect", flat)
    assert predict.main([save("group.png", photo(255)), "--all-faces", "--draw", "pictures"]) == 1
    captured = capsys.readouterr()
    assert "group.png: landmarks" in captured.err and captured.out.count("gender  female") == 1
    assert os.listdir("pictures") == ["group_prediction.png"]


def test_videos(photos_folder, capsys):
    assert predict.main([video("clip.avi"), "--every", "5", "--json", "--draw", "pictures"]) == 0
    assert [(answer["frame"], answer["seconds"]) for answer in answers(capsys)] == [(0, 0.0), (5, 0.5), (10, 1.0)]
    assert sorted(os.listdir("pictures")) == [f"clip_prediction_{frame:06d}.png" for frame in (0, 5, 10)]
    assert predict.main(["clip.avi"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("clip")] == [
        "clip.avi  0:00.0 (frame 0)", "clip.avi  0:01.0 (frame 10)"]


def test_a_frame_whose_picture_would_overwrite_an_input_costs_that_picture(photos_folder, capsys):
    os.mkdir("pictures")
    kept = save("pictures/clip_prediction_000005.png")
    before = os.path.getsize(kept)
    assert predict.main([video("clip.avi"), kept, "--every", "5", "--json", "--draw", "pictures"]) == 1
    captured = capsys.readouterr()
    assert captured.out.count('"gender"') == 4 and os.path.getsize(kept) == before
    assert captured.err == f"predict.py: --draw: {kept} would overwrite an input image; name another place\n"
    assert sorted(os.listdir("pictures")) == sorted([
        "clip_prediction_000000.png", "clip_prediction_000005.png", "clip_prediction_000005_prediction.png",
        "clip_prediction_000010.png"])


def test_a_camera(photos_folder, capsys, monkeypatch):
    from gender_smile.inference import photos

    pictures = [photos.Photo("camera 0", photo(), frame=frame, seconds=frame / 30) for frame in (0, 30)]
    monkeypatch.setattr(photos, "camera", lambda number, every: iter(pictures))
    assert predict.main(["--camera", "0", "--draw", "pictures"]) == 0
    assert capsys.readouterr().out.count("camera 0  0:0") == 2
    assert sorted(os.listdir("pictures")) == ["camera_prediction_000000.png", "camera_prediction_000030.png"]


def test_a_camera_that_is_not_there(photos_folder, capsys):
    assert predict.main(["--camera", "97"]) == 2
    assert capsys.readouterr().err == "predict.py: there is no camera 97 that OpenCV can open\n"


def test_an_answer_of_a_camera_comes_before_the_next_picture(photos_folder, capsys, monkeypatch):
    from gender_smile.inference import photos

    said = []

    def pictures(number, every):
        for frame in (0, 1):
            said.append(capsys.readouterr().out)
            yield photos.Photo("camera 0", photo(), frame=frame, seconds=0.0)

    monkeypatch.setattr(photos, "camera", pictures)
    assert predict.main(["--camera", "0", "--json"]) == 0
    assert said[0] == "" and json.loads(said[1])["frame"] == 0


def test_a_photo_from_standard_input(photos_folder, capsys, monkeypatch):
    with open(save("a.jpg"), "rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
        assert predict.main(["-", "--json", "--draw", "pictures"]) == 0
    assert answers(capsys)[0]["image"] == "-"
    assert os.listdir("pictures") == ["stdin_prediction.png"]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_and_colorful_text_only_on_a_terminal(photos_folder, root, terminal):
    """A run in a process of its own, on a pseudo-terminal or with pipes, over photos that take their time."""
    pty = pytest.importorskip("pty")
    for number in range(3):
        save(f"{number}.png")
    code = (
        "import sys, time; sys.path[:0] = [%r, %r]\n"
        "import recipe, detector; recipe.ROOT = %r\n"
        "from pipeline_fakes import FakeDetector, fake_caffe\n"
        "from common import engine; from tools import predict\n"
        "predict.PATIENCE = 0\n"
        "engine.resolve = lambda name='auto', predicting=False: fake_caffe()\n"
        "detector.Detector = FakeDetector\n"
        "raise SystemExit(predict.main(['0.png', '1.png', 'missing.png', '2.png']))\n"
    ) % (str(root), str(root / "tests" / "support"), recipe.ROOT)
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    if terminal:
        leader, follower = pty.openpty()
        process = subprocess.Popen([sys.executable, "-c", code], stdout=follower, stderr=follower, env=environment)
        os.close(follower)
        said = b""
        while True:
            try:
                part = os.read(leader, 4096)
            except OSError:  # the other side is closed
                break
            said += part
        text = said.decode("utf-8")
        assert process.wait() == 1
        assert "█" in text and "/4" in text and "photos" in text
        assert "predict.py: missing.png: file is missing" in text
    else:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
        assert done.returncode == 1
        assert done.stderr == "predict.py: missing.png: file is missing\n"
        assert "█" not in done.stdout and "\r" not in done.stdout and done.stdout.count("gender  female") == 3


@pytest.mark.parametrize("probability, drawn", [(1.0, "████"), (0.5, "██  "), (0.53125, "██▏ "), (0.0, "    ")])
def test_bars_of_characters(probability, drawn):
    assert bar(probability, 4) == drawn
