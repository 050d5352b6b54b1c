import numpy as np
import pytest

from detector.mtcnn import CELL, Pyramid, scales

SETTINGS = {"minimum_face": 20, "factor": 0.709, "maximum_side": 2000}


def test_scales_start_at_the_smallest_face_and_end_at_the_window():
    found = scales((100, 80), 24, 0.709, 2000)
    assert found[0] == 0.5 and found[1] == pytest.approx(0.5 * 0.709)
    assert 80 * found[-1] >= CELL > 80 * found[-1] * 0.709


def test_scales_of_an_enormous_photo_are_bounded():
    assert max(scales((12000, 9000), **SETTINGS)) * 12000 <= 2000
    assert max(scales((12000, 9000), 20, 0.709, float("inf"))) == 0.6


@pytest.mark.parametrize("shape", ((250, 250), (20, 20), (21, 400), (400, 33), (333, 251), (1200, 800)))
def test_levels_do_not_overlap_and_fit_the_canvas(shape):
    pyramid = Pyramid(shape, scales(shape, **SETTINGS))
    used = np.zeros(pyramid.canvas_size, int)
    for (left, top), (width, height) in zip(pyramid.corners, pyramid.sizes):
        assert left % 2 == 0 and top % 2 == 0
        assert left + width <= used.shape[0] and top + height <= used.shape[1]
        used[left : left + width, top : top + height] += 1
    assert used.max() == 1
    assert used.mean() > 0.5


def test_small_levels_lie_side_by_side_below_larger_ones():
    pyramid = Pyramid((250, 250), scales((250, 250), **SETTINGS))
    area = sum(width * height for width, height in pyramid.sizes)
    assert area / np.prod(pyramid.canvas_size) > 0.88


@pytest.mark.parametrize("shape", ((97, 64), (120, 133)))
def test_the_canvas_gives_what_each_level_gives_alone(detector, shape):
    """Windows inside the levels: equal. The last ones of odd sides see the border repeated instead of nothing."""
    import cv2

    pixels = np.random.default_rng(7).integers(0, 256, (*shape, 3), dtype=np.uint8)
    pyramid = Pyramid(shape, scales(shape, **SETTINGS))
    canvas = pyramid.draw(pixels.astype(np.float32))
    blob = cv2.dnn.blobFromImages([canvas], 1 / 128, mean=(127.5,) * 3, swapRB=True)
    together = detector._forward("det1", blob)["prob1"][0, 1].copy()
    assert together.shape == pyramid.levels.shape
    for number, (width, height) in enumerate(pyramid.sizes):
        level = cv2.resize(pixels, (height, width), interpolation=cv2.INTER_AREA)
        left, top = pyramid.corners[number]
        drawn = canvas[left : left + width, top : top + height]
        assert (drawn == level).mean() > 0.999 and np.abs(drawn - level).max() <= 1  # of uint8, but for rounding a half
        blob = cv2.dnn.blobFromImages([level], 1 / 128, mean=(127.5,) * 3, swapRB=True)
        alone = detector._forward("det1", blob)["prob1"][0, 1]
        assert (pyramid.levels == number).sum() == alone.size
        columns, rows = (alone.shape[0] - width % 2, alone.shape[1] - height % 2)
        ours = together[pyramid.levels == number].reshape(alone.shape)
        assert ours[:columns, :rows] == pytest.approx(alone[:columns, :rows], abs=1e-5)


def test_boxes_are_the_windows_in_the_photo():
    pyramid = Pyramid((100, 60), [0.5, 0.25])
    hits = np.zeros(pyramid.levels.shape, bool)
    (left, top) = pyramid.corners[1]
    hits[3, 2] = hits[left // 2 + 1, top // 2] = True
    cells, levels, boxes = pyramid.select(hits)
    assert levels.tolist() == [0, 1]
    assert boxes.tolist() == [[14, 10, 36, 32], [12, 4, 56, 48]]
    assert hits[cells].all()


def test_windows_across_levels_are_not_selected():
    pyramid = Pyramid((100, 60), [0.5, 0.25])
    cells, levels, boxes = pyramid.select(np.ones(pyramid.levels.shape, bool))
    assert len(boxes) == (pyramid.levels >= 0).sum() < pyramid.levels.size
    assert (boxes[:, 2] <= 104).all() and (boxes[:, 3] <= 64).all()
