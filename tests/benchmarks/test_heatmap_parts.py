"""Where the nets look, over a data set: shares by part, what is grayed, the table and the picture."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

import recipe
from random_nets import write_random_nets
from benchmarks import heatmap_parts
from gender_smile.evaluation import faces


def test_shares_are_of_the_parts_of_the_face_wherever_the_crop_is():
    """One warm row at the height of the mouth, where crop_face puts a mouth."""
    from lmdb_builders.crops import crop_matrix

    stored, size = recipe.DEMO.stored_size, recipe.DEMO.crop_size
    landmarks = np.array(recipe.FACE_TEMPLATE) * 40 + 100
    cheek = landmarks[2] + (0, 0.22 * 40)  # just above where the mouth's part begins
    for part, place in ((0, landmarks[0]), (1, landmarks[2]), (1, cheek), (2, landmarks[3])):
        for key in ("scheme1", "scheme3", "scheme5"):
            _, y = crop_matrix(landmarks, recipe.CROPS[key], stored) @ (*place, 1) - (stored - size) // 2
            if not 0 <= round(y) < size:
                continue  # scheme 5 shows no eyes
            heat = np.zeros((size, size), np.float32)
            heat[round(y)] = 1
            shares = heatmap_parts.share_by_part(heat, recipe.CROPS[key], stored)
            assert [share for share, _ in shares] == [float(index == part) for index in range(3)], (part, key)
            assert sum(area for _, area in shares) == pytest.approx(1)


def test_shares_where_nothing_is_warm():
    shares = heatmap_parts.share_by_part(np.zeros((56, 56), np.float32), recipe.CROPS["scheme3"], 64)
    assert [share for share, _ in shares] == [0, 0, 0]


def test_an_lmdb_without_faces(monkeypatch, capsys):
    monkeypatch.setattr(faces, "validation_lmdb", lambda profile, net: "data/demo/empty")
    monkeypatch.setattr(faces, "read_lmdb", lambda folder: iter([]))
    assert heatmap_parts.main(["--profile", "demo"]) == 2
    assert "data/demo/empty holds no faces" in capsys.readouterr().err


def test_the_warmest_fifth_of_what_the_net_sees_is_grayed():
    crop = np.full((64, 64, 3), 7, np.uint8)
    heat = np.zeros((56, 56), np.float32)
    heat[:, 50:] = np.linspace(1, 2, 6)
    heat[:, 40:50] = 0.5
    changed = (heatmap_parts.gray_out(crop, heat) != crop).any(axis=2)
    assert changed.sum() == round(0.2 * 56 * 56) and changed[4:60, 54:60].all() and not changed[:, 60:].any()
    assert (crop == 7).all()


def test_the_report(tmp_path, root, monkeypatch, capsys):
    monkeypatch.setenv("GLOG_minloglevel", "2")
    monkeypatch.setattr(recipe, "ROOT", str(tmp_path))
    shutil.copytree(root / "prototxt" / "demo", tmp_path / "prototxt" / "demo")
    random = np.random.RandomState(1)
    crops = random.randint(0, 256, (3, 64, 64, 3)).astype(np.uint8)
    monkeypatch.setattr(faces, "read_lmdb", lambda folder: iter([("a", 0, crop) for crop in crops]))
    assert heatmap_parts.main(["--profile", "demo"]) == 2
    assert "step4_gnet.caffemodel is missing: make step4 NET=gnet PROFILE=demo" in no_lmdb(capsys, monkeypatch)
    write_random_nets()
    assert heatmap_parts.main(["--profile", "demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| GNet", "| SNet1", "| SNet2"]
    assert lines[0].count("|") == lines[2].count("|") and "nan" not in "".join(lines)
    assert Image.open(tmp_path / "runs" / "demo" / "heat.png").size == (900, 330)


def no_lmdb(capsys, monkeypatch) -> str:
    """What is said without LMDBs, then, with LMDBs that are there, without weights."""
    assert "make lmdb CROP=scheme3 PROFILE=demo" in capsys.readouterr().err
    monkeypatch.setattr(faces, "validation_lmdb", lambda profile, net: "")
    assert heatmap_parts.main(["--profile", "demo"]) == 2
    return capsys.readouterr().err
