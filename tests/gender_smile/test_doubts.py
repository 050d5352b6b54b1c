"""What a face looks like, and what that says of its answers."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from detector import Face
from gender_smile.inference.doubts import Look, doubts, look
from pipeline_fakes import LANDMARKS, photo

NOISE = np.random.default_rng(3).integers(0, 256, (100, 100, 3), np.uint8)


def test_measures():
    upright = look(Face((30, 30, 40, 50), 0.9, LANDMARKS), photo(90))
    assert upright == Look(height=50, turn=0.0, tilt=0.0, light=90.0, sharpness=0.0, below=0.0)
    points = LANDMARKS.copy()
    points[2, 0] += 6  # the nose, by a quarter of the 24 pixels between the eyes
    assert look(Face((30, 30, 40, 50), 0.9, points), photo()).turn == pytest.approx(0.25)
    turned = LANDMARKS @ np.array([[0.8, 0.6], [-0.6, 0.8]], np.float32)  # by 36.87 degrees
    found = look(Face((-20, 30, 40, 50), 0.9, turned), photo())
    assert found.tilt == pytest.approx(36.87, abs=0.01) and found.turn == pytest.approx(0, abs=1e-6)
    assert look(Face((70, 60, 40, 50), 0.9, LANDMARKS), photo()).below == pytest.approx(0.2)


def test_sharpness_falls_with_blur_and_hardly_depends_on_contrast_or_size():
    """On a photograph, the astronaut's face."""
    from skimage import data

    pixels = np.ascontiguousarray(data.astronaut()[:, :, ::-1])
    face = Face((179, 59, 89, 115), 0.9, LANDMARKS)
    values = [look(face, cv2.GaussianBlur(pixels, (0, 0), sigma)).sharpness for sigma in (0.5, 2, 4, 8)]
    assert values == sorted(values, reverse=True) and values[0] > 0.1 > 0.03 > values[-1]
    assert look(face, 60 + pixels // 2).sharpness == pytest.approx(look(face, pixels).sharpness, rel=0.1)
    half = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    assert look(Face((89.5, 29.5, 44.5, 57.5), 0.9, LANDMARKS), half).sharpness > 0.1


@pytest.mark.parametrize("box, below", [((200, 30, 40, 50), 0), ((-90, -90, 40, 50), 0), ((30, 30, 0, 0), 0), ((30, 200, 40, 50), 1)])
def test_a_box_outside_the_photo_has_measures(box, below):
    found = look(Face(box, 0.9, LANDMARKS), NOISE)
    assert found.below == below and np.isfinite(found).all()


GOOD = Look(height=100, turn=0.1, tilt=0, light=100, sharpness=0.2, below=0)


@pytest.mark.parametrize("change, expected", [
    ({}, ()),
    ({"height": 15.6}, ("small, 16 pixels high",)),
    ({"sharpness": 0.01, "turn": -0.6}, ("blurred", "turned far")),
    ({"below": 0.25}, ("cut off at the mouth",)),
])
def test_doubts(change, expected):
    assert doubts(GOOD._replace(**change)) == expected
