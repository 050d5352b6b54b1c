import numpy as np
import pytest

from detector import mtcnn as arithmetic


def random_boxes(count, seed, spread=200):
    random = np.random.default_rng(seed)
    corner = random.integers(1, spread, (count, 2))
    boxes = np.concatenate([corner, corner + random.integers(5, 60, (count, 2))], axis=1).astype(float)
    return boxes, (1 + random.permutation(count)) / count


def suppress_one_by_one(boxes, scores, threshold, by_smaller):
    """The textbook's loop."""
    left = sorted(range(len(boxes)), key=lambda index: -scores[index])
    kept = []
    while left:
        best, *rest = left
        kept.append(best)
        left = []
        for other in rest:
            width = min(boxes[best, 2], boxes[other, 2]) - max(boxes[best, 0], boxes[other, 0]) + 1
            height = min(boxes[best, 3], boxes[other, 3]) - max(boxes[best, 1], boxes[other, 1]) + 1
            common = max(width, 0) * max(height, 0)
            areas = [np.prod(boxes[index, 2:] - boxes[index, :2] + 1) for index in (best, other)]
            whole = min(areas) if by_smaller else sum(areas) - common
            if common / whole <= threshold:
                left.append(other)
    return kept


@pytest.mark.parametrize("count, threshold", ((2, 0.5), (30, 0.5), (150, 0.3), (250, 0.7)))
def test_suppression_is_the_greedy_loop(count, threshold):
    boxes, scores = random_boxes(count, seed=count)
    expected = suppress_one_by_one(boxes, scores, threshold, by_smaller=False)
    assert arithmetic.nms(boxes, scores, threshold).tolist() == expected


@pytest.mark.parametrize("count, threshold", ((1, 0.5), (2, 0.1), (30, 0.7), (100, 0.3)))
def test_nested_suppression_is_the_greedy_loop(count, threshold):
    boxes, scores = random_boxes(count, seed=count)
    expected = suppress_one_by_one(boxes, scores, threshold, by_smaller=True)
    assert arithmetic.nms_by_smaller(boxes, scores, threshold).tolist() == expected


def test_a_share_that_equals_the_threshold_stays():
    # 7 of 10 pixels: exactly 0.7, which as float32 is a little less.
    boxes = np.array([[1, 1, 10, 1], [1, 1, 7, 1]], float)
    assert arithmetic.nms(boxes, np.array([0.9, 0.8]), 0.7).tolist() == [0, 1]
    assert arithmetic.nms(boxes, np.array([0.9, 0.8]), 0.69).tolist() == [0]


@pytest.mark.parametrize("function", (arithmetic.nms, arithmetic.nms_by_smaller))
def test_suppression_of_nothing_and_of_equals(function):
    assert function(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []
    twins = np.array([[1, 1, 10, 10], [1, 1, 10, 10]], float)
    assert function(twins, np.array([0.9, 0.9]), 0.5).tolist() == [1]


def test_a_face_inside_a_face_goes_only_by_the_smaller():
    boxes = np.array([[1, 1, 100, 100], [30, 30, 60, 60]], float)
    scores = np.array([0.9, 0.8])
    assert arithmetic.nms(boxes, scores, 0.7).tolist() == [0, 1]
    assert arithmetic.nms_by_smaller(boxes, scores, 0.7).tolist() == [0]


def test_squares_keep_the_center_and_the_longer_side():
    squares = arithmetic.square(np.array([[10, 20, 30, 60], [-7.5, 1, 2.5, 5]], float))
    assert squares.tolist() == [[0, 20, 40, 60], [-7, -2, 2, 8]]  # the second: -7.5 and 2.5 cut toward zero


def test_moves_are_in_units_of_the_sides():
    moved = arithmetic.apply_deltas(np.array([[1.0, 1, 10, 20]]), np.array([[0.1, 0.2, -0.1, 0.5]]), np.array([[10.0, 20.0]]))
    assert moved.tolist() == [[2, 5, 9, 30]]


def test_boxes_that_miss_the_photo_are_dropped():
    corners = [[1, 1, 5, 5], [-9, 1, 0, 5], [41, 1, 50, 5], [5, 5, 4, 9], [-3, 28, 1, 35], [1, 31, 5, 40]]
    boxes = np.array(corners, float)
    assert arithmetic.touching(boxes, (40, 30, 3)).tolist() == [boxes[0].tolist(), boxes[4].tolist()]
