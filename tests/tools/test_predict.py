"""The command: output, exit status, pictures, and every kind of image that users bring."""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import recipe
from pipeline_fakes import FakeDetector, fake_caffe, install, photo
from tools import draw, engine, predict
from tools.answers import bar
from tools.pipeline import Pipeline
from tools.prediction import COLUMNS


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with trained nets, and the folder of the user's photos as working folder."""
    caffe = fake_caffe()
    monkeypatch.setenv("GLOG_minloglevel", "1")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path / "project"))
    monkeypatch.setattr(engine, "resolve", lambda name="auto": caffe)
    monkeypatch.setattr("detector.Detector", FakeDetector)
    install(recipe.ROOT, {"gnet": 0.93, "snet1": 0.8, "snet2": 0.6})
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path / "photos")
    return tmp_path / "photos"


def save(name: str, image=None, **options) -> str:
    """Save an image (Pillow's, or H x W x 3 uint8) in the working folder; returns `name`."""
    image = Image.fromarray(photo() if image is None else image) if not isinstance(image, Image.Image) else image
    image.save(name, **options)
    return name


def answers(capsys) -> list:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_text(project, capsys):
    assert predict.main([save("a.jpg"), save("b.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        line.replace("IMAGE", name)
        for name in ("a.jpg", "b.png")
        for line in (
            "IMAGE",
            "  face    40 x 50 pixels at (30, 30), score 0.900",
            "  gender  female        93.0 %",
            "  smile   smiling       70.0 %   (smiling: SNet1 80.0 %, SNet2 60.0 %)",
        )
    ]


def test_json_is_one_object_an_image_in_the_order_given(project, capsys):
    images = [save("b.jpg"), save("no face.png", photo(0)), save("a.png"), "missing.jpg"]
    assert predict.main([*images, "--json"]) == 1
    found = answers(capsys)
    assert [answer["image"] for answer in found] == images
    assert found[0]["gender"] == {"label": "female", "probability": 0.93}
    assert found[0]["smile"] == {"label": "smiling", "probability": 0.7, "snet1": 0.8, "snet2": 0.6}
    assert found[1] == {"image": "no face.png", "error": "no face found"}
    assert found[3] == {"image": "missing.jpg", "error": "file is missing"}
    assert set(found[2]) == {"image", "number", "faces", "face", "gender", "smile"}


def test_failures_in_text_name_the_file_and_leave_the_others(project, capsys):
    assert predict.main([save("dark.png", photo(0)), save("a.png")]) == 1
    captured = capsys.readouterr()
    assert captured.err == "predict.py: dark.png: no face found\n"
    assert captured.out.startswith("a.png\n")


USABLE = {
    "gray.png": lambda: Image.new("L", (100, 100), 128),
    "gray with alpha.png": lambda: Image.new("LA", (100, 100), (128, 255)),
    "palette.png": lambda: Image.new("RGB", (100, 100), (90, 120, 200)).convert("P"),
    "transparent palette.gif": lambda: Image.new("RGBA", (100, 100), (90, 120, 200, 255)).convert("P"),
    "cmyk.jpg": lambda: Image.new("CMYK", (100, 100), (10, 60, 90, 20)),
    "sixteen bits.png": lambda: Image.fromarray(np.full((100, 100), 128 << 8, np.uint16)),
    "alpha.png": lambda: Image.new("RGBA", (100, 100), (90, 120, 200, 128)),
    "one bit.png": lambda: Image.new("1", (100, 100), 1),
}


@pytest.mark.parametrize("name", USABLE)
def test_images_of_every_mode_are_answered(project, capsys, name):
    assert predict.main([save(name, USABLE[name]()), "--json"]) == 0
    (answer,) = answers(capsys)
    assert answer["face"]["box"] == [30, 30, 40, 50]


def test_exif_turn_is_applied(project, capsys):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter to show
    assert predict.main([save("turned.jpg", photo(128, 60, 200), exif=exif), "--json", "--draw", "out.png"]) == 0
    (answer,) = answers(capsys)
    assert answer["face"]["box"] == [18, 60, 24, 100]  # of a photo 60 wide and 200 high
    width, height = Image.open("out.png").size
    assert height > width


def broken(name: str) -> str:
    if name == "empty.jpg":
        open(name, "wb").close()
    elif name == "truncated.jpg":
        save(name, np.random.RandomState(1).randint(0, 255, (80, 80, 3)).astype(np.uint8))
        os.truncate(name, os.path.getsize(name) // 2)
    elif name == "enormous.png":
        header = b"IHDR" + struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
        parts = [header, b"IDAT" + zlib.compress(b""), b"IEND"]
        chunks = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts]
        with open(name, "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    elif name == "folder.jpg":
        os.mkdir(name)
    else:
        with open(name, "w") as file:
            file.write("not an image")
    return name


@pytest.mark.parametrize("name", ["empty.jpg", "truncated.jpg", "enormous.png", "folder.jpg", "text.jpg"])
def test_unusable_files_are_an_error_each_without_traceback(project, capsys, name):
    assert predict.main([broken(name), "--json"]) == 1
    (answer,) = answers(capsys)
    assert set(answer) == {"image", "error"} and "\n" not in answer["error"]
    assert predict.main([name]) == 1
    assert capsys.readouterr().err.splitlines() == [f"predict.py: {name}: {answer['error']}"]


def test_names_of_odd_bytes(project, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        save("plain.png")
        os.rename("plain.png", name)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert predict.main([name]) == 0
    assert predict.main([name, "--json"]) == 0
    assert predict.main([name, "no such file.png"]) == 1


# ------------------------------------------------------------------------------------------ pictures
def test_one_picture_goes_to_the_file_named(project, capsys):
    assert predict.main([save("a.jpg"), "--draw", "new folder/out.png"]) == 0
    assert capsys.readouterr().out.endswith("  picture new folder/out.png\n")
    assert Image.open("new folder/out.png").size[0] == draw.LONG_SIDE[0]


def test_several_pictures(project):
    os.makedirs("other")
    images = [save("a.jpg"), save("dark.png", photo(0)), save("other/a.png")]
    assert predict.main([*images, "--draw", "pictures", "--json"]) == 1
    assert sorted(os.listdir("pictures")) == ["a_prediction.png", "a_prediction_2.png"]
    assert predict.main([*images, "--draw", "out.jpg", "--json"]) == 1
    assert os.path.exists("out_1.jpg") and not os.path.exists("out_2.jpg") and os.path.exists("out_3.jpg")


@pytest.mark.parametrize("target, message", [("a.jpg", "overwrite"), ("out.gif", ".png"), ("plain", "without suffix")])
def test_places_where_no_picture_can_go(project, capsys, target, message):
    with open("plain", "w"):
        pass
    before = os.path.getsize(save("a.jpg"))
    assert predict.main(["a.jpg", "--draw", target]) == 2
    assert message in capsys.readouterr().err
    assert os.path.getsize("a.jpg") == before


def test_a_picture_that_cannot_be_written_is_a_failure(project, capsys):
    with open("file", "w"):
        pass
    assert predict.main([save("a.jpg"), "--draw", "file/out.png"]) == 1
    assert "file/out.png: cannot write the picture" in capsys.readouterr().err


@pytest.mark.parametrize("height, width", [(8, 8), (30, 4_000), (3_000, 2_000)])
def test_pictures_of_photos_of_all_sizes(project, height, width):
    prediction = predict_one(photo(200, height, width))
    draw.draw(photo(200, height, width), [prediction], "out.png")
    picture = np.asarray(Image.open("out.png").convert("RGB"))
    assert draw.LONG_SIDE[0] <= max(picture.shape[:2]) <= 2 * draw.LONG_SIDE[1]
    assert count(picture, draw.GENDER) > 100 and count(picture, draw.SMILE) > 100  # the bars


def test_bars_are_as_long_as_their_probabilities(project):
    draw.draw(photo(), [predict_one(photo())], "out.png")
    picture = np.asarray(Image.open("out.png").convert("RGB"))
    rows = (picture == rgb(draw.GENDER)).all(axis=2).sum(axis=1)
    track = (picture == rgb(draw.TRACK)).all(axis=2)[rows.argmax(), : picture.shape[1] // 2].sum()
    assert rows.max() / (rows.max() + track) == pytest.approx(0.93, abs=0.02)


def predict_one(image):
    return Pipeline.load("demo").predict(image)


def rgb(color: str) -> list:
    return [int(color[position : position + 2], 16) for position in (1, 3, 5)]


def count(picture, color: str) -> int:
    return int((picture == rgb(color)).all(axis=2).sum())


# ------------------------------------------------------------------------------------------ many photos, many faces
def video(name: str, count: int = 12) -> str:
    """A video of 10 frames a second, one face in each."""
    import cv2

    writer = cv2.VideoWriter(name, cv2.VideoWriter_fourcc(*"MJPG"), 10, (100, 100))
    for _ in range(count):
        writer.write(photo())
    writer.release()
    return name


def test_all_faces_as_text(project, capsys):
    assert predict.main([save("group.png", photo(255)), "--all-faces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "group.png" and len(lines) == 7
    assert lines[1].endswith("(30, 30), score 0.900   (1 of 2)") and lines[4].endswith("(0, 0), score 0.990   (2 of 2)")
    assert predict.main(["group.png"]) == 0
    assert "score 0.900, nearest the middle of 2 (--all-faces: every one)" in capsys.readouterr().out


def test_all_faces_of_a_folder_as_json_and_csv(project, capsys):
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


def test_csv_of_names_with_commas_and_odd_bytes(project, capsys):
    name = save('a, "b".png')
    assert predict.main([name, "--csv"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == 2
    (row,) = csv.DictReader(io.StringIO(printed))
    assert row["image"] == name and row["gender_probability"] == "0.93"


def test_one_face_of_several_without_an_answer(project, capsys, monkeypatch):
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


def test_videos(project, capsys):
    assert predict.main([video("clip.avi"), "--every", "5", "--json", "--draw", "pictures"]) == 0
    assert [(answer["frame"], answer["seconds"]) for answer in answers(capsys)] == [(0, 0.0), (5, 0.5), (10, 1.0)]
    assert sorted(os.listdir("pictures")) == [f"clip_prediction_{frame:06d}.png" for frame in (0, 5, 10)]
    assert predict.main(["clip.avi"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("clip")] == [
        "clip.avi  0:00.0 (frame 0)", "clip.avi  0:01.0 (frame 10)"]


def test_a_camera(project, capsys, monkeypatch):
    from tools import photos

    pictures = [photos.Photo("camera 0", photo(), frame=frame, seconds=frame / 30, live=True) for frame in (0, 30)]
    monkeypatch.setattr(photos, "camera", lambda number, every: iter(pictures))
    assert predict.main(["--camera", "0", "--draw", "pictures"]) == 0
    assert capsys.readouterr().out.count("camera 0  0:0") == 2
    assert sorted(os.listdir("pictures")) == ["camera_prediction_000000.png", "camera_prediction_000030.png"]


def test_a_camera_that_is_not_there(project, capsys):
    assert predict.main(["--camera", "97"]) == 2
    assert capsys.readouterr().err == "predict.py: there is no camera 97 that OpenCV can open\n"


def test_an_answer_of_a_camera_comes_before_the_next_picture(project, capsys, monkeypatch):
    from tools import photos

    said = []

    def pictures(number, every):
        for frame in (0, 1):
            said.append(capsys.readouterr().out)
            yield photos.Photo("camera 0", photo(), frame=frame, seconds=0.0, live=True)

    monkeypatch.setattr(photos, "camera", pictures)
    assert predict.main(["--camera", "0", "--json"]) == 0
    assert said[0] == "" and json.loads(said[1])["frame"] == 0


def test_a_photo_from_standard_input(project, capsys, monkeypatch):
    with open(save("a.jpg"), "rb") as file:
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=file, isatty=lambda: False))
        assert predict.main(["-", "--json", "--draw", "pictures"]) == 0
    assert answers(capsys)[0]["image"] == "-"
    assert os.listdir("pictures") == ["stdin_prediction.png"]


def test_pictures_of_several_faces_and_of_crops(project, monkeypatch):
    image = photo(255)
    one, group = predict_one(image), Pipeline.load("demo").predict_faces(image, crops=True)
    sizes = []
    for predictions in ([one], [replace(one, crops=group[0].crops)], [replace(face, crops={}) for face in group], group):
        draw.draw(image, predictions, "out.png")
        sizes.append(Image.open("out.png").size)
    plain, crops, faces, both = sizes
    assert {width for width, _ in sizes} == {draw.LONG_SIDE[0]}
    assert plain[1] < crops[1] and faces[1] < both[1] and plain[1] - 10 < faces[1] < crops[1]


def test_what_the_nets_saw_is_in_the_picture_pixel_for_pixel_in_color(project, monkeypatch):
    """A crop of one odd color, and the same color in the picture; with a heat map, warm where it says."""
    image, size = photo(), recipe.DEMO.crop_size
    crops = {net: np.full((size, size, 3), (200, 30, 90), np.uint8) for net in recipe.PIPELINE_NETS}
    draw.draw(image, [replace(predict_one(image), crops=crops)], "out.png")
    cold = np.asarray(Image.open("out.png").convert("RGB"))
    same = (np.abs(cold.astype(int) - (90, 30, 200)).max(axis=2) < 3).sum()
    assert same > 3 * 150**2
    heat = {net: np.zeros((size, size), np.float32) for net in recipe.PIPELINE_NETS}
    heat["snet2"][: size // 2] = 1
    draw.draw(image, [replace(predict_one(image), crops=crops, heat=heat)], "out.png")
    warm = np.asarray(Image.open("out.png").convert("RGB"))
    bright = warm[-170:, :].min(axis=2) > 100  # the warm end of the colors, over the gray of the crop
    columns = np.flatnonzero(bright.sum(axis=0) > 40)
    assert 80 < len(columns) < 120 and columns.min() > 5 / 6 * warm.shape[1] - 20  # the last tile of six


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_and_colorful_text_only_on_a_terminal(project, root, terminal):
    """A run in a process of its own, on a pseudo-terminal or with pipes, over photos that take their time."""
    pty = pytest.importorskip("pty")
    for number in range(3):
        save(f"{number}.png")
    code = (
        "import sys, time; sys.path[:0] = [%r, %r]\n"
        "import recipe, detector; recipe.ROOT = %r\n"
        "from pipeline_fakes import FakeDetector, fake_caffe\n"
        "from tools import engine, predict\n"
        "predict.PATIENCE = 0\n"
        "engine.resolve = lambda name='auto': fake_caffe()\n"
        "detector.Detector = FakeDetector\n"
        "raise SystemExit(predict.main(['0.png', '1.png', 'missing.png', '2.png']))\n"
    ) % (str(root), str(root / "tests" / "tools"), recipe.ROOT)
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


# ------------------------------------------------------------------------------------------ wrong use
@pytest.mark.parametrize("arguments", [[], ["a.jpg", "--camera", "0"], ["a.jpg", "--explain"], ["a.jpg", "--every", "0"], ["a.jpg", "--json", "--csv"], ["a.jpg", "--unknown"], ["a.jpg", "--profile", "toy"], ["a.jpg", "--gpu"]])
def test_wrong_use(project, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        predict.main(arguments)
    assert stop.value.code == 2
    assert "usage: predict.py" in capsys.readouterr().err


def test_missing_weights(project, capsys):
    os.remove(recipe.absolute(recipe.step_weights("demo", "gnet", 4)))
    assert predict.main([save("a.jpg")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make demo" in error and "make step4" in error


@pytest.mark.parametrize("tool", ["predict.py", "evaluate.py"])
def test_help_from_any_folder_is_quick_and_leaves_nothing_behind(tmp_path, root, tool):
    code = (
        f"import sys, runpy; sys.argv = ['{tool}', '--help']\n"
        "try: runpy.run_path(sys.orig_argv[-1], run_name='__main__')\n"
        "except SystemExit as stop:\n"
        "    heavy = {'torch', 'cv2', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "    assert not stop.code and not heavy, (stop.code, heavy)\n"
    )
    command = [sys.executable, "-c", code, str(root / "tools" / tool)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {tool}") and os.listdir(tmp_path) == []
