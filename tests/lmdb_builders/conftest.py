"""Small data sets in the two layouts, written for each test, with photos whose pixels tell which one they are."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from fake_detector import LANDMARKS, SIDE

import recipe


def photo(number: int) -> np.ndarray:
    """A smooth photo, different for each number."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x * 4, y * 4, np.full_like(x, 10 + number % 200)], axis=-1).astype(np.uint8)


@pytest.fixture(autouse=True)
def no_folders_from_the_environment(monkeypatch):
    """Data sets of whoever runs the tests are not built."""
    for data_set in recipe.DATASETS.values():
        monkeypatch.delenv(data_set.variable, raising=False)


@pytest.fixture
def celeba(tmp_path):
    """CelebA in the wild: 12 photos; partition 0 for the first eight, then two of 1, two of 2."""
    root = tmp_path / "CelebA"
    for folder in ("Img/img_celeba", "Anno", "Eval"):
        (root / folder).mkdir(parents=True)
    names = [f"{number:06d}.jpg" for number in range(1, 13)]
    for number, name in enumerate(names):
        cv2.imwrite(str(root / "Img/img_celeba" / name), photo(number))
    points = " ".join(str(value) for value in LANDMARKS.ravel())
    header = "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
    write(root / "Anno/list_landmarks_celeba.txt", ["12", header, *(f"{name} {points}" for name in names)])
    boxes = (f"{name}    12   12  24   24" for name in names)
    write(root / "Anno/list_bbox_celeba.txt", ["12", "image_id x_1 y_1 width height", *boxes])
    rows = [f"{name} " + " ".join(celeba_values(number)) for number, name in enumerate(names)]
    write(root / "Anno/list_attr_celeba.txt", ["12", " ".join(recipe.CELEBA_ATTRIBUTES) + " ", *rows])
    parts = [0] * 8 + [1] * 2 + [2] * 2
    write(root / "Eval/list_eval_partition.txt", [f"{name} {part}" for name, part in zip(names, parts)])
    return root


def celeba_values(number: int) -> list:
    """Attribute values of photo `number`: a pattern that differs from attribute to attribute."""
    return ["1" if (number + position) % 3 == 0 else "-1" for position in range(len(recipe.CELEBA_ATTRIBUTES))]


@pytest.fixture
def fotw(tmp_path):
    """FotW: six training and three validation photos, the header and line ends of the real files."""
    root = tmp_path / "FotW"
    header = "image_name, bbox_x, bbox_y, bbox_width, bbox_height, Gender, Smile"
    number = 0
    for folder, table, labels in (
        ("smiles_trset", "gender_fex_trset.csv", ("0,0", "1,1", "0,1", "1,0", "2,1", "0,2")),
        ("smiles_valset", "gender_fex_valset.csv", ("1,1", "0,0", "0,1")),
    ):
        (root / folder).mkdir(parents=True)
        rows = []
        for label in labels:
            number += 1
            name = f"im_GenFex_{number:05d}.jpg"
            cv2.imwrite(str(root / folder / name), photo(100 + number))
            rows.append(f"{name},14,14,20,20,{label}")
        write(root / folder / table, [header, *rows], end="\r\n")
    return root


def write(path, lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())


@pytest.fixture
def edit():
    """edit(path, old, new): replace text of a file, once; fails where the text is not there."""

    def replace(path, old, new):
        text = path.read_bytes()
        assert old.encode() in text
        path.write_bytes(text.replace(old.encode(), new.encode(), 1))

    return replace
