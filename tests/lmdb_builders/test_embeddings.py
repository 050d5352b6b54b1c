"""A teacher's embeddings of LMDBs' faces: which face's, how they are scaled, when they are made again; the teacher itself."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import lmdb
import numpy as np
import pytest
from fake_detector import LANDMARKS, FakeDetector

import recipe
from lmdb_builders import build, builder, embeddings
from lmdb_builders.crops import fit_face
from lmdb_builders.errors import BuildError
from torchcaffe.proto import caffe_pb2

NUMBERS = recipe.DLIB.numbers + recipe.SHAPE


class FakeTeacher:
    """Its numbers tell which photo was given: the mean of its red channel, and noise that the photo decides."""

    calls = 0

    def embed(self, photo, landmarks):
        FakeTeacher.calls += 1
        red = photo[:, :, 2].mean()
        return np.random.default_rng(int(red * 1e6)).normal(size=recipe.DLIB.numbers) + red


@pytest.fixture
def small(celeba, fotw, tmp_path, monkeypatch):
    """Root of a project with profile small's LMDBs, two changed copies a face, and a fake teacher."""
    original = builder.Settings.__init__
    monkeypatch.setattr(builder.Settings, "__init__",
                        lambda self, *args, **options: original(self, *args, **{"detector": FakeDetector, **options}))
    profile = replace(recipe.SMALL, copies=2)
    monkeypatch.setitem(recipe.PROFILES, "small", profile)
    monkeypatch.setattr(embeddings, "_teacher", FakeTeacher)
    folders = ["--celeba", str(celeba), "--fotw", str(fotw), "--output", str(tmp_path / "data/small"), "--crop", "scheme3"]
    assert build.main(["--profile", "small", "--workers", "1", *folders]) == 0
    FakeTeacher.calls = 0
    return tmp_path, profile


def records(folder):
    with lmdb.open(str(folder), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return [(bytes(key), caffe_pb2.Datum.FromString(bytes(value))) for key, value in transaction.cursor()]


def test_every_face_and_copy_has_its_photos_numbers(small, celeba, fotw):
    root, profile = small
    assert embeddings.write_embeddings(profile, root=str(root), say=lambda line: None) == 0
    folder, raw, stored = root / "data/small/scheme3", {}, {}
    for name, split in (("celeba", "train"), ("celeba", "val"), ("fotw", "train"), ("fotw", "val")):
        faces = records(folder / f"{name}_{split}")
        found = records(folder / f"{name}_{split}_embeddings")
        assert [key for key, _ in faces] == [key for key, _ in found]  # the Data layers of faces and labels go in step
        assert len(faces) == len({key[9:] for key, _ in faces}) * (3 if split == "train" else 1)
        for key, datum in found:
            assert (datum.channels, datum.height, datum.width, len(datum.float_data)) == (NUMBERS, 1, 1, NUMBERS)
            (path,) = {"celeba": celeba, "fotw": fotw}[name].rglob(key[9:].decode())
            raw[name, split, key] = FakeTeacher().embed(cv2.imread(str(path)), LANDMARKS)
            stored[name, split, key] = np.array(datum.float_data)[:recipe.DLIB.numbers]
    trained = {(name, key[9:]): raw[name, split, key] for name, split, key in raw if split == "train"}  # each photo once
    mean, spread = np.mean(list(trained.values()), axis=0), np.std(list(trained.values()), axis=0)
    for place, numbers in stored.items():
        np.testing.assert_allclose(numbers, (raw[place] - mean) / spread, atol=1e-4)


def test_a_photo_is_embedded_once_and_kept_for_other_crops_and_copies(small):
    root, profile = small
    said = []
    embeddings.write_embeddings(profile, root=str(root), say=said.append)
    assert FakeTeacher.calls == 8 + 2 + 6 + 3
    embeddings.write_embeddings(profile, root=str(root), say=said.append)
    assert FakeTeacher.calls == 19 and "FORCE=1" in said[-1]
    manifest = root / "data/small/scheme3/manifest.json"
    content = json.loads(manifest.read_text())
    content["celeba"]["facts"]["copies"] = 5  # as a build with more copies leaves it
    manifest.write_text(json.dumps(content))
    embeddings.write_embeddings(profile, root=str(root), say=said.append)
    assert FakeTeacher.calls == 19 and "19 photos" in said[-1]
    path = root / "data/small/detections/fotw_embeddings.npz"
    kept = embeddings.kept_vectors(str(path))
    gone = sorted(kept)[0]
    np.savez(path, images=[name for name in kept if name != gone], landmarks=[kept[name][0] for name in kept if name != gone], vectors=[kept[name][1] for name in kept if name != gone])
    content["fotw"]["facts"]["copies"] = 6
    manifest.write_text(json.dumps(content))
    embeddings.write_embeddings(profile, root=str(root), say=said.append)
    assert FakeTeacher.calls == 20 and sorted(embeddings.kept_vectors(str(path))) == sorted(kept)  # only the missing one
    embeddings.write_embeddings(profile, force=True, root=str(root), say=said.append)
    assert FakeTeacher.calls == 39


def test_shape_is_the_same_for_a_mirrored_turned_and_larger_face():
    points = 40 * (np.array(recipe.FACE_TEMPLATE) + np.random.default_rng(0).normal(0, 0.03, (5, 2)))
    mirrored = (points * (-1, 1))[[1, 0, 2, 4, 3]]
    angle = 0.4
    turned = 1.7 * mirrored @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) + (200, 90)
    # The template is not quite symmetric, and fit_face turns a face onto it.
    np.testing.assert_allclose(embeddings.shape(turned), embeddings.shape(points), atol=5e-3)
    wider = points.copy()
    wider[3:, 0] *= 1.2  # the corners of the mouth go apart
    assert embeddings.shape(wider)[3] > embeddings.shape(points)[3] + 0.03


def test_what_is_missing_is_one_line(small, tmp_path, capsys, monkeypatch):
    root, profile = small
    with pytest.raises(BuildError, match="make lmdb CROP=scheme3 PROFILE=small"):
        embeddings.write_embeddings(profile, root=str(tmp_path / "elsewhere"))
    with pytest.raises(SystemExit):
        embeddings.main(["--profile", "paper"])
    assert "profile paper has no teacher" in capsys.readouterr().err
    photo = next((root / "CelebA").rglob("000003.jpg"))
    photo.unlink()
    with pytest.raises(BuildError, match="000003.jpg.*make lmdb"):
        embeddings.write_embeddings(profile, root=str(root))
    assert not list((root / "data/small").rglob("*_embeddings*"))


def test_the_teacher_knows_a_person_again(photos):
    """dlib itself, where `make embeddings` has installed it: the astronaut, and her mirrored and brighter photo."""
    pytest.importorskip("dlib", reason="dlib is not installed: make embeddings PROFILE=small installs it")
    from lmdb_builders.teacher import Dlib

    photo, landmarks = photos
    teacher = Dlib()
    numbers = teacher.embed(photo, landmarks)
    mirrored = np.column_stack([photo.shape[1] - 1 - landmarks[:, 0], landmarks[:, 1]])[[1, 0, 2, 4, 3]]
    again = teacher.embed(np.ascontiguousarray(photo[:, ::-1]), mirrored)
    brighter = teacher.embed(cv2.convertScaleAbs(photo, alpha=1.2, beta=10), landmarks)
    assert numbers.shape == (recipe.DLIB.numbers,) and abs(fit_face(landmarks)[0]) > 20
    assert np.linalg.norm(numbers - again) < 0.4 and np.linalg.norm(numbers - brighter) < 0.4  # 0.6: another person


@pytest.fixture
def photos():
    """(the astronaut's photo, her landmarks), by eye."""
    from skimage import data

    points = np.array([(196, 107), (246, 103), (222, 132), (206, 159), (246, 156)], float)
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1]), points
