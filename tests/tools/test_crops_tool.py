"""tools/crops.py: Figure 3 for a photo, by a detector that always sees the same face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

import detector
import recipe
from lmdb_builders.crops import crop_face
from tools import crops

LANDMARKS = np.array(recipe.FACE_TEMPLATE, np.float32) * 30 + 100


class OneFace:
    def detect(self, image):
        return [detector.Face((60, 60, 80, 80), 0.99, LANDMARKS)] if image.any() else []


@pytest.fixture
def photo(tmp_path, monkeypatch):
    monkeypatch.setattr(detector, "Detector", OneFace)
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    y, x = np.mgrid[0:200, 0:200]
    pixels = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    cv2.imwrite("photo.png", pixels)
    return pixels


def test_the_crops_are_drawn_pixel_for_pixel(photo, capsys):
    assert crops.main(["photo.png", "--size", "64"]) == 0
    assert capsys.readouterr().out.endswith("runs/pictures/photo_crops.png\n")
    picture = cv2.imread("runs/pictures/photo_crops.png")
    gap = 4
    assert picture.shape[1] == 6 * (64 + gap) + gap
    for number, crop in enumerate(recipe.CROPS.values(), 1):
        expected = crop_face(photo, LANDMARKS, crop, 64)
        left = gap + number * (64 + gap)
        drawn = picture[gap : gap + 64, left : left + 64]
        assert np.abs(drawn.astype(int) - expected).max() <= 2, crop.name


def test_a_sheet_is_drawn_at_random_and_again_the_same(photo, tmp_path, capsys):
    """Five photos of other colors, one without a face: four rows, the pixels of each crop, captions below the last."""
    folder = tmp_path / "photos" / "inner"
    folder.mkdir(parents=True)
    colors = [photo // divisor + 40 for divisor in (1, 2, 3, 4)]
    for number, pixels in enumerate(colors):
        cv2.imwrite(str(folder / f"{number}.png"), pixels)
    cv2.imwrite(str(folder / "black.png"), np.zeros((50, 50, 3), np.uint8))
    (folder / "notes.txt").write_text("no photo")
    assert crops.main(["--folder", "photos", "--count", "4", "--size", "64", "--seed", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.out.endswith("runs/pictures/photos_crops.png\n")
    first, gap = cv2.imread("runs/pictures/photos_crops.png"), 4
    assert first.shape[:2] == (4 * (64 + gap) + gap + 24, 6 * (64 + gap) + gap)
    crop = recipe.CROPS["scheme3"]
    left = gap + 3 * (64 + gap)
    rows = [first[top:top + 64, left:left + 64].astype(int) for top in range(gap, 4 * (64 + gap), 64 + gap)]
    order = [next(number for number, pixels in enumerate(colors)
                  if np.abs(row - crop_face(pixels, LANDMARKS, crop, 64)).max() <= 2) for row in rows]
    assert sorted(order) == [0, 1, 2, 3]
    orders = []
    for seed in ("3", "4"):
        assert crops.main(["--folder", "photos", "--count", "4", "--size", "64", "--seed", seed]) == 0
        orders.append(cv2.imread("runs/pictures/photos_crops.png"))
    assert np.array_equal(orders[0], first) and not np.array_equal(orders[1], first)
    assert crops.main(["--folder", "photos", "--count", "5", "--size", "64"]) == 0
    assert "black.png: no face found: another photo is drawn" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert crops.main(["--folder", "empty"]) == 1 and "no photo with a face" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        crops.main(["--folder", "nowhere"])
    assert stop.value.code == 2 and "nowhere: no such folder" in capsys.readouterr().err


def test_no_face_unreadable_and_wrong_use(photo, capsys):
    cv2.imwrite("black.png", np.zeros((50, 50, 3), np.uint8))
    assert crops.main(["black.png"]) == 1 and "black.png: no face found" in capsys.readouterr().err
    assert crops.main(["none.png"]) == 1 and "none.png: file is missing" in capsys.readouterr().err
    assert crops.main(["photo.png", "--output", "nowhere/out.png"]) == 2
    assert crops.main(["photo.png", "--output", "out.docx"]) == 2
    for flags in (["--output", "photo.png"], ["--size", "3"], ["--folder", "photos"], ["--count", "0"]):
        with pytest.raises(SystemExit) as stop:
            crops.main(["photo.png", *flags])
        assert stop.value.code == 2
