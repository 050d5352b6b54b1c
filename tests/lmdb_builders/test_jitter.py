"""Changed copies of training faces: what is changed, that it is the same everywhere, and how they lie in the LMDBs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from fake_detector import LANDMARKS, FakeDetector

import recipe
from gender_smile.evaluation import faces
from lmdb_builders import builder, jitter
from lmdb_builders.builder import Settings, build_dataset
from lmdb_builders.celeba import read_celeba
from lmdb_builders.crops import crop_face
from lmdb_builders.fotw import read_fotw
from lmdb_builders.jitter import Jitter
from test_lmdb_build import records

PLAIN = Jitter(turn=0.0, factor=1.0, shift=(0.0, 0.0), gains=(1.0, 1.0, 1.0), offset=0.0, gray=False, shrink=1.0)


def photo(random, side=64):
    """Smooth patches of full contrast."""
    smooth = cv2.GaussianBlur(random.random((side, side, 3)), (0, 0), 1.5)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def test_a_copy_is_the_same_for_the_same_photo_number_and_seed_only():
    assert Jitter.draw("a.jpg", 1, 7) == Jitter.draw("a.jpg", 1, 7)
    others = {Jitter.draw(image, copy, seed) for image, copy, seed in
              (("a.jpg", 1, 7), ("b.jpg", 1, 7), ("a.jpg", 2, 7), ("a.jpg", 1, 8))}
    assert len(others) == 4


def test_extents_are_kept_and_reached():
    drawn = [Jitter.draw(f"{number}.jpg", 1, 0) for number in range(2000)]
    for values, most in (([one.turn for one in drawn], jitter.TURN), ([np.log(one.factor) for one in drawn], jitter.SIZE),
                         ([one.shift[0] for one in drawn], jitter.SHIFT), ([one.shift[1] for one in drawn], jitter.SHIFT),
                         ([one.offset for one in drawn], jitter.OFFSET)):
        assert 0.95 * most < max(values) <= most and -most <= min(values) < -0.95 * most
    for share, expected in ((np.mean([one.gray for one in drawn]), jitter.GRAY),
                            (np.mean([one.shrink > 1 for one in drawn]), jitter.BLUR)):
        assert abs(share - expected) < 4 * np.sqrt(expected * (1 - expected) / len(drawn))


def test_turn_and_size_are_opencvs():
    """OpenCV turns counterclockwise for positive angles, with y down; ours is the mathematical angle in pixels."""
    change = replace(PLAIN, turn=9.0, factor=1.1)
    assert np.allclose(change.motion(64), cv2.getRotationMatrix2D((31.5, 31.5), -9.0, 1.1))
    assert np.allclose(replace(PLAIN, shift=(0.05, -0.02)).motion(50), [[1, 0, 2.5], [0, 1, -1.0]])


def test_a_crop_is_moved_as_the_motion_says():
    random = np.random.default_rng(3)
    image, crop = photo(random), recipe.CROPS["scheme1"]
    # At this size a pixel of the crop is more than one of the photo: one interpolation, as OpenCV's warp of the crop is.
    still, size = crop_face(image, LANDMARKS, crop, 64), 64
    motion = replace(PLAIN, turn=10.0, factor=1.05, shift=(0.03, -0.04)).motion(size)
    moved = crop_face(image, LANDMARKS, crop, size, motion)
    expected = cv2.warpAffine(still, motion, (size, size), flags=cv2.INTER_LINEAR)
    inside = (slice(16, 48), slice(16, 48))
    assert np.abs(moved[inside].astype(int) - expected[inside]).mean() < 5
    assert np.abs(moved[inside].astype(int) - still[inside]).mean() > 15
    assert np.array_equal(crop_face(image, LANDMARKS, crop, size, PLAIN.motion(size)), still)


def test_light_gray_and_blur():
    crop = photo(np.random.default_rng(5))
    assert np.array_equal(PLAIN.develop(crop), crop)
    brighter = replace(PLAIN, offset=10.0).develop(crop)
    assert np.array_equal(brighter, np.minimum(crop.astype(int) + 10, 255))
    red = replace(PLAIN, gains=(1.0, 1.0, 1.2)).develop(crop)
    assert np.array_equal(red[..., :2], crop[..., :2])
    assert np.array_equal(red[..., 2], np.clip(np.rint((crop[..., 2] - np.float32(128)) * np.float32(1.2) + 128), 0, 255))
    gray = replace(PLAIN, gray=True).develop(crop)
    assert np.array_equal(gray, cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR))
    blurred = replace(PLAIN, shrink=2.5).develop(crop)
    assert cv2.Laplacian(blurred, cv2.CV_64F).var() < 0.5 * cv2.Laplacian(crop, cv2.CV_64F).var()
    assert blurred.shape == crop.shape and blurred.dtype == np.uint8


@pytest.fixture
def build(celeba, fotw, tmp_path):
    """build(copies) builds both data sets' LMDBs of scheme 1 and returns (their folder, what was said)."""
    def run(copies):
        said: list = []
        output = tmp_path / "data"
        output.mkdir(exist_ok=True)
        settings = Settings(profile=replace(recipe.DEMO, copies=copies), crops=("scheme1",), output=str(output),
                            detector=FakeDetector, say=said.append)
        for dataset in (read_celeba(celeba), read_fotw(fotw)):
            build_dataset(dataset, settings, str(tmp_path / "staging"))
        return output / "scheme1", said

    return run


def test_copies_lie_behind_the_faces_and_only_in_training(build, celeba):
    folder, _ = build(0)
    plain = {path.name: records(path) for path in folder.iterdir() if path.is_dir()}
    folder, said = build(2)
    assert not any("complete" in text for text in said)
    for name, before in plain.items():
        now = records(folder / name)
        if "_val" in name:
            assert now == before
            continue
        assert now[:len(before)] == before and len(now) == 3 * len(before)
        assert [key[8:] for key, _ in now] == 3 * [key[8:] for key, _ in before]
        assert [key for key, _ in now] == sorted({key for key, _ in now})
        assert [datum.label for _, datum in now] == 3 * [datum.label for _, datum in before]
    for name in ("celeba_train", "fotw_train"):  # who looks at faces gets each once, as itself
        seen = list(faces.read_lmdb(str(folder / name)))
        assert [image for image, _, _ in seen] == [key.split("_", 1)[1] for key, _ in plain[name]]
        assert [crop.transpose(2, 0, 1).tobytes() for _, _, crop in seen] == [datum.data for _, datum in plain[name]]
    assert len(faces.read_labels(str(folder / "celeba_train_labels"))) == 8
    pixels = [datum.data for _, datum in records(folder / "celeba_train")]
    assert len(set(pixels)) == len(pixels)
    keys = {name: [key for key, _ in records(folder / name)] for name in ("celeba_train", "celeba_train_labels")}
    assert keys["celeba_train"] == keys["celeba_train_labels"]
    change = Jitter.draw("Img/img_celeba/" + keys["celeba_train"][8].split("_", 1)[1], 1, 2016)
    image = cv2.imread(str(celeba / "Img/img_celeba" / keys["celeba_train"][8].split("_", 1)[1]))
    crop = change.develop(crop_face(image, LANDMARKS, recipe.CROPS["scheme1"], 64, change.motion(64)))
    assert np.array_equal(np.frombuffer(pixels[8], np.uint8).reshape(3, 64, 64), crop.transpose(2, 0, 1))
    _, said = build(2)
    assert sum("complete" in text for text in said) == 2


def test_a_photo_that_cannot_be_read_is_lost_once(build, celeba, monkeypatch):
    (celeba / "Img/img_celeba/000003.jpg").write_bytes(b"")
    monkeypatch.setattr(builder, "check_lost", lambda *arguments: None)
    folder, _ = build(2)
    manifest = builder.manifest.read_entry(str(folder), "celeba")
    assert manifest["images"]["celeba_train"] == 21
    assert sum(entry["image"].endswith("000003.jpg") for entry in manifest["skipped"]) == 1
