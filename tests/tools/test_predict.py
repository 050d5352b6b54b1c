"""The command: output, exit status, and every kind of image that users bring."""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import recipe
from common import files
from predict_project import answers, save
from pipeline_fakes import FakeDetector, install, photo
from tools import predict


def nets() -> str:
    """The line that tells which nets answered, those of photos_folder, which have no record."""
    digests = " ".join(f"{net} {files.sha256_of(recipe.absolute(recipe.step_weights('demo', net, 4)))[:8]}"
                       for net in recipe.PIPELINE_NETS)
    return ("nets: demo (of unknown training: no record beside the weights); weights/demo/step4_*.caffemodel, sha256 "
            f"{digests}")


def test_text(photos_folder, capsys):
    assert predict.main([save("a.jpg"), save("b.png")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        line.replace("IMAGE", name)
        for name in ("a.jpg", "b.png")
        for line in (
            "IMAGE",
            "  face    40 x 50 pixels at (30, 30), score 0.900",
            "  gender  female        93.0 %",
            "  smile   smiling, uncertain (70.0 %)   (smiling: SNet1 80.0 %, SNet2 60.0 %)",
            "  note    less reliable: blurred",  # photos of one color
        )
    ] + [nets()]  # once


def test_json_is_one_object_an_image_in_the_order_given(photos_folder, capsys):
    images = [save("b.jpg"), save("no face.png", photo(0)), save("a.png"), "missing.jpg"]
    assert predict.main([*images, "--json"]) == 1
    found = answers(capsys)
    assert [answer["image"] for answer in found] == images
    assert found[0]["gender"] == {"label": "female", "probability": 0.93, "uncertain": False}
    assert found[0]["smile"] == {"label": "smiling", "probability": 0.7, "uncertain": True, "snet1": 0.8, "snet2": 0.6}
    assert found[1] == {"image": "no face.png", "error": "no face found"}
    assert found[3] == {"image": "missing.jpg", "error": "file is missing"}
    assert set(found[2]) == {"image", "number", "faces", "face", "gender", "smile", "doubts", "model"}
    assert found[2]["model"]["sha256"]["gnet"][:8] in nets()


def test_failures_in_text_name_the_file_and_leave_the_others(photos_folder, capsys):
    assert predict.main([save("dark.png", photo(0)), save("a.png")]) == 1
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == nets()
    assert predict.main(["dark.png"]) == 1 and capsys.readouterr().out == ""  # no net has answered
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
def test_images_of_every_mode_are_answered(photos_folder, capsys, name):
    assert predict.main([save(name, USABLE[name]()), "--json"]) == 0
    (answer,) = answers(capsys)
    assert answer["face"]["box"] == [30, 30, 40, 50]


def test_exif_turn_is_applied(photos_folder, capsys):
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
def test_unusable_files_are_an_error_each_without_traceback(photos_folder, capsys, name):
    assert predict.main([broken(name), "--json"]) == 1
    (answer,) = answers(capsys)
    assert set(answer) == {"image", "error"} and "\n" not in answer["error"]
    assert predict.main([name]) == 1
    assert capsys.readouterr().err.splitlines() == [f"predict.py: {name}: {answer['error']}"]


def test_names_of_odd_bytes(photos_folder, capsys):
    name = os.fsdecode(b"caf\xe9.png")
    try:
        save("plain.png")
        os.rename("plain.png", name)
    except OSError:
        pytest.skip("this file system takes no such names")
    assert predict.main([name]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "caf\\xe9.png"
    assert predict.main([name, "no such file.png", "--json"]) == 1
    assert [answer["image"] for answer in answers(capsys)] == [name, "no such file.png"]


@pytest.mark.parametrize("name, shown", [("two\nlines.png", "two\\nlines.png"), ("\x1b[31mred.png", "\\x1b[31mred.png"),
                                         ("\u202egnp.exe.png", "\\u202egnp.exe.png"), ("笑 ünï.png", "笑 ünï.png")])
def test_names_cannot_write_lines_or_command_the_terminal(photos_folder, capsys, name, shown):
    assert predict.main([save(name)]) == 0
    assert capsys.readouterr().out.splitlines()[0] == shown
    os.truncate(name, 0)
    assert predict.main([name]) == 1
    assert capsys.readouterr().err == f"predict.py: {shown}: file is empty (0 bytes)\n"


@pytest.mark.parametrize("arguments", [
    [], ["a.jpg", "--threshold", "0.4"], ["a.jpg", "--threshold", "1.1"], ["a.jpg", "--camera", "0"], ["--camera", "-1"],
    ["--camera", "2147483648"], ["a.jpg", "--explain"],
    ["a.jpg", "--every", "0"], ["a.jpg", "--json", "--csv"], ["a.jpg", "--unknown"], ["a.jpg", "--profile", "toy"],
    ["a.jpg", "--gpu"],
])
def test_wrong_use(photos_folder, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        predict.main(arguments)
    assert stop.value.code == 2
    assert "usage: predict.py" in capsys.readouterr().err


def test_a_fault_of_ours_is_not_called_wrong_use(photos_folder, monkeypatch):
    def fail(self, image):
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr(FakeDetector, "detect", fail)
    with pytest.raises(ValueError):
        predict.main([save("a.jpg")])


def test_a_variants_weights_answer(photos_folder, fake_project, capsys):
    install(fake_project, {"gnet": 0.2, "snet1": 0.1}, variant="bf16")
    assert predict.main([save("a.jpg"), "--variant", "bf16"]) == 2  # auto finds neither profile's three
    told = capsys.readouterr().err
    assert "no trained weights of variant bf16" in told and "weights/paper/step4_gnet-bf16.caffemodel" in told
    assert predict.main(["a.jpg", "--variant", "bf16", "--profile", "demo"]) == 2
    assert "weights/demo/step4_snet2-bf16.caffemodel is missing: is --variant bf16" in capsys.readouterr().err
    install(fake_project, {"snet2": 0.3}, variant="bf16")
    for words, expected in (("--variant bf16", (0.2, 0.1, 0.3)), ("--variant none", (0.93, 0.8, 0.6)), ("", (0.93, 0.8, 0.6))):
        assert predict.main(["a.jpg", "--json", *words.split()]) == 0
        (answer,) = answers(capsys)
        gender, smile = answer["gender"], answer["smile"]
        female = gender["probability"] if gender["label"] == "female" else 1 - gender["probability"]
        assert (female, smile["snet1"], smile["snet2"]) == pytest.approx(expected)


def test_nets_trained_on_drawn_faces_answer_with_a_warning_where_named(photos_folder, fake_project, capsys):
    three = {"gnet": 0.93, "snet1": 0.8, "snet2": 0.6}
    install(fake_project, three, record={"trained_on": ["drawn faces"], "drawn": True})
    install(fake_project, three, "small", record={"trained_on": ["CelebA", "FotW"], "drawn": False, "sha256": "1a2b3c4d5e"})
    assert predict.main([save("a.jpg")]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and captured.out.splitlines()[-1].startswith(
        "nets: small (trained on photographs of CelebA and FotW); weights/small/step4_*.caffemodel, sha256 gnet 1a2b3c4d ")
    for form in ([], ["--json"], ["--csv"]):
        assert predict.main(["a.jpg", "--profile", "demo", *form]) == 0
        captured = capsys.readouterr()
        assert captured.err == ("predict.py: these nets were trained on drawn faces: their answers on photographs are not to "
                                "be relied on; for photographs leave out --profile demo\n")
    os.remove(recipe.absolute(recipe.step_weights("small", "gnet", 4)))
    assert predict.main(["a.jpg"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "--profile demo" in told and "git checkout weights/small" in told


def test_uncertain_answers(photos_folder, fake_project, capsys):
    install(fake_project, {"gnet": 0.561, "snet1": 0.9, "snet2": 0.7})
    assert predict.main([save("a.jpg")]) == 0
    assert capsys.readouterr().out.splitlines()[2:4] == [
        "  gender  female, uncertain (56.1 %)", "  smile   smiling       80.0 %   (smiling: SNet1 90.0 %, SNet2 70.0 %)"]
    for given, expected in (([], (True, False)), (["--threshold", "0.9"], (True, True)), (["--threshold", "0"], (False, False))):
        assert predict.main(["a.jpg", "--json", *given]) == 0
        (answer,) = answers(capsys)
        assert (answer["gender"]["uncertain"], answer["smile"]["uncertain"]) == expected
        assert (answer["gender"]["label"], answer["gender"]["probability"]) == ("female", 0.561)
        assert predict.main(["a.jpg", "--csv", *given]) == 0
        (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
        assert (row["gender_uncertain"], row["smile_uncertain"], row["model"]) == (*map(str, expected), "demo")


def test_a_camera_that_ctrl_c_ends_tells_which_nets_answered(photos_folder, monkeypatch, capsys):
    def frames(number, every):
        yield predict.Photo("camera", photo(), frame=0, seconds=0.0)
        raise KeyboardInterrupt

    monkeypatch.setattr("gender_smile.inference.photos.camera", frames)
    assert predict.main(["--camera", "0"]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == nets()


def test_missing_weights(photos_folder, capsys):
    os.remove(recipe.absolute(recipe.step_weights("demo", "gnet", 4)))
    assert predict.main([save("a.jpg")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "make demo" in error and "make step4" in error
