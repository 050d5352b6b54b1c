"""The command from end to end, read back with lmdb, numpy and the schema alone."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys

import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image

import recipe
from fake_detector import LANDMARKS, FakeDetector
from lmdb_builders import build, builder, detections, manifest as manifests
from lmdb_builders.crops import crop_face, to_blob
from lmdb_builders.images import Orientation, read_image
from gender_smile.training.fingerprints import database_fingerprint
from torchcaffe.proto import caffe_pb2

STORED_BY = {  # EXIF's tag -> the inverse of the turn that it asks for
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}
SCHEMES = ("scheme1", "scheme3", "scheme5")


@pytest.fixture(autouse=True)
def fake_detector(monkeypatch):
    monkeypatch.setattr(builder.Settings, "__init__", _with_fake(builder.Settings.__init__))


def _with_fake(original):
    def __init__(self, *arguments, **options):
        original(self, *arguments, **{"detector": FakeDetector, **options})

    return __init__


@pytest.fixture
def run(celeba, fotw, tmp_path, capsys):
    """run(*more flags) builds both data sets in this process: (exit status, stdout, stderr)."""

    def command(*flags, datasets=("celeba", "fotw")):
        folders = {"celeba": celeba, "fotw": fotw}
        sources = [text for name in datasets for text in (f"--{name}", str(folders[name]))]
        status = build.main(
            [*sources, "--profile", "demo", "--workers", "1", "--output", str(tmp_path / "data"), *flags]
        )
        return (status, *capsys.readouterr())

    return command


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(key.decode(), caffe_pb2.Datum.FromString(value)) for key, value in transaction.cursor()]


def manifest(data, scheme="scheme1"):
    return json.loads((data / scheme / "manifest.json").read_text())


def test_what_lies_in_the_lmdbs(run, tmp_path, celeba):
    status, out, _ = run()
    data = tmp_path / "data"
    assert status == 0 and {path.name for path in data.iterdir()} == {*SCHEMES, "detections", ".lock"}
    expected = {"celeba_train": 8, "celeba_train_labels": 8, "celeba_val": 2, "celeba_val_labels": 2,
                "fotw_train": 6, "fotw_train_labels": 6, "fotw_val": 3, "fotw_val_labels": 3}
    for scheme in SCHEMES:
        assert {path.name for path in (data / scheme).iterdir()} == {*expected, "manifest.json"}
        for name, count in expected.items():
            assert len(records(data / scheme / name)) == count
        assert manifest(data, scheme)["celeba"]["images"] | manifest(data, scheme)["fotw"]["images"] == expected
    values = {name: [key for key, _ in records(data / "scheme1" / name)] for name in expected}
    assert values["celeba_train"] == values["celeba_train_labels"]
    assert values == {name: [key for key, _ in records(data / "scheme5" / name)] for name in expected}
    names = [key.split("_", 1)[1] for key in values["celeba_train"]]
    assert names != sorted(names) and [key[:8] for key in values["celeba_train"]] == [f"{i:08d}" for i in range(8)]
    images, twins = records(data / "scheme1/celeba_train"), records(data / "scheme1/celeba_train_labels")
    for (key, image), (_, labels) in zip(images, twins):
        number = int(key.split("_")[1].split(".")[0]) - 1
        photo = read_image(celeba / "Img/img_celeba" / key.split("_", 1)[1])
        crop = crop_face(photo, LANDMARKS, recipe.CROPS["scheme1"], recipe.DEMO.stored_size)
        planes = np.frombuffer(image.data, np.uint8).reshape(image.channels, image.height, image.width)
        assert np.array_equal(planes - np.array(recipe.MEAN_BGR, np.float32).reshape(3, 1, 1), to_blob(crop[None])[0])
        female = recipe.LABELS.index("Female")
        assert len(labels.float_data) == 40 and labels.float_data[female] == ((number + female) % 3 != 0)
    labels = {key.split("_", 1)[1]: tuple(datum.float_data) for key, datum in records(data / "scheme3/fotw_train_labels")}
    expected = ((1, (0, 0)), (2, (1, 1)), (3, (0, 1)), (4, (1, 0)), (5, (2, 1)), (6, (0, 2)))
    assert labels == {f"im_GenFex_{n:05d}.jpg": values for n, values in expected}


@pytest.mark.parametrize("tag", range(1, 9))
@pytest.mark.parametrize("landmarks", ["dataset", "detector"])
def test_a_photo_that_is_stored_turned_gives_the_same_crops(run, tmp_path, celeba, fotw, tag, landmarks):
    """Photos, boxes and landmarks as a camera held in another way gives them; all tables count stored pixels."""
    photos = sorted([*celeba.glob("Img/*/*.jpg"), *fotw.glob("*/*.jpg")])
    upright = {path: np.random.RandomState(number).randint(0, 256, (48, 48, 3), np.uint8)
               for number, path in enumerate(photos)}
    for path, pixels in upright.items():
        Image.fromarray(pixels).save(path, "PNG")
    assert run("--landmarks", landmarks)[0] == 0
    expected = {path.relative_to(tmp_path / "data"): path.read_bytes() for path in tmp_path.glob("data/*/*/data.mdb")}
    shutil.rmtree(tmp_path / "data")

    exif = Image.Exif()
    exif[0x0112] = tag
    for path, pixels in upright.items():
        Image.fromarray(pixels).transpose(STORED_BY[tag]).save(path, "PNG", exif=exif) if tag > 1 else None
    turn = Orientation(tag, 48, 48)
    for path in celeba.glob("Anno/list_landmarks*"):
        text = " ".join(f"{value:.0f}" for value in turn.stored_points(LANDMARKS).ravel())
        path.write_text(path.read_text().replace(" ".join(str(value) for value in LANDMARKS.ravel()), text))
    for path in (*celeba.glob("Anno/list_bbox*"), *fotw.glob("*/*.csv")):
        for box, separator in (((12, 12, 24, 24), "   "), ((14, 14, 20, 20), ",")):
            text = separator.join(f"{value:.0f}" for value in turn.stored_box(box))
            path.write_text(path.read_text().replace(separator.join(map(str, box)), text))
    assert run("--landmarks", landmarks)[0] == 0
    assert len(expected) == 24
    for path, content in expected.items():
        assert (tmp_path / "data" / path).read_bytes() == content, path


def test_pool_of_processes_writes_the_same(run, tmp_path):
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "data").glob("*/*/data.mdb")}
    status, _, _ = run("--force", "--workers", "2")
    assert status == 0 and len(before) == 24
    assert all(path.read_bytes() == content for path, content in before.items())


def test_second_run_does_nothing(run, tmp_path):
    run()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.mdb")}
    status, out, _ = run()
    assert status == 0 and out.count("is complete for these sources and settings") == 6
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").rglob("*.mdb")}


@pytest.mark.parametrize("change", ["force", "encode", "seed", "source", "lmdb"])
def test_changed_builds_are_built_again(run, tmp_path, fotw, edit, change):
    run()
    first = manifest(tmp_path / "data")
    flags = {"force": ["--force"], "encode": ["--encode", "png"], "seed": ["--seed", "5"]}.get(change, [])
    if change == "source":
        edit(fotw / "smiles_trset/gender_fex_trset.csv", "20,20,0,0", "20,20,1,0")
    if change == "lmdb":
        shutil.rmtree(tmp_path / "data/scheme1/fotw_val")
    status, out, _ = run(*flags)
    assert status == 0
    first_built = "fotw_val" if change == "lmdb" else "fotw_train"
    assert f"fotw: {tmp_path / 'data/scheme1'} {first_built}" in out
    assert ("celeba: " + str(tmp_path / "data/scheme1") + " celeba_train" in out) == (change not in ("source", "lmdb"))
    assert len(records(tmp_path / "data/scheme1/fotw_val")) == 3
    if change in ("encode", "seed"):
        assert manifest(tmp_path / "data")["celeba"]["facts"] != first["celeba"]["facts"]


@pytest.fixture
def with_test_split(fotw):
    """FotW's test partition beside the others: two photos."""
    folder = fotw / "track3_testing/track3_all"
    folder.mkdir(parents=True)
    for number in (21, 22):
        shutil.copy(fotw / "smiles_valset/im_GenFex_00007.jpg", folder / f"im_GenFex_{number:05d}.jpg")
    rows = [f"im_GenFex_{number:05d}.jpg,14,14,20,20,1,1" for number in (21, 22)]
    (folder / "test_gt.csv").write_text(
        "\r\n".join(["image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile", *rows, ""])
    )


def state(data):
    """LMDB file -> (bytes, time of writing), of all that lie below `data`."""
    return {str(path.relative_to(data)): (path.read_bytes(), path.stat().st_mtime_ns) for path in data.rglob("data.mdb")}


def step_inputs(data):
    """The fingerprints of the LMDBs that trainings read."""
    return {str(path): database_fingerprint(str(path)) for path in data.glob("*/*_*")
            if "test" not in path.name and path.is_dir()}


def test_the_test_split_later_leaves_the_other_splits_alone(run, tmp_path, with_test_split):
    data = tmp_path / "data"
    run()
    before, inputs = state(data), step_inputs(data)
    status, out, _ = run("--test")
    assert status == 0 and {name: after for name, after in state(data).items() if "_test" not in name} == before
    assert sum("_test" in name for name in state(data)) == 3 * 4 and step_inputs(data) == inputs
    entry = manifest(data)["fotw"]
    assert entry["rows"] == {"train": 6, "val": 3, "test": 2} and set(entry["split_facts"]) == {"train", "val", "test"}
    assert entry["images"]["fotw_test"] == 2 and entry["images"]["fotw_train"] == 6
    everything = state(data)
    assert run()[0] == run("--test")[0] == 0  # both orders: nothing is left to do
    assert state(data) == everything and step_inputs(data) == inputs
    assert manifest(data)["fotw"] == entry


def test_a_validation_row_edited_in_detections_builds_the_validation_split_only(run, tmp_path):
    data = tmp_path / "data"
    run()
    before, facts = state(data), manifest(data)["fotw"]["split_facts"]
    table = data / "detections/fotw.csv"
    lines = table.read_text().splitlines(keepends=True)
    row, = (number for number, line in enumerate(lines) if "00008.jpg" in line)
    cells = lines[row].split(",")
    cells[6] = str(float(cells[6]) + 1.5)  # the left eye
    lines[row] = ",".join(cells)
    table.write_text("".join(lines))
    assert run()[0] == 0
    changed = {name for name, now in state(data).items() if now != before[name]}
    assert changed == {f"{scheme}/{name}/data.mdb" for scheme in SCHEMES for name in ("fotw_val", "fotw_val_labels")}
    assert manifest(data)["fotw"]["split_facts"]["train"] == facts["train"]
    assert manifest(data)["fotw"]["split_facts"]["val"] != facts["val"]


def test_other_settings_forget_a_split_that_is_not_built_with_them(run, tmp_path, with_test_split):
    run("--test")
    run("--encode", "png")
    entry = manifest(tmp_path / "data")["fotw"]
    assert set(entry["split_facts"]) == {"train", "val"} and not any("test" in name for name in entry["images"])
    assert entry["facts"]["encode"] == "png"


def test_manifests_tell_drawn_faces_and_that_builds_nothing_again(run, tmp_path, fotw):
    run()
    data = tmp_path / "data"
    assert [manifest(data)[name]["drawn"] for name in ("celeba", "fotw")] == [False, False]
    assert not manifests.is_drawn(str(data / "scheme1"), "fotw") and not manifests.is_drawn(str(tmp_path), "fotw")
    facts = manifest(data)["fotw"]["facts"]
    (fotw / "drawn.json").write_text("{}")
    (fotw / "title.txt").write_text("Faces of mine\n")
    _, out, _ = run("--force")
    assert [manifests.title(str(data / "scheme1"), name) for name in ("celeba", "fotw")] == ["CelebA", "Faces of mine"]
    assert [manifest(data)[name]["drawn"] for name in ("celeba", "fotw")] == [False, True]
    assert manifest(data)["fotw"]["facts"] == facts
    assert manifests.is_drawn(str(data / "scheme1"), "fotw") and not manifests.is_drawn(str(data / "scheme1"), "celeba")


def test_lmdbs_of_a_version_that_had_one_a_task_are_replaced(run, tmp_path):
    """CelebA's stay as they are; FotW's are built again, and those that nothing reads any more go."""
    run()
    data = tmp_path / "data"
    celeba = {name: before for name, before in state(data).items() if "celeba" in name}
    for scheme in SCHEMES:
        content = manifest(data, scheme)
        content["fotw"]["images"] = {"fotw_gender_train": 5, "fotw_smile_train": 5, "fotw_gender_val": 3, "fotw_gender_test": 1}
        for name in content["fotw"]["images"]:
            shutil.copytree(data / scheme / "fotw_train", data / scheme / name)
        for name in ("fotw_train", "fotw_train_labels", "fotw_val", "fotw_val_labels"):
            shutil.rmtree(data / scheme / name)
        (data / scheme / "manifest.json").write_text(json.dumps(content))
    assert run()[0] == 0
    after = state(data)
    assert {name: now for name, now in after.items() if "celeba" in name} == celeba
    assert {name.split("/")[1] for name in after if "fotw" in name} == {
        "fotw_train", "fotw_train_labels", "fotw_val", "fotw_val_labels", "fotw_gender_test"}  # no test split was built


def test_one_data_set_after_the_other(run, tmp_path):
    run(datasets=["fotw"])
    assert "celeba" not in manifest(tmp_path / "data")
    run(datasets=["celeba"])
    assert {"celeba", "fotw"} <= set(manifest(tmp_path / "data"))
    assert (tmp_path / "data/scheme1/fotw_val/data.mdb").exists()


def test_crop_test_and_seed_flags(run, tmp_path):
    status, _, _ = run("--crop", "scheme2", "--test", datasets=["celeba"])
    assert status == 0 and len(records(tmp_path / "data/scheme2/celeba_test_labels")) == 2
    assert not (tmp_path / "data/scheme1").exists()
    first = [key for key, _ in records(tmp_path / "data/scheme2/celeba_train")]
    run("--crop", "scheme2", "--seed", "9", datasets=["celeba"])
    second = [key for key, _ in records(tmp_path / "data/scheme2/celeba_train")]
    assert first != second and sorted(key[9:] for key in first) == sorted(key[9:] for key in second)


def test_bad_images_are_counted_and_named(run, tmp_path, celeba, fotw, edit):
    """Each kind of damage in one build; what is left of the data sets is built."""
    (celeba / "Img/img_celeba/000002.jpg").write_bytes((celeba / "Img/img_celeba/000003.jpg").read_bytes()[:-60])
    points = "000004.jpg 20 19 28 19 24 24 20 29 28 29"
    edit(celeba / "Anno/list_landmarks_celeba.txt", points, "000004.jpg" + " 24" * 10)
    cv2.imwrite(str(fotw / "smiles_trset/im_GenFex_00001.jpg"), np.zeros((48, 48, 3), np.uint8))
    edit(fotw / "smiles_trset/gender_fex_trset.csv", "00003.jpg,14,14,20,20", "00003.jpg,14,14,0,0")
    (fotw / "smiles_valset/im_GenFex_00008.jpg").unlink()
    status, _, _ = run("--max-lost", "0.5")
    assert status == 0
    entry = manifest(tmp_path / "data")["celeba"]
    assert entry["images"]["celeba_train"] == 6 == entry["images"]["celeba_train_labels"]
    partition = "Eval/list_eval_partition.txt"
    skipped = sorted(entry["skipped"], key=lambda row: row["line"])
    assert [(row["image"], row["file"], row["line"]) for row in skipped] == [
        ("Img/img_celeba/000002.jpg", partition, 2), ("Img/img_celeba/000004.jpg", partition, 4),
    ]
    assert "truncated" in skipped[0]["reason"] and "no extent" in skipped[1]["reason"]
    entry = manifest(tmp_path / "data")["fotw"]
    assert entry["skipped_reasons"] == {
        "image file is missing": 1, "no-face": 1, "bad box: box is empty (0 x 0)": 1,
    }
    assert entry["rows"] == {"train": 6, "val": 3} and entry["unusable_labels"] == {
        "train": {"Gender": 1, "Smile": 1}, "val": {}}
    assert entry["images"]["fotw_train"] == 4 and entry["images"]["fotw_val"] == 2


def test_a_later_failure_moves_no_key(run, tmp_path, celeba):
    run(datasets=["celeba"])
    keys = [key for key, _ in records(tmp_path / "data/scheme1/celeba_train")]
    (celeba / "Img/img_celeba" / keys[3][9:]).write_bytes(b"")
    run("--max-lost", "0.5", "--force", datasets=["celeba"])
    assert [key for key, _ in records(tmp_path / "data/scheme1/celeba_train")] == keys[:3] + keys[4:]


def test_too_many_lost_fails_and_leaves_nothing(run, tmp_path, celeba, fotw):
    (celeba / "Img/img_celeba/000002.jpg").unlink()
    status, _, error = run()
    assert status == 1 and error.count("\n") == 1
    assert "1 of 8 train faces are lost, more than MAX_LOST=0.02 (--max-lost) allows" in error
    assert "1 image file is missing (as Eval/list_eval_partition.txt line 2: 000002.jpg)" in error
    assert not list((tmp_path / "data").rglob("*.mdb")) and not (tmp_path / "data/.building").exists()


def test_a_build_that_stops_for_losses_leaves_the_list_until_one_succeeds(run, tmp_path, celeba, edit):
    edit(celeba / "Anno/list_attr_celeba.txt", "000003.jpg -1", "000003.jpg 0")
    path = tmp_path / "data/celeba_lost.csv"
    status, _, error = run(datasets=["celeba"])
    assert status == 1 and error.endswith(f"all are listed in {path}\n")
    assert "1 5_o_Clock_Shadow is 0, not -1 or 1 (as list_attr_celeba.txt line 5: 000003.jpg)" in error
    assert path.read_text().splitlines() == [
        "split,image,file,line,reason",
        'train,000003.jpg,Eval/list_eval_partition.txt,3,"list_attr_celeba.txt line 5: 5_o_Clock_Shadow is 0, not -1 or 1"',
    ]
    assert run("--max-lost", "0.5", datasets=["celeba"])[0] == 0 and not path.exists()


def test_rows_that_are_all_unusable_are_counted_and_explained(run, tmp_path, celeba):
    table = celeba / "Anno/list_landmarks_celeba.txt"
    table.write_text(table.read_text().replace(" ".join(map(str, LANDMARKS.ravel())), " ".join("0" * 10)))
    status, _, error = run("--max-lost", "1", datasets=["celeba"])
    assert status == 1 and "no train face for gender: 8 landmarks have no extent (they lie on one point" in error
    assert re.search(r"\(as Eval/list_eval_partition.txt line (\d): Img/img_celeba/00000\1.jpg\)", error)
    assert "unreadable" not in error
    assert len((tmp_path / "data/celeba_lost.csv").read_text().splitlines()) == 9
    table.write_text(table.read_text().replace(" ".join("0" * 10), "0"))
    status, _, error = run("--max-lost", "1", datasets=["celeba"])
    assert "no train face for gender: 8 1 values instead of 10 (as list_landmarks_celeba.txt line 3: 000001.jpg)" in error


def test_schemes_that_the_aligned_edition_cannot_give_are_warned_of(run, tmp_path, celeba):
    (celeba / "Img/img_celeba").rename(celeba / "Img/img_align_celeba")
    (celeba / "Anno/list_landmarks_celeba.txt").rename(celeba / "Anno/list_landmarks_align_celeba.txt")
    status, out, _ = run(datasets=["celeba"])
    assert status == 0 and out.count("celeba: warning: the photos are of the aligned edition") == 1
    assert "celeba: aligned photos in Img/img_align_celeba, tables Anno/list_attr_celeba.txt, " in out
    warned = {scheme: len(manifest(tmp_path / "data", scheme)["celeba"]["warnings"]) for scheme in SCHEMES}
    assert warned == {"scheme1": 0, "scheme3": 1, "scheme5": 0}
    assert "warning" not in run("--crop", "scheme1", datasets=["celeba"])[1]


def test_loss_while_cropping_counts_too(run, tmp_path, celeba):
    (celeba / "Img/img_celeba/000009.jpg").write_bytes(b"not a photo")
    status, _, error = run()
    assert status == 1 and "1 of 2 val faces are lost" in error and "unreadable" in error
    assert not list((tmp_path / "data").rglob("*.mdb"))


def test_a_split_without_a_usable_face_fails(run, fotw, edit):
    table = fotw / "smiles_valset/gender_fex_valset.csv"
    table.write_text(table.read_text().replace("20,20,0", "20,20,2").replace("20,20,1", "20,20,2"))
    status, _, error = run()
    assert status == 1 and "no val face for gender: " in error


def test_the_profile_is_the_environments(celeba, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.setenv("PROFILE", "demo")
    assert build.main(["--celeba", str(celeba), "--workers", "1"]) == 0
    (_, datum), *_ = records(tmp_path / "data/demo/scheme1/celeba_train")
    assert datum.height == recipe.DEMO.stored_size and os.listdir(tmp_path / "data") == ["demo"]
    monkeypatch.setenv("PROFILE", "toy")
    with pytest.raises(SystemExit) as stop:
        build.main(["--celeba", str(celeba)])
    assert stop.value.code == 2 and "unknown profile 'toy': paper or demo" in capsys.readouterr().err


@pytest.mark.parametrize("flags, message", [
    ([], "give the folder of at least one data set: --celeba FOLDER, --fotw FOLDER"),
    (["--celeba", "x", "--max-lost", "3"], "--max-lost is a share"),
    (["--celeba", "x", "--crop", "scheme9"], "invalid choice: 'scheme9'"),
    (["--celeba", "x", "--seed", "4294967296"], "not a seed, 0 to 4294967295"),
    (["--celeba", "x", "--workers", "0"], "not a positive number"),
])
def test_wrong_use(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        build.main(flags)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_fatal_mistakes_are_one_line(run, celeba, fotw, edit, tmp_path):
    edit(fotw / "smiles_trset/gender_fex_trset.csv", "Gender", "Sex")
    status, out, error = run()
    assert status == 1 and error.startswith("build: ") and error.count("\n") == 1 and "no column Gender" in error
    assert not list((tmp_path / "data").rglob("*.mdb"))  # CelebA is not built in vain


def test_a_gpu_that_is_not_there_is_one_line(run, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    status, _, error = run("--gpu", "0")
    assert status == 1 and error.count("\n") == 1 and not (tmp_path / "data").exists()
    assert "is a CPU build; install one for your GPU: make setup TORCH=" in error
    assert error.endswith("leave out --gpu (GPU= of make) to find faces on the CPU\n")


def test_a_gpu_finds_the_faces_and_its_memory_may_be_too_small(run, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(build, "_check_gpu", lambda gpu: None)

    class OnGPU(FakeDetector):
        def __init__(self, gpu):
            made.append(gpu)

    monkeypatch.setattr(builder.Settings, "__init__", functools.partialmethod(builder.Settings.__init__, detector=OnGPU))
    status, out, _ = run("--gpu", "1", datasets=("fotw",))
    assert status == 0 and made == [1] and "landmarks made from the photos (9 new)" in out

    def too_small(self, images):
        raise MemoryError("cuda:1 has not enough memory to find faces in 9000 x 9000 pixels")

    monkeypatch.setattr(OnGPU, "detect_all", too_small)
    status, _, error = run("--gpu", "1", "--force", datasets=("fotw",))
    assert status == 1 and error == "build: cuda:1 has not enough memory to find faces in 9000 x 9000 pixels\n"


def test_places_where_nothing_can_be_written_and_files_that_are_not_there_are_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, error = run("--output", str(tmp_path / "file/data"))
    assert (status, error) == (1, f"build: {tmp_path}/file/data: Not a directory\n")
    status, _, error = run("--corrections", str(tmp_path / "corrections.csv"))
    assert status == 1 and error.endswith("corrections.csv: cannot be read (No such file or directory); check the path\n")


def test_a_build_goes_on_when_whoever_reads_its_output_goes_away(celeba, tmp_path, root):
    command = [sys.executable, "-m", "lmdb_builders.build", "--celeba", str(celeba), "--output", str(tmp_path / "data"),
               "--workers", "1"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=root, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0 and "Error" not in done.stderr
    assert (tmp_path / "data" / "scheme3" / "celeba_train" / "data.mdb").exists()
    assert not (tmp_path / "data/.building").exists()


def test_disk_too_small_is_refused_before_writing(run, monkeypatch, tmp_path):
    monkeypatch.setattr(builder.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    status, _, error = run()
    assert status == 1 and "needs about" in error and "ENCODE=jpg" in error
    assert not list((tmp_path / "data").rglob("*.mdb"))


def test_disk_that_fills_leaves_the_old_build(run, monkeypatch, tmp_path):
    run()
    before = {path: path.read_bytes() for path in (tmp_path / "data").rglob("data.mdb")}

    class FullEnvironment:
        def __init__(self, environment):
            self.environment = environment

        def __getattr__(self, name):
            return getattr(self.environment, name)

        def begin(self, write=False):
            raise lmdb.Error("mdb_txn_commit: No space left on device")

    monkeypatch.setattr(lmdb, "open", lambda *a, _open=lmdb.open, **k: FullEnvironment(_open(*a, **k)))
    status, _, error = run("--force")
    assert status == 1 and "the disk is full" in error and error.count("\n") == 1
    assert not (tmp_path / "data/.building").exists()
    assert before == {path: path.read_bytes() for path in (tmp_path / "data").rglob("data.mdb")}


def test_full_disk_while_faces_are_written(run, monkeypatch):
    def full(*arguments):
        raise OSError(28, os.strerror(28), "/data/fotw.csv")

    monkeypatch.setattr(detections.csv, "writer", full)
    status, _, error = run()
    assert status == 1 and error.count("\n") == 1 and "celeba.csv: cannot be written: No space left on device" in error


def test_only_one_build_at_a_time_and_leftovers_go(run, tmp_path):
    from lmdb_builders.files import sole_builder

    leftover = tmp_path / "data/.building/scheme1"
    leftover.mkdir(parents=True)
    with sole_builder(str(tmp_path / "data")):
        assert not leftover.exists()
        status, _, error = run()
    assert status == 1 and "another build is writing there" in error
    assert run()[0] == 0


def test_help_loads_nothing_heavy(root, tmp_path):
    code = (
        "import sys\nfrom lmdb_builders import build\n"
        "try: build.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'cv2', 'numpy', 'lmdb', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--crop" in done.stdout and not list(tmp_path.iterdir())


def test_corrected_labels_are_in_the_lmdb_and_its_manifest(run, tmp_path):
    """Photo 1, 0,0 in the table, becomes female; photo 2's smile is not used any more."""
    path = tmp_path / "corrections.csv"
    path.write_text("image,column,label,correction\nim_GenFex_00001.jpg,Gender,0,1\nim_GenFex_00002.jpg,Smile,1,2\n")

    def labels(task):
        found = records(tmp_path / "data" / "scheme1" / "fotw_train_labels")
        return {key[-9:]: datum.float_data[recipe.DATASETS["fotw"].column(task)] for key, datum in found}

    assert run(datasets=("fotw",))[0] == 0
    plain = {task: labels(task) for task in ("gender", "smile")}
    status, out, _ = run("--corrections", str(path), datasets=("fotw",))
    assert status == 0 and "2 training labels corrected" in out
    assert labels("gender") == {**plain["gender"], "00001.jpg": 1}
    assert labels("smile") == {**plain["smile"], "00002.jpg": recipe.UNUSABLE}
    assert manifest(tmp_path / "data")["fotw"]["corrected_labels"] == {"Gender 0 to 1": 1, "Smile 1 to 2": 1}
