import numpy as np
import pytest

from detector import Face, iou, nearest_to_box, nearest_to_center


def face(x, y, side):
    return Face((x, y, side, side), 0.9, np.zeros((5, 2), np.float32))


def test_overlap_is_intersection_over_union():
    assert iou((0, 0, 10, 10), (0, 0, 10, 10)) == 1
    assert iou((0, 0, 10, 10), (5, 0, 10, 10)) == pytest.approx(50 / 150)
    assert iou((0, 0, 10, 10), (10, 0, 10, 10)) == 0


def test_nearest_to_a_box_is_the_one_that_covers_it():
    inside, covering = face(45, 45, 10), face(10, 5, 85)
    assert nearest_to_box([inside, covering], (0, 0, 100, 100)) is covering


def test_nearest_to_a_box_without_overlap_goes_by_centers():
    far, near = face(300, 0, 10), face(120, 0, 10)
    assert nearest_to_box([far, near], (0, 0, 100, 100)) is near


def test_nearest_to_the_center_takes_the_shape_height_first():
    right, low = face(80, 20, 20), face(15, 90, 20)
    assert nearest_to_center([right, low], (60, 180, 3)) is right
    assert nearest_to_center([right, low], (200, 50, 3)) is low


def test_no_face_is_none():
    assert nearest_to_box([], (0, 0, 1, 1)) is None
    assert nearest_to_center([], (10, 10, 3)) is None
