"""crops.py against independent arithmetic: scikit-image's Umeyama fit, and pictures whose crop is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies
from skimage.transform import SimilarityTransform

import recipe
from lmdb_builders.crops import crop_face, crop_matrix
from lmdb_builders.errors import CropError

TEMPLATE = np.array(recipe.FACE_TEMPLATE)


def face(scale=40.0, angle=0.0, x=150.0, y=160.0, noise=0.0, seed=0):
    """Landmarks of a face turned by `angle` (radians, clockwise on the screen)."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return TEMPLATE @ turn.T * scale + (x, y) + np.random.RandomState(seed).randn(5, 2) * noise


def apply(matrix, points):
    return points @ matrix[:, :2].T + matrix[:, 2]


@settings(max_examples=50, deadline=None)
@given(
    scale=strategies.floats(5, 500), angle=strategies.floats(-3, 3), x=strategies.floats(-100, 5000),
    seed=strategies.integers(0, 1000),
)
def test_aligned_fit_is_umeyamas(scale, angle, x, seed):
    landmarks = face(scale, angle, x, noise=scale / 20, seed=seed)
    crop, size = recipe.CROPS["scheme1"], 224
    reference = SimilarityTransform.from_estimate(TEMPLATE, landmarks)
    window = (np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]]) * crop.side + crop.center)
    corners = apply(crop_matrix(landmarks, crop, size), reference(window))
    edge = size - 0.5
    assert np.allclose(corners, [(-0.5, -0.5), (edge, -0.5), (edge, edge), (-0.5, edge)], atol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 0.4, -2.0])
def test_not_aligned_keeps_axes_scale_and_origin(angle):
    landmarks = face(angle=angle, noise=2)
    upright = crop_matrix(landmarks, recipe.CROPS["scheme1"], 100)
    plain = crop_matrix(landmarks, recipe.CROPS["scheme2"], 100)
    assert plain[0, 1] == plain[1, 0] == 0 and plain[0, 0] == plain[1, 1] > 0
    assert np.hypot(upright[0, 0], upright[0, 1]) == pytest.approx(plain[0, 0])
    origin = np.array(SimilarityTransform.from_estimate(TEMPLATE, landmarks)([[0, 0]]))
    assert np.allclose(apply(upright, origin), apply(plain, origin), atol=1e-6)


def test_schemes_one_and_two_differ_in_alignment_only():
    one, two = recipe.CROPS["scheme1"], recipe.CROPS["scheme2"]
    assert (one.center, one.side) == (two.center, two.side) and one.aligned and not two.aligned
    upright = TEMPLATE * 50 + 200
    assert np.allclose(crop_matrix(upright, one, 224), crop_matrix(upright, two, 224), atol=1e-6)


@pytest.mark.parametrize("name", recipe.CROPS)
@pytest.mark.parametrize("size", [64, 224, 15])  # 15: fewer pixels than the photo has there, by a factor of about 8
def test_pixels_come_from_where_the_matrix_says(name, size):
    """A picture that is linear in x and y: bilinear samples and their means reproduce it up to rounding."""
    y, x = np.mgrid[0:256, 0:256]
    picture = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    landmarks = face(scale=41.3, angle=0.3, x=128.4, y=127.7)
    crop = recipe.CROPS[name]
    v, u = np.mgrid[0:size, 0:size]
    matrix = crop_matrix(landmarks, crop, size)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    back = apply(inverse, np.stack([u, v], axis=-1).reshape(-1, 2)).reshape(size, size, 2)
    margin = 1 / np.hypot(*matrix[0, :2])  # a pixel's own extent must lie in the photo too
    inside = ((back > margin) & (back < 255 - margin)).all(axis=-1)
    assert inside.mean() > 0.6
    expected = np.stack([back[..., 0], back[..., 1], 255 - back[..., 0]], axis=-1)
    found = crop_face(picture, landmarks, crop, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8
    error = (found - expected)[inside]
    assert np.abs(error).max() < 1.1
    shift = (error[:, 0] - error[:, 2]).mean() / 2  # brightness rounded up is the same in x and 255 - x, a shift is not
    assert abs(shift) < 0.05 * margin  # photo pixels in a crop pixel


def test_shrinking_does_not_alias():
    """One-pixel stripes, shrunk by 6: their mean, gray, everywhere. Plain bilinear sampling gives stripes again."""
    picture = np.zeros((600, 600, 3), np.uint8)
    picture[:, ::2] = 255
    crop = crop_face(picture, face(scale=100, angle=0.2, x=300, y=300), recipe.CROPS["scheme1"], 43)
    assert np.abs(crop.astype(int) - 127).max() < 16 and crop.std() < 4


def test_no_interpolation_where_pixels_coincide():
    crop = recipe.Crop("plain", True, (0.0, 0.0), 2.0, "one photo pixel a crop pixel")
    picture = np.random.RandomState(0).randint(0, 256, (80, 80, 3), np.uint8)
    landmarks = TEMPLATE * 20 + 39.5  # origin between four pixels, 40 pixels a window
    assert np.array_equal(crop_face(picture, landmarks, crop, 40), picture[20:60, 20:60])


def test_outside_the_photo_its_edge_is_repeated():
    picture = np.zeros((50, 50, 3), np.uint8)
    picture[:, 0] = (10, 20, 30)
    crop = crop_face(picture, face(scale=20, x=-60, y=25), recipe.CROPS["scheme4"], 32)
    assert np.array_equal(crop, np.broadcast_to(np.array((10, 20, 30), np.uint8), (32, 32, 3)))


@pytest.mark.parametrize("landmarks", [
    np.full((5, 2), 7.0), TEMPLATE * np.nan, np.where(TEMPLATE > 0, np.inf, TEMPLATE), TEMPLATE[:4], TEMPLATE * 0.5,
])
def test_impossible_landmarks_are_refused(landmarks):
    with pytest.raises(CropError):
        crop_matrix(landmarks, recipe.CROPS["scheme1"], 64)


def test_absurd_landmarks_cost_no_memory():
    """A face of a hundred thousand pixels in a small photo, as a broken table may say."""
    crop = crop_face(np.full((20, 20, 3), 9, np.uint8), face(scale=1e5), recipe.CROPS["scheme4"], 64)
    assert (crop == 9).all()
