"""detections.py: the file's rows, going on after a stop, a user's own file."""

from __future__ import annotations

import csv
import multiprocessing

import cv2
import numpy as np
import pytest

from fake_detector import FailingDetector, FakeDetector
from lmdb_builders import detections
from lmdb_builders.celeba import read_celeba
from lmdb_builders.detections import COLUMNS, OK, detect, read_detections
from lmdb_builders.errors import BuildError
from lmdb_builders.fotw import read_fotw


def never():
    raise AssertionError("the detector was made although nothing is left to find")


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_face_at_the_box_is_chosen(fotw, tmp_path):
    path = tmp_path / "found/fotw.csv"
    found, _ = detect(read_fotw(fotw), str(path), use_dataset=False, factory=FakeDetector)
    assert list(found) == [row["image"] for row in rows(path)] and len(found) == 9
    detection = found["smiles_trset/im_GenFex_00002.jpg"]
    assert detection.status == OK and detection.numbers[:5] == (18, 18, 12, 12, 0.9)  # the middle one, not the border's
    assert detection.landmarks.shape == (5, 2) and abs(detection.landmarks.mean() - 24) < 0.1
    assert tuple(rows(path)[0]) == COLUMNS


def test_pool_of_processes_gives_the_same_file(fotw, tmp_path, monkeypatch):
    monkeypatch.setattr(detections, "GROUP", 2)
    dataset = read_fotw(fotw)
    detect(dataset, str(tmp_path / "one.csv"), use_dataset=False, factory=FakeDetector)
    detect(dataset, str(tmp_path / "two.csv"), use_dataset=False, workers=2, factory=FakeDetector)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()


@pytest.mark.parametrize("workers", (1, 2))
def test_one_detector_fed_by_reading_processes_gives_the_same_file(fotw, tmp_path, edit, workers):
    """As with a GPU: photos that cannot be used stand first, last and between the others."""
    for number in (1, 3, 9):
        (fotw / f"smiles_{'trset' if number < 7 else 'valset'}/im_GenFex_{number:05d}.jpg").write_bytes(b"")
    edit(fotw / "smiles_trset/gender_fex_trset.csv", "00004.jpg,14,14,20,20", "00004.jpg,14,14,20,-3")
    dataset, taken = read_fotw(fotw), []

    class OneForAll(FakeDetector):
        def detect_all(self, images):
            taken.append(list(images))
            return map(self.detect, taken[-1])

    detect(dataset, str(tmp_path / "one.csv"), use_dataset=False, factory=FakeDetector)
    detect(dataset, str(tmp_path / "gpu.csv"), use_dataset=False, workers=workers, factory=OneForAll, on_gpu=True)
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "gpu.csv").read_bytes()
    assert [len(images) for images in taken] == [5]


def test_processes_that_read_end_with_the_detector(fotw, tmp_path):
    FailingDetector.seen = 0
    with pytest.raises(KeyboardInterrupt) as stop:
        detect(read_fotw(fotw), str(tmp_path / "a.csv"), use_dataset=False, workers=2, factory=FailingDetector, on_gpu=True)
    assert stop.tb is not None and not multiprocessing.active_children()  # although its frames are still there
    assert len(rows(tmp_path / "a.csv")) == 2


def test_testing_takes_the_face_nearest_the_center(celeba, tmp_path, edit):
    edit(celeba / "Anno/list_bbox_celeba.txt", "000011.jpg    12   12  24", "000011.jpg    -6   20  12")
    edit(celeba / "Anno/list_bbox_celeba.txt", "000001.jpg    12   12  24", "000001.jpg    -6   20  12")
    dataset = read_celeba(celeba, splits=("train", "val", "test"))
    found, _ = detect(dataset, str(tmp_path / "a.csv"), use_dataset=False, factory=FakeDetector)
    assert found["Img/img_celeba/000011.jpg"].numbers[0] == 18  # test: the middle one
    assert found["Img/img_celeba/000001.jpg"].numbers[0] == -6  # train: the one at the annotated box


@pytest.mark.parametrize("box, status", [
    ("14,14,0,20", "bad box: box is empty (0 x 20)"),
    ("14,14,20,-3", "bad box: box is empty (20 x -3)"),
    ("48,14,20,20", "bad box: box (48, 14, 20, 20) lies outside the image of 48 x 48"),
    ("-30,14,20,20", "bad box: box (-30, 14, 20, 20) lies outside"),
    ("nan,14,20,20", "bad box: box is not finite"),
    ("40,40,5,5", "no-face: none of the faces found touches the annotated box"),
])
def test_unusable_box(fotw, tmp_path, edit, box, status):
    edit(fotw / "smiles_trset/gender_fex_trset.csv", "00003.jpg,14,14,20,20", f"00003.jpg,{box}")
    found, _ = detect(read_fotw(fotw), str(tmp_path / "a.csv"), use_dataset=False, factory=FakeDetector)
    assert found["smiles_trset/im_GenFex_00003.jpg"].status.startswith(status)
    assert sum(detection.status == OK for detection in found.values()) == 8


def test_unreadable_and_faceless_photos_do_not_stop_it(fotw, tmp_path):
    (fotw / "smiles_trset/im_GenFex_00001.jpg").write_bytes(b"")
    cv2.imwrite(str(fotw / "smiles_trset/im_GenFex_00002.jpg"), np.zeros((48, 48, 3), np.uint8))
    found, _ = detect(read_fotw(fotw), str(tmp_path / "a.csv"), use_dataset=False, factory=FakeDetector)
    assert found["smiles_trset/im_GenFex_00001.jpg"].status == "unreadable: file is empty (0 bytes)"
    assert found["smiles_trset/im_GenFex_00002.jpg"].status == "no-face"
    assert read_detections(str(tmp_path / "a.csv")) == found


def test_photos_that_are_left_out_do_not_mix_up_the_others(fotw, tmp_path, edit):
    """A group's photos reach the detector together, without the unreadable ones and those with a bad box."""
    (fotw / "smiles_trset/im_GenFex_00002.jpg").write_bytes(b"")
    edit(fotw / "smiles_trset/gender_fex_trset.csv", "00004.jpg,14,14,20,20", "00004.jpg,14,14,20,-3")
    cv2.imwrite(str(fotw / "smiles_trset/im_GenFex_00005.jpg"), np.zeros((48, 48, 3), np.uint8))
    found, _ = detect(read_fotw(fotw), str(tmp_path / "a.csv"), use_dataset=False, factory=FakeDetector)
    said = [found[f"smiles_trset/im_GenFex_{number:05d}.jpg"].status.split(":")[0] for number in range(1, 7)]
    assert said == ["ok", "unreadable", "ok", "bad box", "no-face", "ok"]
    assert len(found) == 9 and list(found) == [record.image for record in read_fotw(fotw).records]


def test_a_stopped_run_goes_on(fotw, tmp_path, monkeypatch):
    monkeypatch.setattr(detections, "GROUP", 2)
    dataset, path = read_fotw(fotw), str(tmp_path / "a.csv")
    FailingDetector.seen = 0
    with pytest.raises(KeyboardInterrupt):
        detect(dataset, path, use_dataset=False, factory=FailingDetector)
    assert len(rows(path)) == 2
    with open(path, "a") as file:
        file.write("smiles_trset/im_GenFex_00003.jpg,12.5,1")  # a power cut in the middle of a row
    _, origin = detect(dataset, path, use_dataset=False, factory=FakeDetector)
    assert "7 new" in origin
    detect(dataset, str(tmp_path / "b.csv"), use_dataset=False, factory=FakeDetector)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


def test_a_complete_file_is_read(fotw, tmp_path):
    dataset, path = read_fotw(fotw), str(tmp_path / "a.csv")
    first, _ = detect(dataset, path, use_dataset=False, factory=FakeDetector)
    again, origin = detect(dataset, path, use_dataset=False, factory=never)
    assert again == first and origin.startswith("read from")
    with pytest.raises(AssertionError, match="nothing is left"):
        detect(dataset, path, use_dataset=False, factory=never, force=True)


def test_new_images_are_added_and_changed_boxes_found_again(fotw, tmp_path, edit):
    path = str(tmp_path / "a.csv")
    detect(read_fotw(fotw, ("train",)), path, use_dataset=False, factory=FakeDetector)
    _, origin = detect(read_fotw(fotw), path, use_dataset=False, factory=FakeDetector)
    assert "3 new" in origin and len(rows(path)) == 9
    edit(fotw / "smiles_valset/gender_fex_valset.csv", "14,14", "15,14")
    _, origin = detect(read_fotw(fotw), path, use_dataset=False, factory=FakeDetector)
    assert "9 new" in origin


def test_a_mended_photo_is_tried_again(fotw, tmp_path):
    photo, path = fotw / "smiles_trset/im_GenFex_00001.jpg", str(tmp_path / "a.csv")
    good = photo.read_bytes()
    photo.write_bytes(good[:200])
    detect(read_fotw(fotw), path, use_dataset=False, factory=FakeDetector)
    photo.write_bytes(good)
    found, origin = detect(read_fotw(fotw), path, use_dataset=False, factory=FakeDetector)
    assert "1 new" in origin and found["smiles_trset/im_GenFex_00001.jpg"].status == OK


def test_a_users_file_is_left_alone(fotw, tmp_path):
    dataset, path = read_fotw(fotw), tmp_path / "a.csv"
    detect(dataset, str(path), use_dataset=False, factory=FakeDetector)
    edited = path.read_text().replace(",0.9,", ",0.8,", 1)
    path.write_text(edited)
    found, origin = detect(dataset, str(path), use_dataset=False, factory=never, force=True)
    assert "it is used as it is" in origin and path.read_text() == edited
    assert found["smiles_trset/im_GenFex_00001.jpg"].numbers[4] == 0.8


def test_a_users_file_with_fewer_numbers(tmp_path, fotw):
    """Columns in any order; box and score may be empty; a broken number is that row's problem only."""
    path = tmp_path / "a.csv"
    names = ["status", *COLUMNS[:-1]]
    path.write_text("\n".join([
        ",".join(names),
        "ok,a.jpg,,,,,," + ",".join("1234567890"),
        "ok,b.jpg,,,,,," + ",".join("123x567890"),
        ",c.jpg,,,,,,,,,,,,,,,",
    ]))
    found = read_detections(str(path))
    assert found["a.jpg"].landmarks[1].tolist() == [3, 4]
    assert found["b.jpg"].status == "broken row: line 3 has a value that is not a number"
    assert found["c.jpg"].status == "broken row: line 4 has no status"
    path.write_text("image,x\na.jpg,1\n")
    with pytest.raises(BuildError, match="a.csv: no column y, width"):
        read_detections(str(path))
    path.write_bytes(b"\xff\xfe\xfd")
    with pytest.raises(BuildError, match="a.csv: not a CSV file"):
        read_detections(str(path))


def test_the_data_sets_own_landmarks(celeba, fotw, tmp_path):
    dataset = read_celeba(celeba)
    found, origin = detect(dataset, str(tmp_path / "a.csv"), use_dataset=True, factory=never)
    assert "made from the data set" in origin
    for record in dataset.records:
        assert np.array_equal(found[record.image].landmarks, record.landmarks)
        assert found[record.image].numbers[:5] == (12, 12, 24, 24, None)
    with pytest.raises(BuildError, match="no file of landmarks; take the detector's: LANDMARKS=detector"):
        detect(read_fotw(fotw), str(tmp_path / "b.csv"), use_dataset=True)
    (celeba / "Anno/list_landmarks_celeba.txt").unlink()
    with pytest.raises(BuildError, match="no file of landmarks"):
        detect(read_celeba(celeba), str(tmp_path / "c.csv"), use_dataset=True)
